//! Keys, and the rules for tokens that they verify.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicU8, Ordering},
};

use jsonwebtoken::{Algorithm, Validation};

use super::{
    Issuer, KeyError, KeySource, TokenConfig,
    key::{VerifyingKey, load, parse_set},
};
use crate::room::Tenant;

/// The keys are up to date.
const NEW: u8 = 0;
/// Newer keys may be requested for a token with an unknown key.
const OLD: u8 = 1;
/// Newer keys were requested.
const ASKED: u8 = 2;

/// Keys that share the same rules.
pub(super) struct Trust {
    pub(super) validation: Validation,
    /// The tenant of all tokens, if the issuer has one.
    pub(super) tenant: Option<Tenant>,
    /// The URL from which the keys are fetched.
    pub(super) url: Option<String>,
    keys: RwLock<Arc<Vec<VerifyingKey>>>,
    /// The JSON that the keys were last read from.
    json: Mutex<Vec<u8>>,
    age: AtomicU8,
}

impl Trust {
    /// The keys of the general settings.
    pub(super) fn general(config: &TokenConfig, keys: Vec<VerifyingKey>, url: Option<&String>) -> Self {
        Self::new(validation(config, &config.issuers, &config.audiences), None, keys, url.cloned())
    }

    /// The keys of an issuer.
    pub(super) fn of_issuer(config: &TokenConfig, issuer: &Issuer) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        load(&issuer.keys, &mut keys)?;
        let url = match &issuer.keys {
            KeySource::Url(url) => Some(url.clone()),
            KeySource::Secret(_) | KeySource::Pem(_) | KeySource::Jwks(_) => None,
        };
        let audiences = issuer.audience.as_slice();
        let validation = validation(config, std::slice::from_ref(&issuer.name), audiences);
        Ok(Self::new(validation, issuer.tenant.clone(), keys, url))
    }

    fn new(
        validation: Validation,
        tenant: Option<Tenant>,
        keys: Vec<VerifyingKey>,
        url: Option<String>,
    ) -> Self {
        let age = AtomicU8::new(if url.is_some() { OLD } else { NEW });
        Self { validation, tenant, url, keys: RwLock::new(Arc::new(keys)), json: Mutex::default(), age }
    }

    pub(super) fn keys(&self) -> Arc<Vec<VerifyingKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the keys; false if they are unchanged.
    pub(super) fn set(&self, json: &[u8]) -> Result<bool, KeyError> {
        let symmetric = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        let mut keys = parse_set(json)?;
        keys.retain(|key| !key.algorithms.iter().any(|algorithm| symmetric.contains(algorithm)));
        if keys.is_empty() {
            return Err(KeyError::Jwks(
                "it has symmetric keys only, which are no secret where they are published".into(),
            ));
        }
        self.age.store(NEW, Ordering::Release);
        let mut last = self.json.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == json {
            return Ok(false);
        }
        *last = json.to_vec();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(true)
    }

    pub(super) fn expect_newer(&self) {
        let _asked = self.age.compare_exchange(NEW, OLD, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(super) fn wants_newer(&self) -> bool {
        self.age.load(Ordering::Acquire) == ASKED
    }

    /// Requests newer keys; false if these are up to date, or there are no others.
    pub(super) fn ask_for_newer(&self) -> bool {
        let asked = self.age.compare_exchange(OLD, ASKED, Ordering::AcqRel, Ordering::Acquire);
        asked.is_ok() || asked == Err(ASKED)
    }
}

fn validation(config: &TokenConfig, issuers: &[String], audiences: &[String]) -> Validation {
    let mut validation =
        Validation { leeway: config.leeway.as_secs(), validate_nbf: true, ..Validation::default() };
    validation.required_spec_claims.clear();
    if config.expiry_required {
        validation.required_spec_claims.insert("exp".into());
    }
    validation.validate_aud = !audiences.is_empty();
    if !audiences.is_empty() {
        validation.set_audience(audiences);
        validation.required_spec_claims.insert("aud".into());
    }
    if !issuers.is_empty() {
        validation.set_issuer(issuers);
        validation.required_spec_claims.insert("iss".into());
    }
    validation
}
