//! The server's settings as plain values; where they come from is the caller's business.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use fanfare_proto::{catalog::Catalogs, rate::Rate, signer::Signer, token::TokenConfig};
use fanfare_trust::{ClientTls, TlsFiles, Workload};

pub use crate::engine::{
    nats::NatsConfig,
    redis::{Ack, Credentials, RedisConfig},
};

/// Everything a server needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where gRPC, gRPC-Web and the health pages are served. Port 0 chooses one.
    pub listen: SocketAddr,
    /// The name in logs and towards bridges.
    pub name: String,
    /// The catalogs that are served.
    pub catalogs: Arc<Catalogs>,
    /// Present: connections are secure. Absent: plain.
    pub tls: Option<Tls>,
    /// How tokens are verified.
    pub tokens: TokenConfig,
    /// The authorities that servers of token keys are trusted by, instead of the system's.
    pub jwks_ca: Option<PathBuf>,
    /// Signs tokens for whoever administers; only for development, with the key that everybody knows.
    pub signer: Option<Signer>,
    /// Origins whose pages may call over gRPC-Web; `*` is any.
    pub cors_origins: Vec<String>,
    /// Where logs and sessions are kept.
    pub store: Store,
    /// What the log of a tenant keeps.
    pub retention: Retention,
    /// Bounds on what callers may do.
    pub limits: Limits,
    /// How sessions and users are counted.
    pub presence: PresenceConfig,
    /// Where internal services are that browsers' calls are passed to.
    pub upstreams: Upstreams,
    /// How often a silent Subscribe or Link stream says that it is alive.
    pub heartbeat_interval: Duration,
    /// Tenants that metrics tell apart; 0: none.
    pub metrics_tenants: usize,
}

/// TLS of the listener.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Certificate, key, and the authorities of client certificates.
    pub files: TlsFiles,
    /// What the bearers of client certificates may do without a token.
    pub workloads: Vec<Workload>,
}

/// Where logs and sessions are kept.
#[derive(Debug, Clone)]
pub enum Store {
    /// In memory, gone with the process.
    Memory,
    /// In a folder on a disk of this machine.
    Disk(PathBuf),
    /// On Redis, shared by any number of servers.
    Redis(Box<RedisConfig>),
    /// On NATS JetStream, shared by any number of servers.
    Nats(Box<NatsConfig>),
}

impl Store {
    /// Its kind in one word.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk(_) => "disk",
            Self::Redis(_) => "redis",
            Self::Nats(_) => "nats",
        }
    }
}

/// What the log of a tenant keeps: an event goes when any bound is exceeded.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Events a tenant.
    pub events_max: usize,
    /// Payload and envelope bytes a tenant.
    pub bytes_max: usize,
    /// The oldest event.
    pub age_max: Duration,
    /// Payload and envelope bytes of all tenants together; the largest logs give way.
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

/// Bounds on what callers may do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest event payload, in bytes.
    pub event_bytes_max: usize,
    /// Tenants with a log.
    pub tenants_max: usize,
    /// How long an idempotency key is remembered.
    pub idempotency_age_max: Duration,
    /// Idempotency keys remembered a tenant; the oldest go first.
    pub idempotency_keys_max: usize,
    /// Entries of a tenant's state.
    pub state_entries_max: usize,
    /// Payload and envelope bytes of a tenant's state.
    pub state_bytes_max: usize,
    /// How much earlier than on the disk an event may be answered: so much can be lost in a crash. Zero: nothing.
    pub answered_early_max: Duration,
    /// Concurrent streams (calls) on one HTTP/2 connection.
    pub streams_per_connection_max: u32,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections from one address.
    pub connections_per_address_max: usize,
    /// From the beginning of a connection to its first request, for the head of a request, and for each of its messages.
    pub request_timeout: Duration,
    /// How long a connection without requests is kept.
    pub idle_timeout: Duration,
    /// Events in a tenant's window, from which live subscriptions read.
    pub window_events_max: usize,
    /// Bytes in a tenant's window, encoded forms included.
    pub window_bytes_max: usize,
    /// Bytes in all windows; the largest give way.
    pub window_total_bytes_max: usize,
    /// How long a tenant must be without events, idempotency keys and subscriptions before its log is freed.
    pub idle_age_max: Duration,
    /// Client methods that a user may call over gRPC, a second and at once.
    pub calls_per_user: Rate,
    /// Subscribe streams of one user at once.
    pub subscriptions_per_user_max: usize,
    /// Subscribe streams of one service at once.
    pub subscriptions_per_service_max: usize,
    /// Rooms of all Subscribe streams of one user or service.
    pub rooms_per_user_max: usize,
    /// Bytes that a user may publish by calls, per second and at once. An event that is larger than
    /// the burst counts as the burst.
    pub publish_bytes_per_user: Rate,
    /// Bytes that all users of a tenant may publish by calls, likewise.
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

/// How sessions and users are counted.
#[derive(Debug, Clone)]
pub struct PresenceConfig {
    /// How long a user whose last session was cut off stays a member, so that a reload is nothing to tell.
    pub grace: Duration,
    /// Sessions a user.
    pub sessions_per_user_max: usize,
    /// How long a lost session can be recovered; zero: none can.
    pub recovery_window: Duration,
    /// Lost sessions that are kept, of all tenants. At this and the next two bounds the oldest of
    /// the same user or tenant are evicted.
    pub recoverable_max: usize,
    /// Lost sessions per tenant.
    pub recoverable_per_tenant_max: usize,
    /// Lost sessions per user.
    pub recoverable_per_user_max: usize,
    /// Catalogs whose presence events are published; empty: all.
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

/// Where internal services are that browsers' calls are passed to.
#[derive(Debug, Clone)]
pub struct Upstreams {
    /// A URL for each name that catalogs use, e.g. `billing` and `http://10.0.0.7:50052`.
    pub urls: Vec<(String, String)>,
    /// How long an upstream may take to answer.
    pub timeout: Duration,
    /// What is trusted and presented where a URL is `https`.
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
