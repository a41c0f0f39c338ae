//! The Lease service over the wire.

use std::time::Duration;

use covey::runtime::clock::Clock;
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use covey::wire::etcdserverpb::lease_client::LeaseClient;
use smol::Timer;
use smol::future::zip;
use tonic::Code;

use crate::harness::{Channel, Server, Setup, is, run};

async fn clients(server: &Server) -> (LeaseClient<Channel>, KvClient<Channel>) {
    let channel = server.channel().await;
    (LeaseClient::new(channel.clone()), KvClient::new(channel))
}

fn grant(id: i64, ttl: i64) -> pb::LeaseGrantRequest {
    pb::LeaseGrantRequest { id, ttl }
}

fn put(key: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: "v".into(), lease, ..Default::default() }
}

fn all_keys() -> pb::RangeRequest {
    pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() }
}

#[test]
fn a_lease_is_granted_attached_and_revoked() {
    run(async {
        let server = Server::start().await;
        let (mut leases, mut kvs) = clients(&server).await;
        let granted = leases.lease_grant(grant(-7, 60)).await.unwrap().into_inner();
        assert_eq!((granted.id, granted.ttl, granted.header.unwrap().revision), (-7, 60, 1));
        let refusal = leases.lease_grant(grant(-7, 60)).await.unwrap_err();
        is(&refusal, Code::FailedPrecondition, "etcdserver: lease already exists");
        let refusal = leases.lease_grant(grant(1, 9_000_000_001)).await.unwrap_err();
        is(&refusal, Code::OutOfRange, "etcdserver: too large lease TTL");
        assert_eq!(leases.lease_grant(grant(1, 9_000_000_000)).await.unwrap().get_ref().ttl, 9_000_000_000);
        for (asked, given) in [(0, 2), (-5, 2), (i64::MIN, 2), (2, 2), (3, 3)] {
            let granted = leases.lease_grant(grant(0, asked)).await.unwrap().into_inner();
            assert!(granted.id > 0);
            assert_eq!(granted.ttl, given);
        }
        for key in ["b", "a", "c"] {
            kvs.put(put(key, -7)).await.unwrap();
        }
        kvs.put(put("c", 0)).await.unwrap();
        let asked = pb::LeaseTimeToLiveRequest { id: -7, keys: true };
        let time = leases.lease_time_to_live(asked).await.unwrap().into_inner();
        assert_eq!((time.id, time.granted_ttl, &time.keys[..]), (-7, 60, &["a".into(), "b".into()][..]));
        assert!((50..60).contains(&time.ttl), "{}", time.ttl);
        let revoked = leases.lease_revoke(pb::LeaseRevokeRequest { id: -7 }).await.unwrap().into_inner();
        assert_eq!(revoked.header.unwrap().revision, 6, "two keys went in one revision");
        let left = kvs.range(all_keys()).await.unwrap().into_inner();
        assert_eq!(left.kvs.iter().map(|kv| kv.key.as_ref()).collect::<Vec<_>>(), [b"c"]);
        let refusal = leases.lease_revoke(pb::LeaseRevokeRequest { id: -7 }).await.unwrap_err();
        is(&refusal, Code::NotFound, "etcdserver: requested lease not found");
        let refusal = kvs.put(put("d", -7)).await.unwrap_err();
        is(&refusal, Code::NotFound, "etcdserver: requested lease not found");
        let unknown = leases.lease_time_to_live(asked).await.unwrap().into_inner();
        assert_eq!((unknown.id, unknown.ttl, unknown.granted_ttl, unknown.keys.len()), (-7, -1, 0, 0));
        assert_eq!(unknown.header.unwrap().revision, 6);
    });
}

#[test]
fn a_lease_that_nobody_renews_takes_its_keys_along_and_not_early() {
    run(async {
        let server = Server::start().await;
        let (mut leases, mut kvs) = clients(&server).await;
        let clock = Clock::start();
        leases.lease_grant(grant(5, 2)).await.unwrap();
        leases.lease_grant(grant(6, 60)).await.unwrap();
        kvs.put(put("short", 5)).await.unwrap();
        kvs.put(put("long", 6)).await.unwrap();
        let (mut sender, requests) = Requests::pair();
        let mut answers = leases.lease_keep_alive(requests).await.unwrap().into_inner();
        Timer::after(Duration::from_millis(1000)).await;
        sender.send(5);
        let renewed_after = clock.now();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl, answer.header.unwrap().revision), (5, 2, 3));
        while kvs.range(all_keys()).await.unwrap().get_ref().count == 2 {
            Timer::after(Duration::from_millis(20)).await;
        }
        let lived = clock.now().since(renewed_after);
        assert!((Duration::from_secs(2)..Duration::from_secs(5)).contains(&lived), "{lived:?}");
        sender.send(5);
        sender.send(6);
        let gone = answers.message().await.unwrap().unwrap();
        assert_eq!((gone.id, gone.ttl, gone.header.unwrap().revision), (5, 0, 4));
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl), (6, 60), "the stream goes on");
        drop(sender);
        assert!(answers.message().await.unwrap().is_none(), "a half-closed stream ends well");
    });
}

#[test]
fn leases_and_their_keys_survive_a_restart_and_still_end() {
    run(async {
        let server = Server::start().await;
        let (mut leases, mut kvs) = clients(&server).await;
        leases.lease_grant(grant(5, 2)).await.unwrap();
        leases.lease_grant(grant(6, 60)).await.unwrap();
        kvs.put(put("short", 5)).await.unwrap();
        kvs.put(put("long", 6)).await.unwrap();
        drop((leases, kvs));
        let clock = Clock::start();
        let server = server.restart().await;
        let restarted = clock.now();
        let (mut leases, mut kvs) = clients(&server).await;
        let all = leases.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
        assert_eq!(all.leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [5, 6], "soonest end first");
        assert_eq!(all.header.unwrap().revision, 3);
        while kvs.range(all_keys()).await.unwrap().get_ref().count == 2 {
            Timer::after(Duration::from_millis(20)).await;
        }
        let lived = clock.now().since(restarted);
        assert!((Duration::from_secs(1)..Duration::from_secs(8)).contains(&lived), "{lived:?}");
        let left = kvs.range(all_keys()).await.unwrap().into_inner();
        assert_eq!((left.kvs[0].key.as_ref(), left.kvs[0].lease), (&b"long"[..], 6));
        let asked = pb::LeaseTimeToLiveRequest { id: 6, keys: true };
        let time = leases.lease_time_to_live(asked).await.unwrap().into_inner();
        assert_eq!((time.granted_ttl, &time.keys[..]), (60, &["long".into()][..]));
    });
}

#[test]
fn answers_come_in_the_order_of_the_requests_and_a_renewal_reorders_the_list() {
    run(async {
        let server = Server::start().await;
        let (mut leases, _) = clients(&server).await;
        for (id, ttl) in [(1, 100), (2, 99), (3, 98)] {
            leases.lease_grant(grant(id, ttl)).await.unwrap();
        }
        let (mut sender, requests) = Requests::pair();
        let mut answers = leases.lease_keep_alive(requests).await.unwrap().into_inner();
        let order: Vec<i64> = (0..200).map(|n| n * 7 % 5).collect();
        for id in &order {
            sender.send(*id);
        }
        for id in order {
            let answer = answers.message().await.unwrap().unwrap();
            let ttl = [0, 100, 99, 98, 0][usize::try_from(id).unwrap()];
            assert_eq!((answer.id, answer.ttl), (id, ttl));
        }
        let listed = |answer: tonic::Response<pb::LeaseLeasesResponse>| -> Vec<i64> {
            answer.into_inner().leases.iter().map(|lease| lease.id).collect()
        };
        assert_eq!(listed(leases.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap()), [3, 2, 1]);
        Timer::after(Duration::from_millis(2100)).await;
        sender.send(3);
        assert_eq!(answers.message().await.unwrap().unwrap().ttl, 98);
        assert_eq!(listed(leases.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap()), [2, 1, 3]);
    });
}

#[test]
fn a_full_store_grants_nothing_and_lets_leases_end() {
    run(async {
        let server = Server::with(Setup { quota: Some(1000), ..Setup::default() }).await;
        let (mut leases, mut kvs) = clients(&server).await;
        for id in 1..=5 {
            leases.lease_grant(grant(id, 60)).await.unwrap();
        }
        kvs.put(put("k", 1)).await.unwrap();
        let full = "etcdserver: mvcc: database space exceeded";
        let mut id = 5;
        let refusal = loop {
            id += 1;
            match leases.lease_grant(grant(id, 60)).await {
                Ok(_) => {}
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(id, 12, "64 bytes each, beside a key of 258");
        is(&refusal, Code::ResourceExhausted, full);
        let (mut sender, requests) = Requests::pair();
        let mut answers = leases.lease_keep_alive(requests).await.unwrap().into_inner();
        sender.send(1);
        assert_eq!(answers.message().await.unwrap().unwrap().ttl, 60, "renewals take no space");
        leases.lease_revoke(pb::LeaseRevokeRequest { id: 1 }).await.unwrap();
        leases.lease_revoke(pb::LeaseRevokeRequest { id: 2 }).await.unwrap();
        assert_eq!(kvs.range(all_keys()).await.unwrap().get_ref().count, 0);
    });
}

#[test]
fn a_stream_ends_with_the_server_and_leaves_nothing_when_its_client_vanishes() {
    run(async {
        let server = Server::start().await;
        let (mut leases, _) = clients(&server).await;
        leases.lease_grant(grant(1, 60)).await.unwrap();
        let (mut sender, requests) = Requests::pair();
        let mut answers = leases.lease_keep_alive(requests).await.unwrap().into_inner();
        sender.send(1);
        answers.message().await.unwrap().unwrap();
        drop((leases, answers, sender));
        server.idle().await;
        let (mut leases, _) = clients(&server).await;
        let (mut sender, requests) = Requests::pair();
        let mut answers = leases.lease_keep_alive(requests).await.unwrap().into_inner();
        sender.send(1);
        answers.message().await.unwrap().unwrap();
        server.stop.announce();
        is(&answers.message().await.unwrap_err(), Code::Unavailable, "etcdserver: server stopped");
        server.idle().await;
    });
}

#[test]
fn without_a_leader_nothing_is_said_of_leases() {
    run(async {
        let server = Server::with(Setup { lonely: true, ..Setup::default() }).await;
        let (mut leases, _) = clients(&server).await;
        let (mut sender, requests) = Requests::pair();
        let mut answers = leases.lease_keep_alive(requests).await.unwrap().into_inner();
        sender.send(1);
        let asked = pb::LeaseTimeToLiveRequest { id: 1, keys: false };
        let mut other = leases.clone();
        let (renewal, time) = zip(answers.message(), leases.lease_time_to_live(asked)).await;
        let granting = other.lease_grant(grant(1, 60));
        let (list, granted) = zip(leases.lease_leases(pb::LeaseLeasesRequest {}), granting).await;
        for refusal in [renewal.unwrap_err(), time.unwrap_err(), list.unwrap_err(), granted.unwrap_err()] {
            assert_eq!(refusal.code(), Code::Unavailable);
            let texts = ["etcdserver: no leader", "etcdserver: request timed out"];
            assert!(texts.contains(&refusal.message()), "{refusal}");
        }
    });
}

/// The requests of a stream, sent one by one.
struct Requests(smol::channel::Sender<pb::LeaseKeepAliveRequest>);

impl Requests {
    fn pair() -> (Self, smol::channel::Receiver<pb::LeaseKeepAliveRequest>) {
        let (sender, receiver) = smol::channel::unbounded();
        (Self(sender), receiver)
    }

    fn send(&mut self, id: i64) {
        self.0.try_send(pb::LeaseKeepAliveRequest { id }).unwrap();
    }
}
