//! A node of which a test plays the threads.

use std::pin::pin;

use redb::backends::InMemoryBackend;

use super::super::clock::Clock;
use super::super::handle::{AdmissionOptions, Handle, NodeIds, UNHEARD_TRIES_MAX};
use super::*;
use crate::command::{
    self, Admission, AuthCommand, Caller, CharterCommand, Command, Envelope, LeaseCommand, MemberAttributes,
    MemberCommand, PasswordHash, Rejection, codec,
};
use crate::formation::first_state_of;
use crate::ids::{ClusterId, Incarnation, LeaseId, MemberId, PublicKey};
use crate::limits::PROPOSALS_PENDING_MAX;
use crate::machine::Machine;
use crate::mvcc::Allowance;
use crate::store::{Charter, Member, Meta, Store, StoreOptions};

/// A node of which a test plays the threads.
fn context() -> Context {
    alone(Charter::default(), None).0
}

/// The same, the only member of a cluster with this charter, and the state that it shows.
fn alone(charter: Charter, hold: Option<Duration>) -> (Context, Machine) {
    let (meta, _) = first_state_of(MemberId(1), PublicKey([1; 32]));
    of(&Meta { charter: Arc::new(charter), ..meta }, hold)
}

/// Member 1 of a cluster with this state, in the run of nonce 1.
fn of(meta: &Meta, hold: Option<Duration>) -> (Context, Machine) {
    let mut store = Store::open(InMemoryBackend::new(), StoreOptions::default()).unwrap();
    store.initialise(meta).unwrap();
    let ids = NodeIds { cluster: ClusterId(1), member: MemberId(1), boot_nonce: 1 };
    let clock = Clock::start();
    let hold_until = hold.map(|hold| clock.now() + hold);
    let admission = AdmissionOptions { request_bytes: 1024, quota: None, hold_until };
    let base = Arc::new(store.base().unwrap());
    let machine = Machine::new(Arc::clone(&base)).unwrap();
    let shared = Arc::new(Shared::new(ids, admission, clock, base, 0, Arc::default()).unwrap());
    let metrics = Arc::new(Metrics::new([]));
    (Context { queues: Arc::clone(&shared.queues), shared, metrics }, machine)
}

fn asked(context: &Context) -> Vec<ReadId> {
    context.shared.arrivals.take().into_iter().map(ReadId).collect()
}

/// A pulse that only one of the threads has to live for would be none.
#[test]
fn a_pulse_goes_through_the_core_and_then_through_the_log() {
    let (context, _) = alone(Charter::default(), None);
    let handle = Handle(Arc::clone(&context.shared));
    let mut pulse = pin!(handle.pulse());
    smol::block_on(async {
        assert_eq!(smol::future::poll_once(pulse.as_mut()).await, None);
        let (mut core, mut log) = (Vec::new(), Vec::new());
        context.queues.wal.drain(&mut log, Some(Duration::ZERO));
        assert!(log.is_empty(), "the log is not asked past the core");
        context.shared.core.drain(&mut core, Some(Duration::ZERO));
        let [CoreInput::Pulse(answer)] = <[CoreInput; 1]>::try_from(core).ok().unwrap() else {
            panic!("the core is asked");
        };
        assert_eq!(smol::future::poll_once(pulse.as_mut()).await, None, "not answered by being asked");
        answer.send(()).unwrap();
        assert!(pulse.await);
    });
}

fn wakes(context: &Context) -> usize {
    let mut inputs = Vec::new();
    context.shared.core.drain(&mut inputs, Some(Duration::ZERO));
    inputs.iter().filter(|input| matches!(input, CoreInput::ReadsWait)).count()
}

/// Answers what the read came to, once it has.
async fn now(read: impl Future<Output = Result<(), ServeError>> + Unpin) -> Option<Result<(), ServeError>> {
    smol::future::poll_once(read).await
}

#[test]
fn a_read_waits_for_the_state_but_not_for_ever() {
    let context = context();
    let handle = Handle(Arc::clone(&context.shared));
    let mut standing = Standing::default();
    let ready = |reads, index| CoreOutput::ReadReady(reads, LogIndex(index));
    let applied = |index| ApplierOutput::Applied { index: LogIndex(index), bytes: 0, awaited: false };
    smol::block_on(async {
        let mut reads = [Box::pin(handle.read_barrier()), Box::pin(handle.read_barrier())];
        for read in &mut reads {
            assert_eq!(now(read).await, None);
        }
        let [early, late] = asked(&context)[..] else { panic!("two reads ask") };
        carry_out_core(ready(vec![early], 5), &context, &mut standing);
        carry_out_core(ready(vec![late], 9), &context, &mut standing);
        assert_eq!(now(&mut reads[0]).await, None, "its index is not applied yet");
        carry_out_applier(applied(5), &context, &mut 0);
        assert_eq!(now(&mut reads[0]).await, Some(Ok(())));

        let began = context.shared.clock.now();
        sweep(&context, began + REQUEST_TIMEOUT);
        assert_eq!(now(&mut reads[1]).await, None);
        sweep(&context, began + REQUEST_TIMEOUT + SWEEP_INTERVAL);
        assert_eq!(now(&mut reads[1]).await, Some(Err(ServeError::TimedOut)));
        let mut confirmed = context.shared.confirmed.lock().unwrap();
        assert!(confirmed.reach(LogIndex(9)).is_empty(), "nothing is kept for who has gone");
    });
}

#[test]
fn a_read_that_the_core_gives_up_is_told_why() {
    let context = context();
    let handle = Handle(Arc::clone(&context.shared));
    let mut standing = Standing::default();
    smol::block_on(async {
        for (why, error) in [
            (RefusedWhy::TimedOut, ServeError::TimedOut),
            (RefusedWhy::LeaderChanged, ServeError::LeaderChanged),
        ] {
            let mut read = Box::pin(handle.read_barrier());
            assert_eq!(now(&mut read).await, None);
            let request = Request::Read(asked(&context)[0]);
            carry_out_core(CoreOutput::Refused { request, why }, &context, &mut standing);
            assert_eq!(now(&mut read).await, Some(Err(error)));
        }
    });
    let Metrics { slow_read_indexes, read_indexes_failed, .. } = &*context.metrics;
    assert_eq!((slow_read_indexes.value(), read_indexes_failed.value()), (1, 1));
}

/// Reads that come together cost the core one turn; and the first of them is not waited for.
#[test]
fn reads_that_come_together_wake_the_core_once() {
    let context = context();
    let handle = Handle(Arc::clone(&context.shared));
    smol::block_on(async {
        let mut first = Box::pin(handle.read_barrier());
        assert_eq!(now(&mut first).await, None);
        let mut second = Box::pin(handle.read_barrier());
        assert_eq!(now(&mut second).await, None);
        assert_eq!(wakes(&context), 0, "others that are ready to ask come first");
        assert_eq!(now(&mut first).await, None);
        assert_eq!((wakes(&context), asked(&context).len()), (1, 2));

        let mut given_up = Box::pin(handle.read_barrier());
        assert_eq!(now(&mut given_up).await, None);
        drop(given_up);
        assert_eq!(wakes(&context), 1, "the second of a group relies on it");

        stop(&context);
        assert_eq!(now(Box::pin(handle.read_barrier())).await, Some(Err(ServeError::Stopped)));
    });
}

fn proposed(context: &Context) -> usize {
    proposals(context).len()
}

fn proposals(context: &Context) -> Vec<Envelope> {
    let mut inputs = Vec::new();
    context.shared.core.drain(&mut inputs, Some(Duration::ZERO));
    let proposals = inputs.into_iter().filter_map(|input| match input {
        CoreInput::Propose { bytes, .. } => Some(codec::decode(bytes).unwrap()),
        _ => None,
    });
    proposals.collect()
}

/// The state that is shown becomes what `command` makes of it.
fn show(context: &Context, machine: &mut Machine, command: CharterCommand) {
    apply(context, machine, &Command::Charter(command));
}

/// The same with any request; what it comes to.
fn apply<'e>(context: &Context, machine: &mut Machine, request: impl Into<command::Request<'e>>) -> Applied {
    let (index, term) = (machine.applied().next(), machine.applied_term());
    let applied = machine.apply(index, term, request, Allowance::NOTHING).unwrap();
    context.shared.publish(machine.view());
    applied
}

fn grant() -> Command {
    Command::Lease(LeaseCommand::Grant { id: LeaseId(1), ttl: 60 })
}

const LONG: Duration = Duration::from_hours(1);

#[test]
fn who_founded_alone_holds_what_users_ask_for_and_nothing_else() {
    let (context, mut machine) = alone(Charter::automatic(), Some(LONG));
    let handle = Handle(Arc::clone(&context.shared));
    let elapsed = CharterCommand::Elapsed { to: 60 };
    let joins = CharterCommand::Admit {
        key: PublicKey([2; 32]),
        name: String::new(),
        peer_urls: Vec::new(),
        by: Admission::Window,
        run: Incarnation(1),
        of: None,
    };
    let promote = MemberCommand::Promote { id: MemberId(1), strict: false };
    smol::block_on(async {
        let mut put = Box::pin(handle.propose(grant()));
        let mut seal = Box::pin(handle.change_charter(CharterCommand::Seal));
        let mut promote = Box::pin(handle.change_members(promote));
        for _ in 0..2 {
            assert!(smol::future::poll_once(&mut put).await.is_none());
            assert!(smol::future::poll_once(&mut seal).await.is_none());
            assert!(smol::future::poll_once(&mut promote).await.is_none());
            assert_eq!(proposed(&context), 0, "users wait");
            let mut internal = Box::pin(handle.change_charter(elapsed.clone()));
            assert!(smol::future::poll_once(&mut internal).await.is_none());
            assert_eq!(proposed(&context), 1, "nodes do not");
            show(&context, &mut machine, elapsed.clone());
        }
        show(&context, &mut machine, joins);
        assert!(smol::future::poll_once(&mut put).await.is_none());
        assert!(smol::future::poll_once(&mut seal).await.is_none());
        assert!(smol::future::poll_once(&mut promote).await.is_none());
        assert_eq!(proposed(&context), 3, "another member has joined");
    });
}

#[test]
fn nobody_is_held_where_the_cluster_stays_or_for_longer_than_was_said() {
    let committed = Charter { committed: true, ..Charter::automatic() };
    for (charter, hold) in [
        (Charter::automatic(), None),
        (Charter::automatic(), Some(Duration::ZERO)),
        (committed, Some(LONG)),
        (Charter::default(), Some(LONG)),
    ] {
        let (context, _) = alone(charter.clone(), hold);
        let handle = Handle(Arc::clone(&context.shared));
        smol::block_on(async {
            let mut put = Box::pin(handle.propose(grant()));
            assert!(smol::future::poll_once(&mut put).await.is_none());
            assert_eq!(proposed(&context), 1, "{charter:?} {hold:?}");
        });
    }
    let (context, _) = alone(Charter::automatic(), Some(Duration::from_millis(100)));
    let handle = Handle(Arc::clone(&context.shared));
    smol::block_on(async {
        let mut put = Box::pin(handle.propose(grant()));
        assert!(smol::future::poll_once(&mut put).await.is_none());
        smol::Timer::after(Duration::from_millis(200)).await;
        assert!(smol::future::poll_once(&mut put).await.is_none());
        assert_eq!(proposed(&context), 1, "its time has come");
    });
}

#[test]
fn who_is_held_is_told_that_the_node_stops_and_only_so_many_are() {
    let (context, _) = alone(Charter::automatic(), Some(LONG));
    let handle = Handle(Arc::clone(&context.shared));
    context.shared.held.store(PROPOSALS_PENDING_MAX - 1, Ordering::Relaxed);
    smol::block_on(async {
        let mut put = Box::pin(handle.propose(grant()));
        assert!(smol::future::poll_once(&mut put).await.is_none());
        assert_eq!(handle.propose(grant()).await, Err(ServeError::TooManyRequests));
        stop(&context);
        assert_eq!(put.await, Err(ServeError::Stopped));
    });
    assert_eq!(context.shared.held.load(Ordering::Relaxed), PROPOSALS_PENDING_MAX - 1);
}

#[test]
fn a_member_that_only_listens_catches_up_until_its_state_has_its_word_of_this_run() {
    let listener = |incarnation, boot_nonce| {
        let (meta, _) = first_state_of(MemberId(2), PublicKey([2; 32]));
        let attributes =
            MemberAttributes { member: MemberId(1), incarnation, boot_nonce, ..Default::default() };
        let own = Member { key: Some(PublicKey([1; 32])), votes: false, attributes };
        let members = [vec![own], meta.members].concat();
        Handle(of(&Meta { members, ..meta }, None).0.shared)
    };
    assert!(listener(0, 0).is_catching_up(), "it has never come");
    assert!(listener(4, 7).is_catching_up(), "it had in an earlier run");
    assert!(!listener(5, 1).is_catching_up());
    assert!(!Handle(context().shared).is_catching_up(), "a voter");
    let handle = listener(0, 0);
    handle.0.published_at.store(1, Ordering::Release);
    assert!(!handle.is_catching_up(), "once it has had all, whatever state comes after");
}

#[test]
fn the_core_is_woken_for_what_it_waits_for_and_for_much() {
    let mut untold = 0;
    let mut told = |bytes, awaited| urgency(&mut untold, bytes, awaited);
    assert_eq!(told(100, false), Urgency::Whenever);
    assert_eq!(told(100, true), Urgency::Now);
    assert_eq!(told(UNTOLD_BYTES_MAX, false), Urgency::Whenever);
    assert_eq!(told(1, false), Urgency::Now);
    assert_eq!(told(1, false), Urgency::Whenever);
}

/// A node with a user who may do everything, and without authentication.
fn with_users() -> (Context, Machine) {
    let (context, mut machine) = alone(Charter::default(), None);
    let root = || "root".to_owned();
    for command in [
        AuthCommand::AddUser { name: root(), password: PasswordHash(String::new()), no_password: true },
        AuthCommand::GrantRole { user: root(), role: root() },
    ] {
        assert_eq!(apply(&context, &mut machine, &Command::Auth(command)).outcome, Ok(Outcome::Auth));
    }
    (context, machine)
}

/// Users or roles change between a proposal and its entry, once more each time.
fn change_users(context: &Context, machine: &mut Machine, command: AuthCommand) {
    let auth = machine.facts().auth.clone();
    let caller = auth.enabled.then(|| Caller { user: "root".into(), revision: auth.revision });
    let id = ProposalId { boot: 2, seq: machine.applied().0 };
    let envelope = Envelope { id, caller, command: Command::Auth(command) };
    assert_eq!(apply(context, machine, &envelope).outcome, Ok(Outcome::Auth));
}

/// As the applier does, in a term of the only leader.
fn take(context: &Context, machine: &mut Machine, proposal: &Envelope) -> Result<Outcome, Rejection> {
    let applied = apply(context, machine, proposal);
    let outcome = applied.outcome.clone();
    carry_out_applier(ApplierOutput::Replies(vec![(proposal.id, applied)]), context, &mut 0);
    outcome
}

/// A contender that has gone takes its key back as root; the change of a role, just then, left the key in others' way.
#[test]
fn what_nobody_waits_for_outlasts_changes_of_users_and_roles() {
    let (context, mut machine) = with_users();
    let handle = Handle(Arc::clone(&context.shared));
    handle.propose_unheard("root".into(), grant());
    let as_nobody = proposals(&context);
    change_users(&context, &mut machine, AuthCommand::Enable);
    assert_eq!(take(&context, &mut machine, &as_nobody[0]), Err(Rejection::UserNameEmpty));
    let as_root = proposals(&context);
    change_users(&context, &mut machine, AuthCommand::AddRole { name: "r".into() });
    assert_eq!(take(&context, &mut machine, &as_root[0]), Err(Rejection::AuthRevisionOld));
    let again = proposals(&context);
    assert!(matches!(take(&context, &mut machine, &again[0]), Ok(Outcome::LeaseGrant { .. })));
    assert_eq!((proposed(&context), context.shared.proposals.len()), (0, 0), "it has happened");
}

#[test]
fn what_nobody_waits_for_is_not_proposed_for_ever_or_for_who_may_not() {
    let (context, mut machine) = with_users();
    let handle = Handle(Arc::clone(&context.shared));
    change_users(&context, &mut machine, AuthCommand::Enable);
    handle.propose_unheard("root".into(), grant());
    let mut tries = 0;
    while let [proposal] = &proposals(&context)[..] {
        tries += 1;
        change_users(&context, &mut machine, AuthCommand::AddRole { name: format!("r{tries}") });
        assert_eq!(take(&context, &mut machine, proposal), Err(Rejection::AuthRevisionOld));
    }
    assert_eq!((tries, context.shared.proposals.len()), (UNHEARD_TRIES_MAX, 0));
    for (user, refusal) in [("", Rejection::UserNameEmpty), ("somebody", Rejection::PermissionDenied)] {
        handle.propose_unheard(user.into(), grant());
        assert_eq!(take(&context, &mut machine, &proposals(&context)[0]), Err(refusal));
        assert_eq!((proposed(&context), context.shared.proposals.len()), (0, 0));
    }
    handle.propose_unheard("root".into(), grant());
    assert_eq!(proposed(&context), 1);
    stop(&context);
    assert_eq!(
        (proposed(&context), context.shared.proposals.len()),
        (0, 0),
        "nobody knows what became of it"
    );
    context.shared.core.close();
    handle.propose_unheard("root".into(), grant());
    assert_eq!(context.shared.proposals.len(), 0, "nor does anybody answer any more");
}
