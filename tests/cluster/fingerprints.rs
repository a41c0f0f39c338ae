//! Nodes that know each other by their keys, without a secret.

use crate::members::add;
use crate::process::{Cluster, Host, until};

/// Of the node that has this directory, or will have it.
fn fingerprint(cluster: &Cluster, name: &str) -> String {
    let data_dir = cluster.path(name);
    let printed = cluster.hosts[0].must(&["node", "fingerprint", "--data-dir", data_dir.to_str().unwrap()]);
    printed.trim_end().to_owned()
}

fn start(host: &mut Host, initial: &str, list: &str, more: &[&str]) {
    host.start(&[&["--initial-cluster", initial, "--peer-fingerprints", list], more].concat());
}

fn has_a_cluster(host: &Host) -> bool {
    ["founded a cluster", "joins a cluster"].iter().any(|words| host.log().contains(words))
}

/// That it is on this machine is not enough for whoever is not listed: neither to form a cluster, nor to join one.
#[test]
fn who_is_listed_takes_part_and_nobody_else() {
    let mut cluster = Cluster::prepare(3);
    let prints = ["m0", "m1", "m2", "m3"].map(|name| fingerprint(&cluster, name));
    let (initial, all) = (cluster.initial(), prints[..3].join(","));
    let without_last = format!("{},{},{}", prints[0], prints[1], fingerprint(&cluster, "stranger"));
    start(&mut cluster.hosts[0], &initial, &without_last, &[]);
    start(&mut cluster.hosts[1], &initial, &without_last, &[]);
    start(&mut cluster.hosts[2], &initial, &all, &[]);
    let unlisted = format!("the key {} is not among those of --peer-fingerprints", prints[2]);
    until("it is told why", || {
        cluster.hosts[2].log().contains(&format!("does not listen: {unlisted}")).then_some(())
    });
    for host in &cluster.hosts[..2] {
        until("they say whom they do not talk with", || host.log().contains(&unlisted).then_some(()));
        assert!(!has_a_cluster(host), "{}", host.log());
    }
    // As somebody may have typed them.
    for host in &mut cluster.hosts[..2] {
        host.kill();
        start(host, &initial, &all.replace(' ', "").to_uppercase(), &[]);
    }
    cluster.wait_ready();
    cluster.hosts[0].must(&["put", "key", "value"]);
    assert_eq!(cluster.hosts[2].must(&["get", "key"]), "key\nvalue\n");

    // One more has a place, and gets it from a member that lists its key.
    let new = cluster.add_host();
    add(&cluster, new, true).unwrap();
    let (initial, all) = (cluster.initial(), prints.join(","));
    start(&mut cluster.hosts[new], &initial, &all, &["--initial-cluster-state", "existing"]);
    let unlisted = format!("does not listen: the key {} is not among", prints[3]);
    until("it is told why", || (cluster.hosts[new].log().matches(&unlisted).count() >= 3).then_some(()));
    assert!(!has_a_cluster(&cluster.hosts[new]), "{}", cluster.hosts[new].log());
    cluster.hosts[1].signal("-TERM");
    assert_eq!(cluster.hosts[1].ended(), 0);
    cluster.hosts[1].start(&["--peer-fingerprints", &all]);
    until("it has what the others have", || cluster.hosts[new].run(&["get", "key"]).ok());
    assert!(has_a_cluster(&cluster.hosts[new]));
}
