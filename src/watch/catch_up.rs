//! Bringing watchers forward that are behind.
//!
//! Owns: whose turn it is, and who goes along. Must never: let one stream's backlog keep others waiting for more than its slice. Driven by
//! the hub's driver, in slices.
//!
//! The stream whose turn it is leads: its lowest cursor is where the slice begins. Watchers of other streams whose cursors lie in the
//! slice come along, so a crowd that fell behind together is served by one walk over the changes. Whoever was served goes to the end
//! of the line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::batch::Batch;
use super::hub::Hub;
use super::scan::{self, For, Found, Scopes};
use super::watcher::State;
use super::{Message, Response};
use crate::ids::Revision;
use crate::mvcc::View;
use crate::store::StoreError;

/// A watcher of a slice.
#[derive(Clone, Copy, Debug)]
struct Traveller {
    watcher: u32,
    cursor: Revision,
}

/// The events of one scope in a slice, and the batches made of them so far: by cursors, which mostly are the same.
struct Offers {
    found: Found,
    batches: Vec<(usize, Arc<Batch>)>,
}

impl Hub {
    /// Brings some watchers forward; whether others wait that could be. `view` is the one that the hub has advanced to.
    pub(super) fn work(&mut self, view: &View) -> Result<bool, StoreError> {
        let Some((_, leader)) = self.turns.first().copied() else { return Ok(false) };
        if self.cancel_compacted(leader, view.compacted()) {
            self.requeue(leader);
            return Ok(!self.turns.is_empty());
        }
        let Some((from, _)) = self.streams[leader].behind.first().copied() else {
            self.unready(leader);
            return Ok(!self.turns.is_empty());
        };
        let (travellers, streams) = self.gather(leader, from);
        let bounds = self.slice_bounds();
        for traveller in &travellers {
            let scope = self.watchers[traveller.watcher].scope;
            let chosen = &mut self.scopes[scope].chosen;
            *chosen = Some(chosen.map_or(traveller.cursor, |from| from.min(traveller.cursor)));
        }
        let scopes = Scopes { index: &self.index, all: &mut self.scopes, wanted: For::Chosen };
        let slice = scan::slice(view, from, self.revision, bounds, self.parts, scopes)?;
        for traveller in &travellers {
            let scope = self.watchers[traveller.watcher].scope;
            self.scopes[scope].chosen = None;
        }
        let found = slice.found.into_iter();
        let mut found: BTreeMap<u32, Offers> =
            found.map(|found| (found.scope, Offers { found, batches: Vec::new() })).collect();
        for traveller in travellers {
            if traveller.cursor <= slice.through {
                self.bring(traveller, &mut found, slice.through);
            }
        }
        for slot in streams {
            self.requeue(slot);
        }
        Ok(!self.turns.is_empty())
    }

    /// Ends the watchers of a stream whose next revision is compacted; whether there were any.
    fn cancel_compacted(&mut self, slot: u32, compacted: Revision) -> bool {
        let mut any = false;
        while let Some((cursor, watcher)) = self.streams[slot].behind.first().copied()
            && cursor < compacted
        {
            any = true;
            let watch_id = self.watchers[watcher].id;
            let response =
                Response { watch_id, revision: self.revision, message: Message::Compacted(compacted) };
            if !self.offer(slot, response, self.small_room()) {
                break;
            }
            self.streams[slot].watchers.remove(&watch_id);
            self.remove(watcher);
        }
        any
    }

    /// The watchers that a slice from `from` on may serve, and their streams.
    fn gather(&self, leader: u32, from: Revision) -> (Vec<Traveller>, BTreeSet<u32>) {
        let reach = Revision(
            from.0.saturating_add(i64::try_from(self.options.limits.slice_revisions).unwrap_or(i64::MAX)),
        );
        let mut travellers = Vec::new();
        let mut streams = BTreeSet::from([leader]);
        let others = self.ready.range((from, 0)..=(reach, u32::MAX)).map(|(_, slot)| *slot);
        for slot in std::iter::once(leader).chain(others.filter(|slot| *slot != leader)) {
            let room = self.options.limits.slice_watchers.saturating_sub(travellers.len());
            if room == 0 {
                break;
            }
            let behind = self.streams[slot].behind.range(..=(reach, u32::MAX)).take(room);
            travellers
                .extend(behind.map(|(cursor, watcher)| Traveller { watcher: *watcher, cursor: *cursor }));
            streams.insert(slot);
        }
        (travellers, streams)
    }

    /// Tells a watcher of what it has not seen in a slice, and moves its cursor.
    fn bring(&mut self, traveller: Traveller, found: &mut BTreeMap<u32, Offers>, through: Revision) {
        let Traveller { watcher, cursor } = traveller;
        let scope = self.watchers[watcher].scope;
        let mut next = through.next();
        if let Some(offers) = found.get_mut(&scope) {
            let Found { events, long, latest, late, .. } = &offers.found;
            let told = offers.found.told_through(through);
            if *late && cursor <= *latest {
                next = *latest;
            }
            let seen = events.partition_point(|event| event.id.main < cursor);
            if seen < events.len() || long.is_some() && cursor <= *latest {
                let first = events.get(seen).map_or(*latest, |event| event.id.main);
                let batch = self.batch_of(scope, offers, seen);
                if !self.offer_events(watcher, batch, told) {
                    next = first;
                }
            }
        }
        self.move_cursor(watcher, next);
    }

    fn batch_of<'o>(&self, scope: u32, offers: &'o mut Offers, seen: usize) -> &'o Arc<Batch> {
        let known = offers.batches.iter().position(|(start, _)| *start == seen);
        let place = known.unwrap_or_else(|| {
            let events = offers.found.events[seen..].to_vec();
            let long = offers.found.long.clone().unwrap_or_default();
            let batch = Batch::new(events, long, self.scopes[scope].prev_kv, &self.budget);
            offers.batches.push((seen, Arc::new(batch)));
            offers.batches.len() - 1
        });
        &offers.batches[place].1
    }

    fn move_cursor(&mut self, watcher: u32, next: Revision) {
        if next > self.revision {
            self.unplace(watcher);
            self.place(watcher, next);
            return;
        }
        let slot = self.watchers[watcher].stream;
        if let State::Behind(cursor) =
            std::mem::replace(&mut self.watchers[watcher].state, State::Behind(next))
        {
            let behind = &mut self.streams[slot].behind;
            behind.remove(&(cursor, watcher));
            behind.insert((next, watcher));
        }
    }

    /// Lines a stream up where it belongs: among those that can be brought forward, if it has room and watchers that are behind.
    pub(super) fn refresh(&mut self, slot: u32) {
        let room = self.room();
        let stream = &mut self.streams[slot];
        if stream.starved {
            return;
        }
        let lowest = stream.behind.first().map(|(cursor, _)| *cursor);
        let ready = match (lowest, stream.ready) {
            // Where it stands already it has room, or will be found to have none.
            (Some(lowest), Some(_)) => Some(lowest),
            (Some(lowest), None) => stream.outlet.claim(room).then_some(lowest),
            (None, _) => None,
        };
        if ready == stream.ready {
            return;
        }
        if let Some(before) = std::mem::replace(&mut stream.ready, ready) {
            self.ready.remove(&(before, slot));
        } else {
            stream.turn = self.turn;
            self.turn += 1;
            self.turns.insert((stream.turn, slot));
        }
        match ready {
            Some(lowest) => drop(self.ready.insert((lowest, slot))),
            None => drop(self.turns.remove(&(stream.turn, slot))),
        }
    }

    /// Takes a stream out of the line.
    pub(super) fn unready(&mut self, slot: u32) {
        let stream = &mut self.streams[slot];
        if let Some(lowest) = stream.ready.take() {
            self.ready.remove(&(lowest, slot));
            self.turns.remove(&(stream.turn, slot));
        }
    }

    /// Puts a stream at the end of the line, if it still belongs there.
    fn requeue(&mut self, slot: u32) {
        self.unready(slot);
        self.refresh(slot);
    }
}
