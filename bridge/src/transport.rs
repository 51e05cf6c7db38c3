//! How browsers connect. Each transport knows its protocol, and what it stands on; nothing above knows either.

pub(crate) mod io;
pub(crate) mod poll;
pub(crate) mod request;
pub(crate) mod socketio;
pub(crate) mod sse;
pub(crate) mod websocket;
