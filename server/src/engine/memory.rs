//! The engine in memory: fast and bounded. Its data is lost when the process ends; the epoch then
//! changes.

mod log;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicIsize, AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use fanfare_proto::{
    cursor::{Cursor, Epoch},
    room::{Room, Tenant},
    v1::EngineState,
};
use futures_util::future::{BoxFuture, FutureExt as _};

use self::log::Log;
use super::{
    Appended, Engine, Feed, Followed, OWN_TENANT, Page, ReadLimits, Record, Records, Replaced, Replacement,
    ServerId, Signals, Space, StateLimits, StatePage, Usage, Watched,
};
use crate::{
    config::{Limits, Retention},
    error::Refusal,
    event::Draft,
    interest::Interest,
    share::{self, growth},
};

/// A server's handle on the store.
#[derive(Debug, Clone)]
pub(crate) struct MemoryEngine {
    server: ServerId,
    store: Arc<Store>,
}

/// All logs and records. The locks are held only briefly and never across an await.
#[derive(Debug)]
struct Store {
    logs: RwLock<HashMap<Tenant, Arc<Mutex<Log>>>>,
    retention: Retention,
    limits: Limits,
    epoch: Epoch,
    /// The seq at which new logs begin: after every freed log, so that no place is assigned twice.
    floor: AtomicU64,
    /// Bytes in all logs.
    bytes: AtomicIsize,
    /// Held while one appender shrinks the logs.
    shrinking: Mutex<()>,
    records: Records,
    signals: Signals,
}

fn locked(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryEngine {
    pub(crate) fn new(retention: Retention, limits: Limits) -> Self {
        let (logs, floor, bytes, shrinking, records, signals) = Default::default();
        let epoch = Epoch::random();
        let store = Store { logs, retention, limits, epoch, floor, bytes, shrinking, records, signals };
        Self { server: ServerId::random(), store: Arc::new(store) }
    }

    /// A handle for another server on the same store.
    #[cfg(test)]
    pub(crate) fn another(&self) -> Self {
        Self { server: ServerId::random(), store: self.store.clone() }
    }
}

impl Store {
    fn log(&self, tenant: &Tenant) -> Result<Arc<Mutex<Log>>, Refusal> {
        if let Some(log) = self.logs.read().unwrap_or_else(PoisonError::into_inner).get(tenant) {
            return Ok(log.clone());
        }
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        let own = usize::from(logs.contains_key(OWN_TENANT));
        let is_full = logs.len() - own >= self.limits.tenants_max && tenant.as_str() != OWN_TENANT;
        if is_full && !logs.contains_key(tenant) {
            return Err(Refusal::TooManyTenants(self.limits.tenants_max));
        }
        let floor = self.floor.load(Ordering::Acquire);
        let new = || Arc::new(Mutex::new(Log::new(self.epoch, floor)));
        Ok(logs.entry(tenant.clone()).or_insert_with(new).clone())
    }

    fn append(&self, tenant: &Tenant, batch: Vec<Draft>) -> Result<Vec<Appended>, Refusal> {
        let log = self.log(tenant)?;
        let (answers, growth) = {
            let mut log = locked(&log);
            let before = log.bytes();
            let answers = log.append(batch, &self.retention, &self.limits)?;
            (answers, growth(before, log.bytes()))
        };
        self.grow(growth);
        Ok(answers)
    }

    fn all(&self) -> Vec<(Tenant, Arc<Mutex<Log>>)> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.iter().map(|(tenant, log)| (tenant.clone(), log.clone())).collect()
    }

    /// Accounts for the growth of a log. If the total size is too large, all logs shrink.
    fn grow(&self, growth: isize) {
        let bytes = self.bytes.fetch_add(growth, Ordering::Relaxed).saturating_add(growth);
        let max = self.retention.total_bytes_max;
        if usize::try_from(bytes).is_ok_and(|bytes| bytes > max)
            && let Ok(_one) = self.shrinking.try_lock()
        {
            let logs = self.all();
            let mut sizes: Vec<usize> = logs.iter().map(|(_, log)| locked(log).bytes()).collect();
            let Some(level) = share::level(&mut sizes, max) else { return };
            let retention = Retention { bytes_max: level.min(self.retention.bytes_max), ..self.retention };
            for (_, log) in logs {
                self.trim(&log, &retention);
            }
        }
    }

    fn trim(&self, log: &Mutex<Log>, retention: &Retention) {
        let mut log = locked(log);
        let before = log.bytes();
        log.trim(Instant::now(), retention);
        self.bytes.fetch_add(growth(before, log.bytes()), Ordering::Relaxed);
    }

    fn sweep(&self) {
        self.records.sweep();
        for (tenant, log) in self.all() {
            self.trim(&log, &self.retention);
            let now = Instant::now();
            let is_idle = {
                let mut log = locked(&log);
                log.forget_keys(now, &self.limits);
                log.end_entries();
                log.is_idle(now, self.limits.idle_age_max)
            };
            drop(log);
            if is_idle {
                self.free(&tenant, now);
            }
        }
    }

    /// Frees a tenant's log if it is still idle.
    fn free(&self, tenant: &Tenant, now: Instant) {
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = logs.get(tenant).filter(|log| Arc::strong_count(log) == 1) else { return };
        let (is_idle, head) = {
            let mut log = locked(log);
            (log.is_idle(now, self.limits.idle_age_max), log.head())
        };
        if is_idle {
            self.floor.fetch_max(head, Ordering::AcqRel);
            logs.remove(tenant);
        }
    }
}

/// A future that is ready: this engine never waits.
fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    std::future::ready(value).boxed()
}

impl Engine for MemoryEngine {
    fn server(&self) -> &ServerId {
        &self.server
    }

    fn append<'a>(
        &'a self,
        tenant: &'a Tenant,
        batch: Vec<Draft>,
    ) -> BoxFuture<'a, Result<Vec<Appended>, Refusal>> {
        ready(self.store.append(tenant, batch))
    }

    fn read<'a>(
        &'a self,
        tenant: &'a Tenant,
        interest: &'a Interest,
        after: Cursor,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Page, Refusal>> {
        ready(self.store.log(tenant).and_then(|log| locked(&log).read(interest, after, limits)))
    }

    fn head<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Cursor, Refusal>> {
        ready(self.store.log(tenant).map(|log| locked(&log).cursor()))
    }

    fn cursor_at<'a>(&'a self, tenant: &'a Tenant, seq: u64) -> BoxFuture<'a, Result<Cursor, Refusal>> {
        ready(self.store.log(tenant).map(|log| locked(&log).cursor_at(seq)))
    }

    fn state_entries<'a>(
        &'a self,
        tenant: &'a Tenant,
        room: &'a Room,
        after: Option<&'a str>,
        limits: StateLimits,
    ) -> BoxFuture<'a, Result<StatePage, Refusal>> {
        ready(self.store.log(tenant).map(|log| locked(&log).state_entries(room, after, limits)))
    }

    fn follow<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Followed, Refusal>> {
        ready(self.store.log(tenant).map(|log| locked(&log).follow()))
    }

    fn tenants(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Tenant>, Refusal>> {
        let logs = self.store.logs.read().unwrap_or_else(PoisonError::into_inner);
        ready(Ok(logs.keys().take(limit).cloned().collect()))
    }

    fn record<'a>(
        &'a self,
        space: &'a Space,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Record>, Refusal>> {
        ready(Ok(self.store.records.get(space, key)))
    }

    fn replace<'a>(
        &'a self,
        space: &'a Space,
        key: &'a str,
        replacement: Replacement,
    ) -> BoxFuture<'a, Result<Replaced, Refusal>> {
        ready(Ok(self.store.records.replace(space, key, &replacement)))
    }

    fn records<'a>(&'a self, space: &'a Space) -> BoxFuture<'a, Result<Watched, Refusal>> {
        ready(Ok(self.store.records.follow(space)))
    }

    fn signal<'a>(&'a self, to: Option<&'a ServerId>, bytes: Bytes) -> BoxFuture<'a, Result<(), Refusal>> {
        self.store.signals.send(&self.server, to, &bytes);
        ready(Ok(()))
    }

    fn signals(&self) -> BoxFuture<'_, Result<Feed<Bytes>, Refusal>> {
        ready(Ok(self.store.signals.listen(&self.server)))
    }

    fn usage(&self) -> Usage {
        let bytes = self.store.bytes.load(Ordering::Relaxed);
        Usage { log_bytes: usize::try_from(bytes).ok(), waiting: None }
    }

    fn state(&self) -> BoxFuture<'_, EngineState> {
        let bytes = self.store.bytes.load(Ordering::Relaxed);
        ready(EngineState {
            kind: "memory".to_owned(),
            bytes_used: u64::try_from(bytes).unwrap_or_default(),
            bytes_max: self.store.retention.total_bytes_max as u64,
            ..EngineState::default()
        })
    }

    fn sweep(&self) -> BoxFuture<'_, ()> {
        self.store.sweep();
        ready(())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(())
    }
}
