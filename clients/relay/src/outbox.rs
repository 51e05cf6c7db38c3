//! The outbox: rows that transactions insert beside their own changes are published as events.
//!
//! One pass: `partitions` says which rows are this relay's, `rows` reads them, `request` makes an
//! event of each, `publish` sends them and says what became of each, and `rows` deletes what was
//! acknowledged. Nothing is kept here: a relay that is lost leaves its rows, and the next one sends
//! them again under the same idempotency keys.

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
