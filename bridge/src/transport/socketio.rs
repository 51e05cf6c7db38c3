//! Socket.IO protocol 5 (socket.io/docs/v4/socket-io-protocol) over Engine.IO, for socket.io-client
//! 3.x and 4.x. Packet types and their codec are socketioxide's.
//!
//! A connection has one session per namespace that its client connects to; each session sees the
//! catalogs of its namespace.

mod connect;
mod packet;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fanfare_proto::v1::Reason;

use super::engineio::{self, Application, Incoming};
use crate::{
    refusal::Refusal,
    session::Session,
    sessions::{Sessions, calls::Pause},
};
use packet::{Attachments, Packet, PacketFault};

/// Namespaces that a connection may be connected to at once.
const NAMESPACES_MAX: usize = 16;

/// An Engine.IO connection that speaks Socket.IO.
pub(crate) type Connection = engineio::Connection<SocketIo>;

/// The application for all connections.
#[derive(Debug)]
pub(crate) struct SocketIo {
    pub(crate) sessions: Arc<Sessions>,
}

/// The data of one connection.
#[derive(Debug, Default)]
pub(crate) struct Client {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Member>,
    /// A packet that still lacks attachments.
    attachments: Option<Box<Attachments>>,
    is_closed: bool,
}

/// The connection's membership of a namespace.
#[derive(Debug)]
struct Member {
    namespace: Arc<str>,
    /// `None`: the token is being verified and the rooms are being confirmed.
    session: Option<Arc<Session>>,
}

impl Client {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, namespace: &str) -> Option<Arc<Session>> {
        let state = self.lock();
        let member = state.members.iter().find(|member| &*member.namespace == namespace);
        member.and_then(|member| member.session.clone())
    }

    /// Any session of the connection: gets errors that cannot be assigned to a session.
    fn any_session(&self) -> Option<Arc<Session>> {
        self.lock().members.iter().find_map(|member| member.session.clone())
    }

    /// The connection leaves a namespace; returns its session, and whether others remain. `None`:
    /// it was not in the namespace.
    fn leave(&self, namespace: &str) -> Option<(Option<Arc<Session>>, bool)> {
        let mut state = self.lock();
        let at = state.members.iter().position(|member| &*member.namespace == namespace)?;
        let member = state.members.swap_remove(at);
        let has_others = state.members.iter().any(|member| member.session.is_some());
        Some((member.session, has_others))
    }
}

impl Application for SocketIo {
    type Client = Client;

    fn receive(&self, connection: &Arc<Connection>, incoming: Incoming) -> Pause {
        let packet = match incoming {
            Incoming::Text(text) => self.begin_packet(connection, text),
            Incoming::Binary(bytes) => continue_packet(connection, bytes),
        };
        match packet {
            Ok(Some(packet)) => self.take(connection, packet),
            Ok(None) => None,
            Err(fault) => self.refuse(connection, fault),
        }
    }

    fn close(&self, connection: &Arc<Connection>) {
        let members = {
            let mut state = connection.client.lock();
            state.is_closed = true;
            state.attachments = None;
            std::mem::take(&mut state.members)
        };
        for session in members.into_iter().filter_map(|member| member.session) {
            self.sessions.depart(&session);
        }
    }
}

/// Adds the next attachment to a packet.
fn continue_packet(connection: &Connection, bytes: Vec<u8>) -> Result<Option<Packet>, PacketFault> {
    let mut state = connection.client.lock();
    // Binary data that no packet announced.
    let mut attachments = state.attachments.take().ok_or(PacketFault::Malformed)?;
    attachments.push(bytes)?;
    if attachments.are_complete() {
        return attachments.finish().map(Some);
    }
    state.attachments = Some(attachments);
    Ok(None)
}

impl SocketIo {
    fn begin_packet(&self, connection: &Connection, text: String) -> Result<Option<Packet>, PacketFault> {
        if connection.client.lock().attachments.is_some() {
            return Err(PacketFault::Malformed);
        }
        match packet::decode(text, self.sessions.config.payload_bytes_max)? {
            packet::Decoded::Whole(packet) => Ok(Some(packet)),
            packet::Decoded::Partial(attachments) => {
                if connection.client.session(attachments.namespace()).is_none() {
                    return Err(PacketFault::Malformed);
                }
                connection.client.lock().attachments = Some(Box::new(attachments));
                Ok(None)
            }
        }
    }

    fn take(&self, connection: &Arc<Connection>, packet: Packet) -> Pause {
        match packet {
            Packet::Connect { namespace, auth } => {
                self.begin_connect(connection, &namespace, auth);
                None
            }
            Packet::Event { namespace, emission } => match connection.client.session(&namespace) {
                // Messages of a session that was ended are ignored.
                Some(session) if session.is_closed() => None,
                Some(session) => self.sessions.emit(&session, emission),
                None => cut(connection, "an event for a namespace that is not connected"),
            },
            Packet::Disconnect { namespace } => {
                let Some((session, has_others)) = connection.client.leave(&namespace) else {
                    return cut(connection, "a DISCONNECT from a namespace that is not connected");
                };
                if let Some(session) = session {
                    session.note_left();
                    self.sessions.depart(&session);
                    if !has_others {
                        connection.note_disconnected();
                    }
                }
                None
            }
            // The bridge never asks for one.
            Packet::Ack { namespace } => match connection.client.session(&namespace) {
                Some(session) => self.sessions.ignore(&session),
                None => cut(connection, "an acknowledgement of nothing"),
            },
        }
    }

    fn refuse(&self, connection: &Arc<Connection>, fault: PacketFault) -> Pause {
        match fault {
            PacketFault::Event { namespace, ack, message } => match connection.client.session(&namespace) {
                Some(session) => {
                    let refusal = Refusal::new(Reason::InvalidArgument, message);
                    self.sessions.misuse(&session, ack, &refusal)
                }
                None => cut(connection, "an event for a namespace that is not connected"),
            },
            PacketFault::Malformed => {
                let refusal = Refusal::new(Reason::Protocol, "not a Socket.IO packet");
                if let Some(session) = connection.client.any_session() {
                    session.fail(None, &refusal);
                }
                cut(connection, "a malformed packet")
            }
        }
    }
}

/// Ends a connection that violates the protocol.
fn cut(connection: &Arc<Connection>, why: &str) -> Pause {
    tracing::debug!(why, "a connection breaks the protocol and is closed");
    connection.cut(Refusal::new(Reason::Protocol, why));
    None
}
