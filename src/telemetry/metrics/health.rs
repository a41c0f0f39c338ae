//! What is counted about the checks of `/livez` and `/readyz`.
//!
//! Owns: the list of checks, by their names on the wire. Must never: know what a check looks at. Counted by `api`, shown by `render`.

use super::{Counter, Gauge};

/// One check, as etcd 3.6 has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// Of `/livez`: this member's own copy can be read.
    Live,
    /// No member's data are known to be wrong.
    DataCorruption,
    /// What this member has applied can be read.
    SerializableRead,
    /// A read that a majority has confirmed works.
    LinearizableRead,
    /// This member serves everything.
    NonLearner,
}

impl HealthCheck {
    /// All of them; each stands at its own number.
    pub const ALL: [Self; 5] =
        [Self::Live, Self::DataCorruption, Self::SerializableRead, Self::LinearizableRead, Self::NonLearner];

    /// The page that it belongs to.
    pub fn page(self) -> &'static str {
        match self {
            Self::Live => "livez",
            Self::DataCorruption | Self::SerializableRead | Self::LinearizableRead | Self::NonLearner => {
                "readyz"
            }
        }
    }

    /// What it is called on that page.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live | Self::SerializableRead => "serializable_read",
            Self::DataCorruption => "data_corruption",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }
}

/// What is counted about one check.
#[derive(Debug, Default)]
pub struct HealthCheckMetrics {
    /// How often it has passed.
    pub(super) passed: Counter,
    /// How often it has not.
    pub(super) failed: Counter,
    /// Whether it did the last time: 1 is yes.
    pub(super) last: Gauge,
}

impl HealthCheckMetrics {
    /// Counts one time that it was looked.
    pub fn note(&self, passed: bool) {
        let counter = if passed { &self.passed } else { &self.failed };
        counter.add(1);
        self.last.set(u64::from(passed));
    }

    /// How often it has passed, and how often not.
    pub fn counts(&self) -> (u64, u64) {
        (self.passed.value(), self.failed.value())
    }
}
