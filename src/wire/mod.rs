//! The messages and services of the client API, generated from `proto/` by `proto/build.rs`.
//!
//! It owns the shapes on the wire and nothing else: no rule about what a value means is written here,
//! and no type from here goes further in than the edge (`api`, and the command line's client). Each
//! module is one protobuf package, laid out so that the generated `super::` paths resolve.
//!
//! All `bytes` fields are [`bytes::Bytes`]: cloning a key or a value counts a reference. Enum fields
//! are plain `i32`, because a peer may send a number that nobody has defined; `try_from` judges it.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code follows no house rule"
)]

/// Every file of `proto/`, compiled, with the field names as they are in JSON (`peerURLs`, `ID`).
/// An encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `KV`, `Watch`, `Lease`, `Cluster`, `Maintenance` and `Auth`.
pub mod etcdserverpb {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

/// Pairs and events.
pub mod mvccpb {
    include!(concat!(env!("OUT_DIR"), "/mvccpb.rs"));
}

/// Users, roles and permissions.
pub mod authpb {
    include!(concat!(env!("OUT_DIR"), "/authpb.rs"));
}

/// Locks kept by the server.
pub mod v3lockpb {
    include!(concat!(env!("OUT_DIR"), "/v3lockpb.rs"));
}

/// Elections kept by the server.
pub mod v3electionpb {
    include!(concat!(env!("OUT_DIR"), "/v3electionpb.rs"));
}

/// covey's own: what operators ask and tell.
pub mod covey {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/covey.v1.rs"));
    }
}

/// The health service of gRPC; the nesting repeats its package name.
pub mod grpc {
    pub mod health {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::{FILE_DESCRIPTOR_SET, covey, etcdserverpb, grpc, v3electionpb, v3lockpb};

    /// The build renames these fields for Rust; number and type must have survived.
    #[test]
    fn renamed_fields_keep_their_numbers() {
        let member = etcdserverpb::Member {
            peer_urls: vec!["p".to_owned()],
            client_urls: vec!["c".to_owned()],
            ..Default::default()
        };
        assert_eq!(member.encode_to_vec(), b"\x1a\x01p\x22\x01c");
    }

    /// A reader of JSON knows the wire names, so the descriptors must not know the Rust ones.
    #[test]
    fn descriptors_have_the_wire_names() {
        let contains = |name: &[u8]| FILE_DESCRIPTOR_SET.windows(name.len()).any(|window| window == name);
        assert!(contains(b"peerURLs") && contains(b"clientURLs") && contains(b"grantedTTL"));
        assert!(!contains(b"peer_urls") && !contains(b"client_urls"));
    }

    /// 64 takes a two-byte tag; the rest of the table is compared outside, by `tests/proto`.
    #[test]
    fn compare_has_its_late_field() {
        let compare =
            etcdserverpb::Compare { range_end: bytes::Bytes::from_static(b"e"), ..Default::default() };
        assert_eq!(compare.encode_to_vec(), b"\x82\x04\x01e");
    }

    #[test]
    fn services_have_their_paths() {
        let names = [
            etcdserverpb::kv_server::SERVICE_NAME,
            etcdserverpb::watch_server::SERVICE_NAME,
            etcdserverpb::lease_server::SERVICE_NAME,
            etcdserverpb::cluster_server::SERVICE_NAME,
            etcdserverpb::maintenance_server::SERVICE_NAME,
            etcdserverpb::auth_server::SERVICE_NAME,
            v3lockpb::lock_server::SERVICE_NAME,
            v3electionpb::election_server::SERVICE_NAME,
            grpc::health::v1::health_server::SERVICE_NAME,
            covey::v1::admin_server::SERVICE_NAME,
        ];
        let expected = "etcdserverpb.KV etcdserverpb.Watch etcdserverpb.Lease etcdserverpb.Cluster \
                        etcdserverpb.Maintenance etcdserverpb.Auth v3lockpb.Lock \
                        v3electionpb.Election grpc.health.v1.Health covey.v1.Admin";
        assert_eq!(names.join(" "), expected);
    }
}
