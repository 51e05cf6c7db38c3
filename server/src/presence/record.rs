//! How a [`User`] is stored.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_proto::{
    room::Room,
    v1::{EndSession, Transport},
};
use prost::Message;
use prost_types::Timestamp;

use super::user::{Announced, Began, Owner, RemovedRoom, Session, State, Transition, User};

#[derive(Clone, PartialEq, Message)]
struct UserRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    sessions: Vec<SessionRecord>,
    #[prost(message, repeated, tag = "3")]
    announced: Vec<AnnouncedRecord>,
    #[prost(message, repeated, tag = "4")]
    pending: Vec<TransitionRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    pid: String,
    #[prost(enumeration = "Transport", tag = "3")]
    transport: i32,
    #[prost(message, optional, tag = "4")]
    since: Option<Timestamp>,
    #[prost(string, tag = "5")]
    server: String,
    #[prost(uint64, tag = "6")]
    link: u64,
    #[prost(string, tag = "7")]
    bridge: String,
    #[prost(string, tag = "8")]
    instance: String,
    #[prost(bool, tag = "9")]
    is_ready: bool,
    #[prost(uint64, optional, tag = "10")]
    lost_at: Option<u64>,
    #[prost(message, repeated, tag = "11")]
    rooms: Vec<RoomRecord>,
    #[prost(string, tag = "12")]
    began: String,
    #[prost(bool, tag = "13")]
    began_is_certain: bool,
    #[prost(bool, tag = "14")]
    is_forsaken: bool,
    #[prost(message, optional, tag = "15")]
    ending: Option<EndSession>,
    #[prost(bool, tag = "16")]
    is_handed_over: bool,
    #[prost(message, repeated, tag = "17")]
    removals: Vec<RemovalRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct RemovalRecord {
    #[prost(string, tag = "1")]
    room: String,
    #[prost(uint64, tag = "2")]
    nonce: u64,
}

#[derive(Clone, PartialEq, Message)]
struct RoomRecord {
    #[prost(string, tag = "1")]
    room: String,
    #[prost(string, tag = "2")]
    catalog: String,
}

#[derive(Clone, PartialEq, Message)]
struct AnnouncedRecord {
    #[prost(string, tag = "1")]
    room: String,
    #[prost(string, tag = "2")]
    catalog: String,
    #[prost(uint64, optional, tag = "3")]
    gone_at: Option<u64>,
    #[prost(string, tag = "4")]
    server: String,
}

#[derive(Clone, PartialEq, Message)]
struct TransitionRecord {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    room: String,
    #[prost(string, tag = "3")]
    session_id: String,
    #[prost(string, tag = "4")]
    catalog: String,
    #[prost(bool, tag = "5")]
    came: bool,
    #[prost(uint64, tag = "6")]
    at: u64,
}

/// Encodes a user's record.
pub(super) fn encode(user: &User) -> Bytes {
    let record = UserRecord {
        name: user.name.to_string(),
        sessions: user.sessions.iter().map(session_record).collect(),
        announced: user.announced.iter().map(announced_record).collect(),
        pending: user.pending.iter().map(transition_record).collect(),
    };
    record.encode_to_vec().into()
}

/// Reads a user's record; `None` if it is invalid.
pub(super) fn decode(bytes: &[u8]) -> Option<User> {
    let record = UserRecord::decode(bytes).ok()?;
    Some(User {
        name: record.name.into(),
        sessions: record.sessions.into_iter().map(session).collect::<Option<_>>()?,
        announced: record.announced.into_iter().map(announced).collect::<Option<_>>()?,
        pending: record.pending.into_iter().map(transition).collect::<Option<_>>()?,
    })
}

fn session_record(session: &Session) -> SessionRecord {
    let room = |(room, catalog): (&Room, &Arc<str>)| RoomRecord {
        room: room.as_str().to_owned(),
        catalog: catalog.to_string(),
    };
    SessionRecord {
        id: session.id.to_string(),
        pid: session.pid.to_string(),
        transport: session.transport.into(),
        since: Some(session.since),
        server: session.owner.server.as_str().to_owned(),
        link: session.owner.link,
        bridge: session.owner.bridge.to_string(),
        instance: session.owner.instance.to_string(),
        is_ready: session.state == State::Ready,
        lost_at: if let State::Lost(at) = session.state { Some(at) } else { None },
        rooms: session.rooms.iter().map(room).collect(),
        began: session.began.cursor.to_string(),
        began_is_certain: session.began.is_certain,
        is_forsaken: session.is_forsaken,
        ending: session.ending.as_deref().cloned(),
        is_handed_over: session.is_handed_over,
        removals: session.removals.iter().map(removal_record).collect(),
    }
}

fn removal_record(removal: &RemovedRoom) -> RemovalRecord {
    RemovalRecord { room: removal.room.as_str().to_owned(), nonce: removal.nonce }
}

fn removal(record: RemovalRecord) -> Option<RemovedRoom> {
    Some(RemovedRoom { room: Room::new(&record.room).ok()?, nonce: record.nonce })
}

fn session(record: SessionRecord) -> Option<Session> {
    let transport = record.transport();
    let state = match record.lost_at {
        Some(at) => State::Lost(at),
        None if record.is_ready => State::Ready,
        None => State::Opening,
    };
    let room = |record: RoomRecord| Some((Room::new(&record.room).ok()?, record.catalog.into()));
    Some(Session {
        id: record.id.into(),
        pid: record.pid.into(),
        transport,
        since: record.since?,
        owner: Owner {
            server: record.server.as_str().into(),
            link: record.link,
            bridge: record.bridge.into(),
            instance: record.instance.into(),
        },
        state,
        rooms: record.rooms.into_iter().map(room).collect::<Option<_>>()?,
        began: Began { cursor: record.began.into(), is_certain: record.began_is_certain },
        is_forsaken: record.is_forsaken,
        ending: record.ending.map(Box::new),
        is_handed_over: record.is_handed_over,
        removals: record.removals.into_iter().map(removal).collect::<Option<_>>()?,
    })
}

fn announced_record(announced: &Announced) -> AnnouncedRecord {
    let gone = announced.gone.as_ref();
    AnnouncedRecord {
        room: announced.room.as_str().to_owned(),
        catalog: announced.catalog.to_string(),
        gone_at: gone.map(|(at, _)| *at),
        server: gone.map(|(_, server)| server.as_str().to_owned()).unwrap_or_default(),
    }
}

fn announced(record: AnnouncedRecord) -> Option<Announced> {
    Some(Announced {
        room: Room::new(&record.room).ok()?,
        catalog: record.catalog.into(),
        gone: record.gone_at.map(|at| (at, record.server.as_str().into())),
    })
}

fn transition_record(transition: &Transition) -> TransitionRecord {
    TransitionRecord {
        id: transition.id,
        room: transition.room.as_str().to_owned(),
        session_id: transition.session_id.to_string(),
        catalog: transition.catalog.to_string(),
        came: transition.came,
        at: transition.at,
    }
}

fn transition(record: TransitionRecord) -> Option<Transition> {
    Some(Transition {
        id: record.id,
        room: Room::new(&record.room).ok()?,
        session_id: record.session_id.into(),
        catalog: record.catalog.into(),
        came: record.came,
        at: record.at,
    })
}
