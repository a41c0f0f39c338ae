//! What a learner that has caught up tells everybody: what a voter would, method by method.

#[path = "../api/auth_matrix/asking.rs"]
mod asking;
#[path = "../api/auth_matrix/table.rs"]
mod table;

use covey::wire::etcdserverpb as pb;
use pb::lease_client::LeaseClient;
use smol::block_on;
use tonic::Code;

use self::asking::{call, outcome};
use self::table::{LEASE, Row, table};
use crate::client::{channel, kv_client};
use crate::members::add;
use crate::process::{Cluster, Host, until};
use crate::users::{meet, read, try_log_in};

/// As the table has them.
fn enable(host: &Host) {
    for (role, kind) in [("reads", "read"), ("writes", "write")] {
        host.must(&["role", "add", role]);
        host.must(&["role", "grant-permission", role, kind, "k/", "k0"]);
    }
    for (user, role) in
        [("nothing", None), ("reader", Some("reads")), ("writer", Some("writes")), ("root", Some("root"))]
    {
        host.must(&["user", "add", &format!("{user}:{user}")]);
        if let Some(role) = role {
            host.must(&["user", "grant-role", user, role]);
        }
    }
    host.must(&["put", "k/1", "v"]);
    block_on(async {
        let grant = pb::LeaseGrantRequest { ttl: 600, id: LEASE };
        LeaseClient::new(channel(host).await.unwrap()).lease_grant(grant).await.unwrap();
        let put = pb::PutRequest { key: "k/leased".into(), lease: LEASE, ..Default::default() };
        kv_client(host).await.unwrap().put(put).await.unwrap();
    });
    host.must(&["auth", "enable"]);
}

/// In the table's first column.
const ROOT: usize = 7;

/// The table as of a member that is not alone and does not lead.
fn table_here() -> Vec<Row> {
    let mut table = table();
    // The operator's own service knows of the box, and nobody has asked for reflection.
    table.retain(|(path, ..)| !path.starts_with("covey.") && !path.starts_with("grpc.reflection."));
    for (path, _, _, answer) in &mut table {
        match *path {
            "etcdserverpb.Maintenance/MoveLeader" => {
                *answer = (Code::FailedPrecondition, "etcdserver: not leader");
            }
            "etcdserverpb.Cluster/MemberPromote" => {
                *answer = (Code::NotFound, "etcdserver: member not found");
            }
            _ => {}
        }
    }
    table
}

#[test]
fn a_learner_that_has_caught_up_tells_everybody_what_a_voter_does() {
    let mut cluster = Cluster::start(1);
    let new = cluster.add_host();
    add(&cluster, new, true).unwrap();
    enable(&cluster.hosts[0]);
    let initial = cluster.initial();
    cluster.hosts[new].start(&["--initial-cluster", &initial, "--initial-cluster-state", "existing"]);
    let learner = &cluster.hosts[new];
    until("it has caught up", || {
        read(learner, &try_log_in(&cluster.hosts[0], "reader").ok()?, "k/1", false).ok()
    });
    meet(&cluster.hosts, "reader");
    let token = |user| Some(until("a login", || try_log_in(learner, user).ok()));
    let callers = [
        (0, None),
        (1, Some("none.1".to_owned())),
        (3, token("nothing")),
        (4, token("reader")),
        (5, token("writer")),
        (ROOT, token("root")),
    ];
    let mut wrong = Vec::new();
    block_on(async {
        let channel = channel(learner).await.unwrap();
        for row in &table_here() {
            for (place, token) in &callers {
                let expected = row.2.chars().nth(*place).unwrap();
                let token = token.as_deref().map(|token| ("token", token));
                let status = call(&channel, row, token.as_slice(), expected == '.').await;
                let found = outcome(row, &status);
                if found != expected {
                    wrong.push(format!("{} {place}: {found} instead of {expected}: {status:?}", row.0));
                }
            }
        }
    });
    assert_eq!(wrong, Vec::<String>::new());
}
