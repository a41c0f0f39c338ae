//! The hub: requests of streams and new views in, responses in the streams' outlets.
//!
//! Owns: all watchers and where they are. Must never: read what no view has shown, or let one stream's slowness reach another. Driven by
//! the watch thread of `runtime` and by the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::batch::{Batch, Budget};
use super::index::{Index, Span};
use super::outlet::{End, Offered, Outlet, Room};
use super::scan::{self, For, Found, Parts, Scopes};
use super::slab::Slab;
use super::watcher::{Scope, State, Stream, Watcher};
use super::{CreateRequest, Input, Message, NO_WATCHER, Refusal, Request, Response, StreamId};
use crate::ids::Revision;
use crate::limits::{
    WATCH_KEYS_BYTES_MAX, WATCH_QUEUED_BYTES_MAX, WATCH_SCARCE_SLICE_BYTES, WATCH_SLICE_BYTES,
    WATCH_SLICE_REVISIONS, WATCH_SLICE_ROWS, WATCH_SLICE_WATCHERS, WATCH_SMALL_BATCH_BYTES,
    WATCH_STREAM_BYTES_MAX, WATCH_STREAM_RESPONSES_MAX, WATCHERS_MAX,
};
use crate::mvcc::View;
use crate::prng::Prng;
use crate::store::StoreError;
use crate::time::Instant;

/// The settings of a hub.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often watchers that asked for it are told how far they are, when nothing else has told them.
    pub progress_interval: Duration,
    /// The bounds of what is queued and of what is done in one go.
    pub limits: Limits,
}

/// Bounds of a hub. No answer depends on them, only when it comes; tests make them small.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Responses that wait in a stream.
    pub stream_responses: usize,
    /// Bytes that wait in a stream.
    pub stream_bytes: usize,
    /// Bytes of events that wait in all streams.
    pub queued_bytes: usize,
    /// Revisions of a slice.
    pub slice_revisions: usize,
    /// Changes of a slice.
    pub slice_rows: usize,
    /// Watchers that a slice brings forward.
    pub slice_watchers: usize,
    /// Bytes of events of a slice.
    pub slice_bytes: usize,
    /// The same while more wait than may.
    pub scarce_slice_bytes: usize,
    /// What a batch may have while twice as much waits as may.
    pub small_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_responses: WATCH_STREAM_RESPONSES_MAX,
            stream_bytes: WATCH_STREAM_BYTES_MAX,
            queued_bytes: WATCH_QUEUED_BYTES_MAX,
            slice_revisions: WATCH_SLICE_REVISIONS,
            slice_rows: WATCH_SLICE_ROWS,
            slice_watchers: WATCH_SLICE_WATCHERS,
            slice_bytes: WATCH_SLICE_BYTES,
            scarce_slice_bytes: WATCH_SCARCE_SLICE_BYTES,
            small_bytes: WATCH_SMALL_BATCH_BYTES,
        }
    }
}

/// How many there are of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Streams.
    pub streams: usize,
    /// Watchers.
    pub watchers: usize,
    /// Watchers that are behind.
    pub behind: usize,
    /// Streams that wait for memory.
    pub starved: usize,
    /// Events told since the hub began; one counts for each watcher that it was told to.
    pub told: u64,
}

/// All watchers of a member.
///
/// # Contract
///
/// - The view of a [`Hub::turn`] was loaded after its inputs came, and no earlier turn had a newer one.
/// - There is another turn when there are inputs, when the last one said so, and at [`Hub::poll_timeout`].
/// - Nothing is removed from the store up to a revision that the hub [needs](Hub::needs).
/// - An error is final.
pub struct Hub {
    pub(super) options: Options,
    pub(super) random: Prng,
    /// Synced watchers have been told of everything up to here.
    pub(super) revision: Revision,
    by_id: BTreeMap<StreamId, u32>,
    pub(super) streams: Slab<Stream>,
    pub(super) watchers: Slab<Watcher>,
    pub(super) scopes: Slab<Scope>,
    pub(super) index: Index,
    /// Bytes of the keys of all scopes.
    key_bytes: usize,
    synced: usize,
    pub(super) behind: usize,
    /// Those that are ahead, by their cursors.
    ahead: BTreeSet<(Revision, u32)>,
    /// Streams with room whose watchers are behind, by their lowest cursors.
    pub(super) ready: BTreeSet<(Revision, u32)>,
    /// The same streams, by whose turn is next.
    pub(super) turns: BTreeSet<(u64, u32)>,
    pub(super) turn: u64,
    /// Streams that wait for memory, in their order, and when to look whether there is some.
    pub(super) starved: BTreeSet<(u64, u32)>,
    pub(super) look_at: Option<Instant>,
    /// When watchers are told of progress.
    pub(super) ticks: BTreeSet<(Instant, u32)>,
    pub(super) touched: Vec<Arc<Outlet>>,
    pub(super) budget: Arc<Budget>,
    /// How long revisions are encoded, if they are.
    pub(super) parts: Option<Parts>,
    told: u64,
}

impl Hub {
    /// A hub without streams.
    pub fn new(options: Options, mut random: Prng) -> Self {
        Self {
            options,
            revision: Revision(0),
            by_id: BTreeMap::new(),
            streams: Slab::default(),
            watchers: Slab::default(),
            scopes: Slab::default(),
            index: Index::new(random.fork()),
            key_bytes: 0,
            synced: 0,
            behind: 0,
            ahead: BTreeSet::new(),
            ready: BTreeSet::new(),
            turns: BTreeSet::new(),
            turn: 0,
            starved: BTreeSet::new(),
            look_at: None,
            ticks: BTreeSet::new(),
            touched: Vec::new(),
            budget: Arc::default(),
            parts: None,
            told: 0,
            random,
        }
    }

    /// Has the events of a revision encoded as they are found, once there are so many of them: one entry may delete very many keys.
    pub fn encode_long(&mut self, parts: Parts) {
        self.parts = Some(parts);
    }

    /// Tells synced watchers what is new in `view`, handles `inputs`, and brings some of those forward that are behind. Calls `wake` for
    /// outlets whose readers have something to read. Whether there is more to do at once.
    pub fn turn(
        &mut self,
        now: Instant,
        view: &View,
        inputs: impl IntoIterator<Item = Input>,
        mut wake: impl FnMut(Arc<Outlet>),
    ) -> Result<bool, StoreError> {
        // First, so that requests meet a hub which is where their view is.
        while self.advance(view)? {
            self.touched.drain(..).for_each(&mut wake);
        }
        for input in inputs {
            match input {
                Input::NewView => {}
                Input::Open(id, outlet) => self.open(id, outlet),
                Input::Request(id, request) => self.handle_request(now, id, request),
                Input::Room(id) => self.handle_room(id),
                Input::Close(id) => self.close(id),
            }
        }
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.handle_timeout(now);
        }
        self.feed(now);
        let busy = self.work(view)?;
        self.look_later(now);
        self.touched.drain(..).for_each(wake);
        Ok(busy)
    }

    /// A new stream without watchers.
    pub(super) fn open(&mut self, id: StreamId, outlet: Arc<Outlet>) {
        let slot = self.streams.insert(Stream::new(outlet));
        let before = self.by_id.insert(id, slot);
        assert!(before.is_none(), "a stream is opened once");
    }

    /// A stream is gone, and its watchers with it.
    pub(super) fn close(&mut self, id: StreamId) {
        let Some(slot) = self.by_id.remove(&id) else { return };
        let watchers = std::mem::take(&mut self.streams[slot].watchers);
        for watcher in watchers.into_values() {
            self.remove(watcher);
        }
        self.unready(slot);
        self.unstarve(slot);
        self.streams.remove(slot);
    }

    /// What the client of a stream asks for.
    pub(super) fn handle_request(&mut self, now: Instant, id: StreamId, request: Request) {
        let Some(slot) = self.by_id.get(&id).copied() else { return };
        let bytes = request.bytes();
        match request {
            Request::Create(request) => self.create(now, slot, &request),
            Request::Cancel { watch_id } => {
                if let Some(watcher) = self.streams[slot].watchers.remove(&watch_id) {
                    self.remove(watcher);
                    self.answer(slot, watch_id, Message::Canceled);
                }
            }
            Request::Progress => {
                let stream = &self.streams[slot];
                if !stream.watchers.is_empty() && stream.behind.is_empty() && stream.ahead == 0 {
                    self.answer(slot, NO_WATCHER, Message::Progress);
                }
            }
            Request::Refused(refusal) => self.answer(slot, NO_WATCHER, Message::Refused(refusal)),
        }
        let outlet = &self.streams[slot].outlet;
        if outlet.request_handled(bytes) {
            self.touched.push(Arc::clone(outlet));
        }
    }

    /// The reader of a stream says that there is room.
    pub(super) fn handle_room(&mut self, id: StreamId) {
        if let Some(slot) = self.by_id.get(&id).copied() {
            self.refresh(slot);
            self.tell_progress(slot);
        }
    }

    /// Ends all streams; they are closed when their readers have seen it.
    pub fn end(&mut self, end: End) {
        for slot in self.by_id.values() {
            let outlet = &self.streams[*slot].outlet;
            outlet.end(end);
            outlet.wake();
        }
    }

    /// Tells synced watchers of a slice of what is new in `view`. Whether there is more of it.
    pub(super) fn advance(&mut self, view: &View) -> Result<bool, StoreError> {
        if self.revision >= view.revision() {
            return Ok(false);
        }
        if self.revision.next() < view.complete_from() {
            self.fall_behind(view.revision());
            return Ok(false);
        }
        let horizon = self.ahead.first().map(|(cursor, _)| Revision(cursor.0 - 1));
        let to = horizon.map_or(view.revision(), |horizon| horizon.min(view.revision()));
        let (from, mut through) = (self.revision.next(), to);
        if self.synced > 0 {
            let bounds = self.slice_bounds();
            let scopes = Scopes { index: &self.index, all: &mut self.scopes, wanted: For::Synced };
            let slice = scan::slice(view, from, to, bounds, self.parts, scopes)?;
            through = slice.through;
            for found in slice.found {
                self.tell_synced(found, through);
            }
        }
        self.revision = through;
        while let Some((cursor, watcher)) = self.ahead.first().copied()
            && cursor == through.next()
        {
            self.unplace(watcher);
            self.place(watcher, cursor);
        }
        Ok(self.revision < view.revision())
    }

    /// Whether watchers that keep up have still to be told of something at or below `revision`. They were kept from it only because the hub
    /// has not had its turn, so it must not be removed meanwhile.
    pub fn needs(&self, revision: Revision) -> bool {
        self.watchers.len() > 0 && self.revision < revision
    }

    /// Goes to `revision` without telling what came before, since some of it is gone: the state has come whole from another member. Watchers
    /// that had it to come are behind now, and overtaken as far as it is compacted.
    fn fall_behind(&mut self, revision: Revision) {
        let next = self.revision.next();
        self.revision = revision;
        let synced = |number: &u32| matches!(self.watchers[*number].state, State::Synced { .. });
        let late: Vec<u32> = self.watchers.numbers().filter(synced).collect();
        for watcher in late {
            self.unplace(watcher);
            self.place_behind(watcher, next);
        }
        while let Some((cursor, watcher)) = self.ahead.first().copied()
            && cursor <= revision.next()
        {
            self.unplace(watcher);
            self.place(watcher, cursor);
        }
    }

    fn tell_synced(&mut self, found: Found, through: Revision) {
        let (first, late, through) =
            (found.first(), found.late.then_some(found.latest), found.told_through(through));
        let (prev_kv, long) = (self.scopes[found.scope].prev_kv, found.long.unwrap_or_default());
        let batch = Batch::of(found.events, long, prev_kv, &self.budget).map(Arc::new);
        // From the end: those that find no room leave the list, and the last one takes their place.
        for place in (0..self.scopes[found.scope].synced.len()).rev() {
            let watcher = self.scopes[found.scope].synced[place];
            let told = batch.as_ref().is_none_or(|batch| self.offer_events(watcher, batch, through));
            if let Some(next) = if told { late } else { Some(first) } {
                self.unplace(watcher);
                self.place_behind(watcher, next);
            }
        }
    }

    /// Queues events for a watcher where its stream has room, and there is memory.
    pub(super) fn offer_events(&mut self, watcher: u32, batch: &Arc<Batch>, through: Revision) -> bool {
        if !self.has_memory(batch) {
            self.starve(self.watchers[watcher].stream);
            return false;
        }
        let room = self.room();
        let Watcher { stream, id, fragment, .. } = self.watchers[watcher];
        let message = Message::Events { batch: Arc::clone(batch), fragment };
        let queued = self.offer(stream, Response { watch_id: id, revision: through, message }, room);
        if queued {
            self.watchers[watcher].told = true;
            self.told += batch.len() as u64;
        }
        queued
    }

    pub(super) fn offer(&mut self, slot: u32, response: Response, room: Room) -> bool {
        let outlet = &self.streams[slot].outlet;
        match outlet.offer(response, room) {
            Offered::NoRoom => return false,
            Offered::Queued { first: true } => self.touched.push(Arc::clone(outlet)),
            Offered::Queued { first: false } => {}
        }
        true
    }

    fn answer(&mut self, slot: u32, watch_id: i64, message: Message) {
        let outlet = &self.streams[slot].outlet;
        outlet.answer(Response { watch_id, revision: self.revision, message });
    }

    fn create(&mut self, now: Instant, slot: u32, request: &CreateRequest) {
        let span = Span::of(&request.range);
        let id = match self.admit(slot, request, &span) {
            Ok(id) => id,
            Err(refusal) => return self.answer(slot, NO_WATCHER, Message::Refused(refusal)),
        };
        let scope = self.scope_for(request, span);
        self.scopes[scope].watchers += 1;
        let watcher = self.watchers.insert(Watcher {
            stream: slot,
            scope,
            id,
            state: State::Unplaced,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            told: false,
        });
        self.streams[slot].watchers.insert(id, watcher);
        self.answer(slot, id, Message::Created);
        let start = if request.start == 0 { self.revision.next() } else { Revision(request.start) };
        self.place(watcher, start);
        if request.progress_notify {
            self.start_ticking(now, slot);
        }
    }

    /// The id of a new watcher.
    fn admit(&mut self, slot: u32, request: &CreateRequest, span: &Span) -> Result<i64, Refusal> {
        if request.start < 0 {
            return Err(Refusal::NegativeStart);
        }
        if request.range.is_empty() {
            return Err(Refusal::EmptyRange);
        }
        if self.watchers.len() >= WATCHERS_MAX {
            return Err(Refusal::TooManyWatchers);
        }
        if self.key_bytes + span.bytes() > WATCH_KEYS_BYTES_MAX && self.index.find(span).is_none() {
            return Err(Refusal::KeysTooLarge);
        }
        let stream = &mut self.streams[slot];
        if request.watch_id == 0 {
            while stream.watchers.contains_key(&stream.next_id) {
                stream.next_id += 1;
            }
            stream.next_id += 1;
            return Ok(stream.next_id - 1);
        }
        let taken = stream.watchers.contains_key(&request.watch_id);
        if taken { Err(Refusal::DuplicateId) } else { Ok(request.watch_id) }
    }

    fn scope_for(&mut self, request: &CreateRequest, span: Span) -> u32 {
        let Some(first) = self.index.find(&span).copied() else {
            self.key_bytes += span.bytes();
            let scope = self.scopes.insert(Scope::new(span.clone(), request));
            self.index.insert(&span, scope);
            return scope;
        };
        let mut last = first;
        loop {
            if self.scopes[last].fits(request) {
                return last;
            }
            let Some(next) = self.scopes[last].sibling else { break };
            last = next;
        }
        let span = self.scopes[first].span.clone();
        let scope = self.scopes.insert(Scope::new(span, request));
        self.scopes[last].sibling = Some(scope);
        scope
    }

    /// Forgets a watcher that its stream no longer lists.
    pub(super) fn remove(&mut self, watcher: u32) {
        self.unplace(watcher);
        let Watcher { stream, scope, progress_notify, .. } = self.watchers.remove(watcher);
        if progress_notify {
            self.stop_ticking(stream);
        }
        self.scopes[scope].watchers -= 1;
        if self.scopes[scope].watchers == 0 {
            self.remove_scope(scope);
        }
    }

    fn remove_scope(&mut self, number: u32) {
        let Scope { span, sibling, .. } = self.scopes.remove(number);
        let first = self.index.find(&span).expect("a scope is in the index");
        if *first != number {
            let mut before = *first;
            while let Some(next) = self.scopes[before].sibling.filter(|next| *next != number) {
                before = next;
            }
            self.scopes[before].sibling = sibling;
        } else if let Some(next) = sibling {
            *first = next;
        } else {
            self.index.remove(&span);
            self.key_bytes -= span.bytes();
        }
    }

    /// Gives a watcher the state that its cursor means.
    pub(super) fn place(&mut self, number: u32, cursor: Revision) {
        let next = self.revision.next();
        if cursor < next {
            self.place_behind(number, cursor);
            return;
        }
        let watcher = &mut self.watchers[number];
        if cursor == next {
            let synced = &mut self.scopes[watcher.scope].synced;
            watcher.state = State::Synced { place: synced.len() };
            synced.push(number);
            self.synced += 1;
        } else {
            watcher.state = State::Ahead(cursor);
            self.streams[watcher.stream].ahead += 1;
            self.ahead.insert((cursor, number));
        }
    }

    fn place_behind(&mut self, number: u32, cursor: Revision) {
        let watcher = &mut self.watchers[number];
        let slot = watcher.stream;
        watcher.state = State::Behind(cursor);
        self.streams[slot].behind.insert((cursor, number));
        self.behind += 1;
        self.refresh(slot);
    }

    /// Takes a watcher out of wherever its state has put it.
    pub(super) fn unplace(&mut self, number: u32) {
        let watcher = &mut self.watchers[number];
        let (slot, scope) = (watcher.stream, watcher.scope);
        match std::mem::replace(&mut watcher.state, State::Unplaced) {
            State::Unplaced => {}
            State::Synced { place } => {
                let synced = &mut self.scopes[scope].synced;
                synced.swap_remove(place);
                if let Some(moved) = synced.get(place) {
                    self.watchers[*moved].state = State::Synced { place };
                }
                self.synced -= 1;
            }
            State::Behind(cursor) => {
                self.streams[slot].behind.remove(&(cursor, number));
                self.behind -= 1;
            }
            State::Ahead(cursor) => {
                self.streams[slot].ahead -= 1;
                self.ahead.remove(&(cursor, number));
            }
        }
    }

    /// How many there are of what.
    pub fn counts(&self) -> Counts {
        Counts {
            streams: self.by_id.len(),
            watchers: self.watchers.len(),
            behind: self.behind,
            starved: self.starved.len(),
            told: self.told,
        }
    }
}

#[cfg(test)]
impl Hub {
    pub(super) fn has_watcher(&self, id: StreamId, watch_id: i64) -> bool {
        self.by_id.get(&id).is_some_and(|slot| self.streams[*slot].watchers.contains_key(&watch_id))
    }

    /// Every watcher is in exactly the one place that its state says, and nothing else is anywhere.
    pub(super) fn check_invariants(&self) {
        let (mut synced, mut behind, mut ahead, mut watchers) = (0, 0, 0, 0);
        for slot in self.by_id.values() {
            let stream = &self.streams[*slot];
            watchers += stream.watchers.len();
            behind += stream.behind.len();
            let mut stream_ahead = 0;
            for (id, number) in &stream.watchers {
                let watcher = &self.watchers[*number];
                assert_eq!((watcher.id, watcher.stream), (*id, *slot));
                match watcher.state {
                    State::Unplaced => panic!("a watcher has no place"),
                    State::Synced { place } => {
                        assert_eq!(self.scopes[watcher.scope].synced[place], *number);
                        synced += 1;
                    }
                    State::Behind(cursor) => {
                        assert!(cursor <= self.revision && stream.behind.contains(&(cursor, *number)));
                    }
                    State::Ahead(cursor) => {
                        assert!(cursor > self.revision.next() && self.ahead.contains(&(cursor, *number)));
                        stream_ahead += 1;
                    }
                }
            }
            assert_eq!(stream.ahead, stream_ahead);
            ahead += stream_ahead;
            assert_eq!(stream.ready.is_some(), self.turns.contains(&(stream.turn, *slot)));
            assert!(stream.ready.is_none_or(|lowest| self.ready.contains(&(lowest, *slot))));
            if let (Some((cursor, _)), Some(lowest)) = (stream.behind.first(), stream.ready) {
                assert!(lowest <= *cursor, "a stream is never found too late");
            }
            assert_eq!(stream.starved, self.starved.contains(&(stream.turn, *slot)));
            assert!(!stream.starved || stream.ready.is_none());
            // Whoever is behind is in line, or the reader will say when there is room, or it waits for memory.
            let comes_back = stream.ready.is_some() || stream.starved || stream.outlet.will_report();
            assert!(stream.behind.is_empty() || comes_back);
        }
        assert_eq!((self.synced, self.behind, self.ahead.len()), (synced, behind, ahead));
        assert_eq!(self.watchers.len(), watchers);
        assert_eq!(self.ready.len(), self.turns.len());
        let marked = |scope: &Scope| scope.chosen.is_some() || scope.found.is_some() || scope.late;
        assert!(!self.scopes.numbers().any(|number| marked(&self.scopes[number])), "no slice is made now");
    }
}
