//! Texts of settings to typed values, by the rules of etcd's flags (which are Go's).
//!
//! Owns: booleans, whole numbers, durations, lists and the retention. Must never: know where a text came from. Called
//! by `serve` for each setting and by the command line for its own flags.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::table::{Kind, SettingId, setting};
use super::url::UrlError;
use crate::api::SignMethod;
use crate::tls::{Protocol, Version};

/// Why a text is not the value it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not one of Go's spellings of a boolean.
    #[error("expected true or false")]
    Bool,
    /// Not a whole number.
    #[error("expected a whole number")]
    Number,
    /// A number outside of what is allowed.
    #[error("must be between {least} and {most}")]
    Range {
        /// The smallest allowed.
        least: u64,
        /// The largest allowed.
        most: u64,
    },
    /// Not a duration such as `1h30m`.
    #[error("expected a duration such as 300ms, 10m or 1h30m")]
    Duration,
    /// Not a retention of the chosen mode.
    #[error("expected {0}")]
    Retention(&'static str),
    /// Not one of the words.
    #[error("expected one of {}", .0.join(", "))]
    Choice(&'static [&'static str]),
    /// Not `name=url`.
    #[error("expected name=url")]
    NamedUrl,
    /// Nothing where something is needed.
    #[error("must not be empty")]
    Empty,
    /// More bytes than allowed.
    #[error("must not be longer than {0} bytes")]
    TooLong(usize),
    /// A control character in something that is printed.
    #[error("must not contain control characters")]
    Control,
    /// The same twice.
    #[error("{0} is listed twice")]
    Twice(String),
    /// Not what `covey node fingerprint` prints.
    #[error(
        "\"{0}\" is no fingerprint: expected 64 hexadecimal digits, as covey node fingerprint prints them"
    )]
    Fingerprint(String),
    /// Not a kind of token with what it takes.
    #[error("expected simple, or jwt,sign-method=METHOD with pub-key=FILE, priv-key=FILE and ttl=DURATION")]
    AuthToken,
    /// Nothing that JSON Web Tokens take.
    #[error("\"{0}\" is none of sign-method, pub-key, priv-key, ttl")]
    JwtOption(String),
    /// Not how tokens can be signed here.
    #[error(
        "\"{name}\" is no sign-method that is supported: {}",
        SignMethod::names().collect::<Vec<_>>().join(", ")
    )]
    SignMethod {
        /// What was asked for.
        name: String,
    },
    /// Not where somebody may be.
    #[error("\"{0}\" is no host, address or host:port")]
    Host(String),
    /// Not what a certificate may be good for.
    #[error("\"{0}\" is no host or address")]
    HostName(String),
    /// Not a version of TLS. etcd's words.
    #[error("unexpected TLS version \"{0}\" (must be one of: TLS1.2, TLS1.3)")]
    TlsVersion(String),
    /// Not a cipher that can be had. etcd's words, and those that can.
    #[error("unexpected TLS cipher suite \"{0}\" (must be one of: {known})", known = Protocol::ciphers_of(Version::Tls12).join(", "))]
    Cipher(String),
    /// Not a URL that fits here.
    #[error(transparent)]
    Url(#[from] UrlError),
}

/// When old revisions are dropped without anybody asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Never.
    Off,
    /// Keep what was current in this much time; never zero.
    Periodic(Duration),
    /// Keep this many revisions; never zero.
    Revisions(i64),
}

/// The spellings that Go's flag package knows.
pub fn boolean(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ValueError::Bool),
    }
}

/// A whole number that may be negative.
pub fn signed(text: &str) -> Result<i64, ValueError> {
    text.parse().map_err(|_| ValueError::Number)
}

/// A whole number within bounds.
pub fn number(text: &str, allowed: RangeInclusive<u64>) -> Result<u64, ValueError> {
    let out_of_range = ValueError::Range { least: *allowed.start(), most: *allowed.end() };
    match text.parse::<i128>() {
        Ok(number) => {
            u64::try_from(number).ok().filter(|number| allowed.contains(number)).ok_or(out_of_range)
        }
        Err(_) => Err(ValueError::Number),
    }
}

/// One of the words that the table lists for this setting.
pub fn choice(text: &str, key: SettingId) -> Result<&'static str, ValueError> {
    let Kind::Choice(words) = setting(key).kind else {
        unreachable!("the table gives {key:?} a choice");
    };
    words.iter().copied().find(|word| *word == text).ok_or(ValueError::Choice(words))
}

/// The parts of a list, trimmed; an empty text has none.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// A duration as Go writes it: numbers with units, largest first by custom only, or a bare `0`.
///
/// Negative ones are refused: no setting has a use for them.
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(ValueError::Duration);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (part, after) = duration_part(rest).ok_or(ValueError::Duration)?;
        nanos = nanos.checked_add(part).ok_or(ValueError::Duration)?;
        rest = after;
    }
    // Go's durations are signed 64-bit nanoseconds.
    let nanos = u64::try_from(nanos).ok().filter(|nanos| i64::try_from(*nanos).is_ok());
    nanos.map(Duration::from_nanos).ok_or(ValueError::Duration)
}

/// One number with its unit, in nanoseconds, and what follows it.
fn duration_part(text: &str) -> Option<(u128, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let scale: u128 = match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        _ => return None,
    };
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        // Digits below a nanosecond are dropped, as in Go.
        place /= 10;
        nanos = nanos.checked_add(u128::from(digit - b'0') * place)?;
    }
    Some((nanos, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// The retention in etcd's formats: a bare number is hours or, in mode `revision`, revisions.
pub fn retention(mode: &str, text: &str) -> Result<AutoCompaction, ValueError> {
    let compaction = if mode == "revision" {
        let expected = ValueError::Retention("a number of revisions");
        let revisions = text.parse::<i64>().ok().filter(|revisions| *revisions >= 0).ok_or(expected)?;
        AutoCompaction::Revisions(revisions)
    } else {
        let expected = ValueError::Retention("a duration such as 10m or 2h, or a number of hours");
        let hours = text.parse::<u32>().ok().map(|hours| Duration::from_secs(u64::from(hours) * 3600));
        AutoCompaction::Periodic(hours.or_else(|| duration(text).ok()).ok_or(expected)?)
    };
    Ok(match compaction {
        AutoCompaction::Periodic(Duration::ZERO) | AutoCompaction::Revisions(0) => AutoCompaction::Off,
        some => some,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{AutoCompaction, ValueError, boolean, duration, list, number, retention};

    #[test]
    fn booleans_are_gos() {
        assert_eq!(["1", "t", "T", "true", "TRUE", "True"].map(boolean), [const { Ok(true) }; 6]);
        assert_eq!(["0", "f", "F", "false", "FALSE", "False"].map(boolean), [const { Ok(false) }; 6]);
        assert_eq!(["", "yes", "tRUE", "2"].map(boolean), [const { Err(ValueError::Bool) }; 4]);
    }

    #[test]
    fn numbers_are_bounded_and_never_wrap() {
        assert_eq!(number("7", 1..=9), Ok(7));
        let range = Err(ValueError::Range { least: 1, most: 9 });
        for text in ["0", "10", "-1", "18446744073709551616"] {
            assert_eq!(number(text, 1..=9), range, "{text}");
        }
        for text in ["", "x", "1.5", "1 ", "0x10"] {
            assert_eq!(number(text, 1..=9), Err(ValueError::Number), "{text}");
        }
    }

    #[test]
    fn durations_are_gos() {
        let nanos = |nanos| Ok(Duration::from_nanos(nanos));
        assert_eq!(duration("0"), nanos(0));
        assert_eq!(duration("1h30m"), nanos(5_400_000_000_000));
        assert_eq!(duration("1.5h"), nanos(5_400_000_000_000));
        assert_eq!(duration(".5s"), nanos(500_000_000));
        assert_eq!(duration("300ms"), nanos(300_000_000));
        assert_eq!(duration("7us"), nanos(7_000));
        assert_eq!(duration("7\u{b5}s1ns"), nanos(7_001));
        assert_eq!(duration("0.0000000019s"), nanos(1));
        for text in [
            "",
            "+",
            "1",
            "h",
            ".h",
            "1hh",
            "-1s",
            "1 s",
            "1d",
            "2562048h",
            "1s2",
            "99999999999999999999999999999999999999999s",
        ] {
            assert_eq!(duration(text), Err(ValueError::Duration), "{text}");
        }
    }

    #[test]
    fn retention_follows_the_mode() {
        let hours = |hours: u64| Ok(AutoCompaction::Periodic(Duration::from_secs(hours * 3600)));
        assert_eq!(retention("periodic", "2"), hours(2));
        assert_eq!(retention("periodic", "2h"), hours(2));
        assert_eq!(retention("periodic", "10m"), Ok(AutoCompaction::Periodic(Duration::from_secs(600))));
        assert_eq!(retention("revision", "1000"), Ok(AutoCompaction::Revisions(1000)));
        for (mode, text) in [("periodic", "0"), ("periodic", "0s"), ("revision", "0")] {
            assert_eq!(retention(mode, text), Ok(AutoCompaction::Off), "{mode} {text}");
        }
        for (mode, text) in [
            ("revision", "10m"),
            ("revision", "-1"),
            ("periodic", "-1"),
            ("periodic", "soon"),
            ("periodic", ""),
        ] {
            assert!(matches!(retention(mode, text), Err(ValueError::Retention(_))), "{mode} {text}");
        }
    }

    #[test]
    fn lists_are_trimmed_and_may_be_empty() {
        assert_eq!(list(" a, b,,c ").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(list("").count(), 0);
    }
}
