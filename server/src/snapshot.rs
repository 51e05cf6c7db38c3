//! Snapshots: the current state of several rooms, page by page, all consistent with one cursor.
//!
//! The cursor is the end of the log before the first entry is read. Newer entries are left out,
//! because their events are in the log after the cursor. Therefore a snapshot and the events after
//! it are complete and contain no repeat, although the pages are read one after the other.

use std::{
    str::FromStr,
    time::{Duration, UNIX_EPOCH},
};

use fanfare_proto::{
    cursor::Cursor,
    room::{Room, Tenant},
    v1,
};

use crate::{
    engine::{Engine, StateEntry, StateLimits},
    error::Refusal,
};

/// Maximum number of rooms that are read per page.
const ROOMS_PER_PAGE_MAX: usize = 64;
/// Approximate payload bytes per page.
const PAGE_BYTES_MAX: usize = 128 << 10;

/// Where a page begins.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PageToken {
    /// `None` for the first page.
    cursor: Option<Cursor>,
    /// The index of the room in the request.
    room: usize,
    /// The last key of the previous page in this room.
    after: Option<String>,
}

/// Entries of the state.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) cursor: Cursor,
    /// Each entry with its room from the request.
    pub(crate) entries: Vec<(Room, StateEntry)>,
    /// `None` on the last page.
    pub(crate) next: Option<PageToken>,
}

impl FromStr for PageToken {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let malformed = || {
            Refusal::Invalid("page_token is malformed: give the next_page_token of the page before".into())
        };
        let mut parts = text.splitn(3, ' ');
        let cursor = parts.next().and_then(|cursor| cursor.parse().ok()).ok_or_else(malformed)?;
        let room = parts.next().and_then(|room| room.parse().ok()).ok_or_else(malformed)?;
        Ok(Self { cursor: Some(cursor), room, after: parts.next().map(str::to_owned) })
    }
}

impl PageToken {
    /// The token in the form that clients receive; empty for the first page.
    pub(crate) fn text(&self) -> String {
        let Some(cursor) = self.cursor else { return String::new() };
        let after = self.after.as_ref().map(|after| format!(" {after}")).unwrap_or_default();
        format!("{cursor} {}{after}", self.room)
    }
}

impl Snapshot {
    pub(crate) async fn read(
        engine: &dyn Engine,
        tenant: &Tenant,
        rooms: &[Room],
        token: PageToken,
        entries_max: usize,
    ) -> Result<Self, Refusal> {
        let PageToken { mut cursor, room: start, mut after } = token;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (place, room) in rooms.iter().enumerate().skip(start) {
            loop {
                let is_full = entries.len() >= entries_max || bytes >= PAGE_BYTES_MAX;
                if let Some(cursor) = cursor
                    && (is_full || place - start >= ROOMS_PER_PAGE_MAX)
                {
                    let next = PageToken { cursor: Some(cursor), room: place, after };
                    return Ok(Self { cursor, entries, next: Some(next) });
                }
                let limits = StateLimits {
                    entries_max: entries_max - entries.len(),
                    bytes_max: PAGE_BYTES_MAX - bytes,
                };
                let page = engine.state_entries(tenant, room, after.as_deref(), limits).await?;
                let begun = *cursor.get_or_insert(page.cursor);
                if begun.epoch != page.cursor.epoch {
                    return Err(Refusal::Reset(page.cursor));
                }
                for entry in page.entries.into_iter().filter(|entry| entry.event.seq <= begun.seq) {
                    bytes += entry.event.draft.payload.len();
                    entries.push((room.clone(), entry));
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        match cursor {
            Some(cursor) => Ok(Self { cursor, entries, next: None }),
            None => Err(Refusal::Invalid("page_token is of a request with more rooms".into())),
        }
    }

    /// The entries for a reader of all these rooms, each event once. If an event was sent to
    /// several of them, the first of these rooms decides whether it is still current.
    pub(crate) fn once<'s>(&'s self, rooms: &'s [Room]) -> impl Iterator<Item = &'s StateEntry> {
        let is_first = |(room, entry): &&(Room, StateEntry)| {
            rooms.iter().find(|room| entry.event.rooms().contains(room)).is_none_or(|first| first == room)
        };
        self.entries.iter().filter(is_first).map(|(_, entry)| entry)
    }
}

impl StateEntry {
    /// The key that the event's type declares, without the package.
    pub(crate) fn own_key(&self) -> &str {
        self.key.split_once(' ').map_or("", |(_, key)| key)
    }

    /// The entry as a message for clients.
    pub(crate) fn message(&self, room: &Room) -> v1::StateEntry {
        let time = |millis| prost_types::Timestamp::from(UNIX_EPOCH + Duration::from_millis(millis));
        v1::StateEntry {
            room: room.as_str().to_owned(),
            key: self.own_key().to_owned(),
            event: Some(self.event.whole()),
            expires_at: self.expires_at.map(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_proto::cursor::Epoch;

    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let cursor = Some(Cursor { tag: 7, ..Cursor::new(Epoch::random(), 5) });
        for after in [None, Some("a.v1 ".to_owned()), Some("a.v1 7".to_owned())] {
            let token = PageToken { cursor, room: 3, after };
            assert_eq!(token.text().parse::<PageToken>().unwrap(), token);
        }
        assert_eq!("".parse::<PageToken>().unwrap(), PageToken::default());
        for text in ["x", "x 1", " ", "1-1 a"] {
            assert!(text.parse::<PageToken>().is_err(), "{text:?}");
        }
    }
}
