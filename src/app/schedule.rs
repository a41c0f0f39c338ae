//! What a member does now and then, as settings say that may change while it runs.
//!
//! Owns: compaction by schedule, and that each of these begins anew with its settings. Must never: do anything for a state that is not shown. Driven by `serve`.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use smol::Timer;
use smol::future::or;

use super::auto_compaction::AutoCompactor;
use super::backup::{Backups, back_up};
use super::compare::{Doubt, compare};
use super::reload::Reload;
use crate::command::{Command, Rejection};
use crate::config::AutoCompaction;
use crate::runtime::Handle;
use crate::runtime::clock::Clock;

/// All of it, for ever.
pub(super) async fn follow(
    reload: Rc<Reload>,
    handle: Handle,
    clock: Clock,
    backups: Arc<Backups>,
) -> Infallible {
    let doubt = RefCell::new(Doubt::default());
    let comparing = async |interval| compare(&handle, interval, &doubt).await;
    let compacting = async |mode| compact(mode, &handle, clock).await;
    let backing_up = async |config| back_up(config, &handle, clock, &backups).await;
    let compares = reload.follow(|config| config.peer.compare_interval, comparing);
    let compacts = reload.follow(|config| config.auto_compaction, compacting);
    let backs_up = reload.follow(|config| config.backup.clone(), backing_up);
    or(compares, or(compacts, backs_up)).await
}

/// Compacts by this schedule while the member leads.
async fn compact(mode: AutoCompaction, handle: &Handle, clock: Clock) {
    let mut compactor = AutoCompactor::new(mode, clock.now());
    while let Some(at) = compactor.poll_timeout() {
        Timer::after(clock.until(at)).await;
        let Some(target) = compactor.handle_timeout(clock.now(), handle.view().revision()) else { continue };
        // Before a user has written there is nothing to compact, and it would count as a user's write.
        if !handle.status().leads() || !handle.view().facts().charter.committed {
            continue;
        }
        match handle.propose(Command::Compact { revision: target.0 }).await {
            Ok(applied) => {
                compactor.handle_compacted(target);
                // A client may have compacted further already.
                if applied.outcome != Err(Rejection::Compacted) {
                    tracing::info!(revision = target.0, "compacted by schedule");
                }
            }
            Err(error) => tracing::warn!(%error, revision = target.0, "could not compact by schedule"),
        }
    }
}
