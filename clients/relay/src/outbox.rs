//! The outbox: rows that transactions insert together with their own changes are published as
//! events.
//!
//! One pass: `partitions` determines which rows belong to this relay, `rows` reads them, `request`
//! converts each to an event, `publish` sends the events and reports the outcome of each, and
//! `rows` deletes the acknowledged ones. No state is stored here: if a relay is lost, its rows
//! remain, and the next relay sends them again under the same idempotency keys.

mod counters;
mod partitions;
mod publish;
mod relay;
mod request;
mod rows;
mod table;

pub use counters::Counters;
pub use relay::{Config, Relay};
pub use table::Table;
