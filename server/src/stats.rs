//! What the server has done since its start, for administrators. Counters cost one atomic addition
//! and no lock.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use fanfare_proto::{
    catalog::Catalogs,
    latency::Histogram,
    v1::{EventCount, Reason},
};
use fanfare_telemetry::{LimitTally, ReasonTally, Refusals, TenantTally};
use tonic::Status;

use crate::{engine::Appended, error::Refusal};

/// Maximum number of event types that are reported.
const TOP_EVENTS_MAX: usize = 20;

/// The counters.
#[derive(Debug)]
pub(crate) struct Stats {
    stored: AtomicU64,
    ephemeral: AtomicU64,
    refused: AtomicU64,
    duplicate: AtomicU64,
    calls: AtomicU64,
    subscriptions: AtomicU64,
    subscription_events: AtomicU64,
    /// Time from a checked request to its answer.
    pub(crate) append: Histogram,
    /// Time from a call to its answer.
    pub(crate) call: Histogram,
    /// Requests that were refused, and streams that ended with an error.
    pub(crate) refusals: Refusals,
    /// The same by reason only, including those without a [`Refusal`].
    pub(crate) reasons: ReasonTally,
    /// Refusals because of an exceeded limit.
    pub(crate) limits: LimitTally,
    /// Published events by tenant.
    pub(crate) tenants: TenantTally,
    /// Accepted events by the full name of their type, for all types of the loaded catalogs.
    by_type: HashMap<String, OfType>,
}

/// Events of one type.
#[derive(Debug)]
struct OfType {
    name: String,
    count: AtomicU64,
}

/// The counters at one point in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) stored: u64,
    pub(crate) ephemeral: u64,
    pub(crate) refused: u64,
    pub(crate) duplicate: u64,
    pub(crate) calls: u64,
    pub(crate) subscriptions: u64,
    pub(crate) subscription_events: u64,
}

/// An open subscription in the counters. Dropping it ends the count.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Stats>);

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Stats {
    /// Counters for events of these catalogs and for at most `tenants_max` separate tenants.
    pub(crate) fn new(catalogs: &Catalogs, tenants_max: usize) -> Self {
        let of_type = |name: &str| OfType { name: name.to_owned(), count: AtomicU64::new(0) };
        let by_type =
            catalogs.events().map(|event| (event.full_name.clone(), of_type(&event.name))).collect();
        let (stored, ephemeral, refused, duplicate, calls) = Default::default();
        let (subscriptions, subscription_events, append, call) = Default::default();
        let (refusals, reasons) = Default::default();
        let limits = LimitTally::new(&Refusal::LIMITS);
        Self {
            stored,
            ephemeral,
            refused,
            duplicate,
            calls,
            subscriptions,
            subscription_events,
            append,
            call,
            refusals,
            reasons,
            limits,
            tenants: TenantTally::new(tenants_max),
            by_type,
        }
    }

    /// Counts refused requests to publish.
    pub(crate) fn refused(&self, count: usize) {
        add(&self.refused, count as u64);
    }

    /// The types with the most accepted events, in descending order.
    pub(crate) fn top_events(&self) -> Vec<EventCount> {
        let count = |(full_name, of_type): (&String, &OfType)| EventCount {
            name: of_type.name.clone(),
            r#type: full_name.clone(),
            count: of_type.count.load(Ordering::Relaxed),
        };
        let mut counts: Vec<EventCount> =
            self.by_type.iter().map(count).filter(|one| one.count > 0).collect();
        counts.sort_unstable_by(|a, b| (b.count, &a.r#type).cmp(&(a.count, &b.r#type)));
        counts.truncate(TOP_EVENTS_MAX);
        counts
    }

    /// Counts an event that was checked at `since` and is now in the log, was already there, or is
    /// ephemeral and was delivered.
    pub(crate) fn appended(&self, appended: &Appended, since: Instant) {
        let counter = match appended {
            Appended::Duplicate(_) => &self.duplicate,
            Appended::Event(event) if event.is_ephemeral() => &self.ephemeral,
            Appended::Event(_) => &self.stored,
        };
        add(counter, 1);
        if let Appended::Event(event) = appended
            && let Some(of_type) = self.by_type.get(&event.draft.kind.full_name)
        {
            add(&of_type.count, 1);
        }
        self.append.record(since.elapsed());
    }

    /// Counts an answered call of a browser that began at `since`.
    pub(crate) fn called<T>(&self, outcome: &Result<T, Refusal>, since: Instant) {
        add(&self.calls, 1);
        self.call.record(since.elapsed());
        if let Err(refusal) = outcome {
            self.refuse(refusal);
        }
    }

    /// Counts a refusal.
    pub(crate) fn refuse(&self, refusal: &Refusal) {
        self.refusals.add(refusal.reason(), refusal.to_string());
        self.reasons.count(refusal.reason());
        if let Some(limit) = refusal.limit() {
            self.limits.count(limit);
        }
    }

    /// Counts a request that was refused, or a stream that ended, with a status. Returns the
    /// reason.
    pub(crate) fn refuse_with(&self, status: &Status, otherwise: Reason) -> Reason {
        let source = std::error::Error::source(status);
        if let Some(refusal) = source.and_then(|source| source.downcast_ref::<Refusal>()) {
            self.refuse(refusal);
            return refusal.reason();
        }
        self.reasons.count(otherwise);
        otherwise
    }

    /// Counts a new subscription.
    pub(crate) fn subscribed(self: &Arc<Self>) -> Counted {
        add(&self.subscriptions, 1);
        Counted(self.clone())
    }

    /// All counters.
    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            stored: read(&self.stored),
            ephemeral: read(&self.ephemeral),
            refused: read(&self.refused),
            duplicate: read(&self.duplicate),
            calls: read(&self.calls),
            subscriptions: read(&self.subscriptions),
            subscription_events: read(&self.subscription_events),
        }
    }
}

impl Counted {
    /// Counts events that were sent to the subscription.
    pub(crate) fn sent(&self, events: usize) {
        add(&self.0.subscription_events, events as u64);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}
