//! What a leader says of nothing but its commit position: held back for a moment, since more is likely to be said soon.
//!
//! Owns: what is held back, for whom and how long. Must never: hold back what somebody is known to wait for. Part of [`super::Core`].
//!
//! Without this, each write of a lone client wakes every follower twice: for the entry, and to be told that it is committed. The next entry says that
//! as well, and comes soon where clients are busy. Where none comes, a follower shows a write so much later than the leader; whoever waits at
//! a follower, for a write that went through it or for a read, is not kept waiting. Dropping one does no harm: heartbeats say the same.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::consensus::Message;
use crate::ids::MemberId;
use crate::time::Instant;

/// So long at most: a few round trips of a LAN, and less than anybody notices.
const HOLD: Duration = Duration::from_millis(3);
/// A follower that has passed on something lately may do so again: nothing is held back from it for so long.
const ASKED_LATELY: Duration = Duration::from_secs(1);

/// Commit positions that wait, by follower.
#[derive(Debug, Default)]
pub(super) struct Notices {
    held: BTreeMap<MemberId, Message>,
    /// When all of them go.
    due: Option<Instant>,
    /// When each follower passed on something for the last time.
    asked: BTreeMap<MemberId, Instant>,
}

impl Notices {
    /// Takes out of `messages` what can wait. What waits already and is said by them, too, is forgotten.
    pub(super) fn hold_back(&mut self, now: Instant, messages: &mut Vec<Message>) {
        let (held, asked) = (&mut self.held, &self.asked);
        messages.retain(|message| {
            let to = message.to();
            if message.is_commit_notice() && asked.get(&to).is_none_or(|at| now.since(*at) >= ASKED_LATELY) {
                held.insert(to, message.clone());
                return false;
            }
            if message.says_commit() {
                held.remove(&to);
            }
            true
        });
        self.due = if self.held.is_empty() { None } else { self.due.or(Some(now + HOLD)) };
    }

    /// A follower has passed on something, and waits for what becomes of it; what it is to be told, if that has been held back.
    pub(super) fn note_asked(&mut self, now: Instant, by: MemberId) -> Option<Message> {
        self.asked.insert(by, now);
        self.held.remove(&by)
    }

    /// What has waited long enough.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Message> {
        if self.due.take_if(|due| *due <= now).is_none() {
            return Vec::new();
        }
        self.asked.retain(|_, at| now.since(*at) < ASKED_LATELY);
        std::mem::take(&mut self.held).into_values().collect()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}
