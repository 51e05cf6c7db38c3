//! Why something that a browser asked for did not happen, as every transport tells it.

use std::time::Duration;

use fanfare_proto::{
    token::TokenError,
    v1::{CallError, Reason},
};
use serde_json::{Value, json};

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    /// For people.
    pub(crate) message: String,
    /// The field that it is about; empty: none.
    pub(crate) path: String,
    /// When the same may be tried again, where that is known.
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), path: String::new(), retry_after: None }
    }

    /// No server is linked.
    pub(crate) fn unavailable() -> Self {
        Self::new(Reason::Unavailable, "no server is reachable at the moment; try again")
    }

    /// A limit that frees itself.
    pub(crate) fn too_fast(retry_after: Duration) -> Self {
        let message = format!("too many calls: the next one may come in {} ms", millis(retry_after));
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

/// Rounded up, so that who waits as told is not refused again.
fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let wait = (error.retry_after_millis > 0).then(|| Duration::from_millis(error.retry_after_millis));
        Self { reason: error.reason(), message: error.message, path: error.path, retry_after: wait }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        if let TokenError::Invalid(why) = &error {
            tracing::debug!(why, "token refused");
        }
        Self::new(error.reason(), format!("Authentication failed: {error}"))
    }
}
