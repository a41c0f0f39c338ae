//! What a service manager is told by a server that it has started.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Server, rest, run, until};

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

/// Whatever goes by a schedule, and how much is logged.
#[test]
fn backups_compactions_and_the_level_of_the_log_are_taken_while_it_runs() {
    let dir = TempDir::new().unwrap();
    let (file, backups, log) =
        (dir.path().join("covey.toml"), dir.path().join("backups"), dir.path().join("a.log"));
    fs::create_dir(&backups).unwrap();
    fs::write(&file, "").unwrap();
    let server = Server::start_in(&dir.path().join("a.covey"), &[("COVEY_CONFIG_FILE", file.as_os_str())]);
    let reload = |text: &str| {
        let read = |log: String| log.matches("the settings were read again").count();
        let before = read(fs::read_to_string(&log).unwrap());
        fs::write(&file, text).unwrap();
        server.signal(Signal::HUP);
        until("they are read", || read(fs::read_to_string(&log).unwrap()) > before);
    };
    // What has a name is whole.
    let has_backups = || {
        let names = fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name != "covey.part").count()
    };
    let debugs = || fs::read_to_string(&log).unwrap().matches("\"level\":\"debug\"").count();
    for n in 0..3 {
        server.must(&["put", "key", &n.to_string()]);
    }
    assert_eq!((has_backups(), debugs()), (0, 0));
    server.must(&["get", "key", "--rev", "2"]);

    let backup = format!("[backup]\ndir = {:?}\ninterval = \"1s\"\n", backups.to_str().unwrap());
    reload(&format!("{backup}[log]\nlevel = \"debug\"\n"));
    until("a backup", || has_backups() > 0);
    server.must(&["put", "key", "more"]);
    until("it is logged more", || debugs() > 0);
    // From here on nothing has changed of which there would be another one.
    until("a backup of that", || has_backups() > 1);

    reload("[compaction]\nmode = \"revision\"\nretention = \"1\"\n");
    until("it is compacted", || {
        server.run(&["get", "key", "--rev", "2"]).stderr.contains("required revision has been compacted")
    });
    // Nothing of the former settings goes on.
    let (debugs_before, backups_before) = (debugs(), has_backups());
    server.must(&["put", "key", "last"]);
    // Two intervals.
    rest(Duration::from_secs(2));
    assert_eq!((debugs(), has_backups()), (debugs_before, backups_before));
    assert!(server.stop().success());
}

/// By an operator at the box, without any file.
#[test]
fn the_level_of_the_log_is_changed_by_a_command_and_back() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(&dir.path().join("a.covey"), &[]);
    let log = || fs::read_to_string(dir.path().join("a.log")).unwrap();
    let debugs = || log().matches("\"level\":\"debug\"").count();
    assert_eq!(server.must(&["log-level"]).trim_end(), "info");
    server.must(&["put", "key", "value"]);
    assert_eq!(debugs(), 0);
    server.must(&["log-level", "debug"]);
    assert_eq!(server.must(&["log-level"]).trim_end(), "debug");
    until("it is logged more", || {
        server.must(&["put", "key", "value"]);
        debugs() > 0
    });
    server.must(&["log-level", "error"]);
    assert_eq!(log().matches("an operator has changed the log level").count(), 2);
    // What was under way is written by then.
    rest(Duration::from_millis(500));
    let before = debugs();
    server.must(&["put", "key", "value"]);
    rest(Duration::from_secs(1));
    assert_eq!(debugs(), before);
    assert!(server.stop().success());
}

/// Writes a certificate for the box itself and its key, as large and as old as any others that this has written, and the authority that it is of.
fn write_certificate(dir: &Path, name: &str) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    fs::write(dir.join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
    let authority = Issuer::new(params, key);
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap().pem();
    for (file, mut text) in [("cert.pem", certificate), ("key.pem", key.serialize_pem())] {
        text.extend(std::iter::repeat_n('\n', 2000 - text.len()));
        // In place, for another inode is a change that is seen; nobody looks before the next handshake.
        fs::write(dir.join(file), text).unwrap();
        let written = File::options().write(true).open(dir.join(file)).unwrap();
        written.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)).unwrap();
    }
}

/// Files look unchanged where a clock that is wrong has given them the time of those before: a signal has them read all the same.
#[test]
fn files_of_tls_are_read_again_also_where_they_look_unchanged() {
    let dir = TempDir::new().unwrap();
    write_certificate(dir.path(), "first");
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    let settings = [("COVEY_CERT_FILE", cert.as_os_str()), ("COVEY_KEY_FILE", key.as_os_str())];
    let server = Server::start_in(&dir.path().join("a.covey"), &settings);
    let url = format!("https://{}", server.endpoint);
    let shows = |name: &str| {
        let authority = dir.path().join(format!("{name}.pem"));
        run(&["--endpoints", &url, "--cacert", authority.to_str().unwrap(), "get", "key"]).code == 0
    };
    assert!(shows("first"));
    write_certificate(dir.path(), "second");
    assert!(shows("first") && !shows("second"), "nobody has noticed");
    server.signal(Signal::HUP);
    until("it shows the new one", || shows("second"));
    assert!(!shows("first"));
    // One that is of no use leaves the one before.
    fs::write(&cert, "no certificate").unwrap();
    server.signal(Signal::HUP);
    let log = dir.path().join("a.log");
    until("that is noticed", || fs::read_to_string(&log).unwrap().contains("the ones before stay"));
    assert!(shows("second"));
    assert!(server.stop().success());
}
