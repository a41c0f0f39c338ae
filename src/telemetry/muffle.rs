//! The same news once a minute.
//!
//! Owns: which news was told when. Must never: grow with what strangers can make up. Driven by whoever has news that come again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Instant;

const PAUSE: Duration = Duration::from_secs(60);
/// Different news that are remembered. With more, all of it is forgotten, and told once more.
const NEWS_MAX: usize = 256;

/// News that are alike have equal keys.
#[derive(Debug)]
pub struct Muffle<K>(BTreeMap<K, (Instant, u64)>);

impl<K> Default for Muffle<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Muffle<K> {
    /// How often this was kept back before, if it is to be told now.
    pub fn tell(&mut self, now: Instant, news: K) -> Option<u64> {
        if let Some((told, kept_back)) = self.0.get_mut(&news) {
            if now.since(*told) < PAUSE {
                *kept_back += 1;
                return None;
            }
            *told = now;
            return Some(std::mem::take(kept_back));
        }
        if self.0.len() >= NEWS_MAX {
            self.0.clear();
        }
        self.0.insert(news, (now, 0));
        Some(0)
    }

    /// What matches is told at once when it comes again.
    pub fn forget(&mut self, matches: impl Fn(&K) -> bool) {
        self.0.retain(|news, _| !matches(news));
    }
}

#[test]
fn the_same_is_told_once_a_minute() {
    let (mut muffle, start) = (Muffle::default(), Instant(1));
    assert_eq!(muffle.tell(start, 1), Some(0));
    assert_eq!((muffle.tell(start, 1), muffle.tell(start, 1), muffle.tell(start, 2)), (None, None, Some(0)));
    assert_eq!(muffle.tell(start + PAUSE, 1), Some(2));
    muffle.forget(|news| *news == 1);
    assert_eq!(muffle.tell(start + PAUSE, 1), Some(0));
    for news in 0..10_000 {
        muffle.tell(start, news);
        assert!(muffle.0.len() <= NEWS_MAX);
    }
}
