//! Go's quoted strings, which etcdctl reads in transactions and prints as fields.
//!
//! Owns: both directions. Must never: fail on bytes that are no UTF-8: keys and values may be any.

use std::fmt::Write as _;

/// Reads a quoted string from the front of `text`, `"with \"escapes\""` or `` `raw` ``: its bytes, and what follows.
pub fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    if let Some(raw) = text.strip_prefix('`') {
        let (inside, rest) = raw.split_once('`')?;
        return Some((inside.as_bytes().to_vec(), rest));
    }
    let mut rest = text.strip_prefix('"')?;
    let mut bytes = Vec::new();
    loop {
        let mut chars = rest.chars();
        match chars.next()? {
            '"' => return Some((bytes, chars.as_str())),
            '\n' => return None,
            '\\' => rest = escape(chars.as_str(), &mut bytes)?,
            c => {
                push(&mut bytes, c);
                rest = chars.as_str();
            }
        }
    }
}

/// Reads what follows a backslash into `bytes`: what is left after it.
fn escape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let mut chars = text.chars();
    let kind = chars.next()?;
    let rest = chars.as_str();
    let one = match kind {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' | '"' => u8::try_from(kind).ok()?,
        'x' => {
            let (value, rest) = digits(rest, 2, 16)?;
            bytes.push(u8::try_from(value).ok()?);
            return Some(rest);
        }
        '0'..='7' => {
            let (value, rest) = digits(text, 3, 8)?;
            bytes.push(u8::try_from(value).ok()?);
            return Some(rest);
        }
        'u' | 'U' => {
            let (value, rest) = digits(rest, if kind == 'u' { 4 } else { 8 }, 16)?;
            push(bytes, char::from_u32(value)?);
            return Some(rest);
        }
        _ => return None,
    };
    bytes.push(one);
    Some(rest)
}

fn digits(text: &str, count: usize, radix: u32) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(count)?;
    // from_str_radix takes a sign, too.
    let value =
        digits.chars().all(|c| c.is_digit(radix)).then(|| u32::from_str_radix(digits, radix).ok())??;
    Some((value, rest))
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Quotes bytes as Go's `%q` does.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| quote_char(&mut out, c));
        for &byte in chunk.invalid() {
            hex(&mut out, 'x', u32::from(byte), 2);
        }
    }
    out.push('"');
    out
}

fn quote_char(out: &mut String, c: char) {
    let short = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{b}' => "\\v",
        c if is_printable(c) => return out.push(c),
        c if c.is_ascii() => return hex(out, 'x', c.into(), 2),
        c if u32::from(c) < 0x1_0000 => return hex(out, 'u', c.into(), 4),
        c => return hex(out, 'U', c.into(), 8),
    };
    out.push_str(short);
}

fn hex(out: &mut String, kind: char, value: u32, width: usize) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\\{kind}{value:0width$x}");
}

/// Rust's own idea of printable is the one that `escape_debug` has; only quotes and backslashes, dealt with before, differ.
fn is_printable(c: char) -> bool {
    c == '\'' || c.escape_debug().count() == 1
}

#[cfg(test)]
mod tests {
    use super::{quote, unquote};

    #[test]
    fn go_strings_are_read() {
        let read = |text| unquote(text).map(|(bytes, rest)| (bytes, rest.to_owned()));
        let some = |bytes: &[u8], rest: &str| Some((bytes.to_vec(), rest.to_owned()));
        assert_eq!(read(r#""a b") > "0""#), some(b"a b", ") > \"0\""));
        assert_eq!(read(r#""\a\b\f\n\r\t\v\\\"""#), some(b"\x07\x08\x0c\n\r\t\x0b\\\"", ""));
        assert_eq!(
            read(r#""\xff\000\377\u00e9\U0001f600é""#),
            some("\u{0}".as_bytes(), "").map(|_| {
                let mut bytes = vec![0xff, 0, 0xff];
                bytes.extend_from_slice("é😀é".as_bytes());
                (bytes, String::new())
            })
        );
        assert_eq!(read("`a\\n\"`x"), some(b"a\\n\"", "x"));
        for bad in [
            "",
            "a",
            "\"a",
            "`a",
            r#""\q""#,
            r#""\x1""#,
            r#""\x+1""#,
            r#""\400""#,
            r#""\ud800""#,
            "\"\\",
            "\"a\nb\"",
            r#""\'""#,
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn bytes_are_quoted_as_in_go() {
        assert_eq!(quote(b"foo"), r#""foo""#);
        assert_eq!(quote(b"a\"b\\c'\n\t\x07\x00\x7f"), r#""a\"b\\c'\n\t\a\x00\x7f""#);
        assert_eq!(quote(b"\xff\xc3\xa9\xe2\x80\x8b\xc2\xa0"), "\"\\xffé\\u200b\\u00a0\"");
        assert_eq!(quote("😀".as_bytes()), "\"😀\"");
    }

    #[test]
    fn what_is_quoted_reads_back() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(unquote(&quote(&all)), Some((all, "")));
    }
}
