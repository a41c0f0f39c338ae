//! `--auth-token`, in etcd's syntax: a kind, and for JSON Web Tokens what they are made with.
//!
//! Owns: that syntax. Must never: read the files that it names (`app` does). Called by `serve`.

use std::path::PathBuf;
use std::time::Duration;

use super::values::{self, ValueError};
use crate::api::{JWT_TTL, JwtOptions, SIMPLE_TTL, SignMethod};

/// What `--auth-token`, `--auth-token-ttl` and `--bcrypt-cost` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthConfig {
    /// What tokens are.
    pub token: TokenConfig,
    /// What hashing a password costs.
    pub bcrypt_cost: u32,
}

/// What tokens are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenConfig {
    /// Simple ones, which end after so long without use.
    Simple(Duration),
    /// JSON Web Tokens.
    Jwt(JwtOptions),
}

/// The words of `--auth-token`; simple tokens live for `ttl`.
pub fn parse(text: &str, ttl: Duration) -> Result<TokenConfig, ValueError> {
    let mut parts = text.split(',');
    match parts.next() {
        Some("simple") if parts.next().is_none() => Ok(TokenConfig::Simple(ttl)),
        Some("jwt") => jwt(parts).map(TokenConfig::Jwt),
        _ => Err(ValueError::AuthToken),
    }
}

/// As etcd: 0 is the default.
pub fn ttl(text: &str) -> Result<Duration, ValueError> {
    Ok(match values::number(text, 0..=u64::from(u32::MAX))? {
        0 => SIMPLE_TTL,
        seconds => Duration::from_secs(seconds),
    })
}

fn jwt<'t>(options: impl Iterator<Item = &'t str>) -> Result<JwtOptions, ValueError> {
    let (mut method, mut public_key, mut private_key, mut ttl) = (None, None, None, None);
    for option in options {
        let (name, value) = option.split_once('=').ok_or(ValueError::AuthToken)?;
        let value = Some(value.to_owned()).filter(|value| !value.is_empty());
        let before = match name {
            "sign-method" => method.replace(value),
            "pub-key" => public_key.replace(value),
            "priv-key" => private_key.replace(value),
            "ttl" => ttl.replace(value),
            _ => return Err(ValueError::JwtOption(name.to_owned())),
        };
        if before.is_some() {
            return Err(ValueError::Twice(name.to_owned()));
        }
    }
    let name = method.flatten().unwrap_or_default();
    let method = SignMethod::named(&name).ok_or(ValueError::SignMethod { name })?;
    let ttl = ttl.flatten().map_or(Ok(JWT_TTL), |ttl| values::duration(&ttl))?;
    let path = |text: Option<Option<String>>| text.flatten().map(PathBuf::from);
    Ok(JwtOptions { method, public_key: path(public_key), private_key: path(private_key), ttl })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<TokenConfig, String> {
        parse(text, SIMPLE_TTL).map_err(|error| error.to_string())
    }

    #[test]
    fn the_syntax_is_etcds() {
        assert_eq!(parsed("simple"), Ok(TokenConfig::Simple(SIMPLE_TTL)));
        let options = JwtOptions {
            method: SignMethod::P256,
            public_key: Some("a.pub".into()),
            private_key: Some("a.key".into()),
            ttl: Duration::from_secs(600),
        };
        let whole = "jwt,pub-key=a.pub,priv-key=a.key,sign-method=ES256,ttl=10m";
        assert_eq!(parsed(whole), Ok(TokenConfig::Jwt(options.clone())));
        let short = JwtOptions { public_key: None, ttl: JWT_TTL, ..options };
        assert_eq!(parsed("jwt,sign-method=ES256,priv-key=a.key,ttl="), Ok(TokenConfig::Jwt(short)));
        assert_eq!(ttl("0"), Ok(SIMPLE_TTL));
        assert_eq!(ttl("7"), Ok(Duration::from_secs(7)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for none in ["", "simple,ttl=5m", "simpl", "jwt,sign-method", "jwt,", "JWT,sign-method=ES256"] {
            assert!(parsed(none).unwrap_err().starts_with("expected simple, or jwt,sign-method="), "{none}");
        }
        let error = |text: &str| parsed(text).unwrap_err();
        assert_eq!(error("jwt,sign-method=ES256,sign-method=ES384"), "sign-method is listed twice");
        assert_eq!(
            error("jwt,signmethod=ES256"),
            "\"signmethod\" is none of sign-method, pub-key, priv-key, ttl"
        );
        for method in ["none", "ES512", "es256", ""] {
            let text = error(&format!("jwt,priv-key=a,sign-method={method}"));
            assert!(
                text.starts_with(&format!("\"{method}\" is no sign-method that is supported: HS256, ")),
                "{text}"
            );
        }
        assert!(error("jwt,sign-method=ES256,ttl=5").contains("expected a duration"));
    }
}
