//! Arguments to commands, requests and settings.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::Parser;

use super::{ClientSettings, First, Format, Parsed, UsageError, command};
use crate::cli::requests;
use crate::wire::etcdserverpb::range_request::{SortOrder, SortTarget};

/// Parses a whole command line as `run` does.
fn parsed(line: &[&str]) -> Result<Parsed, UsageError> {
    parsed_os(line.iter().map(OsString::from).collect())
}

fn parsed_os(line: Vec<OsString>) -> Result<Parsed, UsageError> {
    let mut parser = Parser::from_args(line);
    let mut parsed = Parsed::default();
    let First::Command(name) = parsed.until_command(&mut parser)? else { panic!("no command") };
    parsed.rest(command(&name)?, &mut parser)?;
    Ok(parsed)
}

fn settings(line: &[&str], env: &[(&str, &str)]) -> Result<ClientSettings, UsageError> {
    let lookup =
        |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    Ok(parsed(line)?.client_settings(lookup)?.0)
}

/// Of a node in trouble the settings may be, too.
#[test]
fn a_data_directory_that_is_named_needs_no_other_setting() {
    let env = || [(OsString::from("COVEY_CONFIG_FILE"), OsString::from("/nowhere"))];
    let named = parsed(&["recover", "--data-dir", "/data"]).unwrap();
    assert_eq!(named.data_dir(env()).unwrap(), PathBuf::from("/data"));
    assert!(parsed(&["recover"]).unwrap().data_dir(env()).is_err());
}

#[test]
fn flags_of_the_client_stand_anywhere_and_win_over_the_environment() {
    let env = [("ETCDCTL_ENDPOINTS", "a:1"), ("ETCDCTL_DIAL_TIMEOUT", "9s"), ("ETCDCTL_WRITE_OUT", "")];
    for line in [
        ["--endpoints=b:2,http://[::1]:3", "get", "k", "-w", "json"],
        ["get", "-w=json", "k", "--endpoints", "b:2,http://[::1]:3"],
        ["-wjson", "get", "--endpoints=b:2, http://[::1]:3", "--", "-k"],
    ] {
        let settings = settings(&line, &env).unwrap();
        let endpoints: Vec<_> = settings.endpoints.iter().map(|e| (e.tls, e.host.as_str(), e.port)).collect();
        assert_eq!(endpoints, [(false, "b", 2), (false, "::1", 3)], "{line:?}");
        assert_eq!((settings.format, settings.dial_timeout), (Format::Json, Duration::from_secs(9)));
    }
    let defaults = settings(&["get", "k"], &[]).unwrap();
    assert_eq!(defaults.endpoints[0].text, "127.0.0.1:2379");
    assert_eq!(
        (defaults.dial_timeout, defaults.command_timeout),
        (Duration::from_secs(2), Duration::from_secs(5))
    );
    assert_eq!((defaults.format, defaults.cacert, defaults.identity), (Format::Simple, None, None));
}

#[test]
fn tls_follows_the_scheme_or_else_the_certificates() {
    let tls =
        |line: &[&str]| settings(line, &[]).unwrap().endpoints.iter().map(|e| e.tls).collect::<Vec<_>>();
    assert_eq!(tls(&["get", "--endpoints=a:1,https://a:1,http://a:1"]), [false, true, false]);
    assert_eq!(tls(&["get", "--endpoints=a:1,https://a:1,http://a:1", "--cacert=ca"]), [true, true, false]);
    assert!(settings(&["get", "--cert=c"], &[]).unwrap_err().to_string().contains("set together"));
    for bad in ["", "a", "a:b", "ftp://a:1", "http://a:1/"] {
        let error = settings(&["get", "--endpoints", bad], &[]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("invalid endpoint \"{bad}\"")), "{error}");
    }
}

#[test]
fn a_bundle_brings_all_that_is_needed_and_what_is_named_beside_it_wins() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("endpoints"), format!("https://{name}:1\n\nhttps://[::1]:2\n")).unwrap();
        dir.into_os_string().into_string().unwrap()
    };
    let (one, two) = (of("one"), of("two"));
    let seen = |line: &[&str], env: &[(&str, &str)]| {
        let settings = settings(&[&["get"], line].concat(), env).unwrap();
        let endpoints: Vec<_> = settings.endpoints.iter().map(|e| (e.tls, e.host.clone())).collect();
        let (cert, key) = settings.identity.unwrap();
        let text = |path: PathBuf| path.strip_prefix(dir.path()).unwrap_or(&path).display().to_string();
        (endpoints, [text(settings.cacert.unwrap()), text(cert), text(key)])
    };
    let all_of = |name: &str| {
        let endpoints = vec![(true, name.to_owned()), (true, "::1".to_owned())];
        (endpoints, ["ca.crt", "client.crt", "client.key"].map(|file| format!("{name}/{file}")))
    };
    assert_eq!(seen(&["--bundle", &one], &[]), all_of("one"));
    for variable in ["COVEY_BUNDLE", "ETCDCTL_BUNDLE"] {
        assert_eq!(seen(&[], &[(variable, &one)]), all_of("one"));
        assert_eq!(seen(&["--bundle", &two], &[(variable, &one)]), all_of("two"));
    }
    assert_eq!(seen(&[], &[("ETCDCTL_BUNDLE", &one), ("COVEY_BUNDLE", &two)]), all_of("two"));
    let env =
        [("ETCDCTL_ENDPOINTS", "e:1"), ("ETCDCTL_CACERT", "ca"), ("ETCDCTL_CERT", "c"), ("COVEY_KEY", "k")];
    assert_eq!(seen(&["--bundle", &one], &env), all_of("one"), "what `env` of another bundle has set");
    let by_env = (vec![(true, "e".to_owned())], ["ca", "c", "k"].map(str::to_owned));
    assert_eq!(seen(&[], &[&env[..], &[("COVEY_BUNDLE", one.as_str())]].concat()), by_env);
    let mixed = seen(&["--bundle", &one, "--endpoints=b:7", "--cert=c", "--key=k"], &[]);
    assert_eq!(mixed, (vec![(true, "b".to_owned())], ["one/ca.crt", "c", "k"].map(str::to_owned)));
    assert!(settings(&["get", "--bundle", &one, "--cert=c"], &[]).is_err(), "never a pair of two");
    let missing = settings(&["get", "--bundle=nowhere"], &[]).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read nowhere/endpoints: "), "{missing}");
}

#[test]
fn servers_are_looked_for_where_a_bundle_says_who_is_one_and_nobody_says_where() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.crt"), "").unwrap();
    let bundle = dir.path().to_str().unwrap();
    let looks = |line: &[&str], env: &[(&str, &str)]| {
        let settings = settings(&[&["get"], line].concat(), env).unwrap();
        (settings.endpoints.len(), settings.searches)
    };
    assert_eq!(looks(&["--bundle", bundle], &[]), (0, true), "a bundle may leave it open where they are");
    for (list, places) in [("", 0), ("https://a:1\n", 1)] {
        std::fs::write(dir.path().join("endpoints"), list).unwrap();
        assert_eq!(looks(&["--bundle", bundle], &[]), (places, true));
        assert_eq!(looks(&[], &[("COVEY_BUNDLE", bundle)]), (places, true));
        assert_eq!(looks(&["--bundle", bundle], &[("ETCDCTL_ENDPOINTS", "a:1,b:2")]), (places, true));
        let without_authority = looks(&["--bundle", bundle, "--cacert="], &[]);
        assert_eq!(without_authority, (places, false), "the world's authorities do not say who is one");
    }
    assert_eq!(looks(&["--bundle", bundle, "--endpoints=a:1,b:2"], &[]), (2, false));
    let by_env = [("COVEY_BUNDLE", bundle), ("ETCDCTL_ENDPOINTS", "a:1,b:2")];
    assert_eq!(looks(&[], &by_env), (2, false));
    assert_eq!(looks(&[], &[]), (1, false));
}

#[test]
fn mistakes_are_explained() {
    let error = |line: &[&str]| parsed(line).unwrap_err().to_string();
    assert_eq!(error(&["gets"]), "unknown command \"gets\" for \"covey\" (did you mean get?)");
    assert_eq!(error(&["get", "--lmit=1"]), "unknown flag: --lmit (did you mean --limit?)");
    assert_eq!(error(&["put", "--prefix"]), "unknown flag: --prefix");
    assert_eq!(error(&["get", "-x"]), "unknown flag: -x");
    assert!(error(&["get", "--limit"]).contains("--limit"));
    let bad = |line: &[&str]| requests::range(&parsed(line).unwrap()).unwrap_err().to_string();
    assert_eq!(
        bad(&["get", "k", "--limit=x"]),
        "invalid argument \"x\" for \"--limit\": expected a whole number"
    );
    assert_eq!(
        bad(&["get", "k", "--order=up"]),
        "invalid argument \"up\" for \"--order\": expected ASCEND or DESCEND"
    );
    assert_eq!(
        bad(&["get", "k", "--prefix=maybe"]),
        "invalid argument \"maybe\" for \"--prefix\": expected true or false"
    );
    assert!(bad(&["get"]).starts_with("get command needs one argument"));
    assert!(bad(&["get", "a", "b", "c"]).starts_with("get command needs one argument"));
    assert!(bad(&["get", "a", "b", "--prefix"]).starts_with("too many arguments"));
    assert!(bad(&["get", "a", "--prefix", "--from-key"]).contains("choose one"));
    assert!(bad(&["get", "a", "--keys-only", "--count-only"]).contains("choose one"));
    assert!(
        settings(&["get", "--dial-timeout=5"], &[]).unwrap_err().to_string().contains("expected a duration")
    );
}

#[test]
fn a_range_takes_every_flag() {
    let line = [
        "get",
        "a",
        "b",
        "--limit=5",
        "--rev",
        "7",
        "--order=descend",
        "--sort-by=MODIFY",
        "--keys-only",
        "--consistency=s",
    ];
    let request = requests::range(&parsed(&line).unwrap()).unwrap();
    assert_eq!((&request.key[..], &request.range_end[..]), (&b"a"[..], &b"b"[..]));
    assert_eq!((request.limit, request.revision, request.serializable), (5, 7, true));
    assert_eq!(
        (request.sort_order, request.sort_target),
        (SortOrder::Descend as i32, SortTarget::Mod as i32)
    );
    assert!(request.keys_only && !request.count_only);
}

#[test]
fn intervals_are_etcdctls() {
    for (line, key, end) in [
        (vec!["get", "a"], &b"a"[..], &b""[..]),
        (vec!["get", "a", "--prefix"], b"a", b"b"),
        (vec!["get", "a", "--prefix=false"], b"a", b""),
        (vec!["get", "", "--prefix"], b"\0", b"\0"),
        (vec!["get", "a", "--from-key"], b"a", b"\0"),
        (vec!["get", "", "--from-key"], b"\0", b"\0"),
        (vec!["get", ""], b"", b""),
    ] {
        let request = requests::range(&parsed(&line).unwrap()).unwrap();
        assert_eq!((&request.key[..], &request.range_end[..]), (key, end), "{line:?}");
    }
    let raw = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let line = vec!["del".into(), raw(b"a\xff\xff"), "--prefix".into(), "--prev-kv".into()];
    let request = requests::delete(&parsed_os(line).unwrap()).unwrap();
    assert_eq!(
        (&request.key[..], &request.range_end[..], request.prev_kv),
        (&b"a\xff\xff"[..], &b"b"[..], true)
    );
    let line = vec!["del".into(), raw(b"\xff"), "--prefix".into()];
    assert_eq!(&requests::delete(&parsed_os(line).unwrap()).unwrap().range_end[..], b"\0");
}

#[test]
fn a_put_takes_its_value_from_the_line_or_is_given_it() {
    let put = |line: &[&str]| requests::put(&parsed(line).unwrap(), || Some(b"stdin".to_vec()));
    let request = put(&["put", "k", "v", "--lease=1f", "--prev-kv", "--ignore-lease"]).unwrap();
    assert_eq!((&request.value[..], request.lease), (&b"v"[..], 0x1f));
    assert!(request.prev_kv && request.ignore_lease && !request.ignore_value);
    assert_eq!(&put(&["put", "k"]).unwrap().value[..], b"stdin");
    assert_eq!(&put(&["put", "k", "--", "-v"]).unwrap().value[..], b"-v");
    let kept = put(&["put", "k", "--ignore-value"]).unwrap();
    assert!(kept.value.is_empty() && kept.ignore_value);
    for (line, expected) in [
        (vec!["put"], "put command needs 1 argument"),
        (vec!["put", "a", "b", "c"], "put command needs 1 argument"),
        (vec!["put", "a", "b", "--ignore-value"], "put command needs only 1 argument"),
        (vec!["put", "a", "b", "--lease=xyz"], "invalid argument \"xyz\" for \"--lease\""),
    ] {
        assert!(put(&line).unwrap_err().to_string().starts_with(expected), "{line:?}");
    }
}

#[test]
fn compact_needs_a_revision() {
    let compact = |line: &[&str]| requests::compact(&parsed(line).unwrap());
    let request = compact(&["compaction", "--physical", "9"]).unwrap();
    assert_eq!((request.revision, request.physical), (9, true));
    assert!(compact(&["compact"]).unwrap_err().to_string().contains("needs 1 argument"));
    assert!(compact(&["compact", "x"]).unwrap_err().to_string().contains("whole number"));
    assert_eq!(command(OsStr::new("delete")).unwrap().name, "del");
}

#[test]
fn a_watch_asks_for_what_its_flags_say() {
    let request = |line: &[&str]| requests::watch(&parsed(line).unwrap());
    let plain = request(&["watch", "k"]).unwrap();
    assert_eq!((&plain.key[..], &plain.range_end[..], plain.start_revision), (&b"k"[..], &b""[..], 0));
    assert!(!plain.prev_kv && !plain.progress_notify && !plain.fragment);
    let all = request(&["watch", "--prefix", "--rev=7", "--prev-kv", "k", "--progress-notify"]).unwrap();
    assert_eq!((&all.range_end[..], all.start_revision), (&b"l"[..], 7));
    assert!(all.prev_kv && all.progress_notify);
    assert_eq!(&request(&["watch", "a", "c"]).unwrap().range_end[..], b"c");
    let refused = request(&["watch", "--prefix", "a", "c"]).unwrap_err();
    assert_eq!(refused.to_string(), "`range_end` and `--prefix` are mutually exclusive");
}

#[test]
fn lease_ids_are_hexadecimal_and_times_decimal() {
    let of = |arguments: &[&str]| Parsed {
        arguments: arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        ..Parsed::default()
    };
    assert_eq!(requests::lease_id(&of(&["2A"])).unwrap(), 42);
    assert_eq!(requests::lease_grant(&of(&["100"])).unwrap().ttl, 100);
    for bad in [&[][..], &["x"], &["1", "2"], &["\u{e9}"]] {
        requests::lease_id(&of(bad)).unwrap_err();
        requests::lease_grant(&of(bad)).unwrap_err();
    }
}

#[test]
fn member_ids_are_hexadecimal_and_a_place_needs_urls() {
    let of = |flags: &[(&'static str, &str)], arguments: &[&str]| Parsed {
        arguments: arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        flags: flags.iter().map(|(flag, value)| (*flag, (*value).to_owned())).collect(),
        ..Parsed::default()
    };
    let urls = [("peer-urls", "http://a:1, http://a:2")];
    let (name, added) = requests::member_add(&of(&urls, &["d"])).unwrap();
    assert_eq!((name.as_str(), added.is_learner), ("d", false));
    assert_eq!(added.peer_urls, ["http://a:1", "http://a:2"]);
    assert!(requests::member_add(&of(&[urls[0], ("learner", "true")], &["d"])).unwrap().1.is_learner);
    let updated = requests::member_update(&of(&urls, &["8e9e05c52164694d"])).unwrap();
    assert_eq!((updated.id, updated.peer_urls), (0x8e9e_05c5_2164_694d, added.peer_urls));
    assert_eq!(requests::member_id(&of(&[], &["D"])).unwrap(), 13);
    for bad in [&[][..], &["x"], &["1", "2"], &["-1"], &["10000000000000000"]] {
        requests::member_id(&of(&[], bad)).unwrap_err();
    }
    let refused = |parsed| requests::member_add(&parsed).unwrap_err().to_string();
    assert_eq!(refused(of(&urls, &[])), "member name not provided");
    assert_eq!(refused(of(&urls, &["d", "e"])), "too many arguments");
    for none in [&[][..], &[("peer-urls", " ,")]] {
        assert_eq!(refused(of(none, &["d"])), "member peer urls not provided");
        requests::member_update(&of(none, &["1"])).unwrap_err();
    }
}

#[test]
fn some_commands_have_two_words() {
    for name in [
        "lease grant",
        "lease revoke",
        "lease timetolive",
        "lease list",
        "lease keep-alive",
        "member list",
        "member add",
        "member remove",
        "member update",
        "member promote",
        "node fingerprint",
    ] {
        assert_eq!(command(OsStr::new(name)).unwrap().name, name);
    }
    let unknown = |name| command(OsStr::new(name)).unwrap_err().to_string();
    assert!(unknown("lease gant").contains("lease grant"), "{}", unknown("lease gant"));
    assert!(unknown("nod").ends_with("(did you mean node?)"), "{}", unknown("nod"));
    assert!(unknown("leas").ends_with("(did you mean lease?)"), "{}", unknown("leas"));
}

#[test]
fn who_the_client_is_comes_as_etcdctl_takes_it() {
    let told = |line: &[&str], env: &[(&str, &str)]| {
        let credentials = settings(line, env).unwrap().credentials?;
        Some((credentials.user, credentials.password.map(|password| password.0)))
    };
    let of = |user: &str, password: Option<&str>| Some((user.to_owned(), password.map(str::to_owned)));
    assert_eq!(told(&["get"], &[]), None);
    assert_eq!(told(&["get", "--user", "u:p:q"], &[]), of("u", Some("p:q")));
    assert_eq!(told(&["get", "--user", "u:v", "--password", "p"], &[]), of("u:v", Some("p")));
    assert_eq!(told(&["get", "--user", "u"], &[]), of("u", None), "it is asked for");
    let env = [("ETCDCTL_USER", "u"), ("ETCDCTL_PASSWORD", "p"), ("COVEY_USER", "mine")];
    assert_eq!(told(&["get"], &env), of("mine", Some("p")));
    let shown = format!("{:?}", settings(&["get", "--user", "u:hidden"], &[]).unwrap());
    assert!(!shown.contains("hidden"), "{shown}");
}

#[test]
fn the_format_and_the_way_to_connect_are_etcdctls() {
    let format = |line: &[&str]| settings(line, &[]).unwrap().format;
    assert_eq!(format(&["get", "--hex"]), Format::Hex);
    assert_eq!(format(&["get", "--hex", "-w", "json"]), Format::Json);
    assert_eq!(format(&["get", "-w", "table"]), Format::Table);
    let tls = |line: &[&str]| settings(line, &[]).unwrap().endpoints[0].tls;
    assert_eq!(
        (tls(&["get", "--insecure-transport=false"]), tls(&["get", "--insecure-transport"])),
        (true, false)
    );
    let env = [("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true"), ("ETCDCTL_KEEPALIVE_TIME", "7s")];
    let settings = settings(&["get"], &env).unwrap();
    assert!(settings.trusts_anyone && !settings.searches);
    assert_eq!(settings.keep_alive, (Duration::from_secs(7), Duration::from_secs(6)));
}

#[test]
fn exit_codes_are_etcdctls() {
    let code = |line: &[&str]| match parsed(line) {
        Err(error) => error.exit_code(),
        Ok(parsed) => match parsed.client_settings(|_| None) {
            Err(error) => error.exit_code(),
            Ok((_, parsed)) => requests::range(&parsed).unwrap_err().exit_code(),
        },
    };
    for (line, expected) in [
        (&["get"][..], 128),
        (&["get", "a", "--prefix", "--from-key"], 128),
        (&["get", "a", "--nonsense"], 1),
        (&["nonsense"], 1),
        (&["get", "a", "--limit", "x"], 1),
        (&["get", "a", "-w", "nonsense"], 4),
        (&["get", "a", "--order", "SIDEWAYS"], 4),
    ] {
        assert_eq!(code(line), expected, "{line:?}");
    }
}
