//! Follows every tenant, for taps that do not name one.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use fanfare_proto::room::Tenant;
use futures_util::{StreamExt as _, stream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Channel, Hub};
use crate::{engine::OWN_TENANT, error::Refusal};

/// Maximum number of tenants that are followed at the same time. Further ones are left out.
pub(crate) const TENANTS_MAX: usize = 1000;
/// The interval between two searches for new tenants.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many tenants are opened concurrently.
const AT_ONCE: usize = 16;

/// The followed tenants. Dropping this value stops following them.
#[derive(Debug)]
pub(super) struct AllTenants {
    held: Mutex<Held>,
    _end: DropGuard,
}

#[derive(Debug, Default)]
struct Held {
    channels: Vec<Arc<Channel>>,
    tenants: HashSet<Tenant>,
    /// The last search covered every tenant with a log, so any other tenant is new.
    is_complete: bool,
}

impl AllTenants {
    /// Follows all existing tenants, and new ones as they appear.
    pub(super) async fn open(hub: &Arc<Hub>) -> Result<Arc<Self>, Refusal> {
        let end = CancellationToken::new();
        let all = Arc::new(Self { held: Mutex::default(), _end: end.clone().drop_guard() });
        all.look(hub).await?;
        let (weak, weak_hub) = (Arc::downgrade(&all), Arc::downgrade(hub));
        hub.followers.spawn(end.run_until_cancelled_owned(run(weak, weak_hub)));
        Ok(all)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a tenant from now on. Called before its first event is appended here.
    pub(super) async fn follow(&self, hub: &Arc<Hub>, tenant: &Tenant) {
        if !self.wants(tenant) {
            return;
        }
        if let Ok(channel) = hub.channel(tenant).await {
            self.hold(channel);
        }
    }

    fn wants(&self, tenant: &Tenant) -> bool {
        let held = self.lock();
        held.tenants.len() < TENANTS_MAX && !held.tenants.contains(tenant) && tenant.as_str() != OWN_TENANT
    }

    fn hold(&self, channel: Arc<Channel>) {
        let mut held = self.lock();
        if held.tenants.len() < TENANTS_MAX && held.tenants.insert(channel.tenant().clone()) {
            held.channels.push(channel);
        }
    }

    /// Follows the tenants that are not followed yet: from now on, or from the beginning of the log
    /// if they are new since the last search.
    async fn look(&self, hub: &Arc<Hub>) -> Result<(), Refusal> {
        let tenants = hub.engine().tenants(TENANTS_MAX).await?;
        let mut is_complete = tenants.len() < TENANTS_MAX;
        let are_new = self.lock().is_complete;
        let begin = async |tenant: Tenant| {
            let start = if are_new { Some(hub.engine().cursor_at(&tenant, 0).await?) } else { None };
            self.hold(hub.channel_from(&tenant, start).await?);
            Ok::<_, Refusal>(())
        };
        let missing: Vec<Tenant> = tenants.into_iter().filter(|tenant| self.wants(tenant)).collect();
        let mut begun = stream::iter(missing).map(begin).buffer_unordered(AT_ONCE);
        while let Some(outcome) = begun.next().await {
            if let Err(error) = outcome {
                tracing::debug!(%error, "a tenant cannot be followed; it is tried again");
                // Otherwise the next search would take it for a new tenant.
                is_complete = false;
            }
        }
        drop(begun);
        self.lock().is_complete = is_complete;
        Ok(())
    }
}

async fn run(all: Weak<AllTenants>, hub: Weak<Hub>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let (Some(all), Some(hub)) = (all.upgrade(), hub.upgrade()) else { return };
        if let Err(error) = all.look(&hub).await {
            tracing::debug!(%error, "new tenants cannot be looked for; it is tried again");
        }
    }
}
