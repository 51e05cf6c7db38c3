//! The engine on disk: durable, one writer, one fsync for everything that waits (group commit).
//!
//! Appends go to the [`Writer`], a thread that owns the logs; readers read the store beside it.

mod changes;
#[cfg(test)]
mod failing;
mod file;
mod log;
mod reopen;
mod rewrite;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fanfare_proto::{
    catalog::Catalogs,
    cursor::{Cursor, Epoch},
    room::{Room, Tenant},
};
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::{mpsc, oneshot};

use self::{
    log::Clock,
    store::{Opening, Store, unpanicked},
    writer::{Command, Lag, Writer},
};
use super::{Answer, OldEngine, OldPage, OldRecord, StoredEvent};
use crate::{
    config::{Limits, Retention},
    error::{Error, Refusal},
    event::{Draft, Event},
    hub::Hub,
    interest::Interest,
};

/// Commands that wait for the writer; more wait for their turn.
const WAITING_MAX: usize = 8192;
/// How long the way from the disk to the hub may take; it takes microseconds.
const PUBLISHING_MAX: Duration = Duration::from_secs(1);
/// How often it is looked whether it is over.
const PUBLISHING_PAUSE: Duration = Duration::from_micros(20);

/// The handle; the writer is a thread.
#[derive(Debug)]
pub(crate) struct DiskEngine {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    kept: Mutex<Vec<(String, Vec<u8>)>>,
}

/// What readers and the writer share. The locks are short.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    catalogs: Arc<Catalogs>,
    /// Absent while it has failed.
    store: RwLock<Option<Arc<Store>>>,
    epoch: Epoch,
    places: RwLock<HashMap<Tenant, Arc<Place>>>,
    /// Where new logs begin: behind every log that was freed, so that no place is ever given twice.
    floor: AtomicU64,
    hub: Arc<Hub>,
    retention: Retention,
    limits: Limits,
}

/// How far a tenant's log reaches.
#[derive(Debug)]
struct Place {
    number: u32,
    /// The seq before the oldest event.
    base: AtomicU64,
    /// The newest seq on the disk: cursors up to here are right.
    written: AtomicU64,
    /// The newest seq that the hub has: readers see no event before it has it.
    published: AtomicU64,
}

impl DiskEngine {
    /// Opens the store in a folder and starts the writer.
    pub(crate) fn open(
        folder: &Path,
        catalogs: Arc<Catalogs>,
        retention: Retention,
        limits: Limits,
        hub: Arc<Hub>,
    ) -> Result<Self, Error> {
        let lag = Lag::new(limits.answered_early_max);
        let opening = Opening { folder, late: lag.is_allowed(), known: None, is_suspect: false };
        let (store, contents) = Store::open(opening)?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            catalogs,
            epoch: store.epoch,
            store: RwLock::new(Some(Arc::new(store))),
            places: RwLock::default(),
            floor: AtomicU64::new(contents.floor),
            hub,
            retention,
            limits,
        });
        let clock = Clock::new(contents.clock);
        let writer = Writer::new(shared.clone(), lag, clock, contents.logs);
        let (commands, waiting) = mpsc::channel(WAITING_MAX);
        std::thread::Builder::new()
            .name("fanfare-log".into())
            .spawn(move || writer.run(waiting))
            .map_err(|e| Error::Store { folder: folder.display().to_string(), problem: e.to_string() })?;
        Ok(Self { shared, commands, kept: Mutex::new(contents.sessions) })
    }

    /// Hands a command to the writer, which takes them in order; gives what it will answer.
    async fn ask<T: Send + 'static>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Command,
    ) -> Result<BoxFuture<'static, Result<T, Refusal>>, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| Refusal::Storage("written"))?;
        Ok(async move { answered.await.map_err(|_| Refusal::Storage("written"))? }.boxed())
    }
}

impl Shared {
    fn store(&self) -> Option<Arc<Store>> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn place(&self, tenant: &Tenant) -> Option<Arc<Place>> {
        self.places.read().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned()
    }

    /// The newest seq of a tenant's log that the hub has.
    fn head(&self, tenant: &Tenant) -> u64 {
        let place = self.place(tenant);
        place.map_or_else(|| self.floor.load(Ordering::Acquire), |p| p.published.load(Ordering::Acquire))
    }

    fn cursor(&self, seq: u64) -> Cursor {
        Cursor::new(self.epoch, seq)
    }

    fn read(
        &self,
        tenant: &Tenant,
        interest: &Interest,
        after: Cursor,
        limit: usize,
    ) -> Result<OldPage, Refusal> {
        let place = self.place(tenant);
        let reaches = |of: &AtomicU64| of.load(Ordering::Acquire);
        // On the disk, and on its way to the hub: whoever reads behind it must not meet it there again.
        let on_its_way = || {
            let passing =
                |p: &Arc<Place>| (reaches(&p.published) + 1..=reaches(&p.written)).contains(&after.seq);
            place.as_ref().is_some_and(passing)
        };
        let until = Instant::now() + PUBLISHING_MAX;
        while on_its_way() {
            if Instant::now() > until {
                return Err(Refusal::Storage("read"));
            }
            // It takes microseconds; where the machine is busy, the writer needs the processor more.
            std::thread::sleep(PUBLISHING_PAUSE);
        }
        let floor = reaches(&self.floor);
        let head = place.as_ref().map_or(floor, |p| reaches(&p.published));
        let ends = |p: &Arc<Place>| (reaches(&p.base), reaches(&p.written));
        let (base, written) = place.as_ref().map_or((floor, floor), ends);
        if after.epoch != self.epoch || after.seq > written || after.seq < base {
            return Err(Refusal::Reset(self.cursor(head)));
        }
        let Some(place) = place.filter(|_| !interest.is_empty() && after.seq < head) else {
            let upto = if interest.is_empty() { after.seq } else { head.max(after.seq) };
            return Ok(OldPage { events: Vec::new(), upto });
        };
        let store = self.store().ok_or(Refusal::Storage("read"))?;
        let (mut events, mut upto, mut next, mut broken) = (Vec::new(), head, after.seq + 1, false);
        let visited = unpanicked(|| {
            store.visit(place.number, after.seq, |seq, stored| {
                // What is missing was trimmed meanwhile.
                if seq > head {
                    return false;
                }
                let Some(stored) = stored.filter(|_| seq == next) else {
                    broken = true;
                    return false;
                };
                next += 1;
                if let Some(event) =
                    self.event(tenant, seq, stored).filter(|event| interest.wants_logged(event))
                {
                    events.push(event);
                    if events.len() == limit {
                        upto = seq;
                        return false;
                    }
                }
                true
            })
        });
        match visited {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "the log cannot be read");
                return Err(Refusal::Storage("read"));
            }
            None => {
                tracing::error!("the log cannot be read: the file is damaged");
                return Err(Refusal::Storage("read"));
            }
        }
        if broken {
            return Err(Refusal::Reset(self.cursor(head)));
        }
        Ok(OldPage { events, upto })
    }

    /// An event as it was appended; `None` when no loaded catalog has its type any more.
    fn event(&self, tenant: &Tenant, seq: u64, stored: StoredEvent) -> Option<Arc<Event>> {
        let draft = stored.draft(tenant, &self.catalogs).ok()?;
        Some(Arc::new(Event::stored(self.cursor(seq), draft)))
    }
}

impl Place {
    const fn new(number: u32, base: u64, written: u64, published: u64) -> Self {
        let (base, written) = (AtomicU64::new(base), AtomicU64::new(written));
        Self { number, base, written, published: AtomicU64::new(published) }
    }
}

impl OldEngine for DiskEngine {
    fn begin(&self, draft: Draft) -> BoxFuture<'_, Result<Answer, Refusal>> {
        self.ask(|answer| Command::Append(draft, answer)).boxed()
    }

    fn read<'a>(
        &'a self,
        tenant: &'a Tenant,
        interest: &'a Interest,
        after: Cursor,
        limit: usize,
    ) -> BoxFuture<'a, Result<OldPage, Refusal>> {
        async move { tokio::task::block_in_place(|| self.shared.read(tenant, interest, after, limit)) }
            .boxed()
    }

    fn head<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Cursor, Refusal>> {
        std::future::ready(Ok(self.shared.cursor(self.shared.head(tenant)))).boxed()
    }

    fn tenants(&self) -> Vec<Tenant> {
        self.shared.places.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn keep(&self, records: Arc<[OldRecord]>) -> BoxFuture<'_, Result<(), Refusal>> {
        async move { self.ask(|answer| Command::Keep(records, answer)).await?.await }.boxed()
    }

    fn kept(&self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn sweep(&self) {
        // A writer that is busy trims by itself.
        let _busy = self.commands.try_send(Command::Sweep);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            let (answer, answered) = oneshot::channel();
            if self.commands.send(Command::Close(answer)).await.is_ok() {
                let _gone = answered.await;
            }
        }
        .boxed()
    }
}
