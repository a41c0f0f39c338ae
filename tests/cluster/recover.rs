//! A cluster that has lost its majority for good.

use std::fs;
use std::process::{Command, Stdio};

use crate::members::add;
use crate::process::{Cluster, until};

fn recover(cluster: &Cluster, host: usize, more: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
    command.args(["recover", "--data-dir"]).arg(&cluster.hosts[host].data_dir).args(more).env_clear();
    outcome(command)
}

fn outcome(mut command: Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.success(), text)
}

#[test]
fn one_member_goes_on_alone_and_the_others_are_fenced_off() {
    let mut cluster = Cluster::start(3);
    for n in 0..20 {
        cluster.hosts[n % 3].must(&["put", &format!("key{n}"), "value"]);
    }
    let names: Vec<String> = cluster.hosts.iter().map(|host| host.name.clone()).collect();
    let (refused, said) = recover(&cluster, 0, &["--yes"]);
    assert!(!refused && said.contains("another process"), "it runs: {said}");
    for host in &mut cluster.hosts {
        host.kill();
    }

    let (done, said) = recover(&cluster, 0, &[]);
    assert!(!done && said.contains("nothing was changed"), "{said}");
    assert!(said.contains(&names[1]) && said.contains(&names[2]), "it says whom it would drop: {said}");
    // Told nothing but what serve is told: by a file, and by a variable that wins over it.
    let settings = cluster.path("covey.toml");
    fs::write(&settings, "data-dir = \"/nowhere\"\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
    command.args(["recover", "--yes", "--config-file"]).arg(&settings).env_clear();
    command.env("COVEY_DATA_DIR", &cluster.hosts[0].data_dir);
    let (done, said) = outcome(command);
    assert!(done && said.contains("is the only one of generation 2"), "{said}");

    cluster.hosts[0].start(&[]);
    until("it serves alone", || cluster.hosts[0].run(&["put", "after", "x"]).ok());
    for n in 0..20 {
        cluster.hosts[0].must(&["get", &format!("key{n}")]);
    }
    // One of the others comes back, where it is expected with an empty disk. It must not be told that it was removed, or a node that
    // was recovered by mistake could end those that have a majority.
    cluster.hosts[1].start(&[]);
    add(&cluster, 1, false).unwrap();
    let why = "it is in generation 1 of the cluster, not in generation 2";
    until("it is refused", || cluster.hosts[1].log().contains(why).then_some(()));
    assert!(cluster.hosts[1].run(&["put", "stale", "x"]).is_err(), "it has no majority");
    assert_eq!(cluster.hosts[0].must(&["get", "stale"]), "");
    cluster.hosts[1].kill();

    fs::remove_dir_all(&cluster.hosts[1].data_dir).unwrap();
    let initial = format!("{},{}", cluster.hosts[0].named(), cluster.hosts[1].named());
    cluster.hosts[1].start(&["--initial-cluster", &initial, "--initial-cluster-state", "existing"]);
    until("it is one of the new generation", || cluster.hosts[1].run(&["put", "both", "x"]).ok());
    assert_eq!(cluster.hosts[0].must(&["get", "both"]), "both\nx\n");
}
