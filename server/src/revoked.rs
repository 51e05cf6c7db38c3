//! Revoked tokens: kept in the engine, followed by every server, and told to bridges.
//!
//! A revocation is a record without an expiry of its own, so that it is as durable as the log; servers
//! remove it when its time has come.

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

/// Revocations that are kept at once.
const REVOCATIONS_MAX: usize = 100_000;
/// The pause before they are read again after that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Tries of a change that others make at the same time.
const TRIES_MAX: usize = 8;

/// All revocations of the group.
#[derive(Debug)]
pub(crate) struct Revoked {
    engine: Arc<dyn Engine>,
    known: RwLock<Known>,
    /// The number of the newest revocation; 0 until they were read once.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    set: Revocations,
    by_key: HashMap<Arc<str>, (u64, Arc<Revocation>)>,
    /// In the order in which they came, for bridges.
    by_number: BTreeMap<u64, Arc<Revocation>>,
    last: u64,
}

impl Known {
    /// Before all are read again: those that were removed meanwhile are not among them. What they cover
    /// stays covered until their time has come.
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

/// The record of a revocation: one per tenant and what it names.
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

    /// Changes whenever there are more revocations.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The revocations that came after the one with this number, and the number of the last.
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

    /// Keeps a revocation, together with what was revoked under the same name before.
    pub(crate) async fn revoke(&self, mut revocation: Revocation) -> Result<Revocation, Refusal> {
        let key = key(&revocation);
        for _ in 0..TRIES_MAX {
            let held = self.engine.record(&Space::Revocations, &key).await?;
            if held.is_none() && self.count() >= REVOCATIONS_MAX {
                return Err(Refusal::TooManyRevocations(REVOCATIONS_MAX));
            }
            let known = held.as_ref().and_then(|record| Revocation::decode(record.value.clone()?).ok());
            if let Some(known) = known {
                // The later time counts: neither of the two is taken back.
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

    /// Resolves when the revocations were read.
    pub(crate) async fn loaded(&self) {
        // The sender is held by this value.
        let mut changes = self.changed.subscribe();
        let _open = changes.wait_for(|number| *number > 0).await;
    }

    /// Follows the revocations of the group until the server closes. What is known stays when the store
    /// does not answer.
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
            // Numbers begin above 0, which stands for "not read yet".
            known.last = known.last.max(1);
            records.into_iter().for_each(|record| known.add(record));
            known.last
        };
        self.changed.send_replace(last);
    }

    /// Removes revocations whose time has come.
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
            // Another server may have removed it; else it is tried again.
            let _later = self.engine.replace(&Space::Revocations, &key, removal).await;
        }
    }
}
