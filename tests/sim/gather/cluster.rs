//! A cluster as far as it matters to others: one log in one order, applied by the real state machine, and who leads.
//!
//! Owns: the state after each entry, and what must hold for what the log takes. Must never: commit without a majority: `members` asks it for the voters. The
//! members' own logs and raft's terms are not here, but in the other worlds. Driven by `members`.

use std::sync::Arc;

use bytes::Bytes;
use covey::command::{Admission, Applied, CharterCommand, Command, LeaseChange, MemberCommand, Put};
use covey::formation::ClusterRoot;
use covey::ids::{ClusterId, Incarnation, LeaseId, LogIndex, PublicKey, Revision, Term};
use covey::limits::FOUNDING_WINDOW_SECONDS_MAX;
use covey::machine::Machine;
use covey::mvcc::{Allowance, Facts};
use covey::store::{Base, Charter, Member, Meta, Store, StoreOptions};
use redb::backends::InMemoryBackend;

/// The state that all clusters begin with; the first entries make the founder a member.
pub(crate) fn empty() -> Arc<Base> {
    let options = StoreOptions { cache_bytes: 1024 * 1024 };
    let mut store = Store::open(InMemoryBackend::new(), options).expect("a sound store");
    let charter = Arc::new(Charter::automatic());
    let meta = Meta { revision: Revision(1), charter, ..Meta::default() };
    store.initialise(&meta).expect("a sound store");
    Arc::new(store.base().expect("a sound store"))
}

pub(crate) fn write() -> Command {
    let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
    Command::Put(Put { key, value: Some(value), lease: LeaseChange::Set(LeaseId::NONE), prev_kv: false })
}

pub(crate) fn member(facts: &Facts, key: PublicKey) -> Option<&Member> {
    facts.members.iter().find(|member| member.key == Some(key))
}

pub(crate) struct Cluster {
    pub(crate) root: ClusterRoot,
    machine: Machine,
    /// The state after each entry.
    states: Vec<Arc<Facts>>,
    log: Vec<Command>,
    /// Who leads, while somebody does.
    pub(crate) leader: Option<usize>,
    /// What users were told has taken effect.
    pub(crate) acknowledged: u64,
    /// An operator has closed it.
    sealed: bool,
    /// An operator has ordered that it give itself up, so that it may.
    pub(crate) ordered: bool,
    elapsed: u64,
}

impl Cluster {
    pub(crate) fn found(base: &Arc<Base>, root: ClusterRoot, key: PublicKey, host: usize) -> Self {
        let machine = Machine::new(Arc::clone(base)).expect("a sound store");
        let states = vec![Arc::new(machine.facts().clone())];
        let leader = Some(host);
        let (sealed, ordered) = (false, false);
        let mut cluster = Self {
            root,
            machine,
            states,
            log: Vec::new(),
            leader,
            acknowledged: 0,
            sealed,
            ordered,
            elapsed: 0,
        };
        let (name, peer_urls) = (format!("n{host}"), Vec::new());
        let by = Admission::Window;
        cluster.apply(&Command::Charter(CharterCommand::Admit {
            key,
            name,
            peer_urls,
            by,
            run: Incarnation(1),
            of: None,
        }));
        let promote = cluster.tip().members.iter().map(Member::id).collect();
        cluster.apply(&Command::Member(MemberCommand::Revote { promote, demote: Vec::new() }));
        cluster
    }

    pub(crate) fn id(&self) -> ClusterId {
        self.root.id()
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.states.len() - 1
    }

    pub(crate) fn at(&self, index: usize) -> &Arc<Facts> {
        &self.states[index]
    }

    /// The entries after this one, up to another one.
    pub(crate) fn entries(&self, after: usize, last: usize) -> &[Command] {
        &self.log[after..last]
    }

    pub(crate) fn tip(&self) -> &Arc<Facts> {
        &self.states[self.states.len() - 1]
    }

    pub(crate) fn winner(&self) -> Option<ClusterId> {
        Some(self.tip().charter.dissolved?.winner)
    }

    pub(crate) fn voters(&self) -> Vec<PublicKey> {
        let voters = self.tip().members.iter().filter(|member| member.votes);
        voters.filter_map(|member| member.key).collect()
    }

    /// The next entry.
    pub(crate) fn apply(&mut self, command: &Command) -> Applied {
        let id = self.id();
        let index = LogIndex(self.states.len() as u64);
        let had = self.tip().members.len();
        let applied =
            self.machine.apply(index, Term(1), command, Allowance::UNLIMITED).expect("a sound store");
        self.states.push(Arc::new(self.machine.facts().clone()));
        self.log.push(command.clone());
        let took_effect = applied.outcome.is_ok();
        match command {
            Command::Put(_) => self.acknowledged += u64::from(took_effect),
            Command::Charter(CharterCommand::Seal) => self.sealed |= took_effect,
            Command::Charter(CharterCommand::Elapsed { to }) => self.elapsed = self.elapsed.max(*to),
            Command::Charter(CharterCommand::Admit { by: Admission::Window, .. }) => {
                let open = !self.sealed && self.elapsed < FOUNDING_WINDOW_SECONDS_MAX;
                assert!(open || self.tip().members.len() == had, "cluster {id} is sealed and lets a node in");
            }
            _ => {}
        }
        assert!(
            self.acknowledged == 0 || self.winner().is_none() || self.ordered,
            "cluster {id} dissolves with what a user was told is written, and no operator has said so"
        );
        applied
    }
}
