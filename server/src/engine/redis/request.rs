//! The request that appends a frame, and its answer.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fanfare_proto::{
    cursor::{Cursor, Epoch},
    room::Tenant,
};
use prost::Message as _;
use prost_types::Timestamp;
use redis::Value;

use super::{
    super::{Appended, Receipt, StoredEvent},
    Shared,
    fault::Fault,
    frame::{Body, Entry, Head, epoch, epoch_text, tag, tag_text},
    log::text,
};
use crate::event::{Draft, ephemeral_id};

/// How long the number of a server's last batch is remembered: longer than a network or a Redis
/// that hangs can hold back a copy of a batch.
const BATCH_AGE_MAX: Duration = Duration::from_secs(3600);
/// What an event costs beside its payload and names, about.
const ENVELOPE_BYTES: usize = 256;

/// A draft of a frame, and its answer.
#[derive(Debug)]
pub(super) struct Slot {
    /// Absent when it was answered.
    pub(super) draft: Option<Draft>,
    pub(super) answer: Option<Appended>,
    /// An earlier one of the same frame has the same idempotency key.
    same_as: Option<usize>,
    pub(super) ephemeral_id: Option<String>,
}

/// What became of a frame.
pub(super) enum Sent {
    /// Its place, and whether the index may not have the tenant.
    Appended(Head, bool),
    /// Nothing was appended: these slots were answered before.
    Known(Vec<(usize, Receipt)>),
}

/// A frame on its way.
pub(super) struct Request {
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
    /// The slots that have an idempotency key, in the order of the keys.
    keyed: Vec<usize>,
    count: u64,
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
            number.to_string().into_bytes(),
        ];
        arguments.extend(places);
        let mut all = vec![names.meta, names.log, names.channel, batch];
        all.extend(keys);
        Self { keys: all, arguments, keyed, count }
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

pub(super) fn slots(drafts: Vec<Draft>) -> Vec<Slot> {
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

pub(super) fn answers(slots: Vec<Slot>) -> Result<Vec<Appended>, Fault> {
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

/// What a draft costs in a bounded store.
pub(super) fn cost(draft: &Draft) -> usize {
    let rooms: usize = draft.rooms.iter().map(|room| room.as_str().len() + 16).sum();
    ENVELOPE_BYTES + draft.payload.len() + rooms + draft.sender.len() + draft.idempotency_key.len()
}
