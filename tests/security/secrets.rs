//! What is secret stays where it belongs: not in logs, not in snapshots and backups, not in what is told of a member, not for others on the machine.
//!
//! A snapshot has the users as etcd's has them, with what was made of their passwords: who restores it logs in as before. It is its owner's alone for that.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use covey::formation::JoinToken;
use serde_json::Value;

use crate::boxes::{FORMS, OTHER_SECRET, file, grown};
use crate::lan::{Box, Lan, until};
use crate::nodes::{Pair, SECRET};
use crate::operator;

/// What a user has written.
const VALUE: &str = "a value that is nobody else's";
/// The last key that is written.
const LAST: &str = "the-last-key";
const PASSWORD: &str = "what-root-types";
const WRONG_PASSWORD: &str = "what-nobody-has-to-type";
/// What web tokens are signed with.
const WEB_KEY: &str = "thirty-two bytes to sign tokens.";
/// What the tokens that let nodes in are made of: a good one, and one that nobody has given out.
const TOKEN: [u8; 16] = *b"\x17\x80secret bytes\xfe\xff";
const WRONG_TOKEN: [u8; 16] = *b"\x18\x81other secret\xfd\xfc";
/// The token of a client that was never logged in.
const NOBODYS_TOKEN: &str = "dG9rZW4tdGhhdC1uby1zZXJ2ZXItaGFzLW1hZGU.4711";
const DEBUG: [&str; 2] = ["--log-level", "debug"];

/// Something that nobody may find, in each form in which it might be written.
struct Hidden {
    what: &'static str,
    forms: Vec<Vec<u8>>,
    /// It belongs into snapshots and backups, and nowhere else.
    is_in_images: bool,
}

/// Where it is looked for.
#[derive(Default)]
struct Seen(Vec<Place>);

struct Place {
    what: String,
    bytes: Vec<u8>,
    is_image: bool,
}

impl Seen {
    fn add(&mut self, what: String, bytes: impl Into<Vec<u8>>) {
        self.0.push(Place { what, bytes: bytes.into(), is_image: false });
    }

    /// A file with the state, which is its owner's alone.
    fn add_image(&mut self, path: &Path) {
        assert_private(path);
        self.0.push(Place {
            what: path.display().to_string(),
            bytes: fs::read(path).unwrap(),
            is_image: true,
        });
    }

    fn have_not(&self, hidden: &[Hidden]) {
        let mut leaks = BTreeSet::new();
        for Place { what, bytes, is_image } in &self.0 {
            assert!(!bytes.is_empty(), "{what} is empty");
            let hidden: Vec<&Hidden> =
                hidden.iter().filter(|each| !(each.is_in_images && *is_image)).collect();
            leaks.extend(found(&hidden, bytes).into_iter().map(|hidden| format!("{hidden} is in {what}")));
        }
        assert_eq!(leaks, BTreeSet::new());
    }
}

/// What of all this is in there. Most of what is looked through begins like none of it.
fn found(hidden: &[&Hidden], bytes: &[u8]) -> BTreeSet<&'static str> {
    let pair = |bytes: &[u8]| usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let mut begins = vec![false; 1 << 16];
    for form in hidden.iter().flat_map(|each| &each.forms) {
        begins[pair(form)] = true;
    }
    let mut found = BTreeSet::new();
    for (at, two) in bytes.windows(2).enumerate() {
        if begins[pair(two)] {
            let is_here = |each: &&&Hidden| each.forms.iter().any(|form| bytes[at..].starts_with(form));
            found.extend(hidden.iter().filter(is_here).map(|each| each.what));
        }
    }
    found
}

impl Hidden {
    fn new(what: &'static str, bytes: &[u8]) -> Self {
        let mut hex = String::new();
        for byte in bytes {
            write!(hex, "{byte:02x}").unwrap();
        }
        let list = format!("{bytes:?}");
        let pem = pem::encode(&pem::Pem::new("X", bytes));
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with("---")).collect();
        // As a file is written: of a key the last line is not secret.
        let alone = lines[..lines.len() - 1].iter().map(|line| line.as_bytes().to_vec());
        // Where no lines end, and where a part of the whole is enough for whoever has the rest.
        let base64: String = lines.concat();
        let part = base64[..base64.len() / 4 * 4].trim_end_matches('=').to_owned();
        let upper = hex.to_uppercase();
        let escaped = bytes.escape_ascii().to_string();
        let debug = format!("{:?}", bytes::Bytes::copy_from_slice(bytes));
        let debug = debug.trim_start_matches('b').trim_matches('"').to_owned();
        let texts = [hex, upper, list.trim_matches(['[', ']']).to_owned(), part, escaped, debug];
        let forms = [bytes.to_vec()].into_iter().chain(texts.map(String::into_bytes)).chain(alone).collect();
        Self { what, forms, is_in_images: false }
    }

    fn in_images(self) -> Self {
        Self { is_in_images: true, ..self }
    }

    fn assert_not_in(&self, place: &str, bytes: &[u8]) {
        assert!(found(&[self], bytes).is_empty(), "{} is in {place}", self.what);
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

/// A new directory that is its owner's alone.
fn private_directory(path: &Path) -> &str {
    fs::DirBuilder::new().mode(0o700).create(path).unwrap();
    path.to_str().unwrap()
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_in(&path)) } else { files.push(path) }
    }
    files
}

/// The backups that are whole.
fn backups(directory: &Path) -> Vec<PathBuf> {
    let mut files = files_in(directory);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "snapshot"));
    files.sort();
    files
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Even where the process was started with a mask that hides nothing.
#[test]
fn files_of_a_member_are_its_owners_alone() {
    let mut pair = Pair::with_secret();
    let backed = pair.root.path().join("backups");
    pair.more
        .extend(["--backup-dir", private_directory(&backed), "--backup-interval", "1s"].map(str::to_owned));
    pair.start(0);
    until("a key", FORMS, || pair.data_dir(0).join("identity.0").exists().then_some(()));
    assert_private(&pair.data_dir(0));
    pair.start(1);
    for n in 0..2 {
        until("a cluster", FORMS, || pair.log(n).contains("ready to serve client requests").then_some(()));
        pair.must(n, &["put", "k", "v"]);
        assert_private(&pair.data_dir(n));
    }
    until("a backup", FORMS, || (!backups(&backed).is_empty()).then_some(()));
    assert_private(&backups(&backed)[0]);
}

/// Two clusters, and two boxes that were told what is not true. One has let in its second box by token; in it clients log in for a simple token. The other one goes by a fleet key, and
/// gives out web tokens.
fn formed() -> Lan {
    let token = JoinToken::new(TOKEN);
    let mut lan = Lan::new(6);
    let (key, right) = (file(&lan, "key", SECRET), file(&lan, "token", &token.to_string()));
    let web = format!("jwt,sign-method=HS256,ttl=5m,priv-key={}", file(&lan, "web-key", WEB_KEY));
    let common = ["--log-level", "debug", "--bcrypt-cost", "4", "--backup-interval", "1s", "--backup-dir"];
    for n in [2, 3] {
        let backups = directory_of_backups(&lan, n);
        let own = [private_directory(&backups), "--cluster-secret-file", &key, "--auth-token", &web];
        lan.boxes[n].start(&[&common[..], &own].concat());
    }
    let first = directory_of_backups(&lan, 0);
    let first = [&common[..], &[private_directory(&first), "--trust", "locked"]].concat();
    lan.boxes[0].start(&first);
    grown(&lan, 0, 1);
    lan.boxes[0].signal("-TERM");
    lan.boxes[0].ended(FORMS);
    operator::decide(&lan.boxes[0].data_dir, &[operator::create(&token)]);
    lan.boxes[0].start(&first);
    lan.boxes[1].start(&[&["--trust", "locked", "--join-token-file", &right], &DEBUG[..]].concat());
    grown(&lan, 1, 2);
    grown(&lan, 2, 2);
    grown(&lan, 3, 2);
    lan
}

fn directory_of_backups(lan: &Lan, n: usize) -> PathBuf {
    lan.path(&format!("backups{n}"))
}

/// Two boxes are refused, and it is logged.
fn boxes_are_refused(lan: &mut Lan) {
    let other = file(lan, "other-key", OTHER_SECRET);
    lan.boxes[5].start(&[&["--cluster-secret-file", &other], &DEBUG[..]].concat());
    let wrong = file(lan, "wrong", &JoinToken::new(WRONG_TOKEN).to_string());
    lan.boxes[4].start(&[&["--trust", "locked", "--join-token-file", &wrong], &DEBUG[..]].concat());
    until("a box that has another key", FORMS, || {
        let is_it = |line: &str| line.contains("has not shown that it may") && line.contains("10.88.0.6");
        [2, 3].iter().any(|n| lan.boxes[*n].log().lines().any(is_it)).then_some(())
    });
    until("a box that has a wrong token", FORMS, || {
        lan.boxes[4].exit(&["status", "-w", "json"]).1.contains("no such join token").then_some(())
    });
}

/// Makes users on a box's cluster, logs in, well and in vain, and issues a certificate; what nobody may find of that.
fn is_used(lan: &Lan, n: usize) -> Vec<Hidden> {
    let one = &lan.boxes[n];
    // What a user keeps, which goes to other members; it belongs into a snapshot.
    until("a write", FORMS, || one.run(&["put", "k", VALUE]).ok());
    let bundle = lan.path(&format!("bundle{n}"));
    until("an authority", FORMS, || {
        one.run(&["client", "issue", "ci", "--out", bundle.to_str().unwrap()]).ok()
    });
    one.must(&["user", "add", &format!("root:{PASSWORD}")]);
    one.must(&["user", "grant-role", "root", "root"]);
    one.must(&["auth", "enable"]);
    let log_in = |password: &str| {
        let body = serde_json::json!({ "name": "root", "password": password }).to_string();
        one.ask("POST /v3/auth/authenticate", "", &body)
    };
    assert!(log_in(WRONG_PASSWORD).contains("authentication failed"));
    let answer = log_in(PASSWORD);
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let token = body["token"].as_str().unwrap().to_owned();
    let put = |token: &str| {
        let body = format!(r#"{{"key":"{}","value":"dg=="}}"#, base64(LAST));
        one.ask("POST /v3/kv/put", &format!("Authorization: {token}\r\n"), &body)
    };
    assert!(put(NOBODYS_TOKEN).contains("invalid auth token"));
    let answer = put(&token);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let key = pem::parse(fs::read(bundle.join("client.key")).unwrap()).unwrap();
    let [whole, seed] = keys("the key of a client", key.contents());
    // It is nowhere else: not with the member that has made it either.
    for path in files_in(&one.data_dir) {
        assert!(found(&[&whole, &seed], &fs::read(&path).unwrap()).is_empty(), "{}", path.display());
    }
    vec![whole, seed, Hidden::new("a user's token", token.as_bytes())]
}

fn base64(text: &str) -> String {
    let pem = pem::encode(&pem::Pem::new("X", text.as_bytes()));
    pem.lines().filter(|line| !line.starts_with("---")).collect()
}

/// What a box that runs tells of itself.
fn tells(one: &Box, n: usize, seen: &mut Seen) {
    for page in ["/metrics", "/status.json"] {
        let answer = one.ask(&format!("GET {page}"), "", "");
        // Whoever is in no cluster has no metrics.
        assert!(n >= 4 || answer.starts_with("HTTP/1.1 200 "), "{page} of box {n}: {answer}");
        seen.add(format!("{page} of box {n}"), answer);
    }
    let dir = one.data_dir.to_str().unwrap();
    for command in [&["status", "-w", "json"][..], &["status"], &["doctor", "--data-dir", dir]] {
        seen.add(format!("{command:?} of box {n}"), one.exit(command).1);
    }
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn nothing_secret_is_in_logs_snapshots_backups_or_answers() {
    let mut lan = formed();
    boxes_are_refused(&mut lan);
    let mut hidden: Vec<Hidden> = [0, 2].into_iter().flat_map(|n| is_used(&lan, n)).collect();
    let mut seen = Seen::default();
    for n in [0, 2] {
        let directory = directory_of_backups(&lan, n);
        let has_last = |path: &Path| fs::read(path).is_ok_and(|bytes| holds(&bytes, LAST.as_bytes()));
        until("a backup of all", FORMS, || {
            backups(&directory).iter().any(|path| has_last(path)).then_some(())
        });
    }
    for n in [0, 1, 2] {
        let path = lan.path(&format!("snapshot{n}"));
        let by_root = ["--user", &format!("root:{PASSWORD}")];
        lan.boxes[n].must(&[&by_root, &["snapshot", "save", path.to_str().unwrap()][..]].concat());
        seen.add_image(&path);
        let members = lan.boxes[n].must(&[&by_root, &["member", "list", "-w", "json"][..]].concat());
        seen.add("the list of members".into(), members);
    }
    for (n, one) in lan.boxes.iter().enumerate() {
        tells(one, n, &mut seen);
    }
    for (n, one) in lan.boxes.iter_mut().enumerate() {
        one.kill();
        assert_private(&one.data_dir);
        let log = one.log().into_bytes();
        Hidden::new("a user's value", VALUE.as_bytes()).assert_not_in(&format!("the log of box {n}"), &log);
        seen.add(format!("the log of box {n}"), log);
    }
    for n in [0, 2] {
        for path in backups(&directory_of_backups(&lan, n)) {
            seen.add_image(&path);
        }
    }
    hidden.extend(told_or_stored(&lan));
    seen.have_not(&hidden);
}

/// What was put into files and commands, and what the first box keeps to itself. That it would be found: the state has it.
fn told_or_stored(lan: &Lan) -> Vec<Hidden> {
    let first = operator::decide(&lan.boxes[0].data_dir, &[]);
    let (charter, auth) = (&first.facts.charter, &first.facts.auth);
    let authority = charter.authority.as_ref().expect("there was a leader that has made it");
    assert_eq!(charter.tokens.len(), 1);
    let hash = &auth.users["root"].password.0;
    let of_tokens = auth.token_secret.as_ref().expect("somebody has logged in");
    let kept = [
        Hidden::new("the key of the authority", &authority.key),
        Hidden::new("what was made of a password", hash.as_bytes()),
        Hidden::new("what users' tokens are made with", &of_tokens.0),
    ];
    let kept = kept.each_ref();
    let mut stored = BTreeSet::new();
    for path in files_in(&lan.boxes[0].data_dir) {
        stored.extend(found(&kept, &fs::read(path).unwrap()));
    }
    assert_eq!(stored, kept.map(|each| each.what).into());
    let last = fs::read(backups(&directory_of_backups(lan, 0)).pop().unwrap()).unwrap();
    assert!(!found(&kept[1..2], &last).is_empty(), "who restores a backup logs in as before");

    let (token, wrong) = (JoinToken::new(TOKEN), JoinToken::new(WRONG_TOKEN));
    let mut hidden = vec![
        Hidden::new("the fleet key", SECRET.as_bytes()),
        Hidden::new("another fleet key", OTHER_SECRET.as_bytes()),
        Hidden::new("the token", token.to_string().as_bytes()),
        Hidden::new("the token's secret", &TOKEN),
        Hidden::new("what the token's proofs are made with", &token.key().0),
        Hidden::new("a wrong token", wrong.to_string().as_bytes()),
        Hidden::new("a wrong token's secret", &WRONG_TOKEN),
        Hidden::new("what a wrong token's proofs are made with", &wrong.key().0),
        Hidden::new("a password", PASSWORD.as_bytes()),
        Hidden::new("a wrong password", WRONG_PASSWORD.as_bytes()),
        Hidden::new("what was made of a password", hash.as_bytes()).in_images(),
        Hidden::new("a user's wrong token", NOBODYS_TOKEN.as_bytes()),
        Hidden::new("what users' tokens are made with", &of_tokens.0),
        Hidden::new("what web tokens are signed with", WEB_KEY.as_bytes()),
    ];
    hidden.extend(keys("the key of a node", first.identity.key.pkcs8()));
    hidden.extend(keys("the key of the authority", &authority.key));
    hidden
}
