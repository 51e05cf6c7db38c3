//! Why a browser's request was refused, or why its session ends, independent of the transport.

use std::time::Duration;

use fanfare_proto::{
    token::TokenError,
    v1::{CallError, Reason},
};
use serde_json::{Value, json};

/// A refusal of a request, or the end of a session. Reasons marked *retry* close the connection, so
/// that stock clients reconnect by themselves; for final ones the client is notified first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// A message for people.
    pub(crate) message: String,
    /// The field that is wrong; empty: none.
    pub(crate) path: String,
    /// When the request may be retried, if known.
    pub(crate) retry_after: Option<Duration>,
    /// The limit that was exceeded, if it is one of this bridge's: one of [`Self::LIMITS`].
    pub(crate) limit: Option<&'static str>,
}

impl Refusal {
    /// The limits that refusals name; a limit that is a setting has the setting's name.
    pub(crate) const LIMITS: [&str; 16] = [
        "connections-max",
        "connections-per-address-max",
        "connects-per-second",
        "handshakes-max",
        "handshakes-per-address-max",
        "sessions-per-address-max",
        "user-connects-per-second",
        "calls-per-second",
        "user-calls-per-second",
        "calls-waiting",
        "call-bytes",
        "payload-bytes-max",
        "queue-bytes-max",
        "rooms-per-session-max",
        "rooms-per-tenant-max",
        "rooms",
    ];

    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), path: String::new(), retry_after: None, limit: None }
    }

    /// The same refusal, with the limit that was exceeded.
    pub(crate) fn over(self, limit: &'static str) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// The same refusal, for one field.
    pub(crate) fn at(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }

    /// No server is linked, or it does not respond.
    pub(crate) fn unavailable() -> Self {
        Self::new(Reason::Unavailable, "no server is reachable at the moment; try again")
    }

    /// The session does not read fast enough.
    pub(crate) fn slow() -> Self {
        Self::new(Reason::Slow, "the session did not read fast enough").over("queue-bytes-max")
    }

    /// The peer has disconnected; no notification is sent.
    pub(crate) fn gone() -> Self {
        Self::new(Reason::Unspecified, "the connection is gone")
    }

    /// Too many calls.
    pub(crate) fn too_many_calls(retry_after: Duration) -> Self {
        let next = millis(retry_after);
        Self::too_fast(retry_after, format!("too many calls: the next one may come in {next} ms"))
    }

    /// A rate was exceeded.
    pub(crate) fn too_fast(retry_after: Duration, message: String) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Reason::Limit, message) }
    }

    /// `{ code, message, path?, retryAfterMs? }`.
    pub(crate) fn json(&self) -> Value {
        let mut error = json!({ "code": self.reason.code(), "message": self.message });
        if !self.path.is_empty() {
            error["path"] = self.path.as_str().into();
        }
        if let Some(wait) = self.retry_after {
            error["retryAfterMs"] = millis(wait).into();
        }
        error
    }
}

/// Rounded up, so that a client that waits for this time is not refused again.
fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        let wait = error.retry_after_millis;
        let retry_after = (wait > 0).then(|| Duration::from_millis(wait));
        Self { reason: error.reason(), message: error.message, path: error.path, retry_after, limit: None }
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        if let TokenError::Invalid(why) = &error {
            tracing::debug!(why, "token refused");
        }
        Self::new(error.reason(), format!("Authentication failed: {error}"))
    }
}
