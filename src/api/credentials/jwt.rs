//! JSON Web Tokens as etcd makes and takes them (`--auth-token jwt,…`; RFC 7515, RFC 7519).
//!
//! Owns: what stands in a token, and which are good. Must never: let a token choose its algorithm, or look into one before its signature was checked. Driven by `tokens`.
//!
//! There is no maintained library for these on ring. What one would do beside ring's part is in this file.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::keys::{KeyError, Keys, SignMethod};
use crate::ids::AuthRevision;

/// Default of `ttl` (etcd's default).
pub const JWT_TTL: Duration = Duration::from_secs(300);

/// What `--auth-token jwt,…` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtOptions {
    /// `sign-method`.
    pub method: SignMethod,
    /// `pub-key`.
    pub public_key: Option<PathBuf>,
    /// `priv-key`.
    pub private_key: Option<PathBuf>,
    /// `ttl`.
    pub ttl: Duration,
}

/// Makes and checks tokens by a key.
#[derive(Debug)]
pub struct Jwt {
    keys: Keys,
    ttl: Duration,
}

/// What a token says, once its signature is known to be good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who.
    pub user: String,
    /// The revision of users and roles that it was made at, and is good for.
    pub revision: AuthRevision,
}

impl Jwt {
    /// Reads the keys.
    pub fn load(options: &JwtOptions) -> Result<Self, KeyError> {
        let (public, private) = (options.public_key.as_deref(), options.private_key.as_deref());
        let keys = Keys::load(options.method, public, private)?;
        Ok(Self { keys, ttl: options.ttl })
    }

    /// Whether tokens can be made here, and not only checked.
    pub fn can_sign(&self) -> bool {
        self.keys.can_sign()
    }

    /// A token for a user, at `now` in seconds since 1970. `None` without a private key.
    pub fn make(&self, claims: &Claims, now: u64) -> Option<String> {
        let header = json!({ "alg": self.keys.method().name(), "typ": "JWT" });
        let ends = now.saturating_add(self.ttl.as_secs());
        let body = json!({ "username": claims.user, "revision": claims.revision.0, "exp": ends });
        let [header, body] = [header, body].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{body}");
        let signature = URL_SAFE_NO_PAD.encode(self.keys.sign(signed.as_bytes())?);
        Some(format!("{signed}.{signature}"))
    }

    /// What a token says, if it is this key's, and has not ended at `now`.
    pub fn check(&self, token: &str, now: u64) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, body) = signed.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !self.keys.verifies(signed.as_bytes(), &signature) {
            return None;
        }
        let header = object(header)?;
        // What is critical is not known here (RFC 7515, section 4.1.11).
        let is_ours = header.get("alg")?.as_str()? == self.keys.method().name();
        if !is_ours || header.get("crit").is_some() {
            return None;
        }
        let body = object(body)?;
        // A token without an end has none, as in etcd; one whose end is no number is none.
        let before = |name: &str| body.get(name).map_or(Some(None), |value| value.as_f64().map(Some));
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
        let now = now as f64;
        if before("exp")?.is_some_and(|ends| now >= ends) || before("nbf")?.is_some_and(|begins| now < begins)
        {
            return None;
        }
        let user = body.get("username")?.as_str()?.to_owned();
        Some(Claims { user, revision: AuthRevision(body.get("revision")?.as_u64()?) })
    }
}

fn object(part: &str) -> Option<Value> {
    let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
    value.is_object().then_some(value)
}

#[cfg(test)]
#[path = "jwt_test.rs"]
mod tests;
