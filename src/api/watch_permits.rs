//! Whose the watchers of a stream are, and whether they may still hear what they asked for.
//!
//! Owns: that nobody is told of keys that they may not read any more. Must never: look whether a token is still good, which may end while a stream goes on. Driven by `watch`, with every response before it is sent,
//! by `election`, with all that an observer is told, and by `range_stream` and `snapshot_stream`, before each chunk.
//!
//! etcd looks only when a watcher is created. Here one whose user has lost the permission ends with the first response after that; so does one whose user has another password than the one that
//! its token was given for, and one that nobody had to be somebody for, once authentication is on: this member may have learnt of it late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tonic::Status;

use super::credentials::Credentials;
use super::errors;
use crate::command::{Caller, KeyRange, Rejection};
use crate::ids::AuthRevision;
use crate::mvcc::View;
use crate::watch::{Message, Refusal, Response};

/// By what a watcher was created.
#[derive(Debug)]
pub struct Permit {
    /// Who asked.
    user: String,
    /// The revision that made that user, or gave it its password; `None` where nobody has shown what was given for one.
    since: Option<AuthRevision>,
    /// For what.
    range: KeyRange,
    /// The revision of users and roles that permits it.
    seen: AuthRevision,
}

impl Permit {
    /// Of a caller who may read this, as of a view.
    pub fn new(credentials: &Credentials, caller: Caller, range: KeyRange, view: &View) -> Self {
        let auth = &view.facts().auth;
        let since = credentials.token().and_then(|_| auth.user(&caller.user)).map(|user| user.since);
        Self { user: caller.user, since, range, seen: auth.revision }
    }

    /// Who asked.
    pub fn user(&self) -> &str {
        &self.user
    }
}

/// The watchers of one stream.
#[derive(Default)]
pub struct WatchPermits {
    /// Of those that the hub has not answered, in the order in which it will.
    asked: VecDeque<Option<Permit>>,
    held: BTreeMap<i64, Permit>,
    /// Those that were created while nobody had to be anybody, as far as this member knew.
    open: BTreeSet<i64>,
    /// Those that were told that they have ended, and of which the hub has more to say.
    ended: BTreeSet<i64>,
}

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Send,
    /// The watcher is told that it has ended, and why, and the hub, too.
    End(Refusal),
    /// Nobody is to know.
    Drop,
}

impl WatchPermits {
    /// A watcher is asked of the hub.
    pub fn ask(&mut self, permit: Option<Permit>) {
        self.asked.push_back(permit);
    }

    /// Judges what the hub says, as of the newest view.
    pub fn judge(&mut self, response: &Response, view: impl FnOnce() -> Arc<View>) -> Verdict {
        let id = response.watch_id;
        match response.message {
            Message::Created => {
                self.ended.remove(&id);
                match self.asked.pop_front() {
                    Some(Some(permit)) => drop(self.held.insert(id, permit)),
                    Some(None) => drop(self.open.insert(id)),
                    None => {}
                }
                Verdict::Send
            }
            Message::Refused(_) => {
                self.asked.pop_front();
                Verdict::Send
            }
            Message::Canceled | Message::Compacted(_) => {
                self.forget(id);
                if self.ended.remove(&id) { Verdict::Drop } else { Verdict::Send }
            }
            Message::Events { .. } | Message::Progress => {
                let permit = self.held.get_mut(&id);
                if permit.is_none() && self.ended.contains(&id) {
                    return Verdict::Drop;
                }
                if permit.is_none() && !self.open.contains(&id) {
                    return Verdict::Send;
                }
                let Err(status) = check(permit, &view()) else { return Verdict::Send };
                self.forget(id);
                self.ended.insert(id);
                Verdict::End(errors::watch_refusal(&status))
            }
        }
    }

    fn forget(&mut self, id: i64) {
        self.held.remove(&id);
        self.open.remove(&id);
    }
}

/// Refuses who may not be told any more of what they asked for, as of a view; without a permit, whoever asked while nobody had to be anybody.
pub fn check(permit: Option<&mut Permit>, view: &View) -> Result<(), Status> {
    let auth = &view.facts().auth;
    if !auth.enabled {
        return Ok(());
    }
    let permit = permit.ok_or(Rejection::UserNameEmpty)?;
    if permit.seen == auth.revision {
        return Ok(());
    }
    if permit.since.is_some() && auth.user(&permit.user).map(|user| user.since) != permit.since {
        return Err(errors::invalid_auth_token());
    }
    if !auth.may_read(&permit.user, &permit.range) {
        return Err(Rejection::PermissionDenied.into());
    }
    permit.seen = auth.revision;
    Ok(())
}
