//! Long polling: a GET waits for packets, a POST delivers packets. Packets in one body are
//! separated by 0x1e; binary ones are base64 after a `b`.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use axum::{extract::Request, response::Response};
use base64::Engine as _;
use http::StatusCode;

use super::{
    Application, Fault,
    connection::{Carrier, Connection},
    plain,
};
use crate::{
    outbox::Entry,
    transport::{
        request::{closing, read_body},
        websocket::frame::{self, Frame},
    },
};

/// Separates two packets (Engine.IO protocol, "HTTP long-polling").
const SEPARATOR: char = '\u{1e}';
const NOOP: &str = "6";
const CLOSE: &str = "1";

/// A waiting GET. If its client disconnects, the session ends too, because packets may have been
/// lost with the response.
struct WaitingGet<A: Application> {
    connection: Arc<Connection<A>>,
    is_answered: bool,
}

impl<A: Application> Drop for WaitingGet<A> {
    fn drop(&mut self) {
        self.connection.end_get();
        if !self.is_answered {
            self.connection.end(None);
        }
    }
}

/// A POST in progress.
struct ActivePost<A: Application>(Arc<Connection<A>>);

impl<A: Application> Drop for ActivePost<A> {
    fn drop(&mut self) {
        self.0.end_post();
    }
}

/// A response with packets.
pub(super) fn text(body: String) -> Response {
    plain(StatusCode::OK, body)
}

/// Answers with the queued packets, or waits for some.
pub(super) async fn get<A: Application>(connection: Arc<Connection<A>>) -> Response {
    match connection.carrier() {
        Carrier::Polling | Carrier::Probing => {}
        Carrier::WebSocket | Carrier::Closed => return Fault::Request.response(),
    }
    if !connection.begin_get() {
        // With two GETs at once, it would be random which of them gets a packet.
        connection.end(Some(CLOSE));
        return Fault::Request.response();
    }
    let mut waiting = WaitingGet { connection, is_answered: false };
    let connection = waiting.connection.clone();
    loop {
        if connection.carrier() == Carrier::WebSocket {
            waiting.is_answered = true;
            return text(NOOP.to_owned());
        }
        if let Some(mut entries) = connection.outbox.pull() {
            let body = payload(&mut entries, connection.engine.sessions.config.payload_bytes_max);
            connection.outbox.put_back(entries);
            waiting.is_answered = true;
            return text(body);
        }
        if connection.outbox.is_finished() {
            connection.close();
            waiting.is_answered = true;
            return match connection.last_packet() {
                Some(packet) => text(packet.to_owned()),
                None => closing(Fault::Session.response()),
            };
        }
        if connection.take_release() {
            waiting.is_answered = true;
            return text(NOOP.to_owned());
        }
        connection.outbox.changed().await;
    }
}

/// Converts the frames that a WebSocket would have carried to packets: at least one, and at most
/// `bytes_max` bytes. The rest stays in `entries`.
fn payload(entries: &mut VecDeque<Entry>, bytes_max: usize) -> String {
    let mut body = String::new();
    while let Some(Entry::Bytes(bytes)) = entries.front().cloned() {
        let mut taken = 0;
        for frame in frame::frames(&bytes) {
            let packet = packet(&frame);
            if !body.is_empty() && body.len() + 1 + packet.len() > bytes_max {
                entries[0] = Entry::Bytes(bytes.slice(taken..));
                return body;
            }
            if !body.is_empty() {
                body.push(SEPARATOR);
            }
            body.push_str(&packet);
            taken = frame.end;
        }
        entries.pop_front();
    }
    body
}

fn packet<'f>(frame: &Frame<'f>) -> Cow<'f, str> {
    if frame.opcode == frame::BINARY {
        let mut encoded = "b".to_owned();
        base64::engine::general_purpose::STANDARD.encode_string(frame.payload, &mut encoded);
        return encoded.into();
    }
    String::from_utf8_lossy(frame.payload)
}

/// Handles the packets of a body.
pub(super) async fn post<A: Application>(connection: Arc<Connection<A>>, request: Request) -> Response {
    match connection.carrier() {
        Carrier::Polling | Carrier::Probing => {}
        Carrier::WebSocket | Carrier::Closed => return Fault::Request.response(),
    }
    if !connection.begin_post() {
        connection.end(Some(CLOSE));
        return Fault::Request.response();
    }
    let _active = ActivePost(connection.clone());
    let config = &connection.engine.sessions.config;
    let body = match read_body(request.into_body(), config.payload_bytes_max, config.request_timeout).await {
        Ok(body) => body,
        Err(status) => {
            connection.end(None);
            return closing(plain(status, "the body is too large, or it was not sent in time\n"));
        }
    };
    let Ok(body) = std::str::from_utf8(&body) else {
        connection.end(None);
        return Fault::Request.response();
    };
    for packet in body.split(SEPARATOR) {
        let pause = match packet.strip_prefix('b') {
            Some(encoded) => match base64::engine::general_purpose::STANDARD.decode(encoded) {
                Ok(bytes) => connection.receive_binary(bytes),
                Err(_) => {
                    connection.end(None);
                    return Fault::Request.response();
                }
            },
            None => match connection.receive(packet) {
                Ok(pause) => pause,
                Err(_) => {
                    connection.end(None);
                    return Fault::Request.response();
                }
            },
        };
        // The client sends no other POST until this one is answered.
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        if connection.carrier() == Carrier::Closed {
            break;
        }
    }
    let mut response = plain(StatusCode::OK, "ok");
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/html"));
    response
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn packets_are_separated_and_binary_ones_are_base64() {
        let mut frames = BytesMut::new();
        frame::write_text(&mut frames, b"4hello", false);
        frame::write_binary(&mut frames, &[1, 2, 3, 4]);
        let mut entries = [Entry::Bytes(frames.freeze()), Entry::Bytes(frame::text(b"2"))].into();
        assert_eq!(payload(&mut entries, 9), "4hello");
        assert_eq!(payload(&mut entries, 1000), "bAQIDBA==\u{1e}2");
        assert!(entries.is_empty());
    }
}
