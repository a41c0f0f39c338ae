//! `covey yield`: which of two clusters gives itself up, what its operator is told before, and who has to agree.
//!
//! Owns: the words. Must never: order anything without consent, or choose where there is a choice. Driven by `run`.

use std::io::{self, Write};

use super::admin::{self, AdminError};
use super::args::{ClientSettings, Parsed, UsageError};
use super::consent::{self, CONSENT};
use super::output;
use crate::api::verdict::name_of;
use crate::ids::ClusterId;
use crate::wire::covey::v1 as pb;

/// Why the cluster goes on, as far as that is known; exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum YieldError {
    /// The server could not be asked, or did not do it.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// There is nothing to give up.
    #[error("this box is in no cluster: {0}")]
    NoCluster(String),
    /// That is done.
    #[error(
        "this cluster has given itself up for cluster {0} already: \"covey status\" says how far that is"
    )]
    Done(ClusterId),
    /// There is nobody to give it up for.
    #[error("this cluster is in conflict with no other one: \"covey status\" tells how it stands")]
    NoConflict,
    /// There are several.
    #[error("this cluster is in conflict with several others: type one of {}", commands(.0))]
    Several(Vec<ClusterId>),
    /// There is another one than was named.
    #[error("this cluster is not in conflict with a cluster {named}: type one of {}", commands(.there))]
    Unknown {
        /// As it was typed.
        named: String,
        /// Those that there are.
        there: Vec<ClusterId>,
    },
    /// Somebody said no.
    #[error("nothing was given up: \"{CONSENT}\" was not given as the answer (--yes answers beforehand)")]
    NotAgreed,
    /// Standard input or output failed.
    #[error("cannot ask: {0}")]
    Terminal(#[from] io::Error),
}

fn commands(clusters: &[ClusterId]) -> String {
    let command = |cluster: &ClusterId| format!("\"covey yield {cluster}\"");
    clusters.iter().map(command).collect::<Vec<_>>().join(", ")
}

/// For which cluster, if that was said, and whether somebody has agreed already.
#[derive(Debug)]
pub struct Job {
    winner: Option<String>,
    agreed: bool,
}

/// What the arguments ask for.
pub fn job(parsed: &Parsed) -> Result<Job, UsageError> {
    const USAGE: &str = "yield takes one cluster's id at most, as covey status prints it";
    let winner = match &parsed.arguments[..] {
        [] => None,
        [id] => Some(String::from_utf8(id.clone()).map_err(|_| UsageError::Arguments(USAGE))?),
        _ => return Err(UsageError::Arguments(USAGE)),
    };
    Ok(Job { winner, agreed: parsed.switch("yes")? })
}

/// Says what is given up and for whom, asks, and orders it.
pub fn perform(settings: &ClientSettings, job: &Job) -> Result<(), YieldError> {
    let status = admin::status(settings)?;
    let cluster = status.cluster.ok_or(YieldError::NoCluster(status.waits_for))?;
    let winner = choose(&cluster, job.winner.as_deref())?;
    output::to_stdout(|out| announce(out, &cluster, winner))?;
    if !consent::is_given(job.agreed)? {
        return Err(YieldError::NotAgreed);
    }
    admin::give_up_for(settings, winner.cluster)?;
    Ok(output::to_stdout(|out| report(out, &cluster, winner))?)
}

fn choose<'a>(cluster: &'a pb::Cluster, named: Option<&str>) -> Result<&'a pb::Conflict, YieldError> {
    if cluster.dissolved_for != 0 {
        return Err(YieldError::Done(ClusterId(cluster.dissolved_for)));
    }
    let there = || cluster.conflicts.iter().map(|conflict| ClusterId(conflict.cluster)).collect();
    match (&cluster.conflicts[..], named) {
        ([], _) => Err(YieldError::NoConflict),
        ([one], None) => Ok(one),
        (_, None) => Err(YieldError::Several(there())),
        (conflicts, Some(named)) => {
            let id = u64::from_str_radix(named, 16).ok();
            let found = conflicts.iter().find(|conflict| Some(conflict.cluster) == id);
            found.ok_or_else(|| YieldError::Unknown { named: named.to_owned(), there: there() })
        }
    }
}

fn announce(out: &mut impl Write, cluster: &pb::Cluster, winner: &pb::Conflict) -> io::Result<()> {
    let members: Vec<String> = cluster.members.iter().map(|member| name_of(cluster, member.id)).collect();
    writeln!(
        out,
        "Cluster {:x}, which is this one ({}), would give itself up for cluster {:x} at {}.",
        cluster.id,
        members.join(", "),
        winner.cluster,
        winner.addresses.join(" ")
    )?;
    writeln!(
        out,
        "All that was written to it and acknowledged is given up: its boxes join the other cluster and serve the data of that one."
    )?;
    writeln!(
        out,
        "Each box keeps what it had in \"archive\" in its data directory, where the last two such states are kept; no command reads one back."
    )?;
    writeln!(
        out,
        "To have the data at hand afterwards, say no and type \"covey snapshot save FILE\" first."
    )?;
    writeln!(out, "Do this on one box, and on one side only.")
}

fn report(out: &mut impl Write, cluster: &pb::Cluster, winner: &pb::Conflict) -> io::Result<()> {
    writeln!(
        out,
        "Cluster {:x} has given itself up for cluster {:x}, which its boxes join now: \"covey status\" says how far that is.",
        cluster.id, winner.cluster
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(conflicts: &[u64]) -> pb::Cluster {
        let conflict = |cluster: &u64| pb::Conflict {
            cluster: *cluster,
            addresses: vec!["10.0.0.9:2380".into()],
            ..pb::Conflict::default()
        };
        let member = |id| pb::Member { id, name: format!("box{id}"), ..pb::Member::default() };
        pb::Cluster {
            id: 0xc1,
            members: vec![member(1), member(2)],
            conflicts: conflicts.iter().map(conflict).collect(),
            ..pb::Cluster::default()
        }
    }

    fn chosen(conflicts: &[u64], named: Option<&str>) -> Result<u64, String> {
        let cluster = cluster(conflicts);
        choose(&cluster, named).map(|winner| winner.cluster).map_err(|error| error.to_string())
    }

    #[test]
    fn where_there_is_a_choice_the_operator_makes_it() {
        assert_eq!(chosen(&[0xa], None), Ok(0xa));
        assert_eq!(chosen(&[0xa, 0xb1], Some("b1")), Ok(0xb1));
        assert_eq!(chosen(&[0xa], Some("000A")), Ok(0xa));
        let several = chosen(&[0xa, 0xb1], None).unwrap_err();
        assert!(several.ends_with("type one of \"covey yield a\", \"covey yield b1\""), "{several}");
        for named in ["b", "", "xyz", "1000000000000000a"] {
            let unknown = chosen(&[0xa], Some(named)).unwrap_err();
            assert!(unknown.contains("\"covey yield a\""), "{unknown}");
        }
        assert!(chosen(&[], Some("a")).unwrap_err().contains("in conflict with no other"));
        let ended = pb::Cluster { dissolved_for: 0xb, ..cluster(&[0xa]) };
        assert!(matches!(choose(&ended, None), Err(YieldError::Done(ClusterId(0xb)))));
    }

    #[test]
    fn an_operator_is_told_what_is_given_up_where_it_is_kept_and_for_whom() {
        let cluster = cluster(&[0xa]);
        let mut out = Vec::new();
        announce(&mut out, &cluster, &cluster.conflicts[0]).unwrap();
        let text = String::from_utf8(out).unwrap();
        for told in [
            "Cluster c1, which is this one (box1, box2)",
            "for cluster a at 10.0.0.9:2380",
            "acknowledged is given up",
            "in \"archive\" in its data directory",
            "covey snapshot save",
        ] {
            assert!(text.contains(told), "{told}: {text}");
        }
    }
}
