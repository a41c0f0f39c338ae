//! Clusters of real processes on loopback.
//!
//! Owns: what several members do together, seen from outside. Must never: run as anything but processes of the program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod alone;
mod basics;
#[path = "../api/channel.rs"]
mod channel;
mod client;
mod clocks;
mod copies;
mod disk;
mod fingerprints;
mod full;
mod gaps;
mod histories;
mod lan;
mod lessons;
mod linear;
mod load;
mod lost;
mod matrix;
mod members;
mod memory;
mod memory_group;
mod mixin;
mod port;
mod process;
mod recover;
mod restore;
mod revisions;
mod silence;
mod slow_disk;
mod small_disk;
mod states;
mod tokens;
mod upgrade;
mod users;
mod watch;
mod wear;
