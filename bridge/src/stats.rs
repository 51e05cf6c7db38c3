//! What the bridge has done since its start, for those who administer: told to the server once a second.
//!
//! Counting costs a few atomic additions a batch, however many sessions get it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fanfare_proto::{
    latency::{Histogram, Snapshot},
    v1::{BridgeStats, LinkRequest, TransportSessions, link_request},
};
use tokio::{sync::Notify, time::MissedTickBehavior};

use crate::{
    delivery::Delivery,
    rooms::{Handed, Rooms},
};

/// How often the server is told.
const INTERVAL: Duration = Duration::from_secs(1);
/// Sessions that are looked at before others may run.
const SESSIONS_AT_ONCE: usize = 1024;

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    events: AtomicU64,
    deliveries: AtomicU64,
    overflows: AtomicU64,
    /// From the server's acceptance of an event to its hand-over to all sessions.
    delivery: Histogram,
    report: Mutex<Report>,
    due: Notify,
}

/// What the next report is made of.
#[derive(Debug, Default)]
struct Report {
    /// By transport.
    sessions: BTreeMap<i32, u64>,
    queued_bytes: u64,
    reported: Snapshot,
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

impl Stats {
    fn lock(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch was handed to its sessions.
    pub(crate) fn handed(&self, batch: &[Arc<Delivery>], handed: Handed) {
        add(&self.events, batch.len());
        add(&self.deliveries, handed.deliveries);
        self.overflowed(handed.overflows);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        for accepted in batch.iter().map(|delivery| delivery.event.time_micros).filter(|time| *time > 0) {
            self.delivery.record_micros(now.saturating_sub(accepted));
        }
    }

    /// So many sessions were closed because they did not read fast enough.
    pub(crate) fn overflowed(&self, sessions: usize) {
        add(&self.overflows, sessions);
    }

    /// Looks at all sessions once in an interval, for ever. Holds no lock meanwhile.
    pub(crate) async fn run(&self, rooms: &Rooms) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (mut sessions, mut queued_bytes) = (BTreeMap::new(), 0);
            for members in rooms.everybody() {
                for some in members.chunks(SESSIONS_AT_ONCE) {
                    for session in some {
                        *sessions.entry(session.caller.transport).or_default() += 1;
                        queued_bytes += session.outlet.queued_bytes().0 as u64;
                    }
                    tokio::task::yield_now().await;
                }
            }
            {
                let mut report = self.lock();
                report.sessions = sessions;
                report.queued_bytes = queued_bytes;
            }
            self.due.notify_one();
        }
    }

    /// Resolves when the server is to be told.
    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }

    /// What the server is told.
    pub(crate) fn report(&self) -> LinkRequest {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut report = self.lock();
        let sessions = report.sessions.iter();
        let stats = BridgeStats {
            sessions: sessions.map(|(&transport, &count)| TransportSessions { transport, count }).collect(),
            events: read(&self.events),
            deliveries: read(&self.deliveries),
            queued_bytes: report.queued_bytes,
            overflows: read(&self.overflows),
            delivery: Some(self.delivery.since(&mut report.reported)),
            ..BridgeStats::default()
        };
        LinkRequest { kind: Some(link_request::Kind::Stats(stats)) }
    }
}
