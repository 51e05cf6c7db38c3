//! Everything that one commit changes. Each table is opened once, and only when something in it changes.

use std::sync::Arc;

use fanfare_proto::room::Tenant;
use prost::Message as _;
use redb::{ReadableTable as _, WriteTransaction};

use super::store::{EVENTS, Failed, KEYS, META, SESSIONS, StoredAnswer, TENANTS, seal};
use crate::engine::{OldRecord, StoredEvent};

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The newest seqs of logs.
    pub(super) heads: Vec<(Tenant, u32, u64)>,
    pub(super) events: Vec<(u32, u64, StoredEvent)>,
    /// The events of a log up to a seq go.
    pub(super) trims: Vec<(Tenant, u32, u64)>,
    pub(super) keys: Vec<(u32, String, Option<StoredAnswer>)>,
    pub(super) records: Vec<Arc<[OldRecord]>>,
    /// Logs that go.
    pub(super) freed: Vec<Tenant>,
    /// Where new logs begin, when that changes.
    pub(super) floor: Option<u64>,
}

impl Changes {
    pub(super) const fn is_empty(&self) -> bool {
        self.heads.is_empty()
            && self.events.is_empty()
            && self.trims.is_empty()
            && self.keys.is_empty()
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
        if !self.records.is_empty() {
            let mut table = write.open_table(SESSIONS)?;
            for (key, record) in self.records.iter().flat_map(|records| records.iter()) {
                match record {
                    Some(record) => _ = table.insert(key.as_str(), record.as_slice())?,
                    None => _ = table.remove(key.as_str())?,
                }
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
