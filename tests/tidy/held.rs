//! Tests that the map names: they exist, so that what it says is held is held.
//!
//! Owns: how that table is read. Must never: know what the tests are about.

/// The heading that the table stands under.
const SECTION: &str = "## Fixes of etcd's\n";

/// A row: a file, and tests that are in it.
pub struct Held<'t> {
    pub file: &'t str,
    pub tests: Vec<&'t str>,
}

/// The rows of the table in the map, or one that is not understood.
pub fn held(map: &str) -> Result<Vec<Held<'_>>, &str> {
    let (_, section) = map.split_once(SECTION).expect("the map has that section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let table = section.lines().filter(|line| line.trim_start().starts_with('|'));
    // Behind its head and the line below that.
    table.skip(2).map(|line| row(line).ok_or(line)).collect()
}

fn row(line: &str) -> Option<Held<'_>> {
    let mut columns = line.strip_prefix("| ")?.strip_suffix(" |")?.rsplit(" | ");
    let (tests, file) = (columns.next()?, columns.next()?);
    let file = file.trim_start_matches("| ").strip_prefix('`')?.strip_suffix('`')?;
    let tests: Vec<_> = tests.split('`').filter(|name| !name.trim().is_empty()).collect();
    (!tests.is_empty()).then_some(Held { file, tests })
}

/// Whether a source has a test of this name.
pub fn has_test(source: &str, name: &str) -> bool {
    let declared = format!("fn {name}(");
    source.match_indices(&declared).any(|(at, _)| {
        // Nothing but attributes and what it is documented by stands between.
        let before = source[..at].trim_end();
        let mut lines = before.lines().rev().map(str::trim);
        lines.by_ref().take_while(|line| line.starts_with("#[")).any(|line| line == "#[test]")
    })
}

#[test]
fn a_test_is_one_by_its_attribute() {
    let source = "#[test]\n#[ignore = \"slow\"]\nfn a() {}\n\nfn b() {}\n    #[test]\n    fn c(\n";
    assert!(["a", "c"].iter().all(|name| has_test(source, name)));
    assert!(["b", "d", ""].iter().all(|name| !has_test(source, name)));
}

#[test]
fn rows_have_a_file_and_its_tests() {
    let map = "## Fixes of etcd's\n\nText.\n\n| fix | file | tests |\n| --- | --- | --- |\n\
               | `a` and b | `x.rs` | `one` `two` |\n| | `y.rs` | `three` |\n\n## More\n\n| c | `z.rs` | `four` |\n";
    let rows: Vec<_> = held(map).ok().unwrap().into_iter().map(|row| (row.file, row.tests)).collect();
    assert_eq!(rows, [("x.rs", vec!["one", "two"]), ("y.rs", vec!["three"])]);
}

#[test]
fn a_row_that_is_not_understood_is_named() {
    let head = "## Fixes of etcd's\n\n| fix | file | tests |\n| --- | --- | --- |\n| a | `x.rs` | `one` |\n";
    for wrong in
        ["| b | y.rs | `two` |", "| b | `y.rs` | `two`", "| b | `y.rs` |  |", "|b | `y.rs` | `two` |"]
    {
        assert_eq!(held(&format!("{head}{wrong}\n")).err(), Some(wrong));
    }
}
