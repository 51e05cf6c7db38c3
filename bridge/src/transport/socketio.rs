//! Socket.IO protocol 5 over Engine.IO 4: what socket.io-client 3.x and 4.x speak.
//!
//! Packets and namespaces as in the Socket.IO protocol document (socket.io/docs/v4/socket-io-protocol); the connection
//! itself (polling, WebSocket, upgrade, heartbeat) is engineioxide's. Only the namespace `/` is served.

mod call;
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
use fanfare_proto::{token::Verifier, v1::Reason};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    expiry::Expiry,
    link::Link,
    rooms::Rooms,
    session::{Emitted, Queued, Session},
};
use packet::{Incoming, Refused};

/// The text of a packet, shared by all who get it.
pub(crate) type Text = Str;
pub(crate) use packet::event;

type EngineSocket = Arc<Socket<Connection>>;

/// The handler of all Socket.IO connections.
pub(crate) struct SocketIo {
    pub(crate) config: Config,
    pub(crate) verifier: Verifier,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) link: Arc<Link>,
    pub(crate) expiry: Arc<Expiry>,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the bridge has said farewell to its sessions.
    pub(crate) stopping: CancellationToken,
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
    let config = &handler.config;
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
        let (timeout, stopping) = (self.config.connect_timeout, self.stopping.clone());
        self.tasks.spawn(async move {
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
        match packet::decode(message) {
            Ok(Incoming::Connect { namespace, auth }) => self.connect_requested(&socket, &namespace, auth),
            Ok(Incoming::Event { namespace, emitted }) if namespace == "/" => match socket.data.session() {
                Some(session) => self.emitted(&session, emitted, &socket),
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
            Ok(Incoming::Ack) => tracing::debug!("acknowledgement of nothing ignored"),
            Err(Refused::Event { ack, message }) => match socket.data.session() {
                Some(_) => call::fail(&socket, ack, Reason::InvalidArgument, &message, ""),
                None => socket.close(DisconnectReason::TransportError),
            },
            Err(Refused::Packet) => {
                tracing::debug!("malformed packet, connection closed");
                if socket.data.session().is_some() {
                    call::fail(&socket, None, Reason::Protocol, "not a Socket.IO packet", "");
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
            let message = "Invalid namespace";
            outlet::send(socket, packet::connect_error(namespace, message, Reason::InvalidNamespace));
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
        self.tasks.spawn(async move { handler.connect(socket, auth).await });
    }

    fn emitted(self: &Arc<Self>, session: &Arc<Session>, call: Emitted, socket: &EngineSocket) {
        match session.queue_call(call, self.config.calls_waiting_max) {
            (Queued::Run, _) => {
                let (handler, session, socket) = (self.clone(), session.clone(), socket.clone());
                self.tasks.spawn(async move { handler.run_calls(&session, &socket).await });
            }
            (Queued::Waits, _) => {}
            (Queued::Full, call) => {
                let message = format!(
                    "more than {} calls wait; wait for acknowledgements",
                    self.config.calls_waiting_max
                );
                call::fail(socket, call.and_then(|c| c.ack), Reason::Limit, &message, "");
            }
        }
    }

    /// The session is over, from the peer's side or ours.
    fn depart(&self, socket: &EngineSocket) {
        let State::Connected(session) = std::mem::replace(&mut *socket.data.lock(), State::Closed) else {
            return;
        };
        session.mark_closed();
        self.expiry.forget(&session, self.config.tokens.leeway);
        self.leave_all(&session);
    }

    fn leave_all(&self, session: &Arc<Session>) {
        let left = self.rooms.leave(session, &session.rooms());
        self.link.release(&session.tenant, &left);
    }
}
