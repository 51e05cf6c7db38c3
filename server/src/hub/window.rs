//! A tenant's recent events by position, with an index by room.
//!
//! Positions count every event of the process, including ephemeral ones; seqs count the events in
//! the log.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use fanfare_proto::{cursor::Cursor, room::Room};

use crate::event::Event;

/// How much cheaper it is to look at a window entry than at an index entry, which must be merged.
const SCAN_ADVANTAGE: usize = 4;

#[derive(Debug)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    /// The position of the first entry.
    first: u64,
    /// The place in the log before the first entry.
    base: Cursor,
    by_room: HashMap<Room, VecDeque<u64>>,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry {
    event: Arc<Event>,
    /// The newest seq in the log at this entry, and its tag.
    seq: u64,
    tag: u64,
}

impl Window {
    pub(super) fn new(base: Cursor, events_max: usize, bytes_max: usize) -> Self {
        let (entries, by_room) = (VecDeque::new(), HashMap::new());
        Self { entries, first: 0, base, by_room, bytes: 0, events_max, bytes_max }
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        let position = self.end();
        for room in event.rooms() {
            self.by_room.entry(room.clone()).or_default().push_back(position);
        }
        event.retain();
        self.bytes += event.recent_cost_bytes();
        let Cursor { seq, tag, .. } = if event.is_ephemeral() { self.head() } else { self.at(&event) };
        self.entries.push_back(Entry { event, seq, tag });
        while self.entries.len() > self.events_max || self.bytes > self.bytes_max {
            self.pop();
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Removes the oldest entries until at most `bytes_max` bytes are left.
    pub(super) fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            self.pop();
        }
    }

    /// Empties the window and restarts it at another place, possibly of another history.
    pub(super) fn reset(&mut self, base: Cursor) {
        while !self.entries.is_empty() {
            self.pop();
        }
        self.base = base;
    }

    const fn at(&self, event: &Event) -> Cursor {
        Cursor { seq: event.seq, tag: event.tag, ..self.base }
    }

    fn pop(&mut self) {
        let Some(Entry { event, seq, tag }) = self.entries.pop_front() else { return };
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
        self.base = Cursor { seq, tag, ..self.base };
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

    /// The newest place in the log.
    pub(super) fn head(&self) -> Cursor {
        self.entries.back().map_or(self.base, |e| self.cursor(e))
    }

    const fn cursor(&self, entry: &Entry) -> Cursor {
        Cursor { seq: entry.seq, tag: entry.tag, ..self.base }
    }

    /// The position of the first event after a cursor in the log. `None` if the window does not
    /// reach back that far or if the cursor belongs to another history.
    pub(super) fn position_after(&self, cursor: Cursor) -> Option<u64> {
        if cursor.epoch != self.base.epoch || cursor.seq < self.base.seq {
            return None;
        }
        let count = self.entries.partition_point(|entry| entry.seq <= cursor.seq);
        let position = self.first + count as u64;
        let before = self.cursor_before(position);
        (before.seq != cursor.seq || before.tag == cursor.tag).then_some(position)
    }

    /// The place in the log before a position in the window.
    pub(super) fn cursor_before(&self, position: u64) -> Cursor {
        let Some(offset) = position.checked_sub(self.first + 1) else { return self.base };
        let entry = usize::try_from(offset).ok().and_then(|i| self.entries.get(i));
        entry.map_or_else(|| self.head(), |entry| self.cursor(entry))
    }

    /// Visits all events from a position on, in order, until `visit` returns false. `visit`
    /// receives the position, the newest seq there, and the event.
    pub(super) fn visit_all(&self, from: u64, mut visit: impl FnMut(u64, u64, &Arc<Event>) -> bool) {
        let skip = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        for (offset, entry) in self.entries.iter().enumerate().skip(skip) {
            if !visit(self.first + offset as u64, entry.seq, &entry.event) {
                return;
            }
        }
    }

    /// Visits the events from a position on that may be in one of `rooms`, in order, until `visit`
    /// returns false. `visit` receives the position, the newest seq there, and the event. Uses the
    /// index if there are few rooms compared with the entries to look at.
    pub(super) fn visit<'r>(
        &self,
        from: u64,
        rooms: impl ExactSizeIterator<Item = &'r Room>,
        mut visit: impl FnMut(u64, u64, &Arc<Event>) -> bool,
    ) {
        let skip =
            usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.entries.len());
        if rooms.len().saturating_mul(SCAN_ADVANTAGE) >= self.entries.len() - skip {
            return self.visit_all(from, visit);
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
            if entry.is_some_and(|e| !visit(position, e.seq, &e.event)) {
                return;
            }
        }
    }
}
