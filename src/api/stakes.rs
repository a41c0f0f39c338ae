//! Which calls of this node count on which contender's key, and what becomes of a key when the last of them has gone.
//!
//! Owns: the count, and taking keys back until that is done or cannot be. Must never: take back a key that no call of this node has put in, one that a call counts on, one that somebody was told is
//! theirs, or one that was written by somebody else. Told of by `contest`; keys are taken back by whoever runs the server.
//!
//! Two calls with the same name and lease share a key: the client that gives up waiting and asks again at once is there twice for a moment. The first call's end must not be the second one's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use smol::Executor;
use smol::channel::{self, Receiver, Sender};

use super::contest::{leave, written_at};
use crate::auth::ROOT;
use crate::command::{Caller, Command, Rejection};
use crate::ids::Revision;
use crate::runtime::Handle;

/// How often it is proposed to take a key back while users and roles change: each time what is proposed is refused, and nothing else is wrong.
const TRIES_MAX: usize = 64;

/// The keys that calls of this node count on. Cheap to clone.
#[derive(Clone)]
pub struct Stakes(Arc<Shared>);

struct Shared {
    keys: Mutex<BTreeMap<Bytes, Claim>>,
    /// Keys that nobody counts on any more.
    given_up: Sender<GivenUp>,
    to_take_back: Receiver<GivenUp>,
}

/// What is known of a key.
#[derive(Default)]
struct Claim {
    calls: usize,
    /// Set once one of the calls has put it in, until one was told that it is theirs, or has found it gone.
    entered: Option<Entered>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entered {
    /// The revision that created the key.
    place: Revision,
    /// The revision by which one of the calls wrote it last.
    written: Revision,
}

#[derive(PartialEq, Eq, Debug)]
struct GivenUp {
    key: Bytes,
    entered: Entered,
}

/// That a call counts on a key. Dropped when the call ends.
pub struct Stake {
    stakes: Stakes,
    key: Bytes,
}

impl Default for Stakes {
    fn default() -> Self {
        // Each call leaves one key at most, and calls are bounded.
        let (given_up, to_take_back) = channel::unbounded();
        Self(Arc::new(Shared { keys: Mutex::default(), given_up, to_take_back }))
    }
}

impl Stakes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Bytes, Claim>> {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins to count on this key. To be said before it is looked whether the key is there.
    pub fn count_on(&self, key: Bytes) -> Stake {
        self.lock().entry(key.clone()).or_default().calls += 1;
        Stake { stakes: self.clone(), key }
    }

    /// Takes back what is given up, for as long as this is polled. Once for each node.
    pub async fn tidy(&self, handle: &Handle) {
        let executor = Executor::new();
        let tidying = async {
            while let Ok(entry) = self.0.to_take_back.recv().await {
                executor.spawn(take_back(handle.clone(), entry)).detach();
            }
        };
        executor.run(tidying).await;
    }
}

impl Stake {
    /// The call has put the key in.
    pub fn entered(&self, place: Revision) {
        self.with(|claim| claim.entered = Some(Entered { place, written: place }));
    }

    /// The call has written the key that was created by `place` once more.
    pub fn wrote(&self, place: Revision, written: Revision) {
        self.with(|claim| {
            if let Some(entered) = claim.entered.as_mut().filter(|entered| entered.place == place) {
                entered.written = written;
            }
        });
    }

    /// The key that was created by `place` is its holder's from now on, or gone: it is not taken back, whatever becomes of any call.
    pub fn settled(&self, place: Revision) {
        self.with(|claim| {
            claim.entered.take_if(|entered| entered.place == place);
        });
    }

    fn with(&self, change: impl FnOnce(&mut Claim)) {
        if let Some(claim) = self.stakes.lock().get_mut(&self.key) {
            change(claim);
        }
    }
}

impl Drop for Stake {
    fn drop(&mut self) {
        let mut keys = self.stakes.lock();
        let Some(claim) = keys.get_mut(&self.key) else { return };
        claim.calls -= 1;
        if claim.calls > 0 {
            return;
        }
        let entered = keys.remove(&self.key).and_then(|claim| claim.entered);
        drop(keys);
        if let Some(entered) = entered {
            let key = std::mem::take(&mut self.key);
            // The channel is neither full nor closed.
            self.stakes.0.given_up.try_send(GivenUp { key, entered }).ok();
        }
    }
}

/// A client that has gone away is not to be waited for, nor is one that may do nothing any more: what a call has put in the server itself takes back, hence as root, who is always there. That is refused
/// where users or roles have changed since, and then it is proposed again. Should it be lost all the same, the lease ends the key.
async fn take_back(handle: Handle, GivenUp { key, entered }: GivenUp) {
    let mut txn = leave(&key, entered.place);
    txn.compare.push(written_at(&key, entered.written));
    for _ in 0..TRIES_MAX {
        let auth = Arc::clone(&handle.view().facts().auth);
        let caller = auth.enabled.then(|| Caller { user: ROOT.to_owned(), revision: auth.revision });
        let proposed = handle.propose_for(caller, Command::Txn(txn.clone())).await;
        let is_behind = proposed.is_ok_and(|applied| {
            matches!(applied.outcome, Err(Rejection::AuthRevisionOld | Rejection::UserNameEmpty))
        });
        if !is_behind {
            return;
        }
    }
}
