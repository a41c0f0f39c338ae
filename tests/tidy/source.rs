//! Rust source as the rules look at it: without comments and without the insides of strings.
//!
//! Owns: the smallest lexer that tells code from text. Must never: change the number of lines, so that a finding's line
//! is the file's.

/// Blanks comments, string and character literals; everything else, line ends included, stays where it is.
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => find(&chars, at, |rest| rest[0] == '\n'),
            '/' if chars.get(at + 1) == Some(&'*') => block_comment(&chars, at),
            '"' => string(&chars, at),
            'r' | 'b' | 'c' if !follows_word(&chars, at) => match raw_string(&chars, at) {
                Some(end) => end,
                None => at,
            },
            '\'' => character(&chars, at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The code in front of the file's tests: rules about production code stop at its test module.
pub fn without_tests(code: &str) -> &str {
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let at = from + found;
        let mut after = code[at + "#[cfg(test)]".len()..].trim_start();
        while after.starts_with("#[") {
            after = after.split_once(']').map_or("", |(_, rest)| rest).trim_start();
        }
        if after.starts_with("mod ") || after.starts_with("pub(super) mod ") {
            return &code[..at];
        }
        from = at + 1;
    }
    code
}

/// The line, from 1, of a byte offset.
pub fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Whether `text` has a part of a word directly before this offset.
pub fn is_word_before(text: &str, offset: usize) -> bool {
    text[..offset].chars().next_back().is_some_and(is_word)
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn follows_word(chars: &[char], at: usize) -> bool {
    at > 0 && is_word(chars[at - 1])
}

fn find(chars: &[char], from: usize, hit: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|at| hit(&chars[*at..])).unwrap_or(chars.len())
}

fn block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `r"…"`, `r#"…"#`, with `b` or `c` in front; `None` when this is no such thing.
fn raw_string(chars: &[char], start: usize) -> Option<usize> {
    let raw = if chars[start] == 'r' { start } else { start + 1 };
    if chars.get(raw) != Some(&'r') {
        return None;
    }
    let hashes = chars[raw + 1..].iter().take_while(|c| **c == '#').count();
    let open = raw + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let close =
        |rest: &[char]| rest[0] == '"' && rest.len() > hashes && rest[1..=hashes].iter().all(|c| *c == '#');
    Some((find(chars, open + 1, close) + 1 + hashes).min(chars.len()))
}

/// A character literal; a lifetime is left alone.
fn character(chars: &[char], start: usize) -> usize {
    match (chars.get(start + 1), chars.get(start + 2)) {
        (Some('\\'), Some(_)) => (find(chars, start + 3, |rest| rest[0] == '\'') + 1).min(chars.len()),
        (Some(_), Some('\'')) => start + 3,
        _ => start,
    }
}

#[test]
fn code_stays_and_text_goes() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        ("f(\"a\\\"b\") g", "f(      ) g"),
        ("f(r#\"a\"b\"#) br\"x\" g", "f(        )       g"),
        ("'a' '\\'' '\\u{1}' &'a str", "                 &'a str"),
        ("for r in b", "for r in b"),
    ] {
        assert_eq!(code_only(text), code, "{text}");
    }
}

#[test]
fn tests_are_cut_off_but_other_gates_are_not() {
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {}"), "a\n");
    assert_eq!(without_tests("a\n#[cfg(test)]\n#[path = \"x\"]\nmod tests;"), "a\n");
    let gated = "#[cfg(test)]\nuse x;\nfn f() {}";
    assert_eq!(without_tests(gated), gated);
}
