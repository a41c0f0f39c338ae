//! Members that come and go while clients write.

use std::time::Duration;

use covey::wire::etcdserverpb as pb;
use smol::{block_on, stream};

use crate::client::{cluster_client, in_time, kv_client, maintenance_client, put, watch};
use crate::process::{Cluster, Host, now, until, wait};

/// What a second is on a busy machine; less than a request may take that waits for a leader in vain.
const AT_ONCE: Duration = Duration::from_secs(5);
const UNHEALTHY: &str = "etcdserver: unhealthy cluster";

fn list(cluster: &Cluster, host: usize) -> Vec<pb::Member> {
    block_on(async {
        let mut client = cluster_client(&cluster.hosts[host]).await.unwrap();
        let request = pb::MemberListRequest { linearizable: true };
        client.member_list(request).await.unwrap().into_inner().members
    })
}

pub fn id_of(cluster: &Cluster, host: usize) -> u64 {
    let members = list(cluster, 0);
    members.iter().find(|member| member.name == cluster.hosts[host].name).expect("it has said its name").id
}

/// Changes the members once those who are reached have been there for long enough.
fn once_healthy<T>(change: impl Fn() -> Result<T, tonic::Status>) -> Result<T, tonic::Status> {
    until("a healthy cluster", || match change() {
        Err(refusal) if refusal.message() == UNHEALTHY => None,
        outcome => Some(outcome),
    })
}

pub fn add(cluster: &Cluster, host: usize, is_learner: bool) -> Result<u64, tonic::Status> {
    once_healthy(|| add_now(cluster, host, is_learner))
}

fn add_now(cluster: &Cluster, host: usize, is_learner: bool) -> Result<u64, tonic::Status> {
    add_by(&cluster.hosts[0], &cluster.hosts[host], is_learner)
}

fn add_by(asked: &Host, new: &Host, is_learner: bool) -> Result<u64, tonic::Status> {
    let peer_urls = vec![new.peer_url()];
    block_on(async {
        let mut client = cluster_client(asked).await?;
        let added = client.member_add(pb::MemberAddRequest { peer_urls, is_learner }).await?.into_inner();
        Ok(added.member.unwrap().id)
    })
}

pub fn promote(host: &Host, id: u64) -> Result<(), tonic::Status> {
    block_on(async {
        let mut client = cluster_client(host).await?;
        client.member_promote(pb::MemberPromoteRequest { id }).await.map(drop)
    })
}

/// The members that are left.
pub fn remove(host: &Host, id: u64) -> Result<Vec<pb::Member>, tonic::Status> {
    once_healthy(|| remove_now(host, id))
}

fn remove_now(host: &Host, id: u64) -> Result<Vec<pb::Member>, tonic::Status> {
    block_on(async {
        let mut client = cluster_client(host).await?;
        Ok(client.member_remove(pb::MemberRemoveRequest { id }).await?.into_inner().members)
    })
}

pub fn update(host: &Host, id: u64, peer_url: &str) {
    let peer_urls = vec![peer_url.to_owned()];
    block_on(async {
        let mut client = cluster_client(host).await.unwrap();
        client.member_update(pb::MemberUpdateRequest { id, peer_urls }).await.unwrap();
    });
}

fn write(cluster: &Cluster, host: usize, key: &str, value: &str) {
    until("a write", || block_on(async { put(&cluster.hosts[host], key, value).await.ok() }));
}

fn read(cluster: &Cluster, host: usize, key: &str) -> Option<Vec<u8>> {
    block_on(async {
        let mut client = kv_client(&cluster.hosts[host]).await.ok()?;
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let found = client.range(request).await.ok()?.into_inner().kvs;
        found.first().map(|kv| kv.value.to_vec())
    })
}

/// A member is added to a running cluster, catches up from its state, votes, and stands in for one that is removed.
#[test]
fn a_member_is_added_promoted_and_takes_the_place_of_one_that_is_removed() {
    let mut cluster = Cluster::start(3);
    for n in 0..50 {
        write(&cluster, n % 3, &format!("before{n}"), "x");
    }
    let new = cluster.add_host();
    let id = add(&cluster, new, true).unwrap();
    let refused = add(&cluster, new, false).unwrap_err();
    assert_eq!(refused.message(), "etcdserver: Peer URLs already exists");
    // It has nothing yet, whoever is asked.
    for host in 0..3 {
        let refused = promote(&cluster.hosts[host], id).unwrap_err();
        let text = "etcdserver: can only promote a learner member which is in sync with leader";
        assert_eq!((refused.code(), refused.message()), (tonic::Code::FailedPrecondition, text), "{host}");
    }
    let initial = cluster.initial();
    cluster.hosts[new].start(&["--initial-cluster", &initial, "--initial-cluster-state", "existing"]);
    until("the new member has the state", || read(&cluster, new, "before49"));
    // It serves what a voter serves: what it is asked to write goes to the leader.
    write(&cluster, new, "from the learner", "y");
    assert_eq!(read(&cluster, 0, "from the learner").as_deref(), Some(&b"y"[..]));
    let leader = cluster.leader();
    until("it is in sync", || promote(&cluster.hosts[leader], id).ok());
    assert!(list(&cluster, 0).iter().all(|member| !member.is_learner && !member.name.is_empty()));
    // The leader goes. It hands over, is removed, and stops by itself.
    let leader = cluster.leader();
    let other = (leader + 1) % 3;
    let gone = id_of(&cluster, leader);
    let left = remove(&cluster.hosts[other], gone).unwrap();
    assert_eq!((left.len(), left.iter().any(|member| member.id == gone)), (3, false));
    assert_eq!(cluster.hosts[leader].ended(), 0, "{}", cluster.hosts[leader].log());
    write(&cluster, new, "after", "z");
    assert_eq!(read(&cluster, other, "after").as_deref(), Some(&b"z"[..]));
    let unknown = remove(&cluster.hosts[other], gone).unwrap_err();
    assert_eq!((unknown.code(), unknown.message()), (tonic::Code::NotFound, "etcdserver: member not found"));
}

/// All of it by covey's own commands, as a person would do it.
#[test]
fn commands_list_add_update_promote_and_remove_members_and_move_the_leader() {
    let mut cluster = Cluster::start(3);
    let listed = |host: &Host| -> Vec<Vec<String>> {
        let lines = host.must(&["member", "list"]);
        lines.lines().map(|line| line.split(", ").map(str::to_owned).collect()).collect()
    };
    let line = |host: &Host, name: &str, state: &str, learns: bool| {
        let line = [state, name, &host.peer_url()].map(str::to_owned);
        let endpoint = if name.is_empty() { String::new() } else { format!("http://{}", host.endpoint) };
        [&line[..], &[endpoint, learns.to_string()]].concat()
    };
    let before = listed(&cluster.hosts[1]);
    for host in &cluster.hosts {
        let expected = line(host, &host.name, "started", false);
        assert!(before.iter().any(|member| member[1..] == expected), "{expected:?}: {before:?}");
    }
    let new = cluster.add_host();
    let add = ["member", "add", "m3", "--learner", "--peer-urls", "http://127.0.0.1:1"];
    // The members have to have been connected for a while.
    let added = until("the cluster is healthy", || cluster.hosts[0].run(&add).ok());
    let id = added.split_whitespace().nth(1).unwrap().to_owned();
    assert!(added.contains(&format!("Member {id:>16} added as learner to cluster ")), "{added}");
    let url = cluster.hosts[new].peer_url();
    let updated = cluster.hosts[1].must(&["member", "update", &id, "--peer-urls", &url]);
    assert!(updated.starts_with(&format!("Member {id:>16} updated in cluster ")), "{updated}");
    let place = [std::slice::from_ref(&id), &line(&cluster.hosts[new], "", "unstarted", true)[..]].concat();
    assert!(listed(&cluster.hosts[2]).contains(&place), "{place:?}");
    let refused = cluster.hosts[0].run(&["member", "promote", &id]).unwrap_err();
    assert_eq!(
        refused,
        "Error: etcdserver: can only promote a learner member which is in sync with leader\n"
    );

    let initial = cluster.initial();
    cluster.hosts[new].start(&["--initial-cluster", &initial, "--initial-cluster-state", "existing"]);
    let promoted = until("it has caught up", || cluster.hosts[2].run(&["member", "promote", &id]).ok());
    assert!(promoted.starts_with(&format!("Member {id:>16} promoted in cluster ")), "{promoted}");
    cluster.wait_ready();
    let voter = [std::slice::from_ref(&id), &line(&cluster.hosts[new], "m3", "started", false)[..]].concat();
    until("it has said its name", || listed(&cluster.hosts[0]).contains(&voter).then_some(()));

    // The leader is looked for among the endpoints; whoever does not answer is passed over.
    let leader = cluster.leader();
    let (old, other) =
        (cluster.hosts[leader].endpoint.clone(), cluster.hosts[(leader + 1) % 3].endpoint.clone());
    let by = |host: &Host, endpoints: &str| host.run(&["--endpoints", endpoints, "move-leader", &id]);
    let refused = by(&cluster.hosts[0], &other).unwrap_err();
    assert_eq!(refused, format!("Error: no leader endpoint given at [{other}]\n"));
    let moved = by(&cluster.hosts[0], &format!("127.0.0.1:1,{other},{old}")).unwrap();
    let from = &before.iter().find(|member| member[2] == cluster.hosts[leader].name).unwrap()[0];
    assert_eq!(moved, format!("Leadership transferred from {from} to {id}\n"));
    assert_eq!(cluster.leader(), new);

    let remove = ["member", "remove", &id];
    let removed = until("the cluster is healthy", || cluster.hosts[0].run(&remove).ok());
    assert!(removed.starts_with(&format!("Member {id:>16} removed from cluster ")), "{removed}");
    assert_eq!(cluster.hosts[new].ended(), 0);
    assert_eq!(listed(&cluster.hosts[1]), before);
}

/// Whoever asked for the removal may count on it: nobody talks to that member any more, and nobody who was connected with it is served by it. One that slept
/// meanwhile, as a box that was taken along may, finds it so when it wakes up.
#[test]
fn a_removed_member_is_cut_off_at_once_from_members_and_clients() {
    for asleep in [false, true] {
        let mut cluster = Cluster::start(3);
        let gone = (cluster.leader() + 1) % 3;
        let others = [(gone + 1) % 3, (gone + 2) % 3];
        let id = id_of(&cluster, gone);
        let put = |key: &str| pb::PutRequest { key: key.to_owned().into(), ..Default::default() };
        let (mut client, mut stream) = block_on(async {
            let mut client = kv_client(&cluster.hosts[gone]).await.unwrap();
            client.put(put("before")).await.unwrap();
            let create = pb::WatchCreateRequest { key: "after".into(), ..Default::default() };
            (client, watch(&cluster.hosts[gone], create, stream::pending(), false).await)
        });
        if asleep {
            cluster.hosts[gone].signal("-STOP");
        }
        remove(&cluster.hosts[others[0]], id).unwrap();
        let answered = now();
        for other in others {
            until("the end of its connections", || {
                let closed = "a member is trusted no longer; its connections are closed";
                cluster.hosts[other].log().contains(closed).then_some(())
            });
        }
        assert!(answered.elapsed() < AT_ONCE, "{:?}", answered.elapsed());
        write(&cluster, others[0], "after", "x");
        if asleep {
            cluster.hosts[gone].signal("-CONT");
        }
        let outcome = block_on(in_time(AT_ONCE, client.put(put("too late"))));
        let refused = outcome.expect("it is not left waiting").map(tonic::Response::into_inner);
        assert!(refused.is_err(), "{refused:?}");
        let told = block_on(in_time(AT_ONCE, stream.message())).expect("it is not left waiting");
        assert!(!matches!(told, Ok(Some(_))), "it has heard of a write behind its removal: {told:?}");
        assert_eq!(cluster.hosts[gone].ended(), 0, "{}", cluster.hosts[gone].log());
        assert!(block_on(kv_client(&cluster.hosts[gone])).is_err(), "nobody listens there");
        assert_eq!(read(&cluster, others[1], "too late"), None);
        write(&cluster, others[1], "in the end", "y");
    }
}

/// Who was away hears of its removal by being refused: nobody sends it the log any more.
#[test]
fn a_follower_that_is_removed_while_it_is_away_stops_by_itself() {
    let mut cluster = Cluster::start(3);
    let follower = (cluster.leader() + 1) % 3;
    let id = id_of(&cluster, follower);
    let other = (follower + 1) % 3;
    cluster.hosts[follower].kill();
    remove(&cluster.hosts[other], id).unwrap();
    cluster.hosts[follower].start(&[]);
    assert_eq!(cluster.hosts[follower].ended(), 0, "{}", cluster.hosts[follower].log());
    write(&cluster, other, "after", "x");
}

/// With one of three lost, the lost one may be removed and no other, and nobody may be added; nor where one of two is lost.
#[test]
fn changes_that_could_cost_the_majority_are_refused() {
    let mut cluster = Cluster::start(3);
    let new = cluster.add_host();
    let lose = |cluster: &mut Cluster, host: usize| {
        let noticed = |cluster: &Cluster| cluster.hosts[0].log().matches("lost the connection with").count();
        let before = noticed(cluster);
        cluster.hosts[host].kill();
        until("the loss is noticed", || (noticed(cluster) > before).then_some(()));
    };
    let is_unhealthy = |refusal: tonic::Status| {
        assert_eq!((refusal.code(), refusal.message()), (tonic::Code::Unavailable, UNHEALTHY));
    };
    let ids: Vec<u64> = (0..3).map(|host| id_of(&cluster, host)).collect();

    lose(&mut cluster, 2);
    // It takes longer to notice that somebody is silent than to trust in who is there: the other one counts by now.
    is_unhealthy(remove_now(&cluster.hosts[0], ids[1]).unwrap_err());
    is_unhealthy(remove_now(&cluster.hosts[0], ids[0]).unwrap_err());
    is_unhealthy(add_now(&cluster, new, false).unwrap_err());
    is_unhealthy(add_now(&cluster, new, true).unwrap_err());
    assert_eq!(remove_now(&cluster.hosts[0], ids[2]).unwrap().len(), 2);
    let learner = add(&cluster, new, true).unwrap();
    assert_eq!(remove_now(&cluster.hosts[0], learner).unwrap().len(), 2);

    lose(&mut cluster, 1);
    is_unhealthy(add_now(&cluster, new, false).unwrap_err());
    cluster.hosts[1].start(&[]);
    add(&cluster, new, false).unwrap();
}

/// Its connections last for many seconds more, and the leader knows better.
#[test]
fn who_is_silent_does_not_count() {
    const NOTICED: Duration = Duration::from_secs(3);
    let mut cluster = Cluster::start(3);
    let new = cluster.add_host();
    let leader = cluster.leader();
    let silent = (leader + 1) % 3;
    let add = |cluster: &Cluster| add_by(&cluster.hosts[leader], &cluster.hosts[new], false);
    let added = once_healthy(|| add(&cluster)).unwrap();
    remove_now(&cluster.hosts[leader], added).unwrap();

    cluster.hosts[silent].signal("-STOP");
    wait(NOTICED);
    let refused = add(&cluster).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (tonic::Code::Unavailable, UNHEALTHY));
    cluster.hosts[silent].signal("-CONT");
    once_healthy(|| add(&cluster)).unwrap();
}

#[test]
fn leadership_is_handed_to_the_member_that_was_named() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let heir = (leader + 1) % 3;
    let target_id = id_of(&cluster, heir);
    let ask = |host: usize, target_id: u64| {
        block_on(async {
            let mut client = maintenance_client(&cluster.hosts[host]).await.unwrap();
            client.move_leader(pb::MoveLeaderRequest { target_id }).await.map(|_| ())
        })
    };
    assert_eq!(ask(heir, target_id).unwrap_err().message(), "etcdserver: not leader");
    assert_eq!(ask(leader, 7).unwrap_err().message(), "etcdserver: bad leader transferee");
    ask(leader, target_id).unwrap();
    assert_eq!(cluster.leader(), heir);
    write(&cluster, leader, "key", "value");
}

/// Without the secret nobody gets in, and with another one neither.
#[test]
fn who_has_the_secret_takes_part_and_nobody_else() {
    let mut cluster = Cluster::prepare(3);
    let initial = cluster.initial();
    let secret = |cluster: &Cluster, text: &str| {
        let path = cluster.path(text);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) =
        (secret(&cluster, "0123456789abcdefghijkl"), secret(&cluster, "0123456789abcdefghijkX"));
    let with = |host: &mut Host, path: &str| {
        host.start(&["--initial-cluster", &initial, "--cluster-secret-file", path]);
    };
    with(&mut cluster.hosts[0], &right);
    with(&mut cluster.hosts[1], &right);
    with(&mut cluster.hosts[2], &wrong);
    until("it is told why", || cluster.hosts[0].log().contains("does not listen").then_some(()));
    assert!(!cluster.hosts[0].log().contains("founded a cluster"));
    cluster.hosts[2].kill();
    cluster.hosts[2].start(&["--initial-cluster", &initial]);
    until("without any it is told the same", || {
        cluster.hosts[2].log().contains("does not listen").then_some(())
    });
    cluster.hosts[2].kill();
    with(&mut cluster.hosts[2], &right);
    cluster.wait_ready();
    write(&cluster, 1, "key", "value");
    assert_eq!(read(&cluster, 2, "key").as_deref(), Some(&b"value"[..]));
}
