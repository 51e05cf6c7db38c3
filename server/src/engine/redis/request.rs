//! The request that appends a frame, and its answer.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fanfare_proto::{
    cursor::{Cursor, Epoch},
    room::{Room, Tenant},
};
use prost::Message as _;
use prost_types::Timestamp;
use redis::Value;

use super::{
    super::{Appended, Receipt, StoredEvent, entries::entry_cost},
    Shared,
    fault::Fault,
    frame::{Body, Entry, Head, epoch, epoch_text, tag, tag_text},
    log::text,
};
use crate::{
    config::Limits,
    error::Refusal,
    event::{Draft, ephemeral_id},
};

/// How long the number of a server's last batch is stored: longer than a stalled network or a
/// stalled Redis can delay a copy of a batch.
const BATCH_AGE_MAX: Duration = Duration::from_secs(3600);
/// The approximate cost of an event in addition to its payload and names.
const ENVELOPE_BYTES: usize = 256;

/// A draft of a frame, and its answer.
#[derive(Debug)]
pub(super) struct Slot {
    /// Absent once it was answered.
    pub(super) draft: Option<Draft>,
    pub(super) answer: Option<Appended>,
    /// The earlier slot of the frame with the same idempotency key.
    same_as: Option<usize>,
    pub(super) ephemeral_id: Option<String>,
    /// The index of its batch within the frame.
    batch: usize,
    /// Why its batch is refused; set on the slot that caused it.
    refusal: Option<Refusal>,
}

/// The outcome of a frame.
pub(super) enum Sent {
    /// Its head, and whether the tenant may be missing in the index.
    Appended(Head, bool),
    /// Nothing was appended: these slots were answered before.
    Known(Vec<(usize, Receipt)>),
    /// Nothing was appended: a slot conflicts with the state.
    Refused(usize, Refusal),
}

/// A frame to send.
pub(super) struct Request {
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
    /// The slots with an idempotency key, in the order of the keys.
    keyed: Vec<usize>,
    count: u64,
    limits: Limits,
}

impl Request {
    pub(super) fn new(
        shared: &Shared,
        tenant: &Tenant,
        (number, tag): (u64, u64),
        slots: &[Slot],
        open: &[usize],
    ) -> Self {
        let names = shared.keys.log(tenant);
        let batch = names.batch(&shared.server);
        let (mut stored, mut announced) = (Body::default(), Body::default());
        let (mut keys, mut keyed, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let (mut count, mut bytes, mut changes) = (0_u64, 0, Vec::new());
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
            changes.extend(changes_of(draft, &event, *i, count));
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
            number.to_string().into_bytes(),
            shared.limits.state_entries_max.to_string().into_bytes(),
            shared.limits.state_bytes_max.to_string().into_bytes(),
            changes.len().to_string().into_bytes(),
        ];
        arguments.extend(places);
        arguments.extend(changes.into_iter().flatten());
        let mut all = vec![
            names.meta,
            names.log,
            names.channel,
            batch,
            names.state,
            names.state_index,
            names.state_ends,
        ];
        all.extend(keys);
        Self { keys: all, arguments, keyed, count, limits: shared.limits }
    }

    pub(super) fn keys(&self) -> Vec<&str> {
        self.keys.iter().map(String::as_str).collect()
    }

    pub(super) fn arguments(&self) -> Vec<&[u8]> {
        self.arguments.iter().map(Vec::as_slice).collect()
    }

    pub(super) fn read(&self, value: &Value, own: u64) -> Result<Sent, Fault> {
        let unexpected = || Fault::unexpected(value);
        let Value::Array(parts) = value else { return Err(unexpected()) };
        match parts.as_slice() {
            [kind, answer] if text(kind) == Some("appended") => {
                let mut words = text(answer).unwrap_or_default().split(' ');
                let mut appended = || {
                    let head = Head {
                        epoch: epoch(words.next()?)?,
                        first: words.next()?.parse().ok()?,
                        count: self.count,
                        tag: own,
                        previous: tag(words.next()?)?,
                    };
                    Some(Sent::Appended(head, words.next()? == "1"))
                };
                appended().ok_or_else(unexpected)
            }
            [kind, _] if text(kind) == Some("late") => {
                Err(Fault::Final("this server has stored a later batch already".to_owned()))
            }
            [kind, slot, why, revision] if text(kind) == Some("refused") => {
                let slot = text(slot).and_then(|slot| slot.parse().ok()).ok_or_else(unexpected)?;
                let refusal = match text(why) {
                    Some("revision") => {
                        let revision = text(revision).and_then(|revision| revision.parse().ok());
                        Refusal::Revision(revision.ok_or_else(unexpected)?)
                    }
                    Some("entries") => Refusal::StateEntries(self.limits.state_entries_max),
                    Some("bytes") => Refusal::StateBytes(self.limits.state_bytes_max),
                    _ => return Err(unexpected()),
                };
                Ok(Sent::Refused(slot, refusal))
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

impl Slot {
    pub(super) fn is_open(&self) -> bool {
        self.draft.is_some() && self.same_as.is_none()
    }
}

/// The state changes of an event as arguments of the script: seven per room.
fn changes_of(draft: &Draft, event: &StoredEvent, slot: usize, place: u64) -> Vec<Vec<Vec<u8>>> {
    let Some(change) = draft.state.as_ref().filter(|_| !draft.kind.ephemeral) else { return Vec::new() };
    let value = if change.is_removal { Vec::new() } else { event.encode_to_vec() };
    let ends = match change.expires_at {
        _ if change.is_removal => "-".to_owned(),
        ends => ends.unwrap_or_default().to_string(),
    };
    let argument = |room: &Room| {
        let cost = entry_cost(draft.payload.len(), room.as_str(), &change.key);
        vec![
            field(room, &change.key),
            slot.to_string().into_bytes(),
            place.to_string().into_bytes(),
            change.expected.map(|revision| revision.to_string()).unwrap_or_default().into_bytes(),
            ends.clone().into_bytes(),
            cost.to_string().into_bytes(),
            value.clone(),
        ]
    };
    draft.rooms.iter().map(argument).collect()
}

/// The field of an entry in the state: room and key. No room name contains the separator.
pub(super) fn field(room: &Room, key: &str) -> Vec<u8> {
    format!("{}\0{key}", room.as_str()).into_bytes()
}

pub(super) fn slots(batches: Vec<Vec<Draft>>) -> Vec<Slot> {
    let mut first = HashMap::new();
    let mut slots = Vec::new();
    let drafts = batches.into_iter().enumerate();
    let drafts = drafts.flat_map(|(batch, drafts)| drafts.into_iter().map(move |draft| (batch, draft)));
    for (i, (batch, draft)) in drafts.enumerate() {
        let key = draft.idempotency_key.as_str();
        let same_as = if key.is_empty() { None } else { first.get(key).copied() };
        if !key.is_empty() && same_as.is_none() {
            first.insert(key.to_owned(), i);
        }
        let ephemeral_id = draft.kind.ephemeral.then(ephemeral_id);
        slots.push(Slot { draft: Some(draft), answer: None, same_as, ephemeral_id, batch, refusal: None });
    }
    slots
}

/// Refuses the batch of a slot. Slots of other batches with the same idempotency key are appended
/// instead.
pub(super) fn refuse(slots: &mut [Slot], slot: usize, refusal: Refusal) {
    let Some(batch) = slots.get(slot).map(|slot| slot.batch) else { return };
    let mut gone = Vec::new();
    for (i, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| slot.batch == batch) {
        slot.draft = None;
        gone.push(i);
    }
    if let Some(slot) = slots.get_mut(slot) {
        slot.refusal = Some(refusal);
    }
    let mut instead = HashMap::new();
    for (i, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| slot.batch != batch) {
        if let Some(first) = slot.same_as.filter(|first| gone.contains(first)) {
            slot.same_as = instead.get(&first).copied();
            instead.entry(first).or_insert(i);
        }
    }
}

/// The answer to each batch; `sizes` has the number of slots per batch.
pub(super) fn answers(
    slots: Vec<Slot>,
    sizes: &[usize],
) -> Result<Vec<Result<Vec<Appended>, Refusal>>, Fault> {
    let (mut answers, mut refusals) = (Vec::<Option<Appended>>::with_capacity(slots.len()), HashMap::new());
    for slot in slots {
        if let Some(refusal) = slot.refusal {
            refusals.insert(slot.batch, refusal);
        }
        let first = slot.same_as.and_then(|first| answers.get(first)?.as_ref()).map(|first| match first {
            Appended::Event(event) => {
                let (id, seq, time) = (event.id.clone(), event.seq, event.draft.time);
                Appended::Duplicate(Receipt { id, seq, time })
            }
            Appended::Duplicate(receipt) => Appended::Duplicate(receipt.clone()),
        });
        answers.push(slot.answer.or(first));
    }
    let mut answers = answers.into_iter();
    let answer = |(batch, size): (usize, &usize)| {
        let appended = answers.by_ref().take(*size).collect::<Option<Vec<_>>>();
        match refusals.remove(&batch) {
            Some(refusal) => Ok(Err(refusal)),
            None => appended.map(Ok).ok_or_else(|| Fault::Final("a draft without an answer".to_owned())),
        }
    };
    sizes.iter().enumerate().map(answer).collect()
}

/// The cost of a draft in a bounded store.
pub(super) fn cost(draft: &Draft) -> usize {
    let rooms: usize = draft.rooms.iter().map(|room| room.as_str().len() + 16).sum();
    ENVELOPE_BYTES + draft.payload.len() + rooms + draft.sender.len() + draft.idempotency_key.len()
}
