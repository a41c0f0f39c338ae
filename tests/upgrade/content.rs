//! What clients see of a node, as lines of text.
//!
//! Owns: the lines. They say nothing that another machine, another address or a later hour would change. Must never: change anything at the node.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::process::Host;

/// Everything that a node has, by whoever may see it: revisions and hash, keys, leases, users, roles, clients and tokens.
///
/// ```text
/// revision 9, compacted 4, hash 7
/// key "a" = "b", created 2, modified 3, version 2, lease 0
/// lease 12 of 60 s: "a" "c"
/// user "root": "root"
/// role "reads": 0 "k/" "k0"
/// client "laptop"
/// token 0011223344556677
/// ```
pub fn describe(host: &Host, who: &[&str]) -> String {
    let asked = |arguments: &[&str]| ask(host, who, arguments);
    let keys = asked(&["get", "", "--prefix"]);
    let revision = keys["header"]["revision"].as_i64().unwrap();
    let hash = hashed(host, who, revision);
    let mut text =
        format!("revision {revision}, compacted {}, hash {}\n", hash["compact_revision"], hash["hash"]);
    for key in list(&keys["kvs"]) {
        let number = |field: &str| key[field].as_i64().unwrap_or_default();
        let (created, modified, version) =
            (number("create_revision"), number("mod_revision"), number("version"));
        let (name, value, lease) = (bytes(&key["key"]), bytes(&key["value"]), number("lease"));
        writeln!(
            text,
            "key {name} = {value}, created {created}, modified {modified}, version {version}, lease {lease}"
        )
        .unwrap();
    }
    for lease in list(&asked(&["lease", "list"])["leases"]) {
        let id = lease["id"].as_i64().unwrap();
        let lease = asked(&["lease", "timetolive", &format!("{id:x}"), "--keys"]);
        let keys: Vec<String> = list(&lease["keys"]).iter().map(bytes).collect();
        writeln!(text, "lease {id} of {} s: {}", lease["granted-ttl"], keys.join(" ")).unwrap();
    }
    for user in list(&asked(&["user", "list"])["users"]) {
        let roles = asked(&["user", "get", user.as_str().unwrap()]);
        writeln!(text, "user {user}: {}", words(list(&roles["roles"]))).unwrap();
    }
    for role in list(&asked(&["role", "list"])["roles"]) {
        for may in list(&asked(&["role", "get", role.as_str().unwrap()])["perm"]) {
            let kind = may["permType"].as_i64().unwrap_or_default();
            writeln!(text, "role {role}: {kind} {} {}", bytes(&may["key"]), bytes(&may["range_end"]))
                .unwrap();
        }
    }
    for client in list(&asked(&["client", "list"])["clients"]) {
        writeln!(text, "client {}", client["name"]).unwrap();
    }
    for token in list(&asked(&["token", "list"])["tokens"]) {
        writeln!(text, "token {}", token["id"]).unwrap();
    }
    text
}

/// The hash of everything up to a revision.
pub fn hash_at(host: &Host, who: &[&str], revision: i64) -> u64 {
    hashed(host, who, revision)["hash"].as_u64().unwrap()
}

fn hashed(host: &Host, who: &[&str], revision: i64) -> Value {
    ask(host, who, &["endpoint", "hashkv", "--rev", &revision.to_string()])[0]["HashKV"].take()
}

/// What a client's command prints as JSON.
pub fn ask(host: &Host, who: &[&str], arguments: &[&str]) -> Value {
    serde_json::from_str(&host.must(&[who, arguments, &["-w", "json"]].concat())).unwrap()
}

/// What is left out is none.
fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn words(values: &[Value]) -> String {
    values.iter().map(Value::to_string).collect::<Vec<_>>().join(" ")
}

/// Bytes that came as base64, as they can be read.
fn bytes(value: &Value) -> String {
    let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap();
    format!("\"{}\"", bytes.escape_ascii())
}
