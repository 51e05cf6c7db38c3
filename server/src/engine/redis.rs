//! The engine on Redis: servers share logs, records and signals through one node, a primary with
//! sentinels, or a cluster.
//!
//! A log is a stream of frames, each with a tag. Followers subscribe to the tenant's channel and
//! read the log when something is missing. No decision relies on the memory of one server: Redis
//! may lose its newest writes, and the tags reveal that.

mod append;
mod checks;
mod config;
mod credentials;
mod entries;
mod fault;
mod follow;
mod frame;
mod keys;
mod log;
mod node;
mod nodes;
mod record;
mod request;
mod script;
mod signal;
mod state;
mod subscriptions;
#[cfg(test)]
pub(crate) mod tests;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_proto::{
    catalog::Catalogs,
    cursor::Cursor,
    room::{Room, Tenant},
    v1::EngineState,
};
use futures_util::future::BoxFuture;
use redis::Value;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    append::Appends, fault::Fault, follow::Followers, keys::Keys, log::Part, node::Connector, nodes::Nodes,
};
pub use self::{
    config::{Ack, RedisConfig},
    credentials::Credentials,
};
use super::{
    Appended, Engine, Feed, Page, ReadLimits, Record, Replaced, Replacement, ServerId, Space, StateLimits,
    StatePage, Usage,
};
use crate::{
    config::{Limits, Retention},
    error::{Error, Refusal},
    event::{Draft, Event},
    interest::Interest,
};

/// Tenants of the index that one sweep trims.
const SWEEP_TENANTS: usize = 64;

/// A server's handle on the engine.
#[derive(Debug)]
pub(crate) struct RedisEngine {
    shared: Arc<Shared>,
    /// Where the next sweep continues in the index.
    swept: tokio::sync::Mutex<String>,
}

/// State shared by the handle and its tasks.
#[derive(Debug)]
struct Shared {
    server: ServerId,
    catalogs: Arc<Catalogs>,
    retention: Retention,
    limits: Limits,
    keys: Keys,
    nodes: Nodes,
    ack: Ack,
    call_timeout: Duration,
    appends: Appends,
    followers: Followers,
    /// The appending tasks, which are never cancelled.
    writers: TaskTracker,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl RedisEngine {
    /// Connects, and checks that this Redis can be used.
    pub(crate) async fn connect(
        mut config: RedisConfig,
        server: ServerId,
        catalogs: Arc<Catalogs>,
        retention: Retention,
        limits: Limits,
    ) -> Result<Self, Error> {
        config.check(&server)?;
        config.credentials = config.credentials.read().await?;
        config.sentinel_credentials = config.sentinel_credentials.read().await?;
        let ca = match &config.ca_file {
            Some(file) => Some(tokio::fs::read(file).await.map_err(|error| Error::Redis {
                problem: format!("the certificates in {} cannot be read: {error}", file.display()),
            })?),
            None => None,
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let connector = Arc::new(Connector::new(config.clone(), ca, tasks.clone(), stop.clone()));
        let shared = Shared {
            server,
            catalogs,
            retention,
            limits,
            keys: Keys::new(&config.prefix),
            ack: config.ack,
            call_timeout: config.call_timeout,
            nodes: Nodes::new(config, connector),
            appends: Appends::default(),
            followers: Followers::default(),
            writers: TaskTracker::new(),
            tasks,
            stop,
        };
        shared.check().await?;
        Ok(Self { shared: Arc::new(shared), swept: tokio::sync::Mutex::new("0".to_owned()) })
    }

    async fn read_page(
        &self,
        tenant: &Tenant,
        interest: &Interest,
        after: Cursor,
        limits: ReadLimits,
    ) -> Result<Page, Refusal> {
        let part = self.shared.read_frames(tenant, after, limits.scan_max).await;
        let (frames, head) = match part.map_err(|fault| fault.refusal("read"))? {
            Part::Frames { frames, head } => (frames, head),
            Part::Reset(head) => return Err(Refusal::Reset(head)),
        };
        let (mut events, mut cursor, mut scanned) = (Vec::new(), after, 0);
        for frame in frames {
            let stored = frame.stored().map_err(|fault| fault.refusal("read"))?;
            for (place, stored) in stored.filter(|(place, _)| place.seq > after.seq) {
                if scanned >= limits.scan_max || events.len() >= limits.events_max {
                    return Ok(Page { events, cursor, more: true });
                }
                if interest.wants_at(place.seq, stored.rooms.iter().map(String::as_str)) {
                    match frame::draft(stored, tenant, &self.shared.catalogs) {
                        Ok(draft) => events.push(Arc::new(Event::stored(place, draft))),
                        // The events before it are returned first.
                        Err(_) if !events.is_empty() => return Ok(Page { events, cursor, more: true }),
                        Err(fault) => return Err(fault.refusal("read")),
                    }
                }
                (scanned, cursor) = (scanned + 1, place);
            }
        }
        Ok(Page { events, cursor, more: cursor.seq < head.seq })
    }

    /// A page of the index, and the cursor of the next one.
    async fn index_page(&self, cursor: &str, count: usize) -> Result<(String, Vec<Tenant>), Fault> {
        let index = self.shared.keys.index();
        let mut cmd = redis::cmd("SSCAN");
        cmd.arg(&index).arg(cursor).arg("COUNT").arg(count);
        let answered = self.shared.nodes.run(&index, &cmd, true).await?;
        let unexpected = || Fault::unexpected(&Value::Nil);
        let Value::Array(parts) = answered.value else { return Err(unexpected()) };
        let [next, Value::Array(names)] = parts.as_slice() else { return Err(unexpected()) };
        let tenants = names.iter().filter_map(|name| Tenant::new(log::text(name)?).ok());
        Ok((log::text(next).ok_or_else(unexpected)?.to_owned(), tenants.collect()))
    }

    async fn tenants_now(&self, limit: usize) -> Result<Vec<Tenant>, Fault> {
        let (mut tenants, mut cursor) = (std::collections::HashSet::new(), "0".to_owned());
        while tenants.len() < limit {
            let (next, page) = self.index_page(&cursor, 256).await?;
            tenants.extend(page);
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        Ok(tenants.into_iter().take(limit).collect())
    }

    async fn sweep_now(&self) {
        let mut tenants = self.shared.appends.sweep();
        let mut swept = self.swept.lock().await;
        match self.index_page(&swept, SWEEP_TENANTS).await {
            Ok((next, page)) => {
                *swept = next;
                tenants.extend(page);
            }
            Err(fault) => tracing::warn!(%fault, "the tenants cannot be listed"),
        }
        for tenant in tenants {
            self.shared.trim(&tenant).await;
        }
        for node in self.shared.nodes.all() {
            node.subscriptions.prune().await;
        }
    }
}

impl Engine for RedisEngine {
    fn server(&self) -> &ServerId {
        &self.shared.server
    }

    fn append<'a>(
        &'a self,
        tenant: &'a Tenant,
        batch: Vec<Draft>,
    ) -> BoxFuture<'a, Result<Vec<Appended>, Refusal>> {
        Box::pin(self.shared.append(tenant, batch))
    }

    fn read<'a>(
        &'a self,
        tenant: &'a Tenant,
        interest: &'a Interest,
        after: Cursor,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Page, Refusal>> {
        Box::pin(self.read_page(tenant, interest, after, limits))
    }

    fn head<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Cursor, Refusal>> {
        Box::pin(async { self.shared.head(tenant).await.map_err(|fault| fault.refusal("read")) })
    }

    fn cursor_at<'a>(&'a self, tenant: &'a Tenant, seq: u64) -> BoxFuture<'a, Result<Cursor, Refusal>> {
        Box::pin(async move {
            let cursor = self.shared.cursor_at(tenant, seq).await;
            cursor.map_err(|fault| fault.refusal("read"))
        })
    }

    fn state_entries<'a>(
        &'a self,
        tenant: &'a Tenant,
        room: &'a Room,
        after: Option<&'a str>,
        limits: StateLimits,
    ) -> BoxFuture<'a, Result<StatePage, Refusal>> {
        Box::pin(self.shared.state_entries(tenant, room, after, limits))
    }

    fn follow<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<(Cursor, Feed<Arc<Event>>), Refusal>> {
        Box::pin(self.shared.follow(tenant))
    }

    fn tenants(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Tenant>, Refusal>> {
        Box::pin(async move { self.tenants_now(limit).await.map_err(|fault| fault.refusal("read")) })
    }

    fn record<'a>(
        &'a self,
        space: &'a Space,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Record>, Refusal>> {
        Box::pin(async move { self.shared.record(space, key).await.map_err(|fault| fault.refusal("read")) })
    }

    fn replace<'a>(
        &'a self,
        space: &'a Space,
        key: &'a str,
        replacement: Replacement,
    ) -> BoxFuture<'a, Result<Replaced, Refusal>> {
        Box::pin(async move {
            let replaced = self.shared.replace(space, key, &replacement).await;
            replaced.map_err(|fault| fault.refusal("written"))
        })
    }

    fn records<'a>(
        &'a self,
        space: &'a Space,
    ) -> BoxFuture<'a, Result<(Vec<Record>, Feed<Record>), Refusal>> {
        Box::pin(async move { self.shared.records(space).await.map_err(|fault| fault.refusal("read")) })
    }

    fn signal<'a>(&'a self, to: Option<&'a ServerId>, bytes: Bytes) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(
            async move { self.shared.signal(to, &bytes).await.map_err(|fault| fault.refusal("written")) },
        )
    }

    fn signals(&self) -> BoxFuture<'_, Result<Feed<Bytes>, Refusal>> {
        Box::pin(async { self.shared.signals().await.map_err(|fault| fault.refusal("read")) })
    }

    fn usage(&self) -> Usage {
        Usage { log_bytes: None, waiting: Some(self.shared.appends.fullest()) }
    }

    fn state(&self) -> BoxFuture<'_, EngineState> {
        Box::pin(self.shared.state())
    }

    fn sweep(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.sweep_now())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // Waiting appends are written; then followers end.
            self.shared.writers.close();
            self.shared.writers.wait().await;
            self.shared.tasks.close();
            self.shared.stop.cancel();
            self.shared.tasks.wait().await;
        })
    }
}

impl Drop for RedisEngine {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
