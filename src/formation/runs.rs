//! Which runs of a node can be: the rules by which copies of a disk, and disks of an earlier time, are told apart from the node itself.
//!
//! Owns: the two rules. Must never: depend on how a run was shown. Applied by both ends of a connection before it is used (`peer::hello`), and
//! by the simulator.

use super::identity::Identity;
use crate::ids::Run;
use crate::planted::{self, Bug};

/// Why two nodes must not take part together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// The other node shows a run that this later one, which was seen, has replaced.
    Theirs(Run),
    /// The other node has seen this run of ours, of which our directory knows nothing.
    Ours(Run),
}

/// Judges another node, of which the run `seen` was seen last, by the run that it shows, and this one by the run that the other has seen of it.
pub fn judge_runs(
    own: &Identity,
    shown: Run,
    seen: Option<Run>,
    seen_of_us: Option<Run>,
) -> Result<(), Stale> {
    if planted::has(Bug::BelieveCopies) {
        return Ok(());
    }
    judge_run(shown, seen).map_err(Stale::Theirs)?;
    match seen_of_us.filter(|run| !own.knows(*run) && !own.is_forgotten(*run)) {
        Some(run) => Err(Stale::Ours(run)),
        None => Ok(()),
    }
}

/// The part of [`judge_runs`] that time can change; what was seen comes back if it has replaced what is shown.
pub fn judge_run(shown: Run, seen: Option<Run>) -> Result<(), Run> {
    seen.filter(|seen| is_older(shown, *seen)).map_or(Ok(()), Err)
}

/// Whether a node that has shown `seen` cannot rightly show `shown`: starts are counted on its disk before it sends anything.
fn is_older(shown: Run, seen: Run) -> bool {
    shown.incarnation < seen.incarnation
        || (shown.incarnation == seen.incarnation && shown.boot_nonce != seen.boot_nonce)
}

/// The later of two runs of a node.
pub fn later_run(one: Option<Run>, other: Option<Run>) -> Option<Run> {
    match (one, other) {
        (Some(a), Some(b)) if a.incarnation >= b.incarnation => Some(a),
        (Some(a), None) => Some(a),
        (_, b) => b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formation::test_founding;
    use crate::ids::Incarnation;

    /// Who was away for long goes by a run that the record does not list any more, since the cluster has noted a later one.
    #[test]
    fn a_run_from_before_all_that_are_listed_casts_no_doubt() {
        let run = |incarnation| Run { incarnation: Incarnation(incarnation), boot_nonce: incarnation };
        let earlier = vec![run(40), run(41)];
        let mut own = test_founding(1).identity;
        (own.earlier, own.incarnation, own.boot_nonce) = (earlier, Incarnation(42), 42);
        let judged = |own: &Identity, seen| judge_runs(own, run(1), None, Some(seen));
        assert_eq!((judged(&own, run(5)), judged(&own, run(41))), (Ok(()), Ok(())));
        let other = Run { boot_nonce: 7, ..run(41) };
        for copy in [other, run(43)] {
            assert_eq!(judged(&own, copy), Err(Stale::Ours(copy)));
        }
        own.earlier.clear();
        assert_eq!(judged(&own, run(5)), Err(Stale::Ours(run(5))), "nothing was forgotten");
    }

    #[test]
    fn the_later_run_is_remembered() {
        let run = |incarnation| Some(Run { incarnation: Incarnation(incarnation), boot_nonce: incarnation });
        assert_eq!(later_run(run(1), run(2)), run(2));
        assert_eq!(later_run(run(3), run(2)), run(3));
        let nothing = (later_run(None, run(2)), later_run(run(2), None), later_run(None, None));
        assert_eq!(nothing, (run(2), run(2), None));
    }
}
