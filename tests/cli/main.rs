//! The program itself: real processes, real files, real restarts.
//!
//! `process` runs them; the other files are one topic each.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod backup;
mod etcdctl;
mod jwt;
mod node;
#[path = "../cluster/port.rs"]
mod port;
mod process;
mod settings;
mod snapshot;
mod supervised;
mod tls;
