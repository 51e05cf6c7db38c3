//! The engine in memory: fast, bounded, gone with the process (then the epoch changes).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use fanfare_proto::{
    cursor::{Cursor, Epoch},
    room::Tenant,
};
use futures_util::future::{BoxFuture, FutureExt as _};

use super::{Appended, Engine, Page};
use crate::{
    config::{Limits, Retention},
    error::Refusal,
    event::{Draft, Event, ephemeral_id},
    hub::{Hub, Interest},
};

/// All logs. The locks are short and never held across an await; a tenant's lock is held while the hub takes
/// an event over, which makes the hub's order the log's.
#[derive(Debug)]
pub(crate) struct MemoryEngine {
    tenants: RwLock<HashMap<Tenant, Arc<Mutex<Log>>>>,
    retention: Retention,
    limits: Limits,
    hub: Arc<Hub>,
}

#[derive(Debug)]
struct Log {
    epoch: Epoch,
    /// The seq of the newest event.
    head: u64,
    /// The seqs `head - entries.len() + 1 ..= head`.
    entries: VecDeque<(Instant, Arc<Event>)>,
    bytes: usize,
    keys: HashMap<String, Appended>,
    /// Keys by age; each is in `keys`.
    key_ages: VecDeque<(Instant, String)>,
}

impl MemoryEngine {
    pub(crate) fn new(retention: Retention, limits: Limits, hub: Arc<Hub>) -> Self {
        Self { tenants: RwLock::default(), retention, limits, hub }
    }

    fn log(&self, tenant: &Tenant) -> Result<Arc<Mutex<Log>>, Refusal> {
        if let Some(log) = self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(tenant) {
            return Ok(log.clone());
        }
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= self.limits.tenants_max && !tenants.contains_key(tenant) {
            return Err(Refusal::TooManyTenants(self.limits.tenants_max));
        }
        Ok(tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(Mutex::new(Log::new()))).clone())
    }

    fn append_now(&self, draft: Draft) -> Result<Appended, Refusal> {
        let log = self.log(&draft.tenant)?;
        let now = Instant::now();
        let (answer, wakeups) = {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.forget_keys(now, self.limits.idempotency_age_max, self.limits.idempotency_keys_max);
            if let Some(first) = log.keys.get(&draft.idempotency_key) {
                return Ok(Appended { duplicate: true, ..first.clone() });
            }
            let event = log.admit(draft);
            let draft = &event.draft;
            let answer =
                Appended { id: event.id.clone(), seq: event.seq, time: draft.time, duplicate: false };
            if !draft.idempotency_key.is_empty() {
                log.keys.insert(draft.idempotency_key.clone(), answer.clone());
                log.key_ages.push_back((now, draft.idempotency_key.clone()));
            }
            if !event.is_ephemeral() {
                log.push(now, event.clone());
                log.trim(now, &self.retention);
            }
            (answer, self.hub.publish(event))
        };
        wakeups.wake();
        Ok(answer)
    }

    /// Lets go of what is too old, in all logs. Called now and then; appends do it for their own log.
    pub(crate) fn sweep(&self) {
        let logs: Vec<_> =
            self.tenants.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let now = Instant::now();
        for log in logs {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.trim(now, &self.retention);
            log.forget_keys(now, self.limits.idempotency_age_max, self.limits.idempotency_keys_max);
        }
    }
}

impl Log {
    fn new() -> Self {
        Self {
            epoch: Epoch::random(),
            head: 0,
            entries: VecDeque::new(),
            bytes: 0,
            keys: HashMap::new(),
            key_ages: VecDeque::new(),
        }
    }

    fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, seq: self.head }
    }

    fn admit(&mut self, draft: Draft) -> Arc<Event> {
        if draft.kind.ephemeral {
            return Arc::new(Event::new(ephemeral_id(), 0, draft));
        }
        self.head += 1;
        Arc::new(Event::new(self.cursor().to_string(), self.head, draft))
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

    fn read(&self, interest: &Interest, after: Cursor, limit: usize) -> Result<Page, Refusal> {
        let held = u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
        let base = self.head - held;
        if after.epoch != self.epoch || after.seq > self.head || after.seq < base {
            return Err(Refusal::Reset(self.cursor()));
        }
        if interest.is_empty() {
            return Ok(Page { events: Vec::new(), upto: after.seq });
        }
        let skip = usize::try_from(after.seq - base).unwrap_or(usize::MAX);
        let mut events = Vec::new();
        for (_, event) in self.entries.range(skip..) {
            if interest.wants_logged(event) {
                events.push(event.clone());
                if events.len() == limit {
                    return Ok(Page { upto: event.seq, events });
                }
            }
        }
        Ok(Page { events, upto: self.head })
    }
}

impl Engine for MemoryEngine {
    fn append(&self, draft: Draft) -> BoxFuture<'_, Result<Appended, Refusal>> {
        std::future::ready(self.append_now(draft)).boxed()
    }

    fn read<'a>(
        &'a self,
        tenant: &'a Tenant,
        interest: &'a Interest,
        after: Cursor,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Refusal>> {
        let page = self
            .log(tenant)
            .and_then(|log| log.lock().unwrap_or_else(PoisonError::into_inner).read(interest, after, limit));
        std::future::ready(page).boxed()
    }

    fn head<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Cursor, Refusal>> {
        let head = self.log(tenant).map(|log| log.lock().unwrap_or_else(PoisonError::into_inner).cursor());
        std::future::ready(head).boxed()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanfare_proto::{catalog::Catalogs, room::Room};
    use prost_types::Timestamp;

    use super::*;

    fn engine(retention: Retention, limits: Limits) -> MemoryEngine {
        MemoryEngine::new(retention, limits, Arc::new(Hub::new(limits)))
    }

    fn draft(tenant: &str, key: &str, payload: usize) -> Draft {
        Draft {
            tenant: Tenant::new(tenant).unwrap(),
            rooms: vec![Room::org()],
            time: Timestamp::default(),
            sender: String::new(),
            kind: Catalogs::builtin().unwrap().event("messenger.v1.NewMessage").unwrap().clone(),
            payload: Bytes::from(vec![0; payload]),
            except_sessions: Vec::new(),
            idempotency_key: key.to_owned(),
            id_field: None,
        }
    }

    /// The seqs that a tenant's log holds.
    fn held(engine: &MemoryEngine, tenant: &str) -> Vec<u64> {
        let log = engine.log(&Tenant::new(tenant).unwrap()).unwrap();
        let log = log.lock().unwrap();
        log.entries.iter().map(|(_, event)| event.seq).collect()
    }

    #[test]
    fn retention_holds_count_bytes_and_age_of_each_tenant_apart() {
        let by_count = engine(Retention { events_max: 2, ..Retention::default() }, Limits::default());
        let by_bytes = engine(Retention { bytes_max: 2500, ..Retention::default() }, Limits::default());
        let by_age = engine(Retention { age_max: Duration::ZERO, ..Retention::default() }, Limits::default());
        for engine in [&by_count, &by_bytes, &by_age] {
            for _ in 0..3 {
                engine.append_now(draft("1", "", 800)).unwrap();
            }
            engine.append_now(draft("2", "", 800)).unwrap();
        }
        assert_eq!((held(&by_count, "1"), held(&by_count, "2")), (vec![2, 3], vec![1]));
        assert_eq!((held(&by_bytes, "1"), held(&by_bytes, "2")), (vec![2, 3], vec![1]));
        by_age.sweep();
        assert_eq!((held(&by_age, "1"), held(&by_age, "2")), (vec![], vec![]));
        // What is gone leaves no hole: the next seq follows.
        assert_eq!(by_age.append_now(draft("1", "", 1)).unwrap().seq, 4);
    }

    #[test]
    fn a_key_gives_the_first_answer_until_it_is_forgotten() {
        let limits = Limits { idempotency_keys_max: 2, ..Limits::default() };
        let engine = engine(Retention::default(), limits);
        let first = engine.append_now(draft("1", "a", 1)).unwrap();
        let again = engine.append_now(draft("1", "a", 9)).unwrap();
        assert_eq!((again.seq, &again.id, again.duplicate), (1, &first.id, true));
        assert!(!engine.append_now(draft("2", "a", 1)).unwrap().duplicate, "keys are a tenant's own");
        for key in ["b", "c", "d"] {
            assert!(!engine.append_now(draft("1", key, 1)).unwrap().duplicate);
        }
        assert!(
            !engine.append_now(draft("1", "a", 1)).unwrap().duplicate,
            "the oldest key is forgotten first"
        );
    }

    #[test]
    fn tenants_are_bounded_and_known_ones_go_on() {
        let engine = engine(Retention::default(), Limits { tenants_max: 1, ..Limits::default() });
        engine.append_now(draft("1", "", 1)).unwrap();
        assert!(matches!(engine.append_now(draft("2", "", 1)), Err(Refusal::TooManyTenants(1))));
        assert_eq!(engine.append_now(draft("1", "", 1)).unwrap().seq, 2);
    }
}
