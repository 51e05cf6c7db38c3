//! What can go wrong: for the program ([`Error`]) and for a caller ([`Refusal`]).

use fanfare_proto::{
    catalog::RenderError,
    cursor::{Cursor, InvalidCursor},
    json::PayloadError,
    room::AddressError,
    token::{KeyError, TokenError},
    v1::Reason,
};

/// Why the server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The keys cannot be used.
    #[error("token keys")]
    Keys(#[from] KeyError),
    /// Reflection cannot be built from the catalogs' descriptors.
    #[error("reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// An origin is not a header value.
    #[error("{0:?} is no origin: want e.g. \"https://app.example.com\" or \"*\"")]
    Origin(String),
    /// The listener failed.
    #[error("serving gRPC")]
    Serve(#[from] tonic::transport::Error),
}

/// Why a caller's request was refused or a stream ended. Each variant is a cause a caller can tell apart.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("this needs a token with the scope {0:?}")]
    Scope(&'static str),
    #[error("the token is for tenant {own:?}, not {asked:?}")]
    OtherTenant { own: String, asked: String },
    #[error("the token is for all tenants: name one in `tenant`")]
    TenantMissing,
    #[error(
        "the token does not allow room {0:?}: users enter \"org\", their own \"user:\" room, and what their token's rooms claim lists"
    )]
    RoomForbidden(String),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("{0}")]
    Invalid(String),
    #[error("event {type_name}: {source}")]
    Payload { type_name: String, source: PayloadError },
    #[error("{}", chain(.0))]
    Render(#[from] RenderError),
    #[error("after: {0}")]
    Cursor(#[from] InvalidCursor),
    #[error("{0}")]
    UnknownEvent(String),
    #[error("the event has {size} bytes; the limit is {max} (setting event-bytes-max)")]
    TooLarge { size: usize, max: usize },
    #[error("there are {0} tenants already, no more are accepted (setting tenants-max)")]
    TooManyTenants(usize),
    #[error(
        "the log does not reach back to the cursor; read current state elsewhere and subscribe after {0}"
    )]
    Reset(Cursor),
    #[error("the server is shutting down")]
    Shutdown,
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

impl Refusal {
    /// The number of the refusal.
    pub(crate) const fn reason(&self) -> Reason {
        match self {
            Self::Token(error) => error.reason(),
            Self::Scope(_) | Self::OtherTenant { .. } | Self::RoomForbidden(_) => Reason::Forbidden,
            Self::TenantMissing
            | Self::Address(_)
            | Self::Invalid(_)
            | Self::Payload { .. }
            | Self::Render(_)
            | Self::Cursor(_) => Reason::InvalidArgument,
            Self::UnknownEvent(_) => Reason::UnknownEvent,
            Self::TooLarge { .. } => Reason::TooLarge,
            Self::TooManyTenants(_) => Reason::Limit,
            Self::Reset(_) => Reason::Reset,
            Self::Shutdown => Reason::Shutdown,
        }
    }
}
