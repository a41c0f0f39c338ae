//! Rules of the hub one by one, and what it costs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use super::{
    CreateRequest, Event, Filters, Hub, Input, Limits, Message, NO_WATCHER, Options, Outlet, Parts, Refusal,
    Request, Response, StreamId, Taken,
};
use crate::command::KeyRange;
use crate::ids::Revision;
use crate::machine::rig::{Rig, interval};
use crate::prng::Prng;
use crate::time::Instant;

const INTERVAL: Duration = Duration::from_secs(10);

struct Bench {
    rig: Rig,
    hub: Hub,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let hub = Hub::new(Options { progress_interval: INTERVAL, limits }, Prng::new(5));
        Self { rig: Rig::new(), hub, now: Instant(0) }
    }

    fn open(&mut self, id: u64) -> Arc<Outlet> {
        let outlet = Arc::new(Outlet::default());
        self.hub.open(StreamId(id), Arc::clone(&outlet));
        outlet
    }

    fn advance(&mut self) {
        let view = self.rig.view();
        while self.hub.advance(&view).unwrap() {}
    }

    fn ask(&mut self, stream: u64, request: Request) {
        self.advance();
        self.hub.handle_request(self.now, StreamId(stream), request);
    }

    /// Works until nothing is left to do.
    fn settle(&mut self) {
        self.advance();
        let view = self.rig.view();
        while self.hub.work(&view).unwrap() {}
        self.hub.check_invariants();
    }

    /// As the thread does it; whether there is more to do at once.
    fn turn(&mut self) -> bool {
        let view = self.rig.view();
        let busy = self.hub.turn(self.now, &view, [], drop).unwrap();
        self.hub.check_invariants();
        busy
    }

    /// Reads what waits in a stream, as its task does.
    fn take_all(&mut self, stream: usize, outlets: &[Arc<Outlet>]) -> Vec<String> {
        let mut all = Vec::new();
        while let Taken::Response { response, report } = outlets[stream].take(Waker::noop()) {
            all.push(brief(&response));
            if report {
                self.hub.handle_room(StreamId(stream as u64));
            }
        }
        all
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.advance();
        self.hub.handle_timeout(self.now);
    }
}

fn watch(key: &str) -> CreateRequest {
    CreateRequest {
        range: KeyRange::single(Bytes::copy_from_slice(key.as_bytes())),
        start: 0,
        watch_id: 0,
        filters: Filters::default(),
        prev_kv: false,
        fragment: false,
        progress_notify: false,
    }
}

/// What waits, in short.
fn read(outlet: &Outlet) -> Vec<String> {
    std::iter::from_fn(|| match outlet.take(Waker::noop()) {
        Taken::Response { response, .. } => Some(brief(&response)),
        Taken::Nothing | Taken::End(_) => None,
    })
    .collect()
}

fn brief(response: &Response) -> String {
    let Response { watch_id, revision, message } = response;
    match message {
        Message::Created => format!("{watch_id} created at {revision}"),
        Message::Refused(refusal) => format!("{watch_id} refused: {refusal:?}"),
        Message::Canceled => format!("{watch_id} canceled"),
        Message::Compacted(at) => format!("{watch_id} compacted at {at}"),
        Message::Progress => format!("{watch_id} is at {revision}"),
        Message::Events { batch, .. } => {
            let events: Vec<String> = batch.events().iter().map(|event| event.id.main.to_string()).collect();
            format!("{watch_id} told {} up to {revision}", events.join(" "))
        }
    }
}

#[test]
fn quiet_watchers_are_told_of_progress_and_busy_ones_are_not() {
    let mut bench = Bench::new();
    let outlet = bench.open(1);
    let notified = |key: &str| CreateRequest { progress_notify: true, ..watch(key) };
    bench.ask(1, Request::Create(notified("quiet")));
    bench.ask(1, Request::Create(notified("busy")));
    bench.ask(1, Request::Create(watch("silent")));
    bench.ask(1, Request::Create(CreateRequest { start: 100, ..notified("future") }));
    read(&outlet);
    let first = bench.hub.poll_timeout().unwrap();
    assert!(first >= Instant(0) + INTERVAL && first <= Instant(0) + INTERVAL.mul_f64(1.1));
    bench.rig.put("busy", "v");
    bench.pass(INTERVAL.mul_f64(1.1));
    assert_eq!(read(&outlet), ["1 told 2 up to 2", "0 is at 2"]);
    bench.pass(INTERVAL.mul_f64(1.1));
    assert_eq!(read(&outlet), ["0 is at 2", "1 is at 2"]);
    bench.ask(1, Request::Cancel { watch_id: 0 });
    bench.ask(1, Request::Cancel { watch_id: 1 });
    bench.ask(1, Request::Cancel { watch_id: 3 });
    assert_eq!(bench.hub.poll_timeout(), None, "nobody is left to be told");
}

#[test]
fn progress_goes_on_where_room_ended() {
    let limits = Limits { stream_responses: 4, ..Limits::default() };
    let mut bench = Bench::with(limits);
    let outlet = bench.open(1);
    for _ in 0..10 {
        bench.ask(1, Request::Create(CreateRequest { progress_notify: true, ..watch("k") }));
    }
    assert_eq!(read(&outlet).len(), 10);
    bench.pass(INTERVAL * 2);
    let mut told = Vec::new();
    while let Taken::Response { response, report } = outlet.take(Waker::noop()) {
        told.push(response.watch_id);
        if report {
            bench.hub.handle_room(StreamId(1));
        }
    }
    assert_eq!(told, (0..10).collect::<Vec<_>>());
    bench.hub.handle_room(StreamId(1));
    assert!(outlet.is_empty(), "all have been told");
}

#[test]
fn only_watchers_that_are_behind_are_overtaken() {
    let mut bench = Bench::with(Limits { stream_responses: 1, ..Limits::default() });
    let (slow, fast) = (bench.open(1), bench.open(2));
    for stream in [1, 2] {
        bench.ask(stream, Request::Create(watch("k")));
    }
    read(&fast);
    for _ in 0..3 {
        bench.rig.put("k", "v");
        bench.settle();
        assert_eq!(read(&fast).len(), 1);
    }
    bench.rig.compact(4).unwrap();
    bench.settle();
    // The fast one has seen everything; the slow one had revision 2 to come.
    assert_eq!(read(&slow), ["0 created at 1"]);
    bench.hub.handle_room(StreamId(1));
    bench.settle();
    assert_eq!(read(&slow), ["0 compacted at 4"]);
    bench.rig.put("k", "v");
    bench.settle();
    assert_eq!(read(&fast), ["0 told 5 up to 5"]);
    assert_eq!(bench.hub.counts().watchers, 1);
}

#[test]
fn a_full_stream_is_left_alone_and_catches_up_at_its_own_pace() {
    let limits = Limits { stream_responses: 2, slice_revisions: 5, ..Limits::default() };
    let mut bench = Bench::with(limits);
    let outlet = bench.open(1);
    bench.ask(1, Request::Create(watch("k")));
    bench.ask(1, Request::Create(watch("other")));
    read(&outlet);
    for _ in 0..30 {
        bench.rig.put("k", "v");
        bench.settle();
    }
    assert_eq!(outlet.len(), 2, "no more is queued than may be");
    assert_eq!(bench.hub.counts().behind, 1, "a watcher that misses nothing is not behind");
    let mut got = Vec::new();
    while let Taken::Response { response, report } = outlet.take(Waker::noop()) {
        got.push(brief(&response));
        if report {
            bench.hub.handle_room(StreamId(1));
            bench.settle();
        }
    }
    assert_eq!(got[..3], ["0 told 2 up to 2", "0 told 3 up to 3", "0 told 4 5 6 7 8 up to 8"]);
    assert_eq!(got.last().unwrap(), "0 told 29 30 31 up to 31");
    assert_eq!(bench.hub.counts().behind, 0);
}

#[test]
fn events_are_made_once_for_all_who_want_the_same() {
    let mut bench = Bench::new();
    let outlets: Vec<_> = (0..3).map(|stream| bench.open(stream)).collect();
    for stream in 0..3 {
        bench.ask(stream, Request::Create(CreateRequest { start: 1, ..watch("k") }));
        read(&outlets[usize::try_from(stream).unwrap()]);
    }
    bench.rig.put("k", "v");
    bench.settle();
    let batches: Vec<_> = outlets
        .iter()
        .map(|outlet| match outlet.take(Waker::noop()) {
            Taken::Response { response: Response { message: Message::Events { batch, .. }, .. }, .. } => {
                batch
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(batches.iter().all(|batch| Arc::ptr_eq(batch, &batches[0])));
}

#[test]
fn scarce_memory_stops_nobody_who_reads() {
    let limits = Limits { queued_bytes: 1000, scarce_slice_bytes: 100, ..Limits::default() };
    let mut bench = Bench::with(limits);
    let (stuck, reader) = (bench.open(1), bench.open(2));
    for stream in [1, 2] {
        bench.ask(stream, Request::Create(watch(&format!("k{stream}"))));
    }
    read(&reader);
    let mut got = 0;
    for _ in 0..50 {
        bench.rig.put("k1", "v");
        bench.rig.put("k2", "v");
        bench.settle();
        let told = read(&reader);
        if !told.is_empty() {
            bench.hub.handle_room(StreamId(2));
        }
        got += told.len();
    }
    assert!(stuck.len() < 10, "{} responses wait", stuck.len());
    assert_eq!(got, 50);
}

/// Nine streams that share nothing, and memory for some of them.
fn crowd() -> (Bench, Vec<Arc<Outlet>>) {
    let limits =
        Limits { queued_bytes: 10_000, scarce_slice_bytes: 4000, small_bytes: 2000, ..Limits::default() };
    let mut bench = Bench::with(limits);
    let outlets: Vec<_> = (0..9).map(|stream| bench.open(stream)).collect();
    for stream in 0..9 {
        let range = crate::machine::rig::interval("k", &format!("l{stream}"));
        bench.ask(stream, Request::Create(CreateRequest { range, ..watch("k") }));
        bench.ask(stream, Request::Create(watch("small")));
        assert_eq!(read(&outlets[usize::try_from(stream).unwrap()]).len(), 2);
    }
    (bench, outlets)
}

#[test]
fn without_memory_what_is_large_waits_and_what_is_small_does_not() {
    let (mut bench, outlets) = crowd();
    bench.rig.put("k", &"v".repeat(5000));
    assert!(!bench.turn(), "who waits for memory makes no work");
    let (told, starved): (Vec<_>, Vec<_>) = (0..9).partition(|stream| !outlets[*stream].is_empty());
    assert_eq!((told.len(), starved.len(), bench.hub.counts().starved), (4, 5, 5), "twice 10,000 bytes");
    bench.rig.put("small", "v");
    assert!(!bench.turn());
    for stream in &starved {
        assert_eq!(bench.take_all(*stream, &outlets), ["1 told 3 up to 3"]);
    }
    // Whoever hangs up meanwhile is forgotten.
    bench.hub.close(StreamId(starved[4] as u64));
    let look = bench.hub.poll_timeout().unwrap();
    assert_eq!(look, bench.now + Duration::from_millis(20));
    assert!(!bench.turn());
    assert_eq!(bench.hub.poll_timeout(), Some(look), "a turn in between puts nothing off");
    bench.now = look;
    assert!(!bench.turn(), "there is no memory yet");
    assert_eq!(bench.hub.poll_timeout(), Some(look + Duration::from_millis(20)));
    for stream in &told[..2] {
        assert_eq!(bench.take_all(*stream, &outlets).len(), 1);
    }
    while bench.turn() {}
    assert_eq!(bench.hub.counts().starved, 2, "two took the place of two");
    for _ in 0..2 {
        for stream in 0..9 {
            bench.take_all(stream, &outlets);
        }
        while bench.turn() {}
    }
    assert_eq!((bench.hub.counts().starved, bench.hub.poll_timeout()), (0, None));
    assert_eq!(bench.hub.counts().told, 2 * 8 + 1, "each was told of both, who hung up of one");
}

/// A deletion of very many keys that brings their old values may be larger than all that may wait.
#[test]
fn what_is_larger_than_all_memory_comes_alone() {
    let (mut bench, outlets) = crowd();
    bench.rig.put("k", &"v".repeat(50_000));
    for served in 0..9 {
        while bench.turn() {}
        let full: Vec<_> = (0..9).filter(|stream| !outlets[*stream].is_empty()).collect();
        assert_eq!((bench.hub.counts().starved, full.len()), (8 - served, 1));
        bench.take_all(full[0], &outlets);
    }
}

#[test]
fn one_answer_speaks_for_the_stream_when_it_can() {
    let mut bench = Bench::new();
    let outlet = bench.open(1);
    bench.ask(1, Request::Progress);
    assert_eq!(read(&outlet), [""; 0], "no watcher, no answer");
    bench.rig.put("k", "v");
    bench.ask(1, Request::Create(CreateRequest { start: 1, ..watch("k") }));
    bench.ask(1, Request::Progress);
    assert_eq!(read(&outlet), ["0 created at 2"], "not synced, no answer");
    bench.settle();
    bench.ask(1, Request::Progress);
    assert_eq!(read(&outlet), ["0 told 2 up to 2", &format!("{NO_WATCHER} is at 2")]);
    bench.ask(1, Request::Create(CreateRequest { start: 4, ..watch("k") }));
    bench.ask(1, Request::Progress);
    assert_eq!(read(&outlet), ["1 created at 2"], "a future start, no answer");
    bench.rig.put("other", "v");
    bench.ask(1, Request::Progress);
    assert_eq!(read(&outlet), ["-1 is at 3"]);
}

#[test]
fn what_could_not_wait_is_refused_in_its_turn() {
    let mut bench = Bench::new();
    let outlet = bench.open(1);
    bench.ask(1, Request::Create(watch("a")));
    bench.ask(1, Request::Refused(Refusal::TooManyRequests));
    bench.ask(1, Request::Create(watch("b")));
    assert_eq!(read(&outlet), ["0 created at 1", "-1 refused: TooManyRequests", "1 created at 1"]);
}

/// The budget is half a kilobyte; what the allocator adds is not seen here.
#[test]
fn an_idle_watcher_is_small() {
    use super::watcher::{Scope, Watcher};
    let records = size_of::<Option<Watcher>>() + size_of::<Option<Scope>>();
    assert!(records < 256, "{records}");
}

/// The hub's thread was kept from running while a compaction was accepted and folded. Removal waits for it, so nobody has to be overtaken who
/// keeps up.
#[test]
fn a_compaction_between_two_turns_overtakes_nobody_who_keeps_up() {
    let mut bench = Bench::new();
    let outlet = bench.open(1);
    assert!(!bench.hub.needs(Revision(9)), "there is nobody to be told");
    bench.ask(1, Request::Create(watch("k")));
    read(&outlet);
    for _ in 0..4 {
        bench.rig.put("k", "v");
    }
    bench.rig.compact(4).unwrap();
    bench.rig.rotate();
    bench.rig.fold();
    assert!(bench.hub.needs(Revision(4)));
    bench.settle();
    assert_eq!(read(&outlet), ["0 told 2 3 4 5 up to 5"]);
    assert!(!bench.hub.needs(Revision(5)) && bench.hub.needs(Revision(6)));
}

/// A follower was given a whole state: what its watchers had to come is not in it any more.
#[test]
fn nobody_is_told_of_a_part_of_what_was_missed() {
    let mut bench = Bench::new();
    let outlet = bench.open(1);
    bench.ask(1, Request::Create(watch("k")));
    bench.ask(1, Request::Create(CreateRequest { start: 3, ..watch("k") }));
    bench.ask(1, Request::Create(CreateRequest { start: 4, ..watch("k") }));
    bench.ask(1, Request::Create(CreateRequest { start: 6, ..watch("k") }));
    read(&outlet);
    for _ in 0..4 {
        bench.rig.put("k", "v");
    }
    bench.rig.compact(4).unwrap();
    bench.rig.rotate();
    bench.rig.fold();
    while !bench.rig.compact_slice(100) {}
    bench.settle();
    assert_eq!(read(&outlet), ["0 compacted at 4", "1 compacted at 4", "2 told 4 5 up to 5"]);
    bench.rig.put("k", "v");
    bench.settle();
    assert_eq!(read(&outlet), ["2 told 6 up to 6", "3 told 6 up to 6"]);
}

/// A whole state was compacted just up to what comes next, and is compacted further before the hub has its turn.
#[test]
fn a_state_without_a_gap_overtakes_nobody() {
    let mut bench = Bench::new();
    let outlet = bench.open(1);
    bench.ask(1, Request::Create(watch("k")));
    bench.rig.put("k", "v");
    bench.settle();
    assert_eq!(read(&outlet).len(), 2);
    for _ in 0..3 {
        bench.rig.put("k", "v");
    }
    bench.rig.compact(3).unwrap();
    bench.rig.rotate();
    bench.rig.fold();
    while !bench.rig.compact_slice(100) {}
    bench.rig.compact(4).unwrap();
    assert_eq!(bench.rig.view().complete_from(), Revision(3));
    bench.settle();
    assert_eq!(read(&outlet), ["0 told 3 4 5 up to 5"]);
}

#[test]
fn who_finds_no_place_in_a_slice_is_next() {
    let mut bench = Bench::with(Limits { slice_watchers: 1, slice_revisions: 1, ..Limits::default() });
    let outlets: Vec<_> = (0..3).map(|stream| bench.open(stream)).collect();
    for _ in 0..4 {
        bench.rig.put("k", "v");
    }
    for stream in 0..3 {
        bench.ask(stream, Request::Create(CreateRequest { start: 2, ..watch("k") }));
    }
    let view = bench.rig.view();
    for _ in 0..3 {
        assert!(bench.hub.work(&view).unwrap());
    }
    for outlet in outlets {
        assert_eq!(read(&outlet), ["0 created at 5", "0 told 2 up to 2"]);
    }
}

#[test]
fn a_turn_wakes_a_stream_once() {
    let mut bench = Bench::new();
    let outlet = bench.open(1);
    let view = bench.rig.view();
    let inputs = ["a", "b", "c"].map(|key| Input::Request(StreamId(1), Request::Create(watch(key))));
    let mut woken = 0;
    bench.hub.turn(bench.now, &view, inputs, |_| woken += 1).unwrap();
    assert_eq!((outlet.len(), woken), (3, 1));
}

#[test]
fn what_a_key_was_before_is_looked_up_for_those_who_want_it() {
    for prev_kv in [false, true] {
        let mut bench = Bench::new();
        let outlet = bench.open(1);
        bench.rig.put("k", "old");
        bench.ask(1, Request::Create(CreateRequest { prev_kv, ..watch("k") }));
        read(&outlet);
        bench.rig.put("k", "new");
        bench.settle();
        let Taken::Response { response: Response { message: Message::Events { batch, .. }, .. }, .. } =
            outlet.take(Waker::noop())
        else {
            panic!("nothing was told")
        };
        assert_eq!(batch.events()[0].previous.is_some(), prev_kv);
    }
}

#[test]
fn slices_shrink_as_memory_does() {
    let limits = Limits {
        queued_bytes: 10_000,
        slice_bytes: 3000,
        scarce_slice_bytes: 2000,
        small_bytes: 1000,
        ..Limits::default()
    };
    let mut bench = Bench::with(limits);
    for stream in [1, 2] {
        let outlet = bench.open(stream);
        bench.ask(stream, Request::Create(watch(&format!("k{stream}"))));
        read(&outlet);
    }
    let mut bounds = vec![bench.hub.slice_bounds().bytes];
    for key in ["k1", "k2"] {
        bench.rig.put(key, &"v".repeat(12_000));
        bench.settle();
        bounds.push(bench.hub.slice_bounds().bytes);
    }
    assert_eq!(bounds, [3000, 2000, 250]);
}

#[test]
fn memory_is_waited_for_in_the_order_of_coming() {
    let mut bench = Bench::new();
    let _outlets: Vec<_> = (0..3).map(|stream| bench.open(stream)).collect();
    for slot in [2, 0, 1, 2] {
        bench.hub.starve(slot);
    }
    let waiting: Vec<u32> = bench.hub.starved.iter().map(|(_, slot)| *slot).collect();
    assert_eq!(waiting, [2, 0, 1]);
}

/// However a revision's events are encoded, everybody is told the same, in whole revisions.
#[test]
fn a_long_revision_is_encoded_as_it_is_found() {
    let encode = |events: &[Arc<Event>], prev_kv: bool| -> Bytes {
        let brief = |event: &Arc<Event>| {
            let previous = event.previous.as_ref().filter(|_| prev_kv).map_or(0, |kv| kv.value.len());
            format!("{}.{} {previous};", event.id.main, event.id.sub)
        };
        events.iter().map(brief).collect::<String>().into()
    };
    let told = |bytes: Option<usize>| {
        let mut bench = Bench::new();
        if let Some(bytes) = bytes {
            bench.hub.encode_long(Parts { events: 1, bytes, encode });
        }
        for key in ["a", "b", "c", "d", "e"] {
            bench.rig.put(key, "v");
        }
        let outlet = bench.open(1);
        let all = CreateRequest { range: interval("a", "z"), ..watch("") };
        bench.ask(1, Request::Create(all.clone()));
        bench.ask(1, Request::Create(watch("c")));
        bench.rig.delete("a", "z");
        bench.rig.put("a", "w");
        for start in [1, 6, 7, 8] {
            bench.ask(1, Request::Create(CreateRequest { start, prev_kv: start != 6, ..all.clone() }));
        }
        bench.settle();
        let mut told: BTreeMap<i64, (String, Revision, usize)> = BTreeMap::new();
        let mut parts = 0;
        while let Taken::Response { response, .. } = outlet.take(Waker::noop()) {
            let Message::Events { batch, .. } = response.message else { continue };
            let encoded = batch.encoded(|events| encode(events, batch.prev_kv));
            parts += encoded.len();
            let (bytes, through, events) = told.entry(response.watch_id).or_default();
            bytes.push_str(std::str::from_utf8(&encoded.concat()).unwrap());
            *events += batch.len();
            assert!(response.revision > *through, "whole revisions, in order");
            *through = response.revision;
        }
        assert_eq!(bench.hub.budget.used(), 0);
        let told: Vec<(String, usize)> =
            told.into_values().map(|(bytes, _, events)| (bytes, events)).collect();
        (told, parts)
    };
    let (expected, _) = told(None);
    assert_eq!(expected[0].0, "7.0 0;7.1 0;7.2 0;7.3 0;7.4 0;8.0 0;");
    assert_eq!(expected[1].0, "7.2 0;");
    assert_eq!(expected[4].0, "7.0 1;7.1 1;7.2 1;7.3 1;7.4 1;8.0 0;");
    let lengths: Vec<usize> = expected.iter().map(|(_, events)| *events).collect();
    assert_eq!(lengths, [6, 1, 11, 7, 6, 1]);
    for bytes in [1, 900] {
        let (found, parts) = told(Some(bytes));
        assert_eq!(found, expected);
        assert!(parts > 10, "{parts}");
    }
}

/// However many scopes want it: those that find no room go on after the others.
#[test]
fn a_long_revision_is_encoded_for_few_scopes_at_a_time() {
    const KEYS: usize = 200;
    const SCOPES: u64 = 20;
    const PART: usize = 1000;
    let encode = |events: &[Arc<Event>], _: bool| -> Bytes { vec![0; 10 * events.len()].into() };
    for synced in [true, false] {
        let mut bench = Bench::new();
        bench.hub.encode_long(Parts { events: 10, bytes: PART, encode });
        for key in 0..KEYS {
            bench.rig.put(&format!("k{key:03}"), "v");
        }
        let outlets: Vec<_> = (0..SCOPES).map(|stream| bench.open(stream)).collect();
        let start = if synced { 0 } else { bench.rig.view().revision().0 + 1 };
        if !synced {
            bench.rig.put("k000", "w");
            bench.rig.delete("k", "l");
            bench.advance();
        }
        for stream in 0..SCOPES {
            let range = interval(&format!("a{stream}"), "l");
            bench.ask(stream, Request::Create(CreateRequest { range, start, ..watch("") }));
        }
        if synced {
            bench.rig.put("k000", "w");
            bench.rig.delete("k", "l");
        }
        let mut told = BTreeMap::new();
        loop {
            let before = bench.hub.budget.used();
            let view = bench.rig.view();
            let is_new = bench.hub.revision < view.revision();
            let busy =
                if is_new { bench.hub.advance(&view) } else { bench.hub.work(&view) }.unwrap() || is_new;
            bench.hub.check_invariants();
            // The first scope's, what the others may have, and the put, which all of them are told of.
            let most = 10 * KEYS + 4 * PART + outlets.len() * 500;
            assert!(bench.hub.budget.used() - before <= most, "{} at once", bench.hub.budget.used() - before);
            for (stream, outlet) in (0..).zip(&outlets) {
                while let Taken::Response { response, report } = outlet.take(Waker::noop()) {
                    if report {
                        bench.hub.handle_room(StreamId(stream));
                    }
                    let Message::Events { batch, .. } = response.message else { continue };
                    let told: &mut Vec<(i64, usize)> = told.entry(stream).or_default();
                    assert!(told.iter().map(|(_, events)| events).sum::<usize>() + batch.len() <= KEYS + 1);
                    told.push((response.revision.0, batch.len()));
                }
            }
            if !busy {
                break;
            }
        }
        let end = bench.rig.view().revision().0;
        assert_eq!(told.len() as u64, SCOPES);
        let in_two = vec![(end - 1, 1), (end, KEYS)];
        let late = told.values().filter(|told| **told == in_two).count();
        assert!(told.values().all(|told| *told == in_two || *told == [(end, KEYS + 1)]), "{told:?}");
        assert!(late > 10, "{told:?}");
    }
}
