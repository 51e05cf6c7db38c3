//! Issuers with their own keys.

use std::str::FromStr;

use super::{KeyError, KeySource};
use crate::room::Tenant;

/// An issuer whose tokens are verified with its own keys, written
/// `ISSUER;jwks=PLACE;audience=TEXT;tenant=NAME`. Audience and tenant are optional.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// The `iss` of its tokens.
    pub name: String,
    /// Its keys.
    pub keys: KeySource,
    /// The `aud` that its tokens must have; `None`: not checked.
    pub audience: Option<String>,
    /// The tenant of its tokens, whether or not they name one; tokens that name another tenant are
    /// refused. `None`: the tenant is read from the token.
    pub tenant: Option<Tenant>,
}

/// Why a text is not an issuer.
#[derive(Debug, thiserror::Error)]
pub enum InvalidIssuer {
    /// It has the wrong form.
    #[error(
        "{0}: want e.g. https://login.example.com;jwks=https://login.example.com/jwks.json;audience=api;tenant=acme"
    )]
    Form(String),
    /// Its keys cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

impl FromStr for Issuer {
    type Err = InvalidIssuer;

    fn from_str(text: &str) -> Result<Self, InvalidIssuer> {
        let wrong = |why: String| InvalidIssuer::Form(why);
        let mut parts = text.split(';');
        let name = parts.next().filter(|name| !name.is_empty()).ok_or_else(|| wrong("no issuer".into()))?;
        let (mut keys, mut audience, mut tenant) = (None, None, None);
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| wrong(format!("{part:?} has no \"=\"")))?;
            match key {
                "jwks" => keys = Some(KeySource::jwks(value)?),
                "audience" => audience = Some(value.to_owned()),
                "tenant" => tenant = Some(Tenant::new(value).map_err(|e| wrong(e.to_string()))?),
                other => {
                    return Err(wrong(format!("{other:?} is none of jwks, audience and tenant")));
                }
            }
        }
        let keys = keys.ok_or_else(|| wrong("jwks is missing".into()))?;
        Ok(Self { name: name.to_owned(), keys, audience, tenant })
    }
}
