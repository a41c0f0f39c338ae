//! Judgements, over what is found.

use super::*;
use crate::discovery::Surveyed;

const PATH: &str = "/var/lib/covey";

/// A box on which all is well and no server runs.
fn well() -> Findings {
    let eth0 = Surveyed { name: "eth0".into(), addresses: vec!["10.0.0.1".parse().unwrap()], why_not: None };
    let lo = Surveyed { name: "lo".into(), addresses: Vec::new(), why_not: Some("it is the box itself") };
    Findings {
        data_dir: Some(DataDirFindings {
            mode: 0o700,
            is_own: true,
            free_bytes: 100 << 30,
            sync: Ok(Duration::from_millis(3)),
        }),
        interfaces: vec![eth0, lo],
        multicast: vec![("eth0".into(), Ok(()))],
        peer_port_is_bound: false,
        unix_seconds: YEAR_2024,
    }
}

/// What is found beside what is well, on a box that differs in this.
fn wrong(change: impl FnOnce(&mut Findings)) -> Vec<(Level, String)> {
    let mut findings = well();
    change(&mut findings);
    let checks = judge(Path::new(PATH), 2380, &findings, &Err("nobody".into()));
    let (no_server, rest) = checks.split_last().unwrap();
    assert!(no_server.found.contains("no covey answers"));
    for check in &checks {
        assert_eq!(check.level == Level::Ok, check.advice.is_empty(), "{check:?}");
    }
    rest.iter().filter(|check| check.level != Level::Ok).map(|c| (c.level, c.found.clone())).collect()
}

/// A change of the disk.
fn disk_with(change: impl FnOnce(&mut DataDirFindings)) -> Vec<(Level, String)> {
    wrong(|findings| change(findings.data_dir.as_mut().unwrap()))
}

fn assert_one(found: &[(Level, String)], level: Level, text: &str) {
    let [(of, what)] = found else { panic!("{text}: {found:?}") };
    assert!(*of == level && what.contains(text), "{text}: {found:?}");
}

#[test]
fn a_box_that_is_well_has_nothing_to_do() {
    assert_eq!(wrong(|_| {}), []);
}

#[test]
fn what_is_wrong_with_the_box_is_found() {
    let none = wrong(|f| f.interfaces.remove(0).addresses.clear());
    assert_one(&none, Level::Fail, "no interface leads to other boxes");
    let deaf = wrong(|f| f.multicast[0].1 = Err("timed out".into()));
    assert_one(&deaf, Level::Warn, "multicast does not come back on eth0");
    assert_one(&wrong(|f| f.peer_port_is_bound = true), Level::Warn, "UDP port 2380 is taken");
    assert_one(&wrong(|f| f.unix_seconds = YEAR_2024 - 1), Level::Warn, "before 2024");
    for late in [YEAR_2046, 253_402_300_800] {
        assert_one(&wrong(|f| f.unix_seconds = late), Level::Warn, "past 2045, decades ahead");
    }
    assert_eq!(wrong(|f| f.unix_seconds = YEAR_2046 - 1), []);
    assert_one(&wrong(|f| f.data_dir = None), Level::Warn, "there is no data directory /var/lib/covey");
}

#[test]
fn what_is_wrong_with_the_disk_is_found() {
    assert_one(&disk_with(|d| d.mode = 0o750), Level::Fail, "others may look into /var/lib/covey");
    assert_one(&disk_with(|d| d.is_own = false), Level::Warn, "another user's");
    assert_one(&disk_with(|d| d.sync = Ok(Duration::from_micros(20_100))), Level::Warn, "takes 20.1 ms");
    assert_one(&disk_with(|d| d.sync = Ok(Duration::from_secs(1))), Level::Fail, "takes 1000.0 ms");
    assert_one(&disk_with(|d| d.sync = Err("read-only".into())), Level::Fail, "cannot be written to");
    assert_one(&disk_with(|d| d.free_bytes = QUOTA_BYTES - 1), Level::Warn, "less than the quota");
    assert_one(&disk_with(|d| d.free_bytes = FREE_BYTES_MIN - 1), Level::Fail, "are free");
}

#[test]
fn what_the_server_knows_is_told() {
    let member = |id, reached| pb::Member {
        id,
        name: format!("box{id}"),
        fingerprint: "ab".into(),
        votes: true,
        reached,
        ..pb::Member::default()
    };
    let seen = pb::Sighting {
        name: "box9".into(),
        why: "it is in another cluster".into(),
        ..pb::Sighting::default()
    };
    let cluster = pb::Cluster {
        member: 1,
        leader: 1,
        members: vec![member(1, true), member(2, true), member(3, false)],
        ..pb::Cluster::default()
    };
    let status =
        pb::StatusResponse { cluster: Some(cluster), seen: vec![seen], ..pb::StatusResponse::default() };
    let alone = pb::Cluster { leader: 1, outdated_clients: 1, ..pb::Cluster::default() };
    let alone = pb::StatusResponse {
        cluster: Some(alone),
        other_hardware: "disk".into(),
        ..pb::StatusResponse::default()
    };
    let checks = judge(Path::new(PATH), 2380, &well(), &Ok(alone));
    for remark in ["clients to be renewed", "this box is other hardware"] {
        let check = checks.iter().find(|check| check.found.starts_with(remark)).unwrap();
        assert!(check.level == Level::Warn && !check.advice.is_empty(), "{check:?}");
    }
    let findings = Findings { peer_port_is_bound: true, ..well() };
    let checks = judge(Path::new(PATH), 2380, &findings, &Ok(status.clone()));
    let found = |text: &str| checks.iter().find(|check| check.found.contains(text)).map(|check| check.level);
    assert_eq!(found("box2 at  is reached"), Some(Level::Ok));
    assert_eq!(found("box3 at  is not reached"), Some(Level::Fail));
    assert_eq!(found("degraded: box3"), Some(Level::Fail));
    assert_eq!(found("it is in another cluster"), Some(Level::Warn));
    assert!(!is_well(&checks));
    let deaf = judge(Path::new(PATH), 2380, &well(), &Ok(status));
    assert!(deaf.iter().any(|check| check.found.contains("nobody listens on UDP port 2380")));
    let cluster =
        pb::Cluster { member: 1, leader: 1, members: vec![member(1, true)], ..pb::Cluster::default() };
    let alone = |automatic| {
        let cluster = Some(pb::Cluster { automatic, ..cluster.clone() });
        let status = pb::StatusResponse { cluster, ..pb::StatusResponse::default() };
        judge(Path::new(PATH), 2380, &well(), &Ok(status))
            .iter()
            .filter(|check| check.level != Level::Ok)
            .count()
    };
    assert_eq!(
        alone(false),
        0,
        "a cluster of one that nobody joins by himself needs neither port nor others"
    );
    assert_eq!(alone(true), 2);
}

#[test]
fn findings_are_lines_with_what_to_do_below_them() {
    let checks = [ok("fine"), warn("odd", "look"), fail("bad", "act")];
    let mut out = Vec::new();
    write(&mut out, Format::Simple, &checks).unwrap();
    let expected = "OK    fine\nWARN  odd\n      -> look\nFAIL  bad\n      -> act\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    assert!(is_well(&checks[..2]) && !is_well(&checks));
}
