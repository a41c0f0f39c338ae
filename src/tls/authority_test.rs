//! The cluster's authority: what it issues is taken by others' rules, whatever the time is.

use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, ServerName, UnixTime};

use super::*;
use crate::limits::AUTHORITY_BRIDGES_MAX;

const CLUSTER: ClusterId = ClusterId(0xc0_7e);

fn authority() -> Authority {
    let made = Authority::generate(CLUSTER).unwrap();
    Authority::load(&made.certificate_der, &made.key_pkcs8).unwrap()
}

fn names() -> ServerNames {
    ServerNames::of_machine("Box-7.example.com", [IpAddr::from([192, 0, 2, 7])])
}

fn roots(authority: &Authority) -> std::sync::Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    std::sync::Arc::new(roots)
}

/// The first second of 1970, one of 2026, one of 2100, and the last of 9999.
const TIMES: [u64; 4] = [0, 1_780_000_000, 4_102_444_800, 253_402_300_799];

fn time(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

#[test]
fn servers_are_trusted_by_each_of_their_names_at_any_time() {
    let authority = authority();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(&authority), provider).build().unwrap();
    let chain = authority.issue_server(&ServerKey::generate().unwrap(), &names()).unwrap();
    let check = |name: &'static str, seconds| {
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], time(seconds))
    };
    for seconds in TIMES {
        for name in
            ["box-7.example.com", "box-7", "box-7.local", "localhost", "192.0.2.7", "127.0.0.1", "::1"]
        {
            check(name, seconds).unwrap_or_else(|error| panic!("{name} at {seconds}: {error}"));
        }
        assert!(check("box-8.local", seconds).is_err() && check("192.0.2.8", seconds).is_err());
    }
    assert!(check("localhost", TIMES[3] + 1).is_err(), "the year 10000 has no certificates");
}

/// An authority and those that have taken its place one after the other, each with what leads to it from all before.
fn dynasty(generations: usize) -> Vec<Authority> {
    let mut all = vec![authority()];
    let mut bridges = Vec::new();
    for _ in 1..generations {
        let Successor { authority, bridge_der } = all.last().unwrap().succeed().unwrap();
        bridges.insert(0, bridge_der);
        let next = Authority::load(&authority.certificate_der, &authority.key_pkcs8).unwrap();
        all.push(next.reached_by(bridges.iter().map(Vec::as_slice)));
    }
    all
}

#[test]
fn who_trusts_an_authority_is_led_to_those_after_it_and_never_back() {
    let all = dynasty(1 + AUTHORITY_BRIDGES_MAX);
    let provider = || std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let name = ServerName::try_from("localhost").unwrap();
    for (trusted, root) in all.iter().enumerate() {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots(root), provider()).build().unwrap();
        for (signs, issuer) in all.iter().enumerate() {
            let chain = issuer.issue_server(&ServerKey::generate().unwrap(), &names()).unwrap();
            assert_eq!(chain.len(), 1 + signs, "what leads to it is shown");
            for seconds in TIMES {
                let taken = verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], time(seconds));
                assert_eq!(taken.is_ok(), trusted <= signs, "{trusted} trusts {signs}: {taken:?}");
                // Whoever has the key of one before, and all that servers have ever shown, is no server to those after it.
                let shown = [&all[AUTHORITY_BRIDGES_MAX].bridges, &chain[1..]].concat();
                let forged = verifier.verify_server_cert(&chain[0], &shown, &name, &[], time(seconds));
                assert!(forged.is_err() || trusted <= signs, "{trusted} trusts {signs}, which is gone");
            }
        }
    }
    // Once the first bridge has ended.
    let last = &all[AUTHORITY_BRIDGES_MAX];
    let chain = last.issue_server(&ServerKey::generate().unwrap(), &names()).unwrap();
    let shorter = &chain[1..chain.len() - 1];
    for (trusted, root) in all.iter().enumerate() {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots(root), provider()).build().unwrap();
        let taken = verifier.verify_server_cert(&chain[0], shorter, &name, &[], time(0));
        assert_eq!(taken.is_ok(), trusted > 0, "{taken:?}");
    }
}

/// OpenSSL takes a certificate whose issuer has its own name for one that is signed by itself, unless this says who has signed it; then a bridge leads nowhere.
#[test]
fn a_bridge_says_by_which_key_it_is_signed() {
    const AUTHORITY_KEY_IDENTIFIER: [u8; 5] = [6, 3, 0x55, 0x1d, 0x23];
    let says = |der: &[u8]| der.windows(5).any(|found| found == AUTHORITY_KEY_IDENTIFIER);
    let Successor { authority: next, bridge_der } = authority().succeed().unwrap();
    assert!(says(&bridge_der));
    assert!(!says(&next.certificate_der), "it is signed by itself");
}

#[test]
fn clients_certificates_are_sound_for_those_who_check_them_by_the_authority() {
    let authority = authority();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&authority), provider).build().unwrap();
    let issued = authority.issue_client("Größe 7").unwrap();
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    for seconds in TIMES {
        verifier.verify_client_cert(&certificate, &[], time(seconds)).unwrap();
    }
    assert_eq!(key_hash_of(&certificate).unwrap(), issued.key_hash);
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    rustls::crypto::ring::sign::any_ecdsa_type(&key).unwrap();
    let chain = authority.issue_server(&ServerKey::generate().unwrap(), &names()).unwrap();
    assert!(verifier.verify_client_cert(&chain[0], &[], time(0)).is_err(), "a server's is for servers");
    let again = authority.issue_client("Größe 7").unwrap();
    assert_ne!(again.key_hash, issued.key_hash);
}

#[test]
fn a_machine_is_called_what_can_stand_in_a_certificate() {
    let hosts = |host| ServerNames::of_machine(host, []).hosts.into_iter().collect::<Vec<_>>();
    assert_eq!(hosts("edge"), ["edge", "edge.local", "localhost"]);
    assert_eq!(hosts("a_b.lan."), ["a_b", "a_b.lan", "a_b.local", "localhost"]);
    assert_eq!(hosts("box.local"), ["box", "box.local", "localhost"]);
    for bad in ["", "schöne kiste", "-", "a b"] {
        assert_eq!(hosts(bad), ["localhost"], "{bad:?}");
    }
    let some = ["::ffff:192.0.2.1", "0.0.0.0", "224.0.0.251", "fe80::1"].map(|text| text.parse().unwrap());
    let addresses = ServerNames::of_machine("", some).addresses;
    let expected = ["127.0.0.1", "192.0.2.1", "::1", "fe80::1"].map(|text| text.parse().unwrap());
    assert_eq!(addresses, BTreeSet::from(expected));
    let many = (0..10_000_u32).map(|number| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number)));
    assert_eq!(ServerNames::of_machine("", many).addresses.len(), ADDRESSES_MAX + 2);
}

#[test]
fn what_is_no_authority_of_ours_is_not_taken_up() {
    let refusal = |certificate: &[u8], key: &[u8]| Authority::load(certificate, key).err().unwrap();
    let (one, other) = (Authority::generate(CLUSTER).unwrap(), Authority::generate(CLUSTER).unwrap());
    assert!(matches!(refusal(&one.certificate_der, &other.key_pkcs8), AuthorityError::Mismatch));
    assert!(matches!(refusal(&one.certificate_der, &[]), AuthorityError::Make(_)));
    assert!(matches!(refusal(&[], &one.key_pkcs8), AuthorityError::Unusable(_)));
    let cut = &one.certificate_der[..one.certificate_der.len() - 1];
    assert!(matches!(refusal(cut, &one.key_pkcs8), AuthorityError::Unusable(_)));
    let mut params = params("covey CA 1").unwrap();
    params.distinguished_name.push(DnType::OrganizationName, "somebody");
    let key = new_key().unwrap();
    let named = params.self_signed(&key).unwrap();
    assert!(matches!(refusal(named.der(), &key.serialize_der()), AuthorityError::Name));
}

#[test]
fn a_client_has_a_name_that_can_be_shown_and_is_not_the_authoritys() {
    let authority = authority();
    assert_eq!(authority.name, "covey CA c07e");
    let longest = "ü".repeat(COMMON_NAME_MAX);
    for good in ["a", &longest, "covey CA", "CN=x,O=y"] {
        assert!(authority.issue_client(good).is_ok(), "{good}");
    }
    let long = "u".repeat(COMMON_NAME_MAX + 1);
    for bad in ["", " ", "a\nb", "\0", &long, "covey CA c07e"] {
        assert!(matches!(authority.issue_client(bad), Err(AuthorityError::ClientName)), "{bad:?}");
    }
}
