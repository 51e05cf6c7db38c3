//! All sources of a process, in the formats that Prometheus reads.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use prometheus_client::{
    encoding::{prometheus_text, text},
    registry::Registry,
};
use tokio::sync::Mutex;

use crate::{page::Page, process::Process};

const OPENMETRICS: &str = "application/openmetrics-text";

/// A component that publishes values.
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Writes the current values.
    fn fill<'a>(&'a self, page: &'a mut Page) -> BoxFuture<'a, ()>;
}

/// A component that knows whether the process can do its work.
pub trait Health: fmt::Debug + Send + Sync + 'static {
    /// Why the process currently cannot work; `None` if it can.
    fn problem(&self) -> Option<String>;
}

/// The sources of a process.
#[derive(Debug)]
pub struct Metrics {
    sources: Vec<Arc<dyn Source>>,
    /// Absent for processes that serve their health pages on another port.
    health: Option<Arc<dyn Health>>,
    /// One scrape at a time.
    turn: Mutex<()>,
}

/// The response to a scrape.
#[derive(Debug)]
pub struct Exposition {
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// The metrics.
    pub text: String,
}

impl Metrics {
    /// The metrics of these sources and of the process itself.
    pub fn new(mut sources: Vec<Arc<dyn Source>>) -> Arc<Self> {
        sources.push(Arc::new(Process));
        Arc::new(Self { sources, health: None, turn: Mutex::default() })
    }

    /// The same, with `/healthz` and `/readyz` next to the metrics.
    pub fn with_health(mut sources: Vec<Arc<dyn Source>>, health: Arc<dyn Health>) -> Arc<Self> {
        sources.push(Arc::new(Process));
        Arc::new(Self { sources, health: Some(health), turn: Mutex::default() })
    }

    pub(crate) fn health(&self) -> Option<&dyn Health> {
        self.health.as_deref()
    }

    /// The current values: as OpenMetrics 1.0 if `accept` names it, otherwise in Prometheus's text
    /// format.
    pub async fn expose(&self, accept: Option<&str>) -> Exposition {
        let _turn = self.turn.lock().await;
        let mut page = Page::default();
        for source in &self.sources {
            source.fill(&mut page).await;
        }
        let mut registry = Registry::default();
        registry.register_collector(Box::new(page));
        let is_open = accept.is_some_and(wants_openmetrics);
        let mut text = String::new();
        let (encoded, content_type) = if is_open {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (text::encode(&mut text, &registry), kind)
        } else {
            (prometheus_text::encode(&mut text, &registry), prometheus_text::CONTENT_TYPE)
        };
        if encoded.is_err() {
            tracing::error!("the metrics cannot be written");
        }
        Exposition { content_type, text }
    }
}

/// Whether an `Accept` header names OpenMetrics with a weight other than 0 (RFC 9110, 12.5.1).
/// Prometheus names it first, followed by the other formats that it can read.
fn wants_openmetrics(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_it = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(OPENMETRICS));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        is_it && weight.is_none_or(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fanfare_proto::latency::Histogram;

    use super::*;

    #[derive(Debug, Default)]
    struct Sample(Histogram);

    impl Source for Sample {
        fn fill<'a>(&'a self, page: &'a mut Page) -> BoxFuture<'a, ()> {
            page.counters("a_refusals_total", "Refusals", "reason", [("limit", 3), ("\"x\"\n", 1)]);
            page.gauge("a_queued_bytes", "Bytes that wait", 17);
            page.times("a_append_seconds", "Times", &self.0.snapshot());
            Box::pin(std::future::ready(()))
        }
    }

    async fn exposed(accept: Option<&str>) -> Exposition {
        let sample = Sample::default();
        for micros in [1, 63, 64, 100_000_000] {
            sample.0.record(Duration::from_micros(micros));
        }
        Metrics::new(vec![Arc::new(sample)]).expose(accept).await
    }

    #[tokio::test]
    async fn prometheus_gets_its_own_text() {
        let Exposition { content_type, text } = exposed(Some("text/plain")).await;
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
        for line in [
            "# TYPE a_refusals_total counter",
            "a_refusals_total{reason=\"limit\"} 3",
            "a_refusals_total{reason=\"\\\"x\\\"\\n\"} 1",
            "# TYPE a_queued_bytes gauge",
            "a_queued_bytes 17",
            "a_append_seconds_bucket{le=\"6.4e-05\"} 2",
            "a_append_seconds_bucket{le=\"0.000128\"} 3",
            "a_append_seconds_bucket{le=\"67.108864\"} 3",
            "a_append_seconds_bucket{le=\"+Inf\"} 4",
            "a_append_seconds_count 4",
            "a_append_seconds_sum 100.000128",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("# EOF"));
    }

    #[tokio::test]
    async fn openmetrics_comes_to_those_who_ask_for_it() {
        let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2";
        let Exposition { content_type, text } = exposed(Some(accept)).await;
        assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"));
        for line in ["# TYPE a_refusals counter", "# UNIT a_queued_bytes bytes", "a_queued_bytes 17"] {
            assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        let refused = exposed(Some("application/openmetrics-text;q=0")).await;
        assert!(refused.content_type.starts_with("text/plain"));
    }
}
