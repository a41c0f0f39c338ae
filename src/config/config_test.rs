//! The configuration as a whole: precedence, spellings, the file, the rules between settings, the example.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    AutoCompaction, ConfigError, Invocation, ServeConfig, TrustMode, example, file, load, options, table,
};
use crate::consensus::Pace;
use crate::formation::Fingerprint;
use crate::limits;
use crate::telemetry::{LogFormat, LogLevel};

fn load_with(args: &[&str], env: &[(&str, &str)]) -> Result<ServeConfig, ConfigError> {
    let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    match load(args.iter().map(OsString::from), env)? {
        Invocation::Serve(config) => Ok(*config),
        Invocation::Help => panic!("no help was asked for"),
    }
}

fn ok(args: &[&str]) -> ServeConfig {
    load_with(args, &[]).unwrap()
}

fn error(args: &[&str]) -> String {
    load_with(args, &[]).unwrap_err().to_string()
}

#[test]
fn defaults_are_etcds() {
    let config = ok(&[]);
    assert_eq!((config.name.as_str(), config.data_dir.as_path()), ("default", Path::new("default.covey")));
    assert!(!config.solo);
    assert!(config.is_automatic() && !config.is_named());
    assert_eq!(config.client.listen_urls[0].to_string(), "https://[::]:2379");
    assert_eq!(config.client.advertise_urls, []);
    assert_eq!(config.peer.listen.to_string(), "https://[::]:2380");
    assert_eq!(config.peer.advertise_urls, []);
    assert_eq!(config.peer.trust, TrustMode::LanOpen);
    assert_eq!(config.client.tls, None);
    assert_eq!(config.client.max_request_bytes, limits::REQUEST_BYTES);
    assert_eq!(config.client.max_txn_ops, 128);
    assert_eq!(config.client.max_streams, limits::STREAMS_PER_CONNECTION);
    assert_eq!(config.client.keepalive_min_time, limits::KEEPALIVE_MIN_TIME);
    let (interval, timeout) = (limits::KEEPALIVE_INTERVAL, limits::KEEPALIVE_TIMEOUT);
    assert_eq!(config.client.keepalive, Some((interval, timeout)));
    assert!(config.client.allowed_hosts.is_empty() && config.client.cors.is_empty());
    assert_eq!(config.store.quota_bytes, Some(limits::QUOTA_BYTES));
    assert_eq!(config.store.cache_bytes, limits::STORE_CACHE_BYTES);
    assert_eq!(config.auto_compaction, AutoCompaction::Off);
    assert_eq!((config.log.level, config.log.format), (LogLevel::Info, LogFormat::Json));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn a_secret_that_systemd_hands_over_is_the_clusters() {
    let dir = tempfile::tempdir().unwrap();
    let env = [("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap())];
    let secret = |args: &[&str]| {
        let peer = load_with(args, &env).unwrap().peer;
        (peer.secret_file, peer.trust)
    };
    assert_eq!(secret(&[]), (None, TrustMode::LanOpen), "none was handed over");
    let missing = load_with(&["--trust=fleet-key"], &env).unwrap_err();
    assert!(matches!(missing, ConfigError::FleetKeyMissing), "whoever relies on it is not let run without");
    let path = dir.path().join("covey.cluster-secret");
    fs::write(&path, "secret").unwrap();
    for args in [&[][..], &["--cluster-secret-file="], &["--trust=fleet-key"]] {
        assert_eq!(secret(args), (Some(path.clone()), TrustMode::FleetKey), "{args:?}");
    }
    assert_eq!(secret(&["--cluster-secret-file=/x"]).0, Some(PathBuf::from("/x")));
    assert_eq!(load_with(&[], &[("CREDENTIALS_DIRECTORY", "")]).unwrap().peer.secret_file, None);
}

#[test]
fn a_node_that_does_not_look_for_others_listens_on_this_machine_alone() {
    for args in [["--solo"], ["--initial-cluster=default=http://localhost:2380"]] {
        let config = ok(&args);
        assert!(!config.is_automatic());
        assert_eq!(config.client.listen_urls[0].to_string(), "http://localhost:2379");
        assert_eq!(config.client.listen_urls[0].address.to_string(), "127.0.0.1:2379");
        assert_eq!(config.client.advertise_urls[0].to_string(), "http://localhost:2379");
        assert_eq!(config.peer.listen.to_string(), "http://localhost:2380");
        assert_eq!(config.peer.advertise_urls[0].to_string(), "http://localhost:2380");
    }
}

#[test]
fn who_is_let_in_follows_from_the_secret_and_must_not_contradict_it() {
    let trust = |args: &[&str]| ok(args).peer.trust;
    let secret = "--cluster-secret-file=s";
    assert_eq!(trust(&[secret]), TrustMode::FleetKey);
    assert_eq!(trust(&[secret, "--trust=locked"]), TrustMode::Locked);
    assert_eq!(trust(&["--trust=locked"]), TrustMode::Locked);
    assert!(error(&["--trust=fleet-key"]).contains("needs --cluster-secret-file"));
    assert!(error(&[secret, "--trust=lan-open"]).contains("leave out --cluster-secret-file"));
    assert!(error(&["--trust=open"]).ends_with("expected one of lan-open, fleet-key, locked"));
}

#[test]
fn hints_of_where_others_are_have_the_port_listened_on_unless_they_name_one() {
    let peers =
        |args: &[&str]| -> Vec<String> { ok(args).peer.peers.iter().map(ToString::to_string).collect() };
    assert_eq!(
        peers(&["--peers=a.example, 10.0.0.1,10.0.0.2:7,fd00::1,[fd00::2]:8"]),
        ["a.example:2380", "10.0.0.1:2380", "10.0.0.2:7", "[fd00::1]:2380", "[fd00::2]:8"]
    );
    assert_eq!(peers(&["--listen-peer-urls=https://[::]:77", "--peers", "a"]), ["a:77"]);
    for bad in ["a b", "a:x", ":1", "a/b"] {
        assert!(error(&["--peers", bad]).contains("is no host"), "{bad}");
    }
}

#[test]
fn a_flag_wins_over_environment_over_file_over_default() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("covey.toml");
    fs::write(&path, "name = \"file\"\nsolo = true\n[client]\nmax-txn-ops = 7\n").unwrap();
    let file = format!("--config-file={}", path.display());
    let env = [("COVEY_NAME", "ours"), ("ETCD_NAME", "etcds"), ("ETCD_MAX_TXN_OPS", "8")];

    let all = load_with(&[&file, "--name", "flag"], &env).unwrap();
    assert_eq!((all.name.as_str(), all.client.max_txn_ops, all.solo), ("flag", 8, true));
    assert_eq!(load_with(&[&file], &env).unwrap().name, "ours");
    assert_eq!(load_with(&[&file], &env[1..]).unwrap().name, "etcds");
    assert_eq!(load_with(&[&file], &[("COVEY_NAME", "")]).unwrap().name, "file");
    assert_eq!(ok(&[&file]).client.max_txn_ops, 7);
    // The file may be named by the environment as well.
    assert_eq!(load_with(&[], &[("COVEY_CONFIG_FILE", path.to_str().unwrap())]).unwrap().name, "file");
    assert_eq!(ok(&["--name", "n"]).data_dir, PathBuf::from("n.covey"));
}

#[test]
fn a_port_for_metrics_may_be_plain_and_needs_a_certificate_for_https() {
    assert!(ok(&[]).metrics.listen_urls.is_empty());
    let urls = |args: &[&str]| -> Vec<String> {
        ok(args).metrics.listen_urls.iter().map(ToString::to_string).collect()
    };
    let both = "--listen-metrics-urls=http://0.0.0.0:2381,https://[::1]:2382";
    assert_eq!(urls(&[both]), ["http://0.0.0.0:2381", "https://[::1]:2382"], "its cluster has certificates");
    assert_eq!(urls(&["--solo", both, "--cert-file=c", "--key-file=k"]).len(), 2);
    assert!(error(&["--solo", both]).ends_with("for metrics secure url: https://[::1]:2382"));
    assert!(error(&["--listen-metrics-urls=2381"]).contains("URL scheme must be http or https"));
}

#[test]
fn keepalives_are_set_by_etcds_flags_and_zero_switches_them_off() {
    let config = ok(&["--grpc-keepalive-interval=1m30s", "--grpc-keepalive-timeout=1s"]);
    assert_eq!(config.client.keepalive, Some((Duration::from_secs(90), Duration::from_secs(1))));
    assert_eq!(ok(&["--grpc-keepalive-interval=0"]).client.keepalive, None);
    assert_eq!(ok(&["--grpc-keepalive-timeout=0s"]).client.keepalive, None);
    let config = load_with(&[], &[("ETCD_GRPC_KEEPALIVE_MIN_TIME", "0")]).unwrap();
    assert_eq!(config.client.keepalive_min_time, Duration::ZERO);
    assert_eq!(ok(&["--max-concurrent-streams", "4294967295"]).client.max_streams, u32::MAX);
    for bad in ["--max-concurrent-streams=0", "--max-concurrent-streams=4294967296"] {
        assert!(error(&[bad]).ends_with("must be between 1 and 4294967295"), "{}", error(&[bad]));
    }
    assert!(
        error(&["--grpc-keepalive-min-time=5"]).ends_with("expected a duration such as 300ms, 10m or 1h30m")
    );
}

#[test]
fn flags_are_spelled_as_in_go() {
    for args in [["--name", "a"], ["-name", "a"], ["--name=b", "-name=a"]] {
        assert_eq!(ok(&args).name, "a", "{args:?}");
    }
    assert!(ok(&["--solo"]).solo && ok(&["-solo=T"]).solo && !ok(&["--solo=false"]).solo);
    assert_eq!(ok(&["--name", "--solo"]).name, "--solo", "a value may look like a flag");
    assert_eq!(error(&["--solo", "false"]), "\"false\" is not a valid flag");
    assert_eq!(error(&["--", "x"]), "\"x\" is not a valid flag");
    assert_eq!(error(&["-"]), "\"-\" is not a valid flag");
    assert_eq!(error(&["--name"]), "flag needs an argument: --name");
    assert_eq!(ok(&["--name", "a", "--"]).name, "a");
    // etcd's name of a setting that has another name here.
    assert_eq!(ok(&["--host-whitelist", "A,b"]).client.allowed_hosts, ["A", "b"]);
    for args in [["-h"], ["--help"], ["-help"]] {
        assert!(matches!(load(args.map(OsString::from), []), Ok(Invocation::Help)));
    }
}

#[test]
fn unknown_names_are_errors_that_name_the_nearest() {
    assert_eq!(
        error(&["--listen-client-url=x"]),
        "unknown flag: --listen-client-url (did you mean --listen-client-urls?)"
    );
    assert_eq!(error(&["--zzzzzzzzzz"]), "unknown flag: --zzzzzzzzzz");
    let warned =
        load_with(&[], &[("COVEY_DATADIR", "x"), ("ETCD_PORT", "1"), ("PATH", "/"), ("COVEY_SOLO", "1")]);
    let expected = [
        "unrecognized environment variable COVEY_DATADIR (did you mean COVEY_DATA_DIR?)",
        "unrecognized environment variable ETCD_PORT (did you mean ETCD_CORS?)",
    ];
    assert_eq!(warned.unwrap().warnings, expected);
}

fn in_file(text: &str) -> String {
    file::parse(Path::new("f.toml"), text).unwrap_err().to_string()
}

#[test]
fn the_file_is_read_strictly_and_errors_name_the_line() {
    assert_eq!(
        in_file("\n[client]\nlisten-url = []\n"),
        "f.toml:3: unknown key \"client.listen-url\" (did you mean client.listen-urls?)"
    );
    assert_eq!(
        in_file("listen-client-urls = []"),
        "f.toml:1: unknown key \"listen-client-urls\" (did you mean client.listen-urls?)"
    );
    assert_eq!(in_file("config-file = \"x\""), "f.toml:1: unknown key \"config-file\"");
    assert_eq!(in_file("[zzzzzz]\nx = 1"), "f.toml:1: unknown key \"zzzzzz\"");
    assert_eq!(in_file("client = 1"), "f.toml:1: key \"client\" must be a table");
    assert_eq!(in_file("\nsolo = \"yes\""), "f.toml:2: key \"solo\" must be true or false");
    assert_eq!(
        in_file("[client]\nmax-txn-ops = 1.5"),
        "f.toml:2: key \"client.max-txn-ops\" must be a whole number"
    );
    assert_eq!(
        in_file("[client]\nlisten-urls = [1]"),
        "f.toml:2: key \"client.listen-urls\" must be an array of strings"
    );
    assert!(in_file("name = \"a\"\n\nname = \"b\"").starts_with("f.toml:3: "));
    assert!(in_file("a b").starts_with("f.toml:1: "));
}

#[test]
fn a_bad_value_says_where_it_was_written() {
    assert_eq!(
        error(&["--max-txn-ops=0"]),
        "invalid value \"0\" for flag --max-txn-ops: must be between 1 and 65536"
    );
    assert_eq!(
        load_with(&[], &[("ETCD_LOG_LEVEL", "loud")]).unwrap_err().to_string(),
        "invalid value \"loud\" for environment variable ETCD_LOG_LEVEL: expected one of debug, info, warn, error, panic, fatal"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    fs::write(&path, "[store]\n\ncache-bytes = 1\n").unwrap();
    let shown = path.display();
    assert_eq!(
        error(&["--config-file", path.to_str().unwrap()]),
        format!(
            "invalid value \"1\" for {shown}:3: key store.cache-bytes: must be between 4194304 and 2147483648"
        )
    );
    let missing = error(&["--config-file", "/nonexistent/x.toml"]);
    assert!(missing.starts_with("cannot read the configuration file /nonexistent/x.toml: "), "{missing}");
}

#[test]
fn values_are_parsed_into_types() {
    let config = ok(&[
        "--quota-backend-bytes=-1",
        "--auto-compaction-retention=10m",
        "--cors=https://a.example,http://B",
        "--log-level=fatal",
        "--log-format=console",
        "--listen-client-urls=http://[::1]:1,http://10.0.0.1:2",
    ]);
    assert_eq!(config.store.quota_bytes, None);
    assert_eq!(ok(&["--quota-backend-bytes=0"]).store.quota_bytes, Some(limits::QUOTA_BYTES));
    assert_eq!(config.auto_compaction, AutoCompaction::Periodic(Duration::from_secs(600)));
    assert_eq!(config.client.cors, ["https://a.example", "http://B"]);
    let interval =
        |text: &str| ok(&["--watch-progress-notify-interval", text]).client.watch_progress_interval;
    assert_eq!(interval("0"), Duration::from_mins(10));
    assert_eq!(interval("5s"), Duration::from_secs(5));
    assert_eq!(interval("1ms"), Duration::from_millis(100), "the shortest");
    assert_eq!((config.log.level, config.log.format), (LogLevel::Error, LogFormat::Text));
    let advertised: Vec<String> = config.client.advertise_urls.iter().map(ToString::to_string).collect();
    assert_eq!(advertised, ["http://[::1]:1", "http://10.0.0.1:2"]);
    assert_eq!(
        config.warnings,
        ["client traffic on http://10.0.0.1:2 is neither encrypted nor authenticated"]
    );
    let revisions = ok(&["--auto-compaction-mode=revision", "--auto-compaction-retention", "9"]);
    assert_eq!(revisions.auto_compaction, AutoCompaction::Revisions(9));
    assert!(
        error(&["--auto-compaction-mode=revision", "--auto-compaction-retention", "9m"])
            .contains("revisions")
    );
    assert!(error(&["--name="]).contains("must not be empty"));
    assert!(error(&["--name=a\nb"]).contains("control characters"));
    assert!(error(&["--listen-client-urls=http://[::1]:1,http://[::1]:1"]).contains("listed twice"));
    assert!(error(&["--listen-peer-urls="]).contains("must not be empty"));
}

#[test]
fn the_pace_of_elections_is_set_by_etcds_flags_and_checked_as_there() {
    assert_eq!(ok(&[]).peer.pace, Pace::default());
    let set = ok(&["--heartbeat-interval", "100", "--election-timeout=1000"]).peer.pace;
    let seconds = Duration::from_secs;
    assert_eq!((set.heartbeat, set.election_min), (Duration::from_millis(100), seconds(1)));
    assert_eq!(set.election_max, limits::ELECTION_TIMEOUT_MAX, "irregular words are still borne with");
    let slow = ok(&["--heartbeat-interval=2000", "--election-timeout=20000"]).peer.pace;
    assert_eq!((slow.election_min, slow.election_max), (seconds(20), seconds(20)));
    assert_eq!(
        error(&["--heartbeat-interval=100", "--election-timeout=499"]),
        "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]"
    );
    for bad in [["--election-timeout", "50001"], ["--heartbeat-interval", "9"]] {
        assert!(load_with(&bad, &[]).is_err(), "{bad:?}");
    }
}

const PRINT: &str = "0123 4567 89ab cdef 0123 4567 89ab cdef 0123 4567 89ab cdef 0123 4567 89ab cdef";

#[test]
fn fingerprints_are_read_as_they_are_shown_and_a_bad_one_is_named() {
    let fingerprints = |args: &[&str]| ok(args).peer.fingerprints;
    assert_eq!(fingerprints(&[]), []);
    assert_eq!(fingerprints(&["--peer-fingerprints="]), []);
    let print: Fingerprint = PRINT.parse().unwrap();
    let (bare, other) = (PRINT.replace(' ', "").to_uppercase(), PRINT.replace('0', "f"));
    assert_eq!(fingerprints(&["--peer-fingerprints", &bare]), [print]);
    let two = format!("{PRINT}, {other}");
    assert_eq!(fingerprints(&["--peer-fingerprints", &two]), [print, other.parse().unwrap()]);
    let by_env = load_with(&[], &[("COVEY_PEER_FINGERPRINTS", two.as_str())]).unwrap();
    assert_eq!(by_env.peer.fingerprints.len(), 2);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("covey.toml");
    fs::write(&path, format!("[peer]\nfingerprints = [\"{PRINT}\", \"{other}\"]\n")).unwrap();
    assert_eq!(ok(&["--config-file", path.to_str().unwrap()]), by_env);

    let short = &PRINT[1..];
    assert_eq!(
        error(&["--peer-fingerprints", &format!("{other},{short}")]),
        format!(
            "invalid value \"{other},{short}\" for flag --peer-fingerprints: \"{short}\" is no fingerprint: \
             expected 64 hexadecimal digits, as covey node fingerprint prints them"
        )
    );
    let twice = error(&["--peer-fingerprints", &format!("{PRINT},{bare}")]);
    assert!(twice.ends_with(&format!(": {bare} is listed twice")), "{twice}");
}

#[test]
fn nodes_on_other_machines_need_something_to_be_known_by() {
    let far = [
        "--listen-peer-urls=http://10.0.0.1:2380",
        "--initial-cluster=default=http://10.0.0.1:2380,b=http://10.0.0.2:2380",
    ];
    let refused = error(&far);
    assert!(refused.starts_with("http://10.0.0.2:2380 is not on this machine: "), "{refused}");
    for way in ["--cluster-secret-file", "covey node fingerprint", "--peer-fingerprints"] {
        assert!(refused.contains(way), "{refused}");
    }
    let print = format!("--peer-fingerprints={PRINT}");
    for given in ["--cluster-secret-file=secret", &print] {
        assert!(load_with(&[&far[..], &[given]].concat(), &[]).is_ok(), "{given}");
    }
}

#[test]
fn tls_settings_must_fit_together() {
    let https = "--listen-client-urls=https://127.0.0.1:2379";
    let solo = |args: &[&str]| load_with(&[&["--solo"], args].concat(), &[]);
    let (error, ok) =
        (|args: &[&str]| solo(args).unwrap_err().to_string(), |args: &[&str]| solo(args).unwrap());
    let (cert, key, ca) = ("--cert-file=c.pem", "--key-file=k.pem", "--trusted-ca-file=ca.pem");
    assert!(error(&[https]).starts_with("cannot listen on TLS for https://127.0.0.1:2379"));
    assert!(error(&[https, cert]).contains("must be set together"));
    assert!(error(&[key]).contains("must be set together"));
    assert!(error(&[https, cert, key, "--client-cert-auth"]).contains("needs --trusted-ca-file"));
    assert!(error(&[ca]).contains("needs --cert-file"));
    let tls = ok(&[https, cert, key, ca]).client.tls.unwrap();
    assert_eq!(tls.client_ca_file.as_deref(), Some(Path::new("ca.pem")));
    assert!(!tls.client_cert_auth);
    let plain = ok(&[cert, key]);
    assert_eq!(
        plain.warnings,
        ["the scheme of http://localhost:2379 is http: the certificate is not used there"]
    );
    // Where nodes find each other, the cluster has an authority of its own.
    assert_eq!(load_with(&[https], &[]).unwrap().client.tls, None);
}

#[test]
fn any_address_needs_something_to_advertise() {
    let any = "--listen-client-urls=http://0.0.0.0:2379";
    let refused = "--advertise-client-urls is required when listening on http://0.0.0.0:2379";
    assert_eq!(error(&["--solo", any]), refused);
    assert_eq!(ok(&[any]).client.advertise_urls, [], "wherever this box has addresses");
    let config = ok(&[any, "--advertise-client-urls=http://box.local:2379"]);
    assert_eq!(config.client.advertise_urls[0].to_string(), "http://box.local:2379");
    assert!(error(&["--advertise-client-urls=http://0.0.0.0:1"]).contains("unspecified address"));
}

#[test]
fn the_example_file_is_the_table_and_equals_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, example(), "write the output of `covey help config` to config.example.toml");
    let mut keys: Vec<_> = file::parse(&path, &text).unwrap().into_iter().map(|(key, _)| key).collect();
    keys.sort();
    let expected: Vec<_> =
        table::SETTINGS.iter().filter(|row| !row.toml.is_empty()).map(|row| row.key).collect();
    assert_eq!(keys, expected, "every setting is active");
    assert_eq!(ok(&["--config-file", path.to_str().unwrap()]), ok(&[]));
}

#[test]
fn help_names_every_flag_in_lines_that_fit() {
    let text = options();
    for row in &table::SETTINGS {
        assert!(text.contains(&format!("  --{}", row.flag)) && text.contains(row.help), "{}", row.flag);
    }
    assert!(text.lines().all(|line| line.len() <= 120), "{text}");
}
