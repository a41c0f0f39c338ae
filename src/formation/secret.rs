//! The secret of a cluster, and proofs that somebody has it.
//!
//! Owns: what a secret has to look like, and what a proof is over. Must never: show the secret, or let a proof be worth anything on another
//! connection, in the other direction or for another message. Used by `peer` for nodes that are in no cluster yet.

use ring::{hkdf, hmac};

use crate::command::TokenKey;
use crate::ids::PublicKey;

/// A secret has at least so many characters: 128 random bits in base 64 are 22.
pub const SECRET_CHARACTERS_MIN: usize = 22;
/// A secret is no longer than this, in bytes.
pub const SECRET_BYTES_MAX: usize = 1024;
/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;
/// The bytes that both ends of one connection, and nobody else, can derive from it.
pub const EXPORTED_BYTES: usize = 32;

const SALT: &[u8] = b"covey cluster secret 1";
const PURPOSE: &[u8] = b"forming";
/// What no proof is over: those begin with a length.
const WITH_TOKEN: &[u8] = b"with a join token";

/// Why a text is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Too short to be random enough.
    #[error(
        "a cluster secret has at least {SECRET_CHARACTERS_MIN} characters; make one with: head -c 32 /dev/urandom | base64"
    )]
    Short,
    /// Too long.
    #[error("a cluster secret has at most {SECRET_BYTES_MAX} bytes")]
    Long,
    /// Something that a person made up.
    #[error(
        "a cluster secret is one generated word without blanks, not a phrase; make one with: head -c 32 /dev/urandom | base64"
    )]
    Phrase,
}

/// Who proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prover {
    /// Who dialled.
    Dialler,
    /// Who was dialled.
    Dialled,
}

/// What a proof is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// Derived from the connection (RFC 5705).
    pub exported: [u8; EXPORTED_BYTES],
    /// The key of who dialled.
    pub dialler: PublicKey,
    /// The key of who was dialled.
    pub dialled: PublicKey,
    /// All that was said on the connection, up to what the proof comes with.
    pub said: &'a [&'a [u8]],
}

/// The secret of a cluster, ready for use.
#[derive(Clone)]
pub struct ClusterSecret(hmac::Key);

impl std::fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterSecret")
    }
}

impl ClusterSecret {
    /// Takes what a secret's file holds; blanks around it do not count.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        if text.chars().any(char::is_whitespace) {
            return Err(SecretError::Phrase);
        }
        if text.chars().count() < SECRET_CHARACTERS_MIN {
            return Err(SecretError::Short);
        }
        if text.len() > SECRET_BYTES_MAX {
            return Err(SecretError::Long);
        }
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(text.as_bytes());
        let key = secret.expand(&[PURPOSE], hmac::HMAC_SHA256).expect("a hash's length can be derived");
        Ok(Self(key.into()))
    }

    /// What a token stands for: whoever has it proves that as one proves a cluster's secret.
    pub fn of_token(key: &TokenKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key.0))
    }

    /// What this secret and a token stand for together: whoever lacks one of them proves nothing with the other.
    pub fn with_token(&self, key: &TokenKey) -> Self {
        let derived = hmac::sign(&self.0, &[WITH_TOKEN, &key.0].concat());
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// A proof that the prover has the secret.
    pub fn prove(&self, prover: Prover, binding: &Binding<'_>) -> [u8; PROOF_BYTES] {
        let mut proof = [0; PROOF_BYTES];
        proof.copy_from_slice(hmac::sign(&self.0, &fields(prover, binding)).as_ref());
        proof
    }

    /// Whether a proof is that of somebody who has the secret; in constant time. Nobody proves anything to itself.
    pub fn accepts(&self, prover: Prover, binding: &Binding<'_>, proof: &[u8]) -> bool {
        binding.dialler != binding.dialled && hmac::verify(&self.0, &fields(prover, binding), proof).is_ok()
    }
}

/// Each with its length, so that no two bindings give the same bytes.
fn fields(prover: Prover, binding: &Binding<'_>) -> Vec<u8> {
    let role: &[u8] = match prover {
        Prover::Dialler => b"dialler",
        Prover::Dialled => b"dialled",
    };
    let fixed: [&[u8]; 4] = [role, &binding.exported, &binding.dialler.0, &binding.dialled.0];
    let mut bytes = Vec::new();
    for field in fixed.iter().chain(binding.said) {
        bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "mBv2m3xk0S9pAqYd7w1u5g";

    #[test]
    fn what_is_too_simple_is_no_secret() {
        assert!(ClusterSecret::parse(&format!("  {TEXT}\n")).is_ok());
        assert_eq!(ClusterSecret::parse(&TEXT[1..]).unwrap_err(), SecretError::Short);
        assert_eq!(ClusterSecret::parse("correct horse battery staple").unwrap_err(), SecretError::Phrase);
        assert_eq!(ClusterSecret::parse(&"x".repeat(SECRET_BYTES_MAX + 1)).unwrap_err(), SecretError::Long);
        assert!(!format!("{:?}", ClusterSecret::parse(TEXT)).contains(TEXT));
    }

    #[test]
    fn a_proof_is_worth_nothing_anywhere_else() {
        let secret = ClusterSecret::parse(TEXT).unwrap();
        let said: [&[u8]; 2] = [b"question", b"answer"];
        let binding = Binding {
            exported: [1; 32],
            dialler: PublicKey([2; 32]),
            dialled: PublicKey([3; 32]),
            said: &said,
        };
        let proof = secret.prove(Prover::Dialler, &binding);
        assert!(secret.accepts(Prover::Dialler, &binding, &proof));
        assert!(!secret.accepts(Prover::Dialled, &binding, &proof), "reflected");
        let moved: [&[u8]; 2] = [b"questiona", b"nswer"];
        for other in [
            Binding { exported: [9; 32], ..binding },
            Binding { dialler: PublicKey([9; 32]), ..binding },
            Binding { dialled: PublicKey([9; 32]), ..binding },
            Binding { said: &said[..1], ..binding },
            Binding { said: &moved, ..binding },
        ] {
            assert!(!secret.accepts(Prover::Dialler, &other, &proof), "{other:?}");
        }
        let other = ClusterSecret::parse(&TEXT.replace('m', "n")).unwrap();
        assert!(!other.accepts(Prover::Dialler, &binding, &proof));
        assert!(!secret.accepts(Prover::Dialler, &binding, &proof[1..]));
        let alone = Binding { dialled: binding.dialler, ..binding };
        assert!(
            !secret.accepts(Prover::Dialler, &alone, &secret.prove(Prover::Dialler, &alone)),
            "equal keys"
        );
    }
}
