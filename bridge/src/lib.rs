//! The bridge of Fanfare: browsers' sessions, and one link to a server that feeds them.
//!
//! Knows no catalog: names, rooms and JSON are made by the server. In reading order; each part
//! knows only the parts before it:
//!
//! 1. `config`, `error`, `refusal`, `client`, `limits`, `clock`: settings, reasons and bounds.
//! 2. `event`: an event and its bytes for each transport, encoded once.
//! 3. `socket`, `outbox`, `session`: one connection's bytes, its send queue, and one browser.
//! 4. `stats`, `shard`, `rooms`: which sessions are in which room, and the fan-out to them.
//! 5. `downstream`, `link`: the stream from a server, and what it drives.
//! 6. `sessions`, `replay`: admission, calls, and the replay of missed events.
//! 7. `transport`: the protocols that browsers speak.
//! 8. `http`, `console`, `deadline`, `listener`, `bridge`: the entry points.

mod access;
mod bridge;
mod bundle;
mod client;
mod clock;
mod config;
mod console;
mod deadline;
mod downstream;
mod error;
mod event;
mod http;
mod limits;
mod link;
mod listener;
mod metrics;
mod outbox;
mod refusal;
mod replay;
mod rooms;
mod session;
mod sessions;
mod shard;
mod socket;
mod stats;
mod transport;

pub use bridge::Bridge;
pub use config::Config;
pub use error::Error;
