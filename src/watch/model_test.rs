//! The main proof of the hub: random histories of writes, compactions, folds and clients of every speed, against a list of all changes.
//!
//! Every response with events says up to which revision it tells everything. So each is compared with all changes between the last such
//! revision and this one: a gap, a repetition or a split revision shows at once. In the end all clients read everything.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};
use proptest::proptest;
use proptest::test_runner::Config;

use super::{
    Batch, CreateRequest, Event, Filters, Hub, Limits, Message, NO_WATCHER, Options, Outlet, Parts, Refusal,
    Request, Response, StreamId, Taken,
};
use crate::command::{Command, DeleteRange, KeyRange, KeyValue, LeaseChange, Op, Put, Txn};
use crate::ids::{LeaseId, Revision, VersionId};
use crate::machine::rig::Rig;
use crate::mvcc::View;
use crate::prng::Prng;
use crate::store::{Change, ChangeKind};
use crate::time::Instant;

const STREAMS: usize = 3;
const INTERVAL: Duration = Duration::from_secs(1);

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Apply(Command),
    /// Compacts so many revisions below the current one.
    Compact(i64),
    Fold,
    Remove,
    Ask(usize, Ask),
    /// The hub looks at the newest view.
    Advance,
    /// So many slices of it, then the view moves on.
    Work(usize),
    /// A client takes up to so many responses.
    Take(usize, usize),
    /// The stream is gone; another takes its place.
    Reset(usize),
    /// Time passes, in tenths of the progress interval.
    Pass(u32),
}

#[derive(Clone, Debug)]
enum Ask {
    Create(CreateRequest),
    /// One that starts so many revisions from the current one.
    CreateNear(CreateRequest, i64),
    Cancel(i64),
    Progress,
}

fn key() -> impl Strategy<Value = Bytes> {
    const KEYS: [&[u8]; 6] = [b"a", b"a\0", b"ab", b"b", b"c", b"\xff"];
    prop::sample::select(KEYS.as_slice()).prop_map(Bytes::from_static)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        3 => key().prop_map(KeyRange::single),
        3 => (key(), key()).prop_map(|(start, end)| KeyRange::from_wire(start, end)),
        2 => key().prop_map(|start| KeyRange::from_wire(start, Bytes::from_static(b"\0"))),
    ]
}

fn put() -> impl Strategy<Value = Put> {
    const VALUES: [&[u8]; 3] = [b"", b"v", b"a longer value"];
    let value = prop::sample::select(VALUES.as_slice());
    (key(), value).prop_map(|(key, value)| Put {
        key,
        value: Some(Bytes::from_static(value)),
        lease: LeaseChange::Set(LeaseId::NONE),
        prev_kv: false,
    })
}

fn delete() -> impl Strategy<Value = DeleteRange> {
    key_range().prop_map(|range| DeleteRange { range, prev_kv: false })
}

/// Transactions are not validated here, so keys may change several times in one, as they may through the holes of the validation.
fn command() -> impl Strategy<Value = Command> {
    let op = prop_oneof![3 => put().prop_map(Op::Put), 1 => delete().prop_map(Op::DeleteRange)];
    prop_oneof![
        5 => put().prop_map(Command::Put),
        2 => delete().prop_map(Command::DeleteRange),
        3 => vec(op, 1..5)
            .prop_map(|success| Command::Txn(Txn { success, ..Txn::default() })),
    ]
}

fn create() -> impl Strategy<Value = CreateRequest> {
    let start = prop_oneof![4 => Just(0), 3 => 1_i64..30, 1 => Just(-1)];
    let watch_id = prop_oneof![5 => Just(0), 2 => 1_i64..4, 1 => Just(-5)];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (key_range(), start, watch_id, flags).prop_map(|(range, start, watch_id, flags)| CreateRequest {
        range,
        start,
        watch_id,
        filters: Filters { no_put: flags.0 && flags.1, no_delete: flags.0 && flags.2 },
        prev_kv: flags.3,
        fragment: false,
        progress_notify: flags.4,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let ask = prop_oneof![
        4 => create().prop_map(Ask::Create),
        3 => (create(), -6_i64..4).prop_map(|(request, offset)| Ask::CreateNear(request, offset)),
        2 => (-5_i64..6).prop_map(Ask::Cancel),
        3 => Just(Ask::Progress),
    ];
    prop_oneof![
        10 => command().prop_map(Step::Apply),
        1 => (0_i64..8).prop_map(Step::Compact),
        1 => Just(Step::Fold),
        1 => Just(Step::Remove),
        6 => (0..STREAMS, ask).prop_map(|(stream, ask)| Step::Ask(stream, ask)),
        5 => Just(Step::Advance),
        4 => (1_usize..4).prop_map(Step::Work),
        4 => (0..STREAMS, 1_usize..6).prop_map(|(stream, count)| Step::Take(stream, count)),
        1 => (0..STREAMS).prop_map(Step::Reset),
        2 => (1_u32..12).prop_map(Step::Pass),
    ]
}

/// Bounds that are met all the time.
fn limits() -> impl Strategy<Value = Limits> {
    (1_usize..6, 300_usize..3000, 500_usize..6000, 1_usize..5, 1_usize..6, 1_usize..4).prop_map(
        |(stream_responses, stream_bytes, queued_bytes, slice_revisions, slice_rows, slice_watchers)| {
            Limits {
                stream_responses,
                stream_bytes,
                queued_bytes,
                slice_revisions,
                slice_rows,
                slice_watchers,
                slice_bytes: 1500,
                scarce_slice_bytes: 1,
                small_bytes: 900,
            }
        },
    )
}

/// What a client knows of one of its watchers.
#[derive(Clone, Debug)]
struct Known {
    request: CreateRequest,
    /// Everything below has been told.
    next: i64,
}

struct Client {
    id: StreamId,
    outlet: Arc<Outlet>,
    /// By what it has read.
    watchers: BTreeMap<i64, Known>,
    /// By what it has asked for.
    asked: BTreeMap<i64, CreateRequest>,
    next_id: i64,
    /// The answers that must come, in this order.
    answers: VecDeque<Answer>,
}

#[derive(Clone, Debug)]
enum Answer {
    Created(i64, CreateRequest, i64),
    Refused(Refusal),
    Canceled(i64),
}

struct World {
    rig: Rig,
    hub: Hub,
    /// Every change there ever was.
    history: Vec<(VersionId, Change)>,
    clients: Vec<Client>,
    streams: u64,
    now: Instant,
    advanced: Option<View>,
}

impl Client {
    fn new(id: StreamId) -> Self {
        Self {
            id,
            outlet: Arc::default(),
            watchers: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_id: 0,
            answers: VecDeque::new(),
        }
    }
}

impl World {
    fn new(limits: Limits, parts: Option<usize>) -> Self {
        KEPT.with_borrow_mut(Vec::clear);
        let options = Options { progress_interval: INTERVAL, limits };
        let mut world = Self {
            rig: Rig::new(),
            hub: Hub::new(options, Prng::new(1)),
            history: Vec::new(),
            clients: Vec::new(),
            streams: 0,
            now: Instant(0),
            advanced: None,
        };
        if let Some(bytes) = parts {
            world.hub.encode_long(Parts { events: 1, bytes, encode: keep });
        }
        for _ in 0..STREAMS {
            let client = world.open();
            world.clients.push(client);
        }
        world
    }

    fn open(&mut self) -> Client {
        let client = Client::new(StreamId(self.streams));
        self.streams += 1;
        self.hub.open(client.id, Arc::clone(&client.outlet));
        client
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Apply(command) => {
                let before = self.rig.view().revision();
                self.rig.apply(command);
                let changes = self.rig.view();
                let changes = changes.changes(VersionId::first_of(before.next())).unwrap();
                self.history.extend(changes.map(Result::unwrap));
            }
            Step::Compact(depth) => {
                let revision = self.rig.view().revision().0 - depth;
                drop(self.rig.apply(Command::Compact { revision }));
            }
            Step::Fold => {
                self.rig.rotate();
                self.rig.fold();
            }
            Step::Remove => while !self.rig.compact_slice(3) {},
            Step::Ask(stream, ask) => self.ask(stream, ask),
            Step::Advance => self.advance(),
            Step::Work(slices) => self.work(slices),
            Step::Take(stream, count) => {
                for _ in 0..count {
                    self.take(stream);
                }
            }
            Step::Reset(stream) => {
                self.hub.close(self.clients[stream].id);
                self.clients[stream] = self.open();
            }
            Step::Pass(tenths) => {
                self.now = self.now + INTERVAL / 10 * tenths;
                self.advance();
                if self.hub.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.hub.handle_timeout(self.now);
                }
                self.hub.feed(self.now);
                assert!(self.hub.poll_timeout().is_none_or(|at| at > self.now));
            }
        }
        self.wake();
        self.hub.check_invariants();
    }

    fn advance(&mut self) {
        let view = self.rig.view();
        while self.hub.advance(&view).unwrap() {}
        self.advanced = Some(view);
        self.wake();
    }

    /// What is to be woken is let go of, as after each turn.
    fn wake(&mut self) {
        self.hub.touched.drain(..).for_each(|outlet| outlet.wake());
    }

    /// Slices of the view that the hub has seen last, though there may be a newer one.
    fn work(&mut self, slices: usize) {
        let Some(view) = self.advanced.clone() else { return };
        for _ in 0..slices {
            self.hub.work(&view).unwrap();
            self.hub.look_later(self.now);
            self.hub.check_invariants();
        }
    }

    fn ask(&mut self, stream: usize, ask: Ask) {
        self.advance();
        let current = self.rig.view().revision().0;
        self.forget_overtaken(stream);
        let client = &mut self.clients[stream];
        let request = match ask {
            Ask::Progress => Request::Progress,
            Ask::Cancel(watch_id) => {
                if client.asked.remove(&watch_id).is_some() {
                    client.answers.push_back(Answer::Canceled(watch_id));
                }
                Request::Cancel { watch_id }
            }
            Ask::Create(request) => client.expect_created(request, current),
            Ask::CreateNear(request, offset) => {
                let start = (current + offset).max(1);
                client.expect_created(CreateRequest { start, ..request }, current)
            }
        };
        client.outlet.note_request(request.bytes());
        self.hub.handle_request(self.now, client.id, request);
    }

    /// Watchers that compaction has ended are gone before their client has read of it, and their ids are free.
    fn forget_overtaken(&mut self, stream: usize) {
        let (hub, client) = (&self.hub, &mut self.clients[stream]);
        client.asked.retain(|watch_id, _| hub.has_watcher(client.id, *watch_id));
    }

    fn take(&mut self, stream: usize) -> bool {
        let Taken::Response { response, report } = self.clients[stream].outlet.take(Waker::noop()) else {
            return false;
        };
        self.judge(stream, response);
        if report {
            self.hub.handle_room(self.clients[stream].id);
        }
        true
    }

    fn judge(&mut self, stream: usize, response: Response) {
        let (history, compacted) = (&self.history, self.rig.view().compacted().0);
        let client = &mut self.clients[stream];
        let Response { watch_id, revision, message } = response;
        match message {
            Message::Created => {
                let Some(Answer::Created(id, request, next)) = client.answers.pop_front() else {
                    panic!("nobody asked for {watch_id}")
                };
                assert_eq!(watch_id, id);
                client.watchers.insert(watch_id, Known { request, next });
            }
            Message::Refused(refusal) => {
                let answer = client.answers.pop_front();
                assert!(matches!(answer, Some(Answer::Refused(expected)) if expected == refusal));
                assert_eq!(watch_id, NO_WATCHER);
            }
            Message::Canceled => {
                let answer = client.answers.pop_front();
                assert!(matches!(answer, Some(Answer::Canceled(expected)) if expected == watch_id));
                client.watchers.remove(&watch_id);
            }
            Message::Compacted(at) => {
                let known = client.watchers.remove(&watch_id).unwrap();
                assert!(known.next < at.0 && at.0 <= compacted, "{known:?} was not overtaken by {at}");
            }
            Message::Progress if watch_id == NO_WATCHER => {
                assert!(!client.watchers.is_empty());
                for known in client.watchers.values_mut() {
                    known.tell(None, revision, history, compacted);
                }
            }
            Message::Progress => {
                let known = client.watchers.get_mut(&watch_id).unwrap();
                assert!(known.request.progress_notify);
                known.tell(None, revision, history, compacted);
            }
            Message::Events { batch, .. } => {
                let known = client.watchers.get_mut(&watch_id).expect("created comes first, cancelled last");
                assert_eq!(batch.prev_kv, known.request.prev_kv);
                known.tell(Some(&batch), revision, history, compacted);
            }
        }
    }

    /// Everybody reads until nothing more comes; then nobody has missed anything.
    fn finish(mut self) {
        // Whoever finds no memory looks once more: what filled it may have gone with the slice.
        let mut idle = 0;
        while idle < 2 {
            self.advance();
            let view = self.rig.view();
            self.hub.feed(self.now);
            let busy = self.hub.work(&view).unwrap();
            self.hub.check_invariants();
            let mut took = false;
            for stream in 0..STREAMS {
                while self.take(stream) {
                    took = true;
                }
            }
            idle = if busy || took { 0 } else { idle + 1 };
        }
        let counts = self.hub.counts();
        assert_eq!((counts.behind, counts.starved), (0, 0), "everybody can catch up");
        let current = self.rig.view().revision();
        for stream in 0..STREAMS {
            self.forget_overtaken(stream);
        }
        for client in &mut self.clients {
            assert!(client.answers.is_empty(), "{:?}", client.answers);
            assert_eq!(client.watchers.len(), client.asked.len());
            for known in client.watchers.values_mut() {
                known.tell(None, current, &self.history, self.rig.view().compacted().0);
            }
        }
        // Everybody is where the hub is, so whoever asks is answered, unless a watcher starts in the future.
        for stream in 0..STREAMS {
            let known = &self.clients[stream].watchers;
            let answered = !known.is_empty() && known.values().all(|known| known.next <= current.0 + 1);
            self.ask(stream, Ask::Progress);
            assert_eq!(self.take(stream), answered);
        }
        for client in self.clients {
            self.hub.close(client.id);
        }
        self.hub.check_invariants();
        assert_eq!((self.hub.counts().watchers, self.hub.counts().streams), (0, 0));
    }
}

impl Client {
    /// The request, after the answer to it was noted.
    fn expect_created(&mut self, request: CreateRequest, current: i64) -> Request {
        let answer = if request.start < 0 {
            Answer::Refused(Refusal::NegativeStart)
        } else if request.range.is_empty() {
            Answer::Refused(Refusal::EmptyRange)
        } else if request.watch_id != 0 && self.asked.contains_key(&request.watch_id) {
            Answer::Refused(Refusal::DuplicateId)
        } else {
            let id = if request.watch_id == 0 {
                while self.asked.contains_key(&self.next_id) {
                    self.next_id += 1;
                }
                self.next_id += 1;
                self.next_id - 1
            } else {
                request.watch_id
            };
            self.asked.insert(id, request.clone());
            let next = if request.start == 0 { current + 1 } else { request.start };
            Answer::Created(id, request.clone(), next)
        };
        self.answers.push_back(answer);
        Request::Create(request)
    }
}

impl Known {
    /// Everything up to `through` has been told with this batch, or was nothing.
    fn tell(
        &mut self,
        batch: Option<&Batch>,
        through: Revision,
        history: &[(VersionId, Change)],
        compacted: i64,
    ) {
        let due: Vec<&(VersionId, Change)> =
            history.iter().filter(|(id, change)| self.wants(*id, change) && id.main <= through).collect();
        let told = batch.map_or_else(Vec::new, |batch| read(batch.encoded(|events| keep(events, false))));
        if let Some(last) = told.last() {
            assert!(last.id.main <= through);
        }
        let mut told = told.iter().peekable();
        for (id, change) in due {
            let Some(event) = told.next_if(|event| event.id == *id) else {
                // Of several changes of a key in the very revision that was compacted, the last is kept.
                let superseded = history.iter().any(|(other, later)| {
                    other.main == id.main && other.sub > id.sub && later.key == change.key
                });
                assert!(superseded && id.main.0 <= compacted, "{self:?} was not told of {id:?}");
                continue;
            };
            assert_eq!(event.change, *change);
            if self.request.prev_kv {
                let before = before(history, *id, change);
                let unknown = event.previous.is_none() && id.main.0 - 1 < compacted;
                assert!(unknown || event.previous == before, "{id:?} has another past");
            }
        }
        assert!(told.next().is_none(), "{self:?} was told too much");
        self.next = self.next.max(through.0 + 1);
    }

    fn wants(&self, id: VersionId, change: &Change) -> bool {
        let filtered = match change.kind {
            ChangeKind::Put { .. } => self.request.filters.no_put,
            ChangeKind::Delete => self.request.filters.no_delete,
        };
        id.main.0 >= self.next && self.request.range.contains(&change.key) && !filtered
    }
}

thread_local! {
    /// What this thread has encoded.
    static KEPT: RefCell<Vec<Arc<Event>>> = const { RefCell::new(Vec::new()) };
}

/// Encodes events: as the places where they are kept.
fn keep(events: &[Arc<Event>], _prev_kv: bool) -> Bytes {
    KEPT.with_borrow_mut(|kept| {
        let first = kept.len();
        kept.extend(events.iter().cloned());
        (first..kept.len()).flat_map(|place| (place as u64).to_le_bytes()).collect()
    })
}

fn read(encoded: &[Bytes]) -> Vec<Arc<Event>> {
    let places = encoded.concat();
    let place = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes)).unwrap();
    KEPT.with_borrow(|kept| {
        places.as_chunks().0.iter().map(|bytes| Arc::clone(&kept[place(bytes)])).collect()
    })
}

/// What a key was before a revision; nothing if this change made it.
fn before(history: &[(VersionId, Change)], id: VersionId, change: &Change) -> Option<KeyValue> {
    if matches!(change.kind, ChangeKind::Put { create_revision, .. } if create_revision == id.main) {
        return None;
    }
    let older = history.iter().rev().find(|(other, older)| other.main < id.main && older.key == change.key);
    older.and_then(|(id, older)| older.key_value(*id))
}

proptest! {
    #![proptest_config(Config { cases: 400, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_watcher_is_told_everything_once(
        limits in limits(),
        parts in prop::sample::select(vec![None, Some(1), Some(1000), Some(2000)]),
        steps in vec(step(), 1..150),
    ) {
        let mut world = World::new(limits, parts);
        for step in steps {
            world.step(step);
        }
        world.finish();
    }
}
