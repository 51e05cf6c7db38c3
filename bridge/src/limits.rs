//! How much a session may ask for.

use fanfare_proto::{
    rate::{KeyedLimiter, Limiter, Rate},
    room::Tenant,
};

use crate::{config::Config, failure::Failure};

/// Refusals that are forgiven a second.
const FORGIVEN_PER_SECOND: u32 = 1;

/// What all sessions of a user may ask for together, on this bridge.
#[derive(Debug)]
pub(crate) struct UserLimits(KeyedLimiter<(Tenant, String)>);

/// What one session has asked for.
#[derive(Debug)]
pub(crate) struct SessionLimits {
    calls: Limiter,
    refusals: Limiter,
}

impl UserLimits {
    pub(crate) fn new(config: &Config) -> Self {
        Self(KeyedLimiter::new(config.calls_per_user))
    }

    /// Counts one call of a user.
    pub(crate) fn check(&self, tenant: &Tenant, user_id: &str) -> Result<(), Failure> {
        self.0.check(&(tenant.clone(), user_id.to_owned())).map_err(Failure::too_fast)
    }

    /// Lets go of users who have not called for a while.
    pub(crate) fn forget(&self) {
        self.0.forget();
    }
}

impl SessionLimits {
    pub(crate) fn new(config: &Config) -> Self {
        let refusals = Rate { per_second: FORGIVEN_PER_SECOND, burst: config.refusals_max };
        Self { calls: Limiter::new(config.calls_per_session), refusals: Limiter::new(refusals) }
    }

    /// Counts one call.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.calls.check().map_err(Failure::too_fast)
    }

    /// Counts one refusal; false when there were too many.
    pub(crate) fn bear(&self) -> bool {
        self.refusals.check().is_ok()
    }
}
