//! What an operator sees of a running node: log lines and metrics.
//!
//! Owns: the log format, the forwarding of raft's log, what was logged last, the panic hook, the registry of metrics and its text form. Must
//! never: decide anything, or block for longer than a write to stderr. `app` starts it; every room above the determinism
//! line logs through `tracing`, and the rooms that do the work count into [`metrics::Metrics`].

mod listed;
mod log;
pub mod metrics;
mod muffle;
mod panic;
mod raft_log;
mod recent;
mod timestamp;

pub use listed::Listed;
pub use log::{LogFormat, LogLevel, LogSettings, init, log_level, set_log_format, set_log_level};
pub use muffle::Muffle;
pub use panic::{EXIT_STORE_DAMAGED, install_panic_hook, note_store_damage};
pub use raft_log::raft_logger;
pub use recent::{Said, recent};
