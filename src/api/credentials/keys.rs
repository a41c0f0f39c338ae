//! The keys that JSON Web Tokens are signed and checked with.
//!
//! Owns: which files make up a key, and that it is of the kind that the algorithm takes. Must never: keep a private key where it is not needed, take one algorithm's key for
//! another one's, or let a mistake in a file wait until the first token. Driven by `jwt`.
//!
//! rustls reads private keys in all the forms that there are and signs; ring checks, by the key as it stands in a SubjectPublicKeyInfo.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::hmac;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::ParsedCertificate;
use rustls::sign::SigningKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{AlgorithmIdentifier, CertificateDer, PrivateKeyDer, alg_id};

/// How tokens are signed: one of the algorithms of RFC 7518, section 3.1, and RFC 8037. etcd's ES512 is not among them, for ring does not have its curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignMethod {
    /// By a key that signs and checks.
    Shared(&'static str, Hash),
    /// RSA with PKCS #1 v1.5.
    Rsa(&'static str, Hash),
    /// RSA with PSS.
    RsaPss(&'static str, Hash),
    /// On P-256, with SHA-256.
    P256,
    /// On P-384, with SHA-384.
    P384,
    /// Ed25519.
    Ed25519,
}

/// SHA-2 by its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// All of them.
const METHODS: [SignMethod; 12] = [
    SignMethod::Shared("HS256", Hash::Sha256),
    SignMethod::Shared("HS384", Hash::Sha384),
    SignMethod::Shared("HS512", Hash::Sha512),
    SignMethod::Rsa("RS256", Hash::Sha256),
    SignMethod::Rsa("RS384", Hash::Sha384),
    SignMethod::Rsa("RS512", Hash::Sha512),
    SignMethod::RsaPss("PS256", Hash::Sha256),
    SignMethod::RsaPss("PS384", Hash::Sha384),
    SignMethod::RsaPss("PS512", Hash::Sha512),
    SignMethod::P256,
    SignMethod::P384,
    SignMethod::Ed25519,
];

impl SignMethod {
    /// By the name that tokens say it with.
    pub fn named(name: &str) -> Option<Self> {
        METHODS.into_iter().find(|method| method.name() == name)
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        METHODS.into_iter().map(Self::name)
    }

    /// What tokens call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shared(name, _) | Self::Rsa(name, _) | Self::RsaPss(name, _) => name,
            Self::P256 => "ES256",
            Self::P384 => "ES384",
            Self::Ed25519 => "EdDSA",
        }
    }

    /// What rustls calls it.
    fn scheme(self) -> Option<SignatureScheme> {
        Some(match self {
            Self::Shared(..) => return None,
            Self::Rsa(_, Hash::Sha256) => SignatureScheme::RSA_PKCS1_SHA256,
            Self::Rsa(_, Hash::Sha384) => SignatureScheme::RSA_PKCS1_SHA384,
            Self::Rsa(_, Hash::Sha512) => SignatureScheme::RSA_PKCS1_SHA512,
            Self::RsaPss(_, Hash::Sha256) => SignatureScheme::RSA_PSS_SHA256,
            Self::RsaPss(_, Hash::Sha384) => SignatureScheme::RSA_PSS_SHA384,
            Self::RsaPss(_, Hash::Sha512) => SignatureScheme::RSA_PSS_SHA512,
            Self::P256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Self::P384 => SignatureScheme::ECDSA_NISTP384_SHA384,
            Self::Ed25519 => SignatureScheme::ED25519,
        })
    }

    /// How ring checks it.
    fn verification(self) -> Option<&'static dyn VerificationAlgorithm> {
        let verification: &'static dyn VerificationAlgorithm = match self {
            Self::Shared(..) => return None,
            Self::Rsa(_, Hash::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rsa(_, Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rsa(_, Hash::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::RsaPss(_, Hash::Sha256) => &signature::RSA_PSS_2048_8192_SHA256,
            Self::RsaPss(_, Hash::Sha384) => &signature::RSA_PSS_2048_8192_SHA384,
            Self::RsaPss(_, Hash::Sha512) => &signature::RSA_PSS_2048_8192_SHA512,
            Self::P256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::P384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::Ed25519 => &signature::ED25519,
        };
        Some(verification)
    }

    /// What public keys for it say that they are.
    const fn kind_of_key(self) -> Option<AlgorithmIdentifier> {
        match self {
            Self::Shared(..) => None,
            Self::Rsa(..) | Self::RsaPss(..) => Some(alg_id::RSA_ENCRYPTION),
            Self::P256 => Some(alg_id::ECDSA_P256),
            Self::P384 => Some(alg_id::ECDSA_P384),
            Self::Ed25519 => Some(alg_id::ED25519),
        }
    }

    /// Bytes of each of the two numbers of a signature on a curve.
    const fn number_bytes(self) -> Option<usize> {
        match self {
            Self::P256 => Some(32),
            Self::P384 => Some(48),
            _ => None,
        }
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} holds no {what} that {method} takes", file.display())]
    Kind {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// The algorithm.
        method: &'static str,
    },
    /// There is nothing to sign or to check with.
    #[error("{method} needs {needs}")]
    Missing {
        /// The algorithm.
        method: &'static str,
        /// What is missing.
        needs: &'static str,
    },
    /// The two files are of two keys.
    #[error("{} and {} do not hold the two halves of one key", public.display(), private.display())]
    Mismatch {
        /// The public key's file.
        public: PathBuf,
        /// The private key's file.
        private: PathBuf,
    },
}

/// What tokens are checked by, and maybe signed with.
pub struct Keys {
    method: SignMethod,
    half: Half,
}

enum Half {
    Shared(hmac::Key),
    Both { signs: Arc<dyn SigningKey>, checks: Checks },
    ChecksOnly(Checks),
}

type Checks = UnparsedPublicKey<Vec<u8>>;

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("method", &self.method).finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the files. A shared key is all bytes of the private key's file, as in etcd; with a public key alone nothing is signed.
    pub fn load(method: SignMethod, public: Option<&Path>, private: Option<&Path>) -> Result<Self, KeyError> {
        let name = method.name();
        let half = if let SignMethod::Shared(_, hash) = method {
            let needs = "a priv-key file with its secret";
            let file = private.ok_or(KeyError::Missing { method: name, needs })?;
            let secret = read(file)?;
            if secret.is_empty() {
                return Err(KeyError::Kind { file: file.to_owned(), what: "secret", method: name });
            }
            let algorithm = match hash {
                Hash::Sha256 => hmac::HMAC_SHA256,
                Hash::Sha384 => hmac::HMAC_SHA384,
                Hash::Sha512 => hmac::HMAC_SHA512,
            };
            Half::Shared(hmac::Key::new(algorithm, &secret))
        } else {
            let public =
                public.map(|file| Ok::<_, KeyError>((file, public_key(method, file)?))).transpose()?;
            let private =
                private.map(|file| Ok::<_, KeyError>((file, private_key(method, file)?))).transpose()?;
            match (public, private) {
                (None, None) => {
                    let needs = "a pub-key file, a priv-key file, or both";
                    return Err(KeyError::Missing { method: name, needs });
                }
                (Some((_, key)), None) => Half::ChecksOnly(checks(method, key)),
                (public, Some((private_file, (signs, own)))) => {
                    if let Some((public_file, key)) = public
                        && key != own
                    {
                        let (public, private) = (public_file.to_owned(), private_file.to_owned());
                        return Err(KeyError::Mismatch { public, private });
                    }
                    Half::Both { signs, checks: checks(method, own) }
                }
            }
        };
        Ok(Self { method, half })
    }

    /// The algorithm.
    pub fn method(&self) -> SignMethod {
        self.method
    }

    /// Whether there is something to sign with.
    pub fn can_sign(&self) -> bool {
        !matches!(self.half, Half::ChecksOnly(_))
    }

    /// A signature as tokens have it (RFC 7515); `None` without a private key.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.half {
            Half::Shared(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            Half::Both { signs, .. } => {
                let signer = signs.choose_scheme(&[self.method.scheme()?])?;
                let signature = signer.sign(message).ok()?;
                match self.method.number_bytes() {
                    Some(bytes) => two_numbers(&signature, bytes),
                    None => Some(signature),
                }
            }
            Half::ChecksOnly(_) => None,
        }
    }

    /// Whether a signature is of this message, by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.half {
            Half::Shared(key) => hmac::verify(key, message, signature).is_ok(),
            Half::Both { checks, .. } | Half::ChecksOnly(checks) => checks.verify(message, signature).is_ok(),
        }
    }
}

fn checks(method: SignMethod, key: Vec<u8>) -> Checks {
    match method.verification() {
        Some(algorithm) => UnparsedPublicKey::new(algorithm, key),
        None => unreachable!("a shared key has no public half"),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(file).map_err(|error| KeyError::Read { file: file.to_owned(), error })
}

/// The private key, and the public half as ring takes it.
fn private_key(method: SignMethod, file: &Path) -> Result<(Arc<dyn SigningKey>, Vec<u8>), KeyError> {
    let wrong = || KeyError::Kind { file: file.to_owned(), what: "private key (PEM)", method: method.name() };
    let der = PrivateKeyDer::from_pem_slice(&read(file)?).map_err(|_| wrong())?;
    let key = any_supported_type(&der).map_err(|_| wrong())?;
    let scheme = method.scheme().ok_or_else(wrong)?;
    key.choose_scheme(&[scheme]).ok_or_else(wrong)?;
    let public = key.public_key().and_then(|info| key_in(&info, method)).ok_or_else(wrong)?;
    Ok((key, public))
}

/// A public key as ring takes it: from a SubjectPublicKeyInfo, a certificate, or RSA's own form.
fn public_key(method: SignMethod, file: &Path) -> Result<Vec<u8>, KeyError> {
    let wrong = || KeyError::Kind { file: file.to_owned(), what: "public key (PEM)", method: method.name() };
    let parsed = pem::parse(read(file)?).map_err(|_| wrong())?;
    let key = match (parsed.tag(), method) {
        ("PUBLIC KEY", _) => key_in(parsed.contents(), method),
        ("CERTIFICATE", _) => {
            let certificate = CertificateDer::from(parsed.contents());
            let certificate = ParsedCertificate::try_from(&certificate).map_err(|_| wrong())?;
            key_in(&certificate.subject_public_key_info(), method)
        }
        ("RSA PUBLIC KEY", SignMethod::Rsa(..) | SignMethod::RsaPss(..)) => Some(parsed.into_contents()),
        _ => None,
    };
    key.ok_or_else(wrong)
}

/// The key in a SubjectPublicKeyInfo (RFC 5280, section 4.1), if it is of the kind that the algorithm takes.
fn key_in(info: &[u8], method: SignMethod) -> Option<Vec<u8>> {
    let expected = method.kind_of_key()?;
    let read = yasna::parse_der(info, |reader| {
        reader.read_sequence(|reader| {
            let algorithm = reader.next().read_der()?;
            let (key, bits) = reader.next().read_bitvec_bytes()?;
            Ok((algorithm, key, bits))
        })
    });
    let (algorithm, key, bits) = read.ok()?;
    let is_expected = contents(&algorithm)? == expected.as_ref();
    (is_expected && bits == key.len() * 8).then_some(key)
}

/// What is in a short DER sequence.
fn contents(sequence: &[u8]) -> Option<&[u8]> {
    let [0x30, length, contents @ ..] = sequence else { return None };
    (usize::from(*length) == contents.len() && *length < 0x80).then_some(contents)
}

/// A signature on a curve as two numbers of fixed length (RFC 7518, section 3.4), from the DER that TLS has.
fn two_numbers(signature: &[u8], bytes: usize) -> Option<Vec<u8>> {
    let read = yasna::parse_der(signature, |reader| {
        reader.read_sequence(|reader| {
            Ok([reader.next().read_bigint_bytes()?, reader.next().read_bigint_bytes()?])
        })
    });
    let mut fixed = Vec::with_capacity(2 * bytes);
    for (number, is_positive) in read.ok()? {
        let digits: Vec<u8> = number.into_iter().skip_while(|byte| *byte == 0).collect();
        if !is_positive || digits.len() > bytes {
            return None;
        }
        fixed.resize(fixed.len() + bytes - digits.len(), 0);
        fixed.extend(digits);
    }
    Some(fixed)
}
