//! What is done only after somebody has agreed.
//!
//! Owns: the answer that counts as consent, given beforehand or at the terminal. Must never: take anything else for it. Used by the commands that cannot be
//! undone.

use std::env;
use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;

use super::args::{Parsed, UsageError};
use super::output;

/// What has to be typed.
pub(super) const CONSENT: &str = "yes";

/// Which stopped node, and whether somebody has agreed already.
#[derive(Debug)]
pub struct Job {
    pub(super) data_dir: PathBuf,
    agreed: bool,
}

impl Job {
    /// What the arguments ask for; `refusal` is what is said of those that are no flags.
    pub(super) fn parse(parsed: &Parsed, refusal: &'static str) -> Result<Self, UsageError> {
        if !parsed.arguments.is_empty() {
            return Err(UsageError::Arguments(refusal));
        }
        Ok(Self { data_dir: parsed.data_dir(env::vars_os())?, agreed: parsed.switch("yes")? })
    }

    /// Whether somebody agrees, beforehand or now.
    pub(super) fn is_agreed(&self) -> io::Result<bool> {
        is_given(self.agreed)
    }
}

/// Whether somebody agrees, beforehand or now.
pub(super) fn is_given(beforehand: bool) -> io::Result<bool> {
    if beforehand {
        return Ok(true);
    }
    output::to_stdout(|out| {
        write!(out, "Type {CONSENT} to go on: ")?;
        out.flush()
    })?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == CONSENT)
}
