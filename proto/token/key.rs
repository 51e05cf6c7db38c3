//! Keys that verify tokens, and how they are read.

use std::{fmt, path::Path};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, JwkSet},
};

use super::SECRET_BYTES_MIN;

/// One source of keys.
#[derive(Clone)]
pub enum KeySource {
    /// A shared secret for HS256, HS384 and HS512.
    Secret(String),
    /// A PEM public key: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA).
    Pem(Vec<u8>),
    /// A JSON Web Key Set (RFC 7517); tokens select a key by `kid`.
    Jwks(Vec<u8>),
    /// The URL from which such a set is fetched.
    Url(String),
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(…)",
            Self::Pem(_) => "Pem(…)",
            Self::Jwks(_) => "Jwks(…)",
            Self::Url(url) => return f.debug_tuple("Url").field(url).finish(),
        })
    }
}

impl KeySource {
    /// Reads a PEM public key.
    pub fn pem_file(path: &Path) -> Result<Self, KeyError> {
        read(path).map(Self::Pem)
    }

    /// A JSON Web Key Set: a file, which is read, or a URL. A URL must be `https` or on this
    /// machine, because anyone who can modify the response in transit could sign tokens.
    pub fn jwks(place: &str) -> Result<Self, KeyError> {
        match place.split_once("://") {
            Some(("https", _)) => Ok(Self::Url(place.to_owned())),
            Some(("http", rest)) if is_local(rest) => Ok(Self::Url(place.to_owned())),
            Some(_) => Err(KeyError::Url(place.to_owned())),
            None => read(Path::new(place)).map(Self::Jwks),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(path).map_err(|source| KeyError::Read { path: path.display().to_string(), source })
}

/// Whether a URL, given without its scheme, is on this machine.
fn is_local(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read.
    #[error("cannot read the key file {path}")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The secret is too short.
    #[error(
        "the token secret has {0} bytes: want at least {SECRET_BYTES_MIN} random ones, e.g. from `openssl rand -hex 32`"
    )]
    ShortSecret(usize),
    /// The secret is one repeated character.
    #[error(
        "the token secret repeats one character: want at least {SECRET_BYTES_MIN} random bytes, e.g. from `openssl rand -hex 32`"
    )]
    RepeatedSecret,
    /// The PEM is not a public key of a supported kind.
    #[error("not a PEM public key of kind RSA, P-256 or Ed25519 (want \"-----BEGIN PUBLIC KEY-----\")")]
    Pem,
    /// The JWKS is malformed or has no usable key.
    #[error("not a JSON Web Key Set with at least one RSA, P-256, Ed25519 or symmetric key: {0}")]
    Jwks(String),
    /// Keys cannot be fetched from this URL.
    #[error("{0:?} is no place of a key set: want a file, an https URL, or an http URL of this machine")]
    Url(String),
    /// No key is configured.
    #[error("no key to verify tokens with: give a secret, a PEM public key or a JWKS file")]
    None,
}

pub(super) struct VerifyingKey {
    pub(super) id: Option<String>,
    pub(super) key: DecodingKey,
    pub(super) algorithms: Vec<Algorithm>,
}

pub(super) fn load(source: &KeySource, keys: &mut Vec<VerifyingKey>) -> Result<(), KeyError> {
    match source {
        KeySource::Secret(secret) => {
            check_secret(secret)?;
            keys.push(VerifyingKey {
                id: None,
                key: DecodingKey::from_secret(secret.as_bytes()),
                algorithms: vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
            });
        }
        KeySource::Pem(pem) => {
            let (key, algorithm) = DecodingKey::from_rsa_pem(pem)
                .map(|k| (k, Algorithm::RS256))
                .or_else(|_| DecodingKey::from_ec_pem(pem).map(|k| (k, Algorithm::ES256)))
                .or_else(|_| DecodingKey::from_ed_pem(pem).map(|k| (k, Algorithm::EdDSA)))
                .map_err(|_| KeyError::Pem)?;
            keys.push(VerifyingKey { id: None, key, algorithms: vec![algorithm] });
        }
        KeySource::Jwks(json) => {
            keys.extend(parse_set(json)?);
        }
        KeySource::Url(_) => {}
    }
    Ok(())
}

pub(super) fn check_secret(secret: &str) -> Result<(), KeyError> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(KeyError::ShortSecret(secret.len()));
    }
    let mut characters = secret.chars();
    let first = characters.next();
    if characters.all(|next| Some(next) == first) { Err(KeyError::RepeatedSecret) } else { Ok(()) }
}

/// The keys of a set that can verify tokens.
pub(super) fn parse_set(json: &[u8]) -> Result<Vec<VerifyingKey>, KeyError> {
    let set: JwkSet = serde_json::from_slice(json).map_err(|e| KeyError::Jwks(e.to_string()))?;
    let keys: Vec<VerifyingKey> = set.keys.iter().filter_map(from_jwk).collect();
    if keys.is_empty() {
        return Err(KeyError::Jwks("none of its keys can be used".into()));
    }
    Ok(keys)
}

fn from_jwk(jwk: &Jwk) -> Option<VerifyingKey> {
    use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, PublicKeyUse};
    // A key for another use does not sign tokens (RFC 7517, section 4.2).
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    let possible: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[Algorithm::RS256],
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::OctetKeyPair(_) => &[Algorithm::EdDSA],
        AlgorithmParameters::OctetKey(_) => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
        _ => &[],
    };
    let stated = jwk.common.key_algorithm.map(|a| a.to_string());
    let algorithms: Vec<_> =
        possible.iter().copied().filter(|a| stated.as_ref().is_none_or(|s| *s == format!("{a:?}"))).collect();
    if algorithms.is_empty() {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(VerifyingKey { id: jwk.common.key_id.clone(), key, algorithms })
}
