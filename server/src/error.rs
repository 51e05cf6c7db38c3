//! Errors of the program ([`Error`]) and refusals for callers ([`Refusal`]).

use std::time::Duration;

use fanfare_proto::{
    catalog::RenderError,
    chain::chain,
    cursor::{Cursor, InvalidCursor},
    json::PayloadError,
    room::AddressError,
    token::{KeyError, TokenError},
    v1::Reason,
};

/// Why the server cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The keys cannot be used.
    #[error("token keys")]
    Keys(#[from] KeyError),
    /// A certificate or its key cannot be used.
    #[error("TLS")]
    Tls(#[from] fanfare_trust::TlsError),
    /// Reflection cannot be built from the catalogs' descriptors.
    #[error("reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// An origin is not a valid header value.
    #[error("{0:?} is no origin: want e.g. \"https://app.example.com\" or \"*\"")]
    Origin(String),
    /// An upstream's URL is not valid.
    #[error(
        "upstream {name:?}: {url:?} is no URL: want e.g. \"http://127.0.0.1:50052\" or \"https://billing:443\""
    )]
    UpstreamUrl {
        /// The name of the upstream.
        name: String,
        /// The configured URL.
        url: String,
    },
    /// A catalog needs an upstream that is not configured.
    #[error(
        "{method} needs the upstream {name:?}: give its address, e.g. --upstream {name}=http://127.0.0.1:50052"
    )]
    UpstreamMissing {
        /// The method that needs it.
        method: String,
        /// The name of the upstream.
        name: String,
    },
    /// A catalog whose presence events should be published is not loaded.
    #[error("presence-catalog {name:?} is not loaded; there are {loaded}")]
    PresenceCatalog {
        /// The configured catalog.
        name: String,
        /// The loaded catalogs.
        loaded: String,
    },
    /// The log on disk cannot be opened.
    #[error("the log in {folder} cannot be opened: {problem}")]
    Store {
        /// The data folder.
        folder: String,
        /// What is wrong, and how to fix it.
        problem: String,
    },
    /// The log on NATS JetStream cannot be used.
    #[error("the log on NATS ({servers}) cannot be used: {problem}")]
    Nats {
        /// The addresses of the NATS servers.
        servers: String,
        /// What is wrong, and how to fix it.
        problem: String,
    },
    /// Redis cannot be used.
    #[error("redis: {problem}")]
    Redis {
        /// What is wrong, and how to fix it.
        problem: String,
    },
}

/// Why a caller's request was refused or a stream ended. Each variant is a cause that a caller can
/// tell apart.
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
    #[error("this is about all tenants: it needs a token whose tenant is \"*\"")]
    AllTenants,
    #[error("no session {0:?} is connected")]
    NoSession(String),
    #[error("{0} others read along already, no more are accepted")]
    TooManyReaders(usize),
    #[error("this server signs no tokens: only `fanfare dev` does, with the public development key")]
    NoSigner,
    #[error(
        "the token does not allow room {0:?}: users enter \"org\", their own \"user:\" room, and what their token's rooms claim lists"
    )]
    RoomForbidden(String),
    #[error("this needs a user's token: one with a user id and without scopes")]
    NoUser,
    #[error("the token does not allow room {0:?}: its rooms claim does not list it")]
    RoomUnlisted(String),
    #[error(
        "the token does not allow room {0:?}: only tokens whose rooms claim lists it do, and this one has none"
    )]
    RoomUnclaimed(String),
    #[error("only sessions that are in room {0:?} may publish there: join it first")]
    RoomNotJoined(String),
    #[error("an administrator has taken the user out of room {0:?}")]
    RoomRemoved(String),
    #[error("there are {0} revocations already, no more are accepted: revoke by user, or everybody")]
    TooManyRevocations(usize),
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
    #[error("the log cannot be {0} at the moment; try again")]
    Storage(&'static str),
    #[error(
        "the log has an event of type {0:?}, which no catalog of this server declares: a server with a newer catalog has published it; update this server"
    )]
    NewerCatalog(String),
    #[error("{0} servers of the group did not confirm in time; call it again")]
    Unconfirmed(usize),
    #[error("the store does not have the sessions of this link any more; link again")]
    LeaseLost,
    #[error("the store of the log is full; events can be read, and published again when there is room")]
    StoreFull,
    #[error("the state has revision {0}, which is not the expected one; read the state again")]
    Revision(u64),
    #[error("the state of a tenant has at most {0} entries; delete some (setting state-entries-max)")]
    StateEntries(usize),
    #[error("the state of a tenant has at most {0} bytes; delete some entries (setting state-bytes-max)")]
    StateBytes(usize),
    #[error("no catalog is served in the namespace {0:?}")]
    Namespace(String),
    #[error("the user has {0} sessions already, no more are accepted (setting sessions-per-user)")]
    TooManySessions(usize),
    #[error("too many calls: the next one may come in {} ms", .0.as_millis())]
    TooFast(Duration),
    #[error("{whose} publishes too many bytes: try again in {} ms (setting {setting})", .wait.as_millis())]
    TooManyBytes { whose: &'static str, setting: &'static str, wait: Duration },
    #[error("the {kind} has {max} subscriptions already, no more are accepted (setting {setting})")]
    TooManySubscriptions { kind: &'static str, max: usize, setting: &'static str },
    #[error("all subscriptions of one {kind} may have {max} rooms together (setting rooms-per-user-max)")]
    TooManyRooms { kind: &'static str, max: usize },
    #[error(
        "the upstream {0:?} is not configured: the server wants its address, e.g. --upstream {0}=http://127.0.0.1:50061"
    )]
    UpstreamNotConfigured(String),
    #[error("the upstream {0:?} cannot be reached")]
    UpstreamUnreachable(String),
    #[error("the upstream {upstream:?} did not answer within {timeout:?}")]
    UpstreamTimeout { upstream: String, timeout: Duration },
    /// An upstream's message, with the reason for its status.
    #[error("{message}")]
    Upstream { reason: Reason, message: String },
}

impl Refusal {
    /// The limits that refusals name. A limit that has a setting has the setting's name.
    pub(crate) const LIMITS: [&str; 14] = [
        "event-bytes-max",
        "tenants-max",
        "sessions-per-user-max",
        "tail-readers",
        "store",
        "state-entries-max",
        "state-bytes-max",
        "subscriptions-per-user-max",
        "subscriptions-per-service-max",
        "rooms-per-user-max",
        "publish-bytes-per-user",
        "publish-bytes-per-tenant",
        "calls-per-user",
        "grpc-connections-max",
    ];

    /// The exceeded limit, one of [`Self::LIMITS`]; `None` for other refusals.
    pub(crate) const fn limit(&self) -> Option<&'static str> {
        Some(match self {
            Self::TooLarge { .. } => "event-bytes-max",
            Self::TooManyTenants(_) => "tenants-max",
            Self::TooManySessions(_) => "sessions-per-user-max",
            Self::TooManyReaders(_) => "tail-readers",
            Self::StoreFull => "store",
            Self::StateEntries(_) => "state-entries-max",
            Self::StateBytes(_) => "state-bytes-max",
            Self::TooManySubscriptions { setting, .. } | Self::TooManyBytes { setting, .. } => setting,
            Self::TooManyRooms { .. } => "rooms-per-user-max",
            Self::TooFast(_) => "calls-per-user",
            _ => return None,
        })
    }

    /// How long to wait before a retry, if known.
    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooFast(wait) | Self::TooManyBytes { wait, .. } => Some(*wait),
            _ => None,
        }
    }

    /// The path of the field that caused the refusal, as browsers name it; empty if there is none.
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Payload { source, .. } | Self::Render(RenderError::Payload(source)) => &source.path,
            Self::Render(RenderError::Empty { path, .. } | RenderError::KeyEmpty { path, .. }) => path,
            _ => "",
        }
    }

    /// The reason that clients receive.
    pub(crate) const fn reason(&self) -> Reason {
        match self {
            Self::Token(error) => error.reason(),
            Self::Scope(_)
            | Self::NoUser
            | Self::AllTenants
            | Self::OtherTenant { .. }
            | Self::RoomForbidden(_)
            | Self::RoomUnclaimed(_)
            | Self::RoomNotJoined(_)
            | Self::RoomRemoved(_)
            | Self::RoomUnlisted(_) => Reason::Forbidden,
            Self::TenantMissing
            | Self::Address(_)
            | Self::Invalid(_)
            | Self::Payload { .. }
            | Self::Render(_)
            | Self::Cursor(_) => Reason::InvalidArgument,
            Self::UnknownEvent(_) => Reason::UnknownEvent,
            Self::TooLarge { .. } => Reason::TooLarge,
            Self::Namespace(_) => Reason::InvalidNamespace,
            Self::NoSession(_) => Reason::NotFound,
            Self::NoSigner | Self::UpstreamNotConfigured(_) => Reason::FailedPrecondition,
            Self::TooManyTenants(_)
            | Self::TooManySessions(_)
            | Self::TooManyRevocations(_)
            | Self::TooManyReaders(_)
            | Self::StoreFull
            | Self::StateEntries(_)
            | Self::StateBytes(_)
            | Self::TooManySubscriptions { .. }
            | Self::TooManyRooms { .. }
            | Self::TooManyBytes { .. }
            | Self::TooFast(_) => Reason::Limit,
            Self::UpstreamUnreachable(_)
            | Self::Storage(_)
            | Self::LeaseLost
            | Self::Unconfirmed(_)
            | Self::NewerCatalog(_) => Reason::Unavailable,
            Self::UpstreamTimeout { .. } => Reason::Timeout,
            Self::Upstream { reason, .. } => *reason,
            Self::Reset(_) => Reason::Reset,
            Self::Revision(_) => Reason::Revision,
            Self::Shutdown => Reason::Shutdown,
        }
    }
}
