//! Frames: consecutive events of a tenant that are appended, stored and announced as one.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_proto::{
    catalog::Catalogs,
    cursor::{Cursor, Epoch},
    room::Tenant,
};
use prost::Message;

use super::{
    super::{StoredEvent, Unreadable},
    fault::Fault,
};
use crate::event::{Draft, Event};

/// The metadata of a frame, without its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) epoch: Epoch,
    /// The seq of its first event.
    pub(super) first: u64,
    /// Number of events with a seq.
    pub(super) count: u64,
    pub(super) tag: u64,
    /// The tag of the previous frame; 0 if it is the first.
    pub(super) previous: u64,
}

/// The events of a frame.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Body {
    #[prost(message, repeated, tag = "1")]
    pub(super) entries: Vec<Entry>,
}

/// An event of a frame.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(message, optional, tag = "1")]
    pub(super) event: Option<StoredEvent>,
    /// Present for ephemeral events, which are in no log.
    #[prost(string, optional, tag = "2")]
    pub(super) ephemeral_id: Option<String>,
}

/// A frame as read from Redis.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) head: Head,
    pub(super) body: Bytes,
}

impl Head {
    /// The seq of its last event, or the seq before it if it has none.
    pub(super) const fn last(&self) -> u64 {
        self.first.saturating_add(self.count).saturating_sub(1)
    }

    /// The cursor after it.
    pub(super) const fn end(&self) -> Cursor {
        let tag = if self.count == 0 { self.previous } else { self.tag };
        Cursor { epoch: self.epoch, seq: self.last(), tag }
    }

    /// Assigns drafts their places: one event per draft, stored events in order.
    pub(super) fn place(&self, drafts: Vec<(Draft, Option<String>)>) -> Vec<Arc<Event>> {
        let mut seq = self.first;
        let place = |(draft, ephemeral_id): (Draft, Option<String>)| {
            Arc::new(match ephemeral_id {
                Some(id) => Event::new(id, 0, 0, draft),
                None => {
                    let cursor = Cursor { epoch: self.epoch, seq, tag: self.tag };
                    seq += 1;
                    Event::stored(cursor, draft)
                }
            })
        };
        drafts.into_iter().map(place).collect()
    }
}

impl Frame {
    /// Reads an announcement: the frame, and the server that appended it.
    pub(super) fn announced(message: &Bytes) -> Option<(Self, &str)> {
        let end = message.iter().position(|byte| *byte == b'\n')?;
        let text = std::str::from_utf8(message.get(..end)?).ok()?;
        let mut words = text.split(' ');
        let head = Head {
            epoch: epoch(words.next()?)?,
            first: words.next()?.parse().ok()?,
            count: words.next()?.parse().ok()?,
            tag: tag(words.next()?)?,
            previous: tag(words.next()?)?,
        };
        Some((Self { head, body: message.slice(end + 1..) }, words.next()?))
    }

    /// Its events. If any of them cannot be read, none is returned.
    pub(super) fn events(&self, tenant: &Tenant, catalogs: &Catalogs) -> Result<Vec<Arc<Event>>, Fault> {
        let entries = self.entries()?;
        let drafts = entries.into_iter().map(|entry| {
            let draft = draft(entry.event.unwrap_or_default(), tenant, catalogs)?;
            Ok((draft, entry.ephemeral_id))
        });
        Ok(self.head.place(drafts.collect::<Result<_, Fault>>()?))
    }

    /// Its entries. The number of stored ones must match its count.
    fn entries(&self) -> Result<Vec<Entry>, Fault> {
        let body =
            Body::decode(self.body.clone()).map_err(|e| Fault::Final(format!("a damaged frame: {e}")))?;
        let seqs = body.entries.iter().filter(|entry| entry.ephemeral_id.is_none()).count();
        if seqs as u64 != self.head.count {
            return Err(Fault::Final("a frame with another number of events than it says".to_owned()));
        }
        Ok(body.entries)
    }

    /// Its stored events with their places.
    pub(super) fn stored(&self) -> Result<impl Iterator<Item = (Cursor, StoredEvent)> + use<>, Fault> {
        let Head { epoch, first, tag, .. } = self.head;
        let stored = self.entries()?.into_iter().filter(|entry| entry.ephemeral_id.is_none());
        Ok((first..)
            .zip(stored)
            .map(move |(seq, entry)| (Cursor { epoch, seq, tag }, entry.event.unwrap_or_default())))
    }
}

/// The draft of a stored event.
pub(super) fn draft(stored: StoredEvent, tenant: &Tenant, catalogs: &Catalogs) -> Result<Draft, Fault> {
    stored.draft(tenant, catalogs).map_err(|why| match why {
        Unreadable::UnknownType(name) => Fault::NewerCatalog(name),
        Unreadable::Damaged => Fault::Final("a damaged event".to_owned()),
    })
}

/// A tag as it is stored.
pub(super) fn tag_text(tag: u64) -> String {
    format!("{tag:016x}")
}

/// An epoch as it is stored.
pub(super) fn epoch_text(epoch: Epoch) -> String {
    format!("{:012x}", epoch.number())
}

pub(super) fn tag(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

pub(super) fn epoch(text: &str) -> Option<Epoch> {
    u64::from_str_radix(text, 16).ok().map(Epoch::kept)
}
