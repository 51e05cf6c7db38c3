//! Metrics of the processes. Knows neither server nor bridge: each provides its values as a
//! [`Source`] on request.
//!
//! 1. `page`: the values at one moment.
//! 2. `tally`, `refusals`: counts by key, and the last message of each refusal.
//! 3. `process`: values of the process from the system.
//! 4. `metrics`: all sources of a process, in the formats that Prometheus reads.
//! 5. `listener`: serves them on a separate address.

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
