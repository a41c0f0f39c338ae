//! What people write: the settings, and the texts in them.
//!
//! Owns: that any text is taken or refused with a sentence.

use std::ffi::OsString;
use std::fmt::Display;
use std::str::FromStr;

use covey::config::{self, ListenUrl, Url, boolean, duration, split_host_port};
use covey::formation::{ClusterSecret, Fingerprint, JoinToken};

use crate::input::Input;
use crate::memory::bounded;

/// A document is a tree of tables, of some hundred bytes for each value.
const BYTES_FOR_EACH: usize = 512;

/// What can be read can be shown, and is read again as the same.
fn comes_back<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(value.to_string().parse().is_ok_and(|again: T| again == value), "{text:?}");
    }
}

pub fn texts(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let text = text.as_ref();
    comes_back::<JoinToken>(text);
    comes_back::<Fingerprint>(text);
    if let Ok(url) = Url::parse(text) {
        assert_eq!(Url::parse(&url.to_string()), Ok(url));
    }
    if let Ok(url) = Url::parse_reachable(text) {
        assert!(url.port != 0 && Url::parse(text) == Ok(url));
    }
    if let Ok(listen) = ListenUrl::parse(text) {
        assert_eq!(listen.address.port(), listen.url.port);
    }
    if let Some((host, port)) = split_host_port(text) {
        assert!(!host.is_empty() && port != 0);
    }
    if let Ok(secret) = ClusterSecret::parse(text) {
        assert_eq!(format!("{secret:?}"), "ClusterSecret");
    }
    drop((boolean(text), duration(text)));
}

/// A file, then arguments, then variables, each behind a byte of 0.
pub fn file(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let text = parts.next().unwrap_or_default();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("covey.toml");
    std::fs::write(&path, text).unwrap();
    let string = |part: &[u8]| OsString::from(String::from_utf8_lossy(part).into_owned());
    let (mut args, mut env) = (vec!["--config-file".into(), path.into_os_string()], Vec::new());
    for part in parts {
        let mut input = Input(part);
        match input.u8() {
            b'$' => {
                let (name, value) = input.0.split_at(input.0.iter().position(|b| *b == b'=').unwrap_or(0));
                env.push((string(name), string(value.get(1..).unwrap_or_default())));
            }
            _ => args.push(string(part)),
        }
    }
    match bounded(bytes, BYTES_FOR_EACH, || config::load(args, env)) {
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub mod seeds {
    use covey::formation::{JoinToken, TOKEN_BYTES};

    pub fn texts() -> Vec<Vec<u8>> {
        let token = JoinToken::new([0xa5; TOKEN_BYTES]).to_string();
        let texts = [
            token.as_str(),
            "0123 4567 89ab cdef 0123 4567 89ab cdef 0123 4567 89ab cdef 0123 4567 89ab cdef",
            "https://10.0.0.1:2379",
            "http://[fe80::1]:65535",
            "https://box-1.example_c:80",
            "localhost:1",
            "mBv2m3xk0S9pAqYd7w1u5g",
            "1h30m2.5s",
            "true",
            "100us",
        ];
        texts.map(|text| text.as_bytes().to_vec()).into()
    }

    /// The example, without and with its settings in force, and some of every kind.
    pub fn file() -> Vec<Vec<u8>> {
        let example = covey::config::example();
        let in_force: String = example
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .fold(String::new(), |text, line| text + line + "\n");
        let short = "name = \"box\"\n[client]\nlisten = [\"https://0.0.0.0:2379\", \"http://127.0.0.1:1\"]\n";
        let sources =
            [short, "\0--name=x\0--data-dir\0dir\0$COVEY_NAME=y\0$ETCD_LISTEN_CLIENT_URLS=http://a:1"];
        vec![
            example.clone().into_bytes(),
            in_force.into_bytes(),
            short.as_bytes().to_vec(),
            sources.concat().into_bytes(),
            sources[1].as_bytes().to_vec(),
        ]
    }
}
