//! The tenants whose records this server follows: those of its sessions, and those that are
//! queried.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use fanfare_proto::room::Tenant;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Presence, index::UserKey, record};
use crate::{
    engine::{Feed, Record, Space},
    error::Refusal,
};

/// How long a tenant is followed after its last query, if this server has no session of it.
const IDLE_AGE_MAX: Duration = Duration::from_secs(60);
/// The pause after a failed attempt to reopen a feed.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// All followed tenants.
#[derive(Debug, Default)]
pub(super) struct Followed(Mutex<HashMap<Tenant, Entry>>);

#[derive(Debug)]
struct Entry {
    /// Whether all records are known.
    is_complete: watch::Receiver<bool>,
    used_at: Instant,
    end: CancellationToken,
}

impl Followed {
    fn lock(&self) -> MutexGuard<'_, HashMap<Tenant, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Presence {
    /// Follows a tenant, unless it is already followed; resolves when all of its records are known.
    pub(super) async fn follow(self: &Arc<Self>, tenant: &Tenant) -> Result<(), Refusal> {
        let (mut is_complete, started) = {
            let mut followed = self.followed.lock();
            match followed.get_mut(tenant) {
                Some(entry) => {
                    entry.used_at = Instant::now();
                    if *entry.is_complete.borrow() {
                        return Ok(());
                    }
                    (entry.is_complete.clone(), None)
                }
                None => {
                    let (sender, receiver) = watch::channel(false);
                    let end = CancellationToken::new();
                    let entry =
                        Entry { is_complete: receiver.clone(), used_at: Instant::now(), end: end.clone() };
                    followed.insert(tenant.clone(), entry);
                    (receiver, Some((sender, end)))
                }
            }
        };
        if let Some((sender, end)) = started {
            let first = match self.engine.records(&Space::Users(tenant.clone())).await {
                Ok(first) => first,
                Err(refusal) => {
                    self.followed.lock().remove(tenant);
                    return Err(refusal);
                }
            };
            let (presence, tenant) = (Arc::downgrade(self), tenant.clone());
            let (records, feed) = first;
            self.observe(&tenant, records);
            sender.send_replace(true);
            self.tasks.spawn(end.run_until_cancelled_owned(async move {
                let mut next = Some(feed);
                while let Some(feed) = next {
                    consume(&presence, &tenant, feed).await;
                    next = reopen(&presence, &tenant).await;
                }
            }));
            return Ok(());
        }
        // If the other caller failed, this one tries.
        if is_complete.wait_for(|is_complete| *is_complete).await.is_err() {
            return Err(Refusal::Storage("read"));
        }
        Ok(())
    }

    /// Takes over records of a tenant from the feed.
    pub(super) fn observe(&self, tenant: &Tenant, records: impl IntoIterator<Item = Record>) {
        for Record { key, value, revision } in records {
            let key = UserKey { tenant: tenant.clone(), user_id: key };
            let user = match value.map(|value| record::decode(&value)) {
                None => None,
                Some(Some(user)) => Some(Arc::new(user)),
                Some(None) => {
                    tracing::warn!(tenant = tenant.as_str(), "the record of a user is not what was written");
                    continue;
                }
            };
            self.accept(&key, user, revision, true);
        }
    }

    /// Takes over all records of a tenant after its feed was lost. Records that were known `before`
    /// and are now missing were removed; records with an older revision lost changes. The store is
    /// read again for the latter, and for missing users with a session of this server.
    async fn replace_all(
        &self,
        tenant: &Tenant,
        before: Vec<(Arc<str>, u64)>,
        records: Vec<Record>,
    ) -> Result<(), Refusal> {
        let found: HashMap<Arc<str>, u64> =
            records.iter().map(|record| (record.key.clone(), record.revision)).collect();
        for (user_id, known) in before {
            let key = UserKey { tenant: tenant.clone(), user_id };
            match found.get(&key.user_id) {
                Some(revision) if *revision >= known => {}
                None if !self.index().has_own(&key) => self.accept(&key, None, known + 1, true),
                _ => self.check(&key, known).await?,
            }
        }
        self.observe(tenant, records);
        if self.has_lost.swap(false, Ordering::AcqRel) {
            tracing::warn!(
                tenant = tenant.as_str(),
                "the store has lost changes of sessions: bridges report theirs again"
            );
            self.link_again();
        }
        Ok(())
    }

    /// Stops following tenants that this server no longer needs.
    pub(super) async fn release_idle(&self) {
        let is_idle = |(_, entry): &(&Tenant, &Entry)| entry.used_at.elapsed() > IDLE_AGE_MAX;
        let idle: Vec<Tenant> =
            self.followed.lock().iter().filter(is_idle).map(|(tenant, _)| tenant.clone()).collect();
        for tenant in idle {
            if self.index().is_occupied(&tenant) {
                continue;
            }
            self.vacate(&tenant).await;
            if let Some(entry) = self.followed.lock().remove(&tenant) {
                entry.end.cancel();
            }
            self.index().forget(&tenant);
        }
    }
}

/// Takes over the changes in a feed until the feed or the server ends.
async fn consume(presence: &Weak<Presence>, tenant: &Tenant, mut feed: Feed<Record>) {
    while let Some(records) = feed.next().await
        && let Some(presence) = presence.upgrade()
    {
        presence.observe(tenant, records);
    }
}

/// Follows again after a feed has ended; `None` if the server has ended.
async fn reopen(presence: &Weak<Presence>, tenant: &Tenant) -> Option<Feed<Record>> {
    loop {
        let presence = presence.upgrade()?;
        let before = presence.index().revisions(tenant);
        let replaced = async {
            let (records, feed) = presence.engine.records(&Space::Users(tenant.clone())).await?;
            presence.replace_all(tenant, before, records).await?;
            Ok::<_, Refusal>(feed)
        };
        match replaced.await {
            Ok(feed) => return Some(feed),
            Err(error) => {
                tracing::warn!(tenant = tenant.as_str(), %error, "sessions cannot be followed; it is tried again");
            }
        }
        drop(presence);
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
