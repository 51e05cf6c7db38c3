//! The servers of the group. Each holds a lease. If a server loses its lease, another one takes
//! over its sessions: they are lost, and their clients may reconnect to any server.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fanfare_proto::room::Tenant;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Presence;
use crate::{
    engine::{Record, Replaced, Replacement, ServerId, Space},
    error::Refusal,
};

/// How long a lease is valid.
const LEASE_TTL: Duration = Duration::from_secs(15);
/// How often the lease is renewed and the group is checked.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(5);
/// The pause before a failed renewal is retried.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What this server knows about the group.
#[derive(Debug, Default)]
pub(super) struct Group {
    state: Mutex<State>,
    /// Held while storing that this server has sessions of a tenant, because many sessions begin at
    /// once.
    occupying: tokio::sync::Mutex<()>,
    /// Requests an immediate renewal of this server's lease.
    renew: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The servers with a lease; absent until known.
    alive: Option<HashSet<ServerId>>,
    /// The occupancy of all servers, by the key of the record.
    occupancies: BTreeMap<Arc<str>, Occupancy>,
    /// The stored occupancy of this server: its tenants, with the record's revision.
    own: HashMap<Tenant, u64>,
    /// Whether this server has a lease; the store may have lost it.
    is_held: bool,
}

/// The record that a server has sessions of a tenant.
#[derive(Debug, Clone)]
struct Occupancy {
    /// The server that takes over, if any.
    taken_by: Option<ServerId>,
    revision: u64,
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a server holds a lease, as far as this one knows.
    pub(super) fn is_alive(&self, server: &ServerId) -> bool {
        self.lock().alive.as_ref().is_some_and(|alive| alive.contains(server))
    }

    /// The servers that hold a lease, as far as this one knows.
    pub(super) fn servers(&self) -> Vec<ServerId> {
        self.lock().alive.iter().flatten().cloned().collect()
    }

    /// The tenants of which any server has sessions.
    pub(super) fn tenants(&self) -> HashSet<Tenant> {
        let state = self.lock();
        let noted = state.occupancies.keys().filter_map(|key| Some(parse(key)?.1));
        noted.chain(state.own.keys().cloned()).collect()
    }

    pub(super) fn is_occupied(&self, tenant: &Tenant) -> bool {
        self.lock().own.contains_key(tenant)
    }
}

fn key(server: &ServerId, tenant: &Tenant) -> String {
    format!("{}/{}", server.as_str(), tenant.as_str())
}

fn parse(key: &str) -> Option<(ServerId, Tenant)> {
    let (server, tenant) = key.split_once('/')?;
    Some((server.into(), Tenant::new(tenant).ok()?))
}

impl Presence {
    /// Stores that this server has sessions of a tenant, so that another server finds them.
    pub(super) async fn occupy(&self, tenant: &Tenant) -> Result<(), Refusal> {
        if self.group.is_occupied(tenant) {
            return Ok(());
        }
        let _one = self.group.occupying.lock().await;
        if self.group.is_occupied(tenant) {
            return Ok(());
        }
        let key = key(self.engine.server(), tenant);
        let replacement = Replacement { value: Some(Bytes::new()), expected: 0, ttl: None };
        let revision = match self.engine.replace(&Space::Occupancy, &key, replacement).await? {
            Replaced::Revision(revision) => revision,
            // The record already exists.
            Replaced::Conflict => {
                let record = self.engine.record(&Space::Occupancy, &key).await?;
                record.map_or(0, |record| record.revision)
            }
        };
        self.group.lock().own.insert(tenant.clone(), revision);
        Ok(())
    }

    /// Removes the record that this server has sessions of a tenant.
    pub(super) async fn vacate(&self, tenant: &Tenant) {
        let Some(expected) = self.group.lock().own.remove(tenant) else { return };
        let key = key(self.engine.server(), tenant);
        let replacement = Replacement { value: None, expected, ttl: None };
        // If the record remains, the server that takes it over finds no sessions.
        let _stays = self.engine.replace(&Space::Occupancy, &key, replacement).await;
    }

    /// Holds this server's lease until the server closes, then releases it.
    pub(super) async fn hold_lease(&self, closing: &CancellationToken) {
        let id = self.engine.server().clone();
        let mut revision = 0;
        loop {
            let renewal = Replacement { value: Some(Bytes::new()), expected: revision, ttl: Some(LEASE_TTL) };
            let pause = match self.engine.replace(&Space::Leases, id.as_str(), renewal).await {
                Ok(Replaced::Revision(renewed)) => {
                    revision = renewed;
                    self.group.lock().is_held = true;
                    RENEWAL_INTERVAL
                }
                Ok(Replaced::Conflict) => {
                    let held = self.engine.record(&Space::Leases, id.as_str()).await;
                    revision = held.ok().flatten().map_or(0, |record| record.revision);
                    if revision == 0 && std::mem::take(&mut self.group.lock().is_held) {
                        tracing::warn!("this server's lease has expired: its bridges link again");
                        self.link_again();
                    }
                    // Prevents a busy loop if the lease can be neither read nor created.
                    if revision == 0 { Duration::from_millis(10) } else { Duration::ZERO }
                }
                Err(error) => {
                    tracing::warn!(%error, "this server's lease cannot be renewed; it is tried again");
                    RETRY_PAUSE
                }
            };
            // A timeout means that the next renewal is due.
            let renew = tokio::time::timeout(pause, self.group.renew.notified());
            if closing.run_until_cancelled(renew).await.is_none() {
                break;
            }
        }
        let release = Replacement { value: None, expected: revision, ttl: None };
        let _expires = self.engine.replace(&Space::Leases, id.as_str(), release).await;
    }

    /// Makes all bridges link again and report their sessions, because the store may have lost
    /// them.
    pub(super) fn link_again(&self) {
        self.group.lock().own.clear();
        self.links.close_all();
    }

    /// Watches the other servers, and takes over the sessions of servers without a lease.
    pub(super) async fn watch_group(self: &Arc<Self>, closing: &CancellationToken) {
        let mut ticks = tokio::time::interval(RENEWAL_INTERVAL);
        while !closing.is_cancelled() {
            let feeds = async {
                let (leases, lease_feed) = self.engine.records(&Space::Leases).await?;
                let (occupancies, occupancy_feed) = self.engine.records(&Space::Occupancy).await?;
                Ok::<_, Refusal>((leases, lease_feed, occupancies, occupancy_feed))
            };
            let (leases, mut lease_feed, occupancies, mut occupancy_feed) = match feeds.await {
                Ok(feeds) => feeds,
                Err(error) => {
                    tracing::warn!(%error, "the group of servers cannot be read; it is tried again");
                    closing.run_until_cancelled(tokio::time::sleep(RETRY_PAUSE)).await;
                    continue;
                }
            };
            let mut trusted_at = Instant::now();
            if self.group.lock().replace_all(self.engine.server(), &leases, occupancies) {
                // By then, every other server has renewed its lease.
                trusted_at += RENEWAL_INTERVAL;
                self.group.renew.notify_one();
            }
            loop {
                if Instant::now() >= trusted_at {
                    self.take_over_orphans().await;
                }
                let changed = async {
                    tokio::select! {
                        changes = lease_feed.next() => {
                            let mut state = self.group.lock();
                            changes?.into_iter().for_each(|record| state.note_lease(&record));
                        }
                        changes = occupancy_feed.next() => {
                            let mut state = self.group.lock();
                            changes?.into_iter().for_each(|record| state.note_occupancy(record));
                        }
                        _ = ticks.tick() => {}
                    }
                    Some(())
                };
                match closing.run_until_cancelled(changed).await {
                    Some(Some(())) => {}
                    Some(None) => break,
                    None => return,
                }
            }
        }
    }

    async fn take_over_orphans(self: &Arc<Self>) {
        let orphans = self.group.lock().orphans(self.engine.server());
        for (key, occupancy) in orphans {
            if let Err(error) = self.take_over(&key, &occupancy).await {
                tracing::warn!(%error, "sessions of a server that is gone cannot be taken over; it is tried again");
            }
        }
    }

    /// Takes over the sessions of one tenant from a server without a lease, unless another server
    /// does so.
    async fn take_over(self: &Arc<Self>, key: &str, occupancy: &Occupancy) -> Result<(), Refusal> {
        let own = self.engine.server();
        let Some((gone, tenant)) = parse(key) else { return Ok(()) };
        let claim = Bytes::copy_from_slice(own.as_str().as_bytes());
        let claim = Replacement { value: Some(claim), expected: occupancy.revision, ttl: None };
        let Replaced::Revision(revision) = self.engine.replace(&Space::Occupancy, key, claim).await? else {
            return Ok(());
        };
        self.adopt(&tenant, &gone).await?;
        let done = Replacement { value: None, expected: revision, ttl: None };
        self.engine.replace(&Space::Occupancy, key, done).await?;
        self.group.lock().occupancies.remove(key);
        Ok(())
    }
}

impl State {
    /// Takes over the records of the store. Returns whether the store has lost leases of living
    /// servers, which is the case if this server's lease is missing.
    fn replace_all(&mut self, own: &ServerId, leases: &[Record], occupancies: Vec<Record>) -> bool {
        let alive: HashSet<ServerId> = leases.iter().map(|record| ServerId::from(&*record.key)).collect();
        let is_lost = self.is_held && !alive.contains(own);
        self.alive = Some(alive);
        self.occupancies.clear();
        occupancies.into_iter().for_each(|record| self.note_occupancy(record));
        is_lost
    }

    fn note_lease(&mut self, record: &Record) {
        let (server, alive) = (ServerId::from(&*record.key), self.alive.get_or_insert_default());
        if record.value.is_some() {
            alive.insert(server);
        } else {
            alive.remove(&server);
        }
    }

    fn note_occupancy(&mut self, record: Record) {
        match record.value {
            Some(value) => {
                let taken_by = std::str::from_utf8(&value).ok().filter(|text| !text.is_empty());
                let occupancy =
                    Occupancy { taken_by: taken_by.map(ServerId::from), revision: record.revision };
                self.occupancies.insert(record.key, occupancy);
            }
            None => _ = self.occupancies.remove(&record.key),
        }
    }

    /// The records of servers without a lease that no living server takes over.
    fn orphans(&self, own: &ServerId) -> Vec<(Arc<str>, Occupancy)> {
        let Some(alive) = &self.alive else { return Vec::new() };
        let is_gone = |server: &ServerId| server != own && !alive.contains(server);
        let orphans = self.occupancies.iter().filter(|(key, occupancy)| {
            let is_orphan = parse(key).is_some_and(|(server, _)| is_gone(&server));
            is_orphan && occupancy.taken_by.as_ref().is_none_or(is_gone)
        });
        orphans.map(|(key, occupancy)| (key.clone(), occupancy.clone())).collect()
    }
}
