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
    changes::Changes,
    log::{Clock, Log},
    store::{Loaded, StoredAnswer, unpanicked},
};
use crate::{
    config::Retention,
    engine::{OWN_TENANT, OldAppended, OldRecord, StoredEvent},
    error::Refusal,
    event::{Draft, Event, ephemeral_id},
    share,
};

/// Commands in one transaction.
const BATCH_MAX: usize = 1024;
/// Payload bytes in one transaction.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Events of a log that are removed from the disk at once, unless it is swept.
const SLAB: u64 = 512;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Append(Draft, oneshot::Sender<Result<OldAppended, Refusal>>),
    Keep(Arc<[OldRecord]>, oneshot::Sender<Result<(), Refusal>>),
    Sweep,
    Close(oneshot::Sender<()>),
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) logs: HashMap<Tenant, Log>,
    pub(super) next_number: u32,
    /// Bytes in all logs.
    pub(super) bytes: u64,
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
    Publish(Arc<Event>, OldAppended, oneshot::Sender<Result<OldAppended, Refusal>>),
    Answer(Result<OldAppended, Refusal>, oneshot::Sender<Result<OldAppended, Refusal>>),
    Kept(oneshot::Sender<Result<(), Refusal>>),
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, lag: Lag, clock: Clock, loaded: Vec<Loaded>) -> Self {
        let mut writer = Self {
            shared,
            logs: HashMap::new(),
            next_number: 0,
            bytes: 0,
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
            if !self.write(&Changes::default()) {
                self.fail();
            }
        }
        waiting.blocking_recv()
    }

    /// Runs a batch; gives whom to tell when it ends with a close.
    fn process(&mut self, batch: Vec<Command>) -> Option<oneshot::Sender<()>> {
        let (mut closing, mut sweep) = (None, false);
        let mut outcomes = Vec::with_capacity(batch.len());
        let (mut touched, mut changes) = (HashSet::new(), Changes::default());
        let now = self.clock.now();
        for command in batch {
            match command {
                Command::Append(draft, answer) => {
                    let (tenant, sequence) = (draft.tenant.clone(), draft.sequence.clone());
                    let outcome = self.admit(draft, answer, now, &mut changes);
                    outcomes.push((outcome, sequence));
                    touched.insert(tenant);
                }
                Command::Keep(records, answer) => {
                    if !records.is_empty() {
                        changes.records.push(records);
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
        self.retain(&touched, sweep, now, &mut changes);
        let written = changes.is_empty() || self.write(&changes);
        if written {
            self.settle(&touched, &changes);
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

    /// Removes what is too old or too much in the logs that were touched, and in all when they are too large together.
    fn retain(&mut self, touched: &HashSet<Tenant>, sweep: bool, now: u64, changes: &mut Changes) {
        let limits = self.shared.limits;
        for tenant in touched {
            let Some(log) = self.logs.get_mut(tenant) else { continue };
            let forgotten = log.forget_keys(now, &limits);
            changes.keys.extend(forgotten.into_iter().map(|key| (log.number, key, None)));
            self.bytes -= log.bytes;
            log.trim(now, &self.shared.retention);
            self.bytes += log.bytes;
            if log.noted != Some(log.head) {
                changes.heads.push((tenant.clone(), log.number, log.head));
            }
            let is_due = log.base() - log.removed >= if sweep { 1 } else { SLAB };
            changes.trims.extend(is_due.then(|| (tenant.clone(), log.number, log.base())));
        }
        self.share(now, changes);
        if sweep {
            let idle = self.logs.iter().filter(|(_, log)| log.is_idle(now, limits.idle_age_max));
            let idle: Vec<Tenant> = idle.map(|(tenant, _)| tenant.clone()).collect();
            changes.freed = idle.into_iter().filter(|tenant| self.shared.hub.release(tenant)).collect();
            changes.floor =
                changes.freed.iter().filter_map(|tenant| self.logs.get(tenant)).map(|log| log.head).max();
        }
    }

    /// Has the largest logs give way when all together are too large.
    fn share(&mut self, now: u64, changes: &mut Changes) {
        let retention = self.shared.retention;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        if size(self.bytes) <= retention.total_bytes_max {
            return;
        }
        let mut sizes: Vec<usize> = self.logs.values().map(|log| size(log.bytes)).collect();
        let Some(level) = share::level(&mut sizes, retention.total_bytes_max) else { return };
        let retention = Retention { bytes_max: level.min(retention.bytes_max), ..retention };
        for (tenant, log) in &mut self.logs {
            self.bytes -= log.bytes;
            log.trim(now, &retention);
            self.bytes += log.bytes;
            if log.base() > log.removed {
                changes.trims.push((tenant.clone(), log.number, log.base()));
            }
        }
    }

    /// Decides what becomes of an append.
    fn admit(
        &mut self,
        draft: Draft,
        answer: oneshot::Sender<Result<OldAppended, Refusal>>,
        now: u64,
        changes: &mut Changes,
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
        let (next_number, shared) = (&mut self.next_number, &self.shared);
        let log = self.logs.entry(draft.tenant.clone()).or_insert_with(|| {
            *next_number += 1;
            // Subscriptions that are there already know a place, behind which the log begins.
            let known = shared.hub.head(&draft.tenant);
            let start = known.unwrap_or_else(|| shared.floor.load(Ordering::Acquire));
            Log { number: *next_number - 1, head: start, start, removed: start, ..Log::default() }
        });
        log.used_at = now;
        if let Some(first) = log.keys.get(&draft.idempotency_key) {
            return Outcome::Answer(Ok(OldAppended { duplicate: true, ..first.clone() }), answer);
        }
        let event = if draft.kind.ephemeral {
            Event::ephemeral(draft)
        } else {
            log.head += 1;
            let cursor = Cursor::new(self.shared.epoch, log.head);
            Event::stored(cursor, draft)
        };
        let appended = OldAppended::to(&event);
        if !event.is_ephemeral() {
            let mut record = StoredEvent::of(&event.draft, now, event.cost_bytes());
            record.id_field = None;
            log.bytes += record.cost;
            self.bytes += record.cost;
            log.retained.push_back((now, record.cost));
            changes.events.push((log.number, event.seq, record));
        }
        let key = &event.draft.idempotency_key;
        if !key.is_empty() {
            log.keys.insert(key.clone(), appended.clone());
            log.key_ages.push_back((now, key.clone()));
            changes.keys.push((log.number, key.clone(), Some(StoredAnswer::of(&appended, now))));
        }
        Outcome::Publish(Arc::new(event), appended, answer)
    }

    fn write(&mut self, changes: &Changes) -> bool {
        let Some(store) = self.shared.store() else { return false };
        let late = self.lag.allows() && !(changes.heads.is_empty() && changes.records.is_empty());
        match unpanicked(|| store.commit(changes, late)) {
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
    fn settle(&mut self, touched: &HashSet<Tenant>, changes: &Changes) {
        for (tenant, _, upto) in &changes.trims {
            let Some(log) = self.logs.get_mut(tenant) else { continue };
            log.removed = *upto;
        }
        for tenant in touched.iter().chain(changes.trims.iter().map(|(tenant, ..)| tenant)) {
            let Some(log) = self.logs.get_mut(tenant) else { continue };
            log.noted = Some(log.head);
            if let Some(place) = self.shared.place(tenant) {
                place.base.store(log.base(), Ordering::Release);
                place.written.store(log.head, Ordering::Release);
                continue;
            }
            let place = Place::new(log.number, log.base(), log.head, log.start);
            let mut places = self.shared.places.write().unwrap_or_else(PoisonError::into_inner);
            places.insert(tenant.clone(), Arc::new(place));
        }
        if let Some(floor) = changes.floor {
            self.shared.floor.fetch_max(floor, Ordering::AcqRel);
        }
        for tenant in &changes.freed {
            self.logs.remove(tenant);
            self.shared.places.write().unwrap_or_else(PoisonError::into_inner).remove(tenant);
        }
    }

    pub(super) fn finish(&self, outcome: Outcome, written: bool) {
        // Whoever asked may be gone.
        match outcome {
            Outcome::Publish(event, appended, answer) if written => {
                let (place, head) =
                    (self.shared.place(&event.draft.tenant), self.shared.head(&event.draft.tenant));
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
