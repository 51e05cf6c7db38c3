//! The values at one moment, by their published names.
//!
//! Names follow the conventions of Prometheus: a counter ends in `_total`, and a unit (`_seconds`
//! or `_bytes`) comes last or before `_total`. Families are built on request: nothing is stored
//! between two scrapes.

use std::collections::BTreeMap;

use fanfare_proto::latency::Snapshot;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

/// Buckets of histograms end at powers of two, in microseconds: from 64 µs to 67 s.
const BUCKET_BITS: std::ops::RangeInclusive<u32> = 6..=26;

/// The values at one moment.
#[derive(Debug, Default)]
pub struct Page {
    families: BTreeMap<&'static str, Family>,
}

/// A limit and its usage.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// The name of the setting, or of a limit that is not a setting.
    pub limit: &'static str,
    /// `None` if the usage is not a number: for rates, and for limits of one request.
    pub used: Option<u64>,
    /// The limit.
    pub max: u64,
}

impl Bound {
    /// A limit with its usage.
    pub fn new(limit: &'static str, used: usize, max: usize) -> Self {
        Self { limit, used: Some(used as u64), max: max as u64 }
    }

    /// A limit of a rate or of one request.
    pub fn unused(limit: &'static str, max: usize) -> Self {
        Self { limit, used: None, max: max as u64 }
    }
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: MetricType,
    points: Vec<Point>,
}

#[derive(Debug)]
struct Point {
    labels: Vec<(&'static str, String)>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Count(u64),
    Sum(f64),
    Gauge(u64),
    Level(f64),
    Times { sum: f64, count: u64, buckets: Vec<(f64, u64)> },
}

impl Page {
    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        labels: Vec<(&'static str, String)>,
        value: Value,
    ) {
        let family = self.families.entry(name).or_insert(Family { help, kind, points: Vec::new() });
        family.points.push(Point { labels, value });
    }

    /// A count since the start of the process.
    pub fn counter(&mut self, name: &'static str, help: &'static str, count: u64) {
        self.add(name, help, MetricType::Counter, Vec::new(), Value::Count(count));
    }

    /// A sum since the start of the process that is not an integer.
    pub fn sum(&mut self, name: &'static str, help: &'static str, sum: f64) {
        self.add(name, help, MetricType::Counter, Vec::new(), Value::Sum(sum));
    }

    /// Counts since the start of the process, by label.
    pub fn counters<T: Into<String>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        counts: impl IntoIterator<Item = (T, u64)>,
    ) {
        for (text, count) in counts {
            self.add(name, help, MetricType::Counter, vec![(label, text.into())], Value::Count(count));
        }
    }

    /// A current number.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.add(name, help, MetricType::Gauge, Vec::new(), Value::Gauge(value));
    }

    /// A current number that need not be an integer.
    pub fn level(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.add(name, help, MetricType::Gauge, Vec::new(), Value::Level(value));
    }

    /// Current numbers, by label.
    pub fn gauges<T: Into<String>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (T, u64)>,
    ) {
        for (text, value) in values {
            self.add(name, help, MetricType::Gauge, vec![(label, text.into())], Value::Gauge(value));
        }
    }

    /// Limits, and their usage in a second family.
    pub fn bounds(&mut self, limit: &'static str, usage: &'static str, bounds: &[Bound]) {
        let used = bounds.iter().filter_map(|bound| Some((bound.limit, bound.used?)));
        self.gauges(
            usage,
            "What is used of a limit; of one per user, tenant or address by the fullest",
            "limit",
            used,
        );
        let limits = bounds.iter().map(|bound| (bound.limit, bound.max));
        self.gauges(limit, "A limit, in the unit of its setting; of a rate per second", "limit", limits);
    }

    /// A histogram of durations since the start of the process.
    pub fn times(&mut self, name: &'static str, help: &'static str, times: &Snapshot) {
        let bounds = BUCKET_BITS.map(|bits| 1u64 << bits);
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        let mut before = 0;
        for bound in bounds {
            let upto = times.count_below(bound);
            buckets.push((seconds(bound), upto - before));
            before = upto;
        }
        let count = times.count();
        buckets.push((f64::INFINITY, count - before));
        let value = Value::Times { sum: seconds(times.sum_micros()), count, buckets };
        self.add(name, help, MetricType::Histogram, Vec::new(), value);
    }
}

#[allow(clippy::cast_precision_loss, reason = "a double is precise enough for a time")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// A name without the suffixes that the encoder adds: the unit, and `_total`.
fn stem(name: &str) -> (&str, Option<Unit>) {
    let name = name.strip_suffix("_total").unwrap_or(name);
    match (name.strip_suffix("_seconds"), name.strip_suffix("_bytes")) {
        (Some(stem), _) => (stem, Some(Unit::Seconds)),
        (_, Some(stem)) => (stem, Some(Unit::Bytes)),
        _ => (name, None),
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for (name, family) in &self.families {
            let (stem, unit) = stem(name);
            let mut metric = encoder.encode_descriptor(stem, family.help, unit.as_ref(), family.kind)?;
            for point in &family.points {
                if point.labels.is_empty() {
                    point.value.encode(&mut metric)?;
                } else {
                    point.value.encode(&mut metric.encode_family(&point.labels)?)?;
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => encoder.encode_counter::<NoLabelSet, _, u64>(count, None),
            Self::Sum(sum) => encoder.encode_counter::<NoLabelSet, _, f64>(sum, None),
            Self::Gauge(value) => encoder.encode_gauge(value),
            Self::Level(value) => encoder.encode_gauge(value),
            Self::Times { sum, count, buckets } => {
                encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
            }
        }
    }
}
