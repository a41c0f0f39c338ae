//! covey: an etcd-compatible store whose boxes form a cluster by themselves.
//!
//! The modules stand in rank order: each imports only from those above it. `ARCHITECTURE.md` beside this file is the map.

#![forbid(unsafe_code)]

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("planted bugs are for the simulator's own tests");

// R0: values
pub mod ids;
pub mod limits;
pub mod planted;
pub mod prng;
pub mod time;
// R1: what crosses the wire and the log
pub mod auth;
pub mod command;
pub mod wire;
// R2: the disk
pub mod disk;
pub mod store;
pub mod wal;
// R3: the state
pub mod lease;
pub mod machine;
pub mod mvcc;
pub mod snapshot;
pub mod watch;
// R4: agreement
pub mod consensus;
pub mod formation;
// R5: a whole member
pub mod node;
// ---- the determinism line ----
// R6: what every thread reports to
pub mod telemetry;
// R7: threads, clocks, files
pub mod runtime;
// R8: the edge
pub mod api;
pub mod discovery;
pub mod peer;
pub mod tls;
// R9: settings and the process
pub mod app;
pub mod config;
// R10: the command line
pub mod cli;
