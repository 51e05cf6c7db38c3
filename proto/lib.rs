//! The contract of Fanfare in Rust: the generated types of `fanfare.v1`, and the concepts that all
//! programs share: rooms, cursors, tokens, rates, catalogs, browser JSON and its types.
//!
//! Knows nothing of transports, storage or processes.

pub mod catalog;
pub mod chain;
pub mod cursor;
pub mod json;
pub mod latency;
pub mod rate;
pub mod revocation;
pub mod room;
pub mod signer;
pub mod token;
pub mod types;

/// The messages and services of `fanfare.v1`.
#[allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("fanfare.v1");
}

impl v1::Reason {
    /// Whether the same request may succeed later (numbers below 2000).
    pub const fn is_retry(self) -> bool {
        (self as i32) < 2000
    }

    /// The stable code that browsers see: the name in lower case, e.g. `token_expired`.
    pub fn code(self) -> String {
        self.as_str_name().trim_start_matches("REASON_").to_ascii_lowercase()
    }
}
