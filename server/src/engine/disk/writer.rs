//! The one writer of the logs. It writes all waiting appends in one transaction. Only when that is
//! on the disk, it hands the events to followers and answers; meanwhile, new appends queue up. A
//! setting allows earlier answers, at the price of a new epoch after a crash. When the disk refuses
//! a write (for example because it is full), the callers of the batch are asked to retry, and the
//! store is opened again: the contents of the disk are then authoritative.

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
    Shared,
    changes::{Changes, RecordChange, StateChanged},
    log::{Clock, Log},
    store::{Contents, StoredAnswer, unpanicked},
};
use crate::{
    config::Retention,
    engine::{
        Appended, OWN_TENANT, Records, Replaced, Replacement, Space, StoredEvent, entries::EntryKey,
        now_millis,
    },
    error::Refusal,
    event::{Draft, Event},
    share,
};

/// Maximum number of commands in one transaction.
const BATCH_MAX: usize = 1024;
/// Maximum payload bytes in one transaction.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Number of trimmed events at which they are removed from the disk. A sweep removes any number.
const SLAB: u64 = 512;

/// Where an answer is sent; the caller may have gone.
pub(super) type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// A request to the writer.
#[derive(Debug)]
pub(super) enum Command {
    /// A batch of one tenant.
    Append(Tenant, Vec<Draft>, Answer<Vec<Appended>>),
    Replace(Space, String, Replacement, Answer<Replaced>),
    Sweep(Answer<()>),
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
    /// When the store was last opened, or an attempt was made.
    pub(super) tried_at: Instant,
    pub(super) lag: Lag,
    /// Pages of the file may never have reached the disk.
    pub(super) is_suspect: bool,
    /// Acknowledged writes were lost. Nothing more is appended until clients have been notified by
    /// a new epoch.
    pub(super) is_over: bool,
}

/// How long acknowledged writes may wait to reach the disk.
#[derive(Debug)]
pub(super) struct Lag {
    /// Absent: answers wait for the disk.
    allowed: Option<(Duration, Handle)>,
    /// The time of the first acknowledged write that is not on the disk.
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

    /// How much longer the writes may wait; absent if everything is on the disk.
    fn rest(&self) -> Option<Duration> {
        let (max, _) = self.allowed.as_ref()?;
        Some(max.saturating_sub(self.since?.elapsed()))
    }

    /// Whether the next commit may be late.
    fn allows(&self) -> bool {
        self.is_allowed() && self.rest().is_none_or(|rest| !rest.is_zero())
    }
}

/// An answer that is sent after the commit.
enum Outcome {
    Appended(Vec<Appended>, Answer<Vec<Appended>>),
    Replaced(Replaced, Answer<Replaced>),
    Swept(Answer<()>),
}

/// Commands that share one commit.
#[derive(Default)]
struct Round {
    outcomes: Vec<Outcome>,
    /// Tenants whose logs change, and their new events in order.
    touched: HashMap<Tenant, Vec<Arc<Event>>>,
    changes: Changes,
    /// The changes of records, in order.
    records: Vec<(Space, String, u64, Replacement)>,
    /// The resulting revisions; 0 for a removal.
    revisions: HashMap<(Space, String), u64>,
    sweeps: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, lag: Lag, clock: Clock, contents: Contents) -> Self {
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
        writer.take_over(contents);
        writer
    }

    /// Runs until it receives a close command.
    pub(super) fn run(mut self, mut waiting: mpsc::Receiver<Command>) {
        while let Some(first) = self.next(&mut waiting) {
            let (mut batch, mut bytes) = (vec![first], 0);
            while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
                let Ok(next) = waiting.try_recv() else { break };
                if let Command::Append(_, drafts, _) = &next {
                    bytes += drafts.iter().map(|draft| draft.payload.len()).sum::<usize>();
                }
                batch.push(next);
            }
            self.shared.bytes.store(self.bytes, Ordering::Relaxed);
            let is_closed = self.shared.store().is_none();
            if let Some(done) = if is_closed { self.refuse(batch) } else { self.process(batch) } {
                self.conclude();
                // The store is closed before the caller is notified.
                self.shared.store.write().unwrap_or_else(PoisonError::into_inner).take();
                let _gone = done.send(());
                return;
            }
        }
    }

    /// The next command. While it waits, late writes are synced in time.
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

    /// Runs a batch. Returns the channel to notify if the batch ends with a close.
    fn process(&mut self, batch: Vec<Command>) -> Option<oneshot::Sender<()>> {
        let (mut closing, mut round) = (None, Round::default());
        let now = self.clock.now();
        for command in batch {
            match command {
                Command::Append(tenant, drafts, answer) => match self.check(&tenant, &drafts, &mut round) {
                    Ok(()) => {
                        let appended = self.admit(&tenant, drafts, now, &mut round);
                        round.outcomes.push(Outcome::Appended(appended, answer));
                    }
                    Err(refusal) => _ = answer.send(Err(refusal)),
                },
                Command::Replace(space, key, replacement, answer) => {
                    let replaced = round.replace(&self.shared.records, space, key, replacement);
                    round.outcomes.push(Outcome::Replaced(replaced, answer));
                }
                Command::Sweep(answer) => {
                    round.sweeps = true;
                    round.outcomes.push(Outcome::Swept(answer));
                }
                Command::Close(answer) => closing = Some(answer),
            }
        }
        self.retain(now, &mut round);
        let is_written = round.changes.is_empty() || self.write(&round.changes);
        if is_written {
            self.settle(&mut round);
        } else {
            self.fail();
        }
        round.outcomes.into_iter().for_each(|outcome| outcome.give(is_written));
        closing
    }

    /// Trims the logs that changed, and all logs if their total size is too large.
    fn retain(&mut self, now: u64, round: &mut Round) {
        let limits = self.shared.limits;
        if round.sweeps {
            self.logs.keys().for_each(|tenant| _ = round.touched.entry(tenant.clone()).or_default());
        }
        let changes = &mut round.changes;
        for tenant in round.touched.keys() {
            let Some(log) = self.logs.get_mut(tenant) else { continue };
            let forgotten = log.forget_keys(now, &limits);
            if round.sweeps {
                changes.end_entries(log);
            }
            changes.keys.extend(forgotten.into_iter().map(|key| (log.number, key, None)));
            self.bytes -= log.bytes;
            log.trim(now, &self.shared.retention);
            self.bytes += log.bytes;
            if log.noted != Some(log.head) {
                changes.heads.push((tenant.clone(), log.number, log.head));
            }
            let is_due = log.base() - log.removed >= if round.sweeps { 1 } else { SLAB };
            changes.trims.extend(is_due.then(|| (tenant.clone(), log.number, log.base())));
        }
        self.share(now, changes);
        if round.sweeps {
            let idle = self.logs.iter().filter(|(_, log)| log.is_idle(now, limits.idle_age_max));
            changes.freed = idle.map(|(tenant, _)| tenant.clone()).collect();
            changes.floor =
                changes.freed.iter().filter_map(|tenant| self.logs.get(tenant)).map(|log| log.head).max();
        }
    }

    /// Trims the largest logs while the total size is too large.
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

    /// Creates the tenant's log if there is none.
    fn log(&mut self, tenant: &Tenant) -> Result<(), Refusal> {
        if self.logs.contains_key(tenant) {
            return Ok(());
        }
        let max = self.shared.limits.tenants_max;
        let others = self.logs.len() - usize::from(self.logs.contains_key(OWN_TENANT));
        if others >= max && tenant.as_str() != OWN_TENANT {
            return Err(Refusal::TooManyTenants(max));
        }
        // Existing followers already have a cursor; the log begins after it.
        let start = self.shared.places.ends(tenant).head;
        let log = Log { number: self.next_number, head: start, removed: start, ..Log::default() };
        self.next_number += 1;
        self.logs.insert(tenant.clone(), log);
        Ok(())
    }

    /// Refuses a batch that cannot be appended: there are too many tenants, or the state is not as
    /// expected.
    fn check(&mut self, tenant: &Tenant, drafts: &[Draft], round: &mut Round) -> Result<(), Refusal> {
        self.log(tenant)?;
        let Some(log) = self.logs.get_mut(tenant).filter(|_| drafts.iter().any(|d| d.state.is_some())) else {
            return Ok(());
        };
        round.changes.end_entries(log);
        let mut seen = HashSet::new();
        let is_new = |draft: &&Draft| {
            let key = draft.idempotency_key.as_str();
            key.is_empty() || (!log.keys.contains_key(key) && seen.insert(key.to_owned()))
        };
        log.state.trial(log.head + 1).add(drafts.iter().filter(is_new), &self.shared.limits)
    }

    /// Assigns a batch its places in its log.
    fn admit(&mut self, tenant: &Tenant, drafts: Vec<Draft>, now: u64, round: &mut Round) -> Vec<Appended> {
        let Some(log) = self.logs.get_mut(tenant) else { return Vec::new() };
        let (epoch, changes) = (self.shared.epoch, &mut round.changes);
        let published = round.touched.entry(tenant.clone()).or_default();
        log.used_at = now;
        let mut admit = |mut draft: Draft| {
            if let Some(first) = log.keys.get(&draft.idempotency_key) {
                return Appended::Duplicate(first.clone());
            }
            // The log stores the key, so the event does not need it.
            let key = std::mem::take(&mut draft.idempotency_key);
            let event = if draft.kind.ephemeral {
                Event::ephemeral(draft)
            } else {
                log.head += 1;
                let event = Event::stored(Cursor::new(epoch, log.head), draft);
                let mut record = StoredEvent::of(&event.draft, now, event.cost_bytes());
                record.id_field = None;
                log.bytes += record.cost;
                self.bytes += record.cost;
                log.retained.push_back((now, record.cost));
                change_state(log, &event, &record, changes);
                changes.events.push((log.number, event.seq, record));
                event
            };
            if !key.is_empty() {
                let receipt = event.receipt();
                changes.keys.push((log.number, key.clone(), Some(StoredAnswer::of(&receipt, now))));
                log.keys.insert(key.clone(), receipt);
                log.key_ages.push_back((now, key));
            }
            let event = Arc::new(event);
            published.push(event.clone());
            Appended::Event(event)
        };
        drafts.into_iter().map(&mut admit).collect()
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

    /// Applies a commit that is on the disk, or will be in time.
    fn settle(&mut self, round: &mut Round) {
        let changes = &round.changes;
        for (tenant, _, upto) in &changes.trims {
            let Some(log) = self.logs.get_mut(tenant) else { continue };
            log.removed = *upto;
            // A log that was trimmed in favour of others has changed too.
            round.touched.entry(tenant.clone()).or_default();
        }
        for (tenant, events) in &round.touched {
            if let Some(log) = self.logs.get_mut(tenant) {
                log.noted = Some(log.head);
                self.shared.places.publish(tenant, Some(log), events);
            }
        }
        for tenant in &changes.freed {
            if let Some(log) = self.logs.remove(tenant) {
                self.shared.places.free(tenant, log.head);
            }
        }
        if round.sweeps {
            self.shared.places.sweep();
        }
        for (space, key, revision, replacement) in round.records.drain(..) {
            self.shared.records.put(&space, &key, revision, replacement.value, replacement.ttl);
        }
    }
}

/// Applies the state change of an event.
fn change_state(log: &mut Log, event: &Event, record: &StoredEvent, changes: &mut Changes) {
    let Some(change) = &event.draft.state else { return };
    for room in event.rooms() {
        let place = EntryKey::new(room.as_str(), &change.key);
        let entry = (!change.is_removal).then(|| (event.seq, record.clone()));
        if change.is_removal {
            log.state.remove(&place);
        } else {
            log.state.put(place.clone(), event.seq, record.payload.len(), change.expires_at, ());
        }
        changes.state.push(StateChanged { number: log.number, place, entry });
    }
}

impl Changes {
    /// Removes entries of the state that have expired.
    fn end_entries(&mut self, log: &mut Log) {
        let number = log.number;
        let ended = log.state.end(now_millis()).into_iter();
        self.state.extend(ended.map(|place| StateChanged { number, place, entry: None }));
    }
}

impl Round {
    /// Replaces a record, after the earlier replacements of this round.
    fn replace(
        &mut self,
        records: &Records,
        space: Space,
        key: String,
        replacement: Replacement,
    ) -> Replaced {
        let place = (space, key);
        let before = self.revisions.get(&place).copied();
        if before.unwrap_or_else(|| records.revision_of(&place.0, &place.1)) != replacement.expected {
            return Replaced::Conflict;
        }
        let revision = records.next_revision();
        let is_removed = replacement.value.is_none();
        self.revisions.insert(place.clone(), if is_removed { 0 } else { revision });
        let (space, key) = place;
        let value = replacement.value.clone().filter(|_| replacement.ttl.is_none());
        self.changes.records.push(RecordChange { space: space.clone(), key: key.clone(), revision, value });
        self.records.push((space, key, revision, replacement));
        Replaced::Revision(revision)
    }
}

impl Outcome {
    fn give(self, is_written: bool) {
        fn answer<T>(to: Answer<T>, answer: T, is_written: bool) {
            let _gone = to.send(if is_written { Ok(answer) } else { Err(Refusal::Storage("written")) });
        }
        match self {
            Self::Appended(appended, to) => answer(to, appended, is_written),
            Self::Replaced(replaced, to) => answer(to, replaced, is_written),
            Self::Swept(to) => answer(to, (), is_written),
        }
    }
}
