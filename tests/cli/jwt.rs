//! A server that makes and takes JSON Web Tokens, by each family of algorithms: which it lets in. What it is shown is signed here, not by its own code.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _};
use ring::rand::SystemRandom;
use ring::{hmac, signature};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Server;

/// ring makes none: a key that is nobody's.
const RSA: &str = include_str!("../../src/api/credentials/jwt_test_rsa.pem");
const RSA_PUBLIC: &str = include_str!("../../src/api/credentials/jwt_test_rsa_public.pem");
const SECRET: &[u8] = b"a secret of thirty-two bytes, as";
const METHODS: [&str; 4] = ["HS256", "RS256", "ES256", "EdDSA"];

/// Signs by an algorithm.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// The files of a server's keys, and how the same keys sign.
struct Keys {
    public: Option<String>,
    private: Vec<u8>,
    sign: Sign,
}

fn keys_of(method: &str) -> Keys {
    let random = SystemRandom::new();
    match method {
        "HS256" => {
            Keys { public: None, private: SECRET.to_vec(), sign: by_secret(hmac::HMAC_SHA256, SECRET) }
        }
        "RS256" => {
            let pair = signature::RsaKeyPair::from_pkcs8(pem::parse(RSA).unwrap().contents()).unwrap();
            let sign = move |data: &[u8]| {
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, data, &mut signed).unwrap();
                signed
            };
            Keys { public: Some(RSA_PUBLIC.to_owned()), private: RSA.into(), sign: Box::new(sign) }
        }
        "ES256" => {
            let made = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            let fixed = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
            let pair = signature::EcdsaKeyPair::from_pkcs8(fixed, &made.serialize_der(), &random).unwrap();
            let sign = move |data: &[u8]| pair.sign(&random, data).unwrap().as_ref().to_vec();
            Keys::of(&made, Box::new(sign))
        }
        _ => {
            let made = KeyPair::generate_for(&PKCS_ED25519).unwrap();
            let pair = signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&made.serialize_der()).unwrap();
            Keys::of(&made, Box::new(move |data| pair.sign(data).as_ref().to_vec()))
        }
    }
}

impl Keys {
    fn of(made: &KeyPair, sign: Sign) -> Self {
        let public = pem::encode(&pem::Pem::new("PUBLIC KEY", made.subject_public_key_info()));
        Self { public: Some(public), private: made.serialize_pem().into(), sign }
    }

    /// A server that goes by these.
    fn serve(&self, dir: &Path, method: &str) -> Server {
        let (private, public) = (dir.join("private"), dir.join("public"));
        fs::write(&private, &self.private).unwrap();
        let mut said = format!("jwt,sign-method={method},priv-key={},ttl=5m", private.display());
        if let Some(text) = &self.public {
            fs::write(&public, text).unwrap();
            said = format!("{said},pub-key={}", public.display());
        }
        Server::start_in(&dir.join("data"), &[("COVEY_AUTH_TOKEN", OsStr::new(&said))])
    }
}

fn by_secret(algorithm: hmac::Algorithm, secret: &[u8]) -> Sign {
    let key = hmac::Key::new(algorithm, secret);
    Box::new(move |data| hmac::sign(&key, data).as_ref().to_vec())
}

fn token(method: &str, claims: &Value, sign: &Sign) -> String {
    let header = json!({ "alg": method, "typ": "JWT" }).to_string();
    let signed = [header, claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// What the gateway answers: the status of HTTP, and the body.
fn ask(server: &Server, path: &str, token: &str, body: &Value) -> (u16, Value) {
    let mut stream = TcpStream::connect(&server.endpoint).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST /v3/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: {token}\r\ncontent-length: {}",
        body.len()
    );
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, rest) = answer.split_once("\r\n\r\n").unwrap();
    let json = &rest[rest.find('{').unwrap()..=rest.rfind('}').unwrap()];
    (status, serde_json::from_str(json).unwrap())
}

fn reads(server: &Server, token: &str) -> (u16, Option<String>) {
    let (status, answer) = ask(server, "kv/range", token, &json!({ "key": STANDARD.encode("k") }));
    (status, answer["message"].as_str().map(str::to_owned))
}

/// Root's token, as the server has made it.
fn enable(server: &Server) -> String {
    for command in [
        &["put", "k", "v"][..],
        &["user", "add", "root:root"],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        server.must(command);
    }
    let (status, answer) =
        ask(server, "auth/authenticate", "", &json!({ "name": "root", "password": "root" }));
    assert_eq!(status, 200, "{answer}");
    answer["token"].as_str().unwrap().to_owned()
}

fn in_seconds(from_now: i64) -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_secs()).unwrap() + from_now
}

#[test]
fn a_server_takes_the_web_tokens_of_its_key_and_no_others() {
    for method in METHODS {
        let dir = TempDir::new().unwrap();
        let keys = keys_of(method);
        let server = keys.serve(dir.path(), method);
        let issued = enable(&server);
        assert_eq!(reads(&server, &issued), (200, None), "{method}: its own");
        let claims = issued.split('.').nth(1).unwrap();
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        let until = |exp: i64| json!({ "username": "root", "revision": claims["revision"], "exp": exp });
        let good = until(in_seconds(300));
        let lasts = claims["exp"].as_i64().unwrap() - in_seconds(0);
        assert!((290..=300).contains(&lasts), "{method}: {claims}");
        assert_eq!(reads(&server, &token(method, &good, &keys.sign)), (200, None), "{method}: of its key");

        let other: Sign = match method {
            "HS256" => by_secret(hmac::HMAC_SHA256, b"another secret, of as many bytes"),
            // There is one RSA key: it has signed something else.
            "RS256" => Box::new(move |data| (keys_of("RS256").sign)(&data[1..])),
            _ => keys_of(method).sign,
        };
        // What everybody knows is no secret: the key that tokens are checked by.
        let public = keys.public.as_deref().unwrap_or("a secret").as_bytes();
        let (wrong, by_wrong) = match method {
            "HS256" => ("HS512", by_secret(hmac::HMAC_SHA512, SECRET)),
            _ => ("HS256", by_secret(hmac::HMAC_SHA256, public)),
        };
        let nothing: Sign = Box::new(|_| Vec::new());
        let mut refused = vec![
            ("it has ended", token(method, &until(in_seconds(-1)), &keys.sign)),
            ("another key", token(method, &good, &other)),
            ("no algorithm", token("none", &good, &nothing)),
            ("no algorithm, signed", token("none", &good, &keys.sign)),
            ("another algorithm", token(wrong, &good, &by_wrong)),
            ("another algorithm in name", token(wrong, &good, &keys.sign)),
            ("no signature", token(method, &good, &nothing)),
        ];
        // Who it is is signed, too.
        let [header, _, signature] = <[&str; 3]>::try_from(issued.split('.').collect::<Vec<_>>()).unwrap();
        let changed = URL_SAFE_NO_PAD.encode(good.to_string().replace("root", "boot"));
        refused.push(("another user's signature", format!("{header}.{changed}.{signature}")));
        for (what, token) in refused {
            let invalid = (401, Some("etcdserver: invalid auth token".to_owned()));
            assert_eq!(reads(&server, &token), invalid, "{method}: {what}");
        }
        // A change of users or roles makes all of them old.
        let (status, answer) = ask(&server, "auth/role/add", &issued, &json!({ "name": "another" }));
        assert_eq!(status, 200, "{answer}");
        let old = (400, Some("etcdserver: revision of auth store is old".to_owned()));
        assert_eq!(reads(&server, &issued), old, "{method}");
        server.signal(rustix::process::Signal::TERM);
    }
}

#[test]
fn a_web_token_ends_by_the_clock() {
    let dir = TempDir::new().unwrap();
    let keys = keys_of("EdDSA");
    let server = keys.serve(dir.path(), "EdDSA");
    let issued = enable(&server);
    let claims = issued.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    // Long enough that it is asked for once before, on a box that has much else to do.
    let ends = in_seconds(6);
    let short = token(
        "EdDSA",
        &json!({ "username": "root", "revision": claims["revision"], "exp": ends }),
        &keys.sign,
    );
    let mut was_good = false;
    crate::process::until("it ends", || {
        let (status, _) = reads(&server, &short);
        was_good |= status == 200;
        status == 401
    });
    assert!(was_good && in_seconds(0) >= ends);
}
