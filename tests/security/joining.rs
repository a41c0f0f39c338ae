//! The members' port under the hands of strangers: what is no message, what was recorded, who may not ask, and how much of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use covey::command::CommandVersion;
use covey::formation::{Answer, Candidate, ClusterSecret, Introduction, JoinToken, Question, View};
use covey::ids::{ClusterId, Incarnation, PublicKey};
use covey::prng::Prng;
use smol::block_on;
use smol::future::zip;

use crate::nodes::{Pair, secret};
use crate::wire::{JOINING, MEMBERS, Shown, Stranger, Taken, say, shown_key};

/// The longest message that is read (`peer::forming`).
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// What a process may take more than before, whatever was sent: allocators keep some.
const GROWTH_MAX: u64 = 24 << 20;
/// Strangers have a burst of 16 for each address.
const ASKS_OF_ONE: usize = 12;

/// The `n`th of many addresses of this machine.
fn address(n: usize) -> IpAddr {
    let [.., high, low] = u32::try_from(n + 2).unwrap().to_be_bytes();
    Ipv4Addr::new(127, 0, high, low).into()
}

fn name() -> String {
    "stranger".into()
}

fn join(claim: &[u8]) -> Question {
    Question::Join {
        name: name(),
        peer_urls: vec!["http://127.0.0.1:1".into()],
        claim: claim.to_vec(),
        run: Incarnation(1),
        understands: CommandVersion::understood(),
    }
}

/// One of each kind.
fn questions() -> Vec<Question> {
    let view = View::of([crate::wire::new_key().fingerprint(), crate::wire::new_key().fingerprint()]);
    let peer_urls = vec!["http://127.0.0.1:1".to_owned()];
    let node = Candidate { key: PublicKey([7; 32]), name: name(), peer_urls: peer_urls.clone() };
    vec![
        Question::Meets(Introduction { name: name(), peer_urls, named: [7; 32] }),
        Question::Probe { name: name(), over: Some(7), view: view.clone() },
        Question::Promise { round: u64::MAX, patient: true, view },
        join(&[]),
        Question::Absorb {
            cluster: ClusterId(7),
            winner: ClusterId(8),
            nodes: vec![node],
            understands: CommandVersion::understood(),
        },
    ]
}

/// What is nearly a question, and what is none at all.
fn malformed() -> Vec<Vec<u8>> {
    let mut prng = Prng::new(5);
    let mut below = |bound: usize| usize::try_from(prng.next_u64() % bound as u64).unwrap();
    let mut all = vec![Vec::new(), vec![1], vec![0; 33], vec![0xff; MESSAGE_BYTES_MAX]];
    all.push(vec![1; MESSAGE_BYTES_MAX + 1]);
    all.push([&[1], &[0; 32][..], &[2, 4], &[0xff; 4096]].concat());
    for question in questions() {
        let whole = [&[1], &[0; 32][..], &question.encode()].concat();
        for _ in 0..8 {
            all.push(whole[..below(whole.len())].to_vec());
            let mut mutated = whole.clone();
            for _ in 0..=below(3) {
                // Not the proof: that is another test.
                let place = 33 + below(whole.len() - 33);
                mutated[place] ^= 1 << below(8);
            }
            all.push(mutated);
            let mut longer = whole.clone();
            longer.resize(whole.len() + 1 + below(1000), 0);
            all.push(longer);
        }
    }
    for length in [34, 35, 64, 500, 60_000] {
        all.push((0..length).map(|_| u8::try_from(below(256)).unwrap()).collect());
    }
    all
}

/// Says all that to a node, and somebody else asks meanwhile.
fn pester(to: SocketAddr, mut memory: impl FnMut() -> u64) {
    let (honest, meets) = (Stranger::at(Ipv4Addr::LOCALHOST), questions().remove(0));
    let is_served = || match block_on(honest.ask(to, None, &meets)) {
        Taken::Answer(_) => {}
        other => panic!("somebody else was not answered: {other:?}"),
    };
    let messages = malformed();
    let mut before = 0;
    for (n, said) in messages.chunks(ASKS_OF_ONE).enumerate() {
        let stranger = Stranger::at(address(n));
        for bytes in said {
            let taken = block_on(stranger.say(to, bytes));
            assert!(matches!(taken, Taken::Closed(_) | Taken::Answer(_)), "{taken:?}: {bytes:.50?}");
        }
        is_served();
        // The first ones have brought in what there is once.
        before = if n == 0 { memory() } else { before };
    }
    let after = memory();
    assert!(after < before + GROWTH_MAX, "{before} bytes before, {after} after");
}

#[test]
fn a_node_without_a_cluster_takes_no_harm_from_what_is_no_message() {
    let mut pair = Pair::new();
    pair.start(0);
    crate::lan::until("somebody to wait for", crate::nodes::PATIENCE, || {
        pair.log(0).contains("waiting for another node").then_some(())
    });
    pester(pair.joining(0), || pair.memory(0));
    assert!(pair.runs(0), "{}", pair.log(0));
    let mut pair = pair;
    pair.start(1);
    crate::lan::until("a cluster after all", crate::nodes::PATIENCE, || {
        pair.log(0).contains("ready to serve client requests").then_some(())
    });
}

#[test]
fn a_member_takes_no_harm_from_what_is_no_message() {
    let mut pair = Pair::new().form();
    pester(pair.joining(0), || pair.memory(0));
    assert!(pair.runs(0) && !pair.log(0).contains("panic"), "{}", pair.log(0));
    pair.must(0, &["put", "still", "here"]);
    assert_eq!(pair.must(1, &["get", "still"]), "still\nhere\n");
    let listed = pair.must(0, &["member", "list"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
}

/// Who has not shown the secret holds up to a handshake's worth of the node, and gives it back.
#[test]
fn strangers_that_never_finish_keep_nobody_out() {
    let pair = Pair::with_secret().form();
    let to = pair.joining(0);
    let before = pair.memory(0);
    block_on(async {
        let mut held = Vec::new();
        for n in 0..24 {
            let stranger = Stranger::at(address(n));
            if let Ok(connection) = stranger.connect(to, JOINING, Shown::Own).await {
                let (mut send, recv) = connection.open_bi().await.unwrap();
                drop(send.write_all(&[1; 1000]).await);
                held.push((stranger, connection, send, recv));
            }
        }
        assert!(held.len() > 8, "only {} got so far", held.len());
        let honest = Stranger::at(Ipv4Addr::LOCALHOST);
        let taken = honest.ask(to, Some(&secret()), &questions()[0]).await;
        assert!(matches!(taken, Taken::Answer(_)), "{taken:?}");
        for (_, connection, ..) in &held {
            let late = async {
                smol::Timer::after(Duration::from_secs(12)).await;
                panic!("a silent connection was kept");
            };
            smol::future::or(async { drop(connection.closed().await) }, late).await;
        }
    });
    assert!(pair.memory(0) < before + GROWTH_MAX);
}

#[test]
fn what_was_recorded_on_one_connection_is_worth_nothing_on_another() {
    let pair = Pair::with_secret().form();
    let (to, secret) = (pair.joining(0), secret());
    let stranger = Stranger::at(Ipv4Addr::LOCALHOST);
    let refused = |taken: Taken| match taken {
        Taken::Closed(why) => assert!(why.contains("is the cluster secret the same on both?"), "{why}"),
        other => panic!("{other:?}"),
    };
    block_on(async {
        for question in questions() {
            let first = stranger.connect(to, JOINING, Shown::Own).await.unwrap();
            let recorded = stranger.asks(&first, Some(&secret), &question);
            let taken = say(&first, &recorded).await;
            assert!(matches!(taken, Taken::Answer(_)), "{question:?}: {taken:?}");
            // By the same key.
            refused(stranger.say(to, &recorded).await);
            // By another one; and to the other member.
            let thief = Stranger::at(address(1));
            refused(thief.say(to, &recorded).await);
            refused(thief.say(pair.joining(1), &recorded).await);
            // With another question behind the same proof.
            let connection = stranger.connect(to, JOINING, Shown::Own).await.unwrap();
            let mut changed = stranger.asks(&connection, Some(&secret), &question);
            *changed.last_mut().unwrap() ^= 1;
            refused(say(&connection, &changed).await);
        }
    });
}

/// Somebody in the middle who has no secret can pass on what both say, but not under its own key.
#[test]
fn nobody_in_the_middle_is_believed() {
    let pair = Pair::with_secret().form();
    let (ends, middle) = (Stranger::at(Ipv4Addr::LOCALHOST), Stranger::at(address(3)));
    block_on(async {
        let to_a = ends.connect(pair.joining(0), JOINING, Shown::Own);
        let to_b = middle.connect(pair.joining(1), JOINING, Shown::Own);
        let (to_a, to_b) = zip(to_a, to_b).await;
        let said = ends.asks(&to_a.unwrap(), Some(&secret()), &questions()[0]);
        let taken = say(&to_b.unwrap(), &said).await;
        assert!(matches!(taken, Taken::Closed(_)), "{taken:?}");
    });
}

/// What whoever comes to the members' port is told.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    AtTls,
    Closed(&'static str),
    Answer,
}

/// What it brings.
enum Brings {
    /// No proof.
    Nothing,
    Secret(ClusterSecret),
    /// A token, and the right proof for it.
    Token(JoinToken),
}

/// Who may do what on the members' port of a cluster with a secret: protocol, key, and what is proven.
#[test]
fn the_members_port_by_credential() {
    let pair = Pair::with_secret().form();
    let to = pair.joining(0);
    let member = block_on(async {
        let anyone = Stranger::at(address(900));
        shown_key(&anyone.connect(pair.joining(1), JOINING, Shown::Own).await.unwrap())
    });
    let no_secret = || Brings::Secret(ClusterSecret::parse("ABCDEFGHIJKLMNOPQRSTUVWX").unwrap());
    let (nothing, right) = (|| Brings::Nothing, || Brings::Secret(secret()));
    let token = || Brings::Token(JoinToken::new([7; 16]));
    let unheard = Expected::Closed("is the cluster secret the same on both?");
    let stolen = Shown::Stolen(member);
    let table = [
        // Nobody says a word to whose key is not a member's, whatever else it has.
        (MEMBERS, Shown::Own, nothing(), Expected::Closed("does not know the key that was shown")),
        (MEMBERS, Shown::Own, right(), Expected::Closed("does not know the key that was shown")),
        (MEMBERS, Shown::Nothing, nothing(), Expected::AtTls),
        (MEMBERS, Shown::Certificate, nothing(), Expected::AtTls),
        (MEMBERS, stolen, nothing(), Expected::AtTls),
        // Anybody's key does here, and nothing but a key.
        (JOINING, Shown::Nothing, nothing(), Expected::AtTls),
        (JOINING, Shown::Certificate, nothing(), Expected::AtTls),
        (JOINING, stolen, right(), Expected::AtTls),
        (JOINING, Shown::Own, nothing(), unheard),
        (JOINING, Shown::Own, no_secret(), Expected::Closed("is the cluster secret the same on both?")),
        (
            JOINING,
            Shown::Own,
            token(),
            Expected::Closed("this node is in no cluster that gives out join tokens"),
        ),
        (JOINING, Shown::Own, right(), Expected::Answer),
        // What nobody speaks.
        ("covey-peer/2", Shown::Own, right(), Expected::AtTls),
        ("h2", Shown::Own, right(), Expected::AtTls),
        ("h3", Shown::Nothing, nothing(), Expected::AtTls),
    ];
    for (n, (protocol, shown, brings, expected)) in table.into_iter().enumerate() {
        let stranger = Stranger::at(address(n));
        let taken = block_on(async {
            let Ok(connection) = stranger.connect(to, protocol, shown).await else { return Taken::AtTls };
            let (proves, question) = match brings {
                Brings::Nothing => (None, join(&[])),
                Brings::Secret(secret) => (Some(secret), join(&[])),
                Brings::Token(token) => (Some(ClusterSecret::of_token(&token.key())), join(&token.id().0)),
            };
            let bytes = stranger.asks(&connection, proves.as_ref(), &question);
            say(&connection, &bytes).await
        });
        let fits = match (&expected, &taken) {
            (Expected::AtTls, Taken::AtTls) => true,
            (Expected::Closed(part), Taken::Closed(why)) => why.contains(part),
            // This cluster was told of all its members, so that the answer is no.
            (Expected::Answer, Taken::Answer(answer)) => matches!(answer, Answer::Pending(_)),
            _ => false,
        };
        assert!(fits, "{n}: {protocol} {shown:?}: {expected:?}, and was {taken:?}");
    }
    assert_eq!(pair.must(0, &["member", "list"]).lines().count(), 2);
}
