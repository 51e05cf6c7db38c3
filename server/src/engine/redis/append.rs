//! Appending: the waiting batches of a tenant become one frame, and one frame per tenant is in
//! flight.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use fanfare_proto::room::Tenant;
use redis::Value;
use tokio::sync::oneshot;

use super::{
    super::{Appended, OWN_TENANT},
    Shared,
    fault::Fault,
    follow::Command,
    log::{KEPT_EMPTY, READ_BYTES_MAX},
    node::pause,
    request::{Request, Sent, Slot, answers, cost, refuse, slots},
    script,
};
use crate::{error::Refusal, event::Draft};

/// Maximum events and bytes of a frame. A single batch may exceed them: a batch is atomic, so it is
/// not split.
const FRAME_EVENTS_MAX: usize = 512;
const FRAME_BYTES_MAX: usize = 256 << 10;
/// Maximum idempotency keys of a frame, with the same exception. They take most of the time that
/// Redis spends on a frame.
const FRAME_KEYS_MAX: usize = 64;
/// Maximum state changes of a frame, with the same exception.
const FRAME_CHANGES_MAX: usize = 256;
/// Maximum waiting drafts and bytes per tenant.
const WAITING_MAX: usize = 65_536;
const WAITING_BYTES_MAX: usize = 64 << 20;
/// A log is trimmed after this many appended frames or bytes.
const UNTRIMMED_FRAMES_MAX: usize = 64;
const UNTRIMMED_BYTES_MAX: usize = 1 << 20;

/// The waiting batches by tenant. The locks are held only briefly.
#[derive(Debug, Default)]
pub(super) struct Appends {
    queues: Mutex<HashMap<Tenant, Arc<Mutex<Queue>>>>,
    /// The tags of frames in flight.
    in_flight: Mutex<HashSet<u64>>,
    /// The number of the newest batch. Numbers increase, so that Redis refuses late copies of older
    /// batches.
    number: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Batch>,
    drafts: usize,
    bytes: usize,
    is_writing: bool,
    /// Whether the index has the tenant.
    is_admitted: bool,
    untrimmed_frames: usize,
    untrimmed_bytes: usize,
}

#[derive(Debug)]
struct Batch {
    drafts: Vec<Draft>,
    bytes: usize,
    answer: oneshot::Sender<Result<Vec<Appended>, Refusal>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Appends {
    fn queue(&self, tenant: &Tenant) -> Arc<Mutex<Queue>> {
        lock(&self.queues).entry(tenant.clone()).or_default().clone()
    }

    /// Whether the answer to a frame of this server is still pending.
    pub(super) fn is_in_flight(&self, tag: u64) -> bool {
        lock(&self.in_flight).contains(&tag)
    }

    /// The number of waiting drafts of the tenant with the most, and the maximum.
    pub(super) fn fullest(&self) -> (usize, usize) {
        let queues: Vec<_> = lock(&self.queues).values().cloned().collect();
        let waiting = queues.iter().map(|queue| lock(queue).drafts).max();
        (waiting.unwrap_or_default(), WAITING_MAX)
    }

    /// Removes the queues of tenants that append nothing. Returns all tenants that had one.
    pub(super) fn sweep(&self) -> Vec<Tenant> {
        let mut queues = lock(&self.queues);
        let tenants = queues.keys().cloned().collect();
        queues.retain(|_, queue| Arc::strong_count(queue) > 1 || lock(queue).is_writing);
        tenants
    }
}

impl Shared {
    /// Appends a batch; resolves when its frame is acknowledged, or at the deadline. At the
    /// deadline, a frame in flight continues, but batches that wait for the next frame are not
    /// sent.
    pub(super) async fn append(
        self: &Arc<Self>,
        tenant: &Tenant,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Appended>, Refusal> {
        let appended = tokio::time::timeout(self.call_timeout, self.append_now(tenant, drafts));
        appended.await.unwrap_or(Err(Refusal::Storage("written")))
    }

    async fn append_now(
        self: &Arc<Self>,
        tenant: &Tenant,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Appended>, Refusal> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        if self.writers.is_closed() {
            return Err(Refusal::Shutdown);
        }
        self.admit(tenant).await?;
        let queue = self.appends.queue(tenant);
        let (sender, answer) = oneshot::channel();
        let is_first = {
            let mut queue = lock(&queue);
            let bytes: usize = drafts.iter().map(cost).sum();
            let is_full =
                queue.drafts + drafts.len() > WAITING_MAX || queue.bytes + bytes > WAITING_BYTES_MAX;
            if is_full && !queue.batches.is_empty() {
                return Err(Refusal::Storage("written"));
            }
            queue.drafts += drafts.len();
            queue.bytes += bytes;
            queue.batches.push_back(Batch { drafts, bytes, answer: sender });
            !std::mem::replace(&mut queue.is_writing, true)
        };
        if is_first {
            let (shared, tenant) = (self.clone(), tenant.clone());
            self.writers.spawn(async move { shared.write(&tenant, &queue).await });
        }
        answer.await.map_err(|_| Refusal::Storage("written"))?
    }

    /// Adds a tenant to the index, once per process.
    async fn admit(&self, tenant: &Tenant) -> Result<(), Refusal> {
        if lock(&self.appends.queue(tenant)).is_admitted {
            return Ok(());
        }
        if tenant.as_str() != OWN_TENANT {
            let (index, max) = (self.keys.index(), self.limits.tenants_max);
            let arguments = [tenant.as_str().as_bytes(), max.to_string().as_bytes()].map(<[u8]>::to_vec);
            let arguments = [arguments[0].as_slice(), arguments[1].as_slice()];
            let answered = self.nodes.script(&script::ADMIT, &[&index], &arguments, true).await;
            if matches!(answered.map_err(|fault| fault.refusal("written"))?.value, Value::Int(0)) {
                return Err(Refusal::TooManyTenants(max));
            }
        }
        lock(&self.appends.queue(tenant)).is_admitted = true;
        Ok(())
    }

    /// Writes frames until no batch waits.
    async fn write(self: &Arc<Self>, tenant: &Tenant, queue: &Mutex<Queue>) {
        loop {
            let batches = {
                let mut queue = lock(queue);
                let batches = queue.take();
                if batches.is_empty() {
                    queue.is_writing = false;
                    return;
                }
                batches
            };
            let (mut drafts, mut callers) = (Vec::new(), Vec::new());
            let mut bytes = 0;
            for batch in batches {
                callers.push(batch.answer);
                bytes += batch.bytes;
                drafts.push(batch.drafts);
            }
            match self.write_frame(tenant, drafts).await {
                Ok(answers) => {
                    for (caller, answer) in callers.into_iter().zip(answers) {
                        // A caller that has gone does not need the answer.
                        let _gone = caller.send(answer);
                    }
                }
                Err(fault) => {
                    for caller in callers {
                        let _gone = caller.send(Err(fault.refusal("written")));
                    }
                }
            }
            let is_long = {
                let mut queue = lock(queue);
                queue.untrimmed_frames += 1;
                queue.untrimmed_bytes += bytes;
                let is_long = queue.untrimmed_frames >= UNTRIMMED_FRAMES_MAX
                    || queue.untrimmed_bytes >= UNTRIMMED_BYTES_MAX;
                if is_long {
                    (queue.untrimmed_frames, queue.untrimmed_bytes) = (0, 0);
                }
                is_long
            };
            if is_long {
                self.trim(tenant).await;
            }
        }
    }

    /// Returns the answer to each batch.
    async fn write_frame(
        self: &Arc<Self>,
        tenant: &Tenant,
        batches: Vec<Vec<Draft>>,
    ) -> Result<Vec<Result<Vec<Appended>, Refusal>>, Fault> {
        let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
        let mut slots = slots(batches);
        loop {
            let open: Vec<usize> =
                (0..slots.len()).filter(|i| slots.get(*i).is_some_and(Slot::is_open)).collect();
            if open.is_empty() {
                break;
            }
            let tag = rand::random::<u64>().max(1);
            let number = self.appends.number.fetch_add(1, Ordering::Relaxed) + 1;
            lock(&self.appends.in_flight).insert(tag);
            let outcome = self.send(tenant, (number, tag), &slots, &open).await;
            match outcome {
                Ok(Sent::Known(receipts)) => {
                    lock(&self.appends.in_flight).remove(&tag);
                    for (slot, receipt) in receipts {
                        if let Some(slot) = slots.get_mut(slot) {
                            slot.draft = None;
                            slot.answer = Some(Appended::Duplicate(receipt));
                        }
                    }
                }
                Ok(Sent::Refused(slot, refusal)) => {
                    lock(&self.appends.in_flight).remove(&tag);
                    refuse(&mut slots, slot, refusal);
                }
                Ok(Sent::Appended(head, _)) => {
                    let take = |i: &usize| {
                        let slot = slots.get_mut(*i)?;
                        Some((slot.draft.take()?, slot.ephemeral_id.take()))
                    };
                    let events = head.place(open.iter().filter_map(take).collect());
                    for (i, event) in open.iter().zip(&events) {
                        if let Some(slot) = slots.get_mut(*i) {
                            slot.answer = Some(Appended::Event(event.clone()));
                        }
                    }
                    self.followers.command(tenant, Command::Own(head, events));
                    lock(&self.appends.in_flight).remove(&tag);
                }
                Err(fault) => {
                    lock(&self.appends.in_flight).remove(&tag);
                    // The frame may have been appended after all.
                    self.followers.command(tenant, Command::Check);
                    return Err(fault);
                }
            }
        }
        answers(slots, &sizes)
    }

    /// Sends the unanswered slots as a frame until its outcome is known.
    async fn send(
        self: &Arc<Self>,
        tenant: &Tenant,
        (number, tag): (u64, u64),
        slots: &[Slot],
        open: &[usize],
    ) -> Result<Sent, Fault> {
        let request = Request::new(self, tenant, (number, tag), slots, open);
        let deadline = Instant::now() + self.call_timeout;
        let mut failures = 0;
        loop {
            // The number stays the same: if the frame was appended before, its first answer is
            // returned again.
            let answered =
                self.nodes.script(&script::APPEND, &request.keys(), &request.arguments(), true).await?;
            let sent = request.read(&answered.value, tag)?;
            if matches!(&sent, Sent::Appended(_, true)) && tenant.as_str() != OWN_TENANT {
                self.index(tenant).await;
            }
            // Also for duplicates: the first answer may not have been acknowledged yet.
            let Err(fault) = self.nodes.acknowledged(&answered, || self.keys.log(tenant).mark()).await else {
                return Ok(sent);
            };
            let wait = pause(failures);
            failures += 1;
            if Instant::now() + wait >= deadline {
                return Err(fault);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Adds a previously admitted tenant to the index again: the index may have been lost together
    /// with the log, or the log was about to expire.
    async fn index(&self, tenant: &Tenant) {
        let index = self.keys.index();
        let mut cmd = redis::cmd("SADD");
        cmd.arg(&index).arg(tenant.as_str());
        if let Err(fault) = self.nodes.run(&index, &cmd, true).await {
            tracing::warn!(tenant = tenant.as_str(), %fault, "the index may not have a tenant");
            lock(&self.appends.queue(tenant)).is_admitted = false;
        }
    }

    /// Removes from the index a tenant whose log has no events and is about to expire.
    async fn unindex(&self, tenant: &Tenant) -> Result<(), Fault> {
        let (index, meta) = (self.keys.index(), self.keys.log(tenant).meta);
        let mut cmd = redis::cmd("SREM");
        cmd.arg(&index).arg(tenant.as_str());
        self.nodes.run(&index, &cmd, true).await?;
        let mut cmd = redis::cmd("PTTL");
        cmd.arg(&meta);
        // Events may have been appended meanwhile.
        if matches!(self.nodes.run(&meta, &cmd, true).await?.value, Value::Int(-1)) {
            self.index(tenant).await;
        }
        Ok(())
    }

    /// Removes events that exceed the retention, in slices.
    pub(super) async fn trim(&self, tenant: &Tenant) {
        let keys = self.keys.log(tenant);
        let retention = &self.retention;
        let arguments = [
            retention.events_max.to_string(),
            retention.bytes_max.to_string(),
            retention.age_max.as_millis().to_string(),
            KEPT_EMPTY.as_millis().to_string(),
            READ_BYTES_MAX.to_string(),
        ];
        let arguments = arguments.each_ref().map(String::as_bytes);
        let names = [keys.meta.as_str(), &keys.log, &keys.state, &keys.state_index, &keys.state_ends];
        loop {
            let trimmed = match self.nodes.script(&script::TRIM, &names, &arguments, true).await {
                Ok(answered) => match answered.value {
                    Value::Int(1) => continue,
                    Value::Int(2) if tenant.as_str() != OWN_TENANT => self.unindex(tenant).await,
                    _ => Ok(()),
                },
                Err(fault) => Err(fault),
            };
            if let Err(fault) = trimmed {
                tracing::warn!(tenant = tenant.as_str(), %fault, "a log cannot be trimmed");
            }
            return;
        }
    }
}

impl Queue {
    /// The batches of the next frame. Batches whose callers were already refused are left out.
    fn take(&mut self) -> Vec<Batch> {
        let (waiting, waiting_bytes) = (&mut self.drafts, &mut self.bytes);
        self.batches.retain(|batch| {
            let is_awaited = !batch.answer.is_closed();
            if !is_awaited {
                *waiting -= batch.drafts.len();
                *waiting_bytes -= batch.bytes;
            }
            is_awaited
        });
        let (mut batches, mut drafts, mut bytes, mut keys, mut changes) = (Vec::new(), 0, 0, 0, 0);
        while let Some(batch) = self.batches.front() {
            let batch_keys = batch.drafts.iter().filter(|draft| !draft.idempotency_key.is_empty()).count();
            let changing = batch.drafts.iter().filter(|draft| draft.state.is_some());
            let batch_changes: usize = changing.map(|draft| draft.rooms.len()).sum();
            let is_over = drafts + batch.drafts.len() > FRAME_EVENTS_MAX
                || bytes + batch.bytes > FRAME_BYTES_MAX
                || keys + batch_keys > FRAME_KEYS_MAX
                || changes + batch_changes > FRAME_CHANGES_MAX;
            if is_over && !batches.is_empty() {
                break;
            }
            drafts += batch.drafts.len();
            bytes += batch.bytes;
            keys += batch_keys;
            changes += batch_changes;
            batches.extend(self.batches.pop_front());
        }
        self.drafts -= drafts;
        self.bytes -= bytes;
        batches
    }
}
