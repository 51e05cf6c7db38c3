//! Where a durable consumer stores events: a file of JSON lines, or a table. Each sink also stores
//! the cursor that it has reached, in the same write as the events, so that each event is stored
//! exactly once.

mod file;
mod table;

use std::path::PathBuf;

pub use file::{FileSink, FileSinkError};
pub use table::TableSink;

use crate::Error;

/// An event to store.
#[derive(Debug, Clone)]
pub struct Record {
    /// The position just after the event.
    pub cursor: String,
    /// The event as one JSON object with `tenant`, `id`, `seq`, `type`, `name`, `rooms`, `time`,
    /// `sender`, and `payload` or `protobuf` (base64).
    pub json: String,
}

/// A place that stores events.
#[derive(Debug)]
pub enum Sink {
    /// A file.
    File(Box<FileSink>),
    /// Tables in PostgreSQL.
    Table(Box<TableSink>),
}

/// A sink's place, as parsed from its setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// A database's URL.
    Postgres(String),
}

impl From<&str> for Place {
    fn from(text: &str) -> Self {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Self::Postgres(text.to_owned())
        } else {
            Self::File(text.into())
        }
    }
}

impl Sink {
    /// The cursor that was reached; empty at the first start.
    pub fn cursor(&self) -> &str {
        match self {
            Self::File(file) => file.cursor(),
            Self::Table(table) => table.cursor(),
        }
    }

    /// Stores events, and the cursor of the last one. When this returns, they are durable.
    pub async fn store(&mut self, records: &[Record]) -> Result<(), Error> {
        match self {
            Self::File(file) => Ok(file.store(records)?),
            Self::Table(table) => table.store(records).await,
        }
    }

    /// Stores a cursor that was reached without an event.
    pub async fn reach(&mut self, cursor: &str) -> Result<(), Error> {
        match self {
            Self::File(file) => Ok(file.reach(cursor)?),
            Self::Table(table) => table.reach(cursor).await,
        }
    }

    /// Records that events are missing before a cursor.
    pub async fn miss(&mut self, cursor: &str) -> Result<(), Error> {
        match self {
            Self::File(file) => Ok(file.miss(cursor)?),
            Self::Table(table) => table.miss(cursor).await,
        }
    }
}
