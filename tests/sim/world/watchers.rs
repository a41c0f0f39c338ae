//! Clients with watchers: slow ones, from old revisions, that come back after a crash where they were.
//!
//! Owns: what they ask and how fast they read, and the judgement of what they are told. Must never: believe a member.
//!
//! # What is judged
//!
//! Each response with events says up to where it tells everything, and so does each progress answer. The changes in between are exactly
//! those of the committed log: no gap, nothing twice, no revision in two responses, nothing that is not committed. A watcher that comes
//! back starts where it was, on whatever member answers. In the end all have heard of everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use covey::command::KeyRange;
use covey::ids::Revision;
use covey::store::ChangeKind;
use covey::time::Instant;
use covey::watch::{
    Batch, CreateRequest, Filters, Input, Message, NO_WATCHER, Outlet, Request, Response, StreamId, Taken,
};

use super::{Event, World};
use crate::member::{Effects, Member};
use crate::plan::draw;

/// Clients with watchers.
pub(super) const SUBSCRIBERS: usize = 3;
/// Watchers of one of them.
const WATCHERS_MAX: usize = 3;
/// In calm times everybody has heard of everything within this time.
const HEARD_MAX: Duration = Duration::from_secs(60);

/// One client, with one stream while it is connected.
#[derive(Default)]
pub(super) struct Subscriber {
    stream: Option<Connected>,
    /// What it watches, connected or not.
    wishes: Vec<Wish>,
}

struct Connected {
    host: usize,
    run: u64,
    id: StreamId,
    outlet: Arc<Outlet>,
    /// Wishes by the ids of their watchers.
    watchers: BTreeMap<i64, usize>,
    /// Wishes whose watchers are not created yet, in order.
    asked: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Wish {
    range: KeyRange,
    filters: Filters,
    prev_kv: bool,
    /// The next revision that was not told; `None` starts with what is new.
    next: Option<i64>,
    /// What the member had shown when it was asked: what is new lies above this.
    asked_after: i64,
}

/// How long they rest between two things while it takes minutes until something happens.
const PATIENT: Duration = Duration::from_secs(1);

impl World {
    /// A client with watchers connects, asks, reads or hangs up.
    pub(super) fn watch(&mut self, number: usize) {
        let think = match self.calm {
            true if self.plan.grows.is_some() && self.settled_at == Instant(u64::MAX) => PATIENT,
            true => Duration::from_millis(5),
            false => self.plan.load.think,
        };
        let pause = draw(&mut self.watch_prng, think);
        let rest = self.resting_until.since(self.queue.now());
        let rest = if self.calm { Duration::ZERO } else { rest };
        self.queue.after(rest + pause, Event::Watch(number));
        let mut subscriber = std::mem::take(&mut self.subscribers[number]);
        self.drop_dead(&mut subscriber);
        if subscriber.stream.is_none() {
            self.connect(&mut subscriber);
        }
        if subscriber.stream.is_some() {
            match self.watch_prng.range(0, if self.calm { 10 } else { 13 }) {
                0..7 => self.read(&mut subscriber),
                7..10 => self.tell(&subscriber, Request::Progress),
                10 => self.cancel_one(&mut subscriber),
                11 => self.wish(&mut subscriber),
                _ => self.hang_up(&mut subscriber),
            }
        }
        self.subscribers[number] = subscriber;
    }

    fn drop_dead(&mut self, subscriber: &mut Subscriber) {
        if let Some(Connected { host, run, .. }) = subscriber.stream
            && (self.hosts[host].run != run || self.hosts[host].member.is_none())
        {
            subscriber.stream = None;
        }
    }

    fn connect(&mut self, subscriber: &mut Subscriber) {
        let host = usize::try_from(self.watch_prng.range(0, self.hosts.len() as u64)).expect("few");
        if !self.hosts[host].member.as_ref().is_some_and(Member::serves) {
            return;
        }
        let id = StreamId(self.watch_prng.next_u64());
        let outlet = Arc::new(Outlet::default());
        let (run, watchers, asked) = (self.hosts[host].run, BTreeMap::new(), Vec::new());
        let open = Input::Open(id, Arc::clone(&outlet));
        subscriber.stream = Some(Connected { host, run, id, outlet, watchers, asked });
        self.send_to_hub(host, open);
        if subscriber.wishes.is_empty() {
            self.wish(subscriber);
        }
        for wish in 0..subscriber.wishes.len() {
            self.create(subscriber, wish);
        }
    }

    fn send_to_hub(&mut self, host: usize, input: Input) {
        let mut effects = Effects::new();
        if let Some(member) = &mut self.hosts[host].member {
            member.tell_hub(input, &mut effects);
        }
        self.carry_out(host, effects);
    }

    fn tell(&mut self, subscriber: &Subscriber, request: Request) {
        let Some(Connected { host, id, outlet, .. }) = &subscriber.stream else { return };
        outlet.note_request(request.bytes());
        self.send_to_hub(*host, Input::Request(*id, request));
    }

    /// One thing more to watch: from now on, or from a revision that may be gone.
    fn wish(&mut self, subscriber: &mut Subscriber) {
        if subscriber.wishes.len() >= WATCHERS_MAX {
            return;
        }
        let prng = &mut self.watch_prng;
        let (start, end) = [("k", "\0"), ("k", "kk"), ("k", ""), ("ka", ""), ("p", "q")]
            [usize::try_from(prng.range(0, 5)).expect("small")];
        let range =
            KeyRange::from_wire(Bytes::from_static(start.as_bytes()), Bytes::from_static(end.as_bytes()));
        let filters = Filters { no_put: prng.one_in(6), no_delete: prng.one_in(6) };
        let (revision, _) = self.oracle.revisions();
        let depth = i64::try_from(prng.range(0, 30)).expect("small");
        let next = prng.one_in(2).then_some((revision - depth).max(1));
        let prev_kv = prng.one_in(2);
        subscriber.wishes.push(Wish { range, filters, prev_kv, next, asked_after: 0 });
        let wish = subscriber.wishes.len() - 1;
        if wish > 0 {
            self.create(subscriber, wish);
        }
    }

    fn create(&mut self, subscriber: &mut Subscriber, number: usize) {
        let wish = &mut subscriber.wishes[number];
        if let Some(Connected { host, .. }) = &subscriber.stream {
            let member = self.hosts[*host].member.as_ref();
            wish.asked_after = member.map_or(0, |member| member.view().revision().0);
        }
        let request = CreateRequest {
            range: wish.range.clone(),
            start: wish.next.unwrap_or(0),
            watch_id: 0,
            filters: wish.filters,
            prev_kv: wish.prev_kv,
            fragment: false,
            progress_notify: true,
        };
        if let Some(stream) = &mut subscriber.stream {
            stream.asked.push(number);
        }
        self.tell(subscriber, Request::Create(request));
    }

    /// A watcher is cancelled; the wish stays for the next connection.
    fn cancel_one(&mut self, subscriber: &mut Subscriber) {
        let watch_id = subscriber.stream.as_ref().and_then(|stream| stream.watchers.keys().next().copied());
        if let Some(watch_id) = watch_id {
            self.tell(subscriber, Request::Cancel { watch_id });
        }
    }

    fn hang_up(&mut self, subscriber: &mut Subscriber) {
        if let Some(Connected { host, id, .. }) = subscriber.stream.take() {
            self.send_to_hub(host, Input::Close(id));
        }
    }

    /// Takes a few responses.
    fn read(&mut self, subscriber: &mut Subscriber) {
        for _ in 0..self.watch_prng.range(1, 6) {
            let Some(Connected { host, id, outlet, .. }) = &subscriber.stream else { return };
            let (host, id) = (*host, *id);
            let Taken::Response { response, report } = outlet.take(Waker::noop()) else { return };
            if report {
                self.send_to_hub(host, Input::Room(id));
            }
            self.judge(subscriber, response);
        }
    }

    fn judge(&mut self, subscriber: &mut Subscriber, response: Response) {
        let Some(stream) = &mut subscriber.stream else { return };
        let Response { watch_id, revision, message } = response;
        match message {
            Message::Created => {
                let number = stream.asked.remove(0);
                let wish = &mut subscriber.wishes[number];
                assert!(revision.0 >= wish.asked_after, "a new watcher would see what was shown before");
                wish.next.get_or_insert(revision.0 + 1);
                stream.watchers.insert(watch_id, number);
            }
            Message::Refused(why) => panic!("a watcher was refused: {why:?}"),
            Message::Canceled => {
                stream.watchers.remove(&watch_id).expect("cancelled once");
            }
            Message::Compacted(at) => {
                let number = stream.watchers.remove(&watch_id).expect("ended once");
                let wish = &mut subscriber.wishes[number];
                let (_, compacted) = self.oracle.revisions();
                assert!(wish.next < Some(at.0) && at.0 <= compacted, "{wish:?} was not overtaken by {at}");
                wish.next = None;
                self.report.overtaken += 1;
                self.create(subscriber, number);
            }
            Message::Progress => {
                self.report.progress += 1;
                let told = |id: &i64| watch_id == NO_WATCHER || watch_id == *id;
                let told: Vec<usize> =
                    stream.watchers.iter().filter(|(id, _)| told(id)).map(|(_, wish)| *wish).collect();
                assert!(!told.is_empty());
                for number in told {
                    self.hear(&mut subscriber.wishes[number], None, revision);
                }
            }
            Message::Events { batch, .. } => {
                let number = stream.watchers[&watch_id];
                self.report.told += batch.len() as u64;
                self.hear(&mut subscriber.wishes[number], Some(&batch), revision);
            }
        }
    }

    /// A watcher has been told everything up to here.
    fn hear(&mut self, wish: &mut Wish, batch: Option<&Batch>, through: Revision) {
        let next = wish.next.expect("created before");
        let (_, compacted) = self.oracle.revisions();
        let due = self.oracle.events().iter().filter(|event| {
            let filtered = if event.kv.is_some() { wish.filters.no_put } else { wish.filters.no_delete };
            (next..=through.0).contains(&event.main) && wish.range.contains(&event.key) && !filtered
        });
        let due: Vec<_> =
            due.map(|event| (event.main, event.sub, event.key.clone(), event.kv.clone())).collect();
        let told = batch.map_or_else(Vec::new, Batch::events);
        let heard = told.iter().map(|event| {
            (event.id.main.0, event.id.sub, event.change.key.clone(), event.change.key_value(event.id))
        });
        assert_eq!(heard.collect::<Vec<_>>(), due, "{wish:?} up to {through}");
        for event in told.iter().filter(|_| wish.prev_kv) {
            let before = event.id.main.0 - 1;
            let made = matches!(event.change.kind, ChangeKind::Put { version: 1, .. });
            let expected = self.oracle.value_at(&event.change.key, before).filter(|_| !made);
            let unknown = event.previous.is_none() && before < compacted;
            assert!(unknown || event.previous.as_ref() == expected, "{event:?} had {expected:?} before");
        }
        wish.next = Some(next.max(through.0 + 1));
        let mut numbers = vec![next.cast_unsigned(), through.0.cast_unsigned()];
        numbers.push(told.len() as u64);
        self.note("heard", &numbers);
    }

    /// Nobody has missed anything, and everybody gets to know that.
    pub(super) fn hear_everything(&mut self) {
        let (revision, _) = self.oracle.revisions();
        let deadline = self.queue.now() + HEARD_MAX;
        let connected = |subscriber: &Subscriber| {
            let Some(stream) = &subscriber.stream else { return false };
            let heard = |wish: &usize| subscriber.wishes[*wish].next.is_some_and(|next| next > revision);
            stream.asked.is_empty() && stream.watchers.values().all(heard)
        };
        while !self.subscribers.iter().all(connected) {
            self.step();
            assert!(self.queue.now() < deadline, "watchers have not heard of everything up to {revision}");
        }
    }
}
