//! Who makes a call, and by what they show it.
//!
//! Owns: what a call brings (a token, the name in a certificate), and the making and checking of it. Must never: know what somebody may do (`auth` does), or keep a password. Driven by
//! `dispatch` and `logins`.
//!
//! ```text
//! passwords     what is kept of them, and comparing
//! turns         whose password is next
//! simple        tokens by the cluster's secret
//! jwt keys      JSON Web Tokens, and the keys that they take
//! certificate   the name in a client's certificate
//! ```

mod jwt;
mod keys;
mod passwords;
mod simple;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

pub use jwt::{Claims, JWT_TTL, Jwt, JwtOptions};
pub use keys::{KeyError, SignMethod};
pub use passwords::{BCRYPT_COST, BCRYPT_COST_MAX, BCRYPT_COST_MIN, Passwords, is_hash, to_compare};
pub use simple::{Holder, SIMPLE_TTL, SimpleTokens};
pub use turns::Asker;

/// What is in front of a token where it comes as HTTP has it.
const BEARER: &str = "Bearer ";
/// The longest token that is looked at, in bytes: a long user name, and the longest signature.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Says that a request has come through a gateway, whose certificate is not the client's.
const BY_GATEWAY: &str = "grpcgateway-accept";

/// How clients show who they are: `--auth-token`, `--auth-token-ttl`, `--bcrypt-cost`.
#[derive(Clone, Debug)]
pub struct LoginOptions {
    /// What tokens are.
    pub tokens: TokenKind,
    /// What hashing a password costs.
    pub bcrypt_cost: u32,
}

/// What tokens are.
#[derive(Clone, Debug)]
pub enum TokenKind {
    /// etcd's simple ones, which end when they were not used for so long.
    Simple(Duration),
    /// JSON Web Tokens.
    Jwt(Arc<Jwt>),
}

impl Default for LoginOptions {
    fn default() -> Self {
        Self { tokens: TokenKind::Simple(SIMPLE_TTL), bcrypt_cost: BCRYPT_COST }
    }
}

/// What a call brings to show who makes it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    token: Option<Arc<str>>,
    common_name: Option<Arc<str>>,
}

impl Credentials {
    /// From a call's metadata, and the name in the certificate of its connection where that is a user's.
    pub fn of(headers: &HeaderMap, common_name: Option<&Arc<str>>) -> Self {
        let token = headers.get("token").or_else(|| headers.get(http::header::AUTHORIZATION));
        // What is no text, or too long, is a token all the same, and no good one: streams keep it for as long as they last.
        let token = token.map(|token| {
            let token =
                token.to_str().ok().filter(|token| token.len() <= TOKEN_BYTES_MAX).unwrap_or_default();
            Arc::from(token.strip_prefix(BEARER).unwrap_or(token))
        });
        // A gateway's certificate, this server's own included, is not that of whoever speaks to it.
        let content = headers.get(http::header::CONTENT_TYPE);
        let is_clients = content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"))
            && !headers.contains_key(BY_GATEWAY);
        let common_name = common_name.filter(|_| is_clients).cloned();
        Self { token, common_name }
    }

    /// Of a browser, which has no gateway between itself and this server: the name in its certificate.
    pub fn by_certificate(common_name: Option<&Arc<str>>) -> Self {
        Self { token: None, common_name: common_name.cloned() }
    }

    /// Those that `dispatch` has found with a call.
    pub fn of_call<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_default()
    }

    /// Whether a call brings nothing.
    pub fn is_empty(&self) -> bool {
        self.token.is_none() && self.common_name.is_none()
    }

    /// The token.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The name in the certificate. It counts where there is no token.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &'static [u8])], name: Option<&str>) -> (Option<String>, Option<String>) {
        let headers = headers.iter().map(|(name, value)| {
            let value = http::HeaderValue::from_bytes(value).unwrap();
            (http::HeaderName::from_static(name), value)
        });
        let name = name.map(Arc::from);
        let credentials = Credentials::of(&headers.collect(), name.as_ref());
        (credentials.token().map(str::to_owned), credentials.common_name().map(str::to_owned))
    }

    #[test]
    fn a_token_comes_in_either_of_two_fields() {
        let token = |headers: &[(&'static str, &'static [u8])]| of(headers, None).0;
        assert_eq!(token(&[]), None);
        assert_eq!(token(&[("token", b"a.1")]).as_deref(), Some("a.1"));
        assert_eq!(token(&[("authorization", b"a.1")]).as_deref(), Some("a.1"));
        assert_eq!(token(&[("authorization", b"Bearer a.1")]).as_deref(), Some("a.1"));
        assert_eq!(token(&[("authorization", b"b"), ("token", b"a")]).as_deref(), Some("a"));
        assert_eq!(token(&[("token", b"")]).as_deref(), Some(""));
        assert_eq!(token(&[("token", b"\xff")]).as_deref(), Some(""), "it must not count as none");
        let long = Box::leak(vec![b'a'; TOKEN_BYTES_MAX + 1].into_boxed_slice());
        assert_eq!(token(&[("token", &long[1..])]).map(|token| token.len()), Some(TOKEN_BYTES_MAX));
        assert_eq!(token(&[("token", long)]).as_deref(), Some(""), "nor be kept");
    }

    #[test]
    fn a_gateways_certificate_is_nobodys() {
        const GRPC: (&str, &[u8]) = ("content-type", b"application/grpc");
        assert_eq!(of(&[GRPC], Some("alice")).1.as_deref(), Some("alice"));
        assert_eq!(of(&[GRPC, ("grpcgateway-accept", b"*/*")], Some("alice")).1, None);
        assert_eq!(of(&[], Some("alice")).1, None);
        assert_eq!(of(&[("content-type", b"application/json")], Some("alice")).1, None);
    }
}
