//! The bridge's counters since its start, for administrators. Counting costs a few atomic additions
//! per batch, however many sessions receive it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fanfare_proto::{
    latency::{Histogram, Snapshot},
    room::Tenant,
    v1::{BridgeStats, TransportSessions},
};

use fanfare_telemetry::{LimitTally, Page, ReasonTally, Refusals, TenantTally};

use crate::{event::Event, refusal::Refusal, session::Ending};

/// The counters.
#[derive(Debug)]
pub(crate) struct Stats {
    events: AtomicU64,
    deliveries: AtomicU64,
    overflows: AtomicU64,
    /// From the server's acceptance of an event until it was delivered to all sessions.
    delivery: Histogram,
    calls: AtomicU64,
    /// From the start of a call to its answer.
    call: Histogram,
    /// Sessions that were opened, and the recovered ones among them.
    opened: AtomicU64,
    recovered: AtomicU64,
    /// Sessions that the bridge ended, by reason, and sessions that clients left or lost.
    closed: ReasonTally,
    left: AtomicU64,
    lost: AtomicU64,
    connect_refusals: ReasonTally,
    /// The same, with the last message of each.
    refusals: Refusals,
    call_refusals: ReasonTally,
    limits: LimitTally,
    accepted: AtomicU64,
    /// Events over the link, by tenant.
    pub(crate) tenants: TenantTally,
    report: Mutex<Report>,
}

impl Default for Stats {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Stats {
    /// Counters that distinguish up to `tenants_max` tenants.
    pub(crate) fn new(tenants_max: usize) -> Self {
        let (events, deliveries, overflows, delivery, calls, call) = Default::default();
        let (opened, recovered, closed, left, lost) = Default::default();
        let (connect_refusals, refusals, call_refusals, accepted, report) = Default::default();
        Self {
            events,
            deliveries,
            overflows,
            delivery,
            calls,
            call,
            opened,
            recovered,
            closed,
            left,
            lost,
            connect_refusals,
            refusals,
            call_refusals,
            limits: LimitTally::new(&Refusal::LIMITS),
            accepted,
            tenants: TenantTally::new(tenants_max),
            report,
        }
    }
}

/// The last report.
#[derive(Debug)]
struct Report {
    snapshot: Snapshot,
    next: Instant,
}

impl Default for Report {
    fn default() -> Self {
        Self { snapshot: Snapshot::default(), next: Instant::now() }
    }
}

/// The sessions at one moment.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pub(crate) sessions: Vec<TransportSessions>,
    pub(crate) queued_bytes: u64,
    /// Of the session with the most queued bytes.
    pub(crate) fullest_bytes: u64,
    /// Sessions with a non-empty queue.
    pub(crate) waiting: u64,
    /// Sessions by tenant, if metrics distinguish tenants.
    pub(crate) tenants: BTreeMap<Tenant, u64>,
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

impl Stats {
    /// Events arrived over the link.
    pub(crate) fn count_events(&self, events: usize) {
        add(&self.events, events);
    }

    /// A shard delivered events to its sessions.
    pub(crate) fn count_deliveries(&self, deliveries: usize, overflows: usize) {
        add(&self.deliveries, deliveries);
        self.count_overflows(overflows);
    }

    /// All shards have delivered events to their sessions.
    pub(crate) fn record(&self, events: &[Arc<Event>]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let times = events.iter().map(|event| event.delivery.time_micros);
        for accepted in times.filter(|time| *time > 0) {
            self.delivery.record_micros(now.saturating_sub(accepted));
        }
    }

    /// Sessions were closed because they did not read fast enough.
    pub(crate) fn count_overflows(&self, sessions: usize) {
        add(&self.overflows, sessions);
    }

    /// A call was answered.
    pub(crate) fn count_call(&self, took: Duration) {
        add(&self.calls, 1);
        self.call.record(took);
    }

    /// A session was opened.
    pub(crate) fn count_opened(&self, is_recovered: bool) {
        add(&self.opened, 1);
        add(&self.recovered, is_recovered.into());
    }

    /// A session has ended.
    pub(crate) fn count_ended(&self, how: Ending) {
        match how {
            Ending::Closed(reason) => self.closed.count(reason),
            Ending::Left => add(&self.left, 1),
            Ending::Lost => add(&self.lost, 1),
        }
    }

    /// A connection was accepted.
    pub(crate) fn count_accepted(&self) {
        add(&self.accepted, 1);
    }

    /// A connection or a session was refused.
    pub(crate) fn refuse_connect(&self, refusal: &Refusal) {
        self.connect_refusals.count(refusal.reason);
        self.refusals.add(refusal.reason, refusal.message.clone());
        self.note_limit(refusal);
    }

    /// A call was refused.
    pub(crate) fn refuse_call(&self, refusal: &Refusal) {
        self.call_refusals.count(refusal.reason);
        self.note_limit(refusal);
    }

    fn note_limit(&self, refusal: &Refusal) {
        if let Some(limit) = refusal.limit {
            self.limits.count(limit);
        }
    }

    /// When the next report to the server is due.
    pub(crate) fn due(&self) -> Instant {
        self.report().next
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next report to the server; another is due after `interval`.
    pub(crate) fn next_report(&self, census: Census, interval: Duration) -> BridgeStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut report = self.report();
        report.next = Instant::now() + interval;
        BridgeStats {
            sessions: census.sessions,
            queued_bytes: census.queued_bytes,
            events: read(&self.events),
            deliveries: read(&self.deliveries),
            overflows: read(&self.overflows),
            delivery: Some(self.delivery.since(&mut report.snapshot)),
            refusals: self.refusals.counts(),
            ..BridgeStats::default()
        }
    }
}

impl Stats {
    /// Writes the current values.
    pub(crate) fn fill(&self, page: &mut Page) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        page.counter("fanfare_bridge_events_total", "Events that came over the link", read(&self.events));
        page.counters(
            "fanfare_bridge_tenant_events_total",
            "Events that came over the link, by tenant",
            "tenant",
            self.tenants.counts(),
        );
        page.counter(
            "fanfare_bridge_deliveries_total",
            "Events that were handed to sessions, counted once per session",
            read(&self.deliveries),
        );
        page.times(
            "fanfare_bridge_delivery_seconds",
            "Time from the acceptance of an event until it was written to the sockets of all its sessions, or \
             queued for those that are full",
            &self.delivery.snapshot(),
        );
        page.counter(
            "fanfare_bridge_overflows_total",
            "Sessions that were closed because they did not read fast enough",
            read(&self.overflows),
        );
        page.counter("fanfare_bridge_calls_total", "Calls that were answered", read(&self.calls));
        page.times("fanfare_bridge_call_seconds", "Time that calls took", &self.call.snapshot());
        page.counter("fanfare_bridge_sessions_opened_total", "Sessions that were opened", read(&self.opened));
        page.counter(
            "fanfare_bridge_sessions_recovered_total",
            "Sessions that were opened and went on after a lost connection",
            read(&self.recovered),
        );
        let by_client = [("left", &self.left), ("lost", &self.lost)];
        let by_client = by_client.map(|(reason, counter)| (reason.to_owned(), read(counter)));
        page.counters(
            "fanfare_bridge_sessions_closed_total",
            "Sessions that ended; `left`: by the client, `lost`: with the connection",
            "reason",
            self.closed.counts().chain(by_client),
        );
        page.counter(
            "fanfare_bridge_connections_total",
            "Connections that were accepted",
            read(&self.accepted),
        );
        page.counters(
            "fanfare_bridge_connect_refusals_total",
            "Connections and sessions that were refused",
            "reason",
            self.connect_refusals.counts(),
        );
        page.counters(
            "fanfare_bridge_call_refusals_total",
            "Calls that were refused, by the bridge or the server",
            "reason",
            self.call_refusals.counts(),
        );
        page.counters(
            "fanfare_bridge_limit_refusals_total",
            "Refusals because a limit was exceeded",
            "limit",
            self.limits.counts(),
        );
    }
}
