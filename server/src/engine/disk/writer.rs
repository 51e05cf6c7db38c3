//! The one writer of the logs. It takes all appends that wait, writes them in one transaction, and only when that is on the
//! disk hands the events to the hub and answers. Meanwhile the next ones gather. A setting lets it answer somewhat earlier, at the price of
//! a new epoch after a crash. When the disk refuses (it is full, say), the callers of the batch are told to try again, and the store is
//! opened anew: what is on the disk then is what has happened.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use fanfare_proto::{cursor::Cursor, room::Tenant};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Place, Shared,
    log::{Clock, Log},
    store::{Change, Failed, Loaded, StoredAnswer, StoredEvent, unpanicked},
};
use crate::{
    engine::{Appended, OWN_TENANT, Record},
    error::Refusal,
    event::{Draft, Event, ephemeral_id},
};

/// Commands in one transaction.
const BATCH_MAX: usize = 1024;
/// Payload bytes in one transaction.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Append(Draft, oneshot::Sender<Result<Appended, Refusal>>),
    Keep(Arc<[Record]>, oneshot::Sender<Result<(), Refusal>>),
    Sweep,
    Close(oneshot::Sender<()>),
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) logs: HashMap<Tenant, Log>,
    pub(super) next_number: u32,
    pub(super) clock: Clock,
    /// When the store was last opened, or tried to.
    pub(super) tried_at: Instant,
    pub(super) lag: Lag,
    /// Pages of the file may never have reached the disk.
    pub(super) is_suspect: bool,
    /// What was answered was lost: nothing may be built on what is left before clients have been told, by a new epoch.
    pub(super) is_over: bool,
}

/// How far what was answered may be ahead of the disk.
#[derive(Debug)]
pub(super) struct Lag {
    /// Absent: not at all.
    allowed: Option<(Duration, Handle)>,
    /// Since when something was answered that is not on the disk.
    pub(super) since: Option<Instant>,
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
pub(super) enum Outcome {
    Publish(Arc<Event>, Appended, oneshot::Sender<Result<Appended, Refusal>>),
    Answer(Result<Appended, Refusal>, oneshot::Sender<Result<Appended, Refusal>>),
    Kept(oneshot::Sender<Result<(), Refusal>>),
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, lag: Lag, clock: Clock, loaded: Vec<Loaded>) -> Self {
        let mut writer = Self {
            shared,
            logs: HashMap::new(),
            next_number: 0,
            clock,
            tried_at: Instant::now(),
            lag,
            is_suspect: false,
            is_over: false,
        };
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
            let is_closed = self.shared.store().is_none();
            if let Some(done) = if is_closed { self.refuse(batch) } else { self.process(batch) } {
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
        if let Some(command) = self.recover(waiting) {
            return Some(command);
        }
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

    /// Runs a batch; gives whom to tell when it ends with a close.
    fn process(&mut self, batch: Vec<Command>) -> Option<oneshot::Sender<()>> {
        let mut closing = None;
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut touched = HashSet::new();
        let mut sweep = false;
        let mut records = Vec::new();
        let mut stored = Vec::new();
        let mut keys: Vec<(u32, String, Option<StoredAnswer>)> = Vec::new();
        let now = self.clock.now();
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
        let written = nothing || self.write(&heads, &stored, &trims, &keys, &records);
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
        let others = self.logs.len() - usize::from(self.logs.contains_key(OWN_TENANT));
        if !known && others >= max && draft.tenant.as_str() != OWN_TENANT {
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
        let appended = Appended::to(&event);
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

    pub(super) fn finish(&self, outcome: Outcome, written: bool) {
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
}
