//! `covey prepare-image`: what it says before and after, and who has to agree.
//!
//! Owns: the words. Must never: remove anything without consent. Driven by `run`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::args::{Parsed, UsageError};
use super::consent::{CONSENT, Job};
use super::output;
use crate::app::{Scrub, ScrubError};

/// Why the disk was left as it was, or scrubbed in part; exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The directory is in use, or the disk failed.
    #[error(transparent)]
    Scrub(#[from] ScrubError),
    /// Somebody said no.
    #[error("nothing was removed: \"{CONSENT}\" was not given as the answer (--yes answers beforehand)")]
    NotAgreed,
    /// Standard input or output failed.
    #[error("cannot ask: {0}")]
    Terminal(#[from] io::Error),
}

/// What the arguments ask for.
pub fn job(parsed: &Parsed) -> Result<Job, UsageError> {
    Job::parse(parsed, "prepare-image takes no arguments, only flags")
}

/// Says what goes, asks, and removes it.
pub fn perform(job: &Job) -> Result<(), PrepareError> {
    let path = &job.data_dir;
    let scrub = Scrub::open(path)?;
    output::to_stdout(|out| announce(out, path, scrub.goes(), scrub.stays()))?;
    if scrub.goes().is_empty() {
        return Ok(());
    }
    if !job.is_agreed()? {
        return Err(PrepareError::NotAgreed);
    }
    scrub.carry_out()?;
    Ok(output::to_stdout(|out| {
        writeln!(
            out,
            "Done. Switch this machine off and copy its disk: each copy makes its own key when covey starts."
        )
    })?)
}

fn announce(out: &mut impl Write, path: &Path, goes: &[PathBuf], stays: &[PathBuf]) -> io::Result<()> {
    for entry in stays {
        writeln!(out, "{} is not covey's and stays.", entry.display())?;
    }
    if goes.is_empty() {
        return writeln!(out, "There is nothing of a node in {}: it can be copied as it is.", path.display());
    }
    writeln!(out, "This removes the node in {} for good, its key and all its data:", path.display())?;
    goes.iter().try_for_each(|entry| writeln!(out, "  {}", entry.display()))?;
    writeln!(out, "If it is a member of a cluster that goes on, type \"covey member remove\" there.")
}
