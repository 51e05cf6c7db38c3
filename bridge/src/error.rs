//! Why a bridge cannot start or continue.

use fanfare_proto::token::KeyError;

/// Why the bridge cannot start or continue.
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
    /// A server's URL or the bridge's token cannot be used.
    #[error("the link to the server")]
    Link(#[from] fanfare_client::Error),
    /// No server is configured.
    #[error("no server to link to: give at least one URL, e.g. http://127.0.0.1:50051")]
    NoServer,
    /// An origin is not a valid header value.
    #[error("{0:?} is no origin: want e.g. \"https://app.example.com\" or \"*\"")]
    Origin(String),
    /// The path of Socket.IO is invalid.
    #[error("{0:?} is no path for Socket.IO: want e.g. \"/socket.io/\"")]
    Path(String),
}
