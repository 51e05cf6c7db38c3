//! What server and bridge trust, and how they identify themselves: TLS certificates that are
//! reloaded when their files change, and token keys that are fetched by URL.
//!
//! Knows no methods and no settings: callers pass paths and URLs.

mod client;
mod error;
mod fetch;
mod files;
mod jwks;
mod server;
mod workload;

pub use client::{ClientTls, database_tls};
pub use error::TlsError;
pub use jwks::Jwks;
pub use server::{ServerTls, TlsFiles};
pub use workload::{InvalidWorkload, Workload, Workloads};
