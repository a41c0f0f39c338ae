//! A snapshot that a cluster of three is made from.

use crate::members::add;
use crate::process::{Cluster, until};

/// One node is restored, and the others join it: what they have comes from there. A disk that was lost with its whole cluster takes no more.
#[test]
fn a_snapshot_of_three_members_becomes_three_members_again() {
    let old = Cluster::start(3);
    for n in 0..30 {
        old.hosts[n % 3].must(&["put", &format!("key{}", n % 7), &n.to_string()]);
    }
    old.hosts[0].must(&["compact", "10"]);
    let file = old.path("saved");
    let file = file.to_str().unwrap();
    old.hosts[1].must(&["snapshot", "save", file]);
    let content = old.hosts[2].must(&["get", "", "--prefix"]);
    drop(old.hosts);

    let mut new = Cluster::prepare(3);
    let (name, named) = (new.hosts[0].name.clone(), new.hosts[0].named());
    let data_dir = new.hosts[0].data_dir.to_str().unwrap().to_owned();
    let restore = ["snapshot", "restore", file, "--data-dir", &data_dir];
    new.hosts[0].must(&[&restore[..], &["--name", &name, "--initial-cluster", &named]].concat());
    new.hosts[0].start(&["--initial-cluster", &named]);
    until("the first serves", || new.hosts[0].run(&["get", "ready"]).ok());
    for n in 1..3 {
        add(&new, n, false).unwrap();
        let initial = new.hosts[..=n].iter().map(crate::process::Host::named).collect::<Vec<_>>().join(",");
        new.hosts[n].start(&["--initial-cluster", &initial, "--initial-cluster-state", "existing"]);
        until("it serves", || new.hosts[n].run(&["get", "ready"]).ok());
    }
    for host in &new.hosts {
        assert_eq!(host.must(&["get", "", "--prefix"]), content, "{}", host.name);
    }
    // They vote, all of them: any may go.
    for n in 0..3 {
        new.hosts[n].kill();
        let other = &new.hosts[(n + 1) % 3];
        until("a write without one", || other.run(&["put", "after", &n.to_string()]).ok());
        new.hosts[n].start(&[]);
        new.wait_ready();
    }
    assert_eq!(new.hosts[0].must(&["get", "after", "--print-value-only"]), "2\n");
}
