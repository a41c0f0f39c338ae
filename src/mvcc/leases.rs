//! Which leases exist, as of a view, and which keys are attached to one.
//!
//! Owns: the table of leases and how views share it; the merge of attachments over the layers. Must never: know when a lease ends. Changed
//! through [`Tip`](super::Tip) by `machine`.
//!
//! Attachments are not kept per lease: the base has a table of them, a generation the candidates of its span, and of both those
//! count whose newest version names the lease.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::sync::Arc;
use std::vec::IntoIter;

use bytes::Bytes;

use super::range::{Allowance, Portion, Progress};
use super::view::View;
use crate::command::{LeaseInstance, SpanEnd};
use crate::ids::LeaseId;
use crate::limits::LEASE_BYTES;
use crate::store::{Base, ChangeKind, Lease, StoreError};

/// Shards of the table: a view that is published after one lease changed cost the copy of so small a part.
const SHARDS: usize = 256;

/// Some of the leases, sorted by id.
type Shard = Vec<(LeaseId, Lease)>;

/// All leases. A clone shares everything; a change afterwards copies the shard that it is in, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leases {
    shards: Arc<Vec<Arc<Shard>>>,
    count: usize,
}

impl Default for Leases {
    fn default() -> Self {
        Self { shards: Arc::new(vec![Arc::default(); SHARDS]), count: 0 }
    }
}

/// Spreads ids that clients have chosen in a row.
fn shard_of(id: LeaseId) -> usize {
    let mixed = id.0.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::from(mixed.to_be_bytes()[0]) % SHARDS
}

impl Leases {
    /// The leases of a store.
    pub(super) fn of_base(base: &Base) -> Result<Self, StoreError> {
        let mut shards = vec![Vec::new(); SHARDS];
        let mut count = 0;
        for (id, lease) in base.leases()? {
            shards[shard_of(id)].push((id, lease));
            count += 1;
        }
        let sorted = |mut shard: Shard| {
            shard.sort_unstable_by_key(|(id, _)| *id);
            Arc::new(shard)
        };
        Ok(Self { shards: Arc::new(shards.into_iter().map(sorted).collect()), count })
    }

    /// One of them.
    pub fn find(&self, id: LeaseId) -> Option<&Lease> {
        let shard = &self.shards[shard_of(id)];
        shard.binary_search_by_key(&id, |(id, _)| *id).ok().map(|position| &shard[position].1)
    }

    /// Whether there is one of this id.
    pub fn contains(&self, id: LeaseId) -> bool {
        self.find(id).is_some()
    }

    /// Whether there still is the one that was granted then.
    pub fn has(&self, instance: LeaseInstance) -> bool {
        self.find(instance.id).is_some_and(|lease| lease.granted_at == instance.granted_at)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.shards.iter().flat_map(|shard| shard.iter().map(|(id, lease)| (*id, lease)))
    }

    /// What they count against the quota, in bytes.
    pub fn bytes(&self) -> u64 {
        self.count as u64 * LEASE_BYTES
    }

    /// Sets what there is under an id.
    pub(super) fn set(&mut self, id: LeaseId, lease: Option<Lease>) {
        let shards = Arc::make_mut(&mut self.shards);
        let shard = Arc::make_mut(&mut shards[shard_of(id)]);
        match (shard.binary_search_by_key(&id, |(id, _)| *id), lease) {
            (Ok(position), Some(lease)) => shard[position].1 = lease,
            (Ok(position), None) => {
                shard.remove(position);
                self.count -= 1;
            }
            (Err(position), Some(lease)) => {
                shard.insert(position, (id, lease));
                self.count += 1;
            }
            (Err(_), None) => {}
        }
    }
}

/// The keys of a lease that are being read.
pub struct LeaseKeys {
    lease: LeaseId,
    /// Those that the overlay knows: they share its memory.
    above: Peekable<IntoIter<Bytes>>,
    /// Where in the base the next portion begins.
    from: Bytes,
    keys: Vec<Bytes>,
}

impl LeaseKeys {
    /// The keys that were read so far and not taken yet.
    pub(super) fn take_keys(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.keys)
    }
}

impl View {
    /// The leases as of this view.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The keys that are attached to `lease`, in key order.
    pub fn lease_keys(&self, lease: LeaseId) -> Result<Vec<Bytes>, StoreError> {
        let mut reading = self.begin_lease_keys(lease);
        loop {
            match self.continue_lease_keys(&mut reading, Portion::ALL, &mut { Allowance::UNLIMITED })? {
                Progress::Done(keys) => return Ok(keys),
                Progress::More => {}
                Progress::TooLarge => unreachable!("it has all there is"),
            }
        }
    }

    /// Begins to read the keys of a lease.
    pub fn begin_lease_keys(&self, lease: LeaseId) -> LeaseKeys {
        let layers = self.frozen.iter().chain([&self.active]);
        let candidates: BTreeSet<Bytes> = layers.flat_map(|layer| layer.attached(lease)).collect();
        let names_it = |kind| names(&kind, lease);
        let above = candidates.into_iter().filter(|key| self.find_above(key).is_some_and(names_it));
        let above = above.collect::<Vec<_>>().into_iter().peekable();
        LeaseKeys { lease, above, from: Bytes::new(), keys: Vec::new() }
    }

    /// Reads a portion; the keys once there are no more. To be called with the view that it was begun with.
    pub fn continue_lease_keys(
        &self,
        reading: &mut LeaseKeys,
        portion: Portion,
        allowance: &mut Allowance,
    ) -> Result<Progress<Vec<Bytes>>, StoreError> {
        let (mut looked_at, mut bytes) = (0, 0);
        for key in self.base.attached(reading.lease, &reading.from)? {
            let key = key?;
            if portion.is_used_up(looked_at, bytes) {
                reading.from = key;
                return Ok(Progress::More);
            }
            looked_at += 1;
            bytes += key.len();
            // What the base says holds for the keys that nothing above it has changed.
            if self.find_above(&key).is_some() {
                continue;
            }
            while let Some(before) = reading.above.next_if(|above| *above < key) {
                reading.keys.push(before);
            }
            if !allowance.take(size_of::<Bytes>() + key.len()) {
                return Ok(Progress::TooLarge);
            }
            reading.keys.push(key);
        }
        reading.keys.extend(reading.above.by_ref());
        Ok(Progress::Done(reading.take_keys()))
    }

    /// Whether all keys of a lease are in some intervals, of which `end_of` says where one ends that a key is in. It is asked once for each interval and layer, and not for each key: a lease may
    /// have very many, and entries wait for this.
    pub fn is_lease_within<'i>(
        &self,
        lease: LeaseId,
        end_of: impl Fn(&[u8]) -> Option<SpanEnd<'i>>,
    ) -> Result<bool, StoreError> {
        let behind = |end| match end {
            SpanEnd::Before(key) => Some(Bytes::clone(key)),
            SpanEnd::Unbounded => None,
        };
        for layer in self.frozen.iter().chain([&self.active]) {
            let mut next = Some(Bytes::new());
            while let Some(key) = next.take().and_then(|from| layer.attached_from(lease, from)) {
                next = match end_of(&key) {
                    Some(end) => behind(end),
                    None if self.find_above(&key).is_some_and(|kind| names(&kind, lease)) => {
                        return Ok(false);
                    }
                    // It is another's by now. What comes right behind it is the next key that there can be.
                    None => Some([&key[..], b"\0"].concat().into()),
                };
            }
        }
        let mut next = Some(Bytes::new());
        while let Some(from) = next.take() {
            for key in self.base.attached(lease, &from)? {
                let key = key?;
                match end_of(&key) {
                    Some(end) => {
                        next = behind(end);
                        break;
                    }
                    None if self.find_above(&key).is_none() => return Ok(false),
                    None => {}
                }
            }
        }
        Ok(true)
    }

    /// The newest change of a key in the overlay, as of this view.
    fn find_above(&self, key: &Bytes) -> Option<ChangeKind> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.find(key, self.rev));
        self.active.find(key, self.rev).or_else(frozen).map(|(_, kind)| kind)
    }
}

/// Whether a change attaches its key to this lease.
fn names(kind: &ChangeKind, lease: LeaseId) -> bool {
    matches!(kind, ChangeKind::Put { lease: of, .. } if *of == lease)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LogIndex;

    #[test]
    fn a_clone_keeps_what_it_had_and_shares_the_rest() {
        let lease = |ttl| Lease { ttl, remaining: 0, granted_at: LogIndex(1) };
        let mut leases = Leases::default();
        for id in -500..500 {
            leases.set(LeaseId(id), Some(lease(id + 1000)));
        }
        let before = leases.clone();
        leases.set(LeaseId(3), None);
        leases.set(LeaseId(4), Some(lease(1)));
        leases.set(LeaseId(5000), None);
        assert_eq!((before.len(), leases.len()), (1000, 999));
        assert_eq!((before.find(LeaseId(3)), leases.find(LeaseId(3))), (Some(&lease(1003)), None));
        assert_eq!((before.find(LeaseId(4)), leases.find(LeaseId(4))), (Some(&lease(1004)), Some(&lease(1))));
        let shared = before.shards.iter().zip(leases.shards.iter()).filter(|(a, b)| Arc::ptr_eq(a, b));
        assert!(shared.count() >= SHARDS - 3);
        let mut ids: Vec<i64> = leases.iter().map(|(id, _)| id.0).collect();
        ids.sort_unstable();
        assert!(ids.iter().copied().eq((-500..500).filter(|id| *id != 3)));
        assert!(leases.shards.iter().all(|shard| shard.len() < 20), "ids in a row are spread");
    }
}
