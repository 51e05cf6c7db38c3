//! How records are changed: read, apply, compare-and-set, and repeat if another server was first.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::{
    CONCURRENCY, Presence,
    backlog::{Change, Waiting},
    clock::millis,
    index::{Known, UserKey},
    record,
    user::{Context, User},
};
use crate::{
    engine::{Record, Replaced, Replacement, Space},
    error::Refusal,
    ingest::Ingest,
};

/// How often a change is attempted when other servers keep changing the record first.
const TRIES_MAX: u32 = 50;
/// The longest pause between two attempts.
const CONFLICT_PAUSE_MAX: Duration = Duration::from_millis(50);
/// The pause before a refused write is retried.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Maximum number of users that are processed together when grace periods and recovery windows end.
const DUE_MAX: usize = 1024;
/// The longest pause between two checks for due work.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Serializes this server's changes of each user. Users share locks by hash.
#[derive(Debug)]
pub(super) struct Turns {
    turns: Box<[Mutex<()>]>,
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        Self { turns: (0..1024).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }
}

impl Turns {
    async fn of(&self, key: &UserKey) -> MutexGuard<'_, ()> {
        let hash = self.hasher.hash_one(key);
        let at = usize::try_from(hash % self.turns.len() as u64).unwrap_or_default();
        self.turns[at].lock().await
    }
}

impl Presence {
    /// Changes a user's record. `change` is called again if another server was first.
    pub(super) async fn change<R: Send>(
        self: &Arc<Self>,
        key: &UserKey,
        mut change: impl FnMut(&mut User, Context<'_>) -> Result<R, Refusal> + Send,
    ) -> Result<R, Refusal> {
        self.follow(&key.tenant).await?;
        self.occupy(&key.tenant).await?;
        let _turn = self.turns.of(key).await;
        let mut known = self.index().get(key);
        let newest = self.index().revision(key);
        for tries in 0..TRIES_MAX {
            let before = known.as_ref().map(|known| known.user.clone()).unwrap_or_default();
            let mut user = (*before).clone();
            let result = self.apply(&mut user, &mut change)?;
            if user == *before {
                return Ok(result);
            }
            let user = (!user.is_empty()).then(|| Arc::new(user));
            let replacement = Replacement {
                value: user.as_deref().map(record::encode),
                expected: known.map_or(0, |known| known.revision),
                ttl: None,
            };
            let space = Space::Users(key.tenant.clone());
            match self.engine.replace(&space, &key.user_id, replacement).await? {
                Replaced::Revision(revision) => {
                    // Revisions grow, unless the store has lost changes.
                    if revision <= newest {
                        self.rewind(key);
                    }
                    self.accept(key, user, revision, false);
                    // The tenant may have been vacated meanwhile.
                    self.occupy(&key.tenant).await?;
                    return Ok(result);
                }
                Replaced::Conflict => {
                    known = match self.engine.record(&space, &key.user_id).await? {
                        Some(Record { value: Some(value), revision, .. }) => {
                            let user = record::decode(&value).ok_or(Refusal::Storage("read"))?;
                            Some(Known { user: Arc::new(user), revision })
                        }
                        _ => None,
                    };
                    if tries > 0 {
                        let pause = CONFLICT_PAUSE_MAX.mul_f64(rand::random::<f64>());
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
        tracing::warn!(
            tenant = key.tenant.as_str(),
            "a user's record is changed by too many servers at once"
        );
        Err(Refusal::Storage("written"))
    }

    /// Removes a user from the index because the store has lost the record.
    fn rewind(&self, key: &UserKey) {
        self.has_lost.store(true, Ordering::Release);
        self.accept(key, None, u64::MAX, true);
    }

    /// If the store has lost the known revision of a user, takes over the stored one instead. Reads
    /// the store itself, because the beginning of its feed may be older.
    pub(super) async fn check(&self, key: &UserKey, known: u64) -> Result<(), Refusal> {
        let _turn = self.turns.of(key).await;
        let record = self.engine.record(&Space::Users(key.tenant.clone()), &key.user_id).await?;
        let revision = record.as_ref().map_or(0, |record| record.revision);
        if revision < known && self.index().revision(key) == known {
            self.rewind(key);
            self.observe(&key.tenant, record);
        }
        Ok(())
    }

    fn apply<R>(
        &self,
        user: &mut User,
        change: &mut impl FnMut(&mut User, Context<'_>) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let is_published = |room: &_, catalog: &_, came| self.announcements.is_published(room, catalog, came);
        change(
            user,
            Context {
                now: self.clock.now(),
                server: self.engine.server(),
                grace: millis(self.config.grace),
                window: millis(self.config.recovery_window),
                lost_max: self.config.recoverable_per_user_max,
                sessions_max: self.config.sessions_per_user_max,
                nonce: rand::random(),
                is_published: &is_published,
            },
        )
    }

    /// Takes over a record that this server or another one has stored.
    pub(super) fn accept(&self, key: &UserKey, user: Option<Arc<User>>, revision: u64, is_feed: bool) {
        let (orders, excess, is_newest) = {
            let mut index = self.index();
            let orders = index.put(key, user.clone(), revision, is_feed);
            let is_newest = index.get(key).map_or(user.is_none(), |known| known.revision == revision);
            let (per_tenant, all) = (self.config.recoverable_per_tenant_max, self.config.recoverable_max);
            (orders, index.excess(&key.tenant, per_tenant, all), is_newest)
        };
        for (link, order) in orders {
            if let Some(link) = self.links.get(link) {
                link.order(order);
            }
        }
        if let Some((key, pid)) = excess {
            self.backlog.push(key, Arc::new(move |user, _| user.release(&pid)));
            self.changed.notify_one();
        }
        if !is_newest {
            return;
        }
        let expiry = user.as_ref().and_then(|user| self.next_expiry(user));
        self.timers.lock().unwrap_or_else(PoisonError::into_inner).set(key, expiry);
        if expiry.is_some() {
            self.changed.notify_one();
        }
        if !is_feed && user.is_some_and(|user| !user.pending.is_empty()) {
            self.publish_later(key);
        }
    }

    /// When a user's record must be checked next.
    fn next_expiry(&self, user: &User) -> Option<u64> {
        let (grace, window) = (millis(self.config.grace), millis(self.config.recovery_window));
        user.next_expiry(self.engine.server(), grace, window)
    }

    /// Makes a mandatory change: if the store refuses it, it is retried later.
    pub(super) async fn insist(self: &Arc<Self>, key: UserKey, change: Change) {
        if !self.backlog.has(&key) && self.try_change(&key, &change).await.is_ok() {
            return;
        }
        self.backlog.push(key, change);
        self.changed.notify_one();
    }

    async fn try_change(self: &Arc<Self>, key: &UserKey, change: &Change) -> Result<(), Refusal> {
        let change = |user: &mut User, cx: Context<'_>| {
            change(user, cx);
            Ok(())
        };
        self.change(key, change).await
    }

    /// The number of the newest change reported by bridges, for [`Self::stored`].
    pub(crate) fn reported(&self) -> u64 {
        self.backlog.newest()
    }

    /// Resolves when every reported change up to this number is stored.
    pub(crate) async fn stored(&self, number: u64) {
        self.backlog.reached(number).await;
    }

    /// Processes due work until the server closes: makes waiting changes, ends grace periods and
    /// recovery windows, and publishes transitions in order per user.
    pub(crate) async fn run(self: &Arc<Self>, ingest: &Ingest, closing: &CancellationToken) {
        let work = async {
            loop {
                let is_stored = self.work_off().await;
                let is_published = self.publish(ingest, closing).await;
                let Some(is_published) = is_published else { return };
                self.note_failure(!(is_stored && is_published));
                if !(is_stored && is_published) {
                    if closing.run_until_cancelled(tokio::time::sleep(RETRY_PAUSE)).await.is_none() {
                        return;
                    }
                    continue;
                }
                if !self.backlog.is_empty() || !self.unpublished.is_empty() {
                    continue;
                }
                if closing.is_cancelled() {
                    return;
                }
                let earliest = self.timers.lock().unwrap_or_else(PoisonError::into_inner).earliest();
                let pause = earliest.map_or(PAUSE_MAX, |at| self.clock.until(at).min(PAUSE_MAX));
                // A timeout means that an expiry is due.
                let changed = tokio::time::timeout(pause, self.changed.notified());
                let _closing = closing.run_until_cancelled(changed).await;
            }
        };
        let sweep = async {
            let mut ticks = tokio::time::interval(PAUSE_MAX / 12);
            while closing.run_until_cancelled(ticks.tick()).await.is_some() {
                self.release_idle().await;
            }
        };
        tokio::join!(work, self.hold_lease(closing), self.watch_group(closing), sweep);
    }

    fn note_failure(&self, is_failing: bool) {
        if self.is_failing.swap(is_failing, Ordering::AcqRel) != is_failing {
            if is_failing {
                tracing::warn!("changes of sessions cannot be stored; they are tried again");
            } else {
                tracing::warn!("changes of sessions can be stored again");
            }
        }
    }

    /// Makes the changes that wait and those that are due; false if the store refuses.
    pub(super) async fn work_off(self: &Arc<Self>) -> bool {
        let waiting = stream::iter(self.backlog.by_user()).map(|changes| async move {
            for (number, Waiting { key, change }) in changes {
                if self.try_change(&key, &change).await.is_err() {
                    return false;
                }
                self.backlog.finish(number);
            }
            true
        });
        let mut is_stored = true;
        let mut waiting = waiting.buffer_unordered(CONCURRENCY);
        while let Some(made) = waiting.next().await {
            is_stored &= made;
        }
        let due = self.timers.lock().unwrap_or_else(PoisonError::into_inner).due(self.clock.now(), DUE_MAX);
        let expired = stream::iter(due).map(|key| async move {
            let expired = self.change(&key, |user, cx| {
                user.expire(cx);
                Ok(())
            });
            let is_stored = expired.await.is_ok();
            // If nothing had expired yet, the next time is still unset.
            let known = self.index().get(&key);
            let next = known.and_then(|known| self.next_expiry(&known.user));
            self.timers.lock().unwrap_or_else(PoisonError::into_inner).set(&key, next);
            is_stored
        });
        let mut expired = expired.buffer_unordered(CONCURRENCY);
        while let Some(made) = expired.next().await {
            is_stored &= made;
        }
        is_stored
    }
}
