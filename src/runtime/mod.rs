//! Where the deterministic core meets threads, clocks and files.
//!
//! Owns: the threads of a node and the queues between them, the way in for clients ([`Handle`]), the end of the process
//! after a fatal error. Must never: decide anything that the simulator should see. Driven by `app`.

mod arrivals;
mod checkpoint;
pub mod clock;
mod compare;
pub mod files;
mod handle;
mod hold;
pub mod io;
mod leader;
mod leases;
pub mod listening;
mod mailbox;
mod peers;
mod pool;
mod running;
mod slow_sync;
pub mod space;
mod threads;
mod waiters;
mod wal_writer;
mod watch;
mod whereabouts;
pub mod written;

pub use handle::{AdmissionOptions, Handle, NodeIds, NodeStatus, ServeError};
pub use hold::{Hold, HoldError};
pub use leader::HandOverError;
pub use leases::TimeToLive;
pub use mailbox::{Drained, Mailbox, Urgency};
pub use peers::PeerLink;
pub use pool::Pool;
pub use running::{Parts, Running};
pub use threads::Fault;
pub use waiters::{Milestone, Waiters, Waiting};
pub use watch::Watching;
pub use whereabouts::{Lost, Whereabouts};
