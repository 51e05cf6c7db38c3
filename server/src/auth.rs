//! Who calls, and what they may do. Tokens in, decisions out; knows nothing of gRPC.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fanfare_proto::{
    room::{Room, Tenant, shown},
    token::{Identity, Scope, TenantScope, TokenConfig, TokenError, Verifier},
    v1::{Caller, Transport},
};

use crate::{
    engine::OWN_TENANT,
    error::{Error, Refusal},
};

/// Verified tokens that are remembered, so that a producer's token is verified once and not with every call.
const REMEMBERED_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct Auth {
    verifier: Verifier,
    leeway: Duration,
    remembered: Mutex<HashMap<Box<str>, Arc<Identity>>>,
}

impl Auth {
    pub(crate) fn new(config: &TokenConfig) -> Result<Self, Error> {
        Ok(Self { verifier: Verifier::new(config)?, leeway: config.leeway, remembered: Mutex::default() })
    }

    /// Verifies a token, or remembers that it was.
    pub(crate) fn identify(&self, token: &str) -> Result<Arc<Identity>, TokenError> {
        if let Some(identity) = self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(token) {
            return match self.remaining(identity) {
                Some(Duration::ZERO) => Err(TokenError::Expired),
                _ => Ok(identity.clone()),
            };
        }
        let identity = Arc::new(self.verifier.verify(token)?);
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(token.into(), identity.clone());
        Ok(identity)
    }

    /// How long the token is still good, leeway included; `None`: for ever.
    pub(crate) fn remaining(&self, identity: &Identity) -> Option<Duration> {
        // What no clock can show is for ever.
        let end =
            UNIX_EPOCH.checked_add(Duration::from_secs(identity.expires_at?).saturating_add(self.leeway))?;
        Some(end.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO))
    }
}

/// The tenant that a caller means: the one asked for if the token allows it, else the token's.
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

/// Refuses rooms that the caller may not read: services with the scope read all, users what is theirs.
pub(crate) fn may_read(identity: &Identity, rooms: &[Room]) -> Result<(), Refusal> {
    if identity.allows(Scope::Subscribe) {
        return Ok(());
    }
    if identity.user_id.is_none() || !identity.scopes.is_empty() {
        return Err(Refusal::Scope(Scope::Subscribe.as_str()));
    }
    match rooms.iter().find(|room| !identity.may_enter(room)) {
        Some(room) => Err(Refusal::RoomForbidden(room.as_str().to_owned())),
        None => Ok(()),
    }
}

/// The user that a token without scopes stands for.
pub(crate) fn user(identity: &Identity) -> Result<Caller, Refusal> {
    match &identity.tenant {
        TenantScope::One(tenant) if identity.user_id.is_some() && identity.scopes.is_empty() => {
            Ok(identity.caller(tenant, "", Transport::Grpc))
        }
        _ => Err(Refusal::NoUser),
    }
}

/// The name under which a caller publishes.
pub(crate) fn sender(identity: &Identity) -> String {
    identity.user_id.clone().unwrap_or_default()
}
