//! The raw WebSocket at `/ws`: JSON text messages with a `type` next to the payload's fields.
//!
//! A client that sends `after` in the query (empty: from now on) resumes there and gets a `cursor`
//! in every stored event; without it, messages are exactly the catalog's. A call with an integer
//! `ref` is answered by `{ type: "ack", ref, data }`; a failed one by `{ type: "error", ref?, code,
//! message, path? }`.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use fanfare_proto::v1::{CallOk, Delivery, Reason, Transport};
use http::StatusCode;
use serde_json::{json, value::RawValue};
use tokio::time::Instant;

use super::{
    message, places,
    request::{Credentials, unavailable},
    upgrade::UpgradeSlot,
    websocket::{
        decoder::{Decoder, Message},
        frame, handshake,
        socket::{self, End, Flow},
    },
};
use crate::{
    client::ClientAddress,
    clock::Timed,
    event::Form,
    limits::Place,
    outbox::Outbox,
    refusal::Refusal,
    replay::{Page, Replay},
    session::{Emission, Session, Writer},
    sessions::{Attendance, Sessions, Terminal, calls::Pause, shutdown},
    socket::Socket,
};

/// Close codes from 4000 belong to applications; those from `FINAL_CODES` on are final.
const RETRY_CODES: u16 = 4000;
const FINAL_CODES: u16 = 4500;
/// Types of a first message that only presents a token.
const GREETING_TYPES: [&str; 3] = ["auth", "authenticate", "connect"];

/// Answers a handshake.
pub(crate) async fn upgrade(State(sessions): State<Arc<Sessions>>, request: Request) -> Response {
    let compression = sessions.config.compression;
    let handshake = match handshake::read(request.method(), request.headers(), compression) {
        Ok(handshake) => handshake,
        Err(why) => return (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    };
    let Some(slot) = request.extensions().get::<UpgradeSlot>().cloned() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let client = request.extensions().get::<ClientAddress>().copied();
    let place = match sessions.admit_handshake(client) {
        Ok(place) => place,
        Err(refusal) => return unavailable(&refusal),
    };
    let connection = Connection {
        credentials: Credentials::read(request.uri(), request.headers()),
        outbox: Outbox::new(&sessions.outbox_limits),
        address: client.map(|client| client.address),
        deadline: client.map_or_else(Instant::now, |client| client.since) + sessions.config.connect_timeout,
        compression: handshake.compression,
        sessions,
    };
    let connection = Box::new(connection);
    slot.put(move |socket, first| connection.serve(socket, first, place));
    handshake.response()
}

/// A connection without a session.
struct Connection {
    sessions: Arc<Sessions>,
    credentials: Credentials,
    outbox: Arc<Outbox>,
    address: Option<IpAddr>,
    deadline: Instant,
    compression: bool,
}

/// What a browser sent.
struct Incoming {
    name: String,
    token: Option<String>,
    emission: Emission,
}

impl Connection {
    async fn serve(mut self: Box<Self>, socket: Socket, first: Bytes, place: Place) {
        let socket = Arc::new(socket);
        self.outbox.attach(socket.clone());
        // Larger than the limit, so that a client that exceeds it can be notified.
        let bytes_max = self.sessions.config.payload_bytes_max.saturating_mul(2);
        let mut decoder = Decoder::new(bytes_max, self.compression);
        // Boxed: memory that is only needed until there is a session is then released.
        let opened = Box::pin(self.open(&socket, first, &mut decoder)).await;
        let outbox = self.outbox.clone();
        drop(self);
        drop(place);
        let end = match opened {
            Ok((attendance, call, first)) => {
                Self::converse(&attendance, &socket, &first, decoder, call).await
            }
            Err(Some(refusal)) => {
                end(&outbox, &refusal);
                End::Ended
            }
            Err(None) => End::Gone,
        };
        socket::answer(&end, &outbox);
        outbox.end(Refusal::gone(), None);
        socket::close(&socket, &outbox, &end).await;
    }

    /// Waits for the token and opens a session; `None`: the peer has disconnected. Also returns the
    /// first message if it is a call, and bytes that were not processed.
    async fn open(
        &mut self,
        socket: &Socket,
        mut first: Bytes,
        decoder: &mut Decoder,
    ) -> Result<(Attendance, Option<Emission>, Bytes), Option<Refusal>> {
        let mut call = None;
        if self.credentials.token.is_none() {
            let incoming = self.first_message(socket, &first, decoder).await?;
            first = Bytes::new();
            self.credentials.token = incoming.token;
            // A first message that is also a call is run.
            call = Some(incoming.emission).filter(|_| !GREETING_TYPES.contains(&incoming.name.as_str()));
        }
        let opened = self.begin_session().await;
        Ok((opened.map_err(Some)?, call, first))
    }

    async fn begin_session(&self) -> Result<Attendance, Refusal> {
        let after = self.credentials.after.clone();
        let writer = RawWriter { with_cursor: after.is_some() };
        let terminal = Terminal {
            transport: Transport::Websocket,
            form: Some(form(after.is_some(), self.compression)),
            writer: Box::new(writer),
            outbox: self.outbox.clone(),
            address: self.address,
            replays: after.is_some(),
        };
        let admission = self.credentials.admission(&self.sessions, self.address)?;
        self.credentials.check_cursor()?;
        let mut greetings = Vec::new();
        let start = |_: &Session, events: Vec<Delivery>| match after {
            None => events.iter().for_each(|event| send(&self.outbox, &message::message(event, None))),
            Some(_) => greetings = events,
        };
        let session = self.sessions.open(admission, terminal, |_| true, start).await?;
        let attendance = Attendance { sessions: self.sessions.clone(), session };
        if let Some(after) = after {
            self.begin_replay(&attendance.session, &after, &greetings).await?;
        }
        Ok(attendance)
    }

    /// Greets with the cursor at which the session resumes, and replays the events after it.
    async fn begin_replay(
        &self,
        session: &Arc<Session>,
        after: &str,
        greetings: &[Delivery],
    ) -> Result<(), Refusal> {
        let greet = |cursor: &str| {
            for event in greetings {
                send(&self.outbox, &message::message(event, Some(cursor)));
            }
        };
        let mut replay = Replay::new(&self.sessions, session, after);
        if after.is_empty() {
            if let Page::Events { .. } = replay.next().await? {
                greet(replay.cursor());
            }
            return replay.finish();
        }
        greet(after);
        let (outbox, session) = (self.outbox.clone(), session.clone());
        self.sessions.spawn(async move {
            let reset = |cursor: &str| send(&outbox, &message::reset(cursor));
            if let Err(refusal) = replay.run(reset).await {
                session.close(&refusal);
            }
        });
        Ok(())
    }

    /// Runs emitted calls until either side ends the connection.
    async fn converse(
        attendance: &Attendance,
        socket: &Socket,
        first: &[u8],
        mut decoder: Decoder,
        call: Option<Emission>,
    ) -> End {
        let (sessions, session) = (&attendance.sessions, &attendance.session);
        let heartbeat = Heartbeat::start(sessions, &session.outbox);
        if let Some(call) = call {
            sessions.emit(session, call);
        }
        socket::serve(socket, first, &mut decoder, &session.outbox, |message| {
            heartbeat.note();
            take(sessions, session, message).map_or(Flow::Continue, Flow::Pause)
        })
        .await
    }

    /// Waits for the message with the token.
    async fn first_message(
        &self,
        socket: &Socket,
        first: &[u8],
        decoder: &mut Decoder,
    ) -> Result<Incoming, Option<Refusal>> {
        let mut text = None;
        let mut is_binary = false;
        let serving = socket::serve(socket, first, decoder, &self.outbox, |message| match message {
            Message::Text(message) => {
                text = Some(message);
                Flow::End
            }
            Message::Binary(_) => {
                is_binary = true;
                Flow::End
            }
            Message::Ping(_) | Message::Pong | Message::Close(_) => Flow::Continue,
        });
        let served = tokio::time::timeout_at(self.deadline, serving);
        let Some(served) = self.sessions.draining.run_until_cancelled(served).await else {
            return Err(Some(shutdown()));
        };
        if served.is_err() {
            return Err(Some(Refusal::new(Reason::NoToken, "Authentication failed: No token")));
        }
        if is_binary {
            return Err(Some(no_binary()));
        }
        let text = text.ok_or_else(|| {
            if let Ok(end) = &served {
                socket::answer(end, &self.outbox);
            }
        });
        let text = text.map_err(|()| None)?;
        let bytes_max = self.sessions.config.payload_bytes_max;
        if text.len() > bytes_max {
            return Err(Some(too_large(text.len(), bytes_max)));
        }
        parse(&text, true).map_err(Some)
    }
}

fn take(sessions: &Arc<Sessions>, session: &Arc<Session>, message: Message) -> Pause {
    // Messages of a session that was ended are ignored.
    if session.is_closed() {
        return None;
    }
    match message {
        Message::Text(text) if text.len() > sessions.config.payload_bytes_max => {
            session.close(&too_large(text.len(), sessions.config.payload_bytes_max));
            None
        }
        Message::Text(text) => match parse(&text, false) {
            Ok(incoming) => sessions.emit(session, incoming.emission),
            Err(refusal) => sessions.misuse(session, None, &refusal),
        },
        Message::Binary(_) => sessions.misuse(session, None, &no_binary()),
        Message::Ping(_) | Message::Pong | Message::Close(_) => None,
    }
}

fn no_binary() -> Refusal {
    Refusal::new(Reason::InvalidArgument, "binary messages are not accepted; send JSON text")
}

fn too_large(bytes: usize, bytes_max: usize) -> Refusal {
    Refusal::new(Reason::TooLarge, format!("the message has {bytes} bytes; the limit is {bytes_max}"))
}

fn send(outbox: &Arc<Outbox>, text: &str) {
    outbox.send_or_end(&frame::text(text.as_bytes()));
}

/// Ends a connection with a close frame that gives the reason; a final reason is also sent as a
/// message.
fn end(outbox: &Arc<Outbox>, why: &Refusal) {
    let is_retry = why.reason.is_retry();
    let mut farewell = BytesMut::new();
    if !is_retry {
        let error = json!({ "type": "error", "code": why.reason.code(), "message": why.message });
        farewell.extend_from_slice(&frame::text(error.to_string().as_bytes()));
    }
    let (base, origin) = if is_retry { (RETRY_CODES, 1000) } else { (FINAL_CODES, 2000) };
    let number = u16::try_from(why.reason as i32 - origin).unwrap_or_default();
    farewell.extend_from_slice(&frame::close(Some(base + number), &why.message));
    outbox.end(why.clone(), Some(farewell.freeze()));
}

/// Writes messages.
struct RawWriter {
    with_cursor: bool,
}

impl Writer for RawWriter {
    fn reply(&self, outbox: &Arc<Outbox>, event: Delivery) {
        let cursor = (self.with_cursor && !event.ephemeral).then_some(event.id.as_str());
        send(outbox, &message::message(&event, cursor));
    }

    fn acknowledge(&self, outbox: &Arc<Outbox>, id: i64, answer: &CallOk) {
        send(outbox, &message::acknowledgement(id, &answer.json));
    }

    fn fail(&self, outbox: &Arc<Outbox>, id: Option<i64>, refusal: &Refusal) {
        send(outbox, &message::failure(id, refusal));
    }

    fn end(&self, outbox: &Arc<Outbox>, why: &Refusal) {
        end(outbox, why);
    }
}

fn encode(event: &Delivery, with_cursor: bool, compress: bool) -> Bytes {
    let cursor = (with_cursor && !event.ephemeral).then_some(event.id.as_str());
    let mut out = BytesMut::new();
    frame::write_text(&mut out, message::message(event, cursor).as_bytes(), compress);
    out.freeze()
}

fn form(with_cursor: bool, is_compressed: bool) -> Form {
    let encode: fn(&Delivery, &str) -> Bytes = match (with_cursor, is_compressed) {
        (false, false) => |event, _| encode(event, false, false),
        (true, false) => |event, _| encode(event, true, false),
        (false, true) => |event, _| encode(event, false, true),
        (true, true) => |event, _| encode(event, true, true),
    };
    let place = places::RAW + usize::from(with_cursor) + 2 * usize::from(is_compressed);
    Form { place, encode, namespace: "".into() }
}

/// Pings the client, and ends the connection if the client does not answer.
struct Heartbeat {
    outbox: Arc<Outbox>,
    heard: Mutex<Instant>,
    interval: Duration,
    silence_max: Duration,
}

/// A heartbeat and its alarm.
struct Pulse {
    heartbeat: Arc<Heartbeat>,
    _alarm: crate::clock::Alarm,
}

impl Heartbeat {
    fn start(sessions: &Sessions, outbox: &Arc<Outbox>) -> Pulse {
        let config = &sessions.config;
        let heartbeat = Arc::new(Self {
            outbox: outbox.clone(),
            heard: Mutex::new(Instant::now()),
            interval: config.ping_interval,
            silence_max: config.ping_interval + config.ping_timeout,
        });
        let weak: Weak<Self> = Arc::downgrade(&heartbeat);
        Pulse { _alarm: sessions.clock.set(config.ping_interval, weak), heartbeat }
    }
}

impl Pulse {
    /// The client answered.
    fn note(&self) {
        *self.heartbeat.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Timed for Heartbeat {
    fn fire(self: Arc<Self>) -> Option<Duration> {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.elapsed() > self.silence_max {
            self.outbox.abandon();
            return None;
        }
        self.outbox.send_beyond_limit(frame::ping());
        Some(self.interval)
    }
}

/// Splits a message: its type is the name, `ref` is the number of the answer, `token` applies to
/// the first message only, and the rest is the payload.
fn parse(text: &str, first: bool) -> Result<Incoming, Refusal> {
    let invalid = |message: String| Refusal::new(Reason::InvalidArgument, message);
    let mut fields: HashMap<String, &RawValue> = serde_json::from_str(text).map_err(|e| {
        invalid(format!("the message is not a JSON object such as {{\"type\":\"ping\"}}: {e}"))
    })?;
    let kind = fields.remove("type").and_then(|kind| serde_json::from_str::<String>(kind.get()).ok());
    let ack = fields.remove("ref").map(|number| serde_json::from_str::<i64>(number.get()));
    let ack = ack.transpose().map_err(|_| invalid("ref must be an integer".into()))?;
    let token = fields
        .get("token")
        .filter(|_| first)
        .and_then(|token| serde_json::from_str::<String>(token.get()).ok());
    let name = match kind {
        Some(kind) => kind,
        None if token.is_some() => GREETING_TYPES[0].to_owned(),
        None => return Err(invalid("the message has no `type`, a string such as \"subscribe\"".into())),
    };
    if token.is_some() {
        fields.remove("token");
    }
    let json = serde_json::to_vec(&fields).map_err(|e| invalid(e.to_string()))?;
    let emission = Emission::new(name.clone(), json, ack)?;
    Ok(Incoming { name, token, emission })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_message_is_taken_apart_whatever_is_in_it(
            name in "[!-~]{1,20}",
            ack in proptest::option::of(any::<i64>()),
            payload in proptest::collection::hash_map("[a-z]{1,6}", ".{0,10}", 0..4),
        ) {
            let mut message = serde_json::to_value(&payload).unwrap();
            message["type"] = name.clone().into();
            if let Some(ack) = ack {
                message["ref"] = ack.into();
            }
            let incoming = parse(&message.to_string(), false).unwrap();
            let left: HashMap<String, String> = serde_json::from_slice(&incoming.emission.json).unwrap();
            let mut wanted = payload;
            wanted.retain(|field, _| field != "type" && field != "ref");
            prop_assert_eq!((incoming.name, incoming.emission.ack, left), (name, ack, wanted));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[\\[\\]{}\":,typeref0-9\\\\]{0,40}|.{0,40}", first in any::<bool>()) {
            let _any = parse(&text, first);
        }
    }
}
