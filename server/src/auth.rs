//! Authentication and authorization: verifies tokens and decides what callers may do. Knows nothing
//! of gRPC.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fanfare_proto::{
    room::{Tenant, shown},
    token::{Identity, Scope, TenantScope, TokenConfig, TokenError, Verifier, bare},
    v1::{Caller, Transport},
};

use crate::{
    engine::OWN_TENANT,
    error::{Error, Refusal},
};

/// Bytes of remembered tokens. Verified tokens are remembered, so that a producer's token is not
/// verified again for every call.
const REMEMBERED_BYTES_MAX: usize = 16 << 20;
/// Bytes per remembered token, in addition to its claims.
const REMEMBERED_ENTRY_BYTES: usize = 512;

#[derive(Debug)]
pub(crate) struct Auth {
    verifier: Arc<Verifier>,
    leeway: Duration,
    /// Randomly keyed, so that a caller cannot construct two tokens with the same hash.
    hashes: (RandomState, RandomState),
    remembered: Mutex<Remembered>,
}

/// Verified tokens by hash, each with its size in bytes.
#[derive(Debug, Default)]
struct Remembered {
    by_hash: HashMap<(u64, u64), (Arc<Identity>, usize)>,
    bytes: usize,
    /// The generation of the verifier's keys that verified these tokens.
    generation: u64,
}

impl Auth {
    pub(crate) fn new(config: &TokenConfig) -> Result<Self, Error> {
        let (hashes, remembered) = Default::default();
        Ok(Self { verifier: Arc::new(Verifier::new(config)?), leeway: config.leeway, hashes, remembered })
    }

    /// The token verifier, for the task that fetches its keys.
    pub(crate) const fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// Verifies a token, or returns the identity of a remembered one.
    pub(crate) fn identify(&self, token: &str) -> Result<Arc<Identity>, TokenError> {
        let token = bare(token);
        let key = (self.hashes.0.hash_one(token), self.hashes.1.hash_one(token));
        let generation = self.verifier.generation();
        let known = {
            let mut remembered = self.lock();
            if remembered.generation != generation {
                *remembered = Remembered { generation, ..Remembered::default() };
            }
            remembered.by_hash.get(&key).map(|(identity, _)| identity.clone())
        };
        if let Some(identity) = known {
            return match self.remaining(&identity) {
                Some(Duration::ZERO) => Err(TokenError::Expired),
                _ => Ok(identity),
            };
        }
        let identity = Arc::new(self.verifier.verify(token)?);
        // Parsed claims take a few times the size of their text.
        let bytes = token.len() * 4 + REMEMBERED_ENTRY_BYTES;
        let mut remembered = self.lock();
        if remembered.generation != generation {
            return Ok(identity);
        }
        if remembered.bytes + bytes > REMEMBERED_BYTES_MAX {
            remembered.by_hash.retain(|_, (identity, _)| self.remaining(identity) != Some(Duration::ZERO));
            remembered.bytes = remembered.by_hash.values().map(|(_, bytes)| bytes).sum();
        }
        if remembered.bytes + bytes > REMEMBERED_BYTES_MAX {
            *remembered = Remembered { generation, ..Remembered::default() };
        }
        if remembered.by_hash.insert(key, (identity.clone(), bytes)).is_none() {
            remembered.bytes += bytes;
        }
        Ok(identity)
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the token is still valid, including leeway; `None` means without limit.
    pub(crate) fn remaining(&self, identity: &Identity) -> Option<Duration> {
        // An expiry that the clock cannot represent means without limit.
        let end =
            UNIX_EPOCH.checked_add(Duration::from_secs(identity.expires_at?).saturating_add(self.leeway))?;
        Some(end.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO))
    }
}

/// The tenant of a request: the requested one if the token allows it. Without a request, the
/// token's own.
pub(crate) fn tenant(identity: &Identity, asked: &str) -> Result<Tenant, Refusal> {
    let tenant = meant(identity, asked)?;
    if tenant.as_str() == OWN_TENANT {
        return Err(Refusal::Invalid(format!("the tenant {OWN_TENANT:?} is the server's own: name another")));
    }
    Ok(tenant)
}

fn meant(identity: &Identity, asked: &str) -> Result<Tenant, Refusal> {
    match &identity.tenant {
        TenantScope::Any if asked.is_empty() => Err(Refusal::TenantMissing),
        TenantScope::Any => Ok(Tenant::new(asked)?),
        TenantScope::One(own) if asked.is_empty() || asked == own.as_str() => Ok(own.clone()),
        TenantScope::One(own) => {
            Err(Refusal::OtherTenant { own: own.as_str().to_owned(), asked: shown(asked) })
        }
    }
}

/// Refuses callers without the scope.
pub(crate) fn require(identity: &Identity, scope: Scope) -> Result<(), Refusal> {
    if identity.allows(scope) { Ok(()) } else { Err(Refusal::Scope(scope.as_str())) }
}

/// The user of a token without scopes.
pub(crate) fn user(identity: &Identity) -> Result<Caller, Refusal> {
    match &identity.tenant {
        TenantScope::One(tenant) if identity.user_id.is_some() && identity.scopes.is_empty() => {
            Ok(identity.caller(tenant, "", Transport::Grpc))
        }
        _ => Err(Refusal::NoUser),
    }
}

/// The sender of the events that a caller publishes.
pub(crate) fn sender(identity: &Identity) -> String {
    identity.user_id.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fanfare_proto::token::{KeySource, sign};

    use super::*;

    const SECRET: &str = "a-secret-of-the-tests-0123456789abcdef";

    #[test]
    fn tokens_are_remembered_once_and_within_bounds() {
        let keys = vec![KeySource::Secret(SECRET.into())];
        let auth =
            Auth::new(&TokenConfig { keys, expiry_required: false, ..TokenConfig::default() }).unwrap();
        let token = |sub: usize, claim: usize| {
            let claims = [("sub", sub.to_string()), ("more", "x".repeat(claim))];
            let claims = claims.map(|(name, value)| (name.to_owned(), value.into()));
            sign(SECRET, &BTreeMap::from(claims)).unwrap()
        };
        let one = token(0, 1);
        for padding in 0..50 {
            auth.identify(&format!("Bearer {}{one}{}", " ".repeat(padding), " ".repeat(padding))).unwrap();
        }
        assert_eq!(auth.lock().by_hash.len(), 1);
        for sub in 1..1000 {
            auth.identify(&token(sub, 5000)).unwrap();
            assert!(auth.lock().bytes <= REMEMBERED_BYTES_MAX);
        }
    }
}
