//! What must never happen while nodes gather, judged by what leaves the nodes and by what the network was like.
//!
//! Owns: the promises as they were given, the attempts, who has founded, and since when each pair could talk. Must never: look inside a node.
//! Driven by `world`.
//!
//! # What is judged
//!
//! - A promise is answered only when it is on the giver's disk. While it is counted on (30 s from the candidate's first question, unless the candidate has said
//!   that its attempt is over, or has died without a cluster), its giver promises nobody else and does not found, through any restart.
//! - A founder has the promise of every node without a cluster that has answered it a question of the last 5 s, of one attempt, not 20 s old.
//! - Nobody founds who could talk for [`SETTLED`] with a node that was a member all that time.
//! - Two nodes that could talk from [`SETTLED`] before the first has founded do not both found.

use std::collections::BTreeMap;
use std::time::Duration;

use covey::formation::Promise;
use covey::time::Instant;

/// After so long all is known that a good connection can bring: an announcement (1.2 s), and a probe that was still on its way when the
/// connection became good (3 s) and the one after it.
pub(crate) const SETTLED: Duration = Duration::from_secs(8);
const COUNTED: Duration = Duration::from_secs(20);
const HELD: Duration = Duration::from_secs(30);
const SESSION: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Attempt {
    host: usize,
    begun: Instant,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Given {
    giver: usize,
    to: usize,
    round: u64,
}

#[derive(Debug)]
pub(crate) struct Judge {
    attempts: BTreeMap<u64, Attempt>,
    given: Vec<Given>,
    /// Who has founded, and when that was decided.
    founders: Vec<(usize, Instant)>,
    /// Who is in a cluster, since when.
    members: BTreeMap<usize, Instant>,
    /// When something was last in the way of each pair.
    trouble: Vec<Vec<Instant>>,
    /// What each node was told last by each other: when it had asked, and whether that one had no cluster.
    told: BTreeMap<(usize, usize), (Instant, bool)>,
}

impl Judge {
    pub(crate) fn new(hosts: usize) -> Self {
        Self {
            attempts: BTreeMap::new(),
            given: Vec::new(),
            founders: Vec::new(),
            members: BTreeMap::new(),
            trouble: vec![vec![Instant(0); hosts]; hosts],
            told: BTreeMap::new(),
        }
    }

    /// Something is in the way of these two.
    pub(crate) fn troubled(&mut self, now: Instant, one: usize, other: usize) {
        self.trouble[one][other] = now;
        self.trouble[other][one] = now;
    }

    /// Nothing that a node was told before it died is known to it any more, and its attempts died with it.
    pub(crate) fn died(&mut self, host: usize) {
        self.told.retain(|(to, _), _| *to != host);
        let founded = self.members.contains_key(&host);
        for attempt in self.attempts.values_mut().filter(|attempt| attempt.host == host && !founded) {
            attempt.over = true;
        }
        if !founded {
            self.founders.retain(|(founder, _)| *founder != host);
        }
    }

    pub(crate) fn asks_for_promise(&mut self, now: Instant, host: usize, round: u64) {
        self.makes(host, Some(round));
        self.attempts.entry(round).or_insert(Attempt { host, begun: now, over: false });
    }

    /// A node says which attempt it makes.
    pub(crate) fn makes(&mut self, host: usize, round: Option<u64>) {
        for (other, attempt) in &mut self.attempts {
            attempt.over |= attempt.host == host && Some(*other) != round;
        }
    }

    /// A node says that an attempt of its own is over. Nobody may have been asked for it yet.
    pub(crate) fn over(&mut self, round: u64) {
        if let Some(attempt) = self.attempts.get_mut(&round) {
            attempt.over = true;
        }
    }

    pub(crate) fn told(&mut self, to: usize, by: usize, asked_at: Instant, fresh: bool) {
        let told = self.told.entry((to, by)).or_insert((asked_at, fresh));
        if asked_at >= told.0 {
            *told = (asked_at, fresh);
        }
    }

    /// A promise that binds this node at this moment, to another one than `except`.
    fn bound(&self, now: Instant, giver: usize, except: usize) -> Option<Given> {
        let in_force = |given: &&Given| {
            let attempt = &self.attempts[&given.round];
            given.giver == giver && given.to != except && !attempt.over && now < attempt.begun + HELD
        };
        self.given.iter().find(in_force).copied()
    }

    /// A node answers that it has promised; `disk` is what its record holds.
    pub(crate) fn promises(
        &mut self,
        now: Instant,
        giver: usize,
        to: usize,
        promise: Promise,
        disk: Option<Promise>,
    ) {
        assert_eq!(disk, Some(promise), "node {giver} answers a promise that is not on its disk");
        let bound = self.bound(now, giver, to);
        assert!(bound.is_none(), "node {giver} promises node {to} while it is bound by {bound:?}");
        let founded = self.founders.iter().find(|(founder, _)| *founder == giver);
        assert!(founded.is_none(), "node {giver} promises node {to} and has founded itself");
        let given = Given { giver, to, round: promise.round };
        if !self.given.contains(&given) {
            self.given.push(given);
        }
    }

    /// A node founds.
    pub(crate) fn founds(&mut self, now: Instant, host: usize, with: &[usize]) {
        let bound = self.bound(now, host, host);
        assert!(bound.is_none(), "node {host} founds while it is bound by {bound:?}");
        for ((to, by), (asked_at, fresh)) in &self.told {
            let visible = *to == host && *fresh && now.since(*asked_at) < SESSION;
            assert!(!visible || with.contains(by), "node {host} founds without a promise of node {by}");
        }
        for giver in with {
            let has = |given: &&Given| given.giver == *giver && given.to == host;
            let alive = |given: &&Given| !self.attempts[&given.round].over;
            let given = self.given.iter().filter(has).find(alive);
            let given = given.unwrap_or_else(|| panic!("node {host} counts on node {giver}"));
            let age = now.since(self.attempts[&given.round].begun);
            assert!(age <= COUNTED, "node {host} counts on a promise after {age:?}");
        }
        for (member, since) in &self.members {
            let talked = now.since((*since).max(self.trouble[host][*member]));
            assert!(
                talked < SETTLED,
                "node {host} founds and could talk with member {member} for {talked:?}"
            );
        }
        for (founder, at) in &self.founders {
            let talked = at.since(self.trouble[host][*founder]);
            assert!(
                talked < SETTLED,
                "node {host} founds, so did node {founder}, and they could talk for {talked:?}"
            );
        }
        self.founders.push((host, now));
    }

    /// A node has a record of its cluster.
    pub(crate) fn joined(&mut self, now: Instant, host: usize) {
        let before = self.members.insert(host, now);
        assert!(before.is_none(), "node {host} gets a second cluster");
    }

    /// A node's cluster has ended for it: it has none again, and is bound by nothing from before.
    pub(crate) fn left(&mut self, host: usize) {
        self.members.remove(&host);
        self.given.retain(|given| given.giver != host);
        self.died(host);
    }

    /// When the last node got its cluster.
    pub(crate) fn last_joined(&self) -> Instant {
        self.members.values().max().copied().unwrap_or_default()
    }
}
