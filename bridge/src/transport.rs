//! How browsers are spoken to: the only place that knows the protocols and their libraries.

pub(crate) mod io;
pub(crate) mod socketio;
