//! The WebSocket protocol (RFC 6455), with per-message compression (RFC 7692) without context
//! takeover, so that an event is compressed once for all recipients.
//!
//! [`frame`] writes, [`decoder`] reads without sockets, [`handshake`] opens, [`socket`] drives one
//! connection. Header parsing and close codes are tungstenite's.

pub(crate) mod decoder;
pub(crate) mod deflate;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod socket;
