//! Reading the current state of rooms.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_proto::{
    cursor::Cursor,
    room::{Room, Tenant},
};
use redis::Value;

use super::{
    super::{StateEntry, StateLimits, StatePage, StoredEvent},
    Shared,
    fault::Fault,
    frame,
    log::{READ_BYTES_MAX, cursor},
    request::field,
    script,
};
use crate::{error::Refusal, event::Event};

/// Entries that one command reads.
const ENTRIES_MAX: usize = 256;

impl Shared {
    pub(super) async fn state_entries(
        &self,
        tenant: &Tenant,
        room: &Room,
        after: Option<&str>,
        limits: StateLimits,
    ) -> Result<StatePage, Refusal> {
        let page = self.read_state(tenant, room, after, limits).await;
        page.map_err(|fault| fault.refusal("read"))
    }

    async fn read_state(
        &self,
        tenant: &Tenant,
        room: &Room,
        after: Option<&str>,
        limits: StateLimits,
    ) -> Result<StatePage, Fault> {
        let keys = self.keys.log(tenant);
        let prefix = field(room, "");
        let from = match after {
            Some(key) => [b"(".as_slice(), &field(room, key)].concat(),
            None => [b"[".as_slice(), &prefix].concat(),
        };
        let end = [b"(", room.as_str().as_bytes(), b"\x01"].concat();
        let entries_max = limits.entries_max.min(ENTRIES_MAX).to_string();
        let bytes_max = limits.bytes_max.min(READ_BYTES_MAX).to_string();
        let arguments = [from.as_slice(), &end, entries_max.as_bytes(), bytes_max.as_bytes()];
        let names = [keys.meta.as_str(), &keys.state, &keys.state_index];
        let answered = self.nodes.script(&script::STATE, &names, &arguments, true).await?;
        let unexpected = || Fault::unexpected(&Value::Nil);
        let Value::Array(parts) = answered.value else { return Err(unexpected()) };
        let mut parts = parts.into_iter();
        match parts.next() {
            Some(Value::BulkString(kind)) if kind == b"none" => {
                return Ok(StatePage { cursor: self.head(tenant).await?, entries: Vec::new(), next: None });
            }
            Some(Value::BulkString(kind)) if kind == b"entries" => {}
            _ => return Err(unexpected()),
        }
        let head: Vec<Value> = parts.by_ref().take(3).collect();
        let cursor = cursor(&head).ok_or_else(unexpected)?;
        let key_of = |field: &[u8]| {
            let key = field.get(prefix.len()..)?;
            String::from_utf8(key.to_vec()).ok()
        };
        let next = match parts.next() {
            Some(Value::BulkString(last)) if last.is_empty() => None,
            Some(Value::BulkString(last)) => Some(key_of(&last).ok_or_else(unexpected)?),
            _ => return Err(unexpected()),
        };
        let mut entries = Vec::new();
        while let Some(name) = parts.next() {
            let (Value::BulkString(name), Some(Value::BulkString(entry))) = (name, parts.next()) else {
                return Err(unexpected());
            };
            let (place, expires_at, stored) = entry_of(entry, cursor).ok_or_else(unexpected)?;
            let draft = frame::draft(stored, tenant, &self.catalogs)?;
            let key = key_of(&name).ok_or_else(unexpected)?;
            entries.push(StateEntry { event: Arc::new(Event::stored(place, draft)), key, expires_at });
        }
        Ok(StatePage { cursor, entries, next })
    }
}

/// Reads an entry: seq, tag, expiry, cost and event.
fn entry_of(entry: Vec<u8>, head: Cursor) -> Option<(Cursor, Option<u64>, StoredEvent)> {
    let entry = Bytes::from(entry);
    let mut words = entry.splitn(5, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(words.next()?).ok();
    let (seq, tag, ends, cost) = (word()?, word()?, word()?, word()?);
    let start = seq.len() + tag.len() + ends.len() + cost.len() + 4;
    let place = Cursor { epoch: head.epoch, seq: seq.parse().ok()?, tag: frame::tag(tag)? };
    let expires_at = Some(ends.parse().ok()?).filter(|ends| *ends > 0);
    let stored = prost::Message::decode(entry.slice(start..)).ok()?;
    Some((place, expires_at, stored))
}
