//! The engine on disk: durable, with one writer and one fsync for all waiting appends (group
//! commit).
//!
//! Appends go to the [`Writer`], a thread that owns the logs; readers read the store directly.

mod changes;
#[cfg(test)]
mod failing;
mod file;
mod log;
mod place;
mod reopen;
mod rewrite;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use fanfare_proto::{
    catalog::Catalogs,
    cursor::{Cursor, Epoch},
    room::{Room, Tenant},
    v1::EngineState,
};
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::{mpsc, oneshot};

use self::{
    log::Clock,
    place::{Ends, Places},
    store::{Opening, Store, unpanicked},
    writer::{Command, Lag, Writer},
};
use super::{
    Appended, Engine, Feed, Followed, Page, ReadLimits, Record, Records, Replaced, Replacement, ServerId,
    Signals, Space, StateEntry, StateLimits, StatePage, StoredEvent, Unreadable, Usage, Watched,
    entries::{PageBuilder, is_over},
    now_millis,
    state::{Meter, outage},
};
use crate::{
    config::{Limits, Retention},
    error::{Error, Refusal},
    event::{Draft, Event},
    interest::Interest,
};

/// Commands in the writer's queue. Further commands wait until there is space.
const WAITING_MAX: usize = 8192;

/// One server's handle; the writer is a thread.
#[derive(Debug)]
pub(crate) struct DiskEngine {
    server: ServerId,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// State that readers and the writer share. The locks are held only briefly.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    catalogs: Arc<Catalogs>,
    /// Absent while the store has failed.
    store: RwLock<Option<Arc<Store>>>,
    epoch: Epoch,
    places: Places,
    records: Records,
    signals: Signals,
    /// Commands to the writer, including those that wait.
    commands: Meter,
    retention: Retention,
    limits: Limits,
    /// Bytes of all logs, as last counted by the writer.
    bytes: AtomicU64,
}

impl DiskEngine {
    /// Opens the store in a folder and starts the writer.
    pub(crate) fn open(
        folder: &Path,
        catalogs: Arc<Catalogs>,
        retention: Retention,
        limits: Limits,
    ) -> Result<Self, Error> {
        let lag = Lag::new(limits.answered_early_max);
        let opening = Opening { folder, late: lag.is_allowed(), known: None, is_suspect: false };
        let (store, contents) = Store::open(opening)?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            catalogs,
            epoch: store.epoch,
            store: RwLock::new(Some(Arc::new(store))),
            places: Places::new(contents.floor),
            records: Records::default(),
            signals: Signals::default(),
            commands: Meter::default(),
            retention,
            limits,
            bytes: AtomicU64::new(0),
        });
        let writer = Writer::new(shared.clone(), lag, Clock::new(contents.clock), contents);
        let (commands, waiting) = mpsc::channel(WAITING_MAX);
        std::thread::Builder::new()
            .name("fanfare-log".into())
            .spawn(move || writer.run(waiting))
            .map_err(|e| Error::Store { folder: folder.display().to_string(), problem: e.to_string() })?;
        Ok(Self { server: ServerId::random(), shared, commands })
    }

    /// A handle for another server on the same store.
    #[cfg(test)]
    pub(crate) fn another(&self) -> Self {
        let (shared, commands) = (self.shared.clone(), self.commands.clone());
        Self { server: ServerId::random(), shared, commands }
    }

    /// Sends a command to the writer, which processes commands in order, and waits for its answer.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Command,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.commands.send(command(answer)).await.map_err(|_| Refusal::Storage("written"))?;
            answered.await.map_err(|_| Refusal::Storage("written"))?
        };
        self.shared.commands.measure(asked).await
    }
}

impl Shared {
    fn store(&self) -> Option<Arc<Store>> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cursor(&self, seq: u64) -> Cursor {
        Cursor::new(self.epoch, seq)
    }

    fn read(
        &self,
        tenant: &Tenant,
        interest: &Interest,
        after: Cursor,
        limits: ReadLimits,
    ) -> Result<Page, Refusal> {
        let Ends { number, base, head } = self.places.ends(tenant);
        let is_known = after.epoch == self.epoch && after.tag == 0;
        if !is_known || after.seq > head || after.seq < base {
            return Err(Refusal::Reset(self.cursor(head)));
        }
        let Some(number) = number.filter(|_| !interest.is_empty() && after.seq < head) else {
            return Ok(Page { events: Vec::new(), cursor: after, more: after.seq < head });
        };
        let store = self.store().ok_or(Refusal::Storage("read"))?;
        let mut scan = Scan { events: Vec::new(), reached: after.seq, stopped_by: None };
        let last = head.min(after.seq.saturating_add(limits.scan_max as u64));
        let visited = unpanicked(|| {
            store.visit(number, after.seq, last, |seq, stored| {
                scan.stopped_by = match stored {
                    // A missing event was trimmed in the meantime.
                    Some(stored) if seq == scan.reached + 1 => self.take(&mut scan, tenant, interest, stored),
                    _ => Some(Refusal::Reset(self.cursor(head))),
                };
                scan.stopped_by.is_none() && scan.events.len() < limits.events_max
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
        match scan.stopped_by {
            Some(reset @ Refusal::Reset(_)) => return Err(reset),
            // Events before the one that stopped the scan are returned first.
            Some(refusal) if scan.events.is_empty() => return Err(refusal),
            None if scan.reached < last && scan.events.len() < limits.events_max => {
                return Err(Refusal::Reset(self.cursor(head)));
            }
            _ => {}
        }
        Ok(Page { events: scan.events, cursor: self.cursor(scan.reached), more: scan.reached < head })
    }

    fn state_entries(
        &self,
        tenant: &Tenant,
        room: &Room,
        after: Option<&str>,
        limits: StateLimits,
    ) -> Result<StatePage, Refusal> {
        // Read before the entries: changes after the cursor are in the log.
        let Ends { number, head, .. } = self.places.ends(tenant);
        let (mut page, mut more, cursor) = (PageBuilder::new(limits), false, self.cursor(head));
        let Some(number) = number else { return Ok(page.finish(cursor, false)) };
        let store = self.store().ok_or(Refusal::Storage("read"))?;
        let (mut refused, now) = (None, now_millis());
        let mut take = |key: &str, seq: u64, stored: Option<StoredEvent>| {
            let expires_at = stored.as_ref().and_then(|event| event.state.as_ref()?.expires_at);
            if is_over(expires_at, now) {
                return true;
            }
            match stored.map(|stored| stored.draft(tenant, &self.catalogs)) {
                Some(Ok(draft)) => {
                    more = !page.fits(draft.payload.len());
                    if !more {
                        let event = Arc::new(Event::stored(self.cursor(seq), draft));
                        page.push(StateEntry { event, key: key.to_owned(), expires_at });
                    }
                }
                Some(Err(Unreadable::UnknownType(name))) => refused = Some(Refusal::NewerCatalog(name)),
                Some(Err(Unreadable::Damaged)) | None => refused = Some(Refusal::Storage("read")),
            }
            !more && refused.is_none()
        };
        match unpanicked(|| store.visit_state(number, room.as_str(), after, &mut take)) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "the state cannot be read");
                return Err(Refusal::Storage("read"));
            }
            None => {
                tracing::error!("the state cannot be read: the file is damaged");
                return Err(Refusal::Storage("read"));
            }
        }
        refused.map_or_else(|| Ok(page.finish(cursor, more)), Err)
    }

    /// Adds the next event to a scan if it is wanted. Returns the reason if the scan cannot
    /// continue.
    fn take(
        &self,
        scan: &mut Scan,
        tenant: &Tenant,
        interest: &Interest,
        stored: StoredEvent,
    ) -> Option<Refusal> {
        let seq = scan.reached + 1;
        if interest.wants_at(seq, stored.rooms.iter().map(String::as_str)) {
            match stored.draft(tenant, &self.catalogs) {
                Ok(draft) => scan.events.push(Arc::new(Event::stored(self.cursor(seq), draft))),
                Err(Unreadable::UnknownType(name)) => return Some(Refusal::NewerCatalog(name)),
                Err(Unreadable::Damaged) => return Some(Refusal::Storage("read")),
            }
        }
        scan.reached = seq;
        None
    }
}

/// A read in progress.
struct Scan {
    events: Vec<Arc<Event>>,
    /// The newest seq that was examined.
    reached: u64,
    stopped_by: Option<Refusal>,
}

impl Engine for DiskEngine {
    fn server(&self) -> &ServerId {
        &self.server
    }

    fn append<'a>(
        &'a self,
        tenant: &'a Tenant,
        batch: Vec<Draft>,
    ) -> BoxFuture<'a, Result<Vec<Appended>, Refusal>> {
        self.ask(|answer| Command::Append(tenant.clone(), batch, answer)).boxed()
    }

    fn read<'a>(
        &'a self,
        tenant: &'a Tenant,
        interest: &'a Interest,
        after: Cursor,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Page, Refusal>> {
        async move { tokio::task::block_in_place(|| self.shared.read(tenant, interest, after, limits)) }
            .boxed()
    }

    fn head<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Cursor, Refusal>> {
        std::future::ready(Ok(self.shared.cursor(self.shared.places.ends(tenant).head))).boxed()
    }

    fn cursor_at<'a>(&'a self, tenant: &'a Tenant, seq: u64) -> BoxFuture<'a, Result<Cursor, Refusal>> {
        let Ends { base, head, .. } = self.shared.places.ends(tenant);
        std::future::ready(Ok(self.shared.cursor(seq.max(base).min(head)))).boxed()
    }

    fn state_entries<'a>(
        &'a self,
        tenant: &'a Tenant,
        room: &'a Room,
        after: Option<&'a str>,
        limits: StateLimits,
    ) -> BoxFuture<'a, Result<StatePage, Refusal>> {
        async move { tokio::task::block_in_place(|| self.shared.state_entries(tenant, room, after, limits)) }
            .boxed()
    }

    fn follow<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Followed, Refusal>> {
        let max = self.shared.limits.tenants_max;
        let followed = self.shared.places.follow(tenant, max);
        let followed = followed.map(|(head, feed)| (self.shared.cursor(head), feed));
        std::future::ready(followed.ok_or(Refusal::TooManyTenants(max))).boxed()
    }

    fn tenants(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Tenant>, Refusal>> {
        std::future::ready(Ok(self.shared.places.tenants(limit))).boxed()
    }

    fn record<'a>(
        &'a self,
        space: &'a Space,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Record>, Refusal>> {
        std::future::ready(Ok(self.shared.records.get(space, key))).boxed()
    }

    fn replace<'a>(
        &'a self,
        space: &'a Space,
        key: &'a str,
        replacement: Replacement,
    ) -> BoxFuture<'a, Result<Replaced, Refusal>> {
        self.ask(|answer| Command::Replace(space.clone(), key.to_owned(), replacement, answer)).boxed()
    }

    fn records<'a>(&'a self, space: &'a Space) -> BoxFuture<'a, Result<Watched, Refusal>> {
        std::future::ready(Ok(self.shared.records.follow(space))).boxed()
    }

    fn signal<'a>(&'a self, to: Option<&'a ServerId>, bytes: Bytes) -> BoxFuture<'a, Result<(), Refusal>> {
        self.shared.signals.send(&self.server, to, &bytes);
        std::future::ready(Ok(())).boxed()
    }

    fn signals(&self) -> BoxFuture<'_, Result<Feed<Bytes>, Refusal>> {
        std::future::ready(Ok(self.shared.signals.listen(&self.server))).boxed()
    }

    fn usage(&self) -> Usage {
        let waiting = self.commands.max_capacity() - self.commands.capacity();
        let bytes = self.shared.bytes.load(Ordering::Relaxed);
        let log_bytes = usize::try_from(bytes).ok();
        Usage { log_bytes, waiting: Some((waiting, self.commands.max_capacity())) }
    }

    fn state(&self) -> BoxFuture<'_, EngineState> {
        let shared = &self.shared;
        let file = store::path(&shared.folder);
        let mut state = EngineState {
            kind: "disk".to_owned(),
            commands: Some(shared.commands.read()),
            bytes_used: std::fs::metadata(&file).map_or(0, |file| file.len()),
            ..EngineState::default()
        };
        if shared.store().is_none() {
            let text = format!("{} cannot be written; it is opened again and again", file.display());
            state.problems.push(outage(text));
        }
        std::future::ready(state).boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, ()> {
        self.shared.records.sweep();
        // A writer that has ended or failed has nothing to remove.
        self.ask(Command::Sweep).map(drop).boxed()
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
