//! The rules of the house that no compiler and no linter checks, each a function from a file to findings.
//!
//! Owns: the rules. Every one has a test on planted text below: a rule that finds nothing there checks nothing.

use std::fmt;

use crate::ranks::{Ranks, imports};
use crate::source::{code_only, is_word, is_word_before, line_of, without_tests};

/// No file is longer.
const LINES_MAX: usize = 800;

/// What the simulator could not run, or not the same way twice.
const NOT_DETERMINISTIC: [&str; 9] = [
    "Instant::now",
    "SystemTime",
    "thread::",
    "async fn",
    "async move",
    ".await",
    "HashMap",
    "HashSet",
    "getrandom",
];

/// A file of the repository.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// From the root, with slashes: `src/ids.rs`.
    pub path: &'a str,
    /// Its content.
    pub text: &'a str,
}

/// Something that is against a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

impl File<'_> {
    fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.to_owned(), line, what: what.into() }
    }

    /// The room of a file below `src`; `None` for the two that belong to none, `lib.rs` and `main.rs`, and files elsewhere.
    fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        if matches!(inside, "lib.rs" | "main.rs") {
            return None;
        }
        Some(inside.split_once('/').map_or_else(|| inside.trim_end_matches(".rs"), |(room, _)| room))
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("_test.rs") || self.path.starts_with("tests/")
    }

    fn depth(&self) -> usize {
        let parts = self.path.matches('/').count();
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts + usize::from(self.is_test()) }
    }
}

/// All rules on one Rust file.
pub fn check(file: File<'_>, ranks: &Ranks) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(long(file));
    findings.extend(without_head(file));
    findings.extend(blanks(file));
    findings.extend(unfinished(file));
    findings.extend(wrong_way(file, ranks));
    findings.extend(not_deterministic(file, ranks));
    findings
}

fn long(file: File<'_>) -> Option<Finding> {
    let lines = file.text.lines().count();
    (lines > LINES_MAX).then(|| file.finding(lines, format!("{lines} lines, more than {LINES_MAX}")))
}

fn without_head(file: File<'_>) -> Option<Finding> {
    (!file.text.starts_with("//! ")).then(|| file.finding(1, "does not open with what the file owns (//!)"))
}

/// Tabs, trailing blanks, a missing line end. For other text files, too.
pub fn blanks(file: File<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        if line.contains('\t') {
            findings.push(file.finding(number + 1, "a tab"));
        }
        if line.ends_with(char::is_whitespace) {
            findings.push(file.finding(number + 1, "blanks at the end of the line"));
        }
    }
    if !file.text.ends_with('\n') || file.text.ends_with("\n\n") {
        findings.push(file.finding(file.text.lines().count(), "must end with one line end"));
    }
    findings
}

/// Marks of unfinished work, in comments as well. They are put together here so that this file has none.
pub fn unfinished(file: File<'_>) -> Vec<Finding> {
    let marks = [["TO", "DO"], ["FIX", "ME"], ["X", "XX"]].map(|halves| halves.concat());
    let mut findings = Vec::new();
    for mark in marks {
        for (at, _) in file.text.match_indices(&mark) {
            findings.push(file.finding(line_of(file.text, at), format!("unfinished: {mark}")));
        }
    }
    let code = code_only(file.text);
    for (at, _) in code.match_indices("dbg!") {
        if !is_word_before(&code, at) {
            findings.push(file.finding(line_of(&code, at), "a debugging print"));
        }
    }
    findings
}

fn wrong_way(file: File<'_>, ranks: &Ranks) -> Vec<Finding> {
    let Some(room) = file.room() else { return Vec::new() };
    let code = code_only(file.text);
    imports(&code, file.depth())
        .into_iter()
        .filter(|(_, imported)| !ranks.allows(room, imported))
        .map(|(line, imported)| file.finding(line, format!("{room} must not import {imported}")))
        .collect()
}

fn not_deterministic(file: File<'_>, ranks: &Ranks) -> Vec<Finding> {
    if file.is_test() || !file.room().is_some_and(|room| ranks.is_below_the_line(room)) {
        return Vec::new();
    }
    let code = code_only(file.text);
    let code = without_tests(&code);
    let mut findings = Vec::new();
    for banned in NOT_DETERMINISTIC {
        for (at, _) in code.match_indices(banned) {
            // `.awaited` is a field, and `thread::` goes on with a name.
            let is_longer = banned == ".await" && code[at + banned.len()..].starts_with(is_word);
            if !is_longer && (banned.starts_with('.') || !is_word_before(code, at)) {
                findings
                    .push(file.finding(line_of(code, at), format!("{banned} below the determinism line")));
            }
        }
    }
    findings
}

/// The modules of `lib.rs` stand in the order of their ranks and are all in the table. (Within a
/// rank the formatter sorts them.)
pub fn lib_order(file: File<'_>, ranks: &Ranks) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut last = 0;
    for (number, line) in file.text.lines().enumerate() {
        let Some(module) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) else {
            continue;
        };
        match ranks.rank(module) {
            None => findings.push(file.finding(number + 1, format!("{module} is not in the table of rooms"))),
            Some(rank) if rank < last => {
                findings
                    .push(file.finding(number + 1, format!("{module} stands below a room of higher rank")));
            }
            Some(rank) => last = rank,
        }
    }
    findings
}

#[cfg(test)]
#[path = "rules_test.rs"]
mod tests;
