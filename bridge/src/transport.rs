//! How browsers connect. Each transport knows its protocol and the layers below it; nothing above
//! knows either.
//!
//! In reading order: [`request`] the contents of HTTP requests, [`upgrade`] how a connection leaves
//! HTTP, [`websocket`] RFC 6455, [`engineio`] and [`socketio`] on top of it, then the plain ones:
//! [`raw`] WebSocket, [`sse`], [`poll`].

pub(crate) mod engineio;
pub(crate) mod message;
pub(crate) mod poll;
pub(crate) mod raw;
pub(crate) mod request;
pub(crate) mod socketio;
pub(crate) mod sse;
pub(crate) mod upgrade;
pub(crate) mod websocket;

/// Where transports store their encoded forms, see [`crate::event::Form::place`].
pub(crate) mod places {
    /// Eight forms: with or without namespace, compression and cursor.
    pub(crate) const SOCKETIO: usize = 0;
    /// Four forms: with or without compression and cursor.
    pub(crate) const RAW: usize = 8;
    pub(crate) const SSE: usize = 12;
    const _: () = assert!(SSE < crate::event::FORMS);
}
