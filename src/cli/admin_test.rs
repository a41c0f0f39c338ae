//! What operators type, and what they are shown.

use std::ffi::OsString;

use lexopt::Parser;

use super::*;
use crate::cli::args::command;

/// The job of a command that takes these arguments.
fn typed(name: &str, arguments: &[&str]) -> Result<Job, String> {
    let command = command(name.as_ref()).unwrap();
    let mut parsed = Parsed::default();
    parsed.rest(command, &mut Parser::from_args(arguments.iter().map(OsString::from))).unwrap();
    job(command, &parsed).map(Option::unwrap).map_err(|error| error.to_string())
}

fn printed(done: &Done) -> String {
    let mut out = Vec::new();
    write(&mut out, Format::Simple, done).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn commands_are_read_with_their_defaults() {
    assert_eq!(typed("token create", &[]), Ok(Job::TokenCreate { seconds: 3600 }));
    assert_eq!(typed("token create", &["--ttl", "90s"]), Ok(Job::TokenCreate { seconds: 90 }));
    assert_eq!(typed("window open", &["10m"]), Ok(Job::WindowOpen { seconds: 600 }));
    let approve = |fingerprint: &str| Ok(Job::NodeApprove { fingerprint: fingerprint.to_owned() });
    assert_eq!(typed("node approve", &["0123 4567"]), approve("0123 4567"));
    assert_eq!(typed("node approve", &["0123", "4567"]), approve("01234567"), "copied without quotes");
    let issue = |out: &str| Ok(Job::ClientIssue { name: "ci".into(), out: out.into() });
    assert_eq!(typed("client issue", &["ci"]), issue("ci"));
    assert_eq!(typed("client issue", &["ci", "--out", "/tmp/x"]), issue("/tmp/x"));
    assert_eq!(typed("log-level", &[]), Ok(Job::LogLevel { level: String::new() }));
    assert_eq!(typed("log-level", &["debug"]), Ok(Job::LogLevel { level: "debug".into() }));
    let renew = |out: &str| Ok(Job::ClientRenew { name: "ci".into(), out: out.into() });
    assert_eq!(typed("client renew", &["ci"]), renew("ci"));
    assert_eq!(typed("client renew", &["ci", "--out", "/tmp/x"]), renew("/tmp/x"));
}

#[test]
fn what_makes_no_sense_is_refused_before_anybody_is_asked() {
    for (name, arguments) in [
        ("token create", &["now"][..]),
        ("token revoke", &[]),
        ("node approve", &[]),
        ("window open", &[]),
        ("window open", &["ten"]),
        ("window close", &["now"]),
        ("log-level", &["loud"]),
        ("log-level", &["info", "debug"]),
        ("client issue", &[]),
        ("client issue", &["../up"]),
        ("client issue", &[".hidden"]),
        ("client revoke", &["a", "b"]),
        ("client renew", &[]),
        ("client renew", &["../up"]),
    ] {
        assert!(typed(name, arguments).is_err(), "{name} {arguments:?}");
    }
}

#[test]
fn a_new_token_stands_alone_for_scripts_and_is_not_in_the_hint() {
    let done = Done::TokenCreated(pb::TokenCreateResponse {
        token: "covey-secret".into(),
        id: "0011".into(),
        seconds: 3600,
    });
    assert_eq!(printed(&done), "covey-secret\n");
    let hint = hint(&done).unwrap();
    assert!(hint.contains("0011") && hint.contains("1 h") && !hint.contains("secret"), "{hint}");
}

#[test]
fn lists_are_lines() {
    let token =
        |id: &str, seconds, used_by: &str| pb::Token { id: id.into(), seconds, used_by: used_by.into() };
    let tokens = Done::Tokens(vec![token("aa", 59, ""), token("bb", 0, "0123456789")]);
    assert_eq!(printed(&tokens), "aa, good for 59 s\nbb, used by 0123 4567 89\n");
    let node = pb::PendingNode {
        fingerprint: "0123456789abcdef".into(),
        name: "box3".into(),
        peer_urls: vec!["https://10.0.0.3:2380".into()],
        asked_seconds: 3,
    };
    let line = "0123 4567 89ab cdef, box3, https://10.0.0.3:2380, asked 3 s ago\n";
    let waits = |silent: &[&str]| {
        let silent = silent.iter().map(|name| (*name).to_owned()).collect();
        Done::Pending(pb::NodePendingResponse { nodes: vec![node.clone()], silent, left_out: 0 })
    };
    assert_eq!((printed(&waits(&[])).as_str(), hint(&waits(&[]))), (line, None));
    let partly = waits(&["box1", "box2"]);
    assert_eq!(printed(&partly), line, "a script reads the same lines");
    assert!(hint(&partly).unwrap().contains("not answered by box1, box2"));
    assert_eq!(as_json(&partly)["silent"], serde_json::json!(["box1", "box2"]));
    let silent = vec!["box1".to_owned()];
    let many = Done::Pending(pb::NodePendingResponse { nodes: vec![node.clone()], silent, left_out: 12 });
    assert_eq!(printed(&many), line);
    let said = hint(&many).unwrap();
    assert!(said.contains("not answered by box1") && said.contains("12 more"), "{said}");
    assert_eq!(as_json(&many)["left_out"], 12);
    let client = |outdated, outdated_seconds| pb::Client {
        name: "ci".into(),
        key: "aa".into(),
        outdated,
        outdated_seconds,
    };
    let clients = Done::Clients(vec![client(false, 0), client(true, 86_400), client(true, 0)]);
    let lines = "ci, aa\nci, aa, knows the servers for 1 d: covey client renew\nci, aa, knows no server any more: covey client renew\n";
    assert_eq!(printed(&clients), lines);
}
