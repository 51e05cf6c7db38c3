//! The raw WebSocket at `/ws` (RFC 6455): JSON text messages with a `type`, payload fields beside it.
//!
//! A browser that gives `after` in the query (empty: from now on) resumes there, and finds a `cursor` in every stored
//! event; without it messages are exactly the catalog's. A call with an integer `ref` is answered by
//! `{ type: "ack", ref, data }`; a failed one by `{ type: "error", ref?, code, message, path? }`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, Uri},
    response::Response,
};
use fanfare_proto::v1::{Reason, Transport};
use futures_util::SinkExt as _;
use serde_json::{json, value::RawValue};
use tokio::time::{Instant, MissedTickBehavior};

use super::request::Credentials;
use crate::{
    delivery,
    ending::Ending,
    failure::Failure,
    mailbox::Item,
    reader::{Next, Reader},
    session::{Emitted, Session},
    sessions::Sessions,
};

/// The text of a message, shared by all who get it.
pub(crate) type Text = Utf8Bytes;

/// How long a peer that was told to go may take.
const FAREWELL: Duration = Duration::from_secs(3);
/// Close codes from 4000 are applications' own; from here on they are final.
const RETRY_CODES: u16 = 4000;
const FINAL_CODES: u16 = 4500;
/// The first message's types that only present a token.
const GREETING_TYPES: [&str; 3] = ["auth", "authenticate", "connect"];
/// The longest reason of a close frame, in bytes (RFC 6455, section 5.5).
const CLOSE_REASON_BYTES_MAX: usize = 123;

pub(crate) async fn upgrade(
    State(sessions): State<Arc<Sessions>>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let credentials = Credentials::read(&uri, &headers);
    let bytes_max = sessions.config.payload_bytes_max;
    let tasks = sessions.tasks.clone();
    // Somewhat more than is accepted, so that who sends too much is told so.
    let read_max = bytes_max.saturating_mul(2);
    upgrade.max_message_size(read_max).max_frame_size(read_max).on_upgrade(move |socket| {
        let stopping = sessions.stopping.clone();
        let connection = Connection { sessions, socket, with_cursor: credentials.after.is_some() };
        tasks.track_future(async move {
            let _stopped = stopping.run_until_cancelled_owned(connection.serve(credentials)).await;
        })
    })
}

/// Why a connection is over.
enum Over {
    /// The peer has gone.
    Gone,
    /// We have a reason.
    Ended(Ending),
}

impl From<axum::Error> for Over {
    fn from(_: axum::Error) -> Self {
        Self::Gone
    }
}

struct Connection {
    sessions: Arc<Sessions>,
    socket: WebSocket,
    with_cursor: bool,
}

/// What a browser sent.
struct Incoming {
    name: String,
    token: Option<String>,
    emitted: Emitted,
}

impl Connection {
    async fn serve(mut self, credentials: Credentials) {
        let over = self.converse(credentials).await;
        if let Err(Over::Ended(ending)) = over {
            let _gone = tokio::time::timeout(FAREWELL, self.farewell(&ending)).await;
        }
    }

    async fn converse(&mut self, mut credentials: Credentials) -> Result<(), Over> {
        let mut first = None;
        if credentials.token.is_none() {
            let incoming = self.first_message().await?;
            credentials.token = incoming.token;
            // A first message that is a call too is run.
            first = Some(incoming.emitted).filter(|_| !GREETING_TYPES.contains(&incoming.name.as_str()));
        }
        let refused = |failure: Failure| Over::Ended(Ending::new(failure.reason, failure.message));
        let entrant = credentials.entrant(&self.sessions).map_err(refused)?;
        let after = credentials.after.as_deref();
        let opened = Reader::open(&self.sessions, entrant, Transport::Websocket, after).await;
        let (mut reader, greetings) = opened.map_err(refused)?;
        let start = reader.cursor();
        for greeting in greetings {
            let text = delivery::message(&greeting, start.as_deref().filter(|_| self.with_cursor));
            self.socket.send(Message::Text(text.into())).await?;
        }
        if let Some(call) = first {
            self.sessions.emitted(&reader.attendance.session, call);
        }
        self.exchange(&mut reader).await
    }

    /// Sends what comes and runs what is emitted, until either side ends it.
    async fn exchange(&mut self, reader: &mut Reader) -> Result<(), Over> {
        let config = &self.sessions.config;
        let silence_max = config.ping_interval + config.ping_timeout;
        let mut pings = tokio::time::interval_at(Instant::now() + config.ping_interval, config.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let session = reader.attendance.session.clone();
        loop {
            // What is awaited is kept while messages come in, so that nobody starves their own replay.
            let next = {
                let next = reader.next();
                tokio::pin!(next);
                loop {
                    tokio::select! {
                        next = &mut next => break next,
                        message = self.socket.recv() => {
                            heard = Instant::now();
                            self.take(message.ok_or(Over::Gone)??, &session)?;
                        }
                        _ = pings.tick() => {
                            if heard.elapsed() > silence_max {
                                return Err(Over::Gone);
                            }
                            self.socket.send(Message::Ping(bytes::Bytes::new())).await?;
                        }
                    }
                }
            };
            self.send(next).await?;
        }
    }

    async fn send(&mut self, next: Next) -> Result<(), Over> {
        match next {
            Next::Items(items) => {
                for item in items {
                    let text = match item {
                        Item::Event(event) if self.with_cursor => event.message_with_cursor().clone(),
                        Item::Event(event) => event.message().clone(),
                        Item::Message(text) => text.into(),
                    };
                    self.socket.feed(Message::Text(text)).await?;
                }
                self.socket.flush().await?;
            }
            Next::Reset(cursor) => {
                let reset = json!({ "type": "reset", "cursor": cursor }).to_string();
                self.socket.send(Message::Text(reset.into())).await?;
            }
            Next::Ended(ending) => return Err(Over::Ended(ending)),
        }
        Ok(())
    }

    fn take(&self, message: Message, session: &Arc<Session>) -> Result<(), Over> {
        match message {
            Message::Text(text) if text.len() > self.sessions.config.payload_bytes_max => {
                return Err(self.too_large(text.len()));
            }
            Message::Text(text) => match parse(&text, false) {
                Ok(incoming) => self.sessions.emitted(session, incoming.emitted),
                Err(failure) => self.sessions.misused(session, None, &failure),
            },
            Message::Binary(_) => {
                let failure =
                    Failure::new(Reason::InvalidArgument, "binary messages are not accepted; send JSON text");
                self.sessions.misused(session, None, &failure);
            }
            Message::Ping(_) | Message::Pong(_) => self.sessions.ignored(session),
            Message::Close(_) => return Err(Over::Gone),
        }
        Ok(())
    }

    fn too_large(&self, size: usize) -> Over {
        let max = self.sessions.config.payload_bytes_max;
        Over::Ended(Ending::new(
            Reason::TooLarge,
            format!("the message has {size} bytes; the limit is {max}"),
        ))
    }

    /// The message that brings the token.
    async fn first_message(&mut self) -> Result<Incoming, Over> {
        let ended = |reason, message: &str| Over::Ended(Ending::new(reason, message));
        let waits = async {
            loop {
                match self.socket.recv().await.ok_or(Over::Gone)?? {
                    Message::Text(text) => return Ok(text),
                    Message::Ping(_) | Message::Pong(_) => {}
                    Message::Binary(_) => {
                        return Err(ended(
                            Reason::InvalidArgument,
                            "binary messages are not accepted; send JSON text",
                        ));
                    }
                    Message::Close(_) => return Err(Over::Gone),
                }
            }
        };
        let waited = tokio::time::timeout(self.sessions.config.connect_timeout, waits).await;
        let text = waited.map_err(|_| ended(Reason::NoToken, "Authentication failed: No token"))??;
        if text.len() > self.sessions.config.payload_bytes_max {
            return Err(self.too_large(text.len()));
        }
        parse(&text, true).map_err(|failure| Over::Ended(Ending::new(failure.reason, failure.message)))
    }

    async fn farewell(&mut self, ending: &Ending) -> Result<(), axum::Error> {
        let retry = ending.reason.is_retry();
        if !retry {
            let error = json!({ "type": "error", "code": ending.reason.code(), "message": ending.message });
            self.socket.send(Message::Text(error.to_string().into())).await?;
        }
        let (base, origin) = if retry { (RETRY_CODES, 1000) } else { (FINAL_CODES, 2000) };
        let number = u16::try_from(ending.reason as i32 - origin).unwrap_or_default();
        let ends = ending.message.char_indices().map(|(at, c)| at + c.len_utf8());
        let end = ends.take_while(|end| *end <= CLOSE_REASON_BYTES_MAX).last().unwrap_or_default();
        let close = CloseFrame { code: base + number, reason: ending.message[..end].into() };
        self.socket.send(Message::Close(Some(close))).await?;
        while let Some(Ok(_)) = self.socket.recv().await {}
        Ok(())
    }
}

/// Takes a message apart: its type is the name, `ref` the number of the answer, `token` is for the first one, and all
/// else is the payload.
fn parse(text: &str, first: bool) -> Result<Incoming, Failure> {
    let invalid = |message: String| Failure::new(Reason::InvalidArgument, message);
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
    let emitted = Emitted::new(name.clone(), json, ack)?;
    Ok(Incoming { name, token, emitted })
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
            let left: HashMap<String, String> = serde_json::from_slice(&incoming.emitted.json).unwrap();
            let mut wanted = payload;
            wanted.retain(|field, _| field != "type" && field != "ref");
            prop_assert_eq!((incoming.name, incoming.emitted.ack, left), (name, ack, wanted));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[\\[\\]{}\":,typeref0-9\\\\]{0,40}|.{0,40}", first in any::<bool>()) {
            let _any = parse(&text, first);
        }
    }
}
