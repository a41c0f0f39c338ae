//! Builds a node from its settings, runs it and drains it.
//!
//! Owns: the order in which the parts come up and go down. Must never: hold logic that a part could hold. Driven by `main`.

mod addresses;
mod admission;
mod attend;
mod auto_compaction;
mod backup;
mod certificates;
mod charter;
mod compare;
mod data_dir;
mod encounters;
mod examine;
mod fates;
mod fingerprint;
mod forming;
mod gather;
mod hardware;
mod idle;
mod image_file;
mod lan;
mod lately;
mod listeners;
mod metrics;
mod operator;
mod peers;
mod prepare_image;
mod recover;
mod reload;
mod resources;
mod restore;
mod schedule;
mod serve;
mod staggered;
mod supervisor;

use std::error::Error;

pub use data_dir::{DataDir, FreshDir, OpenError, OpenOptions, Opened, WhenFresh};
pub use examine::{DataDirFindings, Findings, examine};
pub use fingerprint::{FingerprintFailure, Known, node_fingerprint};
pub use image_file::{FileError, HashCheck, ImageFile, ImageSummary};
pub use prepare_image::{Scrub, ScrubError};
pub use recover::{Finding, Recovery, RecoveryError};
pub use restore::{RestoreError, RestoreOptions, Restored, restore};
pub use serve::{ServeFailure, serve};

/// An error with all its causes, as one sentence.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some errors repeat their cause in their own text.
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
