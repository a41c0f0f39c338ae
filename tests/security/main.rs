//! Who reaches what with which credential, and what intruders can do to a cluster, on real sockets.
//!
//! Owns: the view of whoever must not get in. Must never: use `peer` for the intruder's side: what it refuses to send has to be sent here; or
//! listen, outside of namespaces that the tests made, anywhere but on the loopback. What needs namespaces is run by `.ci/run zero`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../peer/anybody.rs"]
mod anybody;
#[path = "../api/around.rs"]
mod around;
#[path = "../api/channel.rs"]
#[allow(dead_code, reason = "another binary uses the rest")]
mod channel;
#[path = "../cluster/disk.rs"]
mod disk;
#[path = "../api/harness.rs"]
#[allow(dead_code, reason = "another binary uses the rest")]
mod harness;
#[path = "../zero/lan.rs"]
#[allow(dead_code, reason = "another binary uses the rest")]
mod lan;
#[path = "../cluster/port.rs"]
mod port;

mod authority;
mod boxes;
mod clients;
mod clones;
mod flood;
mod hostile;
mod joining;
mod networks;
mod nodes;
mod operator;
mod orders;
mod secrets;
mod wire;
