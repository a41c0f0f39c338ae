//! The simulator: whole members, as they are below the determinism line, among simulated disks, networks, clients and faults, on one thread
//! and in virtual time, all from one seed.
//!
//! Owns: which seeds run where. Must never: run anything above the line. Driven by `cargo test --test sim`, and by `cargo sim` for as long as one
//! likes.
//!
//! ```text
//! cargo sim 10000          ten thousand seeds from a seed of their own
//! cargo sim seed=17        one seed, and what happened in it
//! ```

// The model of `machine` says `crate::command`, as it does at home.
#[cfg(test)]
use covey::{command, ids};

#[cfg(test)]
mod crash_points;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod gather;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod member;
#[cfg(test)]
#[path = "../../src/machine/model.rs"]
mod model;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod places;
mod plan;
#[cfg(all(test, feature = "planted"))]
mod planted;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod rot;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod votes;
#[cfg(test)]
mod workload;
#[cfg(test)]
mod world;
