//! Each rule on planted text: what it must find, and what it must leave alone.

use super::{File, LINES_MAX, NOT_DETERMINISTIC, blanks, check, lib_order, unfinished};
use crate::ranks::{PLANTED_MAP, Ranks};

const GOOD: &str = "//! Owns nothing.\n\nuse crate::ids::A;\n";

/// What all rules find in a file.
fn found(path: &str, text: &str) -> Vec<String> {
    let findings = check(File { path, text }, &Ranks::parse(PLANTED_MAP));
    findings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_file_passes() {
    assert_eq!(found("src/limits.rs", GOOD), Vec::<String>::new());
}

#[test]
fn a_long_file_and_one_without_a_head_are_found() {
    let long = format!("//! Owns lines.\n{}", "// line\n".repeat(LINES_MAX));
    assert_eq!(found("src/ids.rs", &long), [format!("src/ids.rs:801: 801 lines, more than {LINES_MAX}")]);
    let exact = format!("//! Owns lines.\n{}", "// line\n".repeat(LINES_MAX - 1));
    assert_eq!(found("src/ids.rs", &exact), Vec::<String>::new());
    let headless = found("src/ids.rs", "use std::fmt;\n");
    assert_eq!(headless, ["src/ids.rs:1: does not open with what the file owns (//!)"]);
}

#[test]
fn blanks_are_found() {
    let at = |text| blanks(File { path: "f", text }).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(at("a\n\tb\n"), ["f:2: a tab"]);
    assert_eq!(at("a \n"), ["f:1: blanks at the end of the line"]);
    assert_eq!(at("a"), ["f:1: must end with one line end"]);
    assert_eq!(at("a\n\n"), ["f:2: must end with one line end"]);
    assert_eq!(at("a\n\nb\n"), Vec::<String>::new());
}

#[test]
fn marks_of_unfinished_work_are_found_in_comments_too() {
    for (first, second) in [("TO", "DO"), ("FIX", "ME"), ("X", "XX")] {
        let text = format!("a\n// {first}{second}: later\n");
        let findings = unfinished(File { path: "f", text: &text });
        assert_eq!(findings.len(), 1, "{text}");
        assert_eq!(findings[0].line, 2);
    }
    assert_eq!(unfinished(File { path: "f", text: "a\ndbg!(x);\n" })[0].line, 2);
    assert!(unfinished(File { path: "f", text: "// dbg!(x)\nmydbg!(x);\n" }).is_empty());
}

#[test]
fn a_wrong_way_import_is_found_and_a_right_one_is_not() {
    let import = |room: &str| format!("//! Owns an import.\n\nuse crate::{room}::X;\n");
    for (path, room) in [
        ("src/ids.rs", "limits"),
        ("src/command/txn.rs", "api"),
        ("src/tls/mod.rs", "api"),
        ("src/config/mod.rs", "app"),
        ("src/command/txn_test.rs", "runtime"),
        ("src/unknown/mod.rs", "ids"),
    ] {
        let mut parts = path.trim_end_matches(".rs").split('/');
        let importer = parts.nth(1).unwrap();
        let expected = format!("{path}:3: {importer} must not import {room}");
        assert_eq!(found(path, &import(room)), [expected]);
    }
    for (path, room) in [
        ("src/api/mod.rs", "command"),
        ("src/app/mod.rs", "config"),
        ("src/lib.rs", "api"),
        ("src/main.rs", "app"),
    ] {
        assert_eq!(found(path, &import(room)), Vec::<String>::new(), "{path} {room}");
    }
    let climbing = "//! Owns a climb.\n\nuse super::super::api::X;\n";
    assert_eq!(found("src/command/txn.rs", climbing), ["src/command/txn.rs:3: command must not import api"]);
    assert_eq!(found("src/command/mod.rs", "//! Owns.\n\nuse super::api::X;\n").len(), 1);
    let text = "//! Owns text: crate::api.\n\nconst X: &str = \"crate::api::x\"; // crate::api\n";
    assert_eq!(found("src/ids.rs", text), Vec::<String>::new());
}

#[test]
fn what_the_simulator_cannot_run_is_found_below_the_line_only() {
    assert_eq!(found("src/ids.rs", "//! Owns a field.\n\nfn f() { x.awaited(); }\n"), Vec::<String>::new());
    for banned in NOT_DETERMINISTIC {
        let text = format!("//! Owns trouble.\n\nfn f() {{ x{banned}(); {banned} y }}\n");
        let path = "src/command/codec.rs";
        let findings = found(path, &text);
        assert!(findings.contains(&format!("{path}:3: {banned} below the determinism line")), "{findings:?}");
        for allowed in ["src/runtime/clock.rs", "src/command/codec_test.rs", "tests/sim/main.rs"] {
            assert_eq!(found(allowed, &text), Vec::<String>::new(), "{allowed} {banned}");
        }
        let in_tests = format!("//! Owns tests.\n\n#[cfg(test)]\nmod tests {{\n    {banned}\n}}\n");
        assert_eq!(found(path, &in_tests), Vec::<String>::new(), "{banned}");
    }
    assert_eq!(
        found("src/ids.rs", "//! Owns words.\n\nstruct MyHashMapping; // HashMap\n"),
        Vec::<String>::new()
    );
}

#[test]
fn lib_must_follow_the_table() {
    let ranks = Ranks::parse(PLANTED_MAP);
    let at = |text| {
        lib_order(File { path: "l", text }, &ranks).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(at("pub mod ids;\npub mod command;\npub mod wire;\npub mod app;\n"), Vec::<String>::new());
    assert_eq!(at("pub mod wire;\npub mod ids;\n"), ["l:2: ids stands below a room of higher rank"]);
    assert_eq!(at("pub mod extra;\n"), ["l:1: extra is not in the table of rooms"]);
}
