//! The engine on NATS JetStream: many servers share one log, and an acknowledgement means that a
//! quorum of NATS servers has the event.
//!
//! Tenants are spread over a fixed number of streams. An entry of a stream is a frame of one
//! tenant's events, written only if the tenant's log still ends where the writer expects. JetStream
//! republishes each frame; these messages are the feed, and gaps in it are read from the stream.
//! Records are the last messages of their subjects. Ephemeral events and signals are plain
//! messages. Ephemeral events that are appended together with stored ones keep their order on all
//! servers. Other ephemeral events keep their order relative to stored events on the server that
//! publishes them; on other servers this is only likely.
//!
//! Limits that the engine cannot detect: a leader that is cut off from the other NATS servers
//! answers reads of the end of a log until it notices that it has lost its quorum, which takes some
//! seconds. A server connected to that leader may read an old end meanwhile; its appends are not
//! acknowledged. A stream that is restored from an older copy assigns places again. The engine
//! detects this by the tags of frames: at once if its connection was lost; otherwise when it asks
//! for the end, at the latest before the first append more than a second after the last contact.

mod claims;
mod config;
mod ends;
mod entries;
mod forward;
mod frame;
mod keys;
mod log;
mod logs;
mod names;
mod places;
mod read;
mod records;
mod setup;
mod shared;
mod signals;
mod state;
mod store;
mod sweep;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use async_nats::{ConnectOptions, jetstream};
use bytes::Bytes;
use fanfare_proto::{
    catalog::Catalogs,
    cursor::Cursor,
    room::{Room, Tenant},
    v1::EngineState,
};
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::config::NatsConfig;
use self::{
    ends::Ends,
    logs::Logs,
    names::Names,
    places::Places,
    shared::{Attempts, Shared},
    store::Store,
    sweep::Sweeper,
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

/// Messages that wait in a subscription. Messages beyond this are missed, and read from the log.
const SUBSCRIPTION_MAX: usize = 8192;
/// How long the engine may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// An engine on NATS JetStream.
#[derive(Debug)]
pub(crate) struct NatsEngine {
    shared: Arc<Shared>,
    sweeper: tokio::sync::Mutex<Sweeper>,
}

impl NatsEngine {
    /// Connects, and creates or checks the streams.
    pub(crate) async fn connect(
        config: NatsConfig,
        server: ServerId,
        catalogs: Arc<Catalogs>,
        retention: Retention,
        limits: Limits,
    ) -> Result<Self, Error> {
        let servers = config.addresses().join(", ");
        let failed = |problem: String| Error::Nats { servers: servers.clone(), problem };
        config.check().map_err(failed)?;
        let (loss_sender, losses) = watch::channel(0);
        let options = options(&config, &server, loss_sender).await.map_err(failed)?;
        let connect = tokio::time::timeout(config.deadline, options.connect(config.addresses())).await;
        let client = connect
            .map_err(|_| failed(format!("no answer within {:?}", config.deadline)))?
            .map_err(|error| failed(error.to_string()))?;
        if !client.is_server_compatible(2, 11, 0) {
            let version = client.server_info().version;
            return Err(failed(format!("nats-server is version {version}, want 2.11 or later")));
        }
        let (given, want) = (client.max_payload(), logs::payload_bytes(&limits));
        if given < want {
            return Err(failed(format!(
                "nats-server takes messages of {given} bytes; want {want} or more (setting max_payload of \
                 nats-server, or a lower event-bytes-max)"
            )));
        }
        let mut context = match &config.domain {
            Some(domain) => jetstream::with_domain(client.clone(), domain),
            None => jetstream::new(client.clone()),
        };
        context.set_timeout(config.request_timeout);
        let names = Names::new(&config.prefix, config.partitions, config.domain.as_deref());
        let (request_timeout, commands) = (config.request_timeout, Arc::default());
        let store = Store { client, context, names, request_timeout, commands };
        setup::run(&store, &config).await.map_err(failed)?;
        let shared = Arc::new(Shared {
            server,
            store,
            config,
            catalogs,
            limits,
            places: Places::default(),
            ends: Ends::default(),
            losses,
            signals_sent: AtomicU64::new(0),
            logs: Logs::new(),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            tenants_counted: tokio::sync::Mutex::default(),
        });
        let forwards = shared.store.names.forwards(&shared.server);
        let forwards = shared.store.client.subscribe(forwards).await;
        let forwards = forwards.map_err(|error| failed(error.to_string()))?;
        shared.tasks.spawn(forward::serve(shared.clone(), forwards));
        Ok(Self { shared, sweeper: tokio::sync::Mutex::new(Sweeper::new(retention)) })
    }

    async fn head_of(&self, tenant: &Tenant) -> Result<Cursor, Refusal> {
        let name = self.shared.store.names.log(tenant);
        let mut attempts = Attempts::within(self.shared.config.deadline);
        let (last, place) = self.shared.last_or_first(&name, &mut attempts, "read").await?;
        Ok(self.shared.note(tenant, &last, place).cursor)
    }

    async fn list_tenants(&self, limit: usize) -> Result<Vec<Tenant>, Refusal> {
        let (mut tenants, store) = (Vec::new(), &self.shared.store);
        for partition in store.names.partitions() {
            let (stream, filter) = (store.names.log_stream(partition), store.names.log_subjects(partition));
            let left = limit.saturating_sub(tenants.len());
            if left == 0 {
                break;
            }
            let subjects = store.subjects(&stream, &filter, left).await;
            let subjects = subjects.map_err(|error| error.refusal("read"))?;
            tenants.extend(subjects.iter().filter_map(|subject| Names::tenant(subject)));
        }
        Ok(tenants)
    }

    /// Runs work; fails if it exceeds the deadline.
    async fn in_time<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let outcome = tokio::time::timeout(self.shared.config.deadline, work).await;
        outcome.unwrap_or(Err(Refusal::Storage(what)))
    }

    async fn sweep_now(&self) {
        let active = self.shared.logs.tenants();
        // One call at a time.
        if let Ok(mut sweeper) = self.sweeper.try_lock() {
            sweeper.run(&self.shared, active).await;
        }
    }

    async fn end(&self) {
        self.shared.cancel.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(CLOSE_MAX, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("tasks of the NATS engine did not end within {CLOSE_MAX:?}");
        }
        let _ = tokio::time::timeout(CLOSE_MAX, self.shared.store.client.flush()).await;
    }
}

impl Drop for NatsEngine {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
    }
}

/// The options of the connection.
async fn options(
    config: &NatsConfig,
    server: &ServerId,
    losses: watch::Sender<u64>,
) -> Result<ConnectOptions, String> {
    let losses = Arc::new(losses);
    let mut options = ConnectOptions::new()
        .name(format!("fanfare-{}", server.as_str()))
        .connection_timeout(config.request_timeout)
        .request_timeout(Some(config.request_timeout))
        .ping_interval(Duration::from_secs(5))
        .subscription_capacity(SUBSCRIPTION_MAX)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| {
            Duration::from_millis(50 * u64::try_from(attempts.min(20)).unwrap_or(20))
        })
        .require_tls(config.require_tls)
        .event_callback(move |event| {
            let losses = losses.clone();
            async move {
                match event {
                    async_nats::Event::Disconnected => tracing::warn!("the connection to NATS is lost"),
                    async_nats::Event::SlowConsumer(id) => tracing::warn!(id, "a subscription overflows"),
                    async_nats::Event::Connected => tracing::info!("connected to NATS"),
                    other => {
                        tracing::debug!(%other, "NATS");
                        return;
                    }
                }
                losses.send_modify(|count| *count += 1);
            }
        });
    if let Some(path) = &config.root_certificates {
        options = options.add_root_certificates(path.clone());
    }
    if let Some((certificate, key)) = &config.client_certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    // The client library takes no credentials from a URL.
    if let Some((user, password)) = config.user()? {
        options = options.user_and_password(user, password);
    }
    if let Some(path) = &config.credentials {
        let read = options.credentials_file(path).await;
        options = read.map_err(|error| format!("credentials file {}: {error}", path.display()))?;
    }
    Ok(options)
}

impl Engine for NatsEngine {
    fn server(&self) -> &ServerId {
        &self.shared.server
    }

    fn append<'a>(
        &'a self,
        tenant: &'a Tenant,
        batch: Vec<Draft>,
    ) -> BoxFuture<'a, Result<Vec<Appended>, Refusal>> {
        self.in_time("written", logs::append_here(&self.shared, tenant, batch, false)).boxed()
    }

    fn read<'a>(
        &'a self,
        tenant: &'a Tenant,
        interest: &'a Interest,
        after: Cursor,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Page, Refusal>> {
        self.in_time("read", self.shared.read(tenant, interest, after, limits)).boxed()
    }

    fn head<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Cursor, Refusal>> {
        self.in_time("read", self.head_of(tenant)).boxed()
    }

    fn cursor_at<'a>(&'a self, tenant: &'a Tenant, seq: u64) -> BoxFuture<'a, Result<Cursor, Refusal>> {
        self.in_time("read", self.shared.cursor_at(tenant, seq)).boxed()
    }

    fn state_entries<'a>(
        &'a self,
        tenant: &'a Tenant,
        room: &'a Room,
        after: Option<&'a str>,
        limits: StateLimits,
    ) -> BoxFuture<'a, Result<StatePage, Refusal>> {
        self.in_time("read", self.shared.state_entries(tenant, room, after, limits)).boxed()
    }

    fn follow<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<(Cursor, Feed<Arc<Event>>), Refusal>> {
        self.in_time("read", logs::follow(&self.shared, tenant)).boxed()
    }

    fn tenants(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Tenant>, Refusal>> {
        self.in_time("read", self.list_tenants(limit)).boxed()
    }

    fn record<'a>(
        &'a self,
        space: &'a Space,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Record>, Refusal>> {
        self.in_time("read", self.shared.record(space, key)).boxed()
    }

    fn replace<'a>(
        &'a self,
        space: &'a Space,
        key: &'a str,
        replacement: Replacement,
    ) -> BoxFuture<'a, Result<Replaced, Refusal>> {
        self.in_time("written", self.shared.replace(space, key, replacement)).boxed()
    }

    fn records<'a>(
        &'a self,
        space: &'a Space,
    ) -> BoxFuture<'a, Result<(Vec<Record>, Feed<Record>), Refusal>> {
        let records = async {
            let (snapshot, reader) = self.shared.records(space).await?;
            Ok((snapshot, records::feed_of(&self.shared, reader, &self.shared.tasks)))
        };
        self.in_time("read", records).boxed()
    }

    fn signal<'a>(&'a self, to: Option<&'a ServerId>, bytes: Bytes) -> BoxFuture<'a, Result<(), Refusal>> {
        self.in_time("written", self.shared.signal(to, bytes)).boxed()
    }

    fn signals(&self) -> BoxFuture<'_, Result<Feed<Bytes>, Refusal>> {
        self.in_time("read", signals::follow(&self.shared, &self.shared.tasks)).boxed()
    }

    fn usage(&self) -> Usage {
        Usage { log_bytes: None, waiting: Some(self.shared.logs.waiting_bytes()) }
    }

    fn state(&self) -> BoxFuture<'_, EngineState> {
        self.shared.state().boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, ()> {
        self.sweep_now().boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.end().boxed()
    }
}
