//! What a node that gathers waits for.
//!
//! Owns: why it does not found, or not yet, as the machine decides by it and as people are told. Must never: change anything. Driven by `gathering`.

use std::fmt;

use super::neighbours::{Line, Says};
use super::{Gathering, Whom};
use crate::formation::identity::Fingerprint;
use crate::formation::message::Standing;
use crate::ids::ClusterId;
use crate::time::Instant;

/// What this node is doing, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No interface has carrier and an address.
    NoNetwork,
    /// It looks around until then.
    Probing(Instant),
    /// It has left the founding to this node, until then.
    Promised(Fingerprint, Instant),
    /// It waits for the cluster that its claim is of, and was told this, if anything.
    Invited(Option<String>),
    /// It asks all for their promise.
    Candidate,
    /// A cluster is there, and the node asks to be let in.
    Joining(ClusterId),
    /// A cluster is there, and has said why the node is not in it yet.
    Pending(ClusterId, String),
    /// This node is there, and nothing was given by which to know whether it is to be trusted.
    Guarded(Fingerprint),
    /// Clusters are there that cannot become one, so that an operator has to say which one is the right one.
    Conflict(Vec<ClusterId>),
    /// A cluster was there a moment ago, and is waited for until then.
    MemberGone(Instant),
    /// Somebody may be there and does not answer; it is waited for until then.
    Unreached(Whom, Instant),
    /// The view has changed; it has to stay what it is until then.
    Unstable(Instant),
    /// This node is the lowest, and founds.
    NotLowest(Fingerprint),
    /// Nobody else is there; it founds alone then.
    Alone(Instant),
    /// A node has left the founding to another one.
    Bound(Fingerprint, Fingerprint),
    /// A node does not see the same nodes; after that this node goes on without that.
    ViewsDiffer(Fingerprint, Instant),
    /// The last attempt came to nothing, for this reason; the next one is made then.
    BackedOff(String, Instant),
    /// There is a cluster.
    Ended,
}

/// How another node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stands {
    /// It has not answered yet.
    Unknown,
    /// It is in no cluster.
    Fresh,
    /// It is in one.
    Member(ClusterId),
    /// It is of no use here, and says why.
    Other(String),
}

/// Another node, or an address at which one may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Who.
    pub whom: Whom,
    /// What it calls itself, where that is known.
    pub name: String,
    /// What it is.
    pub stands: Stands,
    /// Since when it does not answer, and why.
    pub unreachable: Option<(Instant, String)>,
}

/// What an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What this node is doing; as text it says why there is no cluster yet.
    pub state: State,
    /// Who is, or may be, around.
    pub around: Vec<Sighting>,
}

impl Gathering {
    /// What to tell an operator.
    pub fn status(&self, now: Instant) -> Status {
        let nodes = self.neighbours.nodes.iter().map(|(node, known)| Sighting {
            whom: Whom::Node(*node),
            name: known.name.clone(),
            stands: match &known.says {
                Says::Nothing => Stands::Unknown,
                Says::Gathers { .. } => Stands::Fresh,
                Says::Member(standing) => Stands::Member(standing.cluster),
                Says::Other(sentence) => Stands::Other(sentence.clone()),
            },
            unreachable: known.line.failing.clone(),
        });
        let silent = self.neighbours.hints.iter().filter(|(_, hint)| hint.node.is_none());
        let hints = silent.map(|(address, hint)| Sighting {
            whom: Whom::Address(address.clone()),
            name: String::new(),
            stands: Stands::Unknown,
            unreachable: hint.line.failing.clone(),
        });
        Status { state: self.state(now), around: nodes.chain(hints).collect() }
    }
}

/// What this node waits for.
impl Gathering {
    pub(super) fn members(&self, now: Instant) -> impl Iterator<Item = (Fingerprint, &Standing)> {
        self.neighbours.visible(now).filter_map(|(node, known)| match &known.says {
            Says::Member(standing) => Some((*node, standing)),
            _ => None,
        })
    }

    /// The cluster to join: the one for which this node has left another, for a while whether that is there or not, and for a guarded one no other at all. Otherwise what users have written counts more than what is new, and of equals the lower number, as between clusters that meet. Two that users have
    /// written to are an operator's to choose from.
    pub(super) fn cluster(&self, now: Instant) -> Result<Option<ClusterId>, Vec<ClusterId>> {
        let (mut committed, mut all): (Vec<ClusterId>, Vec<ClusterId>) = (Vec::new(), Vec::new());
        for (_, standing) in self.members(now) {
            all.push(standing.cluster);
            if standing.committed {
                committed.push(standing.cluster);
            }
        }
        let waits = self.guarded || self.winner_awaited().is_some_and(|until| now < until);
        if let Some(winner) = self.prefers.filter(|winner| waits || all.contains(winner)) {
            return Ok(Some(winner));
        }
        committed.sort_unstable();
        committed.dedup();
        match &committed[..] {
            [] => Ok(all.into_iter().min()),
            [one] => Ok(Some(*one)),
            _ => Err(committed),
        }
    }

    /// Until when the cluster for which this node has left another one is waited for.
    pub(super) fn winner_awaited(&self) -> Option<Instant> {
        self.prefers.and(self.begun()).map(|begun| begun + self.timers.winner_awaited)
    }

    /// The clusters that are asked to let this node in. Of several that cannot become one those are that let nobody in but by an operator's word, who says with it
    /// which one is the right one; another one would have it at once.
    pub(super) fn clusters_to_ask(&self, now: Instant) -> Vec<ClusterId> {
        match self.cluster(now) {
            Ok(cluster) => cluster.into_iter().collect(),
            Err(mut clusters) => {
                let is_open = |id: &ClusterId| self.members(now).any(|(_, of)| of.cluster == *id && of.open);
                clusters.retain(|id| !is_open(id));
                clusters
            }
        }
    }

    /// A visible node that does not see the same nodes.
    pub(super) fn other_view(&self, now: Instant) -> Option<Fingerprint> {
        let differs =
            |says: &Says| matches!(says, Says::Gathers { waits: false, view, .. } if *view != self.view);
        self.neighbours.visible(now).find(|(_, known)| differs(&known.says)).map(|(node, _)| *node)
    }

    pub(super) fn state(&self, now: Instant) -> State {
        if self.end.is_some() {
            return State::Ended;
        }
        match self.hindrance(now) {
            Some(state) => state,
            None => State::Candidate,
        }
    }

    /// Why this node does not begin to ask for promises.
    pub(super) fn hindrance(&self, now: Instant) -> Option<State> {
        let Some(begun) = self.begun() else { return Some(State::NoNetwork) };
        if !self.claim.is_empty() {
            return Some(State::Invited(self.told_at_the_door()));
        }
        if self.guarded
            && self.prefers.is_none()
            && let Some((node, _)) = self.neighbours.visible(now).next()
        {
            return Some(State::Guarded(*node));
        }
        match self.cluster(now) {
            Err(clusters) => return Some(State::Conflict(clusters)),
            Ok(Some(cluster)) => {
                return Some(match &self.joining.said {
                    Some((of, sentence)) if *of == cluster => State::Pending(cluster, sentence.clone()),
                    _ => State::Joining(cluster),
                });
            }
            Ok(None) => {}
        }
        if let Some(until) = self.neighbours.member_until(now) {
            return Some(State::MemberGone(until));
        }
        if let Some(held) = self.held {
            if held.promise.candidate == self.own {
                return Some(State::Candidate);
            }
            return Some(State::Promised(Fingerprint::of(&held.promise.candidate), held.until));
        }
        let probed = begun + self.timers.probe_min;
        if now < probed {
            return Some(State::Probing(probed));
        }
        if let Some((whom, until)) = self.neighbours.held(now, begun) {
            return Some(State::Unreached(whom, until));
        }
        // Others may have been told that this node takes no part, and count on that for so long.
        let counted = self.waited.map(|waited| waited + self.timers.session);
        let stable = (self.view_since.max(begun) + self.timers.stable).max(counted.unwrap_or_default());
        if now < stable {
            return Some(State::Unstable(stable));
        }
        let lowest = self.view.lowest().filter(|lowest| *lowest != self.node);
        if let Some(lowest) = lowest {
            return Some(State::NotLowest(lowest));
        }
        if self.view.nodes().len() == 1 {
            let alone = self.alone_since.max(begun) + self.timers.solo_after;
            let up = self.network.last_up.map(|up| up + self.timers.solo_after_up);
            let until = up.map_or(alone, |up| up.max(alone));
            if now < until {
                return Some(State::Alone(until));
            }
        }
        if let Some((node, to)) = self.bound(now) {
            return Some(State::Bound(node, to));
        }
        if let Some(node) = self.other_view(now) {
            let until = self.view_since.max(begun) + self.timers.patience;
            if now < until {
                return Some(State::ViewsDiffer(node, until));
            }
        }
        let failed = self.failed.as_ref().filter(|(_, until)| now < *until);
        failed.map(|(why, until)| State::BackedOff(why.clone(), *until))
    }

    /// Why the claim lets this node in nowhere. Where it was turned down somebody knows what claims are worth; then what is heard where an operator has sent it counts most.
    fn told_at_the_door(&self) -> Option<String> {
        let whom = |node: &Fingerprint| node.short();
        let turned_down = |(at, line): (String, &Line)| {
            let why = &line.failing.as_ref().filter(|_| line.lets_nobody_in())?.1;
            Some(format!("{at}: {why}"))
        };
        let lines = self.neighbours.hints.iter().map(|(address, hint)| (address.clone(), &hint.line));
        let lines = lines.chain(self.neighbours.nodes.iter().map(|(node, known)| (whom(node), &known.line)));
        let hints = self.neighbours.hints.iter();
        let hints =
            hints.filter_map(|(address, hint)| Some(format!("{address}: {}", hint.line.failing.as_ref()?.1)));
        let nodes = || self.neighbours.nodes.iter();
        let answered = nodes().filter_map(|(node, known)| match &known.says {
            Says::Other(sentence) => Some(format!("{}: {sentence}", whom(node))),
            _ => None,
        });
        let lost = nodes()
            .filter_map(|(node, known)| Some(format!("{}: {}", whom(node), known.line.failing.as_ref()?.1)));
        lines.filter_map(turned_down).chain(hints).chain(answered).chain(lost).next()
    }

    /// A visible node that has left the founding to somebody, and to whom.
    fn bound(&self, now: Instant) -> Option<(Fingerprint, Fingerprint)> {
        self.neighbours.visible(now).find_map(|(node, known)| match &known.says {
            Says::Gathers { promised: Some(to), .. } => Some((*node, *to)),
            _ => None,
        })
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => f.write_str(&node.short()),
            Self::Address(address) => f.write_str(address),
        }
    }
}

impl fmt::Display for State {
    /// What is waited for, in one clause.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNetwork => write!(f, "no interface has carrier and an address"),
            Self::Probing(_) => write!(f, "looking for other nodes"),
            Self::Promised(node, _) => write!(f, "the founding is left to {}", node.short()),
            Self::Invited(None) => write!(f, "waiting for the cluster that the join token is of"),
            Self::Invited(Some(why)) => {
                write!(f, "waiting for the cluster that the join token is of: {why}")
            }
            Self::Candidate => write!(f, "asking the others whether this node may found"),
            Self::Joining(cluster) => write!(f, "joining cluster {cluster}"),
            Self::Pending(cluster, why) => {
                write!(f, "cluster {cluster} does not let this node in yet: {why}")
            }
            Self::Guarded(node) => write!(
                f,
                "{} is there, and with --trust locked this node joins nobody whom it cannot know, and founds a cluster only where it is alone: give it a join token \
                (--join-token-file), the cluster's secret (--cluster-secret-file) or the others' keys (--peer-fingerprints)",
                node.short()
            ),
            Self::Conflict(clusters) => {
                write!(f, "there are several clusters that cannot become one:")?;
                clusters.iter().try_for_each(|cluster| write!(f, " {cluster}"))
            }
            Self::MemberGone(_) => write!(f, "a cluster was there and does not answer any more"),
            Self::Unreached(whom, _) => write!(f, "{whom} is announced and does not answer"),
            Self::Unstable(_) => write!(f, "nodes have appeared or vanished a moment ago"),
            Self::NotLowest(node) => write!(f, "waiting for {} to found", node.short()),
            Self::Alone(_) => write!(f, "nobody else is there yet"),
            Self::Bound(node, to) => write!(f, "{} has left the founding to {}", node.short(), to.short()),
            Self::ViewsDiffer(node, _) => write!(f, "{} does not see the same nodes", node.short()),
            Self::BackedOff(why, _) => write!(f, "{why}"),
            Self::Ended => write!(f, "there is a cluster"),
        }
    }
}
