//! The one writer of the logs. It takes all appends that wait, writes them in one transaction, and only when that is on the
//! disk hands the events to the hub and answers. Meanwhile the next ones gather. A setting lets it answer somewhat earlier, at the price of
//! a new epoch after a crash. When the disk refuses (it is full, say), the callers of the batch are told to try again, and the store is
//! opened anew: what is on the disk then is what has happened.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fanfare_proto::{cursor::Cursor, room::Tenant};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Place, Shared,
    store::{Change, Failed, Loaded, Store, StoredAnswer, StoredEvent, unpanicked},
};
use crate::{
    config::{Limits, Retention},
    engine::{Appended, Record},
    error::Refusal,
    event::{Draft, Event, ephemeral_id},
};

/// Commands in one transaction.
const BATCH_MAX: usize = 1024;
/// Payload bytes in one transaction.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// The pause between two tries to open a store that has failed.
const REOPEN_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 200 });

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Append(Draft, oneshot::Sender<Result<Appended, Refusal>>),
    Keep(Arc<[Record]>, oneshot::Sender<Result<(), Refusal>>),
    Sweep,
    Close(oneshot::Sender<()>),
}

/// A tenant's log, as far as the writer must know it.
#[derive(Debug, Default)]
struct Log {
    number: u32,
    head: u64,
    /// The time and cost of each event, oldest first.
    retained: VecDeque<(u64, u64)>,
    bytes: u64,
    keys: HashMap<String, Appended>,
    key_ages: VecDeque<(u64, String)>,
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    logs: HashMap<Tenant, Log>,
    next_number: u32,
    tried_at: Instant,
    lag: Lag,
    /// What was answered was lost: nothing may be built on what is left before clients have been told, by a new epoch.
    is_over: bool,
}

/// How far what was answered may be ahead of the disk.
#[derive(Debug)]
pub(super) struct Lag {
    /// Absent: not at all.
    allowed: Option<(Duration, Handle)>,
    /// Since when something was answered that is not on the disk.
    since: Option<Instant>,
}

impl Lag {
    /// Needs a runtime when `max` is not zero.
    pub(super) fn new(max: Duration) -> Self {
        Self { allowed: (!max.is_zero()).then(|| (max, Handle::current())), since: None }
    }

    pub(super) const fn is_allowed(&self) -> bool {
        self.allowed.is_some()
    }

    /// How long the disk can wait; nothing when it has everything.
    fn rest(&self) -> Option<Duration> {
        let (max, _) = self.allowed.as_ref()?;
        Some(max.saturating_sub(self.since?.elapsed()))
    }

    /// Whether the next change may be late.
    fn allows(&self) -> bool {
        self.is_allowed() && self.rest().is_none_or(|rest| !rest.is_zero())
    }
}

/// What is to be done once a batch is on the disk.
enum Outcome {
    Publish(Arc<Event>, Appended, oneshot::Sender<Result<Appended, Refusal>>),
    Answer(Result<Appended, Refusal>, oneshot::Sender<Result<Appended, Refusal>>),
    Kept(oneshot::Sender<Result<(), Refusal>>),
}

fn millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, lag: Lag, loaded: Vec<Loaded>) -> Self {
        let tried_at = Instant::now();
        let mut writer = Self { shared, logs: HashMap::new(), next_number: 0, tried_at, lag, is_over: false };
        // Nobody was there yet who could have missed something.
        writer.take_over(loaded, |log| log.head);
        writer
    }

    /// Works until it is told to close.
    pub(super) fn run(mut self, mut waiting: mpsc::Receiver<Command>) {
        while let Some(first) = self.next(&mut waiting) {
            let (mut batch, mut bytes) = (vec![first], 0);
            while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
                let Ok(next) = waiting.try_recv() else { break };
                if let Command::Append(draft, _) = &next {
                    bytes += draft.payload.len();
                }
                batch.push(next);
            }
            if let Some(done) = self.process(batch) {
                self.conclude();
                // The store is closed before anybody learns of it.
                self.shared.store.write().unwrap_or_else(PoisonError::into_inner).take();
                let _gone = done.send(());
                return;
            }
        }
    }

    /// The next command; meanwhile, what is late comes to the disk in time.
    fn next(&mut self, waiting: &mut mpsc::Receiver<Command>) -> Option<Command> {
        while let (Some(rest), Some((_, runtime))) = (self.lag.rest(), &self.lag.allowed) {
            if let Ok(command) = runtime.block_on(async { timeout(rest, waiting.recv()).await }) {
                return command;
            }
            if !self.write(&[], &[], &[], &[], &[]) {
                self.fail();
            }
        }
        waiting.blocking_recv()
    }

    /// Nothing more will be written.
    fn conclude(&self) {
        let Some(store) = self.shared.store().filter(|_| self.lag.is_allowed()) else { return };
        match unpanicked(|| store.conclude()) {
            Some(Ok(())) => {}
            _ => tracing::error!(
                "the log was not concluded: clients read current state anew after the next start"
            ),
        }
    }

    /// The store cannot be written.
    fn fail(&mut self) {
        self.shared.store.write().unwrap_or_else(PoisonError::into_inner).take();
        if self.lag.since.take().is_some() {
            tracing::error!(
                "what was answered is not on the disk and cannot be written; the log stays closed until the server starts again"
            );
            self.is_over = true;
        }
    }

    /// What is in the store is what is true. `published` says how far the hub has a tenant's log.
    fn take_over(&mut self, loaded: Vec<Loaded>, published: impl Fn(&Loaded) -> u64) {
        self.logs.clear();
        self.next_number = 0;
        let mut places = HashMap::new();
        for log in loaded {
            let base = log.head - log.retained.len() as u64;
            let place = Place::new(log.number, base, log.head, published(&log));
            places.insert(log.tenant.clone(), Arc::new(place));
            self.next_number = self.next_number.max(log.number + 1);
            let own = Log {
                number: log.number,
                head: log.head,
                bytes: log.retained.iter().map(|(_, cost)| cost).sum(),
                retained: log.retained.into(),
                key_ages: log.keys.iter().map(|(at, key, _)| (*at, key.clone())).collect(),
                keys: log.keys.into_iter().map(|(_, key, answer)| (key, answer)).collect(),
            };
            self.logs.insert(log.tenant, own);
        }
        *self.shared.places.write().unwrap_or_else(PoisonError::into_inner) = places;
    }

    /// Runs a batch; gives whom to tell when it ends with a close.
    fn process(&mut self, batch: Vec<Command>) -> Option<oneshot::Sender<()>> {
        let mut closing = None;
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut touched = HashSet::new();
        let mut sweep = false;
        let mut records = Vec::new();
        let mut stored = Vec::new();
        let mut keys: Vec<(u32, String, Option<StoredAnswer>)> = Vec::new();
        let now = millis();
        for command in batch {
            match command {
                Command::Append(draft, answer) => {
                    let tenant = draft.tenant.clone();
                    let sequence = draft.sequence.clone();
                    let outcome = self.admit(draft, answer, now, &mut stored, &mut keys);
                    outcomes.push((outcome, sequence));
                    touched.insert(tenant);
                }
                Command::Keep(kept, answer) => {
                    if !kept.is_empty() {
                        records.push(kept);
                    }
                    outcomes.push((Outcome::Kept(answer), None));
                }
                Command::Sweep => sweep = true,
                Command::Close(answer) => closing = Some(answer),
            }
        }
        if sweep {
            touched.extend(self.logs.keys().cloned());
        }
        let touched: Vec<Tenant> = touched.into_iter().filter(|t| self.logs.contains_key(t)).collect();
        let mut trims = Vec::new();
        for tenant in &touched {
            let Some(log) = self.logs.get_mut(tenant) else { continue };
            keys.extend(
                log.forget_keys(now, &self.shared.limits).into_iter().map(|key| (log.number, key, None)),
            );
            if let Some(upto) = log.trim(now, &self.shared.retention) {
                trims.push((log.number, upto));
            }
        }
        let nothing = stored.is_empty() && keys.is_empty() && trims.is_empty() && records.is_empty();
        let heads: Vec<(&Tenant, u32, u64)> =
            touched.iter().filter_map(|t| self.logs.get(t).map(|log| (t, log.number, log.head))).collect();
        // Keys of a batch that was refused are known here until the store is open again: while it is closed they answer nothing.
        let answers = outcomes.iter().any(|(outcome, _)| matches!(outcome, Outcome::Answer(Ok(_), _)));
        let written = if nothing {
            !answers || self.shared.store().is_some()
        } else {
            self.write(&heads, &stored, &trims, &keys, &records)
        };
        if written {
            self.settle(&touched);
        } else {
            self.fail();
        }
        for (outcome, sequence) in outcomes {
            if let Some(sequence) = sequence.filter(|_| !written) {
                sequence.break_off();
            }
            self.finish(outcome, written);
        }
        if !written && !self.is_over {
            self.reopen();
        }
        closing
    }

    /// Decides what becomes of an append.
    fn admit(
        &mut self,
        draft: Draft,
        answer: oneshot::Sender<Result<Appended, Refusal>>,
        now: u64,
        stored: &mut Vec<(u32, u64, StoredEvent)>,
        keys: &mut Vec<(u32, String, Option<StoredAnswer>)>,
    ) -> Outcome {
        if draft.sequence.as_ref().is_some_and(|sequence| sequence.is_broken()) {
            return Outcome::Answer(Err(Refusal::Storage("written")), answer);
        }
        let (max, known) = (self.shared.limits.tenants_max, self.logs.contains_key(&draft.tenant));
        if !known && self.logs.len() >= max {
            draft.sequence.iter().for_each(|sequence| sequence.refuse());
            return Outcome::Answer(Err(Refusal::TooManyTenants(max)), answer);
        }
        let next_number = &mut self.next_number;
        let log = self.logs.entry(draft.tenant.clone()).or_insert_with(|| {
            *next_number += 1;
            Log { number: *next_number - 1, ..Log::default() }
        });
        if let Some(first) = log.keys.get(&draft.idempotency_key) {
            return Outcome::Answer(Ok(Appended { duplicate: true, ..first.clone() }), answer);
        }
        let event = if draft.kind.ephemeral {
            Event::new(ephemeral_id(), 0, draft)
        } else {
            log.head += 1;
            let id = Cursor { epoch: self.shared.epoch, seq: log.head }.to_string();
            Event::new(id, log.head, draft)
        };
        let appended =
            Appended { id: event.id.clone(), seq: event.seq, time: event.draft.time, duplicate: false };
        if !event.is_ephemeral() {
            let record = StoredEvent::of(&event, now);
            log.bytes += record.cost;
            log.retained.push_back((now, record.cost));
            stored.push((log.number, event.seq, record));
        }
        let key = &event.draft.idempotency_key;
        if !key.is_empty() {
            log.keys.insert(key.clone(), appended.clone());
            log.key_ages.push_back((now, key.clone()));
            keys.push((log.number, key.clone(), Some(StoredAnswer::of(&appended, now))));
        }
        Outcome::Publish(Arc::new(event), appended, answer)
    }

    fn write(
        &mut self,
        heads: &[(&Tenant, u32, u64)],
        stored: &[(u32, u64, StoredEvent)],
        trims: &[(u32, u64)],
        keys: &[(u32, String, Option<StoredAnswer>)],
        records: &[Arc<[Record]>],
    ) -> bool {
        let Some(store) = self.shared.store() else { return false };
        let late = self.lag.allows() && !(heads.is_empty() && records.is_empty());
        let written = || -> Result<(), Failed> {
            let change: Change = store.begin(late)?;
            for (tenant, number, head) in heads {
                change.head(tenant, *number, *head)?;
            }
            change.events(stored.iter().map(|(number, seq, event)| (*number, *seq, event)))?;
            for (number, upto) in trims {
                change.trim(*number, *upto)?;
            }
            for (number, key, answer) in keys {
                change.key(*number, key, answer.as_ref())?;
            }
            for (key, record) in records.iter().flat_map(|kept| kept.iter()) {
                change.session(key, record.as_deref())?;
            }
            change.commit()
        };
        match unpanicked(written) {
            Some(Ok(())) => {
                self.lag.since = late.then(|| self.lag.since.unwrap_or_else(Instant::now));
                true
            }
            Some(Err(error)) => {
                tracing::error!(%error, "the log cannot be written");
                false
            }
            None => {
                tracing::error!("the log cannot be written: the file is damaged");
                false
            }
        }
    }

    /// The commit is on the disk, or will be in time.
    fn settle(&self, touched: &[Tenant]) {
        for tenant in touched {
            let Some(log) = self.logs.get(tenant) else { continue };
            let base = log.head - log.retained.len() as u64;
            if let Some(place) = self.shared.place(tenant) {
                place.base.store(base, Ordering::Release);
                place.written.store(log.head, Ordering::Release);
                continue;
            }
            let place = Place::new(log.number, base, log.head, 0);
            let mut places = self.shared.places.write().unwrap_or_else(PoisonError::into_inner);
            places.insert(tenant.clone(), Arc::new(place));
        }
    }

    fn finish(&self, outcome: Outcome, written: bool) {
        // Whoever asked may be gone.
        match outcome {
            Outcome::Publish(event, appended, answer) if written => {
                let place = self.shared.place(&event.draft.tenant);
                let head = place.as_ref().map_or(0, |place| place.published.load(Ordering::Acquire));
                let is_ephemeral = event.is_ephemeral();
                self.shared.hub.publish(event, head).wake();
                if let Some(place) = place.filter(|_| !is_ephemeral) {
                    place.published.store(appended.seq, Ordering::Release);
                }
                let _gone = answer.send(Ok(appended));
            }
            Outcome::Answer(result, answer) if written || result.is_err() => _ = answer.send(result),
            Outcome::Publish(_, _, answer) | Outcome::Answer(_, answer) => {
                let _gone = answer.send(Err(Refusal::Storage("written")));
            }
            Outcome::Kept(answer) => {
                let _gone = answer.send(if written { Ok(()) } else { Err(Refusal::Storage("written")) });
            }
        }
    }

    /// Opens the store anew after a failure: what is on the disk is what has happened.
    fn reopen(&mut self) {
        std::thread::sleep(REOPEN_PAUSE.saturating_sub(self.tried_at.elapsed()));
        self.tried_at = Instant::now();
        let folder = self.shared.folder.clone();
        match Store::open(&folder, self.lag.is_allowed(), Some(self.shared.epoch)) {
            Ok((store, (loaded, _))) => {
                let shared = self.shared.clone();
                let published = |log: &Loaded| {
                    shared.place(&log.tenant).map_or(0, |place| place.published.load(Ordering::Acquire))
                };
                self.take_over(loaded, published);
                if self.catch_up(&store) {
                    tracing::warn!("the log is open again");
                    *self.shared.store.write().unwrap_or_else(PoisonError::into_inner) =
                        Some(Arc::new(store));
                }
            }
            Err(error) => tracing::error!(%error, "the log stays closed"),
        }
    }

    /// Hands to the hub what is in the store although the disk said that it failed: whoever sends it again will be told that
    /// it was there. False when it cannot be read.
    fn catch_up(&self, store: &Store) -> bool {
        self.logs.iter().all(|(tenant, log)| {
            let Some(place) = self.shared.place(tenant) else { return true };
            let after = place.published.load(Ordering::Acquire).max(place.base.load(Ordering::Acquire));
            if after >= log.head {
                return true;
            }
            let visited = unpanicked(|| {
                store.visit(log.number, after, |seq, stored| {
                    if let Some(event) = stored.and_then(|stored| self.shared.event(tenant, seq, stored)) {
                        self.shared.hub.publish(event, seq - 1).wake();
                    }
                    place.published.store(seq, Ordering::Release);
                    true
                })
            });
            matches!(visited, Some(Ok(())))
        })
    }
}

impl Log {
    /// Lets go of events beyond the retention; gives the newest seq that goes.
    fn trim(&mut self, now: u64, retention: &Retention) -> Option<u64> {
        let age_max = u64::try_from(retention.age_max.as_millis()).unwrap_or(u64::MAX);
        let before = self.retained.len();
        while let Some((at, cost)) = self.retained.front() {
            let old = now.saturating_sub(*at) > age_max;
            if !old && self.retained.len() <= retention.events_max && self.bytes <= retention.bytes_max as u64
            {
                break;
            }
            self.bytes -= cost;
            self.retained.pop_front();
        }
        (self.retained.len() < before).then(|| self.head - self.retained.len() as u64)
    }

    /// Lets go of idempotency keys that are too old or too many; gives them.
    fn forget_keys(&mut self, now: u64, limits: &Limits) -> Vec<String> {
        let age_max = u64::try_from(limits.idempotency_age_max.as_millis()).unwrap_or(u64::MAX);
        let mut forgotten = Vec::new();
        while let Some((at, _)) = self.key_ages.front() {
            if now.saturating_sub(*at) <= age_max && self.key_ages.len() <= limits.idempotency_keys_max {
                break;
            }
            let Some((_, key)) = self.key_ages.pop_front() else { break };
            self.keys.remove(&key);
            forgotten.push(key);
        }
        forgotten
    }
}
