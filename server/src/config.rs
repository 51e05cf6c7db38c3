//! The server's settings as plain values. The caller decides where they come from.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use fanfare_proto::{catalog::Catalogs, rate::Rate, signer::Signer, token::TokenConfig};
use fanfare_trust::{ClientTls, TlsFiles, Workload};

pub use crate::engine::{
    nats::NatsConfig,
    redis::{Ack, Credentials, RedisConfig},
};

/// All settings of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address for gRPC, gRPC-Web and the health pages. Port 0 chooses a free port.
    pub listen: SocketAddr,
    /// The name of the server in logs and for bridges.
    pub name: String,
    /// The catalogs that the server serves.
    pub catalogs: Arc<Catalogs>,
    /// With TLS settings, connections are encrypted; without them, they are plain.
    pub tls: Option<Tls>,
    /// How tokens are verified.
    pub tokens: TokenConfig,
    /// Certificate authorities that are trusted for the servers of token keys, instead of the
    /// system's.
    pub jwks_ca: Option<PathBuf>,
    /// Signs tokens for administrators. Only for development, with the publicly known key.
    pub signer: Option<Signer>,
    /// Origins whose pages may call over gRPC-Web; `*` means any.
    pub cors_origins: Vec<String>,
    /// Where logs and sessions are stored.
    pub store: Store,
    /// How much of a tenant's log is retained.
    pub retention: Retention,
    /// Limits for callers.
    pub limits: Limits,
    /// Settings for counting sessions and users.
    pub presence: PresenceConfig,
    /// The internal services that browsers' calls are passed to.
    pub upstreams: Upstreams,
    /// How often a silent Subscribe or Link stream sends a heartbeat.
    pub heartbeat_interval: Duration,
    /// Number of tenants that metrics distinguish; 0 means none.
    pub metrics_tenants: usize,
}

/// TLS of the listener.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Certificate, key, and the authorities that sign client certificates.
    pub files: TlsFiles,
    /// What clients with a certificate may do without a token.
    pub workloads: Vec<Workload>,
}

/// Where logs and sessions are stored.
#[derive(Debug, Clone)]
pub enum Store {
    /// In memory. Everything is lost when the process ends.
    Memory,
    /// In a folder on a disk of this machine.
    Disk(PathBuf),
    /// On Redis, shared by any number of servers.
    Redis(Box<RedisConfig>),
    /// On NATS JetStream, shared by any number of servers.
    Nats(Box<NatsConfig>),
}

impl Store {
    /// The kind of store in one word.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk(_) => "disk",
            Self::Redis(_) => "redis",
            Self::Nats(_) => "nats",
        }
    }
}

/// How much of a tenant's log is retained. Events are trimmed when any of these limits is exceeded.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Events per tenant.
    pub events_max: usize,
    /// Payload and envelope bytes per tenant.
    pub bytes_max: usize,
    /// Maximum age of an event.
    pub age_max: Duration,
    /// Payload and envelope bytes of all tenants together. The largest logs are trimmed first.
    pub total_bytes_max: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            events_max: 100_000,
            bytes_max: 64 << 20,
            age_max: Duration::from_secs(3600),
            total_bytes_max: 2 << 30,
        }
    }
}

/// Limits for callers.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest event payload, in bytes.
    pub event_bytes_max: usize,
    /// Number of tenants with a log.
    pub tenants_max: usize,
    /// How long an idempotency key is remembered.
    pub idempotency_age_max: Duration,
    /// Remembered idempotency keys per tenant. The oldest ones are evicted first.
    pub idempotency_keys_max: usize,
    /// Entries in a tenant's state.
    pub state_entries_max: usize,
    /// Payload and envelope bytes in a tenant's state.
    pub state_bytes_max: usize,
    /// How long the acknowledgement of an event may precede its write to disk. A crash can lose the
    /// events of this period. Zero: no event is lost.
    pub answered_early_max: Duration,
    /// Concurrent streams (calls) per HTTP/2 connection.
    pub streams_per_connection_max: u32,
    /// Concurrent connections.
    pub connections_max: usize,
    /// Concurrent connections per address.
    pub connections_per_address_max: usize,
    /// Time limit from the start of a connection to its first request, for the head of a request,
    /// and for each of its messages.
    pub request_timeout: Duration,
    /// How long a connection without requests stays open.
    pub idle_timeout: Duration,
    /// Events in a tenant's window, from which live subscriptions read.
    pub window_events_max: usize,
    /// Bytes in a tenant's window, including encoded forms.
    pub window_bytes_max: usize,
    /// Bytes of all windows together. The largest windows shrink first.
    pub window_total_bytes_max: usize,
    /// How long a tenant must have no events, idempotency keys and subscriptions before its log is
    /// freed.
    pub idle_age_max: Duration,
    /// Calls of client methods over gRPC per user: per second and as a burst.
    pub calls_per_user: Rate,
    /// Concurrent Subscribe streams per user.
    pub subscriptions_per_user_max: usize,
    /// Concurrent Subscribe streams per service.
    pub subscriptions_per_service_max: usize,
    /// Rooms of all Subscribe streams together, per user or service.
    pub rooms_per_user_max: usize,
    /// Bytes that a user may publish by calls: per second and as a burst. An event that is larger
    /// than the burst counts as the burst.
    pub publish_bytes_per_user: Rate,
    /// Bytes that all users of a tenant together may publish by calls: per second and as a burst.
    pub publish_bytes_per_tenant: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes_max: 64 << 10,
            tenants_max: 100_000,
            idempotency_age_max: Duration::from_secs(600),
            idempotency_keys_max: 100_000,
            state_entries_max: 10_000,
            state_bytes_max: 16 << 20,
            answered_early_max: Duration::ZERO,
            streams_per_connection_max: 10_000,
            connections_max: 20_000,
            connections_per_address_max: 5_000,
            request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            window_events_max: 8_192,
            window_bytes_max: 16 << 20,
            window_total_bytes_max: 512 << 20,
            idle_age_max: Duration::from_secs(600),
            calls_per_user: Rate { per_second: 100, burst: 200 },
            subscriptions_per_user_max: 100,
            subscriptions_per_service_max: 1_000,
            rooms_per_user_max: 10_000,
            publish_bytes_per_user: Rate { per_second: 256 << 10, burst: 1 << 20 },
            publish_bytes_per_tenant: Rate { per_second: 8 << 20, burst: 32 << 20 },
        }
    }
}

/// Settings for counting sessions and users.
#[derive(Debug, Clone)]
pub struct PresenceConfig {
    /// How long a user remains a member after the connection of the last session is lost, so that
    /// reloading a page causes no events.
    pub grace: Duration,
    /// Sessions per user.
    pub sessions_per_user_max: usize,
    /// How long a lost session can be recovered. Zero disables recovery.
    pub recovery_window: Duration,
    /// Lost sessions that are stored, of all tenants together. If this or one of the next two
    /// limits is exceeded, the oldest ones of the same user or tenant are evicted.
    pub recoverable_max: usize,
    /// Lost sessions per tenant.
    pub recoverable_per_tenant_max: usize,
    /// Lost sessions per user.
    pub recoverable_per_user_max: usize,
    /// Catalogs whose presence events are published. Empty means all.
    pub catalogs: Vec<String>,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(5),
            sessions_per_user_max: 64,
            recovery_window: Duration::from_secs(120),
            recoverable_max: 100_000,
            recoverable_per_tenant_max: 50_000,
            recoverable_per_user_max: 64,
            catalogs: Vec::new(),
        }
    }
}

/// The internal services that browsers' calls are passed to.
#[derive(Debug, Clone)]
pub struct Upstreams {
    /// A URL for each name that catalogs use, e.g. `billing` and `http://10.0.0.7:50052`.
    pub urls: Vec<(String, String)>,
    /// How long an upstream may take to answer.
    pub timeout: Duration,
    /// The trusted authorities and the client certificate for `https` URLs.
    pub tls: ClientTls,
}

impl Default for Upstreams {
    fn default() -> Self {
        Self { urls: Vec::new(), timeout: Duration::from_secs(5), tls: ClientTls::default() }
    }
}

impl Config {
    /// Settings with the defaults for everything that has one.
    pub fn new(listen: SocketAddr, catalogs: Arc<Catalogs>, tokens: TokenConfig) -> Self {
        Self {
            listen,
            name: "server".into(),
            catalogs,
            tls: None,
            tokens,
            jwks_ca: None,
            signer: None,
            cors_origins: Vec::new(),
            store: Store::Memory,
            retention: Retention::default(),
            limits: Limits::default(),
            presence: PresenceConfig::default(),
            upstreams: Upstreams::default(),
            heartbeat_interval: Duration::from_secs(10),
            metrics_tenants: 0,
        }
    }
}
