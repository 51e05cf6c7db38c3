//! How the processes are observed. Knows neither server nor bridge: each gives its values as a
//! [`Source`] when somebody asks.
//!
//! 1. `page`: the values of one moment.
//! 2. `tally`, `refusals`: counts that are told apart, and what was said with refusals.
//! 3. `process`: what the system says of the process.
//! 4. `metrics`: all sources of a process, in the formats that Prometheus reads.
//! 5. `listener`: serves them on an address of their own.

mod listener;
mod metrics;
mod page;
mod process;
mod refusals;
mod tally;

pub use listener::MetricsListener;
pub use metrics::{Exposition, Health, Metrics, Source};
pub use page::{Bound, Page};
pub use process::Process;
pub use refusals::Refusals;
pub use tally::{LimitTally, ReasonTally, TenantTally};
