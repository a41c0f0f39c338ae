//! Which etcd this server says it is.
//!
//! Owns: the version numbers that clients see. Must never: change without a look at API reference, sections 5.1 and 17: Kubernetes switches
//! features off by them. Read by `maintenance` and `http`.

/// The server version: plain semver, in the 3.6 line, whose API is served.
pub const SERVER: &str = "3.6.14";
/// The cluster version: what all members of a cluster agree on.
pub const CLUSTER: &str = "3.6.0";
/// The version of the stored data's schema, as etcd counts it.
pub const STORAGE: &str = "3.6.0";
