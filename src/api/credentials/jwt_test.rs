//! Tokens of each algorithm, with keys made here, and what must not be taken for one.

use std::fs;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData as _};
use tempfile::TempDir;

use super::*;

const NOW: u64 = 1_700_000_000;

/// Files of keys.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Private and public half of a new key for this algorithm.
    fn pair(&self, name: &str, method: SignMethod) -> (PathBuf, PathBuf) {
        let key = match method {
            SignMethod::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            SignMethod::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            SignMethod::Ed25519 => KeyPair::generate_for(&PKCS_ED25519),
            _ => {
                return (
                    self.write(&format!("{name}.key"), RSA_PRIVATE),
                    self.write(&format!("{name}.pub"), RSA_PUBLIC),
                );
            }
        };
        let key = key.unwrap();
        let public = pem::encode(&pem::Pem::new("PUBLIC KEY", key.subject_public_key_info()));
        let private = key.serialize_pem();
        (
            self.write(&format!("{name}.key"), private.as_bytes()),
            self.write(&format!("{name}.pub"), public.as_bytes()),
        )
    }
}

/// ring makes no RSA keys. This one is for this test alone.
const RSA_PRIVATE: &[u8] = include_bytes!("jwt_test_rsa.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("jwt_test_rsa_public.pem");

fn load(method: SignMethod, public: Option<PathBuf>, private: Option<PathBuf>) -> Result<Jwt, KeyError> {
    Jwt::load(&JwtOptions { method, public_key: public, private_key: private, ttl: JWT_TTL })
}

fn methods() -> Vec<SignMethod> {
    SignMethod::names().map(|name| SignMethod::named(name).unwrap()).collect()
}

fn claims() -> Claims {
    Claims { user: "süß".into(), revision: AuthRevision(7) }
}

/// A token with this header and body, signed by whoever has the key.
fn signed(jwt: &Jwt, header: &str, body: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(body));
    let signature = URL_SAFE_NO_PAD.encode(jwt.keys.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

#[test]
fn each_algorithm_makes_tokens_that_its_public_key_alone_checks() {
    assert_eq!(methods().len(), 12);
    let files = Files::new();
    for method in methods() {
        let name = method.name();
        let (private, public) = files.pair(name, method);
        let both = load(method, Some(public.clone()), Some(private.clone()));
        let jwt =
            if matches!(method, SignMethod::Shared(..)) { load(method, None, Some(private)) } else { both }
                .unwrap();
        assert!(jwt.can_sign(), "{name}");
        let token = jwt.make(&claims(), NOW).unwrap();
        assert_eq!(jwt.check(&token, NOW), Some(claims()), "{name}");
        assert_eq!(jwt.check(&token, NOW + JWT_TTL.as_secs() - 1), Some(claims()), "{name}");
        assert_eq!(jwt.check(&token, NOW + JWT_TTL.as_secs()), None, "{name}: it has ended");
        if !matches!(method, SignMethod::Shared(..)) {
            let checks = load(method, Some(public), None).unwrap();
            assert!(!checks.can_sign() && checks.make(&claims(), NOW).is_none(), "{name}");
            assert_eq!(checks.check(&token, NOW), Some(claims()), "{name}");
        }
        for at in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(jwt.check(&other, NOW).filter(|_| other != token), None, "{name}: byte {at}");
            if matches!(method, SignMethod::Rsa(..) | SignMethod::RsaPss(..)) && at > 20 {
                break;
            }
        }
    }
}

/// A token of one algorithm is never one of another, whatever its header says; least of all one that is signed by the public key, or not at all.
#[test]
fn a_token_does_not_choose_its_algorithm() {
    let files = Files::new();
    let (private, public) = files.pair("p256", SignMethod::P256);
    let jwt = load(SignMethod::P256, Some(public.clone()), Some(private)).unwrap();
    let body = r#"{"username":"root","revision":7,"exp":9999999999}"#;
    assert!(jwt.check(&signed(&jwt, r#"{"alg":"ES256"}"#, body), NOW).is_some());
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"es256"}"#,
        r#"{"alg":["ES256"]}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"ES256","crit":["b64"]}"#,
        r#"["ES256"]"#,
        "",
    ] {
        assert_eq!(jwt.check(&signed(&jwt, header, body), NOW), None, "{header}");
    }
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(body));
    assert_eq!(jwt.check(&unsigned, NOW), None);
    // The classic: a shared key that everybody knows, because it is the public one.
    let shared = SignMethod::named("HS256").unwrap();
    let forger = load(shared, None, Some(public)).unwrap();
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"ES256"}"#] {
        assert_eq!(jwt.check(&signed(&forger, header, body), NOW), None, "{header}");
    }
}

#[test]
fn a_token_says_who_at_which_revision_and_until_when() {
    let files = Files::new();
    let (private, _) = files.pair("shared", SignMethod::named("HS256").unwrap());
    let jwt = load(SignMethod::named("HS256").unwrap(), None, Some(private)).unwrap();
    let check = |body: &str| jwt.check(&signed(&jwt, r#"{"alg":"HS256","typ":"JWT"}"#, body), NOW);
    // Without an end there is none, as in etcd; Go writes large numbers with an exponent.
    assert!(check(r#"{"username":"a","revision":7}"#).is_some());
    assert!(check(r#"{"username":"a","revision":7,"exp":1.8e9,"nbf":1.7e9}"#).is_some());
    for bad in [
        r#"{"revision":7}"#,
        r#"{"username":"a"}"#,
        r#"{"username":1,"revision":7}"#,
        r#"{"username":"a","revision":"7"}"#,
        r#"{"username":"a","revision":-7}"#,
        r#"{"username":"a","revision":7.5}"#,
        r#"{"username":"a","revision":7,"exp":"9999999999"}"#,
        r#"{"username":"a","revision":7,"exp":null}"#,
        r#"{"username":"a","revision":7,"exp":1699999999}"#,
        r#"{"username":"a","revision":7,"nbf":1700000001}"#,
        r#"{"username":"a","revision":7,"nbf":[]}"#,
        "7",
        "{",
    ] {
        assert_eq!(check(bad), None, "{bad}");
    }
    for text in ["", ".", "..", "...", "a.b.c", &"a.".repeat(100), &"a".repeat(100_000)] {
        assert_eq!(jwt.check(text, NOW), None, "{} bytes", text.len());
    }
}

#[test]
fn what_is_wrong_with_a_key_is_said_with_its_file() {
    let files = Files::new();
    let (p256, p256_public) = files.pair("p256", SignMethod::P256);
    let (p384, p384_public) = files.pair("p384", SignMethod::P384);
    let (other, other_public) = files.pair("other", SignMethod::P256);
    let nothing = files.write("nothing", b"");
    let missing = files.0.path().join("missing");
    let error = |method: &str, public: Option<&PathBuf>, private: Option<&PathBuf>| {
        let loaded = load(SignMethod::named(method).unwrap(), public.cloned(), private.cloned());
        loaded.err().unwrap_or_else(|| panic!("{method} with {public:?} and {private:?}")).to_string()
    };
    assert_eq!(error("ES256", None, None), "ES256 needs a pub-key file, a priv-key file, or both");
    assert_eq!(error("HS256", Some(&p256_public), None), "HS256 needs a priv-key file with its secret");
    assert!(error("HS256", None, Some(&nothing)).ends_with("nothing holds no secret that HS256 takes"));
    assert!(error("RS256", None, Some(&missing)).starts_with("cannot read "));
    assert!(
        error("ES256", Some(&other_public), Some(&p256)).ends_with("do not hold the two halves of one key")
    );
    for (method, public, private) in [
        ("ES256", Some(&p384_public), None),
        ("ES384", None, Some(&p256)),
        ("ES256", None, Some(&p384)),
        ("RS256", Some(&p256_public), None),
        ("EdDSA", None, Some(&p256)),
        ("ES256", Some(&p256), None),
        ("ES256", None, Some(&p256_public)),
        ("ES256", Some(&nothing), None),
    ] {
        assert!(error(method, public, private).contains(" that "), "{method}");
    }
    assert!(load(SignMethod::P256, Some(other_public), Some(other)).is_ok());
    // The public half may be in a certificate, or in RSA's own form; a private key in its own.
    assert_eq!(SignMethod::named("ES512"), None);
}

/// A token that Go's library (etcd's) made: the example of RFC 7515, appendix A.3, for ES256.
#[test]
fn a_signature_of_another_implementation_is_checked() {
    let public = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n\
        6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n\
        -----END PUBLIC KEY-----\n";
    let signed = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let files = Files::new();
    let jwt = load(SignMethod::P256, Some(files.write("rfc.pub", public.as_bytes())), None).unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert!(jwt.keys.verifies(signed.as_bytes(), &signature));
    assert!(!jwt.keys.verifies(&signed.as_bytes()[1..], &signature));
}
