//! What operators do: they look, close the door, and let single boxes in.

use std::time::Duration;

use serde_json::Value;

use crate::forming::are_one;
use crate::lan::{Box, Lan, Side, address, now, until, wait};

/// A box that looks for a while, founds or is let in.
const JOINS: Duration = Duration::from_secs(40);
/// In so long a box would have come in that may.
const STAYS_OUT: Duration = Duration::from_secs(12);

/// Whoever founds alone waits that long with the first write.
const FIRST_WRITE: Duration = Duration::from_secs(60);
/// A window of a minute, the minute in which its time is noted at the latest, and some.
const CLOSES: Duration = Duration::from_secs(150);
/// Two tries that lead nowhere, and all that is heard meanwhile.
const GIVES_UP: Duration = Duration::from_secs(20);

/// The exit code of `covey status`, and what it says.
fn status(one: &Box) -> (i32, Value) {
    let (code, printed) = one.exit(&["status", "-w", "json"]);
    (code, serde_json::from_str(&printed).unwrap_or_default())
}

/// Two boxes that are one cluster, which lets nobody in by itself; the other boxes are not on.
fn sealed(boxes: usize) -> Lan {
    let mut lan = Lan::new(boxes);
    lan.boxes[0].start(&[]);
    lan.boxes[1].start(&[]);
    until("a cluster of two", JOINS, || are_one(&lan.boxes[..2], 2, 1));
    lan.boxes[0].must(&["window", "close"]);
    lan
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_box_says_how_it_stands_before_and_after_it_has_a_cluster() {
    let mut lan = Lan::new(2);
    lan.boxes[0].start(&[]);
    let gathers = |one: &Box| {
        let (code, says) = status(one);
        (code == 1 && says["waits_for"].as_str().is_some_and(|text| !text.is_empty())).then_some(says)
    };
    let says = until("a status without a cluster", JOINS, || gathers(&lan.boxes[0]));
    assert_eq!(
        (&says["healthy"], &says["cluster"], &says["name"]),
        (&false.into(), &Value::Null, &"box0".into())
    );
    let fingerprint = says["fingerprint"].as_str().unwrap().to_owned();
    assert_eq!(fingerprint.len(), 64);
    let refused = lan.boxes[0].run(&["put", "a", "b"]).unwrap_err();
    assert!(refused.contains("this node is in no cluster yet"), "{refused}");

    let alone = until("a cluster of one", JOINS, || {
        let (code, says) = status(&lan.boxes[0]);
        (code == 0).then_some(says)
    });
    assert_eq!(alone["cluster"]["members"][0]["fingerprint"], fingerprint.as_str());
    let line = lan.boxes[0].must(&["status"]);
    assert!(line.starts_with("healthy: 1 voter, leader box0; provisional; open for "), "{line}");
    // The window does close: time is counted.
    let open = |says: &Value| says["cluster"]["open_seconds"].as_u64().unwrap();
    let founded = open(&alone);
    until("less of the window", JOINS, || (open(&status(&lan.boxes[0]).1) < founded).then_some(()));

    lan.boxes[1].start(&[]);
    until("a cluster of two", JOINS, || are_one(&lan.boxes, 2, 1));
    for one in &lan.boxes {
        let line = until("good health", JOINS, || one.run(&["status"]).ok());
        assert!(line.starts_with("healthy: 1 voter, 1 learner, leader box0; "), "{line}");
    }
    lan.boxes[1].kill();
    let line = until("a verdict on a box that is away", JOINS, || {
        let (code, line) = lan.boxes[0].exit(&["status"]);
        (code == 1).then_some(line)
    });
    assert!(
        line.starts_with("degraded: box1 not reached; leader box0; ") && line.contains("next: "),
        "{line}"
    );
}

/// What the doctor finds on a box: whether all is well, and the levels of findings that contain a text.
pub fn doctor(one: &Box) -> (i32, impl Fn(&str) -> Vec<String> + use<>) {
    let (code, printed) = one.exit(&["doctor", "--data-dir", one.data_dir.to_str().unwrap(), "-w", "json"]);
    let says: Value = serde_json::from_str(&printed).unwrap();
    let checks = says["checks"].as_array().unwrap().clone();
    let levels = move |text: &str| {
        let with = checks.iter().filter(|check| check["found"].as_str().unwrap().contains(text));
        with.map(|check| check["level"].as_str().unwrap().to_owned()).collect()
    };
    (code, levels)
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn the_doctor_finds_what_keeps_boxes_apart() {
    let mut lan = Lan::new(2);
    let (code, levels) = doctor(&lan.boxes[0]);
    assert_eq!(
        (code, levels("no covey answers"), levels("UDP port 2380 is free")),
        (0, vec!["WARN".into()], vec!["OK".into()])
    );
    lan.start(&[]);
    until("a cluster of two", JOINS, || are_one(&lan.boxes, 2, 1));
    until("a clean bill of health", JOINS, || (doctor(&lan.boxes[0]).0 == 0).then_some(()));
    let (_, levels) = doctor(&lan.boxes[0]);
    for well in [
        "interface eth0 counts: 10.88.0.1",
        "multicast leaves",
        "UDP port 2380 is listened on",
        "is reached",
        "owner alone",
    ] {
        assert_eq!(levels(well), ["OK"], "{well}");
    }
    lan.boxes[1].block_udp(2380);
    until("the one that is not reached", JOINS, || {
        let (code, levels) = doctor(&lan.boxes[0]);
        (code == 1 && levels("box1 at https://10.88.0.2:2380 is not reached") == ["FAIL"]).then_some(())
    });
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_box_waits_at_a_sealed_cluster_until_it_is_approved() {
    let mut lan = sealed(3);
    lan.boxes[2].start(&[]);
    let pending = |one: &Box| {
        let listed = one.must(&["node", "pending"]);
        let (fingerprint, name) = listed.lines().next()?.split_once(", ")?;
        assert!(name.starts_with("box2, https://10.88.0.3:2380, asked "), "{listed}");
        Some(fingerprint.to_owned())
    };
    let fingerprint = until("a box that waits", JOINS, || pending(&lan.boxes[0]));
    // Whichever of them it has asked: the others say so.
    assert_eq!(pending(&lan.boxes[1]).as_ref(), Some(&fingerprint));
    let shown = |n: usize| {
        until("the box that waits, in what each member shows", JOINS, || {
            let (code, says) = status(&lan.boxes[n]);
            (says["cluster"]["pending"][0]["name"] == "box2").then_some((code, says))
        })
    };
    let known =
        lan.boxes[2].must(&["node", "fingerprint", "--data-dir", lan.boxes[2].data_dir.to_str().unwrap()]);
    assert_eq!(known.trim_end(), fingerprint, "what is compared is the same text");
    let (code, says) = status(&lan.boxes[2]);
    assert!(code == 1 && says["waits_for"].as_str().unwrap().contains("covey node approve"), "{says}");
    for n in 0..2 {
        let (code, says) = shown(n);
        assert_eq!(
            (code, &says["cluster"]["pending"][0]["fingerprint"]),
            (0, &fingerprint.replace(' ', "").into()),
            "who waits is no illness"
        );
    }
    wait(STAYS_OUT);
    assert!(are_one(&lan.boxes[..2], 2, 1).is_some(), "nobody came in by itself");
    let learner = usize::from(lan.boxes[0].members()[1].1);
    lan.boxes[learner].kill();
    let listed = lan.boxes[1 - learner].must(&["node", "pending", "-w", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["silent"], serde_json::json!([format!("box{learner}")]), "{listed}");
    lan.boxes[learner].start(&[]);
    lan.boxes[1 - learner].must(&["node", "approve", &fingerprint]);
    until("three voters", JOINS, || are_one(&lan.boxes, 3, 3));
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_window_that_is_opened_lets_in_who_waits_and_is_closed_again() {
    let mut lan = sealed(4);
    let is_sealed = |one: &Box| one.run(&["status"]).is_ok_and(|said| said.contains("; sealed"));
    let waits = |one: &Box, name: &str| one.run(&["node", "pending"]).is_ok_and(|said| said.contains(name));
    assert!(is_sealed(&lan.boxes[0]));
    lan.boxes[2].start(&[]);
    until("a box that waits", JOINS, || waits(&lan.boxes[0], "box2").then_some(()));
    assert!(are_one(&lan.boxes[..2], 2, 1).is_some(), "nobody came in by itself");
    lan.boxes[1].must(&["window", "open", "1m"]);
    until("three voters", JOINS, || are_one(&lan.boxes[..3], 3, 3));
    assert!(!is_sealed(&lan.boxes[0]), "who came in has shut no window");
    until("the end of the window", CLOSES, || is_sealed(&lan.boxes[0]).then_some(()));
    lan.boxes[3].start(&[]);
    until("another one that waits", JOINS, || waits(&lan.boxes[0], "box3").then_some(()));
    wait(STAYS_OUT);
    assert!(are_one(&lan.boxes[..3], 3, 3).is_some(), "nobody came in afterwards");
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_token_lets_one_box_into_a_sealed_cluster_and_no_other() {
    let mut lan = sealed(4);
    let token = lan.boxes[0].must(&["token", "create", "--ttl", "10m"]);
    let listed = lan.boxes[1].must(&["token", "list"]);
    assert!(listed.contains(", good for 10 min\n") && !listed.contains(token.trim()), "{listed}");
    let (good, wrong) = (lan.path("good"), lan.path("wrong"));
    std::fs::write(&good, &token).unwrap();
    std::fs::write(&wrong, format!("covey-{}\n", "a".repeat(26))).unwrap();
    let with = |path: &std::path::Path| ["--join-token-file".to_owned(), path.to_str().unwrap().to_owned()];
    let start = |one: &mut Box, path| one.start(&with(path).each_ref().map(String::as_str));

    start(&mut lan.boxes[2], &wrong);
    wait(STAYS_OUT);
    assert!(are_one(&lan.boxes[..2], 2, 1).is_some(), "a token that was made up is none");
    let says_what_helps = |one: &Box, why: &str| {
        let (code, says) = status(one);
        let said = says["waits_for"].as_str().unwrap_or_default();
        let helps = ["covey token create", "--join-token-file", why];
        assert!(code == 1 && helps.iter().all(|what| said.contains(what)), "{code} {says}");
    };
    says_what_helps(&lan.boxes[2], "no such join token");
    lan.boxes[2].kill();
    start(&mut lan.boxes[2], &good);
    until("three voters", JOINS, || are_one(&lan.boxes[..3], 3, 3));
    let listed = lan.boxes[1].must(&["token", "list"]);
    assert!(listed.contains(", used by "), "{listed}");

    start(&mut lan.boxes[3], &good);
    wait(STAYS_OUT);
    assert!(are_one(&lan.boxes[..3], 3, 3).is_some(), "a token is used once");
    says_what_helps(&lan.boxes[3], "the token was used");
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_client_connects_to_another_box_by_its_bundle_until_it_is_revoked() {
    let mut lan = sealed(3);
    let bundle = lan.path("bundle");
    let dir = bundle.to_str().unwrap();
    until("an authority", JOINS, || {
        lan.boxes[0].run(&["client", "issue", "ci", "--out", dir]).ok().map(drop)
    });
    // It waits to be let in meanwhile, and is a client like any other.
    lan.boxes[2].start(&[]);
    let outsider = &lan.boxes[2];
    let put = |value: &str| outsider.run(&["--bundle", dir, "put", "from-afar", value]);
    until("an answer by TLS", JOINS, || put("1").ok());
    assert_eq!(lan.boxes[1].must(&["get", "from-afar"]), "from-afar\n1\n");
    // It may look, and change nothing that matters to the cluster.
    outsider.must(&["--bundle", dir, "token", "list"]);
    let refused = outsider.run(&["--bundle", dir, "token", "create"]).unwrap_err();
    assert!(refused.contains("this is for the operator of a box"), "{refused}");
    assert!(lan.boxes[1].must(&["client", "list"]).starts_with("ci, "));
    lan.boxes[1].must(&["client", "revoke", "ci"]);
    until("the end of its rights", JOINS, || put("2").err());
    assert_eq!(lan.boxes[1].must(&["client", "list"]), "");
}

/// Two clusters on one LAN, which both say that they serve clients, and a box that runs nothing and has a bundle of one of them.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_client_with_a_bundle_finds_its_cluster_among_others_without_an_address() {
    let mut lan = Lan::with(&[Side::Left, Side::Right, Side::Left]);
    lan.boxes[..2].iter_mut().for_each(|one| one.start(&[]));
    for n in 0..2 {
        until("a cluster of one", JOINS, || are_one(&lan.boxes[n..=n], 1, 1));
        until("the first write", FIRST_WRITE, || lan.boxes[n].run(&["put", "whose", &n.to_string()]).ok());
    }
    lan.join();
    let bundles = [lan.path("of-the-first"), lan.path("of-the-second")];
    for (n, bundle) in bundles.iter().enumerate() {
        let dir = bundle.to_str().unwrap();
        until("an authority", JOINS, || {
            lan.boxes[n].run(&["client", "issue", "ci", "--out", dir]).ok().map(drop)
        });
    }
    let outsider = &lan.boxes[2];
    let get = |n: usize| {
        let began = now();
        let found = outsider.run(&["--bundle", bundles[n].to_str().unwrap(), "get", "whose"]);
        (found, began.elapsed())
    };
    let expected = |n: usize| format!("whose\n{n}\n");
    // A bundle that does not say where.
    for (n, bundle) in bundles.iter().enumerate() {
        std::fs::remove_file(bundle.join("endpoints")).unwrap();
        until("an answer of the own cluster", JOINS, || get(n).0.ok().filter(|found| *found == expected(n)));
    }
    // One that says where it was.
    std::fs::write(bundles[0].join("endpoints"), format!("https://{}:2379\n", host(0))).unwrap();
    assert_eq!(get(0).0.unwrap(), expected(0));
    lan.boxes[0].address("del", "eth0", &address(0));
    lan.boxes[0].address("add", "eth0", "10.88.0.77/24");
    until("an answer from another address", JOINS, || get(0).0.ok().filter(|found| *found == expected(0)));

    // The other cluster is there and says so, and is not taken for it.
    lan.boxes[0].signal("-KILL");
    let refused = until("nobody", JOINS, || {
        let (found, took) = get(0);
        assert!(took < GIVES_UP, "{took:?}");
        found.err().filter(|error| error.contains("heard on the LAN by mDNS"))
    });
    let named = [host(0), host(1), "UnknownIssuer".to_owned()];
    assert!(named.iter().all(|what| refused.contains(what)), "{refused}");
    assert_eq!(get(1).0.unwrap(), expected(1));
    // Without any bundle it is this box that is meant, as ever.
    let refused = outsider.run(&["get", "whose"]).unwrap_err();
    assert!(refused.contains("cannot connect to 127.0.0.1:2379"), "{refused}");
}

/// The address that a box begins with, without its network.
fn host(n: usize) -> String {
    address(n).split('/').next().unwrap().to_owned()
}
