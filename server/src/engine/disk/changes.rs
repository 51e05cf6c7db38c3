//! All changes of one commit. Each table is opened once, and only if something in it changes.

use bytes::Bytes;
use fanfare_proto::room::Tenant;
use prost::Message as _;
use redb::{ReadableTable as _, WriteTransaction};

use super::store::{EVENTS, Failed, KEYS, META, RECORDS, STATE, StoredAnswer, TENANTS, seal, space_name};
use crate::engine::{Space, StoredEvent, entries::EntryKey};

/// The new value of a record.
#[derive(Debug)]
pub(super) struct RecordChange {
    pub(super) space: Space,
    pub(super) key: String,
    pub(super) revision: u64,
    /// Absent: the record is removed, or it expires and is therefore never written.
    pub(super) value: Option<Bytes>,
}

/// The new value of an entry of the state.
#[derive(Debug)]
pub(super) struct StateChanged {
    /// The log's number.
    pub(super) number: u32,
    pub(super) place: EntryKey,
    /// The seq and the event. Absent: the entry is removed.
    pub(super) entry: Option<(u64, StoredEvent)>,
}

/// The changes to write.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The newest seqs of logs.
    pub(super) heads: Vec<(Tenant, u32, u64)>,
    pub(super) events: Vec<(u32, u64, StoredEvent)>,
    /// Logs whose events are removed up to a seq.
    pub(super) trims: Vec<(Tenant, u32, u64)>,
    pub(super) keys: Vec<(u32, String, Option<StoredAnswer>)>,
    /// Changes of the state, in order.
    pub(super) state: Vec<StateChanged>,
    pub(super) records: Vec<RecordChange>,
    /// Logs to remove.
    pub(super) freed: Vec<Tenant>,
    /// The seq at which new logs begin, if it changes.
    pub(super) floor: Option<u64>,
}

impl Changes {
    pub(super) const fn is_empty(&self) -> bool {
        self.heads.is_empty()
            && self.events.is_empty()
            && self.trims.is_empty()
            && self.keys.is_empty()
            && self.state.is_empty()
            && self.records.is_empty()
            && self.freed.is_empty()
            && self.floor.is_none()
    }

    pub(super) fn apply(&self, write: &WriteTransaction) -> Result<(), Failed> {
        if !self.heads.is_empty() || !self.freed.is_empty() {
            let mut table = write.open_table(TENANTS)?;
            for (tenant, number, head) in &self.heads {
                table.insert(tenant.as_str(), (*number, *head))?;
            }
            for tenant in &self.freed {
                table.remove(tenant.as_str())?;
            }
        }
        if !self.events.is_empty() || !self.trims.is_empty() {
            let mut table = write.open_table(EVENTS)?;
            for (number, seq, event) in &self.events {
                table.insert((*number, *seq), seal(event).as_slice())?;
            }
            for (_, number, upto) in &self.trims {
                table.retain_in((*number, 0)..=(*number, *upto), |_, _| false)?;
            }
        }
        if !self.keys.is_empty() {
            let mut table = write.open_table(KEYS)?;
            for (number, key, answer) in &self.keys {
                match answer {
                    Some(answer) => {
                        _ = table.insert((*number, key.as_str()), answer.encode_to_vec().as_slice())?;
                    }
                    None => _ = table.remove((*number, key.as_str()))?,
                }
            }
        }
        if !self.state.is_empty() {
            let mut table = write.open_table(STATE)?;
            for StateChanged { number, place, entry } in &self.state {
                let key = (*number, place.room.as_str(), place.key.as_str());
                match entry {
                    Some((seq, event)) => _ = table.insert(key, (*seq, seal(event).as_slice()))?,
                    None => _ = table.remove(key)?,
                }
            }
        }
        if !self.records.is_empty() {
            let mut table = write.open_table(RECORDS)?;
            for RecordChange { space, key, revision, value } in &self.records {
                let (space, key) = (space_name(space), key.as_str());
                match value {
                    Some(value) => _ = table.insert((space.as_ref(), key), (*revision, &**value))?,
                    None => _ = table.remove((space.as_ref(), key))?,
                }
            }
            if let Some(last) = self.records.last() {
                write.open_table(META)?.insert("revision", last.revision)?;
            }
        }
        if let Some(floor) = self.floor {
            let mut meta = write.open_table(META)?;
            let before = meta.get("floor")?.map_or(0, |value| value.value());
            meta.insert("floor", floor.max(before))?;
        }
        Ok(())
    }
}
