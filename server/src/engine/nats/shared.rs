//! What the parts of the engine share.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use fanfare_proto::{catalog::Catalogs, cursor::Cursor, room::Tenant};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    config::NatsConfig,
    ends::{End, Ends},
    frame::{Frame, Head},
    logs::Logs,
    names::LogName,
    places::Places,
    setup,
    store::{Entry, Extras, Store, StoreError},
};
use crate::{
    config::Limits,
    engine::{Receipt, ServerId, StoredEvent, Unreadable},
    error::Refusal,
    event::Event,
};

/// The shortest and the longest pause before a request is repeated.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));
/// How long a count of the tenants is reused.
const TENANTS_COUNTED_FOR: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) server: ServerId,
    pub(super) store: Store,
    pub(super) config: NatsConfig,
    pub(super) catalogs: Arc<Catalogs>,
    pub(super) limits: Limits,
    pub(super) places: Places,
    pub(super) ends: Ends,
    /// Increases whenever messages may have been missed: the connection was lost or too slow.
    pub(super) losses: watch::Receiver<u64>,
    /// Number of signals sent by this server.
    pub(super) signals_sent: AtomicU64,
    pub(super) logs: Logs,
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
    /// The last count of tenants, and when it was made.
    pub(super) tenants_counted: tokio::sync::Mutex<Option<(Instant, u64)>>,
}

/// A limited time for repeated attempts.
#[derive(Debug)]
pub(super) struct Attempts {
    until: Instant,
    pause: Duration,
}

impl Attempts {
    pub(super) fn within(limit: Duration) -> Self {
        Self { until: Instant::now() + limit, pause: PAUSE.0 }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Waits before the next attempt, each time about twice as long; false if time is up.
    pub(super) async fn pause(&mut self) -> bool {
        let random = self.pause.mul_f64(rand::random_range(0.5..1.5));
        self.pause = (self.pause * 2).min(PAUSE.1);
        let end = Instant::now() + random;
        if end >= self.until {
            return false;
        }
        tokio::time::sleep_until(end).await;
        true
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The current time in milliseconds since 1970.
pub(super) fn now_millis() -> u64 {
    super::keys::millis(since_1970())
}

/// The current time in microseconds since 1970.
pub(super) fn now_micros() -> u64 {
    u64::try_from(since_1970().as_micros()).unwrap_or(u64::MAX)
}

/// The receipt for an event.
pub(super) fn receipt(event: &Event) -> Receipt {
    Receipt { id: event.id.clone(), seq: event.seq, time: event.draft.time }
}

/// The receipt for a stored event.
pub(super) fn stored_receipt(cursor: Cursor, event: &StoredEvent) -> Receipt {
    Receipt { id: cursor.to_string(), seq: cursor.seq, time: event.time.unwrap_or_default() }
}

impl Shared {
    /// An event of a frame. Refused if no catalog of this server has its type.
    pub(super) fn event(
        &self,
        tenant: &Tenant,
        cursor: Cursor,
        stored: StoredEvent,
    ) -> Result<Arc<Event>, Refusal> {
        match stored.draft(tenant, &self.catalogs) {
            Ok(draft) => Ok(Arc::new(Event::stored(cursor, draft))),
            Err(Unreadable::UnknownType(name)) => Err(Refusal::NewerCatalog(name)),
            Err(Unreadable::Damaged) => {
                tracing::error!(event = %cursor, "an event of the log is damaged");
                Err(Refusal::Storage("read"))
            }
        }
    }

    /// The last frame of a log, read from the leader. A stream that does not exist is created
    /// again, empty.
    pub(super) async fn last(&self, name: &LogName) -> End {
        let (store, own) = (self.store.clone(), name.clone());
        let ask = async move {
            let last = store.last(&own.stream, &own.subject).await?;
            let frame = |entry: Entry| Ok((Arc::new(Frame::read(entry.payload)?), entry.place));
            last.map(frame).transpose()
        };
        let end = self.ends.get(&name.subject, ask).await;
        if end == Err(StoreError::NoStream) {
            tracing::error!(stream = name.stream, "a stream of the log has gone; it is created again");
            self.recreate(&name.stream).await.map_err(StoreError::Unavailable)?;
            return Ok(None);
        }
        end
    }

    /// Creates a missing stream again.
    async fn recreate(&self, stream: &str) -> Result<(), String> {
        let attempts = Attempts::within(self.config.request_timeout);
        setup::restore(&self.store, &self.config, stream, attempts).await
    }

    /// Creates a stream again if it is missing: a stream in memory is lost together with its
    /// servers. Its contents are lost.
    pub(super) async fn restore_after(&self, error: &StoreError, stream: &str) {
        if matches!(error, StoreError::NoStream | StoreError::NoLeader)
            && let Err(problem) = self.recreate(stream).await
        {
            tracing::warn!(stream, problem, "a stream is missing");
        }
    }

    /// The last frame of a log, read from the leader and retried until time is up. If the log does
    /// not exist, it is created.
    pub(super) async fn last_or_first(
        &self,
        name: &LogName,
        attempts: &mut Attempts,
        what: &'static str,
    ) -> Result<(Arc<Frame>, u64), Refusal> {
        loop {
            let outcome = match self.last(name).await {
                Ok(Some(last)) => return Ok(last),
                Ok(None) => self.begin(name).await?,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(first) => return Ok(first),
                Err(error) => {
                    if !error.is_passing() || !attempts.pause().await {
                        tracing::debug!(subject = name.subject, %error, "the end of a log cannot be read");
                        return Err(error.refusal(what));
                    }
                }
            }
        }
    }

    /// Writes the first frame of a log.
    async fn begin(&self, name: &LogName) -> Result<Result<(Arc<Frame>, u64), StoreError>, Refusal> {
        if name.subject != self.store.names.log(&own_tenant()?).subject {
            let count = match self.count_tenants().await {
                Ok(count) => count,
                Err(error) => return Ok(Err(error)),
            };
            if count >= self.limits.tenants_max as u64 {
                return Err(Refusal::TooManyTenants(self.limits.tenants_max));
            }
        }
        let frame = Frame::genesis(now_millis());
        let bytes = prost::Message::encode_to_vec(&frame);
        let place = self.store.publish(name.subject.clone(), bytes.into(), 0, Extras::default()).await;
        Ok(place.map(|place| (Arc::new(frame), place)))
    }

    /// The number of tenants that have a log, as of a few seconds ago.
    async fn count_tenants(&self) -> Result<u64, StoreError> {
        let mut counted = self.tenants_counted.lock().await;
        if let Some((at, count)) = &mut *counted
            && at.elapsed() < TENANTS_COUNTED_FOR
        {
            *count += 1;
            return Ok(*count - 1);
        }
        let mut count = 0;
        for partition in self.store.names.partitions() {
            count += self.store.state(&self.store.names.log_stream(partition)).await?.subjects_count;
        }
        *counted = Some((Instant::now(), count + 1));
        Ok(count)
    }

    /// Stores the place of a log's end.
    pub(super) fn note(&self, tenant: &Tenant, frame: &Frame, place: u64) -> Head {
        self.places.insert(tenant, frame.first, place);
        frame.head(place)
    }
}

fn own_tenant() -> Result<Tenant, Refusal> {
    Ok(Tenant::new(crate::engine::OWN_TENANT)?)
}
