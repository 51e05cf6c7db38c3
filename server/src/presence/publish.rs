//! Publishes transitions: in order per user, and once, no matter which server does it.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_proto::room::Tenant;
use tokio_util::sync::CancellationToken;

use super::{Presence, index::UserKey};
use crate::{
    error::Refusal,
    event::Draft,
    ingest::{self, Ingest},
};

/// Number of users whose transitions are published together.
const USERS_MAX: usize = 256;
/// Number of events that are appended together.
const BATCH_MAX: usize = 256;

/// The users with unpublished transitions, in the order of the transitions.
#[derive(Debug, Default)]
pub(super) struct Unpublished(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<UserKey>,
    members: HashSet<UserKey>,
}

impl Unpublished {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().order.is_empty()
    }

    /// The number of users that wait.
    pub(super) fn len(&self) -> usize {
        self.lock().order.len()
    }

    fn push(&self, key: &UserKey) {
        let mut queue = self.lock();
        if queue.members.insert(key.clone()) {
            queue.order.push_back(key.clone());
        }
    }

    /// Removes and returns the first users.
    fn take(&self) -> Vec<UserKey> {
        let mut queue = self.lock();
        let count = queue.order.len().min(USERS_MAX);
        let keys: Vec<UserKey> = queue.order.drain(..count).collect();
        keys.iter().for_each(|key| _ = queue.members.remove(key));
        keys
    }

    /// Returns users to the front of the queue.
    fn put_back(&self, keys: Vec<UserKey>) {
        let mut queue = self.lock();
        for key in keys.into_iter().rev() {
            if queue.members.insert(key.clone()) {
                queue.order.push_front(key);
            }
        }
    }
}

/// A user's transitions, and the events that announce them.
struct Telling {
    key: UserKey,
    ids: Vec<u64>,
    drafts: Vec<Draft>,
}

impl Presence {
    /// Queues a user's transitions for publishing.
    pub(super) fn publish_later(&self, key: &UserKey) {
        self.unpublished.push(key);
        self.changed.notify_one();
    }

    /// Publishes queued transitions. False if the store refuses; `None` if the server has closed.
    pub(super) async fn publish(
        self: &Arc<Self>,
        ingest: &Ingest,
        closing: &CancellationToken,
    ) -> Option<bool> {
        let mut keys = self.unpublished.take();
        while let Some(first) = keys.first() {
            let tenant = first.tenant.clone();
            let (of_tenant, others) = keys.into_iter().partition::<Vec<_>, _>(|key| key.tenant == tenant);
            keys = others;
            match self.publish_of(ingest, &tenant, &of_tenant).await {
                Ok(()) => {}
                // Unpublished transitions stay in the records; the next server publishes them.
                Err(Refusal::Shutdown) => return None,
                Err(error) => {
                    tracing::debug!(%error, "presence events cannot be published; it is tried again");
                    self.unpublished.put_back([of_tenant, keys].concat());
                    return if closing.is_cancelled() { None } else { Some(false) };
                }
            }
        }
        Some(true)
    }

    async fn publish_of(
        self: &Arc<Self>,
        ingest: &Ingest,
        tenant: &Tenant,
        keys: &[UserKey],
    ) -> Result<(), Refusal> {
        let mut tellings: Vec<Telling> = keys.iter().filter_map(|key| self.telling(ingest, key)).collect();
        let drafts: Vec<Draft> = tellings.iter_mut().flat_map(|telling| telling.drafts.drain(..)).collect();
        let mut drafts = drafts.into_iter().peekable();
        while drafts.peek().is_some() {
            ingest.append(tenant, drafts.by_ref().take(BATCH_MAX).collect()).await?;
        }
        for Telling { key, ids, .. } in tellings {
            self.change(&key, |user, _| {
                user.published(&ids);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    fn telling(&self, ingest: &Ingest, key: &UserKey) -> Option<Telling> {
        let user = self.index().get(key)?.user;
        let mut drafts = Vec::new();
        for transition in &user.pending {
            for announcement in self.announcements.of(key, &user, transition) {
                let sender = format!("user:{}", key.user_id);
                let kind = announcement.kind.full_name.clone();
                let made = ingest.draft(
                    &key.tenant,
                    &announcement.kind,
                    announcement.payload,
                    sender,
                    ingest::now(),
                );
                match made {
                    Ok(draft) => {
                        drafts.push(Draft { idempotency_key: announcement.idempotency_key, ..draft })
                    }
                    Err(error) => tracing::warn!(%error, kind, "a presence event was not published"),
                }
            }
        }
        let ids = user.pending.iter().map(|transition| transition.id).collect();
        Some(Telling { key: key.clone(), ids, drafts })
    }
}
