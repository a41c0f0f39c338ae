//! The last things that the node has logged, for whoever looks at its status page.
//!
//! Owns: how many of them are kept, and how much of each. Must never: grow beyond that, keep what raft and libraries log, or see what the level leaves out. Fed by `tracing` beside
//! `log`, read through [`recent`].

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::log::{Head, level_name, write_words};
use super::timestamp::wall_clock;

/// As many as fit a page that is looked at; with their texts at most 8 KB.
const RECENT_MAX: usize = 32;
/// Of a longer text only the beginning is kept.
const TEXT_BYTES_MAX: usize = 240;
/// How the targets of our own lines begin: modules of this crate.
const OWN: &str = env!("CARGO_PKG_NAME");

/// Something that was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Counts all that were, from the start of the process.
    pub number: u64,
    /// The wall clock at that moment, as time since 1970.
    pub at: Duration,
    /// As in the log.
    pub level: &'static str,
    /// The message and its fields, in one line.
    pub text: String,
}

/// The last ones, oldest first.
pub fn recent() -> Vec<Said> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).said.iter().cloned().collect()
}

/// Those of the process.
static RECENT: Mutex<Recent> = Mutex::new(Recent::new());

/// See the module.
#[derive(Debug)]
struct Recent {
    said: VecDeque<Said>,
    /// How many there were.
    count: u64,
}

impl Recent {
    const fn new() -> Self {
        Self { said: VecDeque::new(), count: 0 }
    }

    fn push(&mut self, at: Duration, level: &'static str, mut text: String) {
        if text.len() > TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
            text.push('…');
        }
        // What a long line took beyond that is not kept either.
        text.shrink_to_fit();
        if self.said.len() == RECENT_MAX {
            self.said.pop_front();
        }
        self.count += 1;
        self.said.push_back(Said { number: self.count, at, level, text });
    }
}

/// Keeps what it hears.
pub(super) struct RecentLayer(&'static Mutex<Recent>);

impl RecentLayer {
    /// For the whole process.
    pub(super) fn of_process() -> Self {
        Self(&RECENT)
    }
}

impl<S: Subscriber> Layer<S> for RecentLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || !metadata.target().starts_with(OWN) {
            return;
        }
        let mut text = String::new();
        write_words(&mut text, &Head::of(event), event);
        // Not while it is formatted: a value that logs meanwhile comes here, too.
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push(wall_clock(), level_name(*metadata.level()), text);
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn the_last_of_our_own_are_kept_and_so_much_of_each() {
        let recent: &'static Mutex<Recent> = Box::leak(Box::new(Mutex::new(Recent::new())));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(RecentLayer(recent)), || {
            for n in 0..RECENT_MAX {
                tracing::info!(n, name = "a\nb", "something happened");
            }
            tracing::debug!("nobody needs to know");
            tracing::error!(target: "raft", "not ours");
            tracing::warn!("{}", "ä".repeat(TEXT_BYTES_MAX));
        });
        let recent = recent.lock().unwrap();
        let (first, last) = (recent.said.front().unwrap(), recent.said.back().unwrap());
        assert_eq!((recent.said.len(), first.number), (RECENT_MAX, 2), "the first one made room");
        assert_eq!((first.level, &first.text[..]), ("info", "something happened n=1 name=\"a\\nb\""));
        assert_eq!((last.number, last.level), (RECENT_MAX as u64 + 1, "warn"));
        assert_eq!(last.text, format!("{}…", "ä".repeat(TEXT_BYTES_MAX / 2)));
    }
}
