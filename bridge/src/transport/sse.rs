//! Server-sent events at `/events` (WHATWG HTML, section 9.2). The SSE id is the cursor, so that a
//! browser's own `EventSource` resumes by itself with `Last-Event-ID`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use fanfare_proto::v1::{CallOk, Delivery, Transport};
use futures_util::stream;
use serde_json::json;

use super::{
    message, places,
    request::{Credentials, refuse},
};
use crate::{
    client::ClientAddress,
    event::Form,
    outbox::{Entry, Outbox},
    refusal::Refusal,
    replay::Replay,
    session::{Session, Writer},
    sessions::{Attendance, Sessions, Terminal},
};

/// How often an idle stream sends a comment, so that no intermediary closes it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a browser waits to reconnect after a temporary refusal.
const RETRY_PAUSE: Duration = Duration::from_secs(3);
const HEADERS: [(&str, &str); 3] = [
    ("content-type", "text/event-stream"),
    ("cache-control", "no-cache, no-transform"),
    ("x-accel-buffering", "no"),
];

/// A stream that has begun.
struct Stream {
    attendance: Option<Attendance>,
    outbox: Arc<Outbox>,
}

/// Answers with a stream of events.
pub(crate) async fn events(State(sessions): State<Arc<Sessions>>, request: Request) -> Response {
    let mut credentials = Credentials::read(request.uri(), request.headers());
    let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
    if let Some(last) = last.filter(|id| !id.is_empty()) {
        credentials.after = Some(last.to_owned());
    }
    let client = request.extensions().get::<ClientAddress>().copied();
    match open(&sessions, &credentials, client).await {
        Ok(stream) => (HEADERS, Body::from_stream(stream.into_frames())).into_response(),
        // `EventSource` does not reconnect after any status except 200: a client that may reconnect
        // is notified on a stream that ends.
        Err(refusal) if refusal.reason.is_retry() => again(&refusal),
        Err(refusal) => refuse(&refusal),
    }
}

async fn open(
    sessions: &Arc<Sessions>,
    credentials: &Credentials,
    client: Option<ClientAddress>,
) -> Result<Stream, Refusal> {
    let admission = credentials.admission(sessions, client.map(|client| client.address))?;
    credentials.check_cursor()?;
    let after = credentials.after.clone().unwrap_or_default();
    let outbox = Outbox::new(&sessions.outbox_limits);
    let terminal = Terminal {
        transport: Transport::Sse,
        form: Some(Form { place: places::SSE, encode: |event, _| frame(event), namespace: "".into() }),
        writer: Box::new(StreamWriter),
        outbox: outbox.clone(),
        address: client.map(|client| client.address),
        replays: true,
    };
    let mut greetings = Vec::new();
    let start = |_: &Session, events: Vec<Delivery>| greetings = events;
    let session = sessions.open(admission, terminal, |_| true, start).await?;
    let attendance = Attendance { sessions: sessions.clone(), session };
    let session = &attendance.session;
    let mut replay = Replay::new(sessions, session, &after);
    if after.is_empty() {
        replay.next().await?;
    }
    // An id without data dispatches no event, but sets the position at which a browser resumes if
    // it has received none yet.
    outbox.send_or_end(&format!("id: {}\n\n", replay.cursor()).into());
    greetings.iter().for_each(|greeting| outbox.send_or_end(&frame(greeting)));
    if after.is_empty() {
        replay.finish()?;
    } else {
        let (outbox, session) = (outbox.clone(), session.clone());
        sessions.spawn(async move {
            if let Err(refusal) = replay.run(|cursor| outbox.send_or_end(&reset(cursor))).await {
                session.close(&refusal);
            }
        });
    }
    Ok(Stream { attendance: Some(attendance), outbox })
}

impl Stream {
    fn into_frames(self) -> impl stream::Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut stream| async {
            stream.attendance.as_ref()?;
            let next = tokio::time::timeout(KEEP_ALIVE, stream.outbox.next()).await;
            let frames = match next {
                Err(_) => Bytes::from_static(b":\n\n"),
                Ok(Ok(entries)) => join(entries),
                // The farewell was the last entry.
                Ok(Err(_)) => return None,
            };
            if stream.outbox.is_finished() {
                stream.attendance = None;
            }
            Some((Ok(frames), stream))
        })
    }
}

fn join(entries: std::collections::VecDeque<Entry>) -> Bytes {
    let mut joined = BytesMut::new();
    for entry in entries {
        match entry {
            Entry::Bytes(bytes) => joined.extend_from_slice(&bytes),
            Entry::Event(event) => joined.extend_from_slice(&frame(&event.delivery)),
        }
    }
    joined.freeze()
}

/// A temporary refusal: when to reconnect, and why.
fn again(refusal: &Refusal) -> Response {
    let wait = refusal.retry_after.unwrap_or(RETRY_PAUSE).as_millis();
    (HEADERS, format!("retry: {wait}\n\n{}", farewell(refusal))).into_response()
}

fn frame(event: &Delivery) -> Bytes {
    let mut text = format!("event: {}\n", event.name);
    if !event.ephemeral {
        text.push_str("id: ");
        text.push_str(&event.id);
        text.push('\n');
    }
    text.push_str("data: ");
    text.push_str(&message::message(event, None));
    text.push_str("\n\n");
    text.into()
}

fn reset(cursor: &str) -> Bytes {
    format!("event: reset\nid: {cursor}\ndata: {}\n\n", message::reset(cursor)).into()
}

/// `EventSource` always reconnects by itself, so a page closes it when it gets a final reason. If
/// it reconnects with a token that is no longer accepted, the status stops it.
fn farewell(why: &Refusal) -> String {
    let data = json!({ "type": "end", "code": why.reason.code(), "message": why.message });
    format!("event: end\ndata: {data}\n\n")
}

/// Event streams cannot make calls: there is nothing to answer.
struct StreamWriter;

impl Writer for StreamWriter {
    fn reply(&self, outbox: &Arc<Outbox>, event: Delivery) {
        outbox.send_or_end(&frame(&event));
    }

    fn acknowledge(&self, _: &Arc<Outbox>, _: i64, _: &CallOk) {}

    fn fail(&self, _: &Arc<Outbox>, _: Option<i64>, _: &Refusal) {}

    fn end(&self, outbox: &Arc<Outbox>, why: &Refusal) {
        outbox.end(why.clone(), Some(farewell(why).into()));
    }
}
