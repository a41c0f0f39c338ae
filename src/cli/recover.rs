//! `covey recover`: what it says before and after, and who has to agree.
//!
//! Owns: the words. Must never: change anything without consent. Driven by `run`.

use std::io::{self, Write};

use super::args::{Parsed, UsageError};
use super::consent::{CONSENT, Job};
use super::output;
use crate::app::{Finding, Recovery, RecoveryError};
use crate::node::Alone;
use crate::store::Member;

/// Why the node was left as it was, or half done; exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The node is of no use, or its disk failed. What was begun can be done again.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// Somebody said no.
    #[error("nothing was changed: \"{CONSENT}\" was not given as the answer (--yes answers beforehand)")]
    NotAgreed,
    /// Standard input or output failed.
    #[error("cannot ask: {0}")]
    Terminal(#[from] io::Error),
}

/// What the arguments ask for.
pub fn job(parsed: &Parsed) -> Result<Job, UsageError> {
    Job::parse(parsed, "recover takes no arguments, only flags")
}

/// Says what it would do, asks, and does it.
pub fn perform(job: &Job) -> Result<(), RecoverError> {
    let recovery = Recovery::open(&job.data_dir)?;
    let finding = recovery.finding();
    output::to_stdout(|out| announce(out, job, &finding))?;
    if !job.is_agreed()? {
        return Err(RecoverError::NotAgreed);
    }
    let alone = recovery.carry_out()?;
    Ok(output::to_stdout(|out| report(out, &finding, &alone))?)
}

fn announce(out: &mut impl Write, job: &Job, finding: &Finding) -> io::Result<()> {
    let Finding { cluster, member, generation, others, last, committed, suspect } = finding;
    writeln!(out, "{}: member {member} of cluster {cluster}", job.data_dir.display())?;
    writeln!(out, "It would become the only member, in generation {} of the cluster.", generation.0)?;
    if others.is_empty() {
        writeln!(out, "Its state names no other member.")?;
    } else {
        let names = names(others);
        writeln!(out, "These would be members no more, and are refused if they come back: {names}.")?;
    }
    writeln!(out, "Its log ends with entry {last}; up to entry {committed} it knows what was committed.")?;
    if *suspect {
        writeln!(
            out,
            "Its state was found to be damaged, or not to be the majority's: another member is the better one."
        )?;
    }
    writeln!(out, "What others have acknowledged and this log does not hold is lost.")?;
    writeln!(out, "Do this on one node only, and never while a majority of the members can be had again.")
}

fn report(out: &mut impl Write, finding: &Finding, alone: &Alone) -> io::Result<()> {
    let Alone { dropped, revision, applied } = alone;
    let (member, generation) = (finding.member, finding.generation.0);
    writeln!(
        out,
        "Member {member} is the only one of generation {generation}: revision {revision}, entry {applied}."
    )?;
    if !dropped.is_empty() {
        writeln!(
            out,
            "Dropped: {}. To have one back, empty its data directory and add it anew.",
            names(dropped)
        )?;
    }
    Ok(())
}

fn names(members: &[Member]) -> String {
    let name = |member: &Member| match member.attributes.name.as_str() {
        "" => member.id().to_string(),
        name => format!("{name} ({})", member.id()),
    };
    members.iter().map(name).collect::<Vec<_>>().join(", ")
}
