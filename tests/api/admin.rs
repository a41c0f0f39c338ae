//! The operator's service: what it shows, and to whom it listens.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use covey::api::{AllPending, ClusterBeside, ComesIn, PendingNode, SeenNode};
use covey::command::{self, CharterCommand};
use covey::formation::{Fingerprint, JoinToken};
use covey::ids::ClusterId;
use covey::limits::{
    AUTHORITY_OVERLAP_SECONDS as OVERLAP, PENDING_NODES_SHOWN_MAX as SHOWN, PENDING_ROUNDS_MAX as ROUNDS,
};
use covey::wire::covey::v1 as pb;
use covey::wire::covey::v1::admin_client::AdminClient;
use smol::Async;
use tonic::Code;

use crate::around::Around;
use crate::client_keys::Cluster;
use crate::harness::{Channel, Server, Setup, is, run, until};

fn pending(digit: u8) -> PendingNode {
    PendingNode {
        fingerprint: Fingerprint::from_bytes([digit; 32]),
        name: format!("box{digit}"),
        peer_urls: vec!["https://10.0.0.9:2380".into()],
        asked: Duration::from_secs(3),
    }
}

async fn with(around: Around) -> Server {
    Server::with(Setup { host: Arc::new(around), ..Setup::default() }).await
}

async fn issue(client: &mut AdminClient<Channel>, name: &str) -> Result<pb::ClientIssueResponse, Code> {
    let request = pb::ClientIssueRequest { name: name.into() };
    client.client_issue(request).await.map(tonic::Response::into_inner).map_err(|status| status.code())
}

/// The code of each call's answer, in the order of the service.
async fn codes(client: &mut AdminClient<Channel>) -> Vec<(&'static str, Code)> {
    fn code<T>(answer: Result<T, tonic::Status>) -> Code {
        answer.map_or_else(|status| status.code(), |_| Code::Ok)
    }
    let (id, name) = ("00".repeat(8), "nobody".to_owned());
    let approve = pb::NodeApproveRequest { fingerprint: "77".repeat(32) };
    let log_level = |level: &str| pb::LogLevelRequest { level: level.to_owned() };
    vec![
        ("Status", code(client.status(pb::StatusRequest {}).await)),
        ("TokenList", code(client.token_list(pb::TokenListRequest {}).await)),
        ("NodePending", code(client.node_pending(pb::NodePendingRequest {}).await)),
        ("ClientList", code(client.client_list(pb::ClientListRequest {}).await)),
        ("LogLevel", code(client.log_level(log_level("")).await)),
        ("LogLevel debug", code(client.log_level(log_level("debug")).await)),
        ("TokenCreate", code(client.token_create(pb::TokenCreateRequest { seconds: 600 }).await)),
        ("TokenRevoke", code(client.token_revoke(pb::TokenRevokeRequest { id }).await)),
        ("NodeApprove", code(client.node_approve(approve).await)),
        ("WindowOpen", code(client.window_open(pb::WindowOpenRequest { seconds: 600 }).await)),
        ("WindowClose", code(client.window_close(pb::WindowCloseRequest {}).await)),
        ("GiveUp", code(client.give_up(pb::GiveUpRequest { cluster: 7 }).await)),
        ("ClientIssue", code(client.client_issue(pb::ClientIssueRequest { name: name.clone() }).await)),
        ("ClientRevoke", code(client.client_revoke(pb::ClientRevokeRequest { name: name.clone() }).await)),
        ("ClientRenew", code(client.client_renew(pb::ClientRenewRequest { name }).await)),
    ]
}

/// How many of the calls above only look.
const LOOKS: usize = 5;

#[test]
fn the_operator_of_the_box_may_do_everything() {
    run(async {
        let server = Server::start().await;
        let mut client = AdminClient::new(server.channel().await);
        // What is refused is refused for what it says: this cluster did not form by itself, and there is no such token or client.
        for (call, code) in codes(&mut client).await {
            let expected = match call {
                "TokenRevoke" | "ClientRevoke" | "ClientRenew" => Code::NotFound,
                "WindowOpen" | "GiveUp" | "ClientIssue" => Code::FailedPrecondition,
                _ => Code::Ok,
            };
            assert_eq!(code, expected, "{call}");
        }
    });
}

/// A client with a certificate may be anywhere, and a certificate is no right to change whom the cluster trusts.
#[test]
fn a_client_with_a_certificate_may_look_and_change_nothing() {
    run(async {
        let cluster = Cluster::new();
        let server = cluster.serve().await;
        let channel = cluster.channel(&server, &cluster.issue("good")).await;
        let codes = codes(&mut AdminClient::new(channel)).await;
        let (looks, changes) = codes.split_at(LOOKS);
        for (call, code) in looks {
            assert_eq!(*code, Code::Ok, "{call}");
        }
        for (call, code) in changes {
            assert_eq!(*code, Code::PermissionDenied, "{call}");
        }
        let charter = server.handle.view().facts().charter.clone();
        assert!(charter.tokens.is_empty() && charter.approved.is_empty() && charter.clients.is_empty());
    });
}

/// A listener for plain text from anywhere does not make an operator of whoever comes to another address of the box.
#[test]
fn plain_text_to_an_address_that_others_reach_may_change_nothing() {
    run(async {
        let server = Server::start().await;
        let Some((address, accepting)) = server.listen_to_anybody() else { return };
        let stream = Async::<TcpStream>::connect(address).await.unwrap();
        let codes = codes(&mut AdminClient::new(Channel::over(stream).await.unwrap())).await;
        for (call, code) in &codes[LOOKS..] {
            assert_eq!(*code, Code::PermissionDenied, "{call}");
        }
        accepting.cancel().await;
    });
}

#[test]
fn a_token_is_shown_once_and_known_by_its_id() {
    run(async {
        let server = Server::start().await;
        let mut client = AdminClient::new(server.channel().await);
        let made = client.token_create(pb::TokenCreateRequest { seconds: 600 }).await.unwrap().into_inner();
        let token: JoinToken = made.token.parse().unwrap();
        let kept = server.handle.view().facts().charter.tokens.clone();
        assert_eq!((kept.len(), kept[0].id, kept[0].key), (1, token.id(), token.key()));
        let other = client.token_create(pb::TokenCreateRequest { seconds: 60 }).await.unwrap().into_inner();
        assert_ne!(made.token, other.token);
        let listed = client.token_list(pb::TokenListRequest {}).await.unwrap().into_inner().tokens;
        let listed: Vec<_> = listed.iter().map(|token| (&token.id[..], token.seconds)).collect();
        assert_eq!(listed, [(&made.id[..], 600), (&other.id[..], 60)]);
        client.token_revoke(pb::TokenRevokeRequest { id: made.id }).await.unwrap();
        assert_eq!(server.handle.view().facts().charter.tokens.len(), 1);
        let forever = client.token_create(pb::TokenCreateRequest { seconds: u64::MAX }).await.unwrap_err();
        assert_eq!(forever.code(), Code::InvalidArgument);
    });
}

/// It would be carried to a box, and let nobody in.
#[test]
fn no_token_is_made_where_none_lets_anybody_in() {
    run(async {
        let server = with(Around { comes_in: ComesIn::BySecret, ..Around::default() }).await;
        let mut client = AdminClient::new(server.channel().await);
        let made = client.token_create(pb::TokenCreateRequest { seconds: 600 }).await.unwrap_err();
        assert_eq!(made.code(), Code::FailedPrecondition);
        assert!(made.message().contains("by the cluster's secret"), "{}", made.message());
        let closed = client.window_close(pb::WindowCloseRequest {}).await.unwrap_err();
        assert_eq!(closed.code(), Code::FailedPrecondition);
        assert!(server.handle.view().facts().charter.tokens.is_empty());
        let server = with(Around { comes_in: ComesIn::ByNothing, ..Around::default() }).await;
        let mut client = AdminClient::new(server.channel().await);
        client.token_create(pb::TokenCreateRequest { seconds: 600 }).await.unwrap();
        let opened = client.window_open(pb::WindowOpenRequest { seconds: 600 }).await.unwrap_err();
        assert!(opened.message().contains("--trust locked"), "{}", opened.message());
    });
}

#[test]
fn a_pending_node_is_approved_by_the_beginning_of_its_fingerprint() {
    run(async {
        let around = Around { pending: Mutex::new(vec![pending(0xa1), pending(0xa2)]), ..Around::default() };
        let server = with(around).await;
        let mut client = AdminClient::new(server.channel().await);
        let listed = client.node_pending(pb::NodePendingRequest {}).await.unwrap().into_inner().nodes;
        assert_eq!(listed.len(), 2);
        assert_eq!((&listed[1].fingerprint, listed[1].asked_seconds), (&"a2".repeat(32), 3));
        let fingerprint = "a2a2 a2a2 ".repeat(4);
        let done = client.node_approve(pb::NodeApproveRequest { fingerprint }).await.unwrap().into_inner();
        assert_eq!(done.fingerprint, "a2".repeat(32));
        assert_eq!(server.handle.view().facts().charter.approved, [[0xa2; 32]]);
        let fingerprint = "a3".repeat(16);
        let unknown = client.node_approve(pb::NodeApproveRequest { fingerprint }).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
    });
}

/// A box that is heard by another member alone, too.
#[test]
fn who_waits_at_any_member_is_shown_and_approved_at_this_one() {
    run(async {
        let elsewhere = AllPending { nodes: vec![pending(0xb1)], silent: vec!["box7".into()] };
        let around = Around {
            pending: Mutex::new(vec![pending(0xa1)]),
            elsewhere: Mutex::new(elsewhere),
            ..Around::default()
        };
        let server = with(around).await;
        let mut client = AdminClient::new(server.channel().await);
        let listed = client.node_pending(pb::NodePendingRequest {}).await.unwrap().into_inner();
        let names: Vec<&str> = listed.nodes.iter().map(|node| &node.name[..]).collect();
        assert_eq!((names, &listed.silent[..]), (vec!["box177", "box161"], &["box7".to_owned()][..]));
        let fingerprint = "b1".repeat(16);
        client.node_approve(pb::NodeApproveRequest { fingerprint }).await.unwrap();
        assert_eq!(server.handle.view().facts().charter.approved, [[0xb1; 32]]);
        let status = client.status(pb::StatusRequest {}).await.unwrap().into_inner().cluster.unwrap();
        let names: Vec<&str> = status.pending.iter().map(|node| &node.name[..]).collect();
        assert_eq!(names, ["box177", "box161"], "who waits anywhere, as the list has it");
    });
}

/// Each member may name 64, that whoever is on the LAN has made up.
#[test]
fn of_very_many_that_wait_the_last_are_shown_and_the_rest_is_counted_and_can_be_approved() {
    run(async {
        let numbered = |n: usize| PendingNode {
            fingerprint: Fingerprint::from_bytes(
                [[1; 16], (n as u128).to_be_bytes()].concat().try_into().unwrap(),
            ),
            ..pending(1)
        };
        let nodes: Vec<PendingNode> =
            [pending(0xa1)].into_iter().chain((1..SHOWN + 9).map(numbered)).collect();
        let elsewhere = Mutex::new(AllPending { nodes, silent: Vec::new() });
        let server = with(Around { elsewhere, ..Around::default() }).await;
        let mut client = AdminClient::new(server.channel().await);
        let listed = client.node_pending(pb::NodePendingRequest {}).await.unwrap().into_inner();
        assert_eq!((listed.nodes.len(), listed.left_out), (SHOWN, 9));
        let last = &listed.nodes[SHOWN - 1].fingerprint;
        assert!(last.ends_with(&format!("{:x}", SHOWN + 8)), "the last one to have asked: {last}");
        let status = client.status(pb::StatusRequest {}).await.unwrap().into_inner().cluster.unwrap();
        assert_eq!(status.pending, listed.nodes, "the same at a glance");
        let fingerprint = "a1".repeat(16);
        client.node_approve(pb::NodeApproveRequest { fingerprint }).await.unwrap();
        assert_eq!(server.handle.view().facts().charter.approved, [[0xa1; 32]]);
    });
}

/// Each of them has a question for every member wait, among those that renew leases.
#[test]
fn only_so_many_have_all_members_asked_at_a_time_and_none_from_elsewhere_is_in_the_operators_way() {
    run(async {
        let around = Arc::new(Around { elsewhere_late: true.into(), ..Around::default() });
        let cluster = Cluster::new();
        let server = cluster.serve_around(around.clone()).await;
        let looker = AdminClient::new(cluster.channel(&server, &cluster.issue("looker")).await);
        let operator = AdminClient::new(server.channel().await);
        let ask = |client: &AdminClient<Channel>| {
            let mut client = client.clone();
            smol::spawn(async move { client.node_pending(pb::NodePendingRequest {}).await })
        };
        let approve = |digits: usize| {
            let mut client = operator.clone();
            let request = pb::NodeApproveRequest { fingerprint: "a".repeat(digits) };
            smol::spawn(async move { client.node_approve(request).await.map_err(|status| status.code()) })
        };
        let mut asked = Vec::new();
        for client in [&looker, &operator] {
            let mut these: Vec<_> = (0..=ROUNDS).map(|_| ask(client)).collect();
            until("one too many is turned away", || these.iter().any(smol::Task::is_finished)).await;
            let at = these.iter().position(smol::Task::is_finished).unwrap();
            let turned_away = these.swap_remove(at).await.unwrap_err();
            is(
                &turned_away,
                Code::ResourceExhausted,
                "covey: too many ask at the moment who waits at all members: try again in a few seconds",
            );
            assert!(!these.iter().any(smol::Task::is_finished), "the others are being answered");
            asked.push(these);
        }
        assert_eq!(approve(32).await.unwrap_err(), Code::ResourceExhausted);
        approve(64).await.expect("a whole fingerprint asks nobody");
        // Those who go make room, on their side.
        around.elsewhere_late.store(false, Ordering::Relaxed);
        drop(asked.pop());
        loop {
            match approve(32).await {
                Err(Code::NotFound) => break,
                Err(Code::ResourceExhausted) => smol::Timer::after(Duration::from_millis(5)).await,
                other => panic!("{other:?}"),
            };
        }
        assert_eq!(ask(&looker).await.unwrap_err().code(), Code::ResourceExhausted);
    });
}

#[test]
fn clients_are_issued_listed_and_revoked_by_name() {
    run(async {
        let server = Server::start().await;
        let mut client = AdminClient::new(server.channel().await);
        assert_eq!(issue(&mut client, "ci").await.unwrap_err(), Code::FailedPrecondition, "no authority");
        server.handle.change_charter(CharterCommand::Establish(authority("first"))).await.unwrap();
        let issued = issue(&mut client, "ci").await.unwrap();
        assert_eq!((&issued.authority[..], &issued.key[..]), ("first", "key of ci"));
        let listed = client.client_list(pb::ClientListRequest {}).await.unwrap().into_inner().clients;
        assert_eq!((listed.len(), &listed[0].name[..], &listed[0].key), (1, "ci", &"09".repeat(32)));
        let revoke = |name: &str| pb::ClientRevokeRequest { name: name.into() };
        assert_eq!(client.client_revoke(revoke("ci")).await.unwrap().into_inner().revoked, 1);
        assert!(server.handle.view().facts().charter.clients.is_empty());
        assert_eq!(client.client_revoke(revoke("ci")).await.unwrap_err().code(), Code::NotFound);
    });
}

fn authority(certificate: &'static str) -> command::Authority {
    command::Authority { certificate: certificate.into(), key: Bytes::from_static(b"key") }
}

/// A member was removed, and what follows from that goes its way step by step, as the leader's log has it.
#[test]
fn clients_are_told_apart_by_the_authority_that_they_know_and_renewed_by_name() {
    run(async {
        let server = Server::start().await;
        let mut client = AdminClient::new(server.channel().await);
        let change = async |command| server.handle.change_charter(command).await.unwrap().outcome.unwrap();
        change(CharterCommand::Establish(authority("first"))).await;
        issue(&mut client, "ci").await.unwrap();
        let gone = covey::ids::PublicKey([7; 32]);
        let admit = |key| CharterCommand::Admit {
            key,
            name: "gone".into(),
            peer_urls: Vec::new(),
            by: command::Admission::Approval,
            run: covey::ids::Incarnation(1),
            of: None,
        };
        change(CharterCommand::Approve { fingerprint: gone.fingerprint() }).await;
        let command::Outcome::Member(id) = change(admit(gone)).await else { panic!() };
        let remove = command::MemberCommand::Remove { id, strict: false };
        server.handle.change_members(remove).await.unwrap().outcome.unwrap();
        let exposed = server.handle.view().facts().charter.exposed.unwrap();

        let renew = || pb::ClientRenewRequest { name: "ci".into() };
        assert_eq!(
            issue(&mut client, "late").await.unwrap_err(),
            Code::Unavailable,
            "it is about to be replaced"
        );
        assert_eq!(client.client_renew(renew()).await.unwrap_err().code(), Code::Unavailable);
        let counts = async |client: &mut AdminClient<Channel>| {
            let status = client.status(pb::StatusRequest {}).await.unwrap().into_inner();
            let pb::Cluster { outdated_clients, outdated_seconds, lost_clients, .. } =
                status.cluster.unwrap();
            let listed = client.client_list(pb::ClientListRequest {}).await.unwrap().into_inner().clients;
            (outdated_clients, outdated_seconds, lost_clients, listed[0].outdated, listed[0].outdated_seconds)
        };
        assert_eq!(counts(&mut client).await, (0, 0, 0, false, 0));
        let (term, bridge) = (server.handle.status().term, Bytes::from_static(b"bridge"));
        change(CharterCommand::ReplaceAuthority { term, exposed, authority: authority("second"), bridge })
            .await;
        assert_eq!(counts(&mut client).await, (1, OVERLAP, 0, true, OVERLAP));
        change(CharterCommand::Elapsed { to: 60 }).await;
        assert_eq!(counts(&mut client).await, (1, OVERLAP - 60, 0, true, OVERLAP - 60));
        change(CharterCommand::Elapsed { to: OVERLAP }).await;
        assert_eq!(counts(&mut client).await, (0, 0, 1, true, 0));
        let renewed = client.client_renew(renew()).await.unwrap().into_inner();
        assert_eq!((&renewed.authority[..], counts(&mut client).await), ("second", (0, 0, 0, false, 0)));
    });
}

#[test]
fn the_log_level_is_asked_for_and_changed_by_its_name_whatever_the_member_lacks() {
    run(async {
        let server = Server::with(Setup { joins: true, ..Setup::default() }).await;
        let mut client = AdminClient::new(server.channel().await);
        let mut level = async |level: &str| {
            let answer = client.log_level(pb::LogLevelRequest { level: level.to_owned() }).await;
            answer.map(|answer| answer.into_inner().level).map_err(|status| status.code())
        };
        assert_eq!(level("").await.as_deref(), Ok("info"));
        assert_eq!(level("debug").await.as_deref(), Ok("debug"));
        assert_eq!(level("loud").await, Err(Code::InvalidArgument));
        assert_eq!(level("").await.as_deref(), Ok("debug"), "it stays what it was");
    });
}

#[test]
fn an_order_to_give_the_cluster_up_names_the_other_one_and_a_refusal_says_what_to_type() {
    run(async {
        let beside = ClusterBeside {
            outdated: None,
            cluster: ClusterId(0xdd),
            addresses: Vec::new(),
            why: "both".into(),
            since: Duration::ZERO,
        };
        let around = Around { conflicts: Mutex::new(vec![beside]), ..Around::default() };
        let server = with(around).await;
        let mut client = AdminClient::new(server.channel().await);
        client.give_up(pb::GiveUpRequest { cluster: 0xdd }).await.unwrap();
        let refused = client.give_up(pb::GiveUpRequest { cluster: 0xee }).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        let text = "covey: this cluster is not in conflict with cluster ee: \"covey status\" names those";
        assert!(refused.message().starts_with(text), "{refused}");
    });
}

#[test]
fn the_status_is_of_the_node_and_of_all_that_is_around_it() {
    run(async {
        let at: SocketAddr = "10.0.0.9:2380".parse().unwrap();
        let seen = |digit, cluster: Option<u64>| SeenNode {
            fingerprint: Fingerprint::from_bytes([digit; 32]),
            name: format!("box{digit}"),
            addresses: vec![at],
            cluster: cluster.map(ClusterId),
        };
        let member = Fingerprint::of(&covey::ids::PublicKey([1; 32]));
        let beside = ClusterBeside {
            outdated: None,
            cluster: ClusterId(0xdd),
            addresses: vec![at],
            why: "both".into(),
            since: Duration::from_secs(5),
        };
        let around = Around {
            pending: Mutex::new(vec![pending(0xa1)]),
            conflicts: Mutex::new(vec![beside]),
            seen: Mutex::new(vec![
                SeenNode { fingerprint: member, ..seen(1, Some(0xc)) },
                seen(0xa1, None),
                seen(0xa2, None),
                seen(0xa3, Some(0xdd)),
            ]),
            other_hardware: Some("disk".into()),
            ..Around::default()
        };
        let server = with(around).await;
        let mut client = AdminClient::new(server.channel().await);
        let status = client.status(pb::StatusRequest {}).await.unwrap().into_inner();
        assert_eq!((status.up_seconds, &status.other_hardware[..]), (77, "disk"));
        let why: Vec<&str> = status.seen.iter().map(|node| &node.why[..]).collect();
        let expected =
            ["it waits for an operator's approval", "it is in no cluster yet", "it is in another cluster"];
        assert_eq!(why, expected, "a member is no stranger");
        let cluster = status.cluster.unwrap();
        assert_eq!((cluster.id, cluster.member, cluster.leader), (0xc, 0xa, 0xa));
        assert_eq!((cluster.committed, cluster.automatic, cluster.open_seconds), (true, false, 0));
        assert_eq!((cluster.members.len(), cluster.members[0].reached), (1, true));
        assert_eq!((cluster.conflicts[0].cluster, cluster.pending.len()), (0xdd, 1));
    });
}

#[test]
fn a_member_without_a_leader_still_says_how_it_stands() {
    run(async {
        let server = Server::with(Setup { lonely: true, ..Setup::default() }).await;
        let mut client = AdminClient::new(server.channel().await);
        let status = client.status(pb::StatusRequest {}).await.unwrap().into_inner();
        let cluster = status.cluster.unwrap();
        assert_eq!(cluster.leader, 0);
        let reached: Vec<bool> = cluster.members.iter().map(|member| member.reached).collect();
        assert_eq!(reached, [true, false]);
    });
}
