//! Handshakes in memory: who gets in, and what does not matter.

use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::ids::Incarnation;

fn node_key() -> NodeKey {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    NodeKey::from_pkcs8(pkcs8.as_ref().to_vec()).unwrap()
}

fn public(key: &NodeKey) -> PublicKey {
    PublicKey(*key.public())
}

fn pins(keys: &[&NodeKey]) -> Arc<Pins> {
    let pins = Arc::new(Pins::default());
    pins.replace(keys.iter().map(|key| (public(key), MemberId(7), None)));
    pins
}

/// What both ends say to a handshake.
fn shake(
    client: rustls::ClientConfig,
    server: rustls::ServerConfig,
) -> (Result<(), Error>, Result<(), Error>) {
    let name = ServerName::try_from("covey").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let (mut at_client, mut at_server) = (Ok(()), Ok(()));
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() && at_server.is_ok() {
            server.read_tls(&mut rest).unwrap();
            at_server = server.process_new_packets().map(|_| ());
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() && at_client.is_ok() {
            client.read_tls(&mut rest).unwrap();
            at_client = client.process_new_packets().map(|_| ());
        }
    }
    if at_client.is_ok() && at_server.is_ok() {
        assert!(!client.is_handshaking() && !server.is_handshaking());
        assert_eq!(key_of(&server.peer_certificates().unwrap()[0]).map(|key| key.0.len()), Some(32));
    }
    (at_client, at_server)
}

#[test]
fn pinned_keys_meet_and_others_do_not() {
    let (a, b, c) = (node_key(), node_key(), node_key());
    let [at_a, at_b] = [&a, &b].map(|key| Credentials::new(key).unwrap());
    let ok = shake(at_a.client(public(&b)).unwrap(), at_b.server(&pins(&[&a, &c]), false).unwrap());
    assert_eq!(ok, (Ok(()), Ok(())));
    let (_, stranger) = shake(at_a.client(public(&b)).unwrap(), at_b.server(&pins(&[&c]), false).unwrap());
    let said = stranger.unwrap_err().to_string();
    let sentence = format!("the key {} is not that of a member", a.fingerprint());
    assert_eq!(String::from_utf8_lossy(sentence_of(said.as_bytes())), sentence);
    let (other, _) = shake(at_a.client(public(&c)).unwrap(), at_b.server(&pins(&[&a]), false).unwrap());
    assert!(other.unwrap_err().to_string().contains("is not the expected one"));
}

/// Shows a member's public key, which is no secret, and signs with its own.
#[test]
fn who_shows_a_key_must_sign_with_it() {
    let (member, thief, server) = (node_key(), node_key(), node_key());
    let at_server = Credentials::new(&server).unwrap();
    let mut stolen = Credentials::new(&thief).unwrap();
    let signer = Arc::clone(&stolen.shown.key);
    let spki = Credentials::new(&member).unwrap().shown.cert.clone();
    stolen.shown = Arc::new(CertifiedKey::new(spki, signer));
    let (_, refused) =
        shake(stolen.client(public(&server)).unwrap(), at_server.server(&pins(&[&member]), false).unwrap());
    assert_eq!(refused, Err(Error::InvalidCertificate(CertificateError::BadSignature)));
    let (refused, _) =
        shake(at_server.client(public(&member)).unwrap(), stolen.server(&pins(&[&server]), false).unwrap());
    assert_eq!(refused, Err(Error::InvalidCertificate(CertificateError::BadSignature)));
}

/// A box without a clock battery, one that comes back after years in a cupboard, and any name.
#[test]
fn neither_the_date_nor_the_name_matters() {
    let key = node_key();
    let credentials = Credentials::new(&key).unwrap();
    let shown = &credentials.shown.cert[0];
    for seconds in [0, 1_700_000_000, 32_000_000_000] {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let as_client = credentials.verifier(Accepts::Pinned(pins(&[&key])));
        assert!(as_client.verify_client_cert(shown, &[], now).is_ok());
        let as_server = credentials.verifier(Accepts::One(public(&key)));
        for name in ["covey", "elsewhere.example", "10.0.0.1"] {
            let name = ServerName::try_from(name).unwrap();
            assert!(as_server.verify_server_cert(shown, &[], &name, &[], now).is_ok());
        }
    }
}

#[test]
fn a_removed_key_is_refused_at_once_and_a_certificate_is_no_key() {
    let (a, b) = (node_key(), node_key());
    let credentials = Credentials::new(&a).unwrap();
    let pins = pins(&[&a]);
    let verifier = credentials.verifier(Accepts::Pinned(Arc::clone(&pins)));
    assert!(verifier.check(&credentials.shown.cert[0]).is_ok());
    pins.replace([(public(&b), MemberId(2), None)].into_iter());
    assert!(verifier.check(&credentials.shown.cert[0]).is_err());
    let certificate = rcgen::generate_simple_self_signed(vec!["covey".into()]).unwrap();
    assert!(verifier.check(certificate.cert.der()).is_err());
    assert!(key_of(&[]).is_none() && key_of(&SPKI_HEAD).is_none());
}

#[test]
fn nothing_is_kept_for_a_later_session() {
    let key = node_key();
    let credentials = Credentials::new(&key).unwrap();
    let server = credentials.server(&pins(&[&key]), false).unwrap();
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!server.session_storage.can_cache());
    assert!(!credentials.client(public(&key)).unwrap().enable_early_data);
}

#[test]
fn the_latest_run_of_a_member_survives_a_new_set() {
    let (a, b) = (node_key(), node_key());
    let pins = pins(&[&a]);
    let run = |n| Run { incarnation: Incarnation(n), boot_nonce: n };
    pins.saw(&public(&a), run(4));
    pins.saw(&public(&b), run(9));
    pins.replace([(public(&a), MemberId(7), Some(run(3))), (public(&b), MemberId(8), None)].into_iter());
    assert_eq!(pins.known(&public(&a)), Some(Known { member: MemberId(7), seen: Some(run(4)) }));
    assert_eq!(pins.known(&public(&b)), Some(Known { member: MemberId(8), seen: None }));
    pins.replace([(public(&a), MemberId(9), None)].into_iter());
    assert_eq!(pins.known(&public(&a)).and_then(|known| known.seen), None, "another member with this key");
}
