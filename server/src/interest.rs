//! The rooms that a reader wants, each from a given place on.

use std::collections::HashMap;

use fanfare_proto::room::Room;

use crate::event::Event;

/// The rooms that a reader wants.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    rooms: HashMap<Room, Since>,
    is_everything: bool,
}

/// The place from which a reader wants the events of a room: from this position on in the hub's
/// window, or after this seq in the log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Since {
    pub(crate) position: u64,
    pub(crate) seq: u64,
}

impl Interest {
    /// All rooms.
    pub(crate) fn everything() -> Self {
        Self { is_everything: true, ..Self::default() }
    }

    /// One room, from the beginning of the log.
    pub(crate) fn of(room: Room) -> Self {
        Self { rooms: HashMap::from([(room, Since::default())]), is_everything: false }
    }

    /// Adds all rooms.
    pub(crate) const fn add_everything(&mut self) {
        self.is_everything = true;
    }

    pub(crate) const fn is_everything(&self) -> bool {
        self.is_everything
    }

    /// Adds a room; false if it was already wanted.
    pub(crate) fn add(&mut self, room: Room, since: Since) -> bool {
        let is_new = !self.rooms.contains_key(&room);
        if is_new {
            self.rooms.insert(room, since);
        }
        is_new
    }

    /// Removes a room; false if it was not wanted.
    pub(crate) fn remove(&mut self, room: &Room) -> bool {
        self.rooms.remove(room).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rooms.is_empty() && !self.is_everything
    }

    pub(crate) fn rooms(&self) -> impl ExactSizeIterator<Item = &Room> {
        self.rooms.keys()
    }

    /// Whether an event read from the log is wanted.
    pub(crate) fn wants_logged(&self, event: &Event) -> bool {
        self.wants_at(event.seq, event.rooms().iter().map(Room::as_str))
    }

    /// Whether an event of these rooms at a seq of the log is wanted.
    pub(crate) fn wants_at<'r>(&self, seq: u64, mut rooms: impl Iterator<Item = &'r str>) -> bool {
        let is_wanted = |room| self.rooms.get(room).is_some_and(|since| seq > since.seq);
        self.is_everything || rooms.any(is_wanted)
    }

    /// Whether an event at a position of the hub's window is wanted.
    pub(crate) fn wants_live(&self, position: u64, event: &Event) -> bool {
        let is_wanted = |room| self.rooms.get(room).is_some_and(|since: &Since| position >= since.position);
        self.is_everything || event.rooms().iter().any(is_wanted)
    }
}
