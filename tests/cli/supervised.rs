//! What a service manager is told by a server that it has started.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::Server;

/// How long something that is to be said may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What stands beside this line once it is said.
fn hears(manager: &UnixDatagram, what: &str) -> String {
    let mut buffer = [0; 1024];
    loop {
        let bytes = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{what}: {error}"));
        let text = std::str::from_utf8(&buffer[..bytes]).unwrap();
        if text.lines().any(|line| line == what) {
            return text.to_owned();
        }
    }
}

#[test]
fn a_service_manager_hears_of_the_start_the_life_and_the_end() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let environment = [("NOTIFY_SOCKET", socket.as_os_str()), ("WATCHDOG_USEC", OsStr::new("200000"))];
    let server = Server::start_in(&dir.path().join("a.covey"), &environment);
    let ready = hears(&manager, "READY=1");
    assert!(ready.contains("\nSTATUS=serves clients as member "), "{ready}");
    // Not one that was on its way, but one after another.
    for _ in 0..3 {
        hears(&manager, "WATCHDOG=1");
    }
    assert!(server.stop().success());
    hears(&manager, "STOPPING=1");
}

#[test]
fn settings_are_read_again_and_those_of_which_one_is_wrong_are_not_taken() {
    let dir = TempDir::new().unwrap();
    let (socket, file) = (dir.path().join("notify"), dir.path().join("covey.toml"));
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("[store]\nquota-bytes = 1000000\n");
    let environment = [("NOTIFY_SOCKET", socket.as_os_str()), ("COVEY_CONFIG_FILE", file.as_os_str())];
    let server = Server::start_in(&dir.path().join("a.covey"), &environment);
    hears(&manager, "READY=1");
    let reload = || {
        server.signal(Signal::HUP);
        let began = hears(&manager, "RELOADING=1");
        assert!(began.contains("\nMONOTONIC_USEC="), "{began}");
        hears(&manager, "READY=1");
    };
    let quota = || {
        let status = server.must(&["status", "-w", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["cluster"]["quota_bytes"].as_u64()
    };
    assert_eq!(quota(), Some(1_000_000));
    write(
        "[store]\nquota-bytes = 2000000\n[peer]\nvoters = \"5\"\nmax-learners = 2\n[log]\nformat = \"text\"\n",
    );
    reload();
    assert_eq!(quota(), Some(2_000_000));
    write("[store]\nquota-bytes = 3000000\n[log]\nlevel = \"loud\"\n");
    reload();
    assert_eq!(quota(), Some(2_000_000));
    let log = fs::read_to_string(dir.path().join("a.log")).unwrap();
    let late: Vec<&str> = log.lines().filter(|line| line.contains("taken at the next start")).collect();
    assert_eq!(late.len(), 1, "{log}");
    assert!(late[0].contains("--max-learners") && !late[0].contains("--voters"), "{log}");
    assert!(log.starts_with('{') && !late[0].starts_with('{'), "the format is another one: {log}");
    assert!(
        log.contains("the settings are not taken") && log.contains("covey.toml:4: key log.level"),
        "{log}"
    );
    assert!(server.stop().success());
}
