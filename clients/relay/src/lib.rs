//! Connects PostgreSQL with Fanfare, for back ends and analytics that use SQL.
//!
//! 1. `database`, `tls`: connections to PostgreSQL.
//! 2. `outbox`: publishes the rows of an outbox table as events.
//! 3. `sink`: stores events in a file or a table, exactly once.
//!
//! Knows neither server nor bridge: it is a producer and a consumer like any other.

mod database;
mod error;
pub mod outbox;
pub mod sink;
mod tls;

pub use database::Database;
pub use error::Error;
