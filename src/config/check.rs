//! What a server runs with, and where each value was written.
//!
//! Owns: that list. Must never: start anything, or show what is in a file that a setting names. Shown by `covey config check`.

use std::fmt;

use super::error::Origin;
use super::sources::Sources;
use super::table::{Fallback, SETTINGS, Setting};

/// A setting as it came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Its flag, without dashes.
    pub flag: &'static str,
    /// What it is set to, or what follows from others in words.
    pub value: String,
    /// Where that was written.
    pub origin: Origin,
    /// Whether a running server takes it anew.
    pub reloads: bool,
}

impl fmt::Display for Effective {
    /// As one would write it for `serve`, and behind it where it comes from.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flag, value, origin, .. } = self;
        write!(f, "--{flag}={value}  # {origin}")
    }
}

/// Each setting, in the order of the table.
pub(super) fn effective(sources: &Sources) -> Vec<Effective> {
    let effective = |setting: &'static Setting| {
        let written = sources.value(setting.key);
        let value = match (setting.fallback, &written.origin) {
            (Fallback::Derived { rule, .. }, Origin::Default) => format!("({rule})"),
            _ => written.text,
        };
        Effective { flag: setting.flag, value, origin: written.origin, reloads: setting.reloads() }
    };
    SETTINGS.iter().map(effective).collect()
}
