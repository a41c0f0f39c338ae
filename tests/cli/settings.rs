//! What `covey config check` says of settings, and with which code it ends.

use std::fs;

use covey::config::EXIT_CONFIG;
use tempfile::TempDir;

use crate::process::{Outcome, run};

/// What is said of a file with this in it; where its name would stand in that, there is FILE.
fn check(text: &str, more: &[&str]) -> Outcome {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("covey.toml");
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let mut outcome = run(&[&["config", "check", file], more].concat());
    for said in [&mut outcome.stdout, &mut outcome.stderr] {
        *said = said.replace(file, "FILE");
    }
    // It is the settings' directory alone: nothing was started in it, or touched.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    outcome
}

#[test]
fn settings_that_are_right_are_listed_with_where_each_comes_from() {
    let checked = check("data-dir = \"kept\"\n\n[store]\nquota-bytes = 1000000\n", &["--name", "box"]);
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""), "{checked:?}");
    for line in [
        "--data-dir=kept  # FILE:1: key data-dir",
        "--quota-backend-bytes=1000000  # FILE:4: key store.quota-bytes",
        "--name=box  # flag --name",
        "--solo=false  # default",
    ] {
        assert!(checked.stdout.lines().any(|said| said == line), "{line}: {checked:?}");
    }
}

#[test]
fn settings_that_are_wrong_are_named_with_their_line() {
    for (text, said) in [
        (
            "data-dir = \"kept\"\n[store]\nquota-bytes = \"lots\"\n",
            "Error: FILE:3: key \"store.quota-bytes\" must be a whole number\n",
        ),
        ("data-dir = \"kept\"\n[stor]\nquota-bytes = 1\n", "Error: FILE:2: unknown key \"stor\"\n"),
        ("\n\nquota = 1\n", "Error: FILE:3: unknown key \"quota\"\n"),
    ] {
        let checked = check(text, &[]);
        let said = (i32::from(EXIT_CONFIG), "", said);
        assert_eq!((checked.code, checked.stdout.as_str(), checked.stderr.as_str()), said);
    }
    let broken = check("data-dir = \"kept\"\n[store\n", &[]);
    assert_eq!(broken.code, i32::from(EXIT_CONFIG), "{broken:?}");
    assert!(broken.stderr.starts_with("Error: FILE:2: "), "{broken:?}");
}
