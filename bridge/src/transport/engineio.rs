//! Engine.IO 4 (socket.io/docs/v4/engine-io-protocol): sessions of text and binary messages over
//! long polling, WebSocket, or the first upgraded to the second. Knows nothing of Socket.IO: an
//! [`Application`] gets the messages.

mod connection;
mod polling;
mod websocket;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tokio::time::Instant;

pub(crate) use connection::{Connection, Incoming};

use super::{
    request::{Credentials, unavailable},
    upgrade::UpgradeSlot,
    websocket::handshake,
};
use crate::{
    client::ClientAddress,
    outbox::Outbox,
    refusal::Refusal,
    sessions::{Sessions, calls::Pause, random_id, shutdown},
};

/// The only supported version.
const VERSION: &str = "4";

/// A protocol on top of Engine.IO connections.
pub(crate) trait Application: Send + Sync + Sized + 'static {
    /// The application's data for one connection.
    type Client: Default + Send + Sync;
    /// A message arrived.
    fn receive(&self, connection: &Arc<Connection<Self>>, incoming: Incoming) -> Pause;
    /// The connection has ended.
    fn close(&self, connection: &Arc<Connection<Self>>);
}

/// All connections of an application.
pub(crate) struct Engine<A: Application> {
    pub(crate) application: A,
    pub(crate) sessions: Arc<Sessions>,
    /// Connections that requests can address, and those without a session.
    registry: Mutex<HashMap<String, Arc<Connection<A>>>>,
}

impl<A: Application> std::fmt::Debug for Engine<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// Refusals with the error codes of Engine.IO's reference server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Transport = 0,
    Session = 1,
    Method = 2,
    Request = 3,
    Version = 5,
}

impl Fault {
    const fn message(self) -> &'static str {
        match self {
            Self::Transport => "Transport unknown: want transport=polling or transport=websocket",
            Self::Session => "Session ID unknown: it has ended, or lives on another bridge",
            Self::Method => "Bad handshake method: a session begins with GET",
            Self::Request => "Bad request",
            Self::Version => {
                "Unsupported protocol version: this server speaks Engine.IO 4 (socket.io-client 3.x and 4.x)"
            }
        }
    }

    pub(super) fn response(self) -> Response {
        let body = axum::Json(json!({ "code": self as u8, "message": self.message() }));
        (StatusCode::BAD_REQUEST, body).into_response()
    }
}

/// The query of a request.
#[derive(Debug, Default)]
struct Query {
    version: Option<String>,
    transport: Option<String>,
    sid: Option<String>,
}

impl Query {
    fn read(query: &str) -> Self {
        let mut read = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "EIO" => read.version = Some(value.to_owned()),
                "transport" => read.transport = Some(value.to_owned()),
                "sid" => read.sid = Some(value.to_owned()),
                _ => {}
            }
        }
        read
    }
}

/// Answers a request to Engine.IO's path.
pub(crate) async fn handle<A: Application>(
    State(engine): State<Arc<Engine<A>>>,
    request: Request,
) -> Response {
    let query = Query::read(request.uri().query().unwrap_or_default());
    if query.version.as_deref() != Some(VERSION) {
        return Fault::Version.response();
    }
    let is_websocket = match query.transport.as_deref() {
        Some("websocket") => true,
        Some("polling") => false,
        _ => return Fault::Transport.response(),
    };
    let known = match &query.sid {
        None => None,
        Some(sid) => match engine.find(sid) {
            Some(connection) => Some(connection),
            None => return Fault::Session.response(),
        },
    };
    match (is_websocket, known) {
        (true, known) => engine.upgrade(&request, known),
        (false, None) => engine.handshake(&request),
        (false, Some(connection)) => match *request.method() {
            Method::GET => polling::get(connection).await,
            Method::POST => polling::post(connection, request).await,
            _ => Fault::Request.response(),
        },
    }
}

impl<A: Application> Engine<A> {
    pub(crate) fn new(application: A, sessions: Arc<Sessions>) -> Arc<Self> {
        Arc::new(Self { application, sessions, registry: Mutex::default() })
    }

    fn registry(&self) -> MutexGuard<'_, HashMap<String, Arc<Connection<A>>>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, sid: &str) -> Option<Arc<Connection<A>>> {
        self.registry().get(sid).cloned()
    }

    fn forget(&self, sid: &str) {
        let mut registry = self.registry();
        registry.remove(sid);
        if registry.len() < registry.capacity() / 4 {
            registry.shrink_to_fit();
        }
    }

    /// Ends connections without a session because the bridge shuts down.
    pub(crate) fn cut_handshakes(&self) {
        let all: Vec<_> = self.registry().values().cloned().collect();
        for connection in all.iter().filter(|connection| !connection.is_connected()) {
            connection.cut(shutdown());
        }
    }

    /// Opens a connection if there is a place for it.
    fn open(self: &Arc<Self>, request: &Request) -> Result<Arc<Connection<A>>, Refusal> {
        let client = request.extensions().get::<ClientAddress>().copied();
        let address: Option<IpAddr> = client.map(|client| client.address);
        let place = self.sessions.admit_handshake(client)?;
        let Credentials { token, user_agent, .. } = Credentials::read(request.uri(), request.headers());
        let user_agent = self.sessions.user_agents.share(&user_agent);
        let begin = client.map_or_else(Instant::now, |client| client.since);
        let outbox = Outbox::new(&self.sessions.outbox_limits);
        let origin = connection::Origin { token, address, user_agent, place, begin };
        let connection = Connection::open(self, random_id(), outbox, origin);
        self.registry().insert(connection.sid.clone(), connection.clone());
        Ok(connection)
    }

    /// Begins a session over polling.
    fn handshake(self: &Arc<Self>, request: &Request) -> Response {
        if request.method() != Method::GET {
            return Fault::Method.response();
        }
        let connection = match self.open(request) {
            Ok(connection) => connection,
            Err(refusal) => return unavailable(&refusal),
        };
        let upgrades: &[&str] = &["websocket"];
        polling::text(format!("0{}", self.greeting(&connection, upgrades)))
    }

    /// Begins a session over WebSocket, or upgrades an existing one.
    fn upgrade(self: &Arc<Self>, request: &Request, known: Option<Arc<Connection<A>>>) -> Response {
        let compression = self.sessions.config.compression;
        let handshake = match handshake::read(request.method(), request.headers(), compression) {
            Ok(handshake) => handshake,
            Err(_) if known.is_none() && request.method() != Method::GET => return Fault::Method.response(),
            Err(_) => return Fault::Request.response(),
        };
        let Some(slot) = request.extensions().get::<UpgradeSlot>() else { return Fault::Request.response() };
        let compression = handshake.compression;
        match known {
            Some(connection) => {
                if !connection.begin_probe() {
                    return Fault::Request.response();
                }
                slot.put(move |socket, first| websocket::probe(connection, socket, first, compression));
            }
            None => match self.open(request) {
                Ok(connection) => {
                    let greeting = format!("0{}", self.greeting(&connection, &[]));
                    slot.put(move |socket, first| {
                        websocket::serve(connection, socket, first, compression, &greeting)
                    });
                }
                Err(refusal) => return unavailable(&refusal),
            },
        }
        handshake.response()
    }

    fn greeting(&self, connection: &Connection<A>, upgrades: &[&str]) -> serde_json::Value {
        let config = &self.sessions.config;
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        json!({
            "sid": connection.sid,
            "upgrades": upgrades,
            "pingInterval": millis(config.ping_interval),
            "pingTimeout": millis(config.ping_timeout),
            "maxPayload": config.payload_bytes_max,
        })
    }
}

/// A response with a body.
pub(super) fn plain(status: StatusCode, body: impl Into<Body>) -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=UTF-8");
    let mut response = (status, body.into()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
