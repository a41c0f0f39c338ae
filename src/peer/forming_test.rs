//! Nodes without a cluster that ask each other on loopback: who is heard, who is told nothing.

use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;

use super::*;
use crate::command::{CommandVersion, MemberAttributes};
use crate::formation::{
    ClusterRoot, Generation, Introduction, PLACE_BYTES_MAX, PLACES_MAX, Standing, Welcome,
};
use crate::ids::{ClusterId, Incarnation, MemberId};
use crate::limits::{ADMITTED_MEMBERS_MAX, NODE_NAME_BYTES_MAX};
use crate::store::Member;

/// A node that remembers by whom it was asked.
struct Node {
    forming: Forming,
    asked_by: Arc<Mutex<Vec<PublicKey>>>,
}

fn new_key() -> NodeKey {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    NodeKey::from_pkcs8(pkcs8.as_ref().to_vec()).unwrap()
}

fn public(key: &NodeKey) -> PublicKey {
    PublicKey(*key.public())
}

fn listed(keys: &[&NodeKey]) -> Trust {
    Trust { fingerprints: keys.iter().map(|key| key.fingerprint()).collect(), ..Trust::default() }
}

fn with_secret(text: &str, trust: Trust) -> Trust {
    Trust { secret: Some(ClusterSecret::parse(text).unwrap()), ..trust }
}

fn question() -> Question {
    let (name, peer_urls) = ("a".into(), vec!["http://a:2380".into()]);
    Question::Meets(Introduction { name, peer_urls, named: [7; 32] })
}

fn answer() -> Answer {
    Answer::Fresh { name: "b".into() }
}

impl Node {
    fn start(key: &NodeKey, trust: Trust) -> Self {
        let asked_by = Arc::new(Mutex::new(Vec::new()));
        let for_answers = Arc::clone(&asked_by);
        let answerer: Answerer = Arc::new(move |key, _, _| {
            for_answers.lock().unwrap().push(key);
            Box::pin(async { answer() })
        });
        let listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        Self { forming: Forming::start(key, &listen, trust, answerer, Clock::start()).unwrap(), asked_by }
    }

    fn ask(&self, other: &Self) -> Result<(PublicKey, Answer), AskError> {
        let address = other.forming.inner.endpoint.local_addr().unwrap();
        smol::block_on(self.forming.ask(address, &question()))
    }

    /// Why it gets no answer.
    fn refused(&self, other: &Self) -> String {
        self.ask(other).unwrap_err().to_string()
    }

    fn asked_by(&self) -> Vec<PublicKey> {
        self.asked_by.lock().unwrap().clone()
    }
}

#[test]
fn nodes_that_list_each_other_are_heard_in_both_directions() {
    let (a, b) = (new_key(), new_key());
    // One list for all, each node's own key in it.
    let all = listed(&[&a, &b]);
    let (node_a, node_b) = (Node::start(&a, all.clone()), Node::start(&b, all));
    assert_eq!(node_a.ask(&node_b).unwrap(), (public(&b), answer()));
    assert_eq!(node_b.ask(&node_a).unwrap(), (public(&a), answer()));
    assert_eq!((node_a.asked_by(), node_b.asked_by()), (vec![public(&b)], vec![public(&a)]));
}

/// Whoever is at the address that a node was told of gets its question only with a key that is listed.
#[test]
fn a_node_says_nothing_to_a_key_that_it_does_not_list() {
    let (a, b, c) = (new_key(), new_key(), new_key());
    let node_b = Node::start(&b, listed(&[&a, &c]));
    let asks = Node::start(&a, listed(&[&a, &c]));
    let told = asks.refused(&node_b);
    assert_eq!(told, format!("the key {} is not among those of --peer-fingerprints", b.fingerprint()));
    // It would have been heard, had it said something.
    Node::start(&c, listed(&[&b])).ask(&node_b).unwrap();
    assert_eq!(node_b.asked_by(), [public(&c)]);
}

#[test]
fn a_key_that_is_not_listed_is_told_so_and_nothing_else() {
    let (a, b, c) = (new_key(), new_key(), new_key());
    let node_b = Node::start(&b, listed(&[&b, &c]));
    // On this machine, too, and whether it trusts anybody or only some.
    for trust in [listed(&[&b]), Trust::default(), with_secret("0123456789abcdefghijkl", Trust::default())] {
        let told = Node::start(&a, trust).refused(&node_b);
        let expected = format!("the key {} is not among those of --peer-fingerprints", a.fingerprint());
        assert_eq!(told, format!("this node does not listen: {expected}"));
    }
    assert_eq!(node_b.asked_by(), []);
}

/// A list has the node's own key, too, and without one any key of this machine is heard. That is no way in for a copy of the node.
#[test]
fn a_copy_of_a_node_is_not_heard() {
    let key = new_key();
    let (node, copy) = (Node::start(&key, listed(&[&key])), Node::start(&key, Trust::default()));
    let expected = format!("both nodes have the key {}: one is a copy of the other", key.fingerprint());
    // Each finds that out by itself, with a list or without.
    assert_eq!((node.refused(&copy), copy.refused(&node)), (expected.clone(), expected));
    assert_eq!((node.asked_by(), copy.asked_by()), (vec![], vec![]));
}

#[test]
fn with_a_secret_and_a_list_a_node_needs_both() {
    let (a, b) = (new_key(), new_key());
    let (right, wrong) = ("0123456789abcdefghijkl", "0123456789abcdefghijkX");
    let both = |keys: &[&NodeKey], secret| with_secret(secret, listed(keys));
    let node_b = Node::start(&b, both(&[&a, &b], right));
    let unproven = "this node does not listen: is the cluster secret the same on both?";
    for trust in [both(&[&a, &b], wrong), listed(&[&a, &b]), Trust::default()] {
        assert_eq!(Node::start(&a, trust).refused(&node_b), unproven, "listed, without the secret");
    }
    let stranger = Node::start(&new_key(), with_secret(right, Trust::default()));
    assert!(stranger.refused(&node_b).contains("is not among those"), "the secret, without being listed");
    assert_eq!(node_b.asked_by(), []);
    // Each asks for what it was given: both here, the secret alone there.
    for trust in [both(&[&a, &b], right), with_secret(right, Trust::default())] {
        assert_eq!(Node::start(&a, trust).ask(&node_b).unwrap(), (public(&b), answer()));
    }
    // Without the secret it cannot tell the holder of the key that it has it, who would not believe the answer.
    let lists = Node::start(&b, listed(&[&a, &b]));
    assert_eq!(Node::start(&a, both(&[&a, &b], right)).refused(&lists), unproven);
    assert_eq!(lists.asked_by(), []);
}

#[test]
fn with_neither_a_node_asks_no_other_machine() {
    let trust = Trust::default();
    assert!(
        trust.hears("127.0.0.1:1".parse().unwrap()) && trust.hears("[::ffff:127.0.0.1]:1".parse().unwrap())
    );
    let far = "10.0.0.1:1".parse().unwrap();
    assert!(!trust.hears(far) && listed(&[&new_key()]).hears(far));
    let node = Node::start(&new_key(), trust);
    let error = smol::block_on(node.forming.ask(far, &question())).unwrap_err().to_string();
    assert!(error.contains("--cluster-secret-file") && error.contains("--peer-fingerprints"), "{error}");
}

/// What a build speaks that knows of no versions of commands.
fn cut(protocols: &mut Vec<Vec<u8>>) {
    protocols.retain(|protocol| protocol == b"covey-form/1");
}

/// Such a build takes what has versions for no message, and every message of its own is understood.
#[test]
fn versions_are_said_to_no_build_that_does_not_know_of_them() {
    let of = |version| CommandVersion(version);
    let standing = Standing {
        name: "b".into(),
        cluster: ClusterId(7),
        generation: Generation(1),
        committed: false,
        open: true,
        uses: of(2),
        understands: of(3),
    };
    let (name, peer_urls, claim, run) = ("a".into(), Vec::new(), Vec::new(), Incarnation(1));
    let question = Question::Join { name, peer_urls, claim, run, understands: of(7) };
    let answer = Answer::Member(standing.clone());
    for (is_older, said, told) in [(false, of(7), [of(2), of(3)]), (true, of(1), [of(1), of(1)])] {
        let (key, heard) = (new_key(), Arc::new(Mutex::new(Vec::new())));
        let (for_answers, answers) = (Arc::clone(&heard), answer.clone());
        let answerer: Answerer = Arc::new(move |_, _, question| {
            for_answers.lock().unwrap().push(question);
            let answer = answers.clone();
            Box::pin(async { answer })
        });
        let credentials = Credentials::new(&key).unwrap();
        let mut server = credentials.server_of_strangers().unwrap();
        if is_older {
            cut(&mut server.alpn_protocols);
        }
        let listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let with = (credentials, server);
        let asked =
            Forming::start_with(&key, &listen, with, Trust::default(), answerer, Clock::start()).unwrap();
        let asks = Node::start(&new_key(), Trust::default());
        let address = asked.inner.endpoint.local_addr().unwrap();
        let (_, got) = smol::block_on(asks.forming.ask(address, &question)).unwrap();
        let [uses, understands] = told;
        assert_eq!(got, Answer::Member(Standing { uses, understands, ..standing.clone() }));
        let heard = heard.lock().unwrap().pop();
        assert!(
            matches!(heard, Some(Question::Join { understands, .. }) if understands == said),
            "{heard:?}"
        );

        // An older one asks.
        let mut client = asks.forming.inner.credentials.client_of_strangers().unwrap();
        cut(&mut client.alpn_protocols);
        let bytes = smol::block_on(async {
            let config = endpoint::client_of(client).unwrap();
            let connecting = asks.forming.inner.endpoint.connect_with(config, address, "covey").unwrap();
            let connection = connecting.await.unwrap();
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            send.write_all(&sealed([0; PROOF_BYTES], &question.encode_in(Dialect::Plain))).await.unwrap();
            send.finish().unwrap();
            recv.read_to_end(MESSAGE_BYTES_MAX).await.unwrap()
        });
        assert_eq!(opened(&bytes).unwrap().1, answer.encode_in(Dialect::Plain));
    }
}

fn join(token: &JoinToken) -> Question {
    Question::Join {
        name: "a".into(),
        peer_urls: Vec::new(),
        claim: token.id().0.to_vec(),
        run: Incarnation(1),
        understands: CommandVersion::FIRST,
    }
}

/// A member that has given out these tokens, with what it knows of each.
fn gives_out(tokens: Vec<(TokenId, TokenKey)>) -> Trust {
    let find = move |id| tokens.iter().find(|(known, _)| *known == id).map(|(_, key)| *key);
    Trust { tokens: Some(Tokens(Arc::new(find))), ..Trust::default() }
}

#[test]
fn a_token_is_worth_something_only_where_it_was_given_out_and_only_to_who_has_it() {
    let (token, other) = (JoinToken::new([1; 16]), JoinToken::new([2; 16]));
    let (a, b) = (new_key(), new_key());
    let joiner =
        |token: &JoinToken| Node::start(&a, Trust { token: Some(token.clone()), ..Trust::default() });
    let ask = |joiner: &Node, member: &Node, token: &JoinToken| {
        let address = member.forming.inner.endpoint.local_addr().unwrap();
        smol::block_on(joiner.forming.ask(address, &join(token)))
    };
    let member = Node::start(&b, gives_out(vec![(token.id(), token.key())]));
    assert_eq!(ask(&joiner(&token), &member, &token).unwrap(), (public(&b), answer()));
    assert_eq!(member.asked_by(), [public(&a)]);

    let AskError::Token(unknown) = ask(&joiner(&other), &member, &other).unwrap_err() else {
        panic!("it is told apart from a node that is merely not heard");
    };
    let helps = ["no such join token", "covey token create", "--join-token-file", "start covey here again"];
    assert!(helps.iter().all(|what| unknown.contains(what)), "{unknown}");
    // It has seen the name of a token, and has another one.
    let forged = ask(&joiner(&other), &member, &token).unwrap_err();
    assert!(matches!(&forged, AskError::Lost(why) if why.contains("does not listen")), "{forged}");
    let mut nameless = join(&token);
    if let Question::Join { claim, .. } = &mut nameless {
        claim.truncate(7);
    }
    let address = member.forming.inner.endpoint.local_addr().unwrap();
    assert!(smol::block_on(joiner(&token).forming.ask(address, &nameless)).is_err());
    assert_eq!(member.asked_by().len(), 1, "nobody else was heard");

    // Somebody who knows the name of the token and not the token: what it answers is not believed.
    let impostor = Node::start(&b, gives_out(vec![(token.id(), other.key())]));
    assert!(ask(&joiner(&token), &impostor, &token).is_err());
    // Without tokens to ask for nobody is let in by one.
    let stranger = Node::start(&b, Trust::default());
    let early = ask(&joiner(&token), &stranger, &token).unwrap_err();
    assert!(matches!(early, AskError::Lost(_)), "it may be a member soon: {early}");
}

/// Of a token its name is known to many: whoever has the secret of the boxes reads it in a list, or in what another one asks.
#[test]
fn with_a_secret_a_token_still_has_to_be_proven() {
    let (token, other) = (JoinToken::new([1; 16]), JoinToken::new([2; 16]));
    let (right, wrong) = ("0123456789abcdefghijkl", "0123456789abcdefghijkX");
    let (a, b) = (new_key(), new_key());
    let member = Node::start(&b, with_secret(right, gives_out(vec![(token.id(), token.key())])));
    let has = |token: Option<&JoinToken>| Trust { token: token.cloned(), ..Trust::default() };
    let ask = |trust: Trust| {
        let address = member.forming.inner.endpoint.local_addr().unwrap();
        smol::block_on(Node::start(&a, trust).forming.ask(address, &join(&token)))
    };
    for lacks in [
        with_secret(right, has(None)),
        with_secret(right, has(Some(&other))),
        with_secret(wrong, has(Some(&token))),
        has(Some(&token)),
    ] {
        let told = ask(lacks).unwrap_err().to_string();
        assert_eq!(told, "this node does not listen: is the cluster secret the same on both?");
    }
    assert_eq!(member.asked_by(), []);
    assert_eq!(ask(with_secret(right, has(Some(&token)))).unwrap(), (public(&b), answer()));
}

/// Whoever is at an address may hear any question, and cannot answer it: the answer is that of somebody who has what was asked by, or none.
#[test]
fn who_has_not_proven_it_answers_nothing() {
    let echo = |proof: &[u8]| proof.try_into().unwrap();
    let nothing = |_: &[u8]| [0; PROOF_BYTES];
    let guess = |_: &[u8]| [7; PROOF_BYTES];
    let token = JoinToken::new([1; 16]);
    let secret = || with_secret("0123456789abcdefghijkl", Trust::default());
    let with_token = || Trust { token: Some(token.clone()), ..Trust::default() };
    let ask = |trust: Trust, question: &Question, forge: fn(&[u8]) -> [u8; PROOF_BYTES]| {
        let (at, impostor) = impostor(forge);
        let answer = smol::block_on(Node::start(&new_key(), trust).forming.ask(at, question));
        impostor.join().unwrap();
        answer
    };
    for forge in [echo as fn(&[u8]) -> [u8; PROOF_BYTES], nothing, guess] {
        for (trust, question) in [(secret(), question()), (with_token(), join(&token))] {
            let told = ask(trust, &question, forge).unwrap_err();
            assert!(matches!(told, AskError::NotProven), "{told}");
        }
    }
    assert!(matches!(ask(Trust::default(), &question(), guess), Err(AskError::NotProven)));
    assert_eq!(
        ask(Trust::default(), &question(), nothing).unwrap().1,
        answer(),
        "it was asked to prove nothing"
    );
}

/// Hears one question, whoever asks it, and answers it with this proof, made of the one that came with it.
fn impostor(forge: fn(&[u8]) -> [u8; PROOF_BYTES]) -> (SocketAddr, JoinHandle<()>) {
    let (key, executor) = (new_key(), Arc::new(Executor::new()));
    let crypto = Credentials::new(&key).unwrap().server_of_strangers().unwrap();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
    let port = endpoint::open(&listen, &key, crypto, &executor).unwrap();
    let Opened { endpoint, reactor, .. } = port;
    let address = endpoint.local_addr().unwrap();
    let work = move || {
        reactor.run(executor.run(async {
            let connection = endpoint.accept().await.unwrap().accept().unwrap().await.unwrap();
            let (asked, mut send) = receive(&connection).await.unwrap();
            let (proof, _) = opened(&asked).unwrap();
            send.write_all(&sealed(forge(proof), &answer().encode())).await.unwrap();
            send.finish().unwrap();
            let _ = send.stopped().await;
        }));
    };
    (address, thread::spawn(work))
}

/// Members publish what they like of themselves, long after they were let in.
#[test]
fn a_welcome_fits_into_a_message_whatever_its_members_publish() {
    let urls = |count: usize, bytes: usize| (0..count).map(|n| format!("{n:0>bytes$}")).collect::<Vec<_>>();
    let member = |n: usize, name: usize, peer_urls: Vec<String>| {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        let id = MemberId(1 + n as u64);
        let attributes = MemberAttributes {
            member: id,
            name: "x".repeat(name),
            peer_urls,
            client_urls: urls(64, 128),
            incarnation: 1,
            boot_nonce: 7,
            ..MemberAttributes::default()
        };
        Member { key: Some(PublicKey(key)), votes: n < 7, attributes }
    };
    let welcome = |members: &[Member]| {
        let welcome =
            Welcome::of(ClusterRoot([5; 32]), Generation(1), MemberId(1), members, CommandVersion::FIRST);
        let bytes = Answer::Welcome(Box::new(welcome)).encode();
        assert!(bytes.len() + HEAD_BYTES <= MESSAGE_BYTES_MAX, "{} bytes", bytes.len());
        let Ok(Answer::Welcome(welcome)) = Answer::decode(&bytes) else { panic!("it is understood") };
        let identity = |member: &Member| (member.id(), member.key, member.votes, member.run());
        assert!(welcome.members.iter().map(identity).eq(members.iter().map(identity)), "all are known");
        welcome.members
    };
    // What is let in by itself is told whole.
    let full: Vec<Member> = (0..ADMITTED_MEMBERS_MAX)
        .map(|n| member(n, NODE_NAME_BYTES_MAX, urls(PLACES_MAX, PLACE_BYTES_MAX)))
        .collect();
    for (told, member) in welcome(&full).iter().zip(&full) {
        assert_eq!(
            (&told.attributes.name, &told.attributes.peer_urls),
            (&member.attributes.name, &member.attributes.peer_urls)
        );
    }
    let more: Vec<Member> = (0..4 * ADMITTED_MEMBERS_MAX).map(|n| member(n, 4000, urls(16, 4000))).collect();
    assert!(welcome(&more).iter().all(|told| told.attributes.peer_urls.is_empty()));
    let many: Vec<Member> = (0..4 * ADMITTED_MEMBERS_MAX).map(|n| member(n, 255, urls(40, 128))).collect();
    let told = welcome(&many);
    assert_eq!(told[0].attributes.peer_urls.len(), PLACES_MAX);
}
