//! Long polling at `/poll`: one request, one page of events after a cursor.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    extract::State,
    http::{HeaderMap, Uri, header},
    response::{IntoResponse as _, Response},
};
use fanfare_proto::v1::Transport;
use serde_json::json;

use super::request::{Credentials, refuse};
use crate::{
    failure::Failure,
    mailbox::Item,
    reader::{Next, Reader},
    sessions::Sessions,
};

/// Answers `{ cursor, events: [ { type, … } ] }` once there are events after the cursor, or when the wait is over; without
/// a cursor at once, with the present one.
pub(crate) async fn poll(State(sessions): State<Arc<Sessions>>, uri: Uri, headers: HeaderMap) -> Response {
    let credentials = Credentials::read(&uri, &headers);
    match answer(&sessions, &credentials).await {
        Ok(body) => {
            let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
            (headers, body).into_response()
        }
        Err(failure) => refuse(&failure),
    }
}

async fn answer(sessions: &Arc<Sessions>, credentials: &Credentials) -> Result<String, Failure> {
    let entrant = credentials.entrant(sessions)?;
    sessions.user_limits.check(&entrant.tenant, &entrant.user_id)?;
    let after = credentials.after.as_deref().unwrap_or_default();
    let (mut reader, _) = Reader::open(sessions, entrant, Transport::Poll, Some(after)).await?;
    let mut cursor = reader.cursor().unwrap_or_default();
    if after.is_empty() {
        return Ok(body(&cursor, &VecDeque::new()));
    }
    match tokio::time::timeout(sessions.config.poll_wait, reader.next()).await {
        Ok(Next::Items(items)) => {
            let stored = |item: &Item| match item {
                Item::Event(delivery) => delivery.cursor().map(str::to_owned),
                Item::Message(_) => None,
            };
            // Behind the last event; what was looked at and is not for this session need not be looked at again.
            let last = items.iter().rev().find_map(stored);
            cursor = reader.cursor().or(last).unwrap_or(cursor);
            Ok(body(&cursor, &items))
        }
        Ok(Next::Reset(cursor)) => {
            let reset = json!({ "type": "reset", "cursor": cursor }).to_string();
            Ok(body(&cursor, &VecDeque::from([Item::Message(reset)])))
        }
        Ok(Next::Ended(ending)) => Err(Failure::new(ending.reason, ending.message)),
        Err(_) => Ok(body(&reader.cursor().unwrap_or(cursor), &VecDeque::new())),
    }
}

fn body(cursor: &str, items: &VecDeque<Item>) -> String {
    let mut text = format!("{{\"cursor\":{},\"events\":[", serde_json::Value::from(cursor));
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        match item {
            Item::Event(delivery) => text.push_str(delivery.message().as_str()),
            Item::Message(message) => text.push_str(message),
        }
    }
    text.push_str("]}");
    text
}
