//! The contents of HTTP requests, and how they are refused.

use std::{net::IpAddr, time::Duration};

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use fanfare_proto::{cursor::Cursor, room::Room, v1::Reason};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::{
    client,
    refusal::Refusal,
    sessions::{Admission, Sessions},
};

/// The query `token=…&after=…&room=…&room=…`, and the `authorization` header.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    /// From the query or, if it has none, from the header.
    pub(crate) token: Option<String>,
    pub(crate) after: Option<String>,
    pub(crate) user_agent: String,
    rooms: Vec<String>,
}

impl Credentials {
    /// Reads a request.
    pub(crate) fn read(uri: &Uri, headers: &HeaderMap) -> Self {
        let mut read = Self { user_agent: client::user_agent(headers).to_owned(), ..Self::default() };
        let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        for (name, value) in query.map(|query| query.0).unwrap_or_default() {
            match name.as_str() {
                "token" if !value.is_empty() => _ = read.token.get_or_insert(value),
                "after" => _ = read.after.get_or_insert(value),
                "room" => read.rooms.push(value),
                _ => {}
            }
        }
        let header = || headers.get(header::AUTHORIZATION)?.to_str().ok().map(str::to_owned);
        read.token = read.token.or_else(|| header().filter(|token| !token.is_empty()));
        read
    }

    /// Verifies the caller, and the rooms that it asks for.
    pub(crate) fn admission(
        &self,
        sessions: &Sessions,
        address: Option<IpAddr>,
    ) -> Result<Admission, Refusal> {
        let mut admission = sessions.identify(self.token.as_deref(), address)?;
        let entered = self.enter(&mut admission, sessions);
        entered.inspect_err(|refusal| {
            sessions.refuse_connect(refusal, address, Some((&admission.tenant, &admission.user_id)));
        })?;
        Ok(admission)
    }

    fn enter(&self, admission: &mut Admission, sessions: &Sessions) -> Result<(), Refusal> {
        let rooms = self.rooms.iter().map(|room| Room::new(room)).collect::<Result<Vec<_>, _>>();
        let rooms = rooms.map_err(|e| Refusal::new(Reason::InvalidArgument, e.to_string()).at("room"))?;
        admission.user_agent = sessions.user_agents.share(&self.user_agent);
        admission.add_rooms(rooms, sessions.config.rooms_per_session_max)
    }

    /// Checks the cursor, if there is one.
    pub(crate) fn check_cursor(&self) -> Result<(), Refusal> {
        let cursor = Cursor::after(self.after.as_deref().unwrap_or_default());
        cursor.map(drop).map_err(|e| Refusal::new(Reason::InvalidArgument, e.to_string()).at("after"))
    }
}

/// A refusal over HTTP: its status, and `{ code, message, … }`.
pub(crate) fn refuse(refusal: &Refusal) -> Response {
    answer(status(refusal.reason), refusal)
}

/// A refusal because the bridge is full or shutting down: 503, and the connection closes.
pub(crate) fn unavailable(refusal: &Refusal) -> Response {
    closing(answer(StatusCode::SERVICE_UNAVAILABLE, refusal))
}

/// Asks the client to open another connection for its next request.
pub(crate) fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn answer(status: StatusCode, refusal: &Refusal) -> Response {
    let mut response = (status, Json(refusal.json())).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(wait) = refusal.retry_after {
        let seconds = wait.as_secs_f64().ceil().max(1.0);
        if let Ok(value) = format!("{seconds}").parse() {
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
    }
    response
}

/// Reads a body of at most `bytes_max` bytes within a time.
pub(crate) async fn read_body(body: Body, bytes_max: usize, within: Duration) -> Result<Bytes, StatusCode> {
    let read = tokio::time::timeout(within, Limited::new(body, bytes_max).collect()).await;
    match read.map_err(|_| StatusCode::REQUEST_TIMEOUT)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::BAD_REQUEST),
    }
}

const fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::NoToken | Reason::InvalidToken | Reason::TokenExpired | Reason::TokenRevoked => {
            StatusCode::UNAUTHORIZED
        }
        Reason::Forbidden | Reason::Disconnected | Reason::Abuse => StatusCode::FORBIDDEN,
        Reason::Limit | Reason::Slow => StatusCode::TOO_MANY_REQUESTS,
        Reason::Unavailable | Reason::Shutdown | Reason::Reconnect | Reason::Reset | Reason::Timeout => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::Unspecified | Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Reason::Aborted
        | Reason::Revision
        | Reason::InvalidArgument
        | Reason::UnknownEvent
        | Reason::Protocol
        | Reason::InvalidNamespace
        | Reason::NotFound
        | Reason::FailedPrecondition
        | Reason::AlreadyExists
        | Reason::Unimplemented => StatusCode::BAD_REQUEST,
    }
}
