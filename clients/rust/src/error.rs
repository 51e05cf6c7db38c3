//! Errors of the client.

use fanfare_proto::v1::Reason;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why a call failed or a stream ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The URL is invalid.
    #[error("{0:?} is no server URL: want e.g. \"http://127.0.0.1:50051\"")]
    Url(String),
    /// The token is not valid in a header.
    #[error("the token holds characters that cannot be sent")]
    TokenText,
    /// Certificates or keys cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// The server cannot be reached, or the connection broke.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server refused, with a reason.
    #[error("{message}")]
    Refused {
        /// The number of the refusal.
        reason: Reason,
        /// A message for people.
        message: String,
        /// With [`Reason::Reset`]: the cursor at which a new subscription can start.
        cursor: Option<String>,
    },
    /// The server's response does not follow the contract.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}

impl Error {
    /// Whether the server is shutting down.
    pub const fn is_shutdown(&self) -> bool {
        matches!(self, Self::Refused { reason: Reason::Shutdown, .. })
    }

    /// Whether the same request may succeed later.
    pub const fn is_retry(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { reason, .. } => reason.is_retry() && !matches!(reason, Reason::Reset),
            Self::Url(_) | Self::TokenText | Self::Tls(_) | Self::Unexpected(_) => false,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == "fanfare");
        if let Some(info) = info {
            let reason = Reason::from_str_name(&info.reason).unwrap_or_default();
            let cursor = info.metadata.get("cursor").cloned();
            return Self::Refused { reason, message: status.message().to_owned(), cursor };
        }
        match status.code() {
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown | Code::Internal => {
                Self::Unreachable(status.message().to_owned())
            }
            code => Self::Unexpected(format!("{code:?}: {}", status.message())),
        }
    }
}
