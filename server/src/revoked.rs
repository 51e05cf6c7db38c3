//! Revoked tokens: stored in the engine, followed by every server, and sent to bridges.
//!
//! A revocation is a record without a TTL, so that it is as durable as the log. Servers remove it
//! when it expires.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
    time::Duration,
};

use bytes::Bytes;
use fanfare_proto::{
    revocation::{Revocations, TokenStamp},
    token::{Identity, TokenError},
    v1::{Revocation, revocation::Tokens},
};
use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Engine, Record, Replaced, Replacement, Space},
    error::Refusal,
    ingest,
};

/// Maximum number of stored revocations.
const REVOCATIONS_MAX: usize = 100_000;
/// The pause before a failed read of the revocations is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Attempts to make a change that conflicts with concurrent changes.
const TRIES_MAX: usize = 8;

/// All revocations of the group.
#[derive(Debug)]
pub(crate) struct Revoked {
    engine: Arc<dyn Engine>,
    known: RwLock<Known>,
    /// The number of the newest revocation; 0 until the revocations have been read once.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    set: Revocations,
    by_key: HashMap<Arc<str>, (u64, Arc<Revocation>)>,
    /// In order of arrival, for bridges.
    by_number: BTreeMap<u64, Arc<Revocation>>,
    last: u64,
}

impl Known {
    /// Called before all revocations are read again, because those that were removed meanwhile are
    /// not among the records. The tokens that they cover stay revoked until the revocations expire.
    fn forget_all(&mut self) {
        self.by_key.clear();
        self.by_number.clear();
    }

    fn add(&mut self, record: &Record) {
        let revocation = record.value.as_ref().and_then(|bytes| Revocation::decode(bytes.clone()).ok());
        if let Some((number, _)) = self.by_key.remove(&record.key) {
            self.by_number.remove(&number);
        }
        let Some(revocation) = revocation.map(Arc::new) else { return };
        self.last += 1;
        self.set.add(&revocation);
        self.by_number.insert(self.last, revocation.clone());
        self.by_key.insert(record.key.clone(), (self.last, revocation));
    }
}

/// The key of a revocation's record: one per tenant and revoked token, user, or whole tenant.
fn key(revocation: &Revocation) -> String {
    let (kind, id) = match &revocation.tokens {
        Some(Tokens::TokenId(id)) => ("token", id.as_str()),
        Some(Tokens::UserId(id)) => ("user", id.as_str()),
        Some(Tokens::Everybody(_)) | None => ("everybody", ""),
    };
    format!("{kind}/{}/{id}", revocation.tenant)
}

impl Revoked {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, known: RwLock::default(), changed: watch::Sender::new(0) }
    }

    /// Refuses an identity whose token was revoked.
    pub(crate) fn check(&self, identity: &Identity) -> Result<(), TokenError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.last <= 1 {
            return Ok(());
        }
        let stamp = TokenStamp::of(identity);
        let is_revoked = known.set.covers(&identity.tenant, identity.user_id.as_deref(), &stamp);
        if is_revoked { Err(TokenError::Revoked) } else { Ok(()) }
    }

    /// Changes when revocations are added.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// At most `limit` revocations after the one with this number, and the number of the last one
    /// returned.
    pub(crate) fn after(&self, number: u64, limit: usize) -> (Vec<Revocation>, u64) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let newer = known.by_number.range(number + 1..).take(limit);
        let mut last = number;
        let revocations = newer.map(|(number, revocation)| {
            last = *number;
            Revocation::clone(revocation)
        });
        (revocations.collect(), last)
    }

    /// Stores a revocation, merged with an earlier one under the same key.
    pub(crate) async fn revoke(&self, mut revocation: Revocation) -> Result<Revocation, Refusal> {
        let key = key(&revocation);
        for _ in 0..TRIES_MAX {
            let held = self.engine.record(&Space::Revocations, &key).await?;
            if held.is_none() && self.count() >= REVOCATIONS_MAX {
                return Err(Refusal::TooManyRevocations(REVOCATIONS_MAX));
            }
            let known = held.as_ref().and_then(|record| Revocation::decode(record.value.clone()?).ok());
            if let Some(known) = known {
                // The later times apply, so that neither of the two revocations is withdrawn.
                let later = |a: Option<_>, b: Option<_>| {
                    let time = |t: &prost_types::Timestamp| (t.seconds, t.nanos);
                    a.into_iter().chain(b).max_by_key(time)
                };
                revocation.issued_before = later(revocation.issued_before, known.issued_before);
                revocation.expires_at = later(revocation.expires_at, known.expires_at);
            }
            let value = Some(Bytes::from(revocation.encode_to_vec()));
            let expected = held.map_or(0, |record| record.revision);
            let replacement = Replacement { value, expected, ttl: None };
            match self.engine.replace(&Space::Revocations, &key, replacement).await? {
                Replaced::Revision(_) => return Ok(revocation),
                Replaced::Conflict => {}
            }
        }
        Err(Refusal::Storage("written"))
    }

    fn count(&self) -> usize {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_key.len()
    }

    /// Resolves when the revocations have been read once.
    pub(crate) async fn loaded(&self) {
        // This value holds the sender, so the wait cannot fail.
        let mut changes = self.changed.subscribe();
        let _open = changes.wait_for(|number| *number > 0).await;
    }

    /// Follows the group's revocations until the server closes. If the store does not answer, known
    /// revocations remain valid.
    pub(crate) async fn run(&self, closing: &CancellationToken) {
        let follow = async {
            loop {
                match self.engine.records(&Space::Revocations).await {
                    Ok((records, mut feed)) => {
                        self.lock().forget_all();
                        self.take(&records);
                        while let Some(changes) = feed.next().await {
                            self.take(&changes);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "revocations cannot be read; it is tried again");
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
            }
        };
        closing.run_until_cancelled(follow).await;
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn take<'a>(&self, records: impl IntoIterator<Item = &'a Record>) {
        let last = {
            let mut known = self.lock();
            // Numbers start above 0, because 0 means "not read yet".
            known.last = known.last.max(1);
            records.into_iter().for_each(|record| known.add(record));
            known.last
        };
        self.changed.send_replace(last);
    }

    /// Removes expired revocations.
    pub(crate) async fn sweep(&self) {
        let now = ingest::now().seconds;
        let expired: Vec<Arc<str>> = {
            let mut known = self.lock();
            known.set.forget(now);
            let is_over = |of: &Revocation| of.expires_at.is_none_or(|time| time.seconds <= now);
            let over = known.by_key.iter().filter(|(_, (_, revocation))| is_over(revocation));
            over.map(|(key, _)| key.clone()).collect()
        };
        for key in expired {
            let Ok(Some(held)) = self.engine.record(&Space::Revocations, &key).await else { continue };
            let later = held.value.as_ref().and_then(|bytes| Revocation::decode(bytes.clone()).ok());
            if later.and_then(|of| of.expires_at).is_some_and(|time| time.seconds > now) {
                continue;
            }
            let removal = Replacement { value: None, expected: held.revision, ttl: None };
            // On failure, another server may have removed it; otherwise the next sweep retries.
            let _later = self.engine.replace(&Space::Revocations, &key, removal).await;
        }
    }
}
