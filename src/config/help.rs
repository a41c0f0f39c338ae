//! The table as text: the options of `covey serve` for people, and the example file.
//!
//! Owns: their layout. Must never: say something that the table does not. Called by the command line.

use std::fmt::Write as _;

use super::table::{Fallback, Kind, SETTINGS, Setting};

/// The options of `covey serve`: flag, what it does, default.
pub fn options() -> String {
    let mut out = String::new();
    for row in &SETTINGS {
        let value = match row.kind {
            Kind::Text => " <text>".to_owned(),
            Kind::Path => " <path>".to_owned(),
            Kind::Bool => String::new(),
            Kind::Number => " <number>".to_owned(),
            Kind::List => " <list>".to_owned(),
            Kind::Choice(words) => format!(" {}", words.join("|")),
        };
        line(&mut out, &format!("  --{}{value}", row.flag));
        line(&mut out, &format!("        {}{}", row.help, default(row)));
    }
    out
}

fn default(row: &Setting) -> String {
    match row.fallback {
        Fallback::Text("") => String::new(),
        Fallback::Text(text) => format!(" (default {text})"),
        Fallback::Number(number) => format!(" (default {number})"),
        Fallback::Derived { rule, .. } => format!(" (default {rule})"),
    }
}

/// All flags, without dashes.
pub fn flags() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|row| row.flag)
}

/// A configuration file in which every setting stands with its default and a comment.
pub fn example() -> String {
    let mut out = String::from(EXAMPLE_HEAD);
    let mut table = "";
    for row in SETTINGS.iter().filter(|row| !row.toml.is_empty()) {
        let (place, key) = row.toml.rsplit_once('.').unwrap_or(("", row.toml));
        out.push('\n');
        if place != table {
            table = place;
            line(&mut out, &format!("[{table}]"));
        }
        line(&mut out, &format!("# {}.", row.help));
        line(&mut out, &format!("# Flag --{}, environment {}.", row.flag, environment(row)));
        line(&mut out, &format!("{key} = {}", value(row)));
    }
    out
}

const EXAMPLE_HEAD: &str = "\
# Every setting of `covey serve` with its default. Use it with --config-file;
# a flag wins over an environment variable, and that over this file.
";

fn environment(row: &Setting) -> String {
    match row.etcd_env() {
        Some(etcd) => format!("{} or {etcd}", row.env()),
        None => row.env(),
    }
}

/// The default in TOML. Defaults contain no character that TOML would want escaped; a test parses the result.
fn value(row: &Setting) -> String {
    let text = row.fallback_text();
    match row.kind {
        Kind::Bool | Kind::Number => text,
        Kind::Text | Kind::Path | Kind::Choice(_) => format!("\"{text}\""),
        Kind::List if text.is_empty() => "[]".to_owned(),
        Kind::List => format!("[\"{text}\"]"),
    }
}

fn line(out: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}
