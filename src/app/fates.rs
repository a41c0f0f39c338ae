//! A member that hears no leader: whether its cluster still is, and whether it has anything that could be missed.
//!
//! Owns: when others are asked what became of the cluster, when a member that nothing depends on begins anew, and what operators are told. Must never: let a
//! member leave that has, or may have, what a user has written, or whose vote may be needed. Driven by `peers`, and at a start by `serve`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use smol::Timer;
use smol::future::or;

use super::admission::Desk;
use super::data_dir::DataDir;
use super::lan::{CLUSTERS_ASKED_MAX, Lan, asked_now};
use super::staggered::{staggered, together};
use crate::command::{CharterCommand, CommandVersion, Rejection, Tombstone};
use crate::formation::{
    Answer, Doubt, Fingerprint, GENERATIONS_MAX, Identity, Known, Question, Tail, believe, burial, ordered_of,
};
use crate::ids::{ClusterId, LogIndex, MemberId};
use crate::mvcc::{Facts, View};
use crate::peer::Transport;
use crate::runtime::clock::random_u64;
use crate::runtime::{Handle, Milestone, ServeError};
use crate::store::Dissolution;
use crate::time::Instant;

/// How often is looked whether there is a leader, ...
const LOOK: Duration = Duration::from_secs(2);
/// ... and how often while there is one: its end is heard of, but not where a member that never votes merely reaches it no more.
const LOOK_LED: Duration = Duration::from_secs(10);
/// After so long without one other clusters are asked: no election takes as long.
const ASK_AFTER: Duration = Duration::from_secs(10);
/// After so long without one, of running time, a member that nothing depends on begins anew.
const GIVE_UP_AFTER: Duration = Duration::from_mins(10);
/// The pause before a tombstone that could not be buried is tried again.
const BURY_AGAIN: Duration = Duration::from_secs(5);

/// How long there has been no leader.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
}

impl Silence {
    fn look(&mut self, now: Instant, led: bool) -> Duration {
        if led {
            self.since = None;
            return Duration::ZERO;
        }
        now.since(*self.since.get_or_insert(now))
    }
}

/// Whether nothing can be missed that this member has, and nobody waits for its vote.
fn is_dispensable(facts: &Facts, me: MemberId, tail: Tail) -> bool {
    let conf = &facts.conf_state;
    let votes = conf.voters.contains(&me) || conf.voters_outgoing.contains(&me);
    !votes && !facts.charter.committed && !tail.may_weigh()
}

/// Whether a member was let go because it had never come, which is held against nobody.
pub(super) fn is_forgotten(facts: &Facts, me: MemberId) -> bool {
    facts.removed.contains(&(me, None))
}

/// Why a member leaves a cluster whose end its own state does not tell.
#[derive(Debug)]
enum Parting {
    /// Other clusters have these words of members, with this log.
    Told(Vec<Tombstone>, Tail),
    /// Nobody leads, and nothing depends on this member, with this log.
    Unneeded(Tail),
}

impl Parting {
    /// The log by which it was decided.
    fn tail(&self) -> Tail {
        let (Self::Told(_, tail) | Self::Unneeded(tail)) = self;
        *tail
    }
}

/// Whether this member leaves, once that is decided.
#[derive(Default)]
pub(super) struct Decision {
    why: OnceLock<Parting>,
    taken: Milestone,
}

impl Decision {
    fn take(&self, why: Parting) {
        self.why.get_or_init(|| why);
        self.taken.reach(1);
    }

    /// Resolves once it is taken; whether it ever will be.
    pub(super) async fn taken(&self) -> bool {
        self.taken.wait(1).await
    }

    /// Whether the node leaves with what it has, once its threads have ended. The cluster may have come back while clients were still served, and have
    /// given this member a vote, or what a user has written.
    pub(super) fn outcome(&self, handle: &Handle, identity: &Identity) -> Departure {
        let (view, status, why) = (handle.view(), handle.status(), self.why.get());
        let tail = why.map(Parting::tail).filter(|tail| tail.is_of(view.applied(), status.last));
        departure(why, &known(identity, &view, tail.unwrap_or(Tail::UNKNOWN)), status.member)
    }
}

/// What comes of a decision in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// The member stays after all.
    Stays,
    /// It leaves, and for this other cluster, if for any.
    Leaves(Option<ClusterId>),
}

fn departure(why: Option<&Parting>, known: &Known<'_>, me: MemberId) -> Departure {
    let Known { facts, tail, .. } = *known;
    if let Some(Dissolution { winner, .. }) = facts.charter.dissolved {
        return Departure::Leaves(Some(winner));
    }
    if is_forgotten(facts, me) {
        return Departure::Leaves(None);
    }
    match why {
        Some(Parting::Told(words, _)) => match believe(words, known) {
            Ok(Dissolution { winner, .. }) => Departure::Leaves(Some(winner)),
            Err(_) => Departure::Stays,
        },
        Some(Parting::Unneeded(_)) if is_dispensable(facts, me, tail) => Departure::Leaves(None),
        _ => Departure::Stays,
    }
}

/// What a member at this view knows of its cluster.
fn known<'a>(identity: &Identity, view: &'a View, tail: Tail) -> Known<'a> {
    let (cluster, generation) = (identity.cluster(), identity.generation);
    let (applied, facts, suspect) = (view.applied(), view.facts(), view.is_suspect());
    Known { cluster, generation, applied, facts, tail, suspect }
}

/// See the module.
pub(super) struct Fates {
    pub(super) transport: Arc<Transport>,
    pub(super) desk: Desk,
    pub(super) lan: Arc<Lan>,
}

impl Fates {
    /// Resolves once the cluster has ended for this member, which is noted.
    pub(super) async fn decided(&self) {
        let why = self.parting().await;
        self.desk.ended.take(why);
    }

    async fn parting(&self) -> Parting {
        let (mut silence, mut said) = (Silence::default(), Said::default());
        let (mut pause, mut tail) = (LOOK, Tail::UNKNOWN);
        loop {
            let late = async {
                Timer::after(pause).await;
            };
            or(self.desk.handle.leader_changed(), late).await;
            let silent = silence.look(self.desk.clock.now(), self.is_led());
            pause = LOOK;
            if self.is_led() {
                (said, pause) = (Said::default(), LOOK_LED);
            }
            if silent >= ASK_AFTER {
                tail = self.tail(tail).await;
                if let Some(words) = self.told(tail, &mut said).await {
                    return Parting::Told(words, tail);
                }
            }
            if silent >= GIVE_UP_AFTER {
                let (view, status) = (self.desk.handle.view(), self.desk.handle.status());
                if tail.is_of(view.applied(), status.last)
                    && is_dispensable(view.facts(), status.member, tail)
                {
                    tracing::warn!(
                        ?silent,
                        "nobody leads the cluster that this member was about to join, and nobody has written to it as far as this member knows: it begins anew"
                    );
                    return Parting::Unneeded(tail);
                }
                said.waits(view.facts(), status.member, view.applied(), silent);
            }
        }
    }

    /// Whether somebody leads whom this member reaches. One that never votes does not lose its leader by itself, however long that is gone.
    fn is_led(&self) -> bool {
        let status = self.desk.handle.status();
        let reaches = |leader| leader == status.member || self.transport.connected().contains_key(&leader);
        status.leader.is_some_and(reaches)
    }

    /// What the log has beyond the state. It is read again only when it ends elsewhere than `before` did, or the state may have taken in what weighed.
    async fn tail(&self, before: Tail) -> Tail {
        let (applied, written) = {
            let view = self.desk.handle.view();
            (view.applied(), view.facts().charter.committed)
        };
        if before.is_current(applied, self.desk.handle.status().last) {
            return before;
        }
        let read = self.desk.handle.log_after(applied).await;
        read.map_or(Tail::UNKNOWN, |(entries, last)| Tail::of(applied, &entries, last, written))
    }

    /// What the other clusters that were heard of have of the end of this one, if it is enough to go by.
    async fn told(&self, tail: Tail, said: &mut Said) -> Option<Vec<Tombstone>> {
        let cluster = self.desk.identity.cluster();
        let question = &Question::Fate { cluster };
        let words_and_said = RefCell::new((Vec::new(), said));
        let heard = &words_and_said;
        let ask = |at| async move {
            let answer = self.transport.ask_stranger(at, question).await;
            let Ok((_, Answer::Buried(tombstones))) = answer else { return Err(()) };
            let (words, said) = &mut *heard.borrow_mut();
            // Another member may know more of it.
            self.is_persuaded(words, tombstones, tail, said).then_some(()).ok_or(())
        };
        let clusters = asked_now(self.lan.clusters_beside(cluster), random_u64().unwrap_or_default());
        let of = |(_, addresses)| staggered::<SocketAddr, _, _, _>(addresses, &ask);
        let is_persuaded = together(CLUSTERS_ASKED_MAX, clusters, of).await.iter().any(Result::is_ok);
        is_persuaded.then(|| words_and_said.into_inner().0)
    }

    /// Whether this member's cluster has ended by these words and those before, on the word of members whom this one knows. Whoever has the key of
    /// one of them may say more than one thing, and takes nothing back of what that one says.
    fn is_persuaded(
        &self,
        words: &mut Vec<Tombstone>,
        more: Vec<Tombstone>,
        tail: Tail,
        said: &mut Said,
    ) -> bool {
        let view = self.desk.handle.view();
        let is_now = tail.is_of(view.applied(), self.desk.handle.status().last);
        let known = known(&self.desk.identity, &view, if is_now { tail } else { Tail::UNKNOWN });
        for tombstone in more {
            match known.word(&tombstone) {
                Ok(_) if words.contains(&tombstone) => {}
                Ok(_) => words.push(tombstone),
                Err(doubt) => said.doubts(&tombstone, doubt),
            }
        }
        match (believe(words, &known), words.last()) {
            (Ok(Dissolution { winner, .. }), _) => {
                tracing::warn!(
                    %winner, ?words,
                    "while this member was away its cluster has given itself up for another one: it joins that"
                );
                true
            }
            (Err(doubt), Some(word)) => {
                said.doubts(word, doubt);
                false
            }
            (Err(_), None) => false,
        }
    }
}

/// What operators were told since there was a leader.
#[derive(Debug, Default)]
struct Said {
    doubts: bool,
    waits: bool,
}

impl Said {
    fn doubts(&mut self, tombstone: &Tombstone, doubt: Doubt) {
        if !std::mem::replace(&mut self.doubts, true) {
            tracing::error!(
                ?tombstone, %doubt,
                "another cluster says that this member's cluster has given itself up for it, which cannot be believed: this member waits"
            );
        }
    }

    fn waits(&mut self, facts: &Facts, me: MemberId, applied: LogIndex, silent: Duration) {
        if !std::mem::replace(&mut self.waits, true) {
            tracing::error!("{}", sentence(facts, me, applied, silent));
        }
    }
}

/// What an operator has to know of a member that waits.
fn sentence(facts: &Facts, me: MemberId, applied: LogIndex, silent: Duration) -> String {
    let fingerprint = |voter: &MemberId| {
        let key = facts.keys().find(|(id, _)| id == voter).map(|(_, key)| key);
        key.map_or_else(|| voter.to_string(), |key| Fingerprint::of(&key).to_string())
    };
    let others: Vec<String> =
        facts.conf_state.voters.iter().filter(|voter| **voter != me).map(fingerprint).collect();
    let who = match &others[..] {
        [only] if facts.conf_state.voters.len() == 1 => format!("the only voter {only} is"),
        [] => "all members that vote are".to_owned(),
        others => format!("of the voters {} too many are", others.join(", ")),
    };
    format!(
        "{who} unreachable since {} s; this box has a copy up to index {applied}; writes acknowledged after that may exist only there; bring it back, or \"covey recover\"",
        silent.as_secs()
    )
}

/// Has the cluster remember what became of those that this node comes from, for their members that were away; until then the node's disk does.
pub(super) async fn bury(handle: Handle, path: PathBuf, own: ClusterId) {
    let kept = {
        let path = path.clone();
        let with_order = |word: Tombstone| (word, ordered_of(&word));
        let with_orders = move |kept: Vec<_>| kept.into_iter().map(with_order).collect::<Vec<_>>();
        handle.blocking(move || DataDir::tombstones(&path).map(with_orders)).await
    };
    let kept = match kept {
        Ok(kept) if kept.is_empty() => return,
        Ok(kept) => kept,
        Err(error) => {
            return tracing::warn!(error = %super::chain(&error), "cannot read what became of former clusters");
        }
    };
    let of_others = kept.into_iter().filter(|(tombstone, _)| tombstone.cluster != own).collect();
    let uses = || handle.view().facts().commands;
    let change = |command| {
        let handle = handle.clone();
        async move { handle.change_charter(command).await.map(|applied| applied.outcome.map(drop)) }
    };
    let pause = || async {
        Timer::after(BURY_AGAIN).await;
    };
    let Some(dropped) = bury_all(of_others, uses, change, pause).await else { return };
    if let Some(why) = told_of(&dropped) {
        tracing::warn!("{why}");
    }
    if let Err(error) = handle.blocking(move || DataDir::forget_tombstones(&path)).await {
        tracing::warn!(error = %super::chain(&error), "cannot remove what became of former clusters");
    }
}

/// Has the cluster remember these words, one after the other, each in a command of the version that the cluster uses by then, and again until it is known to have it. Those that it
/// would not keep, since no key that they name has signed them as far as can be found out. `None`: this cluster has ended, too, and all of it is taken along.
async fn bury_all<Change, Pause>(
    words: Vec<(Tombstone, Option<u64>)>,
    uses: impl Fn() -> CommandVersion,
    change: impl Fn(CharterCommand) -> Change,
    pause: impl Fn() -> Pause,
) -> Option<Vec<Tombstone>>
where
    Change: Future<Output = Result<Result<(), Rejection>, ServeError>>,
    Pause: Future<Output = ()>,
{
    let mut dropped = Vec::new();
    for (tombstone, ordered) in words {
        loop {
            let command = burial(tombstone, ordered, uses());
            let looks_at_it = matches!(command, CharterCommand::BurySigned { .. });
            if looks_at_it && !tombstone.is_signed(ordered) {
                dropped.push(tombstone);
                break;
            }
            match change(command).await {
                Ok(Ok(())) => break,
                // Others have come to use newer commands meanwhile, or it is not known here yet that they do.
                Ok(Err(Rejection::NotCapable)) => {}
                Ok(Err(_)) | Err(ServeError::Stopped) => return None,
                Err(_) => {}
            }
            pause().await;
        }
    }
    Some(dropped)
}

/// What an operator has to know of words that no cluster keeps.
fn told_of(dropped: &[Tombstone]) -> Option<String> {
    let clusters: BTreeSet<ClusterId> = dropped.iter().map(|word| word.cluster).collect();
    let clusters: Vec<String> = clusters.iter().map(ToString::to_string).collect();
    (!clusters.is_empty()).then(|| {
        format!(
            "words about the end of former clusters are dropped ({}): what they are signed with is wrong, or of a generation after the {GENERATIONS_MAX}th; where no other word of it is here, a box of such a cluster that was away waits for an operator",
            clusters.join(", ")
        )
    })
}

#[cfg(test)]
#[path = "fates_test.rs"]
mod tests;
