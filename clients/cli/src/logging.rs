//! Logs: to standard error, and the audit log as configured.
//!
//! Logging never disturbs the process. A line that cannot be written is counted and dropped, and
//! each place in the code writes at most a fixed number of lines per second.

mod flood;
mod json;
mod sink;

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use fanfare_telemetry::{Page, Source};
use futures_util::future::BoxFuture;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt as _, Targets},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use self::{
    flood::{Flood, Limited},
    json::JsonLayer,
    sink::Sink,
};
use crate::settings::{LogArgs, LogFormat};

/// The target of security-relevant lines.
const AUDIT: &str = "audit";
/// The value of `--audit-log` that means standard error.
const STDERR: &str = "stderr";

/// The logs of the process.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    sinks: Vec<Arc<Sink>>,
    flood: Arc<Flood>,
}

/// Starts logging.
pub(crate) fn start(args: &LogArgs) -> anyhow::Result<Logs> {
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("the log filter {:?}", args.log))?;
    let flood = Arc::new(Flood::new(args.log_lines_per_second));
    let reporter = flood.clone();
    let sink = Sink::start(Box::new(io::stderr()), move || reporter.report()).context("the log")?;
    let audit = match &args.audit_log {
        None => None,
        Some(file) if file.as_os_str() == STDERR => Some(sink.clone()),
        Some(file) => Some(open(file)?),
    };
    // If the audit log has its own destination, its lines are not in the general log too.
    let own = if audit.is_some() { LevelFilter::OFF } else { LevelFilter::TRACE };
    let elsewhere = Targets::new().with_default(LevelFilter::TRACE).with_target(AUDIT, own);
    let log = layer(args.log_format, &sink).with_filter(filter.and(elsewhere).and(Limited(flood.clone())));
    let of_audit = audit.as_ref().map(|audit| {
        let only = Targets::new().with_target(AUDIT, LevelFilter::INFO);
        JsonLayer::new(audit.clone()).with_filter(only.and(Limited(flood.clone())))
    });
    tracing_subscriber::registry().with(log).with(of_audit).init();
    let mut sinks = vec![sink];
    sinks.extend(audit.filter(|audit| !Arc::ptr_eq(audit, &sinks[0])));
    Ok(Logs { sinks, flood })
}

fn layer<S>(format: LogFormat, sink: &Arc<Sink>) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    match format {
        LogFormat::Json => Box::new(JsonLayer::new(sink.clone())),
        LogFormat::Text => {
            let writer = sink.clone();
            let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.line());
            // It would write to standard error by itself.
            let layer = layer.log_internal_errors(false).with_target(false);
            Box::new(layer.with_ansi(io::stderr().is_terminal()))
        }
    }
}

/// Opens a file for appending that only its owner can read.
fn open(file: &Path) -> anyhow::Result<Arc<Sink>> {
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(file);
    let opened = opened.with_context(|| format!("audit-log: cannot open {}", file.display()))?;
    Sink::start(Box::new(opened), || ()).context("the audit log")
}

impl Logs {
    /// Writes queued lines, for at most a second.
    pub(crate) fn finish(&self) {
        self.sinks.iter().for_each(|sink| sink.flush());
    }
}

impl Source for Logs {
    fn fill<'a>(&'a self, page: &'a mut Page) -> BoxFuture<'a, ()> {
        let sum = |count: fn(&Sink) -> u64| self.sinks.iter().map(|sink| count(sink)).sum();
        page.counter("fanfare_log_lines_total", "Log lines that were written", sum(Sink::written));
        page.counters(
            "fanfare_log_lines_lost_total",
            "Log lines that were not written",
            "reason",
            [
                ("left_out", self.flood.left_out()),
                ("queue_full", sum(Sink::dropped)),
                ("write_failed", sum(Sink::failed)),
            ],
        );
        Box::pin(std::future::ready(()))
    }
}
