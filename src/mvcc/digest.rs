//! The digest that is chained over the results of applied entries.
//!
//! Owns: what goes into it, and in which bytes. Must never: depend on anything but the log: not on batches, folds, compaction's progress or
//! restarts. Fed by `machine` and by the [`Writer`](super::Writer); compared between members that have applied the same index.
//!
//! ```text
//! entry   index  term   ( change: main  sub  key  [value  create  version  lease] | lease: id  [ttl  remaining  granted at]
//!         | member | charter: its bytes | auth: its bytes )*   result
//! result  kind of outcome or rejection   revision after   what the outcome says that no change does
//! ```
//!
//! It is to notice members that have come apart by a bug or by bad memory, not to withstand somebody who wants two states to look alike. So speed
//! decides: two words cost one multiplication of 64 by 64 bits, whose halves are added without carry.

use crate::auth::Auth;
use crate::command::{
    Alarm, AlarmKind, CommandVersion, MemberAttributes, OpResult, Outcome, Rejection, TxnResult,
};
use crate::ids::{Digest, LeaseId, LogIndex, MemberId, Revision, Term, VersionId};
use crate::store::{Change, ChangeKind, Charter, ConfState, Lease, Member, put_auth, put_charter};

/// What goes into a digest, and how. Members whose programs have different ones have nothing to compare. A digest is chained over all of the log: a
/// version that has another one must begin its chain anew, on all members at the same entry.
pub const DIGEST_VERSION: u8 = 1;

/// An odd number with as many ones as zeros (the golden ratio's fraction).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Digest {
    fn word(&mut self, word: u64) {
        self.pair(word, 0);
    }

    fn pair(&mut self, one: u64, other: u64) {
        let factors =
            (self.0.rotate_left(32) ^ one ^ MULTIPLIER, self.0 ^ other.rotate_left(11) ^ !MULTIPLIER);
        let product = (u128::from(factors.0) * u128::from(factors.1)).to_le_bytes();
        let (low, high) = halves(&product);
        // Without the sum a factor of 0 would forget the other one.
        self.0 = low ^ high ^ factors.0.wrapping_add(factors.1.rotate_left(29));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (pairs, rest) = bytes.as_chunks::<{ size_of::<u128>() }>();
        for pair in pairs {
            let (one, other) = halves(pair);
            self.pair(one, other);
        }
        if !rest.is_empty() {
            let mut last = [0; size_of::<u128>()];
            last[..rest.len()].copy_from_slice(rest);
            let (one, other) = halves(&last);
            self.pair(one, other);
        }
    }

    /// The log goes on with this entry.
    pub(super) fn entry(&mut self, index: LogIndex, term: Term) {
        self.word(index.0);
        self.word(term.0);
    }

    /// The entry has made this change.
    pub(super) fn change(&mut self, id: VersionId, change: &Change) {
        self.word(id.main.0.cast_unsigned());
        self.word(u64::from(id.sub));
        self.bytes(&change.key);
        match &change.kind {
            ChangeKind::Delete => self.word(0),
            ChangeKind::Put { value, create_revision, version, lease } => {
                self.bytes(value);
                self.word(create_revision.0.cast_unsigned());
                self.word(version.cast_unsigned());
                self.word(lease.0.cast_unsigned());
            }
        }
    }

    /// The entry has made this of a lease; `None` ends it.
    pub(super) fn lease(&mut self, id: LeaseId, lease: Option<&Lease>) {
        self.word(id.0.cast_unsigned());
        match lease {
            None => self.word(0),
            Some(Lease { ttl, remaining, granted_at }) => {
                self.pair(1, granted_at.0);
                self.pair(ttl.cast_unsigned(), remaining.cast_unsigned());
            }
        }
    }

    /// The entry has come to this, and the state to `revision` and `compacted`.
    pub fn result(&mut self, revision: Revision, compacted: Revision, outcome: &Result<Outcome, Rejection>) {
        match outcome {
            Ok(Outcome::Put(_)) => self.word(1),
            Ok(Outcome::DeleteRange(_)) => self.word(2),
            Ok(Outcome::Txn(txn)) => {
                self.word(3);
                self.branches(txn);
            }
            Ok(Outcome::AnswerTooLarge) => unreachable!("it stands for an outcome, after that was taken in"),
            Ok(Outcome::Compact) => {
                self.word(4);
                self.word(compacted.0.cast_unsigned());
            }
            Ok(Outcome::Alarm(alarms)) => {
                self.word(5);
                for alarm in alarms {
                    self.alarm(*alarm);
                }
            }
            Ok(Outcome::Publish) => self.word(6),
            Ok(Outcome::Member(id)) => self.pair(11, id.0),
            Ok(Outcome::Charter) => self.word(12),
            Ok(Outcome::Auth) => self.word(13),
            Ok(Outcome::Raise(version)) => self.pair(14, version.0.into()),
            Ok(Outcome::LeaseGrant { .. }) => self.word(7),
            Ok(Outcome::LeaseRevoke) => self.word(8),
            Ok(Outcome::LeaseExpire(leases)) => self.pair(9, leases.len() as u64),
            Ok(Outcome::LeaseCheckpoint(leases)) => self.pair(10, leases.len() as u64),
            Err(rejection) => self.word(0x100 + code(*rejection)),
        }
        self.word(revision.0.cast_unsigned());
    }

    /// Which branches a transaction took. What its reads gave follows from the state, which the digest knows.
    fn branches(&mut self, txn: &TxnResult) {
        self.word(u64::from(txn.succeeded));
        for (_, response) in &txn.responses {
            if let OpResult::Txn(nested) = response {
                self.branches(nested);
            }
        }
    }

    fn alarm(&mut self, alarm: Alarm) {
        self.word(alarm.member.0);
        self.word(match alarm.kind {
            AlarmKind::NoSpace => 1,
            AlarmKind::Corrupt => 2,
        });
    }

    /// A member is known by these from now on.
    pub fn attributes(&mut self, attributes: &MemberAttributes) {
        self.word(attributes.member.0);
        self.bytes(attributes.name.as_bytes());
        for urls in [&attributes.peer_urls, &attributes.client_urls] {
            self.word(urls.len() as u64);
            for url in urls {
                self.bytes(url.as_bytes());
            }
        }
        self.word(attributes.incarnation);
        self.word(attributes.boot_nonce);
        // Members of builds that know of no versions come to the same.
        if attributes.understands > CommandVersion::FIRST {
            self.word(attributes.understands.0.into());
        }
    }

    /// A member is this from now on, or none any more.
    pub fn member(&mut self, id: MemberId, member: Option<&Member>) {
        self.pair(12, id.0);
        let Some(member) = member else { return };
        self.word(u64::from(member.votes));
        self.bytes(member.key.as_ref().map_or(&[], |key| &key.0));
        self.attributes(&member.attributes);
    }

    /// The cluster has this charter from now on.
    pub fn charter(&mut self, charter: &Charter) {
        let mut bytes = Vec::new();
        put_charter(&mut bytes, charter);
        self.bytes(&bytes);
    }

    /// There are these users and roles from now on.
    pub fn auth(&mut self, auth: &Auth) {
        let mut bytes = Vec::new();
        put_auth(&mut bytes, auth);
        self.bytes(&bytes);
    }

    /// The cluster has this configuration from now on.
    pub fn conf_state(&mut self, conf_state: &ConfState) {
        let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = conf_state;
        for members in [voters, learners, voters_outgoing, learners_next] {
            self.word(members.len() as u64);
            for member in members {
                self.word(member.0);
            }
        }
        self.word(u64::from(*auto_leave));
    }
}

fn halves(bytes: &[u8; size_of::<u128>()]) -> (u64, u64) {
    let (words, _) = bytes.as_chunks::<{ size_of::<u64>() }>();
    (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]))
}

fn code(rejection: Rejection) -> u64 {
    match rejection {
        Rejection::KeyNotFound => 1,
        Rejection::LeaseNotFound => 2,
        Rejection::Compacted => 3,
        Rejection::FutureRevision => 4,
        Rejection::NoSpace => 5,
        Rejection::Corrupt => 6,
        Rejection::TooManyAlarms => 7,
        Rejection::LeaseExists => 8,
        Rejection::MemberNotFound => 9,
        Rejection::PeerUrlExists => 10,
        Rejection::TooManyLearners => 11,
        Rejection::NotEnoughStarted => 12,
        Rejection::NotLearner => 13,
        Rejection::PlaceTaken => 14,
        Rejection::Dissolved => 15,
        Rejection::Committed => 16,
        Rejection::NotAutomatic => 17,
        Rejection::Sealed => 18,
        Rejection::NodeRemoved => 19,
        Rejection::NotApproved => 20,
        Rejection::TokenNotFound => 21,
        Rejection::TokenUsed => 22,
        Rejection::TokenExists => 23,
        Rejection::TooManyTokens => 24,
        Rejection::TooManyApprovals => 25,
        Rejection::TooManyMembers => 26,
        Rejection::ClientNotFound => 27,
        Rejection::ClientExists => 28,
        Rejection::TooManyClients => 29,
        Rejection::AuthorityExists => 30,
        Rejection::TooLong => 31,
        Rejection::TimeOutOfRange => 32,
        Rejection::Entangled => 33,
        Rejection::UserNameEmpty => 34,
        Rejection::UserExists => 35,
        Rejection::UserNotFound => 36,
        Rejection::RoleNameEmpty => 37,
        Rejection::RoleExists => 38,
        Rejection::RoleNotFound => 39,
        Rejection::RootUserMissing => 40,
        Rejection::RootRoleMissing => 41,
        Rejection::RoleNotGranted => 42,
        Rejection::PermissionNotGranted => 43,
        Rejection::InvalidAuthManagement => 44,
        Rejection::PermissionDenied => 45,
        Rejection::AuthRevisionOld => 46,
        Rejection::AuthTooLarge => 47,
        Rejection::NotCapable => 48,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const REJECTIONS: [Rejection; 48] = [
        Rejection::KeyNotFound,
        Rejection::LeaseNotFound,
        Rejection::Compacted,
        Rejection::FutureRevision,
        Rejection::NoSpace,
        Rejection::Corrupt,
        Rejection::TooManyAlarms,
        Rejection::LeaseExists,
        Rejection::MemberNotFound,
        Rejection::PeerUrlExists,
        Rejection::TooManyLearners,
        Rejection::NotEnoughStarted,
        Rejection::NotLearner,
        Rejection::PlaceTaken,
        Rejection::Dissolved,
        Rejection::Committed,
        Rejection::NotAutomatic,
        Rejection::Sealed,
        Rejection::NodeRemoved,
        Rejection::NotApproved,
        Rejection::TokenNotFound,
        Rejection::TokenUsed,
        Rejection::TokenExists,
        Rejection::TooManyTokens,
        Rejection::TooManyApprovals,
        Rejection::TooManyMembers,
        Rejection::ClientNotFound,
        Rejection::ClientExists,
        Rejection::TooManyClients,
        Rejection::AuthorityExists,
        Rejection::TooLong,
        Rejection::TimeOutOfRange,
        Rejection::Entangled,
        Rejection::UserNameEmpty,
        Rejection::UserExists,
        Rejection::UserNotFound,
        Rejection::RoleNameEmpty,
        Rejection::RoleExists,
        Rejection::RoleNotFound,
        Rejection::RootUserMissing,
        Rejection::RootRoleMissing,
        Rejection::RoleNotGranted,
        Rejection::PermissionNotGranted,
        Rejection::InvalidAuthManagement,
        Rejection::PermissionDenied,
        Rejection::AuthRevisionOld,
        Rejection::AuthTooLarge,
        Rejection::NotCapable,
    ];

    fn put(key: &'static str, value: &'static str) -> Change {
        let (create_revision, version, lease) = (Revision(2), 1, LeaseId::NONE);
        let kind =
            ChangeKind::Put { value: Bytes::from_static(value.as_bytes()), create_revision, version, lease };
        Change { key: Bytes::from_static(key.as_bytes()), kind }
    }

    fn of(feed: impl FnOnce(&mut Digest)) -> u64 {
        let mut digest = Digest::default();
        feed(&mut digest);
        digest.0
    }

    #[test]
    fn whatever_differs_shows() {
        let id = VersionId::default();
        let changed = |id, change: Change| of(|digest| digest.change(id, &change));
        let with = |alter: fn(&mut Change)| {
            let mut change = put("key", "value");
            alter(&mut change);
            change
        };
        let mut all = vec![
            of(|_| ()),
            of(|digest| digest.word(0)),
            of(|digest| digest.entry(LogIndex(1), Term(0))),
            of(|digest| digest.entry(LogIndex(0), Term(1))),
            changed(id, put("key", "value")),
            changed(VersionId { sub: 1, ..id }, put("key", "value")),
            changed(VersionId { main: Revision(1), ..id }, put("key", "value")),
            changed(id, put("keyv", "alue")),
            changed(id, put("key", "value\0")),
            changed(id, put("key", "valuf")),
            changed(id, put("key", "a value of more than eight bytes")),
            changed(id, put("key", "a value of more than eight bytfs")),
            changed(id, with(|change| change.kind = ChangeKind::Delete)),
        ];
        for field in 0..3 {
            let mut change = put("key", "value");
            if let ChangeKind::Put { create_revision, version, lease, .. } = &mut change.kind {
                match field {
                    0 => *create_revision = Revision(3),
                    1 => *version = 2,
                    _ => *lease = LeaseId(1),
                }
            }
            all.push(changed(id, change));
        }
        let results = REJECTIONS.map(Err).into_iter().chain([
            Ok(Outcome::Compact),
            Ok(Outcome::Publish),
            Ok(Outcome::Charter),
            Ok(Outcome::Auth),
            Ok(Outcome::Raise(CommandVersion(2))),
            Ok(Outcome::Raise(CommandVersion(3))),
        ]);
        for (result, at) in results.flat_map(|result| [(result.clone(), 5), (result, 6)]) {
            all.push(of(|digest| digest.result(Revision(at), Revision(0), &result)));
        }
        all.push(of(|digest| digest.result(Revision(5), Revision(1), &Ok(Outcome::Compact))));
        let total = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), total);
    }

    #[test]
    fn the_number_of_a_state_does_not_change_from_version_to_version() {
        let digest = of(|digest| {
            digest.entry(LogIndex(2), Term(1));
            digest.change(VersionId { main: Revision(2), sub: 0 }, &put("greeting", "hello"));
        });
        assert_eq!(format!("{digest:016x}"), "5b1116348a97866f");
    }

    #[test]
    fn single_bits_spread() {
        let base = of(|digest| digest.bytes(&[0; 64]));
        for bit in 0..512 {
            let mut bytes = [0; 64];
            bytes[bit / 8] = 1 << (bit % 8);
            let differing = (base ^ of(|digest| digest.bytes(&bytes))).count_ones();
            assert!((10..=54).contains(&differing), "bit {bit} changes {differing} bits");
        }
    }
}
