//! The client API of a running node, asked over real sockets by a client of its own.
//!
//! `harness` starts a node and speaks to it; the other files are one topic each.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod admin;
mod answers;
mod around;
mod channel;
mod client_keys;
mod delete_memory;
mod faults;
mod foreign;
mod harness;
mod keepalive;
mod kube;
mod kv;
mod lease;
mod limits;
mod maintenance;
mod plain;
mod recipes;
mod services;
mod snapshot;
mod tls;
mod watch;
mod watch_load;
mod watch_memory;
mod watcher;
