//! Signs tokens that match the token settings. For development only, where the key is public.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::token::{ClaimNames, KeyError, TokenConfig, sign};

/// Signs tokens with a secret, using the configured claim names, issuer and audience.
#[derive(Clone)]
pub struct Signer {
    secret: String,
    names: ClaimNames,
    issuer: Option<String>,
    audience: Option<String>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

/// The bearer of a token. Empty fields are omitted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bearer<'a> {
    /// The tenant; `*` means all.
    pub tenant: &'a str,
    /// The user's or service's id.
    pub user_id: &'a str,
    /// The user's name.
    pub user_name: &'a str,
    /// What a service may do.
    pub scopes: &'a [&'a str],
}

impl Signer {
    /// Signs tokens that a verifier with this configuration accepts if the secret is one of its
    /// keys.
    pub fn new(secret: &str, config: &TokenConfig) -> Self {
        Self {
            secret: secret.to_owned(),
            names: config.claims.clone(),
            issuer: config.issuers.first().cloned(),
            audience: config.audiences.first().cloned(),
        }
    }

    /// A token that is valid for `age`; also returns its expiry in Unix seconds.
    pub fn sign(&self, bearer: Bearer<'_>, age: Duration) -> Result<(String, u64), KeyError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let end = now.saturating_add(age).as_secs();
        let name =
            |names: &[String], default: &str| names.first().cloned().unwrap_or_else(|| default.to_owned());
        // A service's token usually carries the service's name as its subject.
        let user = if bearer.scopes.is_empty() { name(&self.names.user, "sub") } else { self.service() };
        let mut claims =
            BTreeMap::from([("iat".to_owned(), json!(now.as_secs())), ("exp".to_owned(), json!(end))]);
        let mut put = |name: String, value: Value, is_empty: bool| {
            if !is_empty {
                claims.insert(name, value);
            }
        };
        put(name(&self.names.tenant, "tenant"), bearer.tenant.into(), bearer.tenant.is_empty());
        put(user, bearer.user_id.into(), bearer.user_id.is_empty());
        put(name(&self.names.name, "name"), bearer.user_name.into(), bearer.user_name.is_empty());
        put(name(&self.names.scopes, "scopes"), json!(bearer.scopes), bearer.scopes.is_empty());
        put("iss".into(), json!(self.issuer), self.issuer.is_none());
        put("aud".into(), json!(self.audience), self.audience.is_none());
        Ok((sign(&self.secret, &claims)?, end))
    }

    fn service(&self) -> String {
        let names = &self.names.user;
        names.iter().find(|name| *name == "sub").or(names.first()).cloned().unwrap_or_else(|| "sub".into())
    }
}
