//! Clusters of real processes on loopback.
//!
//! Owns: what several members do together, seen from outside. Must never: run as anything but processes of the program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod alone;
mod basics;
#[path = "../api/channel.rs"]
#[expect(dead_code, reason = "some of it is for other tests")]
mod channel;
mod client;
mod copies;
mod disk;
mod fingerprints;
mod gaps;
mod histories;
mod lan;
mod lessons;
mod linear;
mod load;
mod members;
mod process;
mod recover;
mod revisions;
mod silence;
mod states;
mod watch;
