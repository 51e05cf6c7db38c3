//! Appending: the batches of a tenant that wait are one frame, and one frame per tenant is on its
//! way.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fanfare_proto::{
    cursor::{Cursor, Epoch},
    room::Tenant,
};
use prost::Message as _;
use prost_types::Timestamp;
use redis::Value;
use tokio::sync::oneshot;

use super::{
    super::{Appended, OWN_TENANT, Receipt, StoredEvent},
    Shared,
    fault::Fault,
    follow::Command,
    frame::{Body, Entry, Head, epoch, epoch_text, tag, tag_text},
    log::text,
    node::pause,
    script,
};
use crate::{
    error::Refusal,
    event::{Draft, ephemeral_id},
};

/// Events and bytes of a frame, unless one batch has more.
const FRAME_EVENTS_MAX: usize = 512;
const FRAME_BYTES_MAX: usize = 256 << 10;
/// Idempotency keys of a frame, likewise: they are most of the time that Redis is busy with it.
const FRAME_KEYS_MAX: usize = 128;
/// Drafts and bytes of a tenant that wait.
const WAITING_MAX: usize = 65_536;
const WAITING_BYTES_MAX: usize = 64 << 20;
/// How long the last batch of a server is remembered: longer than it is repeated.
const BATCH_AGE_MAX: Duration = Duration::from_secs(60);
/// What is appended between two trims of a log, in frames and bytes.
const UNTRIMMED_FRAMES_MAX: usize = 64;
const UNTRIMMED_BYTES_MAX: usize = 1 << 20;
/// What an event costs beside its payload and names, about.
const ENVELOPE_BYTES: usize = 256;

/// What waits, by tenant. The locks are short.
#[derive(Debug, Default)]
pub(super) struct Appends {
    queues: Mutex<HashMap<Tenant, Arc<Mutex<Queue>>>>,
    /// The tags of frames that are on their way.
    in_flight: Mutex<HashSet<u64>>,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Batch>,
    drafts: usize,
    bytes: usize,
    is_writing: bool,
    /// The index has the tenant.
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

/// A draft of a frame, and its answer.
#[derive(Debug)]
struct Slot {
    /// Absent when it was answered.
    draft: Option<Draft>,
    answer: Option<Appended>,
    /// An earlier one of the same frame has the same idempotency key.
    same_as: Option<usize>,
    ephemeral_id: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cost(draft: &Draft) -> usize {
    let rooms: usize = draft.rooms.iter().map(|room| room.as_str().len() + 16).sum();
    ENVELOPE_BYTES + draft.payload.len() + rooms + draft.sender.len() + draft.idempotency_key.len()
}

impl Appends {
    fn queue(&self, tenant: &Tenant) -> Arc<Mutex<Queue>> {
        lock(&self.queues).entry(tenant.clone()).or_default().clone()
    }

    /// Whether the answer to a frame of this server is still awaited.
    pub(super) fn is_in_flight(&self, tag: u64) -> bool {
        lock(&self.in_flight).contains(&tag)
    }

    /// Frees what belongs to tenants that append nothing; gives all others and them.
    pub(super) fn sweep(&self) -> Vec<Tenant> {
        let mut queues = lock(&self.queues);
        let tenants = queues.keys().cloned().collect();
        queues.retain(|_, queue| Arc::strong_count(queue) > 1 || lock(queue).is_writing);
        tenants
    }
}

impl Shared {
    /// Appends a batch; resolves when its frame is acknowledged.
    pub(super) async fn append(
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
    pub(super) async fn admit(&self, tenant: &Tenant) -> Result<(), Refusal> {
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

    /// Writes frames until nothing waits.
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
                callers.push((batch.drafts.len(), batch.answer));
                bytes += batch.bytes;
                drafts.extend(batch.drafts);
            }
            match self.write_frame(tenant, drafts).await {
                Ok(answers) => {
                    let mut answers = answers.into_iter();
                    for (count, caller) in callers {
                        // A caller that has gone does not need it.
                        let _gone = caller.send(Ok(answers.by_ref().take(count).collect()));
                    }
                }
                Err(fault) => {
                    for (_, caller) in callers {
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

    async fn write_frame(
        self: &Arc<Self>,
        tenant: &Tenant,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Appended>, Fault> {
        let mut slots = slots(drafts);
        loop {
            let open: Vec<usize> =
                (0..slots.len()).filter(|i| slots.get(*i).is_some_and(Slot::is_open)).collect();
            if open.is_empty() {
                break;
            }
            let tag = rand::random::<u64>().max(1);
            lock(&self.appends.in_flight).insert(tag);
            let outcome = self.send(tenant, tag, &slots, &open).await;
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
                Ok(Sent::Appended(head)) => {
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
                    // It may have been appended after all.
                    self.followers.command(tenant, Command::Check);
                    return Err(fault);
                }
            }
        }
        answers(slots)
    }

    /// Sends the open slots as a frame until its outcome is known.
    async fn send(
        self: &Arc<Self>,
        tenant: &Tenant,
        tag: u64,
        slots: &[Slot],
        open: &[usize],
    ) -> Result<Sent, Fault> {
        let request = Request::new(self, tenant, tag, slots, open);
        let deadline = Instant::now() + self.call_timeout;
        let mut failures = 0;
        loop {
            // The same tag: when the frame was appended before, its first answer comes again.
            let answered =
                self.nodes.script(&script::APPEND, &request.keys(), &request.arguments(), true).await?;
            let sent = request.read(&answered.value, tag)?;
            if matches!(&sent, Sent::Appended(head) if head.first == 1) && tenant.as_str() != OWN_TENANT {
                // The index may have been lost with the log.
                lock(&self.appends.queue(tenant)).is_admitted = false;
            }
            // Duplicates too: nobody may have been told yet that the first one is durable.
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

    /// Removes what exceeds the retention, in slices.
    pub(super) async fn trim(&self, tenant: &Tenant) {
        let keys = self.keys.log(tenant);
        let retention = &self.retention;
        let arguments = [
            retention.events_max.to_string(),
            retention.bytes_max.to_string(),
            retention.age_max.as_millis().to_string(),
        ];
        let arguments = arguments.each_ref().map(String::as_bytes);
        let names = [keys.meta.as_str(), &keys.log];
        loop {
            match self.nodes.script(&script::TRIM, &names, &arguments, true).await {
                Ok(answered) if matches!(answered.value, Value::Int(1)) => {}
                Ok(_) => return,
                Err(fault) => {
                    tracing::warn!(tenant = tenant.as_str(), %fault, "a log cannot be trimmed");
                    return;
                }
            }
        }
    }
}

impl Queue {
    /// The batches of the next frame.
    fn take(&mut self) -> Vec<Batch> {
        let (mut batches, mut drafts, mut bytes, mut keys) = (Vec::new(), 0, 0, 0);
        while let Some(batch) = self.batches.front() {
            let batch_keys = batch.drafts.iter().filter(|draft| !draft.idempotency_key.is_empty()).count();
            let is_over = drafts + batch.drafts.len() > FRAME_EVENTS_MAX
                || bytes + batch.bytes > FRAME_BYTES_MAX
                || keys + batch_keys > FRAME_KEYS_MAX;
            if is_over && !batches.is_empty() {
                break;
            }
            drafts += batch.drafts.len();
            bytes += batch.bytes;
            keys += batch_keys;
            batches.extend(self.batches.pop_front());
        }
        self.drafts -= drafts;
        self.bytes -= bytes;
        batches
    }
}

impl Slot {
    fn is_open(&self) -> bool {
        self.draft.is_some() && self.same_as.is_none()
    }
}

fn slots(drafts: Vec<Draft>) -> Vec<Slot> {
    let mut first = HashMap::new();
    let mut slots = Vec::with_capacity(drafts.len());
    for (i, draft) in drafts.into_iter().enumerate() {
        let key = draft.idempotency_key.as_str();
        let same_as = if key.is_empty() { None } else { first.get(key).copied() };
        if !key.is_empty() && same_as.is_none() {
            first.insert(key.to_owned(), i);
        }
        let ephemeral_id = draft.kind.ephemeral.then(ephemeral_id);
        slots.push(Slot { draft: Some(draft), answer: None, same_as, ephemeral_id });
    }
    slots
}

fn answers(slots: Vec<Slot>) -> Result<Vec<Appended>, Fault> {
    let mut answers: Vec<Appended> = Vec::with_capacity(slots.len());
    for slot in slots {
        let first = slot.same_as.and_then(|first| answers.get(first)).map(|first| match first {
            Appended::Event(event) => {
                let (id, seq, time) = (event.id.clone(), event.seq, event.draft.time);
                Appended::Duplicate(Receipt { id, seq, time })
            }
            Appended::Duplicate(receipt) => Appended::Duplicate(receipt.clone()),
        });
        answers
            .push(slot.answer.or(first).ok_or_else(|| Fault::Final("a draft without an answer".to_owned()))?);
    }
    Ok(answers)
}

/// What became of a frame.
enum Sent {
    Appended(Head),
    /// Nothing was appended: these slots were answered before.
    Known(Vec<(usize, Receipt)>),
}

/// A frame on its way.
struct Request {
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
    /// The slots that have an idempotency key, in the order of the keys.
    keyed: Vec<usize>,
    count: u64,
}

impl Request {
    fn new(shared: &Shared, tenant: &Tenant, tag: u64, slots: &[Slot], open: &[usize]) -> Self {
        let names = shared.keys.log(tenant);
        let batch = names.batch(&shared.server);
        let (mut stored, mut announced) = (Body::default(), Body::default());
        let (mut keys, mut keyed, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let (mut count, mut bytes) = (0_u64, 0);
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let millis = u64::try_from(millis).unwrap_or_default();
        for i in open {
            let Some((slot, draft)) = slots.get(*i).and_then(|slot| Some((slot, slot.draft.as_ref()?)))
            else {
                continue;
            };
            let cost = cost(draft);
            let event = StoredEvent::of(draft, millis, cost);
            if !draft.idempotency_key.is_empty() {
                let Timestamp { seconds, nanos } = draft.time;
                keys.push(names.idempotency(&draft.idempotency_key));
                keyed.push(*i);
                let (place, id) = match &slot.ephemeral_id {
                    Some(id) => (String::new(), id.as_str()),
                    None => (count.to_string(), ""),
                };
                places.push(place.into_bytes());
                places.push(format!("{id} {seconds} {nanos}").into_bytes());
            }
            let entry = Entry { event: Some(event), ephemeral_id: slot.ephemeral_id.clone() };
            if slot.ephemeral_id.is_none() {
                stored.entries.push(entry.clone());
                count += 1;
                bytes += cost;
            }
            announced.entries.push(entry);
        }
        let is_same = stored.entries.len() == announced.entries.len();
        let mut arguments = vec![
            tag_text(tag).into_bytes(),
            count.to_string().into_bytes(),
            stored.encode_to_vec(),
            if is_same { Vec::new() } else { announced.encode_to_vec() },
            epoch_text(Epoch::random()).into_bytes(),
            shared.server.as_str().as_bytes().to_vec(),
            bytes.to_string().into_bytes(),
            BATCH_AGE_MAX.as_millis().to_string().into_bytes(),
            shared.limits.idempotency_age_max.as_millis().max(1).to_string().into_bytes(),
        ];
        arguments.extend(places);
        let mut all = vec![names.meta, names.log, names.channel, batch];
        all.extend(keys);
        Self { keys: all, arguments, keyed, count }
    }

    fn keys(&self) -> Vec<&str> {
        self.keys.iter().map(String::as_str).collect()
    }

    fn arguments(&self) -> Vec<&[u8]> {
        self.arguments.iter().map(Vec::as_slice).collect()
    }

    fn read(&self, value: &Value, own: u64) -> Result<Sent, Fault> {
        let unexpected = || Fault::unexpected(value);
        let Value::Array(parts) = value else { return Err(unexpected()) };
        match parts.as_slice() {
            [kind, answer] if text(kind) == Some("appended") => {
                let mut words = text(answer).unwrap_or_default().split(' ');
                let mut head = || {
                    Some(Head {
                        epoch: epoch(words.next()?)?,
                        first: words.next()?.parse().ok()?,
                        count: self.count,
                        tag: own,
                        previous: tag(words.next()?)?,
                    })
                };
                head().map(Sent::Appended).ok_or_else(unexpected)
            }
            [kind, Value::Array(first_answers)] if text(kind) == Some("known") => {
                let known =
                    self.keyed.iter().zip(first_answers).filter_map(|(i, answer)| Some((*i, text(answer)?)));
                let receipts = known.map(|(i, answer)| receipt(answer).map(|receipt| (i, receipt)));
                let receipts = receipts.collect::<Option<Vec<_>>>().filter(|receipts| !receipts.is_empty());
                receipts.map(Sent::Known).ok_or_else(unexpected)
            }
            _ => Err(unexpected()),
        }
    }
}

/// A receipt as it is stored: id, seconds and nanoseconds.
fn receipt(text: &str) -> Option<Receipt> {
    let mut words = text.split(' ');
    let id = words.next()?.to_owned();
    let time = Timestamp { seconds: words.next()?.parse().ok()?, nanos: words.next()?.parse().ok()? };
    let seq = if id.starts_with('~') { 0 } else { id.parse::<Cursor>().ok()?.seq };
    Some(Receipt { id, seq, time })
}
