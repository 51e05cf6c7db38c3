//! The bridge of Fanfare: browsers' sessions, and one link to a server that feeds them.
//!
//! Knows no catalog: names, rooms and JSON are made by the server. `link` and `rooms` know no transport,
//! `transport` is the only place that knows Socket.IO, `bridge` the only one that knows all parts.

mod bridge;
mod call;
mod config;
mod console;
mod delivery;
mod ending;
mod error;
mod expiry;
mod failure;
mod http;
mod limits;
mod link;
mod mailbox;
mod reader;
mod rooms;
mod session;
mod sessions;
mod stats;
mod transport;

pub use bridge::Bridge;
pub use config::Config;
pub use error::Error;
