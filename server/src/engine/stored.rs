//! An event as engines store it: everything except its place in the log.

use bytes::Bytes;
use fanfare_proto::{
    catalog::Catalogs,
    room::{Room, Tenant},
};
use prost::Message;
use prost_types::Timestamp;

use super::StateChange;
use crate::event::Draft;

/// An event as it is stored.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredEvent {
    #[prost(string, tag = "1")]
    pub(crate) type_name: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) payload: Bytes,
    #[prost(string, repeated, tag = "3")]
    pub(crate) rooms: Vec<String>,
    #[prost(message, optional, tag = "4")]
    pub(crate) time: Option<Timestamp>,
    #[prost(string, tag = "5")]
    pub(crate) sender: String,
    #[prost(string, repeated, tag = "6")]
    pub(crate) except_sessions: Vec<String>,
    /// When it was appended, in milliseconds of the log's clock.
    #[prost(uint64, tag = "7")]
    pub(crate) millis: u64,
    /// Its cost in a bounded store.
    #[prost(uint64, tag = "8")]
    pub(crate) cost: u64,
    /// The number of the payload's string field for the event's id, if the payload does not have it
    /// yet: engines whose store assigns the place store the payload without the id.
    #[prost(uint32, optional, tag = "9")]
    pub(crate) id_field: Option<u32>,
    /// Its change of the current state of its rooms.
    #[prost(message, optional, tag = "10")]
    pub(crate) state: Option<StateChange>,
}

/// Why a stored event cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// No loaded catalog has its type: a server with a newer catalog published it.
    UnknownType(String),
    /// It is damaged.
    Damaged,
}

impl StoredEvent {
    /// For a draft, with or without its place.
    pub(crate) fn of(draft: &Draft, millis: u64, cost: usize) -> Self {
        Self {
            type_name: draft.kind.full_name.clone(),
            payload: draft.payload.clone(),
            rooms: draft.rooms.iter().map(|room| room.as_str().to_owned()).collect(),
            time: Some(draft.time),
            sender: draft.sender.clone(),
            except_sessions: draft.except_sessions.clone(),
            millis,
            cost: cost as u64,
            id_field: draft.id_field,
            state: draft.state.clone(),
        }
    }

    /// The draft, without its idempotency key.
    pub(crate) fn draft(self, tenant: &Tenant, catalogs: &Catalogs) -> Result<Draft, Unreadable> {
        let Some(kind) = catalogs.event(&self.type_name).cloned() else {
            return Err(Unreadable::UnknownType(self.type_name));
        };
        let rooms = self.rooms.iter().map(|room| Room::new(room));
        Ok(Draft {
            tenant: tenant.clone(),
            rooms: rooms.collect::<Result<_, _>>().map_err(|_| Unreadable::Damaged)?,
            time: self.time.unwrap_or_default(),
            sender: self.sender,
            kind,
            payload: self.payload,
            except_sessions: self.except_sessions,
            idempotency_key: String::new(),
            id_field: self.id_field,
            state: self.state,
        })
    }
}
