//! Refusals as gRPC statuses, with a google.rpc.ErrorInfo.

use std::collections::HashMap;

use fanfare_proto::{token::TokenError, v1::Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::error::Refusal;

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::Token(error) => {
                if let TokenError::Invalid(why) = error {
                    tracing::debug!(why, "token refused");
                }
                Code::Unauthenticated
            }
            Refusal::Scope(_) | Refusal::OtherTenant { .. } | Refusal::RoomForbidden(_) => {
                Code::PermissionDenied
            }
            Refusal::TenantMissing
            | Refusal::Address(_)
            | Refusal::Invalid(_)
            | Refusal::Payload { .. }
            | Refusal::Render(_)
            | Refusal::Cursor(_)
            | Refusal::UnknownEvent(_) => Code::InvalidArgument,
            Refusal::TooLarge { .. } | Refusal::TooManyTenants(_) => Code::ResourceExhausted,
            Refusal::Reset(_) => Code::OutOfRange,
            Refusal::Shutdown => Code::Unavailable,
        };
        let mut metadata = HashMap::new();
        if let Refusal::Reset(cursor) = &refusal {
            metadata.insert("cursor".to_owned(), cursor.to_string());
        }
        if let Refusal::Payload { source, .. } = &refusal {
            metadata.insert("path".to_owned(), source.path.clone());
        }
        let message = match &refusal {
            Refusal::Token(error) => format!("Authentication failed: {error}"),
            other => other.to_string(),
        };
        let details = ErrorDetails::with_error_info(refusal.reason().as_str_name(), "fanfare", metadata);
        Self::with_error_details(code, message, details)
    }
}

/// A status for bytes that are not the message they claim to be.
pub(super) fn malformed(message: impl Into<String>) -> Status {
    let details =
        ErrorDetails::with_error_info(Reason::InvalidArgument.as_str_name(), "fanfare", HashMap::new());
    Status::with_error_details(Code::InvalidArgument, message, details)
}
