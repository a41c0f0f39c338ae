//! What a log entry says, and what it does to the state.
//!
//! Owns: that whatever can be read can be applied, by every member with the same result. A member forwards what it likes: an entry that stops who applies it
//! stops all members, at every start.

use std::sync::Arc;

use bytes::Bytes;
use covey::command::{
    Admission, Alarm, AlarmAction, AlarmKind, AuthCommand, Authority, Caller, CharterCommand, ClientKey,
    Command, CommandVersion, Compare, CompareResult, CompareTarget, DeleteRange, Envelope, KeyRange,
    LeaseChange, LeaseCommand, LeaseInstance, MemberAttributes, MemberCommand, Op, PasswordHash, Permission,
    PermissionKind, Put, Range, RangeEnd, TOMBSTONE_BYTES, TokenId, TokenKey, TokenSecret, Tombstone, Txn,
    codec,
};
use covey::ids::{
    AuthRevision, ClusterId, Incarnation, LeaseId, LogIndex, MemberId, ProposalId, PublicKey, Revision, Term,
};
use covey::machine::Machine;
use covey::mvcc::Allowance;
use covey::store::{Base, Charter, ConfState, Member, Meta, Store, StoreOptions};
use redb::backends::InMemoryBackend;

use crate::input::{Input, piece};
use crate::memory::bounded;

/// Three bytes are an operation of a transaction, whose list doubles as it grows.
const BYTES_FOR_EACH: usize = 256;
const TERM: Term = Term(3);
const FOUNDER: MemberId = MemberId(9);
/// So small that most deletions are swept.
const OVERLAY_BYTES: usize = 300;

pub fn command(bytes: &[u8]) {
    let shared = Bytes::copy_from_slice(bytes);
    let Ok(read) = bounded(bytes, BYTES_FOR_EACH, || codec::decode(shared)) else { return };
    let written = codec::encode(&read);
    assert!(written.len() <= bytes.len(), "what is written is the shortest there is");
    assert_eq!(codec::decode(written), Ok(read));
}

/// A member of a cluster, with its state in memory.
struct One {
    store: Store,
    machine: Machine,
}

fn base(store: &Store) -> Arc<Base> {
    Arc::new(store.base().unwrap())
}

impl One {
    fn new(charter: Charter) -> Self {
        let options = StoreOptions { cache_bytes: 1 << 20 };
        let mut store = Store::open(InMemoryBackend::new(), options).unwrap();
        let attributes = MemberAttributes { member: FOUNDER, ..MemberAttributes::default() };
        let members = vec![Member { key: Some(PublicKey([9; 32])), votes: true, attributes }];
        let conf_state = ConfState { voters: vec![FOUNDER], ..ConfState::default() };
        let charter = Arc::new(charter);
        store
            .initialise(&Meta { revision: Revision(1), members, conf_state, charter, ..Meta::default() })
            .unwrap();
        Self { machine: Machine::new(base(&store)).unwrap(), store }
    }

    fn fold(&mut self) {
        if let Some(batch) = self.machine.rotate() {
            self.store.fold(&batch).unwrap();
            self.machine.folded(base(&self.store));
        }
    }

    /// As a member does that has little room.
    fn apply_swept(&mut self, envelope: &Envelope) -> covey::command::Applied {
        let index = self.machine.applied().next();
        if !self.machine.has_to_sweep(TERM, envelope).unwrap() {
            return self.machine.apply(index, TERM, envelope, Allowance::UNLIMITED).unwrap();
        }
        self.fold();
        let swept = self.machine.begin_sweep(index, TERM, envelope, Allowance::UNLIMITED);
        let (batch, applied) = swept.unwrap();
        self.store.fold(&batch).unwrap();
        self.machine.folded(base(&self.store));
        applied
    }
}

/// Two members apply the same entries: one keeps all in memory, the other folds and sweeps whenever it can.
pub fn applied(bytes: &[u8]) {
    let mut input = Input(bytes);
    let charter = if input.u8() & 1 == 0 { Charter::default() } else { Charter::automatic() };
    let (mut one, mut two) = (One::new(charter.clone()), One::new(charter));
    two.machine.set_overlay_bytes(OVERLAY_BYTES);
    while !input.is_empty() {
        let Ok(envelope) = codec::decode(Bytes::copy_from_slice(input.piece())) else { continue };
        let index = one.machine.applied().next();
        let applied = one.machine.apply(index, TERM, &envelope, Allowance::UNLIMITED).unwrap();
        assert_eq!(two.apply_swept(&envelope), applied, "{envelope:?}");
        if two.machine.should_rotate() {
            two.fold();
            two.store.compact_slice(8).unwrap();
            two.machine.rebased(base(&two.store));
        }
        assert_eq!(one.machine.digest(), two.machine.digest());
    }
    let (one_view, two_view) = (one.machine.view(), two.machine.view());
    assert_eq!(one_view.facts(), two_view.facts());
    assert_eq!(one_view.leases(), two_view.leases());
    assert_eq!(one_view.revision(), two_view.revision());
    // What was applied can be kept, and gone on from.
    one.fold();
    assert_eq!(Machine::new(base(&one.store)).unwrap().view().facts(), one_view.facts());
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put(key: &'static str, lease: LeaseChange) -> Put {
    Put { key: text(key), value: Some(text("value")), lease, prev_kv: true }
}

const DETACHED: LeaseChange = LeaseChange::Set(LeaseId::NONE);
/// A lease, and a member that is to be.
const LEASE: LeaseInstance = LeaseInstance { id: LeaseId(7), granted_at: LogIndex(1) };
const NEW: MemberId = MemberId(0x1234_5678_9abc_def0);
const KEY: PublicKey = PublicKey([4; 32]);

/// Commands of each shape, and a lease among them that lives before they name it.
fn of_users() -> Vec<Command> {
    let range = |start, end| KeyRange { start: text(start), end };
    let all = range("a", RangeEnd::Unbounded);
    let kept = Put { value: None, ..put("b", LeaseChange::Keep) };
    let compare = |target| Compare { range: all.clone(), result: CompareResult::Greater, target };
    let txn = Txn {
        compare: vec![
            compare(CompareTarget::Version(0)),
            compare(CompareTarget::Value(text("v"))),
            compare(CompareTarget::Unknown),
        ],
        success: vec![
            Op::Put(put("t", DETACHED)),
            Op::Range(Range::all(range("a", RangeEnd::Before(text("u"))))),
            Op::DeleteRange(DeleteRange { range: range("b", RangeEnd::Single), prev_kv: true }),
        ],
        failure: vec![Op::Txn(Txn { success: vec![Op::Put(put("n", DETACHED))], ..Txn::default() })],
    };
    vec![
        Command::Put(put("a", DETACHED)),
        Command::Put(kept),
        Command::Lease(LeaseCommand::Grant { id: LEASE.id, ttl: 60 }),
        Command::Put(put("leased", LeaseChange::Set(LEASE.id))),
        Command::Lease(LeaseCommand::Checkpoint { term: TERM, sequence: 1, leases: vec![(LEASE, 30)] }),
        Command::Lease(LeaseCommand::Expire { term: TERM, leases: vec![LEASE] }),
        Command::Lease(LeaseCommand::Revoke { id: LeaseId(-7) }),
        Command::Txn(txn),
        Command::Compact { revision: 3 },
        Command::DeleteRange(DeleteRange { range: all, prev_kv: false }),
    ]
}

fn of_members() -> Vec<Command> {
    let attributes = MemberAttributes {
        member: FOUNDER,
        name: "box".into(),
        peer_urls: vec!["https://10.0.0.1:2380".into()],
        client_urls: vec!["https://10.0.0.1:2379".into()],
        incarnation: 1,
        boot_nonce: 2,
        understands: CommandVersion(2),
    };
    let peer_urls = vec!["http://a:1".into()];
    let members = [
        MemberCommand::Add { peer_urls: peer_urls.clone(), votes: false, strict: true, learners_max: 1 },
        MemberCommand::Bind { id: NEW, key: KEY },
        MemberCommand::Promote { id: NEW, strict: false },
        MemberCommand::Update { id: NEW, peer_urls },
        MemberCommand::Remove { id: NEW, strict: false },
        MemberCommand::Revote { promote: vec![NEW], demote: vec![FOUNDER] },
    ];
    let alarm = Alarm { member: FOUNDER, kind: AlarmKind::NoSpace };
    let alarms = [
        AlarmAction::Activate,
        AlarmAction::QuotaReached,
        AlarmAction::QuotaRelieved,
        AlarmAction::Deactivate,
    ];
    let alarms = alarms.map(|action| Command::Alarm { action, alarm });
    [Command::Publish(attributes)].into_iter().chain(alarms).chain(members.map(Command::Member)).collect()
}

fn of_the_charter() -> Vec<Command> {
    let charter = [
        CharterCommand::CreateToken { id: TokenId([1; 8]), key: TokenKey([2; 32]), seconds: 60 },
        CharterCommand::OpenWindow { seconds: 600 },
        CharterCommand::Approve { fingerprint: [4; 32] },
        CharterCommand::Admit {
            key: KEY,
            name: "new".into(),
            peer_urls: vec!["https://10.0.0.2:2380".into()],
            by: Admission::Token(TokenId([1; 8])),
            run: Incarnation(2),
            of: None,
        },
        CharterCommand::Elapsed { to: 100 },
        CharterCommand::Forget { member: NEW },
        CharterCommand::RevokeToken { id: TokenId([1; 8]) },
        CharterCommand::Establish(Authority { certificate: text("certificate"), key: text("key") }),
        CharterCommand::IssueClient { key: ClientKey([5; 32]), name: "client".into() },
        CharterCommand::RevokeClient { key: ClientKey([5; 32]) },
        CharterCommand::Seal,
        CharterCommand::Dissolve { winner: ClusterId(3) },
        CharterCommand::Bury(Tombstone::from_bytes(&[6; TOMBSTONE_BYTES])),
        CharterCommand::BurySigned {
            tombstone: Tombstone::from_bytes(&[6; TOMBSTONE_BYTES]),
            ordered: Some(2),
        },
    ];
    charter.map(Command::Charter).into()
}

/// A user that may do some things, and one that may do everything.
fn of_authentication() -> Vec<AuthCommand> {
    let (app, root) = (|| "app".to_owned(), || "root".to_owned());
    let range = || KeyRange { start: text("a"), end: RangeEnd::Before(text("c")) };
    let permission = Permission { kind: PermissionKind::ReadWrite, range: range() };
    vec![
        AuthCommand::AddUser { name: root(), password: PasswordHash("hash".into()), no_password: false },
        AuthCommand::GrantRole { user: root(), role: root() },
        AuthCommand::AddUser { name: app(), password: PasswordHash::default(), no_password: true },
        AuthCommand::AddRole { name: app() },
        AuthCommand::GrantRole { user: app(), role: app() },
        AuthCommand::GrantPermission { role: app(), permission },
        AuthCommand::Enable,
        AuthCommand::EstablishTokens { secret: TokenSecret([7; 32]) },
        AuthCommand::ChangePassword { name: root(), password: PasswordHash("another".into()) },
        AuthCommand::RevokePermission { role: app(), range: range() },
        AuthCommand::RevokeRole { user: app(), role: app() },
        AuthCommand::DeleteRole { name: app() },
        AuthCommand::DeleteUser { name: app() },
        AuthCommand::Disable,
    ]
}

/// The place in that list from which on it takes somebody, and the revision there.
const ENABLED: (usize, AuthRevision) = (7, AuthRevision(7));

/// Each as a log entry has it. Authentication is on for the users' commands, of which each is asked for by one user and by the other.
pub fn encoded() -> impl Iterator<Item = Bytes> {
    let id = ProposalId { boot: 0x0123_4567_89ab_cdef, seq: 300 };
    let envelope = move |caller, command| codec::encode(&Envelope { id, caller, command });
    let by = |user: &str, revision| Some(Caller { user: user.to_owned(), revision });
    let plain = [of_users(), of_members()].concat().into_iter().map(move |command| envelope(None, command));
    let mut authentication = of_authentication();
    let (enabled, mut revision) = ENABLED;
    let after = authentication.split_off(enabled);
    let before = authentication.into_iter().map(move |command| envelope(None, Command::Auth(command)));
    let asked = of_users()
        .into_iter()
        .flat_map(move |command| ["app", "root"].map(|user| envelope(by(user, revision), command.clone())));
    let after = after.into_iter().map(move |command| {
        let counts = !matches!(command, AuthCommand::EstablishTokens { .. });
        let entry = envelope(by("root", revision), Command::Auth(command));
        revision.0 += u64::from(counts);
        entry
    });
    let charter = of_the_charter().into_iter().map(move |command| envelope(None, command));
    plain.chain(before).chain(asked).chain(after).chain(charter)
}

pub mod seeds {
    use super::{encoded, piece};

    pub fn command() -> Vec<Vec<u8>> {
        encoded().map(|entry| entry.to_vec()).collect()
    }

    /// All in one run, and the same twice, with either charter.
    pub fn applied() -> Vec<Vec<u8>> {
        let run: Vec<u8> = encoded().flat_map(|entry| piece(&entry)).collect();
        (0..2)
            .flat_map(|charter| [[&[charter], &run[..]].concat(), [&[charter], &run[..], &run].concat()])
            .collect()
    }
}
