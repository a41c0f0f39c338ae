//! Several members in one process, joined by a network that loses what a test tells it to lose.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::*;
use crate::ids::LogIndex;
use crate::limits::HEARTBEAT;
use crate::wal::Position;

/// One member with its disk.
pub(super) struct Node {
    pub(super) raft: Consensus,
    pub(super) applied: Vec<LogEntry>,
    pub(super) conf_state: ConfState,
    pub(super) reads: Vec<(ReadRound, LogIndex)>,
    /// The last snapshot that took the place of the state.
    pub(super) installed: Option<SnapshotMark>,
    /// While true, nothing is synced.
    pub(super) slow_disk: bool,
    /// Each sync takes so long, and what comes meanwhile waits for the next.
    pub(super) sync: Duration,
    /// When the sync that is under way ends.
    synced_at: Option<Instant>,
    syncing: Vec<Persist>,
    waiting: Vec<Persist>,
    disk: (HardState, Vec<LogEntry>),
}

pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) now: Instant,
    pub(super) cut_off: Vec<u64>,
    /// Members that do not trust their state, from their next start on.
    pub(super) suspect: Vec<u64>,
    first: ConfState,
    network: VecDeque<Message>,
    boots: u64,
    seed: u64,
}

pub(super) const BEGIN: Position = Position { index: LogIndex(1), term: Term(1) };

pub(super) fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

pub(super) fn conf(voters: &[u64], learners: &[u64]) -> ConfState {
    let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    ConfState { voters: ids(voters), learners: ids(learners), ..ConfState::default() }
}

pub(super) fn start_of(member: u64, conf_state: ConfState) -> Start {
    Start {
        member: MemberId(member),
        boot_nonce: member,
        applied: BEGIN,
        conf_state,
        hard_state: HardState { term: Term(1), vote: None, commit: LogIndex(1) },
        log_start: BEGIN,
        entries: Vec::new(),
        pace: Pace::default(),
        suspect: false,
        removed: false,
    }
}

impl Consensus {
    /// How many messages wait for the disk.
    pub(super) fn held_back(&self) -> usize {
        self.outstanding.iter().map(Outstanding::waiting).sum()
    }
}

impl Node {
    fn sync_ends(&self) -> Option<Instant> {
        self.synced_at.filter(|_| !self.slow_disk)
    }

    /// What the disk has from now on.
    fn take_synced(&mut self, now: Instant) -> Vec<Persist> {
        if self.sync.is_zero() {
            return std::mem::take(&mut self.waiting);
        }
        let done = self.synced_at.take_if(|at| *at <= now).is_some();
        let synced = if done { std::mem::take(&mut self.syncing) } else { Vec::new() };
        if self.synced_at.is_none() && !self.waiting.is_empty() {
            self.syncing = std::mem::take(&mut self.waiting);
            self.synced_at = Some(now + self.sync);
        }
        synced
    }
}

impl Cluster {
    pub(super) fn new(voters: &[u64], learners: &[u64]) -> Self {
        Self::seeded(0, voters, learners)
    }

    /// One of the histories that there can be.
    pub(super) fn seeded(seed: u64, voters: &[u64], learners: &[u64]) -> Self {
        let first = conf(voters, learners);
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            now: Instant(0),
            cut_off: Vec::new(),
            suspect: Vec::new(),
            first,
            network: VecDeque::new(),
            boots: 0,
            seed,
        };
        for &id in voters.iter().chain(learners) {
            cluster.add(id);
        }
        cluster.settle();
        cluster
    }

    fn add(&mut self, id: u64) {
        let start = start_of(id, self.first.clone());
        let disk = (start.hard_state, Vec::new());
        self.insert(start, disk);
    }

    fn insert(&mut self, mut start: Start, disk: (HardState, Vec<LogEntry>)) {
        self.boots += 1;
        start.boot_nonce = self.boots;
        let (id, conf_state) = (start.member.0, start.conf_state.clone());
        let raft = Consensus::start(self.now, start, Prng::new(id ^ (self.seed << 8)), &logger()).unwrap();
        let node = Node {
            raft,
            applied: Vec::new(),
            conf_state,
            reads: Vec::new(),
            installed: None,
            slow_disk: false,
            sync: Duration::ZERO,
            synced_at: None,
            syncing: Vec::new(),
            waiting: Vec::new(),
            disk,
        };
        self.nodes.insert(id, node);
    }

    /// A member that is not in the configuration yet.
    pub(super) fn join(&mut self, start: Start) {
        let disk = (start.hard_state, Vec::new());
        self.insert(start, disk);
    }

    /// A crash: what was not synced is gone, and the log is applied anew from its beginning.
    pub(super) fn restart(&mut self, id: u64) {
        let node = self.nodes.remove(&id).unwrap();
        let mut start = start_of(id, self.first.clone());
        (start.hard_state, start.entries) = node.disk.clone();
        start.suspect = self.suspect.contains(&id);
        self.insert(start, node.disk);
    }

    pub(super) fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    pub(super) fn raft(&mut self, id: u64) -> &mut Consensus {
        &mut self.node(id).raft
    }

    pub(super) fn leader(&self) -> Option<u64> {
        let leads = |(_, node): &(&u64, &Node)| node.raft.status().role == Role::Leader;
        let leaders = self.nodes.iter().filter(leads);
        leaders.max_by_key(|(_, node)| node.raft.status().term).map(|(id, _)| *id)
    }

    /// Everything that happens without time passing.
    pub(super) fn settle(&mut self) {
        loop {
            let mut busy = false;
            for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                busy |= self.run(id);
            }
            while let Some(message) = self.network.pop_front() {
                busy = true;
                let (from, to) = (message.from().0, message.to().0);
                if self.cut_off.contains(&from) || self.cut_off.contains(&to) {
                    continue;
                }
                let message = Message::decode(message.encode(), &mut Allowance::default()).unwrap();
                if let Some(node) = self.nodes.get_mut(&to) {
                    // A refusal is a lost message.
                    let _ = node.raft.step(self.now, message);
                }
            }
            if !busy {
                break;
            }
        }
    }

    fn run(&mut self, id: u64) -> bool {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        let mut busy = false;
        if node.raft.is_suspect() && node.raft.status().role == Role::Leader && !node.raft.is_handing_over() {
            let others = node.conf_state.voters.clone().into_iter().filter(|other| other.0 != id);
            if let Some(heir) = others.into_iter().find(|other| node.raft.has_caught_up(*other)) {
                node.raft.transfer_leader(now, heir);
            }
        }
        node.raft.request_state(now);
        while let Some(ready) = node.raft.poll_ready() {
            busy = true;
            self.network.extend(ready.messages);
            node.waiting.extend(ready.persist);
            node.reads.extend(ready.reads);
            if let Some(mark) = ready.install {
                node.raft.handle_installed(now, mark.position);
                node.conf_state = mark.conf_state.clone();
                node.applied.clear();
                node.disk.1.clear();
                node.raft.handle_applied(now, mark.position.index);
                node.installed = Some(mark);
            }
            for entry in ready.committed {
                let index = entry.index;
                if entry.kind == EntryKind::ConfChangeV2 {
                    node.conf_state = node.raft.apply_conf_change(now, &entry).unwrap().unwrap();
                }
                node.applied.push(entry);
                node.raft.handle_applied(now, index);
            }
        }
        if !node.slow_disk {
            for persist in node.take_synced(now) {
                busy = true;
                node.disk.0 = persist.hard_state.unwrap_or(node.disk.0);
                if let Some(first) = persist.entries.first() {
                    node.disk.1.retain(|entry| entry.index < first.index);
                }
                node.disk.1.extend(persist.entries);
                self.network.extend(node.raft.handle_persisted(now, persist.id));
            }
        }
        busy
    }

    /// Lets time pass, from one timeout to the next.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.nodes.values().flat_map(|node| [node.raft.poll_timeout(), node.sync_ends()]);
            let next = next.flatten().min();
            self.now = next.map_or(end, |next| next.max(self.now).min(end));
            for node in self.nodes.values_mut() {
                node.raft.handle_timeout(self.now);
            }
            self.settle();
            if self.now == end {
                break;
            }
        }
    }

    /// Passes time until somebody leads and has committed in its term.
    pub(super) fn elect(&mut self) -> u64 {
        for _ in 0..100 {
            self.pass(HEARTBEAT);
            let leader = self.leader().filter(|id| !self.cut_off.contains(id));
            if let Some(leader) = leader
                && self.raft(leader).serves_reads()
            {
                return leader;
            }
        }
        panic!("no leader in ten seconds");
    }

    pub(super) fn propose(&mut self, id: u64, data: &'static str) {
        let now = self.now;
        self.raft(id).propose(now, vec![data.into()]).unwrap();
        self.settle();
    }

    /// What a member applied, without leaders' first entries and changes of the configuration.
    pub(super) fn commands(&self, id: u64) -> Vec<String> {
        let commands = self.nodes[&id].applied.iter().filter(|entry| entry.kind == EntryKind::Normal);
        let texts = commands.map(|entry| String::from_utf8(entry.data.to_vec()).unwrap());
        texts.filter(|text| !text.is_empty()).collect()
    }
}
