//! A cluster as far as it matters to others: one log in one order, applied by the real state machine, and who leads.
//!
//! Owns: the state after each entry, and what must hold for what the log takes. Must never: commit without a majority: `members` asks it for the voters. The
//! members' own logs and raft's terms are not here, but in the other worlds. Driven by `members`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use covey::command::{
    Admission, Applied, CharterCommand, Command, CommandVersion, LeaseChange, MemberCommand, Put, Tombstone,
};
use covey::formation::ClusterRoot;
use covey::ids::{ClusterId, Incarnation, LeaseId, LogIndex, MemberId, PublicKey, Revision, Term};
use covey::limits::FOUNDING_WINDOW_SECONDS_MAX;
use covey::machine::Machine;
use covey::mvcc::{Allowance, Facts};
use covey::store::{Base, Charter, ConfState, Member, Meta, Store, StoreOptions};
use redb::backends::InMemoryBackend;

/// The state that a cluster begins with whose founder understands this; the first entries make it a member.
pub(crate) fn empty(commands: CommandVersion) -> Arc<Base> {
    let options = StoreOptions { cache_bytes: 1024 * 1024 };
    let mut store = Store::open(InMemoryBackend::new(), options).expect("a sound store");
    let charter = Arc::new(Charter::automatic());
    let meta = Meta { revision: Revision(1), charter, commands, ..Meta::default() };
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

/// What is in the log.
pub(crate) enum Entry {
    Command(Command),
    /// A change of raft's configuration.
    Change,
}

/// How many are in one of them alone.
fn differ(one: &[MemberId], other: &[MemberId]) -> usize {
    let lacks = |one: &[MemberId], other: &[MemberId]| one.iter().filter(|id| !other.contains(id)).count();
    lacks(one, other) + lacks(other, one)
}

pub(crate) struct Cluster {
    pub(crate) root: ClusterRoot,
    pub(crate) founder: PublicKey,
    machine: Machine,
    /// The state after each entry.
    states: Vec<Arc<Facts>>,
    log: Vec<Entry>,
    /// What those whose keys nobody else has have said last of clusters that they come from, as far as it was kept.
    said: BTreeMap<PublicKey, Tombstone>,
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
            founder: key,
            machine,
            states,
            log: Vec::new(),
            said: BTreeMap::new(),
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
        cluster.change();
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
    pub(crate) fn entries(&self, after: usize, last: usize) -> &[Entry] {
        &self.log[after..last]
    }

    pub(crate) fn tip(&self) -> &Arc<Facts> {
        &self.states[self.states.len() - 1]
    }

    pub(crate) fn winner(&self) -> Option<ClusterId> {
        Some(self.tip().charter.dissolved?.winner)
    }

    /// Those that vote in raft, in the old configuration or in the new one.
    pub(crate) fn voters(&self) -> Vec<PublicKey> {
        let ConfState { voters, voters_outgoing, .. } = &self.tip().conf_state;
        let votes = |id: &MemberId| voters.contains(id) || voters_outgoing.contains(id);
        self.tip().keys().filter(|(id, _)| votes(id)).map(|(_, key)| key).collect()
    }

    /// Whether those of the voters are enough that are here.
    pub(crate) fn is_majority(&self, is_here: impl Fn(PublicKey) -> bool) -> bool {
        let here: Vec<MemberId> =
            self.tip().keys().filter(|(_, key)| is_here(*key)).map(|(id, _)| id).collect();
        let is_majority =
            |voters: &[MemberId]| voters.iter().filter(|id| here.contains(id)).count() > voters.len() / 2;
        let ConfState { voters, voters_outgoing, .. } = &self.tip().conf_state;
        is_majority(voters) && (voters_outgoing.is_empty() || is_majority(voters_outgoing))
    }

    /// The next step to the configuration that the members are to have, if it is another one: of several voters in two, of which the first needs the votes of both.
    pub(crate) fn change(&mut self) -> bool {
        let now = &self.tip().conf_state;
        let ids = |votes: bool| {
            let members = self.tip().members.iter().filter(|member| member.votes == votes);
            let mut ids: Vec<MemberId> = members.map(Member::id).collect();
            ids.sort_unstable();
            ids
        };
        let mut next = ConfState { voters: ids(true), learners: ids(false), ..ConfState::default() };
        if !now.voters_outgoing.is_empty() {
            next = ConfState { voters: now.voters.clone(), learners: now.learners.clone(), ..next };
        } else if differ(&next.voters, &now.voters) > 1 {
            next.voters_outgoing.clone_from(&now.voters);
        }
        if next == *now {
            return false;
        }
        let index = LogIndex(self.states.len() as u64);
        self.machine.apply_conf_state(index, Term(1), next);
        self.states.push(Arc::new(self.machine.facts().clone()));
        self.log.push(Entry::Change);
        true
    }

    /// Somebody has said this, and with nobody else's key; it is asked for later if it was kept.
    pub(crate) fn says(&mut self, word: Tombstone) {
        if self.tip().charter.buried.last() == Some(&word) {
            self.said.insert(word.signer, word);
        }
    }

    /// The next entry.
    pub(crate) fn apply(&mut self, command: &Command) -> Applied {
        let id = self.id();
        let index = LogIndex(self.states.len() as u64);
        let had = self.tip().members.len();
        let applied =
            self.machine.apply(index, Term(1), command, Allowance::UNLIMITED).expect("a sound store");
        self.states.push(Arc::new(self.machine.facts().clone()));
        self.log.push(Entry::Command(command.clone()));
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
        let tip = &self.states[self.states.len() - 1];
        self.said.retain(|signer, _| member(tip, *signer).is_some());
        for word in self.said.values() {
            assert!(
                tip.charter.buried.contains(word),
                "cluster {id} has forgotten what a member has said last"
            );
        }
        applied
    }
}
