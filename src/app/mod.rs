//! Builds a node from its settings, runs it and drains it.
//!
//! Owns: the order in which the parts come up and go down. Must never: hold logic that a part could hold. Driven by `main`.

mod auto_compaction;
mod data_dir;
mod metrics;
mod resources;
mod serve;

pub use data_dir::{DataDir, OpenError, OpenOptions};
pub use serve::{ServeFailure, serve};
