//! Health, cluster, maintenance; what holds for every call.

use std::time::Duration;

use covey::ids::MemberId;
use covey::runtime::clock::Clock;
use covey::time::Instant;
use covey::wire::covey::v1 as admin_pb;
use covey::wire::covey::v1::admin_client::AdminClient;
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::cluster_client::ClusterClient;
use covey::wire::etcdserverpb::kv_client::KvClient;

use covey::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use covey::wire::grpc::health::v1::HealthCheckRequest;
use covey::wire::grpc::health::v1::health_check_response::ServingStatus;
use covey::wire::grpc::health::v1::health_client::HealthClient;
use http::Request;
use http_body_util::BodyExt as _;
use tonic::{Code, Status};

use crate::harness::{Channel, Endless, MEMBER, Server, Setup, empty, run, until};

fn whole_server() -> HealthCheckRequest {
    HealthCheckRequest::default()
}

#[test]
fn the_health_of_the_server_is_known_and_no_other() {
    run(async {
        let server = Server::start().await;
        let mut health = HealthClient::new(server.channel().await);
        let answer = health.check(whole_server()).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
        let other = HealthCheckRequest { service: "etcdserverpb.KV".into() };
        let refusal = health.check(other.clone()).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::NotFound, "unknown service"));
        let mut states = health.watch(other).await.unwrap().into_inner();
        assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    });
}

#[test]
fn watchers_of_health_are_told_of_the_end_and_the_connection_is_drained() {
    run(async {
        let server = Server::start().await;
        let mut health = HealthClient::new(server.channel().await);
        let mut states = health.watch(whole_server()).await.unwrap().into_inner();
        assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        server.stop.announce();
        assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        assert!(states.message().await.unwrap().is_none(), "the stream ends well");
        server.idle().await;
    });
}

/// The rules and texts of section 4 of the API reference, as one member meets them.
#[test]
fn members_are_changed_by_etcds_rules() {
    run(async {
        let server = Server::start().await;
        let mut cluster = ClusterClient::new(server.channel().await);
        let said = covey::command::MemberAttributes {
            member: MEMBER,
            name: "one".into(),
            peer_urls: vec!["http://127.0.0.1:1".into()],
            ..Default::default()
        };
        server.handle.publish(said).await.unwrap();
        let add =
            |url: &str, is_learner| pb::MemberAddRequest { peer_urls: vec![url.to_owned()], is_learner };
        let urls = "etcdserver: given member URLs are invalid";
        for wrong in
            ["", "127.0.0.1:2380", "http://a", "http://a:0", "http://a:1/x", "unix://a:1", "http://:1"]
        {
            let refusal = cluster.member_add(add(wrong, false)).await.unwrap_err();
            assert_eq!((refusal.code(), refusal.message()), (Code::InvalidArgument, urls), "{wrong}");
        }
        let none = cluster.member_add(pb::MemberAddRequest::default()).await.unwrap_err();
        assert_eq!(none.message(), urls);
        let twice = vec!["http://a:1".to_owned(); 2];
        let twice = cluster.member_add(pb::MemberAddRequest { peer_urls: twice, is_learner: false }).await;
        assert_eq!(twice.unwrap_err().message(), urls);
        let taken = cluster.member_add(add("http://127.0.0.1:1", false)).await.unwrap_err();
        let exists = "etcdserver: Peer URLs already exists";
        assert_eq!((taken.code(), taken.message()), (Code::FailedPrecondition, exists));
        let added = cluster.member_add(add("http://[::1]:2", true)).await.unwrap().into_inner();
        let learner = added.member.unwrap();
        assert!(learner.is_learner && learner.name.is_empty() && learner.client_urls.is_empty());
        assert_eq!(added.members.len(), 2);
        let many = cluster.member_add(add("http://c:3", true)).await.unwrap_err();
        let text = "etcdserver: too many learner members in cluster";
        assert_eq!((many.code(), many.message()), (Code::FailedPrecondition, text));
        let promote = |id| pb::MemberPromoteRequest { id };
        let early = cluster.member_promote(promote(learner.id)).await.unwrap_err();
        let text = "etcdserver: can only promote a learner member which is in sync with leader";
        assert_eq!((early.code(), early.message()), (Code::FailedPrecondition, text));
        let voter = cluster.member_promote(promote(MEMBER.0)).await.unwrap_err();
        let text = "etcdserver: can only promote a learner member";
        assert_eq!((voter.code(), voter.message()), (Code::FailedPrecondition, text));
        let unknown = cluster.member_promote(promote(5)).await.unwrap_err();
        let text = "etcdserver: member not found";
        assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, text));
        let update = |id, url: &str| pb::MemberUpdateRequest { id, peer_urls: vec![url.to_owned()] };
        assert_eq!(cluster.member_update(update(5, "http://d:4")).await.unwrap_err().message(), text);
        let moved = cluster.member_update(update(learner.id, "http://d:4")).await.unwrap().into_inner();
        let is_where_it_is_now = |member: &pb::Member| member.peer_urls == ["http://d:4"];
        let still_learns = moved.members.iter().find(|member| is_where_it_is_now(member)).unwrap().is_learner;
        assert!(still_learns, "an address makes no voter");
        let left =
            cluster.member_remove(pb::MemberRemoveRequest { id: learner.id }).await.unwrap().into_inner();
        assert_eq!(left.members.len(), 1);
        let last = cluster.member_remove(pb::MemberRemoveRequest { id: MEMBER.0 }).await.unwrap_err();
        let text = "etcdserver: re-configuration failed due to not enough started members";
        assert_eq!((last.code(), last.message()), (Code::Unknown, text));
    });
}

#[test]
fn what_is_not_offered_is_unknown_in_gos_words() {
    run(async {
        let server = Server::start().await;
        let channel = server.channel().await;
        for (path, text) in [
            ("/etcdserverpb.KV/Frob", "unknown method Frob for service etcdserverpb.KV"),
            ("/a/b/c", "unknown service a/b"),
            ("/nothing", "malformed method name: \"/nothing\""),
        ] {
            let status = raw_call(&channel, path, &[]).await;
            assert_eq!((status.code(), status.message()), (Code::Unimplemented, text), "{path}");
        }
    });
}

/// Calls a path without a message and takes the status of the refusal.
async fn raw_call(channel: &Channel, path: &str, headers: &[(&str, &[u8])]) -> Status {
    let mut request = Request::post(format!("http://x{path}")).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = channel.send(request.body(empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    Status::from_header_map(response.headers()).unwrap()
}

#[test]
fn metadata_is_checked_before_the_call() {
    run(async {
        let server = Server::start().await;
        let channel = server.channel().await;
        let path = "/etcdserverpb.KV/Range";
        let status = raw_call(&channel, path, &[("client-api-version", b"3.\xff")]).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "etcdserver: invalid client api version");
        let status = raw_call(&channel, path, &[("grpc-timeout", b"soon")]).await;
        assert_eq!((status.code(), status.message()), (Code::Internal, "malformed grpc-timeout"));
        let request =
            Request::get("http://x/etcdserverpb.KV/Range").header("content-type", "application/grpc");
        let response = channel.send(request.body(empty()).unwrap()).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &"POST".parse().unwrap())
        );
    });
}

#[test]
fn a_learner_serves_its_own_state_and_nothing_else() {
    run(async {
        let server = Server::with(Setup { learns: true, ..Setup::default() }).await;
        let channel = server.channel().await;
        let mut kv = KvClient::new(channel.clone());
        let local = pb::RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
        kv.range(local.clone()).await.unwrap();
        let status = MaintenanceClient::new(channel.clone()).status(pb::StatusRequest {}).await.unwrap();
        assert!(status.into_inner().is_learner);
        let put = pb::PutRequest { key: "k".into(), ..Default::default() };
        let alarms = pb::AlarmRequest::default();
        let refusals = [
            kv.range(pb::RangeRequest { serializable: false, ..local.clone() }).await.unwrap_err(),
            kv.range_stream(local).await.unwrap_err(),
            kv.put(put).await.unwrap_err(),
            kv.txn(pb::TxnRequest::default()).await.unwrap_err(),
            MaintenanceClient::new(channel.clone()).alarm(alarms).await.unwrap_err(),
            ClusterClient::new(channel.clone())
                .member_list(pb::MemberListRequest::default())
                .await
                .unwrap_err(),
            HealthClient::new(channel).check(whole_server()).await.unwrap_err(),
        ];
        for refusal in refusals {
            assert_eq!(refusal.code(), Code::FailedPrecondition);
            assert_eq!(refusal.message(), "etcdserver: rpc not supported for learner");
        }
    });
}

/// It answers how it stands, and shows nobody an empty or a wrong state.
#[test]
fn a_member_whose_state_must_not_be_shown_shows_none() {
    for setup in
        [Setup { lonely: true, suspect: true, ..Setup::default() }, Setup { joins: true, ..Setup::default() }]
    {
        run(async {
            let server = Server::with(setup).await;
            let channel = server.channel().await;
            let mut maintenance = MaintenanceClient::new(channel.clone());
            let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
            assert_eq!(status.errors, ["etcdserver: no leader"]);
            let mut admin = AdminClient::new(channel.clone());
            let cluster = admin.status(admin_pb::StatusRequest {}).await.unwrap().into_inner().cluster;
            assert!(cluster.unwrap().catching_up);
            let mut kv = KvClient::new(channel.clone());
            let local = pb::RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
            let members = pb::MemberListRequest { linearizable: false };
            let refusals = [
                kv.range(local.clone()).await.unwrap_err(),
                kv.range_stream(local).await.unwrap_err(),
                kv.put(pb::PutRequest::default()).await.unwrap_err(),
                maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap_err(),
                ClusterClient::new(channel.clone()).member_list(members).await.unwrap_err(),
                HealthClient::new(channel).check(whole_server()).await.unwrap_err(),
            ];
            for refusal in refusals {
                assert_eq!(refusal.code(), Code::Unavailable, "others may answer");
                assert_eq!(refusal.message(), "covey: this member waits for its cluster's state");
            }
        });
    }
}

#[test]
fn a_call_that_needs_a_leader_is_refused_without_one() {
    run(async {
        let server = Server::with(Setup { lonely: true, ..Setup::default() }).await;
        let mut kv = KvClient::new(server.channel().await);
        let range = pb::RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
        kv.range(range.clone()).await.expect("a local read needs no leader");
        let mut strict = tonic::Request::new(range);
        strict.metadata_mut().insert("hasleader", "true".parse().unwrap());
        let refusal = kv.range(strict).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::Unavailable, "etcdserver: no leader"));
        let status =
            MaintenanceClient::new(server.channel().await).status(pb::StatusRequest {}).await.unwrap();
        assert_eq!(status.into_inner().errors, ["etcdserver: no leader"]);
    });
}

#[test]
fn deadlines_end_calls_that_wait_and_streams_that_are_silent() {
    run(async {
        let server = Server::with(Setup { lonely: true, ..Setup::default() }).await;
        let channel = server.channel().await;
        let mut kv = KvClient::new(channel.clone());
        let clock = Clock::start();
        let mut patient = tonic::Request::new(pb::RangeRequest { key: "k".into(), ..Default::default() });
        patient.metadata_mut().insert("grpc-timeout", "100m".parse().unwrap());
        let refusal = kv.range(patient).await.unwrap_err();
        assert_eq!(refusal.code(), Code::DeadlineExceeded);
        assert_eq!(refusal.message(), "context deadline exceeded");
        let mut watch = tonic::Request::new(whole_server());
        watch.metadata_mut().insert("grpc-timeout", "100m".parse().unwrap());
        let mut states = HealthClient::new(channel.clone()).watch(watch).await.unwrap().into_inner();
        assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        let end = states.message().await.unwrap_err();
        assert_eq!(end.code(), Code::DeadlineExceeded);
        let took = clock.now().since(Instant::default());
        assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(5), "{took:?}");
        let counters = server.api.counters();
        until("the calls end", || counters.calls() == 0).await;
        // A message that never comes ends as well.
        let request = Request::post("http://x/etcdserverpb.KV/Range")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", "50m");
        let body = tonic::body::Body::new(Endless(Some(bytes::Bytes::from_static(&[0, 0, 0]))));
        let response = channel.send(request.body(body).unwrap()).await.unwrap();
        assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), Code::DeadlineExceeded);
    });
}

#[test]
fn cancelled_calls_and_vanished_clients_leave_nothing() {
    run(async {
        let server = Server::start().await;
        let counters = server.api.counters();
        let channel = server.channel().await;
        let mut health = HealthClient::new(channel.clone());
        let mut streams = Vec::new();
        for _ in 0..10 {
            streams.push(health.watch(whole_server()).await.unwrap().into_inner());
        }
        assert_eq!((counters.connections(), counters.calls()), (1, 10));
        streams.truncate(4);
        until("cancelled calls end", || counters.calls() == 4).await;
        // The client's process dies: its kernel closes the socket in the middle of calls.
        drop((streams, health, channel));
        server.idle().await;

        let raw = server.connect().await;
        let copy = raw.get_ref().try_clone().unwrap();
        let channel = Channel::over(raw).await.unwrap();
        let mut states = HealthClient::new(channel).watch(whole_server()).await.unwrap().into_inner();
        assert!(states.message().await.unwrap().is_some());
        assert_eq!((counters.connections(), counters.calls()), (1, 1));
        // It stops speaking but would still listen: an HTTP/2 connection does not outlive that.
        copy.shutdown(std::net::Shutdown::Write).unwrap();
        server.idle().await;
        assert_eq!(counters.failed(), 0);
    });
}

#[test]
fn alarms_are_raised_listed_and_cleared() {
    use pb::AlarmType::{Corrupt, None, Nospace};
    use pb::alarm_request::AlarmAction::{Activate, Deactivate, Get};
    run(async {
        let server = Server::start().await;
        let mut maintenance = MaintenanceClient::new(server.channel().await);
        let request = |action: pb::alarm_request::AlarmAction, alarm: pb::AlarmType| pb::AlarmRequest {
            action: action.into(),
            member_id: 7,
            alarm: alarm.into(),
        };
        let mut ask = async |action, alarm| {
            let answer = maintenance.alarm(request(action, alarm)).await.unwrap().into_inner();
            assert!(answer.header.unwrap().revision > 0);
            answer.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm())).collect::<Vec<_>>()
        };
        assert_eq!(ask(Get, None).await, []);
        assert_eq!(ask(Activate, None).await, []);
        assert_eq!(ask(Activate, Nospace).await, [(7, Nospace)]);
        assert_eq!(ask(Activate, Corrupt).await, [(7, Corrupt)]);
        assert_eq!(ask(Get, None).await, [(7, Nospace), (7, Corrupt)]);
        assert_eq!(ask(Get, Corrupt).await, [(7, Corrupt)], "a filter by kind");
        assert_eq!(ask(Deactivate, Corrupt).await, [(7, Corrupt)]);
        assert_eq!(ask(Deactivate, Corrupt).await, [], "it is not raised any more");
        let status =
            MaintenanceClient::new(server.channel().await).status(pb::StatusRequest {}).await.unwrap();
        let status = status.into_inner();
        assert_eq!(status.errors, ["memberID:7 alarm:NOSPACE "]);
        let mut kv = KvClient::new(server.channel().await);
        let put = pb::PutRequest { key: "k".into(), ..Default::default() };
        let refusal = kv.put(put).await.unwrap_err();
        assert_eq!(refusal.code(), Code::ResourceExhausted);
        assert_eq!(refusal.message(), "etcdserver: mvcc: database space exceeded");
    });
}

#[test]
fn status_and_members_describe_the_node() {
    run(async {
        let server = Server::start().await;
        let channel = server.channel().await;
        let status =
            MaintenanceClient::new(channel.clone()).status(pb::StatusRequest {}).await.unwrap().into_inner();
        let node = server.handle.status();
        let header = status.header.unwrap();
        assert_eq!((header.cluster_id, header.member_id), (node.cluster.0, node.member.0));
        assert_eq!((header.revision, header.raft_term), (1, node.term.0));
        assert_eq!(status.leader, node.leader.unwrap().0);
        assert_eq!((status.version.as_str(), status.storage_version.as_str()), ("3.6.14", "3.6.0"));
        assert_eq!(status.db_size_quota, 2 << 30);
        assert!(status.errors.is_empty() && !status.is_learner && status.downgrade_info.is_some());
        for linearizable in [true, false] {
            let list = ClusterClient::new(channel.clone())
                .member_list(pb::MemberListRequest { linearizable })
                .await
                .unwrap()
                .into_inner();
            assert_eq!(list.header.unwrap().revision, 0, "this service leaves it out");
            let ids: Vec<_> = list.members.iter().map(|member| MemberId(member.id)).collect();
            assert_eq!(ids, [node.member]);
        }
    });
}

#[test]
fn a_request_from_a_web_page_is_refused_even_as_grpc() {
    run(async {
        let server = Server::start().await;
        let channel = server.channel().await;
        let request = Request::post("http://x/grpc.health.v1.Health/Check")
            .header("content-type", "application/grpc")
            .header("origin", "http://evil.example");
        let response = channel.send(request.body(empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 403);
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text, "Origin not allowed\n");
    });
}
