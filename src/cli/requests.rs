//! Parsed arguments to protobuf requests.
//!
//! Owns: what the flags mean. Must never: send anything. Used by `run` for commands and by `txn` for its lines.

use bytes::Bytes;

use super::args::{Parsed, UsageError};
use crate::config::ValueError;
use crate::wire::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::wire::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, MemberAddRequest, MemberUpdateRequest,
    PutRequest, RangeRequest, WatchCreateRequest,
};

/// The end of an interval that has none, and the first key there can be (API reference, section 0.3).
pub const ZERO: &[u8] = b"\0";

/// The request of `get`.
pub fn range(parsed: &Parsed) -> Result<RangeRequest, UsageError> {
    if parsed.switch("keys-only")? && parsed.switch("count-only")? {
        return Err(UsageError::Flags(
            "--keys-only and --count-only cannot be set at the same time, choose one",
        ));
    }
    let (key, range_end) =
        interval(parsed, "get command needs one argument as key and an optional argument as range_end")?;
    let orders = [("ASCEND", SortOrder::Ascend), ("DESCEND", SortOrder::Descend)];
    let targets = [
        ("CREATE", SortTarget::Create),
        ("KEY", SortTarget::Key),
        ("MODIFY", SortTarget::Mod),
        ("VALUE", SortTarget::Value),
        ("VERSION", SortTarget::Version),
    ];
    let order = parsed.word("order", &orders, "ASCEND or DESCEND")?;
    let target = parsed.word("sort-by", &targets, "CREATE, KEY, MODIFY, VALUE or VERSION")?;
    Ok(RangeRequest {
        key,
        range_end,
        limit: parsed.parse("limit", number)?.unwrap_or(0),
        revision: parsed.parse("rev", number)?.unwrap_or(0),
        sort_order: order.map_or(0, |order| order as i32),
        sort_target: target.map_or(0, |target| target as i32),
        serializable: parsed.word("consistency", &[("l", false), ("s", true)], "l or s")?.unwrap_or(false),
        keys_only: parsed.switch("keys-only")?,
        count_only: parsed.switch("count-only")?,
        ..RangeRequest::default()
    })
}

/// The request of `put`; `read_value` is asked when the value is not among the arguments.
pub fn put(parsed: &Parsed, read_value: impl FnOnce() -> Option<Vec<u8>>) -> Result<PutRequest, UsageError> {
    const NEEDS: &str = "put command needs 1 argument and input from stdin or 2 arguments";
    let ignore_value = parsed.switch("ignore-value")?;
    let (key, value) = match (parsed.arguments.as_slice(), ignore_value) {
        ([key], true) => (key, Vec::new()),
        ([_, ..], true) => {
            return Err(UsageError::Arguments(
                "put command needs only 1 argument when 'ignore-value' is set",
            ));
        }
        ([key], false) => (key, read_value().ok_or(UsageError::Arguments(NEEDS))?),
        ([key, value], false) => (key, value.clone()),
        _ => return Err(UsageError::Arguments(NEEDS)),
    };
    Ok(PutRequest {
        key: Bytes::copy_from_slice(key),
        value: value.into(),
        lease: parsed.parse("lease", lease)?.unwrap_or(0),
        prev_kv: parsed.switch("prev-kv")?,
        ignore_value,
        ignore_lease: parsed.switch("ignore-lease")?,
    })
}

/// The request of `del`.
pub fn delete(parsed: &Parsed) -> Result<DeleteRangeRequest, UsageError> {
    let (key, range_end) =
        interval(parsed, "del command needs one argument as key and an optional argument as range_end")?;
    Ok(DeleteRangeRequest { key, range_end, prev_kv: parsed.switch("prev-kv")? })
}

/// The request of `compact`.
pub fn compact(parsed: &Parsed) -> Result<CompactionRequest, UsageError> {
    let [revision] = parsed.arguments.as_slice() else {
        return Err(UsageError::Arguments("compaction command needs 1 argument"));
    };
    let text = String::from_utf8_lossy(revision);
    let bad = |reason| UsageError::Value { flag: "revision", value: text.to_string(), reason };
    Ok(CompactionRequest { revision: number(&text).map_err(bad)?, physical: parsed.switch("physical")? })
}

/// Key and range end by the rules of etcdctl: an empty key with `--prefix` or `--from-key` means every key.
fn interval(parsed: &Parsed, needs: &'static str) -> Result<(Bytes, Bytes), UsageError> {
    let (prefix, from_key) = (parsed.switch("prefix")?, parsed.switch("from-key")?);
    if prefix && from_key {
        return Err(UsageError::Flags("--prefix and --from-key cannot be set at the same time, choose one"));
    }
    let (key, end) = match parsed.arguments.as_slice() {
        [key] => (key, None),
        [_, _] if prefix || from_key => {
            let only = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
            return Err(UsageError::Arguments(only));
        }
        [key, end] => (key, Some(end)),
        _ => return Err(UsageError::Arguments(needs)),
    };
    let zero = || Bytes::from_static(ZERO);
    Ok(match (key.is_empty(), prefix, from_key) {
        (true, true, _) | (true, _, true) => (zero(), zero()),
        (false, true, _) => (Bytes::copy_from_slice(key), prefix_end(key)),
        (false, _, true) => (Bytes::copy_from_slice(key), zero()),
        (_, false, false) => {
            (Bytes::copy_from_slice(key), end.map_or_else(Bytes::new, |end| Bytes::copy_from_slice(end)))
        }
    })
}

/// The first key behind all that begin with `prefix`: its last byte that can be increased is, what follows is dropped.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(ZERO)
}

/// The request of `watch`.
pub fn watch(parsed: &Parsed) -> Result<WatchCreateRequest, UsageError> {
    let prefix = parsed.switch("prefix")?;
    if prefix && parsed.arguments.len() == 2 {
        return Err(UsageError::Flags("`range_end` and `--prefix` are mutually exclusive"));
    }
    let (key, range_end) =
        interval(parsed, "watch command needs one argument as key and an optional argument as range_end")?;
    Ok(WatchCreateRequest {
        key,
        range_end,
        start_revision: parsed.parse("rev", number)?.unwrap_or(0),
        prev_kv: parsed.switch("prev-kv")?,
        progress_notify: parsed.switch("progress-notify")?,
        ..WatchCreateRequest::default()
    })
}

/// The request of `lease grant`.
pub fn lease_grant(parsed: &Parsed) -> Result<LeaseGrantRequest, UsageError> {
    let [ttl] = parsed.arguments.as_slice() else {
        return Err(UsageError::Arguments("lease grant command needs TTL argument"));
    };
    let ttl = std::str::from_utf8(ttl).ok().and_then(|text| number(text).ok());
    let ttl = ttl.ok_or(UsageError::Arguments("bad TTL: expected a number of seconds"))?;
    Ok(LeaseGrantRequest { ttl, id: 0 })
}

/// The lease that a command is about.
pub fn lease_id(parsed: &Parsed) -> Result<i64, UsageError> {
    let [id] = parsed.arguments.as_slice() else {
        return Err(UsageError::Arguments("this lease command needs lease ID as argument"));
    };
    let id = std::str::from_utf8(id).ok().and_then(|text| lease(text).ok());
    id.ok_or(UsageError::Arguments("bad lease ID: expected it in hexadecimal"))
}

/// What the node will be called, and the request of `member add`.
pub fn member_add(parsed: &Parsed) -> Result<(String, MemberAddRequest), UsageError> {
    let name = match parsed.arguments.as_slice() {
        [name] => String::from_utf8_lossy(name).into_owned(),
        [] => return Err(UsageError::Arguments("member name not provided")),
        _ => return Err(UsageError::Arguments("too many arguments")),
    };
    Ok((name, MemberAddRequest { peer_urls: peer_urls(parsed)?, is_learner: parsed.switch("learner")? }))
}

/// The request of `member update`.
pub fn member_update(parsed: &Parsed) -> Result<MemberUpdateRequest, UsageError> {
    Ok(MemberUpdateRequest { id: member_id(parsed)?, peer_urls: peer_urls(parsed)? })
}

/// The member that a command is about.
pub fn member_id(parsed: &Parsed) -> Result<u64, UsageError> {
    let [id] = parsed.arguments.as_slice() else {
        return Err(UsageError::Arguments("this command needs one argument, the member ID"));
    };
    let id = std::str::from_utf8(id).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    id.ok_or(UsageError::Arguments("bad member ID: expected it in hexadecimal"))
}

fn peer_urls(parsed: &Parsed) -> Result<Vec<String>, UsageError> {
    let text = parsed.text("peer-urls").unwrap_or_default();
    let urls: Vec<String> =
        text.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect();
    if urls.is_empty() { Err(UsageError::Arguments("member peer urls not provided")) } else { Ok(urls) }
}

/// A time in whole seconds.
pub fn seconds(text: &str) -> Result<i64, ValueError> {
    number(text).and_then(|seconds| if seconds > 0 { Ok(seconds) } else { Err(ValueError::Number) })
}

/// A revision.
pub fn revision(text: &str) -> Result<i64, ValueError> {
    number(text)
}

fn number(text: &str) -> Result<i64, ValueError> {
    text.parse().map_err(|_| ValueError::Number)
}

fn lease(text: &str) -> Result<i64, ValueError> {
    i64::from_str_radix(text, 16).map_err(|_| ValueError::Number)
}
