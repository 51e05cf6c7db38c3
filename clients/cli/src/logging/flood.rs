//! Limits how many lines per second each place in the code writes. The number of suppressed lines
//! is written once per second instead.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::{Event, Metadata, Subscriber, callsite::Identifier, level_filters::LevelFilter};
use tracing_subscriber::layer::{Context, Filter};

const WINDOW: Duration = Duration::from_secs(1);

/// Passes lines up to a limit.
#[derive(Debug)]
pub(crate) struct Flood {
    /// Lines per place and second; 0: no limit.
    lines_max: u32,
    /// Bounded by the number of places in the code.
    places: Mutex<HashMap<Identifier, Place>>,
    left_out: AtomicU64,
}

#[derive(Debug)]
struct Place {
    metadata: &'static Metadata<'static>,
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl Flood {
    pub(crate) fn new(lines_max: u32) -> Self {
        Self { lines_max, places: Mutex::default(), left_out: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of lines suppressed since the start.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Whether a place may write another line.
    fn admits(&self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        if self.lines_max == 0 {
            return true;
        }
        let mut places = self.lock();
        let place = places.entry(metadata.callsite());
        let place = place.or_insert(Place { metadata, began: now, lines: 0, left_out: 0 });
        if now.saturating_duration_since(place.began) >= WINDOW {
            (place.began, place.lines) = (now, 0);
        }
        if place.lines < self.lines_max {
            place.lines += 1;
            return true;
        }
        place.left_out += 1;
        self.left_out.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// The places that suppressed lines since the last call, and the number of lines.
    fn take(&self) -> Vec<(&'static Metadata<'static>, u64)> {
        let mut places = self.lock();
        let with_some = places.values_mut().filter(|place| place.left_out > 0);
        with_some.map(|place| (place.metadata, std::mem::take(&mut place.left_out))).collect()
    }

    /// Logs how many lines were suppressed.
    pub(crate) fn report(&self) {
        for (metadata, lines) in self.take() {
            let place =
                format!("{}:{}", metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
            let of = metadata.target();
            tracing::warn!(target: "log", lines, of, place, "log lines were left out: there were too many");
        }
    }
}

/// The filter of a layer.
#[derive(Debug)]
pub(crate) struct Limited(pub(crate) Arc<Flood>);

impl<S: Subscriber> Filter<S> for Limited {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    // Without it, the level of the other filters would not apply to the whole process, and the
    // trace points of every library would be evaluated.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.0.admits(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use tracing::{Callsite as _, callsite::DefaultCallsite};

    use super::*;

    fn metadata() -> &'static Metadata<'static> {
        static CALLSITE: DefaultCallsite = {
            static META: Metadata<'static> = tracing::metadata! {
                name: "event", target: "test", level: tracing::Level::INFO,
                fields: tracing::fieldset!("message"), callsite: &CALLSITE, kind: tracing::metadata::Kind::EVENT
            };
            DefaultCallsite::new(&META)
        };
        assert!(LevelFilter::TRACE >= *CALLSITE.metadata().level());
        CALLSITE.metadata()
    }

    #[test]
    fn a_place_writes_so_many_lines_per_second_and_the_rest_is_counted() {
        let (flood, start) = (Flood::new(2), Instant::now());
        let at = |millis| flood.admits(metadata(), start + Duration::from_millis(millis));
        assert_eq!([0, 1, 2, 999, 1000, 1001, 1002].map(at), [true, true, false, false, true, true, false]);
        assert_eq!(flood.take().iter().map(|(_, lines)| *lines).collect::<Vec<_>>(), [3]);
        assert!(flood.take().is_empty());
        assert_eq!(flood.left_out(), 3);
    }

    #[test]
    fn zero_is_no_limit() {
        let flood = Flood::new(0);
        assert!((0..1000).all(|_| flood.admits(metadata(), Instant::now())));
    }
}
