//! Errors of the relay and the sinks.

use std::time::Duration;

use fanfare_proto::chain::chain;
use fanfare_trust::TlsError;

use crate::sink::FileSinkError;

/// Why the database or the server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is invalid.
    #[error("postgres: the URL cannot be used (want postgres://USER@HOST:PORT/DATABASE): {0}")]
    Url(String),
    /// The authorities of the database cannot be used.
    #[error("{}", chain(.0))]
    Tls(#[from] TlsError),
    /// A table's name is invalid.
    #[error(
        "{0:?} is no name of a table: want at most 40 of a-z, 0-9 and _, beginning with a letter, \
         and perhaps a schema before it (app.fanfare_outbox)"
    )]
    Table(String),
    /// The table does not exist in the database.
    #[error("the database has no table {table}: {help}")]
    NoTable {
        /// The table.
        table: String,
        /// How to create it.
        help: &'static str,
    },
    /// The database returned an error, or the connection broke.
    #[error("the database cannot {doing}: {}", chain(.source))]
    Database {
        /// The operation that failed.
        doing: &'static str,
        /// The database's error.
        source: tokio_postgres::Error,
    },
    /// The database did not respond in time.
    #[error("the database did not {doing} within {limit:?}")]
    Late {
        /// The operation that failed.
        doing: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// Another process stores events under the same name.
    #[error("another process stores events as {0:?}: end it, or give another name by --sink-name")]
    SinkTaken(String),
    /// A file of events cannot be used.
    #[error(transparent)]
    File(#[from] FileSinkError),
    /// The server refused, or cannot be reached.
    #[error(transparent)]
    Server(#[from] fanfare_client::Error),
    /// A batch was not answered in time.
    #[error("the server did not answer within {0:?}")]
    Unanswered(Duration),
}

impl Error {
    /// Whether a retry may succeed later.
    pub const fn is_retry(&self) -> bool {
        match self {
            Self::Url(_) | Self::Tls(_) | Self::Table(_) | Self::NoTable { .. } | Self::File(_) => false,
            // The database may not have detected the loss of this sink's last connection yet.
            Self::SinkTaken(_) => true,
            Self::Database { .. } | Self::Late { .. } | Self::Server(_) | Self::Unanswered(_) => true,
        }
    }
}
