//! What clients show to say who they are: JSON Web Tokens.
//!
//! Owns: that nothing is good but what was signed, by the one algorithm, and says who, at which revision and until when.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use covey::api::{Jwt, JwtOptions, SignMethod};
use ring::hmac;

use crate::memory::bounded;

const SECRET: &[u8] = b"a secret of this test";
const NOW: u64 = 1_700_000_000;
/// A document is a tree of values of some ten bytes each.
const BYTES_FOR_EACH: usize = 256;

static JWT: LazyLock<Jwt> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, SECRET).unwrap();
    let method = SignMethod::named("HS256").unwrap();
    let options =
        JwtOptions { method, public_key: None, private_key: Some(path), ttl: Duration::from_secs(300) };
    Jwt::load(&options).unwrap()
});

/// Header and body, with a byte of 0 between them: as a token that is signed, so that they are read, and as they are.
pub fn web(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(bounded(bytes, BYTES_FOR_EACH, || JWT.check(&text, NOW)), None, "nobody has signed it");
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (header, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(body));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
    let Some(claims) = bounded(bytes, BYTES_FOR_EACH, || JWT.check(&token, NOW)) else { return };
    let (header, body) = (String::from_utf8_lossy(header), String::from_utf8_lossy(body));
    let read: serde_json::Value = serde_json::from_str(&header).unwrap();
    assert_eq!(read["alg"], "HS256");
    let read: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&read["username"], &read["revision"]), (&claims.user.into(), &claims.revision.0.into()));
    assert!(read["exp"].is_null() || read["exp"].as_f64().unwrap() > 1.7e9);
}

pub mod seeds {
    pub fn web() -> Vec<Vec<u8>> {
        let texts = [
            "{\"alg\":\"HS256\",\"typ\":\"JWT\"}\0{\"username\":\"root\",\"revision\":7,\"exp\":1700000300}",
            "{\"alg\":\"HS256\"}\0{\"exp\":1.8e9,\"nbf\":1600000000,\"revision\":1,\"username\":\"\\u00fc\"}",
            "{\"alg\":\"none\"}\0{\"username\":\"root\",\"revision\":7}",
            "{\"alg\":\"HS256\",\"crit\":[\"b64\"],\"b64\":false}\0{}",
            "eyJhbGciOiJIUzI1NiJ9.e30.AAAA",
        ];
        texts.into_iter().map(|text| text.as_bytes().to_vec()).collect()
    }
}
