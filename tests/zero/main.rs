//! Boxes without any configuration, as processes on networks of their own: real mDNS, real UDP.
//!
//! Owns: what boxes do that find each other, seen from outside. Must never: speak mDNS on an interface of the machine: every box is in a namespace
//! that the test made. Needs root; run by `.ci/run zero`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod builds;
mod forming;
mod idle;
#[allow(dead_code, reason = "another binary uses the rest")]
mod lan;
mod meeting;
mod moves;
mod operator;
