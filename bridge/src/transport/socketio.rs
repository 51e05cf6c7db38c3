//! Socket.IO protocol 5 over Engine.IO 4: what socket.io-client 3.x and 4.x speak.
//!
//! Packets and namespaces as in the Socket.IO protocol document (socket.io/docs/v4/socket-io-protocol); the connection
//! itself (polling, WebSocket, upgrade, heartbeat) is engineioxide's. Only the namespace `/` is served.

mod connect;
mod outlet;
mod packet;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use engineioxide::{
    DisconnectReason, Socket, Str, TransportType, config::EngineIoConfig, handler::EngineIoHandler,
    service::EngineIoService,
};
use fanfare_proto::v1::Reason;

use crate::{failure::Failure, session::Session, sessions::Sessions};
use packet::{Incoming, Refused};

/// The text of a packet, shared by all who get it.
pub(crate) type Text = Str;
pub(crate) use packet::event;

type EngineSocket = Arc<Socket<Connection>>;

/// The handler of all Socket.IO connections.
pub(crate) struct SocketIo {
    pub(crate) sessions: Arc<Sessions>,
}

impl fmt::Debug for SocketIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketIo").finish_non_exhaustive()
    }
}

/// What belongs to one Engine.IO connection.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    /// No CONNECT yet.
    #[default]
    New,
    /// The token is verified and the rooms become certain.
    Connecting,
    Connected(Arc<Session>),
    Closed,
}

impl Connection {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self) -> Option<Arc<Session>> {
        match &*self.lock() {
            State::Connected(session) => Some(session.clone()),
            State::New | State::Connecting | State::Closed => None,
        }
    }
}

/// The service that handles requests to Socket.IO's path.
pub(crate) fn service(handler: Arc<SocketIo>) -> EngineIoService<SocketIo> {
    let config = &handler.sessions.config;
    let engine = EngineIoConfig::builder()
        .req_path(config.path.clone())
        .ping_interval(config.ping_interval)
        .ping_timeout(config.ping_timeout)
        .max_payload(config.payload_bytes_max as u64)
        .ws_max_message_size(config.payload_bytes_max)
        .ws_max_frame_size(config.payload_bytes_max)
        .ws_read_buffer_size(1024)
        .max_buffer_size(config.queue_packets_max)
        .transports([TransportType::Polling, TransportType::Websocket])
        .build();
    EngineIoService::with_config(handler, engine)
}

impl EngineIoHandler for SocketIo {
    type Data = Connection;

    fn on_connect(self: Arc<Self>, socket: EngineSocket) {
        let (timeout, stopping) = (self.sessions.config.connect_timeout, self.sessions.stopping.clone());
        self.sessions.tasks.spawn(async move {
            tokio::select! {
                () = socket.closed() => return,
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(timeout) => {}
            }
            if matches!(&*socket.data.lock(), State::New | State::Closed) {
                socket.close(DisconnectReason::TransportClose);
            }
        });
    }

    fn on_disconnect(&self, socket: EngineSocket, _: DisconnectReason) {
        self.depart(&socket);
    }

    fn on_message(self: &Arc<Self>, message: Str, socket: EngineSocket) {
        // One that was told to go is not listened to.
        if socket.data.session().is_some_and(|session| session.is_closed()) {
            return;
        }
        match packet::decode(message) {
            Ok(Incoming::Connect { namespace, auth }) => self.connect_requested(&socket, &namespace, auth),
            Ok(Incoming::Event { namespace, emitted }) if namespace == "/" => match socket.data.session() {
                Some(session) => self.sessions.emitted(&session, emitted),
                None => socket.close(DisconnectReason::TransportError),
            },
            // As Socket.IO on Node does with packets for namespaces that nobody has entered.
            Ok(Incoming::Event { .. }) => socket.close(DisconnectReason::TransportError),
            Ok(Incoming::Disconnect { namespace }) => {
                if namespace == "/" {
                    self.depart(&socket);
                    // Nothing else can live on this connection.
                    socket.close(DisconnectReason::TransportClose);
                }
            }
            // Of something that was never asked for.
            Ok(Incoming::Ack) => match socket.data.session() {
                Some(session) => self.sessions.ignored(&session),
                None => socket.close(DisconnectReason::TransportError),
            },
            Err(Refused::Event { ack, message }) => match socket.data.session() {
                Some(session) => {
                    let failure = Failure::new(Reason::InvalidArgument, message);
                    self.sessions.misused(&session, ack, &failure);
                }
                None => socket.close(DisconnectReason::TransportError),
            },
            Err(Refused::Packet) => {
                tracing::debug!("malformed packet, connection closed");
                if let Some(session) = socket.data.session() {
                    session.outlet.fail(None, &Failure::new(Reason::Protocol, "not a Socket.IO packet"));
                }
                socket.close(DisconnectReason::PacketParsingError);
            }
        }
    }

    fn on_binary(self: &Arc<Self>, _: Bytes, socket: EngineSocket) {
        // Attachments of an event that has been refused when its text came.
        if socket.data.session().is_none() {
            socket.close(DisconnectReason::TransportError);
        }
    }
}

impl SocketIo {
    fn connect_requested(self: &Arc<Self>, socket: &EngineSocket, namespace: &str, auth: Option<String>) {
        if namespace != "/" {
            let failure = Failure::new(Reason::InvalidNamespace, "Invalid namespace");
            outlet::send(socket, packet::connect_error(namespace, &failure));
            return;
        }
        {
            let mut state = socket.data.lock();
            if !matches!(*state, State::New) {
                drop(state);
                socket.close(DisconnectReason::TransportError);
                return;
            }
            *state = State::Connecting;
        }
        let (handler, socket) = (self.clone(), socket.clone());
        self.sessions.spawn(async move { handler.connect(socket, auth).await });
    }

    /// The session is over, from the peer's side or ours.
    fn depart(&self, socket: &EngineSocket) {
        if let State::Connected(session) = std::mem::replace(&mut *socket.data.lock(), State::Closed) {
            self.sessions.depart(&session);
        }
    }
}
