//! Which room may import which: the table in `src/ARCHITECTURE.md`, and the imports in the source.
//!
//! Owns: the reading of both. A room may import those of lower rank, and of its own rank those that the table names before it,
//! unless the rank's line says that its rooms never import each other.

use crate::source::{is_word, is_word_before, line_of};

/// The table.
#[derive(Debug)]
pub struct Ranks {
    rooms: Vec<Room>,
}

#[derive(Debug)]
struct Room {
    name: String,
    rank: usize,
    below_the_line: bool,
    alone_in_rank: bool,
}

impl Ranks {
    /// Reads the table: lines that begin with `R` and a number, or with spaces for more of the same rank.
    pub fn parse(map: &str) -> Self {
        let mut rooms: Vec<Room> = Vec::new();
        let mut below_the_line = true;
        let mut rank = None;
        for line in map
            .lines()
            .skip_while(|line| !line.starts_with("R0 "))
            .take_while(|line| !line.starts_with("```"))
        {
            if line.starts_with("---") {
                below_the_line = false;
                continue;
            }
            if let Some((number, _)) = line.strip_prefix('R').and_then(|rest| rest.split_once(' ')) {
                rank = number.parse().ok();
            }
            let (Some(rank), Some(rest)) = (rank, line.get(3..)) else { continue };
            let (names, help) = rest.split_once("  ").unwrap_or((rest, ""));
            for name in names.split_whitespace() {
                rooms.push(Room {
                    name: name.trim_end_matches('/').to_owned(),
                    rank,
                    below_the_line,
                    alone_in_rank: help.contains("never import each other"),
                });
            }
        }
        Self { rooms }
    }

    /// The names, lowest first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rooms.iter().map(|room| room.name.as_str())
    }

    /// The rank of a room; `None` when the table lacks it.
    pub fn rank(&self, room: &str) -> Option<usize> {
        self.place(room).map(|place| self.rooms[place].rank)
    }

    /// Whether this room must stay deterministic.
    pub fn is_below_the_line(&self, room: &str) -> bool {
        self.place(room).is_some_and(|place| self.rooms[place].below_the_line)
    }

    /// Whether a file of `from` may import `to`; a room that the table lacks may not be imported, nor import.
    pub fn allows(&self, from: &str, to: &str) -> bool {
        let (Some(from), Some(to)) = (self.place(from), self.place(to)) else { return false };
        let same_rank = self.rooms[from].rank == self.rooms[to].rank;
        from == to || (to < from && !(same_rank && self.rooms[from].alone_in_rank))
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.rooms.iter().position(|room| room.name == name)
    }
}

/// The rooms that a file's code names, each with its line. `depth` is how many modules deep the file is: 1 for
/// `a.rs` and `a/mod.rs`, 2 for `a/b.rs`.
pub fn imports(code: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if !is_word_before(code, at) && !code[..at].ends_with('$') {
            heads(&code[at + "crate::".len()..], &mut |room| found.push((line_of(code, at), room)));
        }
    }
    for (at, _) in code.match_indices("super::") {
        if is_word_before(code, at) || code[..at].ends_with("super::") {
            continue;
        }
        let rest = code[at..].trim_start_matches("super::");
        let supers = (code.len() - at - rest.len()) / "super::".len();
        if supers >= depth + inline_depth(&code[..at]) {
            heads(rest, &mut |room| found.push((line_of(code, at), room)));
        }
    }
    found
}

/// The first names of a path, of each branch when it begins with a group.
fn heads(path: &str, take: &mut impl FnMut(String)) {
    let Some(group) = path.strip_prefix('{') else {
        take(path.chars().take_while(|c| is_word(*c)).collect());
        return;
    };
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let head: String =
                    group[start..at].trim_start().chars().take_while(|c| is_word(*c)).collect();
                if !head.is_empty() && head != "self" {
                    take(head);
                }
                start = at + 1;
                if c == '}' {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// How many inline modules are open at the end of this code.
fn inline_depth(code: &str) -> usize {
    let mut open = Vec::new();
    for (at, c) in code.char_indices() {
        match c {
            '{' => {
                let mut words = code[..at].split_whitespace().rev();
                words.next();
                open.push(words.next() == Some("mod"));
            }
            '}' => {
                open.pop();
            }
            _ => {}
        }
    }
    open.iter().filter(|is_mod| **is_mod).count()
}

#[cfg(test)]
pub const PLANTED_MAP: &str = "\
text R0 is not a table

```
R0 ids limits   values
R1 wire/        types
   command/     requests
----------- the line -----------
R2 runtime/     threads
R3 tls/ api/    never import each other
R4 config/ app/  settings
```
R9 nothing/     after the table
";

#[test]
fn the_table_is_read() {
    let ranks = Ranks::parse(PLANTED_MAP);
    let names: Vec<&str> = ranks.names().collect();
    assert_eq!(names, ["ids", "limits", "wire", "command", "runtime", "tls", "api", "config", "app"]);
    let below: Vec<&str> = ranks.names().filter(|room| ranks.is_below_the_line(room)).collect();
    assert_eq!(below, ["ids", "limits", "wire", "command"]);
}

#[test]
fn the_order_is_the_tables() {
    let ranks = Ranks::parse(PLANTED_MAP);
    for (from, to) in
        [("limits", "ids"), ("app", "config"), ("api", "runtime"), ("app", "api"), ("ids", "ids")]
    {
        assert!(ranks.allows(from, to), "{from} {to}");
    }
    for (from, to) in [
        ("ids", "limits"),
        ("config", "app"),
        ("api", "tls"),
        ("tls", "api"),
        ("wire", "api"),
        ("ids", "nowhere"),
        ("nowhere", "ids"),
    ] {
        assert!(!ranks.allows(from, to), "{from} {to}");
    }
}

#[test]
fn imports_are_found_in_every_spelling() {
    let named =
        |code: &str, depth| imports(code, depth).into_iter().map(|(_, room)| room).collect::<Vec<_>>();
    assert_eq!(named("use crate::ids::A;", 1), ["ids"]);
    assert_eq!(named("use crate::{ids::{A, B}, api, self};", 1), ["ids", "api"]);
    assert_eq!(named("let x = crate::api::f(pub(crate) y);", 1), ["api"]);
    assert_eq!(named("$crate::api::f(); mycrate::tls", 1), Vec::<String>::new());
    assert_eq!(named("use super::api::x;", 1), ["api"]);
    assert_eq!(named("use super::{api, tls::x};", 1), ["api", "tls"]);
    assert_eq!(named("use super::b; mod t { use super::super::c; }", 2), Vec::<String>::new());
    assert_eq!(named("mod t { fn f() {} use super::super::super::api; }", 2), ["api"]);
    assert_eq!(imports("\n\nuse crate::ids;", 1)[0].0, 3);
}
