//! Keys that were taken from boxes, and what who has them says of an operator's order.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use covey::app::{DataDir, OpenOptions, Opened, WhenFresh};
use covey::command::Tombstone;
use covey::discovery::{Announcement, Discovery, InterfaceRules, NodeAnnouncement, Options};
use covey::formation::{Answer, DiskOptions, Identity, NodeKey, Question, sign};
use covey::ids::{ClusterId, LogIndex};
use covey::peer::{Answerer, Forming, Near, Trust};
use covey::runtime::clock::Clock;
use covey::store::Dissolution;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use smol::block_on;

use crate::boxes::{FORMS, LONG_ENOUGH};
use crate::disk::copy;
use crate::lan::{Box, Lan, until, wait};

/// Where the test's own process, in a box's namespace, is told which directories were taken.
const TAKEN: &str = "COVEY_TAKEN";
/// The cluster that it says it is in.
const RISES: ClusterId = ClusterId(7);
const PORT: u16 = 2380;
/// Until a member that hears no leader asks what became of its cluster, and what it hears then is looked at.
const ASKS: Duration = Duration::from_secs(60);

fn identity_in(data_dir: &str) -> Identity {
    let options = OpenOptions { when_fresh: WhenFresh::Meet, disk: DiskOptions::default() };
    match DataDir::open(Path::new(data_dir), options) {
        Ok(Opened::Node(DataDir { content, .. })) => content.identity,
        _ => panic!("there is no cluster in {data_dir}"),
    }
}

/// Says that it is in another cluster, for which an operator has given up that of the keys. Not a test: it is what a test runs inside of a namespace.
#[test]
#[ignore = "what another test runs inside of a namespace: .ci/run zero"]
fn intruder() {
    let Ok(taken) = std::env::var(TAKEN) else { return };
    let end = Dissolution { winner: RISES, at: LogIndex(1 << 40), ordered: true };
    let word = |Identity { key, root, generation, .. }: Identity| sign(&key, root.id(), generation, end);
    let words: Vec<Tombstone> = taken.split(' ').map(identity_in).map(word).collect();
    let answerer: Answerer = Arc::new(move |_, _, question| {
        let answer = match question {
            Question::Fate { .. } => Answer::Buried(words.clone()),
            _ => Answer::Wait("not now".into()),
        };
        std::boxed::Box::pin(async move { answer })
    });
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = NodeKey::from_pkcs8(pkcs8.as_ref().to_vec()).unwrap();
    let clock = Clock::start();
    let trust = Trust { near: Some(Near(Arc::new(|_| true))), ..Trust::default() };
    let listen = std::net::SocketAddr::from(([0, 0, 0, 0], PORT)).into();
    let _port = Forming::start(&key, &listen, trust, answerer, clock).unwrap();
    let own = key.fingerprint();
    let options = Options { interfaces: InterfaceRules::new(Vec::new()), own, clock };
    let discovery = Discovery::start(options, Arc::new(|| {})).unwrap();
    let node = NodeAnnouncement { port: PORT, cluster: Some(RISES), name: "intruder".into() };
    discovery.announce(&Announcement { node: Some(node), client_port: None });
    block_on(std::future::pending::<()>());
}

/// That process, until it is dropped.
struct Intruder(Child);

impl Intruder {
    /// On this box, with what was copied from those.
    fn on(lan: &Lan, at: usize, taken: &[usize]) -> Self {
        let taken = taken.iter().map(|n| {
            let to = lan.path(&format!("taken-{}-{n}", taken.len()));
            copy(&lan.boxes[*n].data_dir, &to);
            to.to_str().unwrap().to_owned()
        });
        let taken = taken.collect::<Vec<_>>().join(" ");
        let own = std::env::current_exe().unwrap();
        let mut command = lan.boxes[at].command(own.to_str().unwrap());
        command.args(["orders::intruder", "--exact", "--ignored"]).env(TAKEN, taken);
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn has_left(one: &Box) -> bool {
    one.data_dir.join("archive").exists()
}

/// Two of three voters are off for a while, which is no reason for the third to leave what users have written, whoever says so with the key of one of them.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn the_key_of_one_member_takes_no_other_one_out_of_its_cluster() {
    let mut lan = Lan::new(4);
    lan.boxes[..3].iter_mut().for_each(|one| one.start(&[]));
    until("three voters", FORMS, || {
        let members = lan.boxes[0].members();
        (members.len() == 3 && members.iter().all(|(_, learns)| !learns)).then_some(())
    });
    lan.boxes[0].must(&["put", "before", "1"]);
    until("the write everywhere", FORMS, || lan.boxes[2].run(&["get", "before"]).ok());
    lan.boxes[..2].iter_mut().for_each(Box::kill);
    let intruder = Intruder::on(&lan, 3, &[0]);
    until("it says why it stays", ASKS, || lan.boxes[2].log().contains("cannot be believed").then_some(()));
    wait(LONG_ENOUGH);
    assert!(lan.boxes[2].is_running() && !has_left(&lan.boxes[2]));
    // The others come back, and nothing is lost.
    lan.boxes[0].start(&[]);
    until("a write with its vote", FORMS, || lan.boxes[2].run(&["put", "after", "2"]).ok());
    assert_eq!(lan.boxes[2].must(&["get", "before"]), "before\n1\n");
    lan.boxes[0].kill();
    drop(intruder);
    // Whoever has the keys of a majority has the cluster.
    let _intruder = Intruder::on(&lan, 3, &[0, 1]);
    until("it goes by two words", ASKS, || has_left(&lan.boxes[2]).then_some(()));
    assert!(lan.boxes[2].log().contains("while this member was away"));
}
