//! The Lease service over the wire.

use std::time::Duration;

use covey::runtime::clock::Clock;
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use covey::wire::etcdserverpb::lease_client::LeaseClient;
use smol::Timer;
use tonic::{Code, Status};

use crate::harness::{Channel, Server, run};

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

fn is(status: &Status, code: Code, text: &str) {
    assert_eq!((status.code(), status.message()), (code, text));
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
