//! Server-sent events at `/events` (WHATWG HTML, section 9.2): the SSE id is the cursor, so that a browser's own
//! `EventSource` resumes by itself with `Last-Event-ID`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use fanfare_proto::v1::Transport;
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::request::{Credentials, refuse};
use crate::{
    delivery::Delivery,
    ending::Ending,
    failure::Failure,
    mailbox::Item,
    reader::{Next, Reader},
    sessions::Sessions,
};

/// How often a silent stream sends a comment, so that nothing between cuts it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// When a browser comes back that was refused for a while.
const RETRY_PAUSE: Duration = Duration::from_secs(3);
const HEADERS: [(&str, &str); 2] = [("cache-control", "no-cache, no-transform"), ("x-accel-buffering", "no")];

pub(crate) async fn events(State(sessions): State<Arc<Sessions>>, uri: Uri, headers: HeaderMap) -> Response {
    let credentials = Credentials::read(&uri, &headers);
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let after = last.filter(|id| !id.is_empty()).or(credentials.after.as_deref()).unwrap_or_default();
    let opened = async {
        let entrant = credentials.entrant(&sessions)?;
        Reader::open(&sessions, entrant, Transport::Sse, Some(after)).await
    };
    let (reader, greetings) = match opened.await {
        Ok(opened) => opened,
        // `EventSource` stays away for good after any status but 200: who may come back is told on a stream that ends.
        Err(failure) if failure.reason.is_retry() => return again(&failure),
        Err(failure) => return refuse(&failure),
    };
    // An id without data tells nobody anything, and is where a browser resumes that has had no event yet.
    let mut first = vec![Event::default().id(reader.cursor().unwrap_or_default())];
    first.extend(greetings.into_iter().map(|greeting| event(&Delivery::new(greeting))));
    let following = stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        let (events, reader) = match reader.next().await {
            Next::Items(items) => (items.iter().filter_map(item).collect(), Some(reader)),
            Next::Reset(cursor) => (vec![reset(&cursor)], Some(reader)),
            Next::Ended(ending) => (vec![farewell(&ending)], None),
        };
        Some((events, reader))
    });
    let all = stream::iter([first]).chain(following).flat_map(stream::iter).map(Ok::<_, Infallible>);
    (HEADERS, Sse::new(all).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))).into_response()
}

/// A refusal that is over soon: when to come back, and why.
fn again(failure: &Failure) -> Response {
    let wait = failure.retry_after.unwrap_or(RETRY_PAUSE);
    let events =
        [Event::default().retry(wait), farewell(&Ending::new(failure.reason, failure.message.as_str()))];
    (HEADERS, Sse::new(stream::iter(events.map(Ok::<_, Infallible>)))).into_response()
}

fn item(item: &Item) -> Option<Event> {
    match item {
        Item::Event(delivery) => Some(event(delivery)),
        // Answers to calls, which cannot be made here.
        Item::Message(_) => None,
    }
}

fn event(delivery: &Delivery) -> Event {
    let event = Event::default().event(&delivery.event.name).data(delivery.message().as_str());
    match delivery.cursor() {
        Some(cursor) => event.id(cursor),
        None => event,
    }
}

fn reset(cursor: &str) -> Event {
    Event::default().id(cursor).event("reset").data(json!({ "type": "reset", "cursor": cursor }).to_string())
}

/// `EventSource` comes back by itself, whatever the reason: a page that is told a final one closes it. A token that is not
/// accepted any more meets it again as a status that keeps it away.
fn farewell(ending: &Ending) -> Event {
    let data = json!({ "type": "end", "code": ending.reason.code(), "message": ending.message });
    Event::default().event("end").data(data.to_string())
}
