//! The transport between members over real UDP on the loopback, through its public interface.
//!
//! Owns: what two and more nodes do with each other, and with strangers that speak QUIC by hand. Must never: listen anywhere but on the
//! loopback, or on a port that it was not given by the system.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "figures are printed")]
#![allow(clippy::disallowed_methods, reason = "the tests measure real time, and let some pass")]

mod anybody;
mod bulk;
mod connect;
mod costs;
mod forming;
mod harness;
mod initial;
mod refuse;
mod stranger;
