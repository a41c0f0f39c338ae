//! Transactions as etcdctl reads them from standard input: comparisons, requests, requests.
//!
//! Owns: the syntax. Must never: know the server's rules (an empty key, too many operations): the server has the last word.
//! Driven by `run`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use lexopt::Parser;

use super::args::{Parsed, UsageError, command};
use super::quote::unquote;
use super::requests;
use crate::wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::wire::etcdserverpb::request_op::Request;
use crate::wire::etcdserverpb::{Compare, RequestOp, TxnRequest};

/// What was wrong with a transaction's text.
#[derive(Debug, thiserror::Error)]
pub enum TxnError {
    /// A line of the first block is no comparison.
    #[error("malformed comparison: {0}")]
    Comparison(String),
    /// A comparison of something that cannot be compared.
    #[error("malformed comparison: {line} (unknown target {target})")]
    Target {
        /// The whole line.
        line: String,
        /// What should be compared.
        target: String,
    },
    /// A comparison with something that is no number.
    #[error("invalid txn compare request: {0} (the operand is not a number)")]
    Operand(String),
    /// A line of the other blocks is no request.
    #[error("invalid txn request: {0}")]
    Request(String),
    /// A request with flags or arguments that do not fit.
    #[error("invalid txn request: {line} ({reason})")]
    Usage {
        /// The whole line.
        line: String,
        /// What does not fit.
        reason: UsageError,
    },
    /// A fourth block.
    #[error("a transaction has three blocks, but something follows: {0}")]
    Rest(String),
}

/// Reads a transaction: three blocks of lines, each ended by an empty line or by the end of the text.
pub fn parse(text: &str) -> Result<TxnRequest, TxnError> {
    let mut lines = text.lines().map(str::trim);
    let mut block = || lines.by_ref().take_while(|line| !line.is_empty()).collect::<Vec<_>>();
    let (compares, success, failure) = (block(), block(), block());
    if let Some(rest) = lines.find(|line| !line.is_empty()) {
        return Err(TxnError::Rest(rest.to_owned()));
    }
    let requests = |lines: Vec<&str>| lines.into_iter().map(request).collect::<Result<_, _>>();
    Ok(TxnRequest {
        compare: compares.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: requests(success)?,
        failure: requests(failure)?,
    })
}

/// Reads `target("key") operator "operand"`.
fn compare(line: &str) -> Result<Compare, TxnError> {
    let malformed = || TxnError::Comparison(line.to_owned());
    let (target, rest) = line.split_once('(').ok_or_else(malformed)?;
    let (key, rest) = unquote(rest.trim_start()).ok_or_else(malformed)?;
    let rest = rest.trim_start().strip_prefix(')').ok_or_else(malformed)?.trim_start();
    let (operator, rest) = rest.split_once(char::is_whitespace).ok_or_else(malformed)?;
    let (operand, rest) = unquote(rest.trim_start()).ok_or_else(malformed)?;
    if !rest.trim().is_empty() {
        return Err(malformed());
    }
    let result = match operator {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => return Err(malformed()),
    };
    let number = |radix| {
        let text = std::str::from_utf8(&operand).ok();
        let number = text.and_then(|text| i64::from_str_radix(text, radix).ok());
        number.ok_or_else(|| TxnError::Operand(line.to_owned()))
    };
    let (target, operand) = match target.trim() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(operand.into())),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        other => return Err(TxnError::Target { line: line.to_owned(), target: other.to_owned() }),
    };
    Ok(Compare {
        result: result as i32,
        target: target as i32,
        key: key.into(),
        target_union: Some(operand),
        ..Compare::default()
    })
}

/// Reads a request: a command line of `get`, `put` or `del` without the flags of the connection.
fn request(line: &str) -> Result<RequestOp, TxnError> {
    let malformed = || TxnError::Request(line.to_owned());
    let mut words = words(line).ok_or_else(malformed)?.into_iter();
    let name = words.next().ok_or_else(malformed)?;
    let usage = |reason| TxnError::Usage { line: line.to_owned(), reason };
    let spec = command(&name).map_err(usage)?;
    let mut parsed = Parsed::default();
    parsed.rest(spec, &mut Parser::from_args(words)).map_err(usage)?;
    let request = match spec.name {
        "get" => requests::range(&parsed).map(Request::RequestRange),
        // The standard input is the transaction itself, so the value must be on the line.
        "put" => requests::put(&parsed, || None).map(Request::RequestPut),
        "del" => requests::delete(&parsed).map(Request::RequestDeleteRange),
        _ => return Err(malformed()),
    };
    Ok(RequestOp { request: Some(request.map_err(usage)?) })
}

/// Splits a line: bare words, `'raw'` and `"with Go's escapes"`. `None` when a quote does not end.
fn words(line: &str) -> Option<Vec<OsString>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = match first {
            '"' => {
                let (bytes, after) = unquote(rest)?;
                rest = after;
                OsString::from_vec(bytes)
            }
            '\'' => {
                let (inside, after) = rest[1..].split_once('\'')?;
                rest = after;
                OsString::from(inside)
            }
            _ => {
                let (word, after) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
                rest = after;
                OsString::from(word)
            }
        };
        words.push(word);
        rest = rest.trim_start();
    }
    Some(words)
}

#[cfg(test)]
#[path = "txn_test.rs"]
mod tests;
