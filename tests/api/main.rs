//! The client API of a running node, asked over real sockets by a client of its own.
//!
//! `harness` starts a node and speaks to it; the other files are one topic each.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod admin;
mod answers;
mod around;
mod auth;
mod auth_lasting;
mod auth_matrix;
mod channel;
mod client_keys;
mod delete_memory;
mod faults;
mod foreign;
mod gateway;
mod harness;
mod keepalive;
mod kube;
mod kv;
mod lease;
mod limits;
mod maintenance;
mod page;
mod plain;
mod recipes;
mod reflection;
mod services;
mod snapshot;
mod tls;
mod watch;
mod watch_load;
mod watch_memory;
mod watcher;
