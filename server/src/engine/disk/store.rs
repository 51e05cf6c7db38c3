//! The file of the disk engine: its tables, and how records are written.
//!
//! Every record of an event carries a checksum of its own, so that damage is noticed when the store
//! is opened.

use std::{
    borrow::Cow,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use bytes::Bytes;
use fanfare_proto::{cursor::Epoch, room::Tenant};
use prost::Message;
use prost_types::Timestamp;
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable, TableDefinition, WriteTransaction};

use super::{
    changes::Changes,
    file::{self, Suspicion},
    rewrite::rewrite,
};
use crate::{
    engine::{
        Receipt, Record, Space, StoredEvent,
        entries::{EntryKey, StateIndex},
    },
    error::Error,
};

/// The version of the table layout; any other version is refused.
const FORMAT: u64 = 2;
/// The previous layout. Its session records are no longer used.
const FORMAT_BEFORE: u64 = 1;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Name → number and newest seq.
pub(super) const TENANTS: TableDefinition<'_, &str, (u32, u64)> = TableDefinition::new("tenants");
/// Tenant's number and seq → checksum and [`StoredEvent`].
pub(super) const EVENTS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("events");
/// Tenant's number and idempotency key → [`StoredAnswer`].
pub(super) const KEYS: TableDefinition<'_, (u32, &str), &[u8]> = TableDefinition::new("keys");
/// Space and key → revision and value. Records that expire are not written.
pub(super) const RECORDS: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("records");
/// Tenant's number, room and key → seq, checksum and [`StoredEvent`] of an entry of the state.
pub(super) const STATE: TableDefinition<'_, (u32, &str, &str), (u64, &[u8])> = TableDefinition::new("state");
/// A table of the previous layout.
const SESSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sessions");

/// Any failure of the store. The cause goes to the log; callers are asked to retry.
pub(super) type Failed = redb::Error;

/// The answer to an append with an idempotency key.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredAnswer {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint64, tag = "2")]
    seq: u64,
    #[prost(message, optional, tag = "3")]
    time: Option<Timestamp>,
    #[prost(uint64, tag = "4")]
    pub(super) millis: u64,
}

/// A space, as it is written in the store.
pub(super) fn space_name(space: &Space) -> Cow<'static, str> {
    match space {
        Space::Leases => "leases".into(),
        Space::Occupancy => "occupancy".into(),
        Space::Revocations => "revocations".into(),
        Space::Users(tenant) => format!("users:{}", tenant.as_str()).into(),
    }
}

fn space(name: &str) -> Option<Space> {
    match name {
        "leases" => Some(Space::Leases),
        "occupancy" => Some(Space::Occupancy),
        "revocations" => Some(Space::Revocations),
        other => Tenant::new(other.strip_prefix("users:")?).ok().map(Space::Users),
    }
}

/// A record of an event: its checksum, then the event.
pub(super) fn seal(event: &StoredEvent) -> Vec<u8> {
    let bytes = event.encode_to_vec();
    [&crc32fast::hash(&bytes).to_le_bytes()[..], &bytes].concat()
}

/// Reads a record; `None` when it is damaged.
pub(super) fn unseal(record: &[u8]) -> Option<StoredEvent> {
    let (sum, bytes) = record.split_first_chunk::<4>()?;
    if crc32fast::hash(bytes) != u32::from_le_bytes(*sum) {
        return None;
    }
    StoredEvent::decode(bytes).ok()
}

impl StoredAnswer {
    pub(super) fn of(answer: &Receipt, millis: u64) -> Self {
        Self { id: answer.id.clone(), seq: answer.seq, time: Some(answer.time), millis }
    }

    pub(super) fn receipt(self) -> Receipt {
        Receipt { id: self.id, seq: self.seq, time: self.time.unwrap_or_default() }
    }
}

/// A tenant's log as read from the store, as far as the writer needs it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) tenant: Tenant,
    pub(super) number: u32,
    pub(super) head: u64,
    /// The time and cost of each event, oldest first.
    pub(super) retained: Vec<(u64, u64)>,
    /// Idempotency keys with their time, oldest first.
    pub(super) keys: Vec<(u64, String, Receipt)>,
    pub(super) state: StateIndex<()>,
}

impl Loaded {
    fn new(tenant: Tenant, number: u32, head: u64) -> Self {
        let (retained, keys, state) = Default::default();
        Self { tenant, number, head, retained, keys, state }
    }
}

/// The contents of a store.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) logs: Vec<Loaded>,
    pub(super) records: Vec<(Space, Record)>,
    /// The newest revision of any record.
    pub(super) revision: u64,
    /// The last time of the log's clock, in milliseconds; 0 in a new store.
    pub(super) clock: u64,
    /// The seq at which new logs begin.
    pub(super) floor: u64,
}

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening<'a> {
    pub(super) folder: &'a Path,
    /// Acknowledged writes may not be on the disk when a crash occurs; the epoch then changes at
    /// the next start.
    pub(super) late: bool,
    /// The epoch, if the same process opens the store again: nothing was lost then.
    pub(super) known: Option<Epoch>,
    /// Pages of the file may never have reached the disk.
    pub(super) is_suspect: bool,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Store {
    database: Database,
    pub(super) epoch: Epoch,
    suspicion: Suspicion,
}

pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join("log.redb")
}

impl Store {
    /// Opens the store, or creates one in an empty folder, and reads its contents. After a crash,
    /// exactly the committed data is present. Every event's checksum is verified.
    pub(super) fn open(opening: Opening<'_>) -> Result<(Self, Contents), Error> {
        let folder = opening.folder;
        let opened = unpanicked(|| {
            let store = Self::open_file(opening)?;
            let contents = store.load(folder)?;
            Ok((store, contents))
        });
        opened.unwrap_or_else(|| {
            let problem = damaged(folder, "the file is not what was written");
            Err(Error::Store { folder: folder.display().to_string(), problem })
        })
    }

    /// Whether pages of the file may never have reached the disk.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspicion.load(Ordering::Acquire)
    }

    fn open_file(opening: Opening<'_>) -> Result<Self, Error> {
        let Opening { folder, late, known, is_suspect } = opening;
        let refuse = |problem: String| Error::Store { folder: folder.display().to_string(), problem };
        let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        created.map_err(|e| refuse(e.to_string()))?;
        let file = path(folder);
        let unusable = |error: Failed| match error {
            Failed::DatabaseAlreadyOpen => refuse("another process uses it; one server owns a folder".into()),
            other => refuse(damaged(folder, &other.to_string())),
        };
        if is_suspect || file::mark(&file).exists() {
            tracing::warn!("the disk failed to take what was written: the log is copied into a fresh file");
            rewrite(&file).map_err(unusable)?;
        }
        let (database, suspicion) = file::open(&file).map_err(|error| unusable(error.into()))?;
        let epoch = prepare(&database, late, known).map_err(|e| refuse(damaged(folder, &e.to_string())))?;
        match epoch {
            Ok(number) => Ok(Self { database, epoch: Epoch::kept(number), suspicion }),
            Err(format) => Err(refuse(format!(
                "it was written by another version of Fanfare (format {format}, want {FORMAT}); use that version, or another folder"
            ))),
        }
    }

    fn load(&self, folder: &Path) -> Result<Contents, Error> {
        let refuse = |problem: &str| Error::Store {
            folder: folder.display().to_string(),
            problem: damaged(folder, problem),
        };
        let loaded = self.load_all().map_err(|e| refuse(&e.to_string()))?;
        loaded.map_err(|place| refuse(&place))
    }

    /// The outer error is a failure of the store; the inner one names the damaged record.
    fn load_all(&self) -> Result<Result<Contents, String>, Failed> {
        let read = self.database.begin_read()?;
        let (tenants, events, keys) =
            (read.open_table(TENANTS)?, read.open_table(EVENTS)?, read.open_table(KEYS)?);
        let entries = read.open_table(STATE)?;
        let mut all = Vec::new();
        for entry in tenants.iter()? {
            let (name, place) = entry?;
            let (number, head) = place.value();
            let Ok(tenant) = Tenant::new(name.value()) else {
                return Ok(Err(format!("{:?} is no tenant", name.value())));
            };
            let mut loaded = Loaded::new(tenant, number, head);
            let mut next = None;
            for entry in events.range((number, 0)..=(number, u64::MAX))? {
                let (key, record) = entry?;
                let seq = key.value().1;
                let event = unseal(record.value()).filter(|_| next.is_none_or(|next| next == seq));
                let Some(event) = event else {
                    return Ok(Err(format!(
                        "the event {seq} of tenant {:?} is not what was written",
                        name.value()
                    )));
                };
                loaded.retained.push((event.millis, event.cost));
                next = Some(seq + 1);
            }
            if next.is_some_and(|next| next != head + 1) {
                return Ok(Err(format!("the newest events of tenant {:?} are missing", name.value())));
            }
            for entry in keys.range((number, "")..(number + 1, ""))? {
                let (key, record) = entry?;
                let Ok(answer) = StoredAnswer::decode(record.value()) else {
                    return Ok(Err(format!(
                        "an idempotency key of tenant {:?} is not what was written",
                        name.value()
                    )));
                };
                loaded.keys.push((answer.millis, key.value().1.to_owned(), answer.receipt()));
            }
            let Some(state) = state_of(&entries, number, head)? else {
                return Ok(Err(format!("the state of tenant {:?} is not what was written", name.value())));
            };
            loaded.state = state;
            loaded.keys.sort_by_key(|(millis, ..)| *millis);
            all.push(loaded);
        }
        let mut records = Vec::new();
        for entry in read.open_table(RECORDS)?.iter()? {
            let (place, record) = entry?;
            let ((name, key), (revision, value)) = (place.value(), record.value());
            let Some(space) = space(name) else {
                return Ok(Err(format!("{name:?} is no space of records")));
            };
            let value = Some(Bytes::copy_from_slice(value));
            records.push((space, Record { key: key.into(), value, revision }));
        }
        let meta = read.open_table(META)?;
        let number = |name| -> Result<u64, Failed> { Ok(meta.get(name)?.map_or(0, |value| value.value())) };
        let (noted, floor, revision) = (number("clock")?, number("floor")?, number("revision")?);
        let last = |log: &Loaded| {
            let event = log.retained.iter().map(|(millis, _)| *millis).max();
            event.max(log.keys.last().map(|(millis, ..)| *millis))
        };
        let clock = all.iter().filter_map(last).max().unwrap_or_default().max(noted);
        Ok(Ok(Contents { logs: all, records, revision, clock, floor }))
    }

    /// Commits changes. They are on the disk when this returns. `late` changes reach the disk with
    /// the next commit that is not late.
    pub(super) fn commit(&self, changes: &Changes, late: bool) -> Result<(), Failed> {
        let write = self.begin(late)?;
        changes.apply(&write)?;
        Ok(write.commit()?)
    }

    fn begin(&self, late: bool) -> Result<WriteTransaction, Failed> {
        let mut write = self.database.begin_write()?;
        write.set_durability(if late { Durability::None } else { Durability::Immediate })?;
        Ok(write)
    }

    /// Ensures that everything is on the disk: the epoch stays the same when the store is opened
    /// again, and the clock continues from `clock`.
    pub(super) fn conclude(&self, clock: u64) -> Result<(), Failed> {
        let write = self.begin(false)?;
        {
            let mut meta = write.open_table(META)?;
            meta.insert("late", 0)?;
            meta.insert("clock", clock)?;
        }
        Ok(write.commit()?)
    }

    /// Visits the entries of a room's state after a key, by key, until `visit` returns false;
    /// `None` stands for a damaged entry.
    pub(super) fn visit_state(
        &self,
        number: u32,
        room: &str,
        after: Option<&str>,
        mut visit: impl FnMut(&str, u64, Option<StoredEvent>) -> bool,
    ) -> Result<(), Failed> {
        let read = self.database.begin_read()?;
        let state = read.open_table(STATE)?;
        for entry in state.range((number, room, after.unwrap_or_default())..)? {
            let (key, value) = entry?;
            let ((of, in_room, key), (seq, record)) = (key.value(), value.value());
            if (of, in_room) != (number, room) {
                break;
            }
            if after != Some(key) && !visit(key, seq, unseal(record)) {
                break;
            }
        }
        Ok(())
    }

    /// Visits the events of a tenant after a seq and up to another, in order, until `visit` returns
    /// false; `None` stands for a damaged event.
    pub(super) fn visit(
        &self,
        number: u32,
        after: u64,
        last: u64,
        mut visit: impl FnMut(u64, Option<StoredEvent>) -> bool,
    ) -> Result<(), Failed> {
        let read = self.database.begin_read()?;
        let events = read.open_table(EVENTS)?;
        for entry in events.range((number, after + 1)..=(number, last))? {
            let (key, record) = entry?;
            if !visit(key.value().1, unseal(record.value())) {
                break;
            }
        }
        Ok(())
    }
}

/// The state of a tenant; `None` when an entry is damaged.
fn state_of(
    entries: &impl ReadableTable<(u32, &'static str, &'static str), (u64, &'static [u8])>,
    number: u32,
    head: u64,
) -> Result<Option<StateIndex<()>>, Failed> {
    let mut state = StateIndex::default();
    for entry in entries.range((number, "", "")..(number + 1, "", ""))? {
        let (key, value) = entry?;
        let ((_, room, key), (seq, record)) = (key.value(), value.value());
        let Some(event) = unseal(record).filter(|_| seq <= head) else { return Ok(None) };
        let expires_at = event.state.as_ref().and_then(|change| change.expires_at);
        state.put(EntryKey::new(room, key), seq, event.payload.len(), expires_at, ());
    }
    Ok(Some(state))
}

/// Runs work that may read a damaged file, where redb sometimes panics instead of returning an
/// error; `None` if it panicked.
pub(super) fn unpanicked<T>(work: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok()
}

fn damaged(folder: &Path, problem: &str) -> String {
    format!(
        "{problem}. Nothing was changed. Put back a copy of {file}, or, to begin with an empty log (clients then read current state anew), move that file away",
        file = path(folder).display()
    )
}

/// Creates missing tables. Returns the epoch, or the format if it is unknown.
fn prepare(database: &Database, late: bool, known: Option<Epoch>) -> Result<Result<u64, u64>, Failed> {
    let write = database.begin_write()?;
    let epoch = {
        let mut meta = write.open_table(META)?;
        let format = meta.get("format")?.map(|value| value.value());
        match format {
            None => {
                meta.insert("format", FORMAT)?;
                let epoch = Epoch::random().number();
                meta.insert("epoch", epoch)?;
                Ok(epoch)
            }
            Some(FORMAT | FORMAT_BEFORE) => {
                meta.insert("format", FORMAT)?;
                let value = |name| -> Result<u64, Failed> {
                    Ok(meta.get(name)?.map(|value| value.value()).unwrap_or_default())
                };
                let (mut epoch, was_late) = (value("epoch")?, value("late")? != 0 && known.is_none());
                if was_late {
                    // Clients may have cursors beyond the end of the remaining log.
                    tracing::warn!(
                        "what was answered before the crash may be lost: clients read current state anew"
                    );
                    epoch = Epoch::random().number();
                    meta.insert("epoch", epoch)?;
                }
                Ok(epoch)
            }
            Some(other) => Err(other),
        }
    };
    if epoch.is_ok() {
        write.open_table(META)?.insert("late", u64::from(late))?;
    }
    write.open_table(TENANTS)?;
    write.open_table(EVENTS)?;
    write.open_table(KEYS)?;
    write.open_table(RECORDS)?;
    write.open_table(STATE)?;
    if epoch.is_ok() && write.delete_table(SESSIONS)? {
        tracing::warn!("the log is of an earlier version: it is kept, but sessions cannot be recovered");
    }
    write.commit()?;
    Ok(epoch)
}
