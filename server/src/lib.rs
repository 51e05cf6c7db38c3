//! The server of Fanfare: producers' events come in, go into a tenant's log, and out to subscriptions
//! and bridges.
//!
//! `ingest` checks and stamps, `engine` stores and orders, `hub` delivers, `call` runs what browsers emit, `presence`
//! knows who is there; `grpc` is the only place that
//! knows the protocol, `server` the only one that knows all parts.

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
mod hub;
mod ingest;
mod interest;
mod metrics;
mod peers;
mod presence;
mod probe;
mod revoked;
mod secure;
mod server;
mod share;
mod stats;
mod subscribers;

pub use config::{
    Ack, Config, Credentials, Limits, NatsConfig, PresenceConfig, RedisConfig, Retention, Store, Tls,
    Upstreams,
};
pub use error::Error;
pub use server::Server;
