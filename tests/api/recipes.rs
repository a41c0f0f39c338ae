//! Locks and elections, kept by the server.

use std::time::Duration;

use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use covey::wire::etcdserverpb::lease_client::LeaseClient;
use covey::wire::v3electionpb as elections;
use covey::wire::v3electionpb::election_client::ElectionClient;
use covey::wire::v3lockpb as locks;
use covey::wire::v3lockpb::lock_client::LockClient;
use smol::Timer;
use smol::future::{self, FutureExt as _};
use tonic::Code;

use crate::harness::{Channel, Server, is, run};

/// Long enough for an answer that is not to come.
const A_WHILE: Duration = Duration::from_millis(300);

struct Clients {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    lock: LockClient<Channel>,
    election: ElectionClient<Channel>,
}

impl Clients {
    async fn of(server: &Server) -> Self {
        let channel = server.channel().await;
        Self {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            lock: LockClient::new(channel.clone()),
            election: ElectionClient::new(channel),
        }
    }

    async fn with_leases(server: &Server, leases: &[i64]) -> Self {
        let mut clients = Self::of(server).await;
        for &id in leases {
            clients.lease.lease_grant(pb::LeaseGrantRequest { id, ttl: 60 }).await.unwrap();
        }
        clients
    }

    async fn keys(&mut self) -> Vec<String> {
        let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let found = self.kv.range(all).await.unwrap().into_inner();
        found.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
    }

    async fn until_keys(&mut self, expected: &[&str]) {
        while self.keys().await != expected {
            Timer::after(Duration::from_millis(10)).await;
        }
    }

    async fn revoke(&mut self, id: i64) {
        self.lease.lease_revoke(pb::LeaseRevokeRequest { id }).await.unwrap();
    }

    async fn elected(&mut self, lease: i64, value: &'static str) -> elections::LeaderKey {
        let won = self.election.campaign(campaign(lease, value)).await.unwrap().into_inner();
        won.leader.unwrap()
    }
}

fn lock(lease: i64) -> locks::LockRequest {
    locks::LockRequest { name: "door".into(), lease }
}

fn campaign(lease: i64, value: &'static str) -> elections::CampaignRequest {
    elections::CampaignRequest { name: "site".into(), lease, value: value.into() }
}

fn site() -> elections::LeaderRequest {
    elections::LeaderRequest { name: "site".into() }
}

/// `None`: no answer for a while.
async fn soon<T>(work: impl Future<Output = T>) -> Option<T> {
    let late = async {
        Timer::after(A_WHILE).await;
        None
    };
    future::or(async { Some(work.await) }, late).await
}

#[test]
fn a_lock_is_one_holders_until_it_is_released_or_its_lease_ends() {
    run(async {
        let server = Server::start().await;
        let mut first = Clients::with_leases(&server, &[-0x1f, 0x2a, 0x2b]).await;
        let mut second = Clients::of(&server).await;
        let held = first.lock.lock(lock(-0x1f)).await.unwrap().into_inner();
        assert_eq!((held.key.as_ref(), held.header.unwrap().revision), (&b"door/-1f"[..], 2));
        let again = first.lock.lock(lock(-0x1f)).await.unwrap().into_inner();
        assert_eq!(again.key, held.key, "the same lease holds it already");
        // Others with the same beginning are no contenders.
        for key in ["door", "door.", "door0", "doo"] {
            let put = pb::PutRequest { key: key.into(), ..Default::default() };
            first.kv.put(put).await.unwrap();
        }

        let mut waiting = second.lock.lock(lock(0x2a)).boxed();
        assert!(soon(&mut waiting).await.is_none(), "it is held");
        first.lock.unlock(locks::UnlockRequest { key: held.key }).await.unwrap();
        let held = waiting.await.unwrap().into_inner();
        assert_eq!(
            (held.key.as_ref(), held.header.unwrap().revision),
            (&b"door/2a"[..], 8),
            "of the release"
        );

        let mut waiting = first.lock.lock(lock(0x2b)).boxed();
        assert!(soon(&mut waiting).await.is_none());
        second.revoke(0x2a).await;
        assert_eq!(waiting.await.unwrap().get_ref().key, "door/2b");
        let unlocked = second.lock.unlock(locks::UnlockRequest { key: "door/2a".into() }).await;
        assert_eq!(
            unlocked.unwrap().into_inner().header.unwrap().revision,
            10,
            "releasing twice changes nothing"
        );
    });
}

#[test]
fn who_waits_for_a_lock_gets_it_in_turn() {
    run(async {
        let server = Server::start().await;
        let leases = [1, 2, 3, 4];
        let mut clients = Clients::with_leases(&server, &leases).await;
        clients.lock.lock(lock(1)).await.unwrap();
        let mut expected = vec!["door/1".to_owned()];
        let mut waiting = Vec::new();
        for lease in &leases[1..] {
            let mut one = Clients::of(&server).await;
            let mut turn = async move { one.lock.lock(lock(*lease)).await.unwrap().into_inner() }.boxed();
            expected.push(format!("door/{lease}"));
            assert!(soon(&mut turn).await.is_none());
            assert_eq!(clients.keys().await, expected);
            waiting.push(turn);
        }
        for (lease, turn) in leases.iter().zip(waiting) {
            clients.lock.unlock(locks::UnlockRequest { key: format!("door/{lease}").into() }).await.unwrap();
            assert_eq!(turn.await.key, format!("door/{}", lease + 1));
        }
    });
}

#[test]
fn who_gives_up_waiting_stands_in_nobodys_way() {
    run(async {
        let server = Server::start().await;
        let mut clients = Clients::with_leases(&server, &[1, 2, 3]).await;
        clients.lock.lock(lock(1)).await.unwrap();
        let mut late = tonic::Request::new(lock(2));
        late.set_timeout(A_WHILE);
        let refusal = clients.lock.lock(late).await.unwrap_err();
        assert_eq!(refusal.code(), Code::DeadlineExceeded);
        clients.until_keys(&["door/1"]).await;

        let mut gone = Clients::of(&server).await;
        assert!(soon(gone.election.campaign(campaign(3, "x"))).await.is_some(), "another name");
        let mut gone_too = Clients::of(&server).await;
        assert!(soon(gone_too.election.campaign(campaign(2, "y"))).await.is_none());
        drop(gone_too);
        clients.until_keys(&["door/1", "site/3"]).await;
    });
}

#[test]
fn a_key_that_a_call_has_found_goes_with_it_while_it_is_nobodys_turn() {
    run(async {
        let server = Server::start().await;
        let mut clients = Clients::with_leases(&server, &[1, 2]).await;
        clients.elected(1, "first").await;
        for value in ["as it was", "another one"] {
            // As a server leaves it that dies while a call waits.
            let left = pb::PutRequest {
                key: "site/2".into(),
                value: "as it was".into(),
                lease: 2,
                ..Default::default()
            };
            clients.kv.put(left).await.unwrap();
            let mut gone = Clients::of(&server).await;
            assert!(soon(gone.election.campaign(campaign(2, value))).await.is_none());
            drop(gone);
            clients.until_keys(&["site/1"]).await;
        }

        let mut late = Clients::of(&server).await;
        let mut again = Clients::of(&server).await;
        let mut waits = late.election.campaign(campaign(2, "waits")).boxed();
        assert!(soon(&mut waits).await.is_none());
        let mut waits_too = again.election.campaign(campaign(2, "waits")).boxed();
        assert!(soon(&mut waits_too).await.is_none());
        clients.revoke(1).await;
        let won = waits.await.unwrap().into_inner().leader.unwrap();
        drop(waits_too);
        drop(again);
        let proclaim = elections::ProclaimRequest { leader: Some(won), value: "still here".into() };
        Timer::after(A_WHILE).await;
        clients.election.proclaim(proclaim).await.unwrap();
    });
}

#[test]
fn who_loses_its_lease_while_it_waits_is_told_at_once() {
    run(async {
        let server = Server::start().await;
        let mut clients = Clients::with_leases(&server, &[1, 2]).await;
        let mut other = Clients::of(&server).await;
        clients.lock.lock(lock(1)).await.unwrap();
        let mut waiting = other.lock.lock(lock(2)).boxed();
        assert!(soon(&mut waiting).await.is_none());
        clients.revoke(2).await;
        is(&waiting.await.unwrap_err(), Code::Unknown, "mutex: session is expired");
        assert_eq!(clients.keys().await, ["door/1"]);
        let refusal = clients.lock.lock(lock(2)).await.unwrap_err();
        is(&refusal, Code::Unknown, "etcdserver: requested lease not found");
        let refusal = clients.lock.unlock(locks::UnlockRequest::default()).await.unwrap_err();
        is(&refusal, Code::Unknown, "etcdserver: key is not provided");
    });
}

#[test]
fn without_a_lease_one_is_granted() {
    run(async {
        let server = Server::start().await;
        let mut clients = Clients::of(&server).await;
        let held = clients.lock.lock(lock(0)).await.unwrap().into_inner();
        let won = clients.elected(0, "v").await;
        for (key, lease) in [(held.key, None), (won.key, Some(won.lease))] {
            let asked = pb::RangeRequest { key: key.clone(), ..Default::default() };
            let found = clients.kv.range(asked).await.unwrap().into_inner();
            let id = found.kvs[0].lease;
            assert!(key.ends_with(format!("/{id:x}").as_bytes()) && lease.is_none_or(|lease| lease == id));
            let asked = pb::LeaseTimeToLiveRequest { id, keys: true };
            let time = clients.lease.lease_time_to_live(asked).await.unwrap().into_inner();
            assert_eq!((time.granted_ttl, time.keys), (60, vec![key]));
        }
    });
}

#[test]
fn an_election_has_one_winner_who_may_change_its_word_and_resign() {
    run(async {
        let server = Server::start().await;
        let mut first = Clients::with_leases(&server, &[0xa, 0xb]).await;
        let mut second = Clients::of(&server).await;
        is(&first.election.leader(site()).await.unwrap_err(), Code::Unknown, "election: no leader");
        let won = first.elected(0xa, "one").await;
        assert_eq!(
            (won.name.as_ref(), won.key.as_ref(), won.rev, won.lease),
            (&b"site"[..], &b"site/a"[..], 2, 0xa)
        );
        assert_eq!(
            first.elected(0xa, "two").await,
            won,
            "it leads already, and says something else from now on"
        );
        let led = first.election.leader(site()).await.unwrap().into_inner();
        let kv = led.kv.unwrap();
        assert_eq!(
            (kv.value.as_ref(), kv.create_revision, kv.mod_revision, led.header.unwrap().revision),
            (&b"two"[..], 2, 3, 3)
        );

        let mut waiting = second.election.campaign(campaign(0xb, "next")).boxed();
        assert!(soon(&mut waiting).await.is_none());
        let mut proclaim = elections::ProclaimRequest { leader: Some(won.clone()), value: "three".into() };
        let proclaimed = first.election.proclaim(proclaim.clone()).await.unwrap().into_inner();
        assert_eq!(proclaimed.header.unwrap().revision, 5);
        let resign = elections::ResignRequest { leader: Some(won) };
        assert_eq!(
            first.election.resign(resign.clone()).await.unwrap().into_inner().header.unwrap().revision,
            6
        );
        let next = waiting.await.unwrap().into_inner();
        assert_eq!((next.header.unwrap().revision, next.leader.unwrap().rev), (4, 4), "as of its entry");

        is(
            &first.election.proclaim(proclaim.clone()).await.unwrap_err(),
            Code::Unknown,
            "election: not leader",
        );
        assert!(first.election.resign(resign).await.is_ok(), "resigning twice changes nothing");
        assert_eq!(first.election.leader(site()).await.unwrap().into_inner().kv.unwrap().value, "next");
        for nobody in
            [elections::LeaderKey::default(), elections::LeaderKey { lease: 0xa, ..Default::default() }]
        {
            proclaim.leader = Some(nobody.clone());
            let refusal = first.election.proclaim(proclaim.clone()).await.unwrap_err();
            is(&refusal, Code::Unknown, "etcdserver: key is not provided");
            let resign = elections::ResignRequest { leader: Some(nobody) };
            let refusal = first.election.resign(resign).await.unwrap_err();
            is(&refusal, Code::Unknown, "etcdserver: key is not provided");
        }
        proclaim.leader = None;
        let refusal = first.election.proclaim(proclaim).await.unwrap_err();
        is(&refusal, Code::Unknown, "\"leader\" field must be provided");
        let refusal = first.election.resign(elections::ResignRequest::default()).await.unwrap_err();
        is(&refusal, Code::Unknown, "\"leader\" field must be provided");
    });
}

#[test]
fn an_observer_is_told_of_each_leader_and_all_it_says() {
    run(async {
        let server = Server::start().await;
        let mut clients = Clients::with_leases(&server, &[1, 2]).await;
        let mut observer = Clients::of(&server).await;
        let mut told = observer.election.observe(site()).await.unwrap().into_inner();
        assert!(soon(told.message()).await.is_none(), "nobody leads");
        let won = clients.elected(1, "a").await;
        let mut seen = vec![told.message().await.unwrap().unwrap()];
        let mut expected = vec![("a", 2)];
        let mut other = Clients::of(&server).await;
        let mut waiting = async move { other.elected(2, "d").await }.boxed();
        assert!(soon(&mut waiting).await.is_none());
        for value in ["b", "c"] {
            let proclaim = elections::ProclaimRequest { leader: Some(won.clone()), value: value.into() };
            let revision =
                clients.election.proclaim(proclaim).await.unwrap().into_inner().header.unwrap().revision;
            expected.push((value, revision));
        }
        clients.election.resign(elections::ResignRequest { leader: Some(won) }).await.unwrap();
        waiting.await;
        expected.push(("d", 6));
        while seen.len() < expected.len() {
            seen.push(told.message().await.unwrap().unwrap());
        }
        for (seen, (value, revision)) in seen.into_iter().zip(expected) {
            assert_eq!((seen.kv.unwrap().value, seen.header.unwrap().revision), (value.into(), revision));
        }
        drop((told, clients, observer));
        server.idle().await;
    });
}
