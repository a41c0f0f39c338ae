//! What runs in a namespace: this test program once more, with a discovery that does what it is told and prints what it sees.
//!
//! Owns: the commands and the state on a line. Must never: do anything when it was not started by `lan`.

use std::io::stdin;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use covey::discovery::{Announcement, Discovery, InterfaceRules, NodeAnnouncement, OnNews, Options, Search};
use covey::formation::Fingerprint;
use covey::ids::{ClusterId, PublicKey};
use covey::runtime::clock::Clock;
use smol::Timer;
use smol::future::or;

/// Names the variable with the number of the node's key and the interfaces that it asks for.
pub const ROLE: &str = "COVEY_DISCOVERY";
/// What a line with a state begins with, after whatever the test harness has printed.
pub const STATE: &str = "STATE ";

fn print_state(discovery: &Discovery, endpoints: &str) {
    let addresses = |texts: Vec<String>| texts.join(",");
    let mut parts: Vec<String> = discovery
        .sightings()
        .into_iter()
        .map(|seen| {
            let at = addresses(seen.addresses.iter().map(ToString::to_string).collect());
            format!("node {}@{} {at};", seen.name, seen.cluster.unwrap_or_default())
        })
        .collect();
    parts.sort();
    parts.extend(discovery.interfaces().into_iter().map(|interface| {
        let at = addresses(interface.addresses.iter().map(ToString::to_string).collect());
        format!("interface {} {at};", interface.name)
    }));
    println!("{STATE}{}{endpoints}", parts.concat());
}

/// What is heard in a while.
fn find(rules: &InterfaceRules) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    let mut search = Search::start(rules).unwrap().expect("there is an interface");
    smol::block_on(or(
        async {
            while let Some(address) = search.next().await {
                found.push(address);
            }
        },
        async {
            Timer::after(Duration::from_secs(3)).await;
        },
    ));
    found
}

#[test]
#[ignore = "is started by the other tests, in namespaces"]
fn a_namespace() {
    let Ok(role) = std::env::var(ROLE) else { return };
    // As the program has it: a panic of any thread ends the process, and is not made up for by another daemon.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
    let mut words = role.split_whitespace();
    let own = Fingerprint::of(&PublicKey([words.next().unwrap().parse().unwrap(); 32]));
    let rules = InterfaceRules::new(words.map(str::to_owned).collect());
    let clock = Clock::start();

    let shown: Arc<Mutex<(Option<Arc<Discovery>>, String)>> = Arc::default();
    let show = {
        let shown = Arc::clone(&shown);
        move || {
            let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(discovery) = &shown.0 {
                print_state(discovery, &shown.1);
            }
        }
    };
    let on_news: OnNews = Arc::new(show.clone());
    let options = Options { interfaces: rules.clone(), own, clock };
    let discovery = Arc::new(Discovery::start(options, on_news).unwrap());
    shown.lock().unwrap().0 = Some(Arc::clone(&discovery));
    show();

    for command in stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = command.split(' ').collect();
        match words[0] {
            "announce" => {
                let cluster = words[3].parse().ok().filter(|id| *id != 0).map(ClusterId);
                let node =
                    NodeAnnouncement { port: words[1].parse().unwrap(), cluster, name: words[2].to_owned() };
                let client_port = words[4].parse().ok().filter(|port| *port != 0);
                discovery.announce(&Announcement { node: Some(node), client_port });
            }
            "withdraw" => discovery.announce(&Announcement::default()),
            "find" => {
                let found: Vec<_> = find(&rules).iter().map(ToString::to_string).collect();
                shown.lock().unwrap().1 = format!("endpoints - {};", found.join(","));
                show();
            }
            other => panic!("{other}"),
        }
    }
    let held = shown.lock().unwrap().0.take();
    drop((held, discovery));
}
