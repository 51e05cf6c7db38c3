//! Between PostgreSQL and Fanfare, for back ends that cannot or will not publish by themselves.
//!
//! 1. `database`, `tls`: connections to PostgreSQL.
//! 2. `outbox`: publishes the rows of an outbox table as events.
//!
//! Knows neither server nor bridge: it is a producer like any other.

mod database;
mod error;
pub mod outbox;
mod tls;

pub use database::Database;
pub use error::Error;
