//! A tenant's recent events by position, with an index by room.
//!
//! Positions count every event of the process, ephemeral ones too; seqs count those in the log.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use fanfare_proto::room::Room;

use crate::event::Event;

/// How much cheaper looking at a window entry is than at an index entry (which must be merged).
const SCAN_ADVANTAGE: usize = 4;

#[derive(Debug)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    /// The position of the first entry.
    first: u64,
    /// The newest seq before the first entry.
    base: u64,
    by_room: HashMap<Room, VecDeque<u64>>,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry {
    event: Arc<Event>,
    /// The newest seq up to and including this entry.
    seq: u64,
}

impl Window {
    pub(super) fn new(base: u64, events_max: usize, bytes_max: usize) -> Self {
        let (entries, by_room) = (VecDeque::new(), HashMap::new());
        Self { entries, first: 0, base, by_room, bytes: 0, events_max, bytes_max }
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        let position = self.end();
        for room in event.rooms() {
            self.by_room.entry(room.clone()).or_default().push_back(position);
        }
        self.bytes += event.recent_cost_bytes();
        let seq = if event.is_ephemeral() { self.head() } else { event.seq };
        self.entries.push_back(Entry { event, seq });
        while self.entries.len() > self.events_max || self.bytes > self.bytes_max {
            self.pop();
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Shrinks to so many bytes.
    pub(super) fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some(Entry { event, seq }) = self.entries.pop_front() else { return };
        for room in event.rooms() {
            if let Some(positions) = self.by_room.get_mut(room) {
                positions.pop_front();
                if positions.is_empty() {
                    self.by_room.remove(room);
                }
            }
        }
        self.bytes -= event.recent_cost_bytes();
        event.release();
        self.base = seq;
        self.first += 1;
    }

    /// The position after the last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The position of the first entry.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// The newest seq.
    pub(super) fn head(&self) -> u64 {
        self.entries.back().map_or(self.base, |e| e.seq)
    }

    /// The position of the first event later in the log than `seq`; `None` when the window does not reach back.
    pub(super) fn position_after(&self, seq: u64) -> Option<u64> {
        (seq >= self.base).then(|| self.first + self.entries.partition_point(|e| e.seq <= seq) as u64)
    }

    /// The newest seq before a position within the window.
    pub(super) fn seq_before(&self, position: u64) -> u64 {
        let Some(offset) = position.checked_sub(self.first + 1) else { return self.base };
        usize::try_from(offset).ok().and_then(|i| self.entries.get(i)).map_or_else(|| self.head(), |e| e.seq)
    }

    /// Looks at the events from a position on that may be in one of `rooms`, in order, until `visit` says stop.
    /// Goes by the index when the rooms are few against what there is to look at.
    pub(super) fn visit<'r>(
        &self,
        from: u64,
        rooms: impl ExactSizeIterator<Item = &'r Room>,
        mut visit: impl FnMut(u64, &Arc<Event>) -> bool,
    ) {
        let skip =
            usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.entries.len());
        if rooms.len().saturating_mul(SCAN_ADVANTAGE) >= self.entries.len() - skip {
            for (offset, entry) in self.entries.iter().enumerate().skip(skip) {
                if !visit(self.first + offset as u64, &entry.event) {
                    return;
                }
            }
            return;
        }
        let mut positions: Vec<u64> = Vec::new();
        for room in rooms {
            if let Some(of_room) = self.by_room.get(room) {
                positions.extend(of_room.range(of_room.partition_point(|p| *p < from)..));
            }
        }
        positions.sort_unstable();
        positions.dedup();
        for position in positions {
            let entry = usize::try_from(position - self.first).ok().and_then(|i| self.entries.get(i));
            if entry.is_some_and(|e| !visit(position, &e.event)) {
                return;
            }
        }
    }
}
