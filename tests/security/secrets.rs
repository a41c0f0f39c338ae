//! What is secret stays where it belongs: not in logs, not in snapshots, not for others on the machine.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use covey::formation::JoinToken;

use crate::boxes::{FORMS, file, grown};
use crate::lan::{Lan, until};
use crate::nodes::{Pair, SECRET};
use crate::operator;

/// What a user has written.
const VALUE: &str = "a value that is nobody else's";

/// Something that nobody may find, in each form in which it might be written.
struct Hidden {
    what: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Hidden {
    fn new(what: &'static str, bytes: &[u8]) -> Self {
        let mut hex = String::new();
        for byte in bytes {
            write!(hex, "{byte:02x}").unwrap();
        }
        let list = format!("{bytes:?}");
        let pem = pem::encode(&pem::Pem::new("X", bytes));
        // Where lines end, and where a part of the whole is enough for whoever has the rest.
        let base64: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
        let part = base64[..base64.len() / 4 * 4].trim_end_matches('=').to_owned();
        let upper = hex.to_uppercase();
        let escaped = bytes.escape_ascii().to_string();
        let debug = format!("{:?}", bytes::Bytes::copy_from_slice(bytes));
        let debug = debug.trim_start_matches('b').trim_matches('"').to_owned();
        let texts = [hex, upper, list.trim_matches(['[', ']']).to_owned(), part, escaped, debug];
        let forms = [bytes.to_vec()].into_iter().chain(texts.map(String::into_bytes)).collect();
        Self { what, forms }
    }

    fn assert_not_in(&self, place: &str, bytes: &[u8]) {
        for form in &self.forms {
            let found = bytes.windows(form.len()).any(|window| window == form);
            assert!(!found, "{} is in {place}", self.what);
        }
    }
}

/// A private key: the whole, and the seed in it that is enough.
fn keys(what: &'static str, pkcs8: &[u8]) -> [Hidden; 2] {
    let seed = pkcs8.windows(34).find(|window| window.starts_with(&[0x04, 0x20])).unwrap();
    [Hidden::new(what, pkcs8), Hidden::new(what, &seed[2..])]
}

/// Everything below is its owner's alone.
fn assert_private(path: &Path) {
    let mode = fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    let expected = if path.is_dir() { 0o700 } else { 0o600 };
    assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            assert_private(&entry.unwrap().path());
        }
    }
}

/// Even where the process was started with a mask that hides nothing.
#[test]
fn files_of_a_member_are_its_owners_alone() {
    let mut pair = Pair::with_secret();
    pair.start(0);
    until("a key", FORMS, || pair.data_dir(0).join("identity.0").exists().then_some(()));
    assert_private(&pair.data_dir(0));
    pair.start(1);
    for n in 0..2 {
        until("a cluster", FORMS, || pair.log(n).contains("ready to serve client requests").then_some(()));
        pair.must(n, &["put", "k", "v"]);
        assert_private(&pair.data_dir(n));
    }
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn nothing_secret_is_in_logs_or_snapshots() {
    const DEBUG: [&str; 2] = ["--log-level", "debug"];
    let token = JoinToken::new(*b"\x17\x80secret bytes\xfe\xff");
    let mut lan = Lan::new(5);
    let (key, right) = (file(&lan, "key", SECRET), file(&lan, "token", &token.to_string()));
    // One cluster by token, and one by fleet key beside it.
    lan.boxes[0].start(&[&["--trust", "locked"], &DEBUG[..]].concat());
    grown(&lan, 0, 1);
    lan.boxes[0].signal("-TERM");
    lan.boxes[0].ended(FORMS);
    operator::decide(&lan.boxes[0].data_dir, &[operator::create(&token)]);
    lan.boxes[0].start(&[&["--trust", "locked"], &DEBUG[..]].concat());
    lan.boxes[1].start(&[&["--trust", "locked", "--join-token-file", &right], &DEBUG[..]].concat());
    grown(&lan, 1, 2);
    for n in [2, 3] {
        lan.boxes[n].start(&[&["--cluster-secret-file", &key], &DEBUG[..]].concat());
    }
    grown(&lan, 2, 2);
    // Somebody who is refused, so that this is logged.
    lan.boxes[4].start(&DEBUG);
    until("a box that is refused", FORMS, || {
        lan.boxes[2].log().contains("has not shown that it may").then_some(())
    });

    // What a user keeps, which goes to other members; it belongs into a snapshot.
    lan.boxes[0].must(&["put", "k", VALUE]);
    let mut seen: Vec<(String, Vec<u8>)> = Vec::new();
    for n in [0, 1, 2] {
        let path = lan.path(&format!("snapshot{n}"));
        lan.boxes[n].must(&["snapshot", "save", path.to_str().unwrap()]);
        seen.push((format!("the snapshot of box {n}"), fs::read(path).unwrap()));
        seen.push((
            "the list of members".into(),
            lan.boxes[n].must(&["member", "list", "-w", "json"]).into(),
        ));
    }
    for (n, one) in lan.boxes.iter_mut().enumerate() {
        one.kill();
        assert_private(&one.data_dir);
        let log = one.log().into_bytes();
        Hidden::new("a user's value", VALUE.as_bytes()).assert_not_in(&format!("the log of box {n}"), &log);
        seen.push((format!("the log of box {n}"), log));
    }
    let first = operator::decide(&lan.boxes[0].data_dir, &[]);
    let charter = &first.facts.charter;
    let authority = charter.authority.as_ref().expect("there was a leader that has made it");
    assert_eq!(charter.tokens.len(), 1);

    let mut hidden = vec![
        Hidden::new("the fleet key", SECRET.as_bytes()),
        Hidden::new("the token", token.to_string().as_bytes()),
        Hidden::new("the token's secret", b"\x17\x80secret bytes\xfe\xff"),
        Hidden::new("what the token's proofs are made with", &token.key().0),
    ];
    hidden.extend(keys("the key of a node", first.identity.key.pkcs8()));
    hidden.extend(keys("the key of the authority", &authority.key));
    for (place, bytes) in &seen {
        assert!(!bytes.is_empty(), "{place} is empty");
        for each in &hidden {
            each.assert_not_in(place, bytes);
        }
    }
    // That it would be found: the state has it.
    let stored = fs::read(lan.boxes[0].data_dir.join("store.redb")).unwrap();
    let logged = fs::read_dir(lan.boxes[0].data_dir.join("wal")).unwrap();
    let logged: Vec<u8> = logged.flat_map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    let is_in = |bytes: &[u8]| bytes.windows(authority.key.len()).any(|window| window == &authority.key[..]);
    assert!(is_in(&stored) || is_in(&logged));
}
