//! Errors between the engine and Redis, classified by how to handle them.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::config::Address;
use crate::error::Refusal;

/// Why a command failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Fault {
    /// It did not run; a retry may succeed.
    #[error("{0}")]
    NotRun(String),
    /// It did not run: the node is not a primary.
    #[error("{0}")]
    Demoted(String),
    /// It did not run: another node has the slot.
    #[error("the slot has moved to {0}")]
    Moved(Address),
    /// It did not run: the slot is being moved to another node.
    #[error("the slot is being moved to {0}")]
    Ask(Address),
    /// It did not run: the node does not know the script.
    #[error("the node does not know the script")]
    NoScript,
    /// It may have run.
    #[error("{0}")]
    Unknown(String),
    /// It did not run: the memory or the disk is full.
    #[error("the memory or the disk is full")]
    Full,
    /// The log has an event of a type that no catalog of this server declares.
    #[error("no catalog of this server declares {0}")]
    NewerCatalog(String),
    /// A retry would fail too.
    #[error("{0}")]
    Final(String),
}

impl Fault {
    /// Whether a retry makes sense for a command that may run twice.
    pub(super) const fn is_transient(&self) -> bool {
        matches!(self, Self::NotRun(_) | Self::Demoted(_) | Self::Moved(_) | Self::Ask(_) | Self::Unknown(_))
    }

    /// Whether the command certainly did not run, and a retry makes sense.
    pub(super) const fn is_harmless(&self) -> bool {
        matches!(self, Self::NotRun(_) | Self::Demoted(_) | Self::Moved(_) | Self::Ask(_))
    }

    /// The refusal for a caller; `what` is `written` or `read`.
    pub(super) fn refusal(&self, what: &'static str) -> Refusal {
        match self {
            Self::NewerCatalog(name) => Refusal::NewerCatalog(name.clone()),
            Self::Full => Refusal::StoreFull,
            Self::NotRun(_)
            | Self::Demoted(_)
            | Self::Moved(_)
            | Self::Ask(_)
            | Self::NoScript
            | Self::Unknown(_)
            | Self::Final(_) => {
                tracing::warn!(fault = %self, "Redis did not answer as it should; the log cannot be {what}");
                Refusal::Storage(what)
            }
        }
    }

    /// The fault for an answer that no script returns.
    pub(super) fn unexpected(value: &redis::Value) -> Self {
        Self::Final(format!("unexpected answer {value:?}"))
    }
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        let address = || {
            let (address, _slot) = error.redirect_node()?;
            let (host, port) = address.rsplit_once(':')?;
            Some(Address { host: host.trim_matches(['[', ']']).to_owned(), port: port.parse().ok()? })
        };
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => address().map_or(Self::NotRun(text), Self::Moved),
            ErrorKind::Server(ServerErrorKind::Ask) => address().map_or(Self::NotRun(text), Self::Ask),
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown,
            ) => Self::NotRun(text),
            ErrorKind::Server(ServerErrorKind::ReadOnly) => Self::Demoted(text),
            ErrorKind::Server(ServerErrorKind::NoScript) => Self::NoScript,
            ErrorKind::Io => Self::Unknown(text),
            _ => match error.code() {
                // MISCONF: Redis cannot write to its disk.
                Some("OOM" | "MISCONF") => Self::Full,
                Some("NOREPLICAS" | "BUSY" | "UNBLOCKED") => Self::NotRun(text),
                _ if error.is_unrecoverable_error() => Self::Unknown(text),
                _ => Self::Final(text),
            },
        }
    }
}
