//! Long polling at `/poll`: one request, one page of events after a cursor.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use fanfare_proto::v1::{CallOk, Delivery, Transport};

use super::{
    message,
    request::{Credentials, refuse},
};
use crate::{
    client::ClientAddress,
    event::Event,
    outbox::{Entry, Outbox},
    refusal::Refusal,
    replay::{Page, Replay},
    session::{Session, Writer},
    sessions::{Attendance, Sessions, Terminal},
};

/// Answers `{ cursor, events: [ { type, … } ] }` once there are events after the cursor, or when
/// the wait is over. Without a cursor it answers immediately, with the current one.
pub(crate) async fn poll(State(sessions): State<Arc<Sessions>>, request: Request) -> Response {
    let credentials = Credentials::read(request.uri(), request.headers());
    let client = request.extensions().get::<ClientAddress>().copied();
    match answer(&sessions, &credentials, client).await {
        Ok(body) => {
            let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
            (headers, body).into_response()
        }
        Err(refusal) => refuse(&refusal),
    }
}

async fn answer(
    sessions: &Arc<Sessions>,
    credentials: &Credentials,
    client: Option<ClientAddress>,
) -> Result<String, Refusal> {
    let admission = credentials.admission(sessions, client.map(|client| client.address))?;
    sessions.user_limits.count_call(&admission.tenant, &admission.user_id)?;
    credentials.check_cursor()?;
    let outbox = Outbox::new(&sessions.outbox_limits);
    let terminal = Terminal {
        transport: Transport::Poll,
        form: None,
        writer: Box::new(PollWriter),
        outbox: outbox.clone(),
        address: client.map(|client| client.address),
        replays: true,
    };
    let start = |_: &Session, _: Vec<Delivery>| {};
    let session = sessions.open(admission, terminal, |_| true, start).await?;
    let attendance = Attendance { sessions: sessions.clone(), session };
    let after = credentials.after.as_deref().unwrap_or_default();
    let mut replay = Replay::new(sessions, &attendance.session, after);
    loop {
        match replay.next().await? {
            Page::Events { .. } if after.is_empty() => return Ok(body(replay.cursor(), [].into_iter())),
            Page::Events { events, .. } if !events.is_empty() => {
                return Ok(body(replay.cursor(), events.iter().map(describe)));
            }
            Page::Events { is_last: false, .. } => {}
            Page::Events { is_last: true, .. } => break,
            Page::Reset(cursor) => return Ok(body(&cursor, [message::reset(&cursor)].into_iter())),
        }
    }
    replay.finish()?;
    match tokio::time::timeout(sessions.config.poll_wait, outbox.next()).await {
        Ok(Ok(entries)) => {
            let events: Vec<Arc<Event>> = entries.into_iter().filter_map(event).collect();
            // After the last stored event.
            let last = events.iter().rev().find_map(|event| event.cursor());
            Ok(body(last.unwrap_or(replay.cursor()), events.iter().map(describe)))
        }
        Ok(Err(why)) => Err(why),
        Err(_) => Ok(body(replay.cursor(), [].into_iter())),
    }
}

fn event(entry: Entry) -> Option<Arc<Event>> {
    match entry {
        Entry::Event(event) => Some(event),
        Entry::Bytes(_) => None,
    }
}

fn describe(event: &Arc<Event>) -> String {
    message::message(&event.delivery, None)
}

fn body(cursor: &str, events: impl Iterator<Item = String>) -> String {
    let events: Vec<String> = events.collect();
    format!("{{\"cursor\":{},\"events\":[{}]}}", serde_json::Value::from(cursor), events.join(","))
}

/// Polls cannot make calls: there is nothing to answer.
struct PollWriter;

impl Writer for PollWriter {
    fn reply(&self, _: &Arc<Outbox>, _: Delivery) {}

    fn acknowledge(&self, _: &Arc<Outbox>, _: i64, _: &CallOk) {}

    fn fail(&self, _: &Arc<Outbox>, _: Option<i64>, _: &Refusal) {}

    fn end(&self, outbox: &Arc<Outbox>, why: &Refusal) {
        outbox.end(why.clone(), None);
    }
}
