//! What requests of the plain transports carry, and how they are refused.

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use fanfare_proto::{room::Room, v1::Reason};

use crate::{
    failure::Failure,
    sessions::{Entrant, Sessions},
};

/// The query `token=…&after=…&room=…&room=…`, and the `authorization` header.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    /// Of the query or, when it has none, the header.
    pub(crate) token: Option<String>,
    pub(crate) after: Option<String>,
    rooms: Vec<String>,
}

impl Credentials {
    /// Reads a request.
    pub(crate) fn read(uri: &Uri, headers: &HeaderMap) -> Self {
        let mut read = Self::default();
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

    /// Who comes, and into which rooms.
    pub(crate) fn entrant(&self, sessions: &Sessions) -> Result<Entrant, Failure> {
        let mut entrant = sessions.identify(self.token.as_deref())?;
        let rooms = self.rooms.iter().map(|room| Room::new(room)).collect::<Result<Vec<_>, _>>();
        let rooms = rooms.map_err(|e| Failure {
            path: "room".into(),
            ..Failure::new(Reason::InvalidArgument, e.to_string())
        })?;
        entrant.ask_for(rooms, sessions.config.rooms_per_session_max)?;
        Ok(entrant)
    }
}

/// A refusal over HTTP: its status, and `{ code, message, … }`.
pub(crate) fn refuse(failure: &Failure) -> Response {
    let status = status(failure.reason);
    let mut response = (status, Json(failure.json())).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(wait) = failure.retry_after {
        let seconds = wait.as_secs_f64().ceil().max(1.0);
        if let Ok(value) = format!("{seconds}").parse() {
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
    }
    response
}

const fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::NoToken | Reason::InvalidToken | Reason::TokenExpired => StatusCode::UNAUTHORIZED,
        Reason::Forbidden | Reason::Disconnected | Reason::Abuse => StatusCode::FORBIDDEN,
        Reason::Limit | Reason::Slow => StatusCode::TOO_MANY_REQUESTS,
        Reason::Unavailable | Reason::Shutdown | Reason::Reconnect | Reason::Reset | Reason::Timeout => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::Unspecified | Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Reason::Aborted
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
