//! The engine in memory: fast, bounded, gone with the process (then the epoch changes).

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicIsize, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fanfare_proto::{
    cursor::{Cursor, Epoch},
    room::Tenant,
};
use futures_util::future::{BoxFuture, FutureExt as _};

use super::{Answer, OWN_TENANT, OldAppended, OldEngine, OldPage, OldRecord};
use crate::{
    config::{Limits, Retention},
    error::Refusal,
    event::{Draft, Event, ephemeral_id},
    hub::Hub,
    interest::Interest,
    share,
};

/// All logs. The locks are short and never held across an await; a tenant's lock is held while the hub takes
/// an event over, which makes the hub's order the log's.
#[derive(Debug)]
pub(crate) struct MemoryEngine {
    tenants: RwLock<HashMap<Tenant, Arc<Mutex<Log>>>>,
    retention: Retention,
    limits: Limits,
    hub: Arc<Hub>,
    epoch: Epoch,
    /// Where new logs begin: behind every log that was freed, so that no place is ever given twice.
    floor: AtomicU64,
    /// Bytes in all logs.
    bytes: AtomicIsize,
    /// Held while logs shrink, by one appender.
    shrinking: Mutex<()>,
}

#[derive(Debug)]
struct Log {
    epoch: Epoch,
    /// The seq of the newest event.
    head: u64,
    /// When it was last appended to, or made.
    used_at: Instant,
    /// The seqs `head - entries.len() + 1 ..= head`.
    entries: VecDeque<(Instant, Arc<Event>)>,
    bytes: usize,
    keys: HashMap<String, OldAppended>,
    /// Keys by age; each is in `keys`.
    key_ages: VecDeque<(Instant, String)>,
}

impl MemoryEngine {
    pub(crate) fn new(retention: Retention, limits: Limits, hub: Arc<Hub>) -> Self {
        let (tenants, floor, bytes, shrinking) = Default::default();
        Self { tenants, retention, limits, hub, epoch: Epoch::random(), floor, bytes, shrinking }
    }

    fn log(&self, tenant: &Tenant) -> Result<Arc<Mutex<Log>>, Refusal> {
        if let Some(log) = self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(tenant) {
            return Ok(log.clone());
        }
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        let own = usize::from(tenants.contains_key(OWN_TENANT));
        let is_full = tenants.len() - own >= self.limits.tenants_max && tenant.as_str() != OWN_TENANT;
        if is_full && !tenants.contains_key(tenant) {
            return Err(Refusal::TooManyTenants(self.limits.tenants_max));
        }
        let floor = self.floor.load(Ordering::Acquire);
        let new = || Arc::new(Mutex::new(Log::new(self.epoch, floor)));
        Ok(tenants.entry(tenant.clone()).or_insert_with(new).clone())
    }

    fn append_in_order(&self, draft: Draft) -> Result<OldAppended, Refusal> {
        let Some(sequence) = draft.sequence.clone() else { return self.append_now(draft) };
        if sequence.is_broken() {
            return Err(Refusal::Storage("written"));
        }
        self.append_now(draft).inspect_err(|_| sequence.refuse())
    }

    fn append_now(&self, draft: Draft) -> Result<OldAppended, Refusal> {
        let log = self.log(&draft.tenant)?;
        let now = Instant::now();
        let (answer, wakeups, growth) = {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.used_at = now;
            let before = log.bytes;
            log.forget_keys(now, self.limits.idempotency_age_max, self.limits.idempotency_keys_max);
            if let Some(first) = log.keys.get(&draft.idempotency_key) {
                return Ok(OldAppended { duplicate: true, ..first.clone() });
            }
            let head = log.head;
            let event = log.admit(draft);
            let draft = &event.draft;
            let answer = OldAppended::to(&event);
            if !draft.idempotency_key.is_empty() {
                log.keys.insert(draft.idempotency_key.clone(), answer.clone());
                log.key_ages.push_back((now, draft.idempotency_key.clone()));
            }
            if !event.is_ephemeral() {
                log.push(now, event.clone());
                log.trim(now, &self.retention);
            }
            (answer, self.hub.publish(event, head), difference(before, log.bytes))
        };
        wakeups.wake();
        self.grow(growth);
        Ok(answer)
    }

    fn logs(&self) -> Vec<(Tenant, Arc<Mutex<Log>>)> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.iter().map(|(tenant, log)| (tenant.clone(), log.clone())).collect()
    }

    /// Accounts for what a log grew; all shrink when they have become too large together.
    fn grow(&self, growth: isize) {
        let bytes = self.bytes.fetch_add(growth, Ordering::Relaxed).saturating_add(growth);
        let max = self.retention.total_bytes_max;
        if usize::try_from(bytes).is_ok_and(|bytes| bytes > max)
            && let Ok(_one) = self.shrinking.try_lock()
        {
            let logs = self.logs();
            let size = |log: &Mutex<Log>| log.lock().unwrap_or_else(PoisonError::into_inner).bytes;
            let mut sizes: Vec<usize> = logs.iter().map(|(_, log)| size(log)).collect();
            let Some(level) = share::level(&mut sizes, max) else { return };
            let retention = Retention { bytes_max: level.min(self.retention.bytes_max), ..self.retention };
            for (_, log) in logs {
                self.trim(&log, &retention);
            }
        }
    }

    fn trim(&self, log: &Mutex<Log>, retention: &Retention) {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let before = log.bytes;
        log.trim(Instant::now(), retention);
        self.bytes.fetch_add(difference(before, log.bytes), Ordering::Relaxed);
    }

    fn sweep_now(&self) {
        for (tenant, log) in self.logs() {
            self.trim(&log, &self.retention);
            let now = Instant::now();
            let is_idle = {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.forget_keys(now, self.limits.idempotency_age_max, self.limits.idempotency_keys_max);
                log.is_idle(now, self.limits.idle_age_max)
            };
            drop(log);
            if is_idle {
                self.free(&tenant, now);
            }
        }
    }

    /// Frees a tenant's log if it is still idle and nobody follows it.
    fn free(&self, tenant: &Tenant, now: Instant) {
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = tenants.get(tenant).filter(|log| Arc::strong_count(log) == 1) else { return };
        let (is_idle, head) = {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            (log.is_idle(now, self.limits.idle_age_max), log.head)
        };
        if is_idle && self.hub.release(tenant) {
            self.floor.fetch_max(head, Ordering::AcqRel);
            tenants.remove(tenant);
        }
    }
}

fn difference(before: usize, after: usize) -> isize {
    let number = |size| isize::try_from(size).unwrap_or(isize::MAX);
    number(after) - number(before)
}

impl Log {
    fn new(epoch: Epoch, head: u64) -> Self {
        Self {
            epoch,
            head,
            used_at: Instant::now(),
            entries: VecDeque::new(),
            bytes: 0,
            keys: HashMap::new(),
            key_ages: VecDeque::new(),
        }
    }

    fn cursor(&self) -> Cursor {
        Cursor::new(self.epoch, self.head)
    }

    fn is_idle(&self, now: Instant, age_max: Duration) -> bool {
        let is_empty = self.entries.is_empty() && self.keys.is_empty();
        is_empty && now.saturating_duration_since(self.used_at) >= age_max
    }

    fn admit(&mut self, draft: Draft) -> Arc<Event> {
        if draft.kind.ephemeral {
            return Arc::new(Event::ephemeral(draft));
        }
        self.head += 1;
        Arc::new(Event::stored(self.cursor(), draft))
    }

    fn push(&mut self, now: Instant, event: Arc<Event>) {
        self.bytes += event.cost_bytes();
        self.entries.push_back((now, event));
    }

    fn trim(&mut self, now: Instant, retention: &Retention) {
        while let Some((time, event)) = self.entries.front() {
            let old = now.saturating_duration_since(*time) > retention.age_max;
            if !old && self.entries.len() <= retention.events_max && self.bytes <= retention.bytes_max {
                break;
            }
            self.bytes -= event.cost_bytes();
            self.entries.pop_front();
        }
    }

    fn forget_keys(&mut self, now: Instant, age_max: Duration, keys_max: usize) {
        while let Some((time, key)) = self.key_ages.front() {
            if now.saturating_duration_since(*time) <= age_max && self.key_ages.len() <= keys_max {
                break;
            }
            self.keys.remove(key);
            self.key_ages.pop_front();
        }
    }

    fn read(&self, interest: &Interest, after: Cursor, limit: usize) -> Result<OldPage, Refusal> {
        let held = u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
        let base = self.head - held;
        if after.epoch != self.epoch || after.seq > self.head || after.seq < base {
            return Err(Refusal::Reset(self.cursor()));
        }
        if interest.is_empty() {
            return Ok(OldPage { events: Vec::new(), upto: after.seq });
        }
        let skip = usize::try_from(after.seq - base).unwrap_or(usize::MAX);
        let mut events = Vec::new();
        for (_, event) in self.entries.range(skip..) {
            if interest.wants_logged(event) {
                events.push(event.clone());
                if events.len() == limit {
                    return Ok(OldPage { upto: event.seq, events });
                }
            }
        }
        Ok(OldPage { events, upto: self.head })
    }
}

impl OldEngine for MemoryEngine {
    fn begin(&self, draft: Draft) -> BoxFuture<'_, Result<Answer, Refusal>> {
        let answer: Answer = std::future::ready(self.append_in_order(draft)).boxed();
        std::future::ready(Ok(answer)).boxed()
    }

    fn read<'a>(
        &'a self,
        tenant: &'a Tenant,
        interest: &'a Interest,
        after: Cursor,
        limit: usize,
    ) -> BoxFuture<'a, Result<OldPage, Refusal>> {
        let page = self
            .log(tenant)
            .and_then(|log| log.lock().unwrap_or_else(PoisonError::into_inner).read(interest, after, limit));
        std::future::ready(page).boxed()
    }

    fn head<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Cursor, Refusal>> {
        let head = self.log(tenant).map(|log| log.lock().unwrap_or_else(PoisonError::into_inner).cursor());
        std::future::ready(head).boxed()
    }

    fn tenants(&self) -> Vec<Tenant> {
        self.tenants.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn keep(&self, _: Arc<[OldRecord]>) -> BoxFuture<'_, Result<(), Refusal>> {
        // They would not outlive the process, which has them.
        std::future::ready(Ok(())).boxed()
    }

    fn kept(&self) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }

    fn sweep(&self) {
        self.sweep_now();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}
