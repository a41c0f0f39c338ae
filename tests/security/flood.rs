//! Many who want to be let in, under ever new keys, from one address and from many.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::time::Duration;

use covey::command::{CharterCommand, CommandVersion};
use covey::formation::Question;
use covey::ids::Incarnation;
use smol::future::or;
use smol::{Timer, block_on};

use crate::boxes::{FORMS, file, fingerprint, grown, typed_fingerprint};
use crate::lan::{Lan, until, wait};
use crate::nodes::{SECRET, memory_of};
use crate::operator;
use crate::wire::{Stranger, Taken};

/// Where the test's own process, in a box's namespace, is told whom to ask and from where.
const ORDERS: &str = "COVEY_FLOOD";
/// So many ask at the same time.
const AT_ONCE: usize = 40;
const ADDRESSES: usize = 24;
/// What is taken at most for any number of them.
const GROWTH_MAX: u64 = 48 << 20;

/// Asks without end. Not a test: it is what a test runs inside of a namespace.
#[test]
#[ignore = "what other tests run inside of a namespace: .ci/run zero"]
fn intruder() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let (to, from) = orders.split_once(' ').unwrap();
    let to: SocketAddr = to.parse().unwrap();
    let from: Vec<IpAddr> = from.split(' ').map(|address| address.parse().unwrap()).collect();
    for n in 0..AT_ONCE {
        let address = from[n % from.len()];
        smol::spawn(async move {
            loop {
                let (name, peer_urls) = ("intruder".repeat(30), vec![format!("https://{address}:2380"); 16]);
                let question = Question::Join {
                    name,
                    peer_urls,
                    claim: Vec::new(),
                    run: Incarnation(1),
                    understands: CommandVersion::understood(),
                };
                let stranger = Stranger::at(address);
                let asked = stranger.ask(to, None, &question);
                // Who is not answered at once tries again as somebody else.
                let late = async {
                    Timer::after(Duration::from_millis(500)).await;
                    Taken::Silence
                };
                match or(asked, late).await {
                    Taken::Answer(_) => println!("answered"),
                    _ => println!("turned away"),
                }
            }
        })
        .detach();
    }
    block_on(std::future::pending::<()>());
}

/// The process that asks, until it is dropped.
struct Flood {
    child: Child,
    answers: std::path::PathBuf,
}

impl Flood {
    fn begin(lan: &Lan, n: usize, from: &[String]) -> Self {
        let answers = lan.path("answers");
        let out = std::fs::File::create(&answers).unwrap();
        let own = std::env::current_exe().unwrap();
        let mut command = lan.boxes[n].command(own.to_str().unwrap());
        command.args(["flood::intruder", "--exact", "--ignored", "--nocapture"]);
        command.env(ORDERS, format!("10.88.0.1:2380 {}", from.join(" ")));
        let child = command.stdout(out).stderr(Stdio::null()).spawn().unwrap();
        Self { child, answers }
    }

    fn answers(&self) -> usize {
        self.count("answered")
    }

    /// How often it has asked and knows what came of it.
    fn questions(&self) -> usize {
        self.answers() + self.count("turned away")
    }

    fn count(&self, outcome: &str) -> usize {
        std::fs::read_to_string(&self.answers).unwrap().matches(outcome).count()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Its own address and more of them, which it is given.
fn addresses_of(lan: &Lan, n: usize, count: usize) -> Vec<String> {
    let mut all = vec![format!("10.88.0.{}", n + 1)];
    for more in 1..count {
        let address = Ipv4Addr::new(10, 88, 0, u8::try_from(100 + more).unwrap());
        lan.boxes[n].address("add", "eth0", &format!("{address}/24"));
        all.push(address.to_string());
    }
    all
}

/// A sealed cluster that one box may join, while another one asks and asks.
fn flooded(addresses: usize) {
    let mut lan = Lan::new(3);
    lan.boxes[0].start(&["--trust", "locked"]);
    grown(&lan, 0, 1);
    lan.boxes[2].start(&["--trust", "locked"]);
    until("its key", FORMS, || lan.boxes[2].data_dir.join("identity.0").exists().then_some(()));
    lan.boxes[0].signal("-TERM");
    lan.boxes[0].ended(FORMS);
    lan.boxes[2].kill();
    let (fingerprint, first) = (fingerprint(&lan, 2), typed_fingerprint(&lan, 0));
    operator::decide(&lan.boxes[0].data_dir, &[CharterCommand::Approve { fingerprint }]);
    let from = addresses_of(&lan, 1, addresses);
    lan.boxes[0].start(&["--trust", "locked"]);
    grown(&lan, 0, 1);
    let before = memory_of(lan.boxes[0].pid());
    let flood = Flood::begin(&lan, 1, &from);
    until("a flood", FORMS, || (flood.answers() > 100).then_some(()));
    lan.boxes[2].start(&["--trust", "locked", "--peer-fingerprints", &first]);
    until("the box that may join", FORMS, || {
        lan.boxes[0].must(&["put", "served", "meanwhile"]);
        (lan.boxes[2].members().len() == 2).then_some(())
    });
    let (asked, after) = (flood.questions(), memory_of(lan.boxes[0].pid()));
    wait(Duration::from_secs(5));
    let later = memory_of(lan.boxes[0].pid());
    // Who asks too often from one address may not be answered for minutes, but has not gone.
    until("more of the flood", FORMS, || (flood.questions() > asked + AT_ONCE).then_some(()));
    assert!(after.max(later) < before + GROWTH_MAX, "{before} bytes before, {after} and {later} under it");
    drop(flood);
    let names: Vec<String> = lan.boxes[0].members().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["box0", "box2"]);
    assert!(lan.boxes[0].is_running());
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_flood_of_joins_from_one_address_keeps_nobody_out() {
    flooded(1);
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_flood_of_joins_from_many_addresses_keeps_nobody_out() {
    flooded(ADDRESSES);
}

/// Who has no fleet key is nobody, also while there is no cluster yet.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_flood_of_strangers_does_not_keep_a_fleet_from_forming() {
    let mut lan = Lan::new(4);
    let key = file(&lan, "key", SECRET);
    let flood = Flood::begin(&lan, 3, &addresses_of(&lan, 3, ADDRESSES));
    for one in &mut lan.boxes[..3] {
        one.start(&["--cluster-secret-file", &key]);
    }
    grown(&lan, 0, 3);
    let before = memory_of(lan.boxes[0].pid());
    wait(Duration::from_secs(8));
    lan.boxes[0].must(&["put", "served", "meanwhile"]);
    lan.boxes[1].must(&["put", "served", "there"]);
    let after = memory_of(lan.boxes[0].pid());
    assert!(after < before + GROWTH_MAX, "{before} bytes before, {after} after");
    assert_eq!(flood.answers(), 0, "strangers were answered");
    assert!(flood.count("turned away") > 200, "the flood was none");
    assert!(lan.boxes[0].log().matches("not shown").count() < 1000, "the log grows with strangers");
}
