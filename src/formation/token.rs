//! Join tokens: what lets one node into a sealed cluster, once.
//!
//! Owns: how a token is written down, and what follows from its secret. Must never: show the secret but to whoever made it. Made by a member for its
//! operator, carried to a new node, and known to the cluster by what follows from it alone.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use ring::hkdf;

use crate::command::{TokenId, TokenKey};

/// 128 random bits.
pub const TOKEN_BYTES: usize = 16;
/// What every token begins with, so that people and scanners of leaked secrets know it when they see one.
const PREFIX: &str = "covey-";
/// Base 32 in the order of RFC 4648, in small letters.
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const DIGIT_BITS: usize = 5;
const TOKEN_DIGITS: usize = (TOKEN_BYTES * 8).div_ceil(DIGIT_BITS);
const SALT: &[u8] = b"covey join token 1";
const PURPOSE: &[u8] = b"joining";

/// A token with its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken([u8; TOKEN_BYTES]);

/// A text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a join token is {PREFIX} and {TOKEN_DIGITS} letters and digits, as covey token create prints it")]
pub struct TokenError;

impl JoinToken {
    /// The token with this secret, which nobody can guess.
    pub fn new(secret: [u8; TOKEN_BYTES]) -> Self {
        Self(secret)
    }

    /// What it is known by.
    pub fn id(&self) -> TokenId {
        let hash = digest(&SHA256, &[SALT, &self.0].concat());
        TokenId(hash.as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// What proofs are made with. The secret does not follow from it.
    pub fn key(&self) -> TokenKey {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(&self.0);
        let mut key = [0; 32];
        let derived = secret.expand(&[PURPOSE], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut key));
        derived.expect("a hash's length can be derived");
        TokenKey(key)
    }
}

impl fmt::Debug for JoinToken {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({:?})", self.id())
    }
}

impl fmt::Display for JoinToken {
    /// With the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        let bits = u128::from_be_bytes(self.0);
        for digit in 0..TOKEN_DIGITS {
            // The last digit has bits to spare, which are 0.
            let shift = 128_usize.checked_sub((digit + 1) * DIGIT_BITS);
            let value = shift.map_or(bits << (TOKEN_DIGITS * DIGIT_BITS - 128), |shift| bits >> shift);
            write!(f, "{}", char::from(DIGITS[(value & 31) as usize]))?;
        }
        Ok(())
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// Takes what is shown; capitals and blanks around it do not matter.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim().to_ascii_lowercase();
        let digits = text.strip_prefix(PREFIX).ok_or(TokenError)?;
        if digits.len() != TOKEN_DIGITS {
            return Err(TokenError);
        }
        let mut bits = 0_u128;
        let spare = TOKEN_DIGITS * DIGIT_BITS - 128;
        for (place, digit) in digits.bytes().enumerate() {
            let value = DIGITS.iter().position(|known| *known == digit).ok_or(TokenError)? as u128;
            if place + 1 < TOKEN_DIGITS {
                bits = bits << DIGIT_BITS | value;
            } else if value & ((1 << spare) - 1) == 0 {
                bits = bits << (DIGIT_BITS - spare) | value >> spare;
            } else {
                return Err(TokenError);
            }
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_shown() {
        let mut secret = [0; TOKEN_BYTES];
        for round in 0..=255_u8 {
            for (place, byte) in secret.iter_mut().enumerate() {
                *byte = round.wrapping_mul(31).wrapping_add(u8::try_from(place).unwrap() * 17);
            }
            let token = JoinToken::new(secret);
            let shown = token.to_string();
            assert_eq!(shown.len(), PREFIX.len() + 26);
            assert_eq!(shown.parse(), Ok(token.clone()));
            assert_eq!(format!(" {}\n", shown.to_uppercase()).parse(), Ok(token));
        }
        assert_eq!(JoinToken::new([0; 16]).to_string(), format!("covey-{}", "a".repeat(26)));
        assert_eq!(JoinToken::new([255; 16]).to_string(), format!("covey-{}4", "7".repeat(25)));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = JoinToken::new([255; 16]).to_string();
        let bad = [
            String::new(),
            good[1..].to_owned(),
            format!("{good}a"),
            good[..good.len() - 1].to_owned(),
            good.replace('7', "1"),
            // Bits that no token has.
            format!("{}5", &good[..good.len() - 1]),
            good.replace("covey-", "kovey-"),
        ];
        for text in bad {
            assert_eq!(text.parse::<JoinToken>(), Err(TokenError), "{text}");
        }
    }

    #[test]
    fn what_is_known_of_a_token_does_not_show_it() {
        let (one, two) = (JoinToken::new([1; 16]), JoinToken::new([2; 16]));
        assert_ne!(one.id(), two.id());
        assert!(one.key() != two.key());
        assert_ne!(one.id().0[..], one.key().0[..8]);
        assert!(!format!("{one:?}").contains(&one.to_string()));
    }
}
