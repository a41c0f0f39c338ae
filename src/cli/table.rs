//! etcdctl's tables: of members, and of what is asked of each endpoint.
//!
//! Owns: their layout. Must never: break a cell into lines. Printed for `--write-out table`.

use std::io::{self, Write};

use super::args::UsageError;
use super::reply::{Health, Reply};
use super::simple::{self, Bytes, member_columns, status_columns};
use super::spec::Command;

/// The commands that have a table.
const TABLES: [&str; 5] =
    ["member list", "endpoint status", "endpoint health", "endpoint hashkv", "snapshot"];
/// The commands that print the same in every format.
const FORMLESS: [&str; 5] = ["auth enable", "auth disable", "compact", "completion", "defrag"];

/// Refuses a command that has no table before it does anything.
pub fn check(command: &Command) -> Result<(), UsageError> {
    let is_fine = TABLES.iter().chain(&FORMLESS).any(|name| *name == command.name);
    if is_fine { Ok(()) } else { Err(UsageError::Format("table")) }
}

pub fn write(out: &mut impl Write, reply: &Reply) -> io::Result<()> {
    match reply {
        Reply::Members(response) => draw(
            out,
            &["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"],
            &response.members.iter().map(|member| member_columns(member).to_vec()).collect::<Vec<_>>(),
        ),
        Reply::Status(answers) => draw(
            out,
            &[
                "ENDPOINT",
                "ID",
                "VERSION",
                "STORAGE VERSION",
                "DB SIZE",
                "IN USE",
                "PERCENTAGE NOT IN USE",
                "QUOTA",
                "IS LEADER",
                "IS LEARNER",
                "RAFT TERM",
                "RAFT INDEX",
                "RAFT APPLIED INDEX",
                "ERRORS",
                "DOWNGRADE TARGET VERSION",
                "DOWNGRADE ENABLED",
            ],
            &answers
                .iter()
                .map(|(endpoint, answer)| status_columns(endpoint, answer).to_vec())
                .collect::<Vec<_>>(),
        ),
        Reply::Health(healths) => {
            let row = |health: &Health| {
                let error = health.error.clone().unwrap_or_default();
                vec![
                    health.endpoint.clone(),
                    health.error.is_none().to_string(),
                    format!("{:?}", health.took),
                    error,
                ]
            };
            draw(out, &["ENDPOINT", "HEALTH", "TOOK", "ERROR"], &healths.iter().map(row).collect::<Vec<_>>())
        }
        Reply::Hashes(answers) => draw(
            out,
            &["ENDPOINT", "HASH"],
            &answers
                .iter()
                .map(|(endpoint, answer)| vec![endpoint.clone(), answer.hash.to_string()])
                .collect::<Vec<_>>(),
        ),
        // What has no table was refused before anything was asked, or says the same in every format.
        reply => simple::write(out, reply, Bytes::Plain),
    }
}

/// Headers stand in the middle, and cells to the right.
pub fn draw(out: &mut impl Write, headers: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = headers
        .iter()
        .enumerate()
        .map(|(column, header)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell));
            cells.chain([width(header)]).max().unwrap_or(0)
        })
        .collect();
    let rule = |left: &str, between: &str, right: &str| {
        let dashes: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}", dashes.join(between))
    };
    writeln!(out, "{}", rule("┌", "┬", "┐"))?;
    let titles: Vec<String> =
        headers.iter().zip(&widths).map(|(header, &width)| format!(" {header:^width$} ")).collect();
    writeln!(out, "│{}│", titles.join("│"))?;
    if !rows.is_empty() {
        writeln!(out, "{}", rule("├", "┼", "┤"))?;
    }
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!(" {cell:>width$} ")).collect();
        writeln!(out, "│{}│", cells.join("│"))?;
    }
    writeln!(out, "{}", rule("└", "┴", "┘"))
}

#[cfg(test)]
mod tests {
    use super::draw;

    fn drawn(headers: &[&str], rows: &[&[&str]]) -> String {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
        let mut out = Vec::new();
        draw(&mut out, headers, &rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// What etcdctl 3.5.30 prints.
    #[test]
    fn tables_are_drawn_as_etcdctl_draws_them() {
        assert_eq!(
            drawn(&["ENDPOINT", "HEALTH", "NAME"], &[&["127.0.0.1:23790", "true", "default"]]),
            "\
┌─────────────────┬────────┬─────────┐
│    ENDPOINT     │ HEALTH │  NAME   │
├─────────────────┼────────┼─────────┤
│ 127.0.0.1:23790 │   true │ default │
└─────────────────┴────────┴─────────┘
"
        );
        assert_eq!(
            drawn(&["ENDPOINT", "HASH"], &[]),
            "\
┌──────────┬──────┐
│ ENDPOINT │ HASH │
└──────────┴──────┘
"
        );
    }
}
