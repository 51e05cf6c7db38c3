//! Why a session ends.

use fanfare_proto::v1::Reason;

/// Why a session ends. Retry reasons close the connection, after which stock clients connect again by themselves;
/// final ones say why first, and stock clients stay away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Ending {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// What waited for the session did not fit any more.
    pub(crate) fn slow() -> Self {
        Self::new(Reason::Slow, "the session did not read fast enough")
    }
}
