//! An event on its way to browsers: what the server made once, and the text that each transport makes of it once.

use std::sync::OnceLock;

use fanfare_proto::v1;

use crate::transport::socketio;

/// An event for browsers, shared by all its recipients.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) event: v1::Delivery,
    socketio: OnceLock<socketio::Text>,
}

impl Delivery {
    pub(crate) const fn new(event: v1::Delivery) -> Self {
        Self { event, socketio: OnceLock::new() }
    }

    /// The Socket.IO packet of the event.
    pub(crate) fn socketio(&self) -> &socketio::Text {
        self.socketio.get_or_init(|| socketio::event(&self.event))
    }
}
