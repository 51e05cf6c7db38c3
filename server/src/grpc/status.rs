//! Converts refusals to gRPC statuses with a google.rpc.ErrorInfo.

use std::{collections::HashMap, sync::Arc};

use fanfare_proto::{token::TokenError, v1::Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::error::Refusal;

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::Token(TokenError::KeysPending) => Code::Unavailable,
            Refusal::Token(error) => {
                if let TokenError::Invalid(why) = error {
                    tracing::debug!(why, "token refused");
                }
                Code::Unauthenticated
            }
            Refusal::Scope(_)
            | Refusal::NoUser
            | Refusal::AllTenants
            | Refusal::OtherTenant { .. }
            | Refusal::RoomForbidden(_)
            | Refusal::RoomUnclaimed(_)
            | Refusal::RoomNotJoined(_)
            | Refusal::RoomRemoved(_)
            | Refusal::RoomUnlisted(_) => Code::PermissionDenied,
            Refusal::TenantMissing
            | Refusal::Address(_)
            | Refusal::Invalid(_)
            | Refusal::Payload { .. }
            | Refusal::Render(_)
            | Refusal::Cursor(_)
            | Refusal::UnknownEvent(_) => Code::InvalidArgument,
            Refusal::TooLarge { .. }
            | Refusal::TooManyTenants(_)
            | Refusal::TooManySessions(_)
            | Refusal::TooManyRevocations(_)
            | Refusal::TooManyReaders(_)
            | Refusal::StoreFull
            | Refusal::StateEntries(_)
            | Refusal::StateBytes(_)
            | Refusal::TooManySubscriptions { .. }
            | Refusal::TooManyRooms { .. }
            | Refusal::TooManyBytes { .. }
            | Refusal::TooFast(_) => Code::ResourceExhausted,
            Refusal::Reset(_) => Code::OutOfRange,
            Refusal::Revision(_) => Code::Aborted,
            Refusal::NoSession(_) | Refusal::Namespace(_) => Code::NotFound,
            Refusal::NoSigner | Refusal::UpstreamNotConfigured(_) => Code::FailedPrecondition,
            Refusal::Shutdown
            | Refusal::UpstreamUnreachable(_)
            | Refusal::Storage(_)
            | Refusal::LeaseLost
            | Refusal::Unconfirmed(_)
            | Refusal::NewerCatalog(_) => Code::Unavailable,
            Refusal::UpstreamTimeout { .. } => Code::DeadlineExceeded,
            Refusal::Upstream { reason, .. } => code(*reason),
        };
        let mut metadata = HashMap::new();
        if let Refusal::Reset(cursor) = &refusal {
            metadata.insert("cursor".to_owned(), cursor.to_string());
        }
        if let Refusal::Revision(revision) = &refusal {
            metadata.insert("revision".to_owned(), revision.to_string());
        }
        if !refusal.path().is_empty() {
            metadata.insert("path".to_owned(), refusal.path().to_owned());
        }
        if let Some(wait) = refusal.retry_after() {
            metadata.insert("retry_after_millis".to_owned(), wait.as_millis().to_string());
        }
        let message = match &refusal {
            Refusal::Token(error) => format!("Authentication failed: {error}"),
            other => other.to_string(),
        };
        let details = ErrorDetails::with_error_info(refusal.reason().as_str_name(), "fanfare", metadata);
        let mut status = Self::with_error_details(code, message, details);
        // The source is used to count refusals.
        status.set_source(Arc::new(refusal));
        status
    }
}

/// Upstream status codes and the reasons that they map to.
const UPSTREAM_REASONS: [(Code, Reason); 15] = [
    (Code::InvalidArgument, Reason::InvalidArgument),
    (Code::OutOfRange, Reason::InvalidArgument),
    (Code::NotFound, Reason::NotFound),
    (Code::AlreadyExists, Reason::AlreadyExists),
    (Code::FailedPrecondition, Reason::FailedPrecondition),
    (Code::PermissionDenied, Reason::Forbidden),
    (Code::Unauthenticated, Reason::Forbidden),
    (Code::ResourceExhausted, Reason::Limit),
    (Code::Aborted, Reason::Aborted),
    (Code::Unavailable, Reason::Unavailable),
    (Code::DeadlineExceeded, Reason::Timeout),
    // The result of our own deadline for the call.
    (Code::Cancelled, Reason::Timeout),
    (Code::Unimplemented, Reason::Unimplemented),
    (Code::Internal, Reason::Internal),
    (Code::Unknown, Reason::Internal),
];

/// The reason that an upstream's status means for the caller.
pub(super) fn reason(code: Code) -> Reason {
    UPSTREAM_REASONS.iter().find(|(of, _)| *of == code).map_or(Reason::Internal, |(_, reason)| *reason)
}

fn code(reason: Reason) -> Code {
    UPSTREAM_REASONS.iter().find(|(_, of)| *of == reason).map_or(Code::Internal, |(code, _)| *code)
}

/// A status for a caller that exceeds a transport limit.
pub(super) fn limit(message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(Reason::Limit.as_str_name(), "fanfare", HashMap::new());
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// A status for bytes that are not a valid message of the expected type.
pub(super) fn malformed(message: impl Into<String>) -> Status {
    let details =
        ErrorDetails::with_error_info(Reason::InvalidArgument.as_str_name(), "fanfare", HashMap::new());
    Status::with_error_details(Code::InvalidArgument, message, details)
}
