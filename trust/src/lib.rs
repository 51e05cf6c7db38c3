//! What server and bridge trust, and how they prove who they are: certificates of TLS that are
//! reloaded when their files change, and keys of tokens that are fetched by URL.
//!
//! Knows no method and no settings: callers bring paths and URLs.

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
