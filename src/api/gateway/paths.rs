//! The paths of the JSON gateway (API reference, section 10).
//!
//! Owns: which method each stands for. Must never: name a method that etcd's gateway does not have: the operator's own service is not for it.
//! Asked by `gateway`.

use crate::wire::etcdserverpb::{
    auth_server, cluster_server, kv_server, lease_server, maintenance_server, watch_server,
};
use crate::wire::v3electionpb::election_server;
use crate::wire::v3lockpb::lock_server;

/// What all of them begin with, ...
pub const PREFIX: &str = "/v3/";
/// ... and what etcd takes for the same.
pub const OLD_PREFIX: &str = "/v3beta/";

/// A path behind the prefix, and service and method.
type Path = (&'static str, &'static str, &'static str);

/// Every path.
pub const PATHS: [Path; 51] = [
    ("kv/range", kv_server::SERVICE_NAME, "Range"),
    ("kv/put", kv_server::SERVICE_NAME, "Put"),
    ("kv/deleterange", kv_server::SERVICE_NAME, "DeleteRange"),
    ("kv/txn", kv_server::SERVICE_NAME, "Txn"),
    ("kv/compaction", kv_server::SERVICE_NAME, "Compact"),
    ("watch", watch_server::SERVICE_NAME, "Watch"),
    ("lease/grant", lease_server::SERVICE_NAME, "LeaseGrant"),
    ("lease/revoke", lease_server::SERVICE_NAME, "LeaseRevoke"),
    ("kv/lease/revoke", lease_server::SERVICE_NAME, "LeaseRevoke"),
    ("lease/keepalive", lease_server::SERVICE_NAME, "LeaseKeepAlive"),
    ("lease/timetolive", lease_server::SERVICE_NAME, "LeaseTimeToLive"),
    ("kv/lease/timetolive", lease_server::SERVICE_NAME, "LeaseTimeToLive"),
    ("lease/leases", lease_server::SERVICE_NAME, "LeaseLeases"),
    ("kv/lease/leases", lease_server::SERVICE_NAME, "LeaseLeases"),
    ("cluster/member/add", cluster_server::SERVICE_NAME, "MemberAdd"),
    ("cluster/member/remove", cluster_server::SERVICE_NAME, "MemberRemove"),
    ("cluster/member/update", cluster_server::SERVICE_NAME, "MemberUpdate"),
    ("cluster/member/list", cluster_server::SERVICE_NAME, "MemberList"),
    ("cluster/member/promote", cluster_server::SERVICE_NAME, "MemberPromote"),
    ("maintenance/alarm", maintenance_server::SERVICE_NAME, "Alarm"),
    ("maintenance/status", maintenance_server::SERVICE_NAME, "Status"),
    ("maintenance/defragment", maintenance_server::SERVICE_NAME, "Defragment"),
    ("maintenance/hash", maintenance_server::SERVICE_NAME, "Hash"),
    ("maintenance/hashkv", maintenance_server::SERVICE_NAME, "HashKV"),
    ("maintenance/snapshot", maintenance_server::SERVICE_NAME, "Snapshot"),
    ("maintenance/transfer-leadership", maintenance_server::SERVICE_NAME, "MoveLeader"),
    ("maintenance/downgrade", maintenance_server::SERVICE_NAME, "Downgrade"),
    ("auth/enable", auth_server::SERVICE_NAME, "AuthEnable"),
    ("auth/disable", auth_server::SERVICE_NAME, "AuthDisable"),
    ("auth/status", auth_server::SERVICE_NAME, "AuthStatus"),
    ("auth/authenticate", auth_server::SERVICE_NAME, "Authenticate"),
    ("auth/user/add", auth_server::SERVICE_NAME, "UserAdd"),
    ("auth/user/get", auth_server::SERVICE_NAME, "UserGet"),
    ("auth/user/list", auth_server::SERVICE_NAME, "UserList"),
    ("auth/user/delete", auth_server::SERVICE_NAME, "UserDelete"),
    ("auth/user/changepw", auth_server::SERVICE_NAME, "UserChangePassword"),
    ("auth/user/grant", auth_server::SERVICE_NAME, "UserGrantRole"),
    ("auth/user/revoke", auth_server::SERVICE_NAME, "UserRevokeRole"),
    ("auth/role/add", auth_server::SERVICE_NAME, "RoleAdd"),
    ("auth/role/get", auth_server::SERVICE_NAME, "RoleGet"),
    ("auth/role/list", auth_server::SERVICE_NAME, "RoleList"),
    ("auth/role/delete", auth_server::SERVICE_NAME, "RoleDelete"),
    ("auth/role/grant", auth_server::SERVICE_NAME, "RoleGrantPermission"),
    ("auth/role/revoke", auth_server::SERVICE_NAME, "RoleRevokePermission"),
    ("lock/lock", lock_server::SERVICE_NAME, "Lock"),
    ("lock/unlock", lock_server::SERVICE_NAME, "Unlock"),
    ("election/campaign", election_server::SERVICE_NAME, "Campaign"),
    ("election/proclaim", election_server::SERVICE_NAME, "Proclaim"),
    ("election/leader", election_server::SERVICE_NAME, "Leader"),
    ("election/observe", election_server::SERVICE_NAME, "Observe"),
    ("election/resign", election_server::SERVICE_NAME, "Resign"),
];

/// What is behind the prefix of the gateway's paths; `None` for any other path.
pub fn behind_prefix(path: &str) -> Option<&str> {
    path.strip_prefix(PREFIX).or_else(|| path.strip_prefix(OLD_PREFIX))
}

/// Service and method of what is behind the prefix.
pub fn method_of(path: &str) -> Option<(&'static str, &'static str)> {
    PATHS.iter().find(|each| each.0 == path).map(|(_, service, method)| (*service, *method))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::schema::schema;

    #[test]
    fn every_path_stands_for_a_method() {
        for (path, service, method) in PATHS {
            assert!(schema().method(service, method).is_some(), "{path}");
            assert_eq!(method_of(path), Some((service, method)), "{path}");
        }
        assert_eq!(behind_prefix("/v3/kv/range").and_then(method_of), Some(("etcdserverpb.KV", "Range")));
        assert_eq!(behind_prefix("/v3beta/kv/range"), Some("kv/range"));
        for path in ["/v3", "/v3alpha/kv/range", "/v2/keys", "v3/kv/range", "/"] {
            assert_eq!(behind_prefix(path), None, "{path}");
        }
        assert_eq!(method_of("kv/range/"), None);
    }
}
