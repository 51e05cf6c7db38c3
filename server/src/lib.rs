//! The server of Fanfare: it takes events from producers, stores them in the tenant's log, and
//! delivers them to subscriptions and bridges. In reading order:
//!
//! 1. `config`, `error`, `event`, `interest`, `page_size`: settings, refusals, an event, and which
//!    events a reader wants, and how many.
//! 2. `engine`: the log, the records and the signals, on memory, disk, Redis or NATS.
//! 3. `hub`: follows the engine and delivers to subscriptions.
//! 4. `ingest`: checks a request and appends its event.
//! 5. `presence`: which users are connected, over all servers on one store.
//! 6. `rules`, `history`, `snapshot`, `call`: access to rooms, stored events in reverse order, the
//!    current state of rooms, and the calls of browsers.
//! 7. `auth`, `revoked`, `subscribers`, `peers`, `bridges`, `stats`, `access`, `health`, `probe`:
//!    what callers may do, and what operators see.
//! 8. `grpc`: the methods. Only this module knows the protocol.
//! 9. `accept`, `secure`, `connection`: sockets, TLS, and the requests of one connection.
//! 10. `server`: the only module that knows all parts.

mod accept;
mod access;
mod auth;
mod bridges;
mod call;
mod config;
mod connection;
mod engine;
mod error;
mod event;
mod grpc;
mod health;
mod history;
mod hub;
mod ingest;
mod interest;
mod metrics;
mod page_size;
mod peers;
mod presence;
mod probe;
mod revoked;
mod rules;
mod secure;
mod server;
mod share;
mod snapshot;
mod stats;
mod subscribers;

pub use config::{
    Ack, Config, Credentials, Limits, NatsConfig, PresenceConfig, RedisConfig, Retention, Store, Tls,
    Upstreams,
};
pub use error::Error;
pub use server::Server;
