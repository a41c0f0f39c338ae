//! What nodes say to each other before they are in one cluster, and what they shout on the LAN.
//!
//! Owns: that strangers are read without trust. Must never: have a key that is not made of a seed: each run is the same.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use covey::auth::{Auth, Role, User};
use covey::command::{
    Alarm, AlarmKind, Authority, ClientKey, CommandVersion, KeyRange, MemberAttributes, PasswordHash,
    Permission, PermissionKind, TokenId, TokenKey, TokenSecret, Tombstone,
};
use covey::discovery::{Found, NAME_BYTES_MAX, SIGHTING_ADDRESSES_MAX};
use covey::formation::{
    Answer, Candidate, ClusterRoot, Dialect, Fingerprint, Generation, Introduction, NodeKey, Question,
    Standing, View, Welcome,
};
use covey::ids::{
    AuthRevision, ClusterId, Digest, Incarnation, LogIndex, MemberId, PublicKey, Revision, Term,
};
use covey::store::{Awaited, Bridge, Charter, Client, ConfState, Dissolution, Member, Meta, Token, Window};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::input::{Input, piece};
use crate::memory::bounded;

/// A URL of two bytes is a string of 24, in lists that double as they grow; of facts, a byte may be one.
const BYTES_FOR_EACH: usize = 128;

const DIALECTS: [Dialect; 2] = [Dialect::Versioned, Dialect::Plain];

/// A node's key, always the same for a seed (PKCS #8 as RFC 8410 has it, section 7).
pub fn key(seed: u8) -> NodeKey {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let head = b"\x30\x51\x02\x01\x01\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let der = [head, &[seed; 32][..], &[0x81, 0x21, 0], pair.public_key().as_ref()].concat();
    NodeKey::from_pkcs8(der).unwrap()
}

pub fn joining(bytes: &[u8]) {
    if let Ok(question) = bounded(bytes, BYTES_FOR_EACH, || Question::decode(bytes)) {
        let said = DIALECTS.map(|dialect| question.encode_in(dialect));
        assert!(said.iter().any(|said| said == bytes), "there is one way to say it, for each kind of builds");
    }
    if let Ok(answer) = bounded(bytes, BYTES_FOR_EACH, || Answer::decode(bytes)) {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
    // The facts in a welcome have a checksum.
    if let Ok(answer) = Answer::decode(&crate::input::sealed(b"", bytes)) {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
    if bytes.len() > 50 {
        let (head, facts) = bytes.split_at(50);
        let whole = [head, &crate::input::sealed(b"facts", facts)].concat();
        if let Ok(answer) = bounded(bytes, BYTES_FOR_EACH, || Answer::decode(&whole)) {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }
}

pub fn sighting(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (port, count) = (input.u16(), input.u8() % 32);
    let address = |input: &mut Input<'_>| match input.u8() & 1 {
        0 => (IpAddr::from(input.array::<4>()), input.u32()),
        _ => (IpAddr::from(input.array::<16>()), input.u32()),
    };
    let addresses = (0..count).map(|_| address(&mut input)).collect();
    let instance = String::from_utf8_lossy(input.piece()).into_owned();
    let mut text = BTreeMap::new();
    while !input.is_empty() {
        let pair = String::from_utf8_lossy(input.piece()).into_owned();
        text.insert(pair, input.piece().to_vec());
    }
    let found = Found { instance, port, addresses, text };
    let Some(seen) = bounded(bytes, BYTES_FOR_EACH, || found.sighting()) else { return };
    assert!(seen.name.len() <= NAME_BYTES_MAX && !seen.name.contains(char::is_control));
    assert!((1..=SIGHTING_ADDRESSES_MAX).contains(&seen.addresses.len()));
    for address in &seen.addresses {
        let ip = address.ip();
        assert!(address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback());
    }
    assert_ne!(seen.cluster, Some(ClusterId(0)));
}

fn member(n: u8) -> Member {
    let attributes = MemberAttributes {
        member: MemberId(n.into()),
        name: format!("box{n}"),
        peer_urls: vec![format!("https://10.0.0.{n}:2380"), String::new()],
        client_urls: vec![format!("https://10.0.0.{n}:2379")],
        incarnation: 3,
        boot_nonce: u64::MAX,
        understands: CommandVersion(n),
    };
    Member { key: Some(PublicKey(*key(n).public())), votes: n.is_multiple_of(2), attributes }
}

fn tombstone(n: u8) -> Tombstone {
    let end = Dissolution { winner: ClusterId(3), at: LogIndex(40), ordered: false };
    covey::formation::sign(&key(n), ClusterId(7), Generation(1), end)
}

/// Facts with some of everything.
pub fn whole_meta() -> Meta {
    let token = |n, used_by| Token { id: TokenId([n; 8]), key: TokenKey([0xab; 32]), expires: 7000, used_by };
    let charter = Charter {
        automatic: true,
        committed: true,
        elapsed: 1 << 40,
        window: Window { opened: 100, closes: 700, grows: true },
        tokens: vec![token(1, None), token(2, Some(PublicKey([2; 32])))],
        approved: vec![[5; 32]],
        authority: Some(Authority {
            certificate: b"certificate".as_slice().into(),
            key: b"key".as_slice().into(),
        }),
        clients: vec![Client { key: ClientKey([8; 32]), name: "client".into(), issued: 40, edition: 1 }],
        edition: 2,
        bridges: vec![Bridge { certificate: b"bridge".as_slice().into(), ends: 9000 }],
        exposed: Some(LogIndex(290)),
        dissolved: Some(Dissolution { winner: ClusterId(3), at: LogIndex(300), ordered: true }),
        buried: vec![tombstone(1)],
        awaited: vec![
            Awaited { member: MemberId(3), ends: 1 << 41, of: None },
            Awaited { member: MemberId(4), ends: 60, of: Some(ClusterId(9)) },
        ],
        forgot: LogIndex(280),
    };
    let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    Meta {
        applied: LogIndex(300),
        applied_term: Term(3),
        digest: Digest(0x0123_4567_89ab_cdef),
        commands: CommandVersion(2),
        conf_state: ConfState {
            voters: ids(&[1, 2]),
            learners: ids(&[3]),
            voters_outgoing: ids(&[1, 4]),
            learners_next: ids(&[4]),
            auto_leave: true,
        },
        revision: Revision(1 << 40),
        compacted: Revision(9),
        ever_compacted: true,
        compaction_finished: Revision(8),
        bytes_in_use: 1 << 40,
        alarms: vec![Alarm { member: MemberId(1), kind: AlarmKind::NoSpace }],
        over_quota: ids(&[1]),
        members: vec![member(1), member(2), Member::default()],
        removed: vec![(MemberId(5), None), (MemberId(6), Some(PublicKey([6; 32])))],
        forming: true,
        charter: Arc::new(charter),
        auth: Arc::new(whole_auth()),
    }
}

fn whole_auth() -> Auth {
    let user = |roles: &[&str]| {
        let (password, since) = (PasswordHash("hash".into()), AuthRevision(300));
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        Arc::new(User { password, no_password: false, since, roles })
    };
    let permission = |kind, end: &'static [u8]| {
        let range = KeyRange::from_wire(Bytes::from_static(b"k"), Bytes::from_static(end));
        Permission { kind, range }
    };
    let app = Role::of(vec![
        permission(PermissionKind::Read, b""),
        permission(PermissionKind::Write, b"\0"),
        permission(PermissionKind::ReadWrite, b"l"),
    ]);
    Auth {
        enabled: true,
        revision: AuthRevision(301),
        token_secret: Some(TokenSecret([12; 32])),
        users: [("app".to_owned(), user(&["app"])), ("root".to_owned(), user(&["root"]))].into(),
        roles: [("app".to_owned(), Arc::new(app.unwrap()))].into(),
    }
}

pub mod seeds {
    use super::*;

    pub fn joining() -> Vec<Vec<u8>> {
        let print = |n| Fingerprint::of(&PublicKey([n; 32]));
        let (name, peer_urls) = ("box".to_owned(), vec!["https://10.0.0.1:2380".to_owned(), String::new()]);
        let view = View::of([print(1), print(2)]);
        let introduction = Introduction { name: name.clone(), peer_urls: peer_urls.clone(), named: [4; 32] };
        let candidate =
            Candidate { key: PublicKey([3; 32]), name: name.clone(), peer_urls: peer_urls.clone() };
        let questions = [
            Question::Meets(introduction),
            Question::Probe { name: name.clone(), over: Some(9), view: view.clone() },
            Question::Promise { round: 9, patient: true, view: view.clone() },
            Question::Join {
                name: name.clone(),
                peer_urls,
                claim: vec![1; 40],
                run: Incarnation(3),
                understands: CommandVersion(2),
            },
            Question::Absorb {
                cluster: ClusterId(7),
                winner: ClusterId(8),
                nodes: vec![candidate],
                understands: CommandVersion(2),
            },
            Question::Fate { cluster: ClusterId(7) },
        ];
        let (sentence, generation) = ("not now".to_owned(), Generation(1));
        let members = vec![member(1), member(2)];
        let (root, member, commands) = (ClusterRoot([7; 32]), MemberId(2), CommandVersion(2));
        let welcome = Welcome { root, generation, member, members, commands };
        let standing = Standing {
            name: name.clone(),
            cluster: ClusterId(7),
            generation,
            committed: true,
            open: true,
            uses: CommandVersion(2),
            understands: CommandVersion(3),
        };
        let answers = [
            Answer::Fresh { name: name.clone() },
            Answer::Welcome(Box::new(welcome)),
            Answer::Wait(sentence.clone()),
            Answer::Refused(sentence.clone()),
            Answer::Gathers { name, round: Some(9), promised: Some(print(1)), waits: true, view },
            Answer::Promised { round: 9 },
            Answer::NotPromised(sentence.clone()),
            Answer::Member(standing),
            Answer::Pending(sentence),
            Answer::Absorbed,
            Answer::Buried(vec![tombstone(1)]),
        ];
        let of = |question: &Question| DIALECTS.map(|dialect| question.encode_in(dialect));
        let mut seeds: Vec<_> = questions.iter().flat_map(of).collect();
        for answer in &answers {
            let bytes = answer.encode();
            if matches!(answer, Answer::Welcome(_)) {
                seeds.push(bytes[..bytes.len() - 4].to_vec());
            }
            seeds.push(bytes);
        }
        seeds
    }

    pub fn sighting() -> Vec<Vec<u8>> {
        let print = key(1).fingerprint().to_string().replace(' ', "");
        let seed = |cluster: &str, addresses: &[u8], count: u8| {
            let mut seed = [&2380_u16.to_le_bytes()[..], &[count], addresses].concat();
            seed.extend(piece(&print.as_bytes()[..16]));
            for (key, value) in [("v", "1"), ("fp", &print), ("c", cluster), ("n", "box\u{7}1")] {
                seed.extend(piece(key.as_bytes()));
                seed.extend(piece(value.as_bytes()));
            }
            seed
        };
        let v4 = [0, 10, 0, 0, 1, 2, 0, 0, 0];
        let link = [&[1, 0xfe, 0x80][..], &[0; 14], &[2, 0, 0, 0]].concat();
        vec![seed("", &v4, 1), seed("00000000000000ab", &[&v4[..], &link, &v4].concat(), 3)]
    }
}
