//! What each method takes of whoever calls it, while authentication is on (API reference, section 6.3).
//!
//! Owns: the table. Must never: let a method through that is not in it: that takes root. Driven by `dispatch`, before a service sees the call.

use tonic::Status;

use super::credentials::Credentials;
use super::dispatch::Whence;
use super::node::Node;
use super::reflection;
use crate::wire::covey::v1::admin_server;
use crate::wire::etcdserverpb::{
    auth_server, cluster_server, kv_server, lease_server, maintenance_server, watch_server,
};
use crate::wire::grpc::health::v1::health_server;
use crate::wire::v3electionpb::election_server;
use crate::wire::v3lockpb::lock_server;

/// What a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: anybody may.
    Nothing,
    /// To be somebody.
    User,
    /// The role root.
    Root,
    /// That depends on what is asked for: the service looks.
    ByRequest,
    /// To be somebody, or on this machine, whose operator has its disk anyway.
    UserOrHere,
}

/// What a method takes.
pub fn needs(service: &str, method: &str) -> Needs {
    match (service, method) {
        (kv_server::SERVICE_NAME, "Range" | "RangeStream" | "Put" | "DeleteRange" | "Txn")
        | (
            watch_server::SERVICE_NAME
            | lease_server::SERVICE_NAME
            | lock_server::SERVICE_NAME
            | election_server::SERVICE_NAME,
            _,
        )
        // Of alarms that are raised anybody may ask who is somebody.
        | (maintenance_server::SERVICE_NAME, "Alarm")
        | (auth_server::SERVICE_NAME, "UserGet" | "RoleGet") => Needs::ByRequest,
        // What there is to call is in the published source.
        (health_server::SERVICE_NAME | reflection::V1 | reflection::V1ALPHA, _)
        | (auth_server::SERVICE_NAME, "Authenticate" | "AuthStatus") => Needs::Nothing,
        (cluster_server::SERVICE_NAME, "MemberList") | (maintenance_server::SERVICE_NAME, "Status") => Needs::User,
        // What changes something, or gives something away, is for the operator of a box alone: see `admin`.
        (admin_server::SERVICE_NAME, _) => Needs::UserOrHere,
        _ => Needs::Root,
    }
}

/// Refuses a call that its caller may not make, whatever it asks for.
pub async fn admit(
    node: &Node,
    service: &str,
    method: &str,
    credentials: &Credentials,
    whence: Whence,
) -> Result<(), Status> {
    match needs(service, method) {
        Needs::Nothing | Needs::ByRequest => Ok(()),
        Needs::UserOrHere if whence == Whence::Here => Ok(()),
        Needs::User | Needs::UserOrHere => node.require_user(credentials).await,
        Needs::Root => node.require_root(credentials).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::methods;

    /// A method that is added takes root until somebody has thought about it.
    #[test]
    fn what_takes_less_than_root_is_listed() {
        let less = |needs: Needs| {
            let listed =
                methods(true).filter(move |method| self::needs(method.service, method.method) == needs);
            listed.map(|method| method.method).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            less(Needs::Nothing),
            "AuthStatus Authenticate Check Watch ServerReflectionInfo ServerReflectionInfo"
        );
        assert_eq!(less(Needs::User), "MemberList Status");
        assert_eq!(
            less(Needs::ByRequest),
            "Range RangeStream Put DeleteRange Txn LeaseGrant LeaseRevoke LeaseKeepAlive LeaseTimeToLive LeaseLeases Watch \
             Alarm UserGet RoleGet Lock Unlock Campaign Proclaim Leader Observe Resign"
        );
        assert_eq!(needs("etcdserverpb.KV", "Compact"), Needs::Root);
        assert_eq!(needs("etcdserverpb.KV", "Frob"), Needs::Root);
        assert_eq!(needs("another.Service", "Range"), Needs::Root);
    }
}
