//! An operator's order that the cluster give itself up for another one: why it is not carried out.
//!
//! Owns: the words, each with what to type next. Must never: say that nothing has happened where that is not known. Made by whoever is the
//! [`Host`](super::Host), answered by `admin`.

use tonic::Status;

use crate::command::Rejection;
use crate::formation::Outdated;
use crate::ids::ClusterId;
use crate::runtime::ServeError;

/// Why a cluster does not give itself up for another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum YieldRefusal {
    /// The node looks for no others.
    #[error(
        "this cluster did not form by itself, and becomes one with no other: \"covey status\" tells more"
    )]
    Alone,
    /// There is no reason to.
    #[error(
        "this cluster is not in conflict with cluster {0}: \"covey status\" names those that it is in conflict with"
    )]
    NoConflict(ClusterId),
    /// One order is carried out at a time.
    #[error("another order to yield is being carried out: \"covey status\" says what has come of it")]
    Busy,
    /// The newest state cannot be read.
    #[error("this cluster cannot decide anything now ({0}): \"covey status\" says what it lacks")]
    Leaderless(ServeError),
    /// The member does not know its cluster.
    #[error(
        "this box cannot speak for its cluster, for {0}: \"covey status\" tells more, and another box may know better"
    )]
    Speechless(&'static str),
    /// Nobody is where the other cluster was.
    #[error("no box of cluster {0} answers: \"covey doctor\" looks for what is in the way")]
    Silent(ClusterId),
    /// An operator has to let the members in.
    #[error(
        "cluster {cluster} does not let this cluster's boxes in by itself ({why}), and they wait there now: on one of its boxes type \"covey node pending\", and for each of them \"covey node approve FINGERPRINT\"; then the same here again"
    )]
    Sealed {
        /// The other one.
        cluster: ClusterId,
        /// What it says.
        why: String,
    },
    /// Members could not go on in the other cluster.
    #[error(
        "{outdated}: upgrade them, or remove those that are gone for good; then type \"covey yield {cluster}\" here again"
    )]
    Outdated {
        /// The other one.
        cluster: ClusterId,
        /// Why not.
        outdated: Outdated,
    },
    /// The members were not taken in.
    #[error(
        "cluster {cluster} has not taken this cluster's boxes in: {why}; type the same again in a minute"
    )]
    Declined {
        /// The other one.
        cluster: ClusterId,
        /// What it says, or how asking it has failed.
        why: String,
    },
    /// The log did not take it.
    #[error(
        "{0}; \"covey member remove\" takes out who is not here any more, and \"covey status\" tells who is"
    )]
    Rejected(Rejection),
    /// The order may be in the log, or not.
    #[error("it is not known yet what has come of the order ({0}): ask \"covey status\" in a minute")]
    Unknown(ServeError),
}

impl From<YieldRefusal> for Status {
    fn from(refusal: YieldRefusal) -> Self {
        let text = format!("covey: {refusal}");
        match refusal {
            YieldRefusal::Alone
            | YieldRefusal::NoConflict(_)
            | YieldRefusal::Sealed { .. }
            | YieldRefusal::Outdated { .. }
            | YieldRefusal::Rejected(_) => Self::failed_precondition(text),
            YieldRefusal::Busy
            | YieldRefusal::Leaderless(_)
            | YieldRefusal::Speechless(_)
            | YieldRefusal::Silent(_)
            | YieldRefusal::Declined { .. }
            | YieldRefusal::Unknown(_) => Self::unavailable(text),
        }
    }
}
