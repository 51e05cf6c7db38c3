//! The current state of a tenant's rooms: per room and key, the newest event whose type declares
//! state. This module is shared by engines: how a draft changes the state, how entries are stored,
//! and the index that validates changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use fanfare_proto::{cursor::Cursor, room::Room};
use prost::Message;

use crate::{
    config::Limits,
    error::Refusal,
    event::{Draft, Event},
};

/// The cost of an entry in addition to its payload and names, in bytes.
const ENTRY_BYTES: usize = 256;
/// Maximum number of entries that one call ends, so that the call is short.
const ENDED_MAX: usize = 64;

/// The change that an event makes: the entry of a key in each of its rooms.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StateChange {
    /// The package of the event's type, a space, and the key.
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    /// The entry is removed.
    #[prost(bool, tag = "2")]
    pub(crate) is_removal: bool,
    /// When the entry expires, in milliseconds since 1970.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) expires_at: Option<u64>,
    /// The seq that the entry's event must have; 0: there must be no entry.
    #[prost(uint64, optional, tag = "4")]
    pub(crate) expected: Option<u64>,
}

/// The place of an entry: a room, and a key as in [`StateChange`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntryKey {
    pub(crate) room: String,
    pub(crate) key: String,
}

/// An entry of the current state.
#[derive(Debug, Clone)]
pub(crate) struct StateEntry {
    pub(crate) event: Arc<Event>,
    pub(crate) key: String,
    /// In milliseconds since 1970.
    pub(crate) expires_at: Option<u64>,
}

/// Entries of one room, by key.
#[derive(Debug)]
pub(crate) struct StatePage {
    /// The end of the log, read no later than the entries. An entry may be newer; the log after the
    /// cursor has the event of every change that the page lacks.
    pub(crate) cursor: Cursor,
    pub(crate) entries: Vec<StateEntry>,
    /// The key after which the next page begins; absent after the last one.
    pub(crate) next: Option<String>,
}

/// Limits for a page of the state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StateLimits {
    pub(crate) entries_max: usize,
    /// Payload bytes. A page has at least one entry, even if that is larger.
    pub(crate) bytes_max: usize,
}

/// The metadata of an entry without its event, and an engine's own data about it.
#[derive(Debug, Clone)]
pub(crate) struct Indexed<T> {
    pub(crate) seq: u64,
    bytes: usize,
    pub(crate) expires_at: Option<u64>,
    pub(crate) value: T,
}

/// All entries of a tenant. Exact for an engine that has seen every event of the log.
#[derive(Debug)]
pub(crate) struct StateIndex<T> {
    entries: BTreeMap<EntryKey, Indexed<T>>,
    /// The entries that expire.
    ends: BTreeSet<(u64, EntryKey)>,
    bytes: usize,
}

impl<T> Default for StateIndex<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), ends: BTreeSet::new(), bytes: 0 }
    }
}

/// The clock that decides when entries expire: milliseconds since 1970.
pub(crate) fn now_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Whether an entry that expires at this time has expired.
pub(crate) fn is_over(expires_at: Option<u64>, now: u64) -> bool {
    expires_at.is_some_and(|end| end <= now)
}

/// The cost of an entry in a bounded store.
pub(crate) fn entry_cost(payload: usize, room: &str, key: &str) -> usize {
    ENTRY_BYTES + payload + room.len() + key.len()
}

impl EntryKey {
    pub(crate) fn new(room: &str, key: &str) -> Self {
        Self { room: room.to_owned(), key: key.to_owned() }
    }
}

impl<T> StateIndex<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Starts a trial of batches whose drafts get the seqs from `next` on.
    pub(crate) fn trial(&self, next: u64) -> Trial<'_, T> {
        let (changed, now) = (HashMap::new(), now_millis());
        Trial { index: self, changed, next, count: self.entries.len(), bytes: self.bytes, now }
    }

    /// The seq and cost of an entry, expired or not; zeros if there is none.
    fn held(&self, place: &EntryKey) -> (u64, usize) {
        let entry = self.entries.get(place);
        entry.map_or((0, 0), |entry| (entry.seq, entry.bytes))
    }

    fn has_ended(&self, place: &EntryKey, now: u64) -> bool {
        self.entries.get(place).is_some_and(|entry| is_over(entry.expires_at, now))
    }

    /// Inserts an entry, unless there is a newer one.
    pub(crate) fn put(
        &mut self,
        place: EntryKey,
        seq: u64,
        payload: usize,
        expires_at: Option<u64>,
        value: T,
    ) {
        if self.entries.get(&place).is_some_and(|held| held.seq > seq) {
            return;
        }
        self.remove(&place);
        let bytes = entry_cost(payload, &place.room, &place.key);
        self.bytes += bytes;
        self.ends.extend(expires_at.map(|end| (end, place.clone())));
        self.entries.insert(place, Indexed { seq, bytes, expires_at, value });
    }

    /// Removes an entry, unless it is newer than the event that removes it.
    pub(crate) fn remove_by(&mut self, place: &EntryKey, seq: u64) {
        if self.entries.get(place).is_some_and(|held| held.seq < seq) {
            self.remove(place);
        }
    }

    pub(crate) fn remove(&mut self, place: &EntryKey) {
        if let Some(held) = self.entries.remove(place) {
            self.bytes -= held.bytes;
            if let Some(end) = held.expires_at {
                self.ends.remove(&(end, place.clone()));
            }
        }
    }

    /// Removes and returns entries that have expired, at most `ENDED_MAX` per call.
    pub(crate) fn end(&mut self, now: u64) -> Vec<EntryKey> {
        let ended: Vec<EntryKey> = self
            .ends
            .iter()
            .take_while(|(end, _)| *end <= now)
            .take(ENDED_MAX)
            .map(|(_, place)| place.clone())
            .collect();
        ended.iter().for_each(|place| self.remove(place));
        ended
    }

    /// The entries of a room after a key that have not expired, by key.
    pub(crate) fn room<'s>(
        &'s self,
        room: &'s Room,
        after: Option<&str>,
        now: u64,
    ) -> impl Iterator<Item = (&'s str, &'s Indexed<T>)> + use<'s, T> {
        let start = match after {
            Some(key) => Bound::Excluded(EntryKey::new(room.as_str(), key)),
            None => Bound::Included(EntryKey::new(room.as_str(), "")),
        };
        let entries = self.entries.range((start, Bound::Unbounded));
        let of_room = entries.take_while(move |(place, _)| place.room == room.as_str());
        let lasting = of_room.filter(move |(_, entry)| !is_over(entry.expires_at, now));
        lasting.map(|(place, entry)| (place.key.as_str(), entry))
    }
}

/// The changes that batches would make, one after the other.
#[derive(Debug)]
pub(crate) struct Trial<'i, T> {
    index: &'i StateIndex<T>,
    /// Changes of the earlier batches: the seq (0 for no entry) and the cost.
    changed: HashMap<EntryKey, (u64, usize)>,
    next: u64,
    count: usize,
    bytes: usize,
    now: u64,
}

impl<T> Trial<'_, T> {
    /// Adds the drafts of a batch that will be stored. Either all of their changes are valid, or
    /// none is made.
    pub(crate) fn add<'d>(
        &mut self,
        drafts: impl Iterator<Item = &'d Draft>,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        let mut changed: HashMap<EntryKey, (u64, usize)> = HashMap::new();
        let (mut count, mut bytes, mut next) = (self.count, self.bytes, self.next);
        for draft in drafts.filter(|draft| !draft.kind.ephemeral) {
            let seq = next;
            next += 1;
            let Some(change) = &draft.state else { continue };
            let before = (count, bytes);
            for room in &draft.rooms {
                let place = EntryKey::new(room.as_str(), &change.key);
                let tried = changed.get(&place).or_else(|| self.changed.get(&place)).copied();
                let held = tried.unwrap_or_else(|| self.index.held(&place));
                let is_ended = tried.is_none() && self.index.has_ended(&place, self.now);
                let revision = if is_ended { 0 } else { held.0 };
                if change.expected.is_some_and(|expected| expected != revision) {
                    return Err(Refusal::Revision(revision));
                }
                let cost = entry_cost(draft.payload.len(), &place.room, &place.key);
                let new = if change.is_removal { (0, 0) } else { (seq, cost) };
                count = count + usize::from(new.0 > 0) - usize::from(held.0 > 0);
                bytes = bytes + new.1 - held.1;
                changed.insert(place, new);
            }
            check_bounds(before, (count, bytes), limits)?;
        }
        self.changed.extend(changed);
        (self.count, self.bytes, self.next) = (count, bytes, next);
        Ok(())
    }
}

/// Checks the limits for entries and bytes. The state may always shrink.
fn check_bounds(before: (usize, usize), after: (usize, usize), limits: &Limits) -> Result<(), Refusal> {
    if after.0 > before.0 && after.0 > limits.state_entries_max {
        return Err(Refusal::StateEntries(limits.state_entries_max));
    }
    if after.1 > before.1 && after.1 > limits.state_bytes_max {
        return Err(Refusal::StateBytes(limits.state_bytes_max));
    }
    Ok(())
}

/// Collects a page, within its limits.
#[derive(Debug)]
pub(crate) struct PageBuilder {
    limits: StateLimits,
    bytes: usize,
    entries: Vec<StateEntry>,
}

impl PageBuilder {
    pub(crate) fn new(limits: StateLimits) -> Self {
        Self { limits, bytes: 0, entries: Vec::new() }
    }

    /// Whether an entry with this payload size still fits.
    pub(crate) fn fits(&self, payload: usize) -> bool {
        self.entries.is_empty()
            || (self.entries.len() < self.limits.entries_max && self.bytes + payload <= self.limits.bytes_max)
    }

    pub(crate) fn push(&mut self, entry: StateEntry) {
        self.bytes += entry.event.draft.payload.len();
        self.entries.push(entry);
    }

    /// The page; `more` if entries remain.
    pub(crate) fn finish(self, cursor: Cursor, more: bool) -> StatePage {
        let next = self.entries.last().filter(|_| more).map(|entry| entry.key.clone());
        StatePage { cursor, entries: self.entries, next }
    }
}
