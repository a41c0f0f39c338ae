//! The rules of the house as a test: rooms, sizes, heads, blanks, unfinished work, determinism.
//!
//! Owns: which files are looked at. The rules are in `rules`, the room table in `ranks`, and it is read from
//! `src/ARCHITECTURE.md`, so that the map and the check cannot differ.

mod held;
mod ranks;
mod rules;
mod source;

use std::fs;
use std::io;
use std::path::Path;

use held::{has_test, held};
use ranks::Ranks;
use rules::{File, blanks, check, lib_order, unfinished};

/// Where Rust files of this repository live.
const TREES: [&str; 3] = ["src", "tests", "proto"];
/// Files at the top that are checked for blanks and unfinished work.
const TOP_FILES: [&str; 4] = ["Cargo.toml", ".clippy.toml", ".rustfmt.toml", "config.example.toml"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `path` with one of these endings, by its path from the root.
fn collect(path: &str, endings: &[&str], into: &mut Vec<(String, String)>) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join(path))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    for name in names {
        let path = format!("{path}/{name}");
        if root().join(&path).is_dir() {
            if name != "target" {
                collect(&path, endings, into)?;
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            let text = fs::read_to_string(root().join(&path))?;
            into.push((path, text));
        }
    }
    Ok(())
}

#[test]
fn the_house_is_tidy() -> io::Result<()> {
    let ranks = Ranks::parse(&fs::read_to_string(root().join("src/ARCHITECTURE.md"))?);
    assert!(ranks.names().count() >= 20, "the table of rooms was not understood");
    let mut findings = Vec::new();

    let mut sources = Vec::new();
    for tree in TREES {
        collect(tree, &[".rs"], &mut sources)?;
    }
    assert!(sources.len() > 30, "the sources were not found");
    for (path, text) in &sources {
        let file = File { path, text };
        findings.extend(check(file, &ranks));
        if path == "src/lib.rs" {
            findings.extend(lib_order(file, &ranks));
        }
    }

    let mut texts = Vec::new();
    for tree in TREES {
        collect(tree, &[".proto", ".toml"], &mut texts)?;
    }
    for name in TOP_FILES {
        texts.push((name.to_owned(), fs::read_to_string(root().join(name))?));
    }
    for (path, text) in &texts {
        let file = File { path, text };
        findings.extend(blanks(file));
        findings.extend(unfinished(file));
    }

    let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
    Ok(())
}

/// A fix whose test has gone, or has another name, is held by nothing.
#[test]
fn what_the_map_says_is_tested_is() -> io::Result<()> {
    let map = fs::read_to_string(root().join("src/ARCHITECTURE.md"))?;
    let rows = held(&map).unwrap_or_else(|row| panic!("not understood: {row}"));
    assert!(rows.len() >= 18, "the table of fixes was not understood: {} rows", rows.len());
    let mut missing = Vec::new();
    for row in rows {
        let source = fs::read_to_string(root().join(row.file))?;
        missing.extend(
            row.tests
                .iter()
                .filter(|test| !has_test(&source, test))
                .map(|test| (row.file, *test))
                .map(|(file, test)| format!("{file}: {test}")),
        );
    }
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
    Ok(())
}
