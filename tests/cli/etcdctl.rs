//! What users of etcdctl type, against a server.

use std::io::{BufRead as _, BufReader, Lines, Read, Write as _};
use std::process::{Child, ChildStdout, Stdio};

use tempfile::TempDir;

use crate::process::{Server, covey, free_endpoint, run, until};

fn served() -> (TempDir, Server) {
    let dir = TempDir::new().unwrap();
    let server = Server::start(&dir.path().join("data"));
    (dir, server)
}

/// A command that goes on; killed when it is dropped.
struct Lasting {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Lasting {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let mut command = covey(&[&["--endpoints", server.endpoint.as_str()], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn interrupted(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn each_endpoint_is_asked_and_a_dead_one_keeps_nobody_from_the_others() {
    let (_dir, server) = served();
    let dead = free_endpoint();
    let both = format!("{dead},{}", server.endpoint);
    let own = server.endpoint.as_str();

    let health = server.must(&["endpoint", "health"]);
    assert!(
        health.starts_with(&format!("{own} is healthy: successfully committed proposal: took = ")),
        "{health}"
    );
    let outcome = run(&["--endpoints", &both, "endpoint", "health"]);
    assert_eq!((outcome.code, outcome.stdout.lines().count()), (1, 1), "{outcome:?}");
    assert!(
        outcome.stderr.starts_with(&format!("{dead} is unhealthy: failed to commit proposal: ")),
        "{outcome:?}"
    );
    assert!(outcome.stderr.ends_with("Error: unhealthy cluster\n"), "{outcome:?}");

    let outcome = run(&["--endpoints", &both, "endpoint", "status"]);
    assert!(outcome.code == 1 && outcome.stdout.starts_with(own), "{outcome:?}");
    assert!(
        outcome.stderr.starts_with(&format!("Failed to get the status of endpoint {dead} (")),
        "{outcome:?}"
    );
    let table = server.must(&["endpoint", "status", "--cluster", "-w", "table"]);
    assert!(table.starts_with('┌') && table.contains(&format!("│ http://{own} │")), "{table}");

    let hash = server.must(&["endpoint", "hashkv"]);
    server.must(&["put", "key", "value"]);
    assert_ne!(server.must(&["endpoint", "hashkv"]), hash);
    assert_eq!(server.must(&["endpoint", "hashkv", "--rev", "1"]), hash);
    let outcome = server.run(&["endpoint", "hashkv", "--rev", "99"]);
    let future = "etcdserver: mvcc: required revision is a future revision";
    let expected = format!("Failed to get the hash of endpoint {own} ({future})\nError: {future}\n");
    assert_eq!((outcome.code, outcome.stderr), (1, expected));

    assert_eq!(server.must(&["defrag"]), format!("Finished defragmenting etcd member[{own}]\n"));
    let outcome = run(&["--endpoints", &both, "defrag"]);
    assert_eq!((outcome.code, outcome.stdout.lines().count()), (1, 1), "{outcome:?}");
    assert_eq!(server.must(&["alarm", "list"]) + &server.must(&["alarm", "disarm"]), "");
}

#[test]
fn what_has_no_table_is_refused_and_does_nothing() {
    let (_dir, server) = served();
    let refused = server.run(&["put", "key", "value", "-w", "table"]);
    assert_eq!((refused.code, refused.stderr.as_str()), (4, "Error: table not supported as output format\n"));
    assert_eq!(server.must(&["get", "key"]), "");
    let help = server.must(&["put", "--help"]);
    assert!(help.contains("\nExample:\n  covey put "), "{help}");
    let help = run(&["help", "snapshot", "restore"]).stdout;
    assert!(help.contains("\nExamples:\n  covey snapshot save "), "{help}");
    assert!(help.contains("\n  covey snapshot restore backup.db --data-dir "), "{help}");
}

#[test]
fn a_lock_is_held_while_a_command_runs_and_its_exit_code_is_ours() {
    let (_dir, server) = served();
    let outcome = server.run(&["lock", "l", "--", "sh", "-c", "echo $ETCD_LOCK_KEY $ETCD_LOCK_REV; exit 7"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (7, "Error: exit status 7\n"));
    assert!(outcome.stdout.starts_with("l/") && outcome.stdout.ends_with(" 2\n"), "{outcome:?}");
    assert_eq!(server.must(&["lease", "list"]), "found 0 leases\n", "nobody waits for its end");
    assert_eq!(server.must(&["get", "", "--prefix"]), "");
    let killed = server.run(&["lock", "l", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!((killed.code, killed.stderr.as_str()), (137, "Error: signal: 9\n"));
    assert_eq!(server.run(&["lock", "l", "--", "/nowhere"]).code, 1);
    assert_eq!(server.must(&["lease", "list"]), "found 0 leases\n");
    for (wrong, code) in [(&["lock"][..], 128), (&["lock", "l", "--ttl", "0"], 1)] {
        assert_eq!(server.run(wrong).code, code, "{wrong:?}");
    }
}

#[test]
fn whoever_comes_later_waits_for_the_lock() {
    let (_dir, server) = served();
    let mut first = Lasting::start(&server, &["lock", "l"]);
    let key = first.line();
    assert!(key.starts_with("l/") && first.line().is_empty());
    let mut second = Lasting::start(&server, &["lock", "l", "--ttl", "2"]);
    let contenders = || server.must(&["get", "l/", "--prefix", "--keys-only"]).lines().count() / 2;
    until("the second one waits", || contenders() == 2);
    assert_eq!(first.interrupted(), Some(0));
    let next = second.line();
    assert!(next.starts_with("l/") && next != key, "{next}");

    // One that is gone without a word has its turn until its lease ends.
    let mut third = Lasting::start(&server, &["lock", "l"]);
    until("the third one waits", || contenders() == 2);
    drop(second);
    assert!(third.line().starts_with("l/"));

    // One that is interrupted while it waits leaves.
    let fourth = Lasting::start(&server, &["lock", "l"]);
    until("the fourth one waits", || contenders() == 2);
    assert_eq!(fourth.interrupted(), Some(1));
    until("it has left", || contenders() == 1);
}

#[test]
fn an_election_has_one_winner_and_others_look_on() {
    let (_dir, server) = served();
    let mut listener = Lasting::start(&server, &["elect", "-l", "e"]);
    let mut first = Lasting::start(&server, &["elect", "e", "one"]);
    let key = first.line();
    assert!(key.starts_with("e/") && first.line() == "one", "{key}");
    assert_eq!((listener.line(), listener.line()), (key, "one".to_owned()));
    let mut second = Lasting::start(&server, &["elect", "e", "two", "-w", "json"]);
    until("the second one stands", || {
        server.must(&["get", "e/", "--prefix", "--keys-only"]).lines().count() == 4
    });
    assert_eq!(first.interrupted(), Some(0));
    assert!(second.line().contains("\"value\":\"dHdv\""));
    let (key, value) = (listener.line(), listener.line());
    assert!(key.starts_with("e/") && value == "two", "{key} {value}");
    assert_eq!((second.interrupted(), listener.interrupted()), (Some(0), Some(0)));
    for wrong in [&["elect"][..], &["elect", "e"], &["elect", "-l", "e", "x"]] {
        assert_eq!(server.run(wrong).code, 128, "{wrong:?}");
    }
}

#[test]
fn a_lock_is_not_held_for_longer_than_its_lease() {
    let dir = TempDir::new().unwrap();
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    let mut held = Lasting::start(&server, &["lock", "l", "--ttl", "2"]);
    until("it is held", || !server.must(&["get", "l/", "--prefix"]).is_empty());
    drop(server);
    assert_eq!(held.child.wait().unwrap().code(), Some(1), "the lease may have ended");
}

/// What `script` shows of a terminal until this text, and it.
fn shown_until(terminal: &mut impl Read, text: &str) -> String {
    let mut shown = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&shown).ends_with(text) {
        assert_eq!(terminal.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&shown));
        shown.push(byte[0]);
    }
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn a_password_is_asked_for_at_the_terminal_and_not_shown() {
    let (_dir, server) = served();
    server.must(&["put", "key", "value"]);
    let without = server.run(&["get", "key", "--user", "somebody:secret"]);
    assert_eq!((without.code, without.stdout.as_str()), (0, "key\nvalue\n"), "nobody is asked here");

    let ask = format!(
        "{} --endpoints {} get key --user somebody; stty -a",
        env!("CARGO_BIN_EXE_covey"),
        server.endpoint
    );
    let mut terminal = std::process::Command::new("script")
        .args(["-qec", &ask, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    shown_until(&mut screen, "Password: ");
    keys.write_all(b"secrets\x7f\r").unwrap();
    let shown = shown_until(&mut screen, "value\r\n");
    assert!(!shown.contains("secret"), "{shown}");
    let modes = shown_until(&mut screen, "echoke");
    assert!(modes.contains(" echo ") && modes.contains(" icanon ") && modes.contains("\nisig "), "{modes}");
    drop(keys);
    assert!(terminal.wait().unwrap().success());
}
