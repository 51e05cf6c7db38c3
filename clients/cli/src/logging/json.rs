//! Log lines as JSON objects, with names from OpenTelemetry's log data model (`timestamp`,
//! `severity_text`, `severity_number`, `body` and `scope`) and the attributes next to them.

use std::{fmt, sync::Arc};

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use super::sink::Sink;

/// Writes events to a sink.
#[derive(Debug)]
pub(crate) struct JsonLayer(Arc<Sink>);

impl JsonLayer {
    pub(crate) fn new(sink: Arc<Sink>) -> Self {
        Self(sink)
    }
}

/// The severity's number (OpenTelemetry's log data model, "Field: SeverityNumber").
fn number(level: Level) -> u8 {
    match level {
        Level::TRACE => 1,
        Level::DEBUG => 5,
        Level::INFO => 9,
        Level::WARN => 13,
        Level::ERROR => 17,
    }
}

struct Line(Map<String, Value>);

impl Line {
    fn put(&mut self, field: &Field, value: Value) {
        let name = if field.name() == "message" { "body" } else { field.name() };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

impl<S: Subscriber> Layer<S> for JsonLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (metadata, mut line) = (event.metadata(), Line(Map::new()));
        let now = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        line.0.insert("timestamp".into(), now.into());
        line.0.insert("severity_text".into(), metadata.level().as_str().into());
        line.0.insert("severity_number".into(), number(*metadata.level()).into());
        line.0.insert("scope".into(), metadata.target().into());
        event.record(&mut line);
        let mut bytes = Value::Object(line.0).to_string().into_bytes();
        bytes.push(b'\n');
        self.0.send(bytes);
    }
}
