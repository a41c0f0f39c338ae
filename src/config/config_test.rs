//! The configuration as a whole: precedence, spellings, the file, the rules between settings, the example.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    AuthConfig, AutoCompaction, ConfigError, Invocation, ServeConfig, TokenConfig, TrustMode, data_dir,
    example, file, load, options, table,
};
use crate::consensus::Pace;
use crate::formation::Fingerprint;
use crate::limits;
use crate::telemetry::{LogFormat, LogLevel};

fn load_with(args: &[&str], env: &[(&str, &str)]) -> Result<ServeConfig, ConfigError> {
    let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    match load(args.iter().map(OsString::from), env)? {
        Invocation::Serve(loaded) => Ok(loaded.config),
        Invocation::Help => panic!("no help was asked for"),
    }
}

fn ok(args: &[&str]) -> ServeConfig {
    load_with(args, &[]).unwrap()
}

fn error(args: &[&str]) -> String {
    load_with(args, &[]).unwrap_err().to_string()
}

/// What a server is told, a command that works on its data directory may be told in the same ways.
#[test]
fn a_command_finds_the_data_directory_that_a_server_has() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("covey.toml");
    fs::write(&file, "name = \"box\"\ndata-dir = \"/by/file\"\n").unwrap();
    let (nameless, file) = (dir.path().join("named.toml"), file.to_str().unwrap());
    fs::write(&nameless, "name = \"box\"\n").unwrap();
    let nameless = nameless.to_str().unwrap();
    let flags = [("config-file", file), ("data-dir", "/by/flag"), ("name", "n")];
    let env = [("COVEY_CONFIG_FILE", nameless), ("ETCD_DATA_DIR", "/by/env"), ("COVEY_NAME", "e")];
    let mut found = BTreeSet::new();
    for which in 0..64 {
        let flags: Vec<_> = some(flags, which).map(|(flag, text)| (flag, text.to_owned())).collect();
        let env = || some(env, which >> 3).map(|(name, text)| (OsString::from(name), OsString::from(text)));
        let args = flags.iter().flat_map(|(flag, text)| [format!("--{flag}"), text.clone()]);
        let Invocation::Serve(server) = load(args.map(OsString::from), env()).unwrap() else {
            panic!("no help was asked for")
        };
        assert_eq!(data_dir(flags.clone(), env()).unwrap(), server.config.data_dir, "{flags:?}");
        found.insert(server.config.data_dir);
    }
    let all = ["/by/env", "/by/file", "/by/flag", "box.covey", "default.covey", "e.covey", "n.covey"];
    assert_eq!(found, all.map(PathBuf::from).into());
    let wrong = data_dir([("config-file", "/nowhere".to_owned())], []).unwrap_err();
    assert!(wrong.to_string().contains("/nowhere"), "{wrong}");
}

/// Those whose bit is set.
fn some<T>(all: [T; 3], which: usize) -> impl Iterator<Item = T> {
    all.into_iter().enumerate().filter(move |(n, _)| which & (1 << n) != 0).map(|(_, one)| one)
}

#[test]
fn defaults_are_etcds() {
    let config = ok(&[]);
    assert_eq!((config.name.as_str(), config.data_dir.as_path()), ("default", Path::new("default.covey")));
    assert!(!config.solo);
    assert!(config.is_automatic() && !config.is_named());
    assert_eq!(config.client.listen_urls[0].to_string(), "https://[::]:2379");
    assert_eq!(config.client.advertise_urls, []);
    assert_eq!(config.peer.listen.to_string(), "[::]:2380");
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
    let simple = TokenConfig::Simple(Duration::from_secs(300));
    assert_eq!(config.auth, AuthConfig { token: simple, bcrypt_cost: 10 });
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
        assert_eq!(config.peer.listen.to_string(), "127.0.0.1:2380");
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
    assert_eq!(
        peers(&["--peers=fe80::1%eth0,[fe80::2%br-lan.5]:7,[fe80::3%wlan0]"]),
        ["[fe80::1%eth0]:2380", "[fe80::2%br-lan.5]:7", "[fe80::3%wlan0]:2380"]
    );
    let long = format!("fe80::1%{}", "x".repeat(16));
    for bad in ["a b", "a:x", ":1", "a/b", "fe80::1%", "fd00::1%eth0", "10.0.0.1%eth0", "fe80::1%a/b", &long]
    {
        assert!(error(&["--peers", bad]).contains("is no host"), "{bad}");
    }
    for bad in ["[fe80::1%eth0]:0", "[fe80::1%eth0]:+1", "[fe80::1%eth0]7", "[fe80::1%eth0"] {
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
fn what_tls_asks_of_clients_must_make_sense_together() {
    use crate::tls::Allowed;
    let files = ["--cert-file=c", "--key-file=k", "--trusted-ca-file=a"];
    let with = |more: &[&'static str]| [&files[..], more].concat();
    let tls = ok(&with(&["--client-crl-file=r", "--client-cert-allowed-cn=a,b"])).client.tls.unwrap();
    assert_eq!(tls.client_crl_file.as_deref(), Some(Path::new("r")));
    assert_eq!(tls.allowed, Allowed::Names(vec!["a".into(), "b".into()]));
    let both = with(&["--client-cert-allowed-cn=a,b", "--client-cert-allowed-hostname=c"]);
    let refused =
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\" \"b\"], hostnames=[\"c\"])";
    assert_eq!(error(&both), refused);
    for alone in ["--client-crl-file=r", "--client-cert-allowed-cn=a", "--client-cert-allowed-hostname=a"] {
        assert!(
            error(&["--cert-file=c", "--key-file=k", alone]).ends_with("need --trusted-ca-file"),
            "{alone}"
        );
    }
    assert!(error(&with(&["--client-cert-allowed-hostname=a:1"])).ends_with("\"a:1\" is no host or address"));
}

#[test]
fn versions_and_ciphers_are_those_of_etcd_that_are_there() {
    use crate::tls::{Protocol, Version};
    let protocol = |args: &[&str]| ok(args).client.tls_protocol;
    let only_least = |least| Protocol { least, ..Protocol::default() };
    assert_eq!(protocol(&[]), only_least(Some(Version::Tls12)));
    assert_eq!(protocol(&["--tls-min-version="]), only_least(None));
    assert_eq!(protocol(&["--tls-min-version=TLS1.3"]), only_least(Some(Version::Tls13)));
    let old = error(&["--tls-max-version=TLS1.1"]);
    assert!(old.ends_with("unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)"), "{old}");
    let crossed = error(&["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"]);
    assert_eq!(crossed, "min version (TLS1.3) is greater than max version (TLS1.2)");
    let gcm = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    let (of_both, of_13) =
        (format!("--cipher-suites={gcm},TLS_AES_128_GCM_SHA256"), "--cipher-suites=TLS_AES_128_GCM_SHA256");
    let most = "--tls-max-version=TLS1.2";
    let ciphers = vec![gcm.to_owned(), "TLS_AES_128_GCM_SHA256".to_owned()];
    let (least, up_to_12) = (Some(Version::Tls12), Some(Version::Tls12));
    assert_eq!(protocol(&[&of_both, most]), Protocol { least, most: up_to_12, ciphers });
    assert_eq!(protocol(&[of_13]).ciphers, ["TLS_AES_128_GCM_SHA256"]);
    assert!(error(&[of_13, most]).starts_with("--cipher-suites names none of TLS 1.2"));
    let chacha = protocol(&["--cipher-suites=TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]).ciphers;
    assert_eq!(chacha, ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"]);
    let cbc = error(&["--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA"]);
    let refused = "unexpected TLS cipher suite \"TLS_RSA_WITH_AES_128_CBC_SHA\" (must be one of: TLS_ECDHE_";
    assert!(cbc.contains(refused), "{cbc}");
    let only_13 = error(&["--tls-min-version=TLS1.3", &of_both]);
    assert_eq!(only_13, "cipher suites cannot be configured when only TLS1.3 is enabled");
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
fn flags_of_etcds_are_taken_under_all_their_names_or_refused_with_what_there_is_instead() {
    let every = Duration::from_secs(60);
    let flag = load_with(&["--experimental-watch-progress-notify-interval=1m"], &[]).unwrap();
    assert_eq!(flag.client.watch_progress_interval, every);
    let name = "ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL";
    assert_eq!(load_with(&[], &[(name, "1m")]).unwrap().client.watch_progress_interval, every);
    let settled = [(name, "1m"), ("ETCD_WATCH_PROGRESS_NOTIFY_INTERVAL", "2m")];
    assert_eq!(load_with(&[], &settled).unwrap().client.watch_progress_interval, 2 * every);

    let instead = "the log lies in the data directory, in wal/";
    assert_eq!(error(&["--wal-dir", "x"]), format!("etcd's --wal-dir is not a flag of covey's: {instead}"));
    let warned = load_with(&[], &[("ETCD_SOLO", "1"), ("ETCD_WAL_DIR", "x")]).unwrap().warnings;
    let passed_over = format!("environment variable ETCD_WAL_DIR is passed over: {instead}");
    assert!(warned[0].starts_with("unrecognized environment variable ETCD_SOLO"), "{warned:?}");
    assert_eq!(warned[1..], [passed_over]);
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
        "f.toml:2: key \"client.listen-urls\" must be an array of strings without commas"
    );
    assert_eq!(
        in_file("[client]\ncors = [\"a,b\"]"),
        "f.toml:2: key \"client.cors\" must be an array of strings without commas"
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
    let several = load_with(&["--listen-peer-urls=http://10.0.0.1:7,http://[fd00::1]:7"], &[]).unwrap();
    assert_eq!(several.peer.listen.to_string(), "10.0.0.1:7, [fd00::1]:7");
    let ports = error(&["--listen-peer-urls=http://10.0.0.1:7,http://10.0.0.1:8"]);
    assert_eq!(ports, "all URLs of --listen-peer-urls must have the same port");
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

/// Each source is weaker than the one before, and what comes out names the one that it is from.
#[test]
fn a_check_says_where_each_value_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("covey.toml");
    fs::write(&path, "name = \"by-file\"\n[log]\nlevel = \"warn\"\nformat = \"text\"\n").unwrap();
    let env = [("COVEY_LOG_LEVEL", "error"), ("ETCD_NAME", "by-env"), ("COVEY_NO_SUCH", "1")];
    let check = |args: &[&str]| {
        let args = ["--config-file", path.to_str().unwrap()].into_iter().chain(args.iter().copied());
        let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        super::load(args.map(OsString::from), env)
    };
    let Invocation::Serve(checked) = check(&["--name", "by-flag"]).unwrap() else {
        panic!("no help was asked for")
    };
    assert_eq!(checked.settings.len(), table::SETTINGS.len());
    assert_eq!(checked.config.warnings, ["unrecognized environment variable COVEY_NO_SUCH"]);
    let shown =
        |flag: &str| checked.settings.iter().find(|setting| setting.flag == flag).unwrap().to_string();
    assert_eq!(shown("name"), "--name=by-flag  # flag --name");
    assert_eq!(shown("log-level"), "--log-level=error  # environment variable COVEY_LOG_LEVEL");
    assert_eq!(shown("log-format"), format!("--log-format=text  # {}:4: key log.format", path.display()));
    assert_eq!(shown("max-learners"), "--max-learners=1  # default");
    assert_eq!(shown("data-dir"), "--data-dir=(<name>.covey)  # default");
    assert!(matches!(check(&["--help"]).unwrap(), Invocation::Help));
    let wrong = |text: &str| {
        fs::write(&path, text).unwrap();
        check(&[]).unwrap_err().to_string().replace(path.to_str().unwrap(), "FILE")
    };
    assert_eq!(wrong("\n[log]\nlevle = 1\n"), "FILE:3: unknown key \"log.levle\" (did you mean log.level?)");
    assert!(wrong("[log]\nformat = \"loud\"\n").contains("for FILE:2: key log.format: "));
    assert!(wrong("name = \"a\"\n[client\n").starts_with("FILE:2: "));
}
