//! What a service manager is told by a server that it has started.

use std::ffi::OsStr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Server;

/// How long something that is to be said may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_service_manager_hears_of_the_start_the_life_and_the_end() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hears = |what: &str| {
        let mut buffer = [0; 1024];
        loop {
            let bytes = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{what}: {error}"));
            let text = std::str::from_utf8(&buffer[..bytes]).unwrap();
            if text.lines().any(|line| line == what) {
                return text.to_owned();
            }
        }
    };
    let environment = [("NOTIFY_SOCKET", socket.as_os_str()), ("WATCHDOG_USEC", OsStr::new("200000"))];
    let server = Server::start_in(&dir.path().join("a.covey"), &environment);
    let ready = hears("READY=1");
    assert!(ready.contains("\nSTATUS=serves clients as member "), "{ready}");
    // Not one that was on its way, but one after another.
    for _ in 0..3 {
        hears("WATCHDOG=1");
    }
    assert!(server.stop().success());
    hears("STOPPING=1");
}
