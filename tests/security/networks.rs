//! Networks that are not as plain as one cable with one address: another mDNS responder, no IPv4, two LANs, networks of containers.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::boxes::{FORMS, grown};
use crate::lan::{Lan, Side, address, until, wait};

/// Where Debian has it.
const AVAHI: &str = "/usr/sbin/avahi-daemon";

/// Another responder on a box, until it is dropped.
struct Avahi(Child);

impl Avahi {
    /// Starts it without the message bus, which others on the machine share, and waits until it has the port.
    fn beside(lan: &Lan, n: usize) -> Self {
        let path = lan.path(&format!("avahi{n}.conf"));
        let settings = format!(
            "[server]\nhost-name=avahi{n}\nuse-ipv4=yes\nuse-ipv6=yes\nenable-dbus=no\ndisallow-other-stacks=no\n[publish]\n[rlimits]\n"
        );
        std::fs::write(&path, settings).unwrap();
        // A /run of its own: there is one for each machine.
        let script =
            "mount -t tmpfs none /run && exec \"$0\" --file=\"$1\" --no-drop-root --no-chroot --no-rlimits";
        let mut command = lan.boxes[n].command("/usr/bin/unshare");
        command.args(["--mount", "/bin/sh", "-c", script, AVAHI]).arg(&path);
        let log = std::fs::File::create(lan.path(&format!("avahi{n}.log"))).unwrap();
        let child = command.env("PATH", "/usr/bin:/bin").stdout(Stdio::null()).stderr(log).spawn().unwrap();
        until("another responder", FORMS, || {
            let text = std::fs::read_to_string(lan.path(&format!("avahi{n}.log"))).unwrap();
            text.contains("Server startup complete").then_some(())
        });
        Self(child)
    }
}

impl Drop for Avahi {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn three_voters(lan: &Lan) {
    until("three voters", FORMS, || {
        let members = lan.boxes[0].members();
        (members.len() == 3 && members.iter().all(|(_, learns)| !learns)).then_some(())
    });
    for (n, one) in lan.boxes.iter().enumerate() {
        one.must(&["put", "from", &n.to_string()]);
    }
}

#[test]
#[ignore = "needs root, namespaces and avahi-daemon: .ci/run zero"]
fn another_responder_on_the_same_box_is_no_hindrance() {
    let mut lan = Lan::new(3);
    let first: Vec<Avahi> = (0..2).map(|n| Avahi::beside(&lan, n)).collect();
    lan.start(&[]);
    three_voters(&lan);
    // One that comes later, and others that go.
    let mut later = Avahi::beside(&lan, 2);
    drop(first);
    lan.boxes[1].kill();
    lan.boxes[1].start(&[]);
    until("the one that was away", FORMS, || lan.boxes[1].run(&["put", "from", "there"]).ok());
    assert!(later.0.try_wait().unwrap().is_none(), "it has ended");
}

/// No DHCP, no router: every interface has an address of the link all the same, and means something on it alone.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn addresses_of_the_link_are_enough() {
    let mut lan = Lan::new(3);
    for (n, one) in lan.boxes.iter().enumerate() {
        one.address("del", "eth0", &address(n));
    }
    lan.start(&[]);
    three_voters(&lan);
    let listed = lan.boxes[0].must(&["member", "list"]);
    assert!(!listed.contains("fe80"), "clients cannot use these: {listed}");
    // As after a power cut: the zones are those of this start.
    for one in &mut lan.boxes {
        one.kill();
    }
    lan.start(&[]);
    until("the cluster again", FORMS, || lan.boxes[1].run(&["put", "from", "there"]).ok());
}

/// One box on two LANs, and one on each of them.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_box_on_two_networks_is_found_on_both() {
    let mut lan = Lan::with(&[Side::Left, Side::Left, Side::Right]);
    lan.plug_in(0, "eth1", Side::Right);
    lan.boxes[0].address("add", "eth1", "10.77.0.1/24");
    lan.boxes[0].ip(&["link", "set", "eth1", "up"]);
    lan.boxes[2].address("del", "eth0", &address(2));
    lan.boxes[2].address("add", "eth0", "10.77.0.3/24");
    lan.boxes[0].start(&[]);
    grown(&lan, 0, 1);
    lan.boxes[1].start(&[]);
    lan.boxes[2].start(&[]);
    until("both", FORMS, || (lan.boxes[0].members().len() == 3).then_some(()));
    for n in [1, 2] {
        until("writes from both", FORMS, || lan.boxes[n].run(&["put", "from", &n.to_string()]).ok());
    }
    let listed = lan.boxes[0].must(&["member", "list"]);
    assert!(
        listed.contains("https://10.88.0.1:2379") && listed.contains("https://10.77.0.1:2379"),
        "{listed}"
    );
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn networks_of_containers_are_no_way_to_other_boxes() {
    for interface in ["docker0", "veth1234"] {
        let mut lan = Lan::with(&[Side::Left, Side::Right]);
        for n in 0..2 {
            lan.plug_in(n, interface, Side::Left);
            lan.boxes[n].address("add", interface, &format!("172.17.0.{}/16", n + 1));
            lan.boxes[n].ip(&["link", "set", interface, "up"]);
        }
        lan.start(&[]);
        for n in 0..2 {
            grown(&lan, n, 1);
        }
        wait(Duration::from_secs(3));
        for one in &lan.boxes {
            let listed = one.must(&["member", "list"]);
            assert!(listed.lines().count() == 1 && !listed.contains("172.17."), "{listed}");
        }
        // Whoever comes by it is nobody who is near.
        let urls = "https://172.17.0.1:2379";
        assert!(lan.boxes[1].run(&["--endpoints", urls, "get", "x"]).is_err());
    }
}
