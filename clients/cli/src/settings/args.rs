//! All commands and settings.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Subcommand, ValueEnum, builder::PossibleValuesParser, value_parser};

use fanfare_proto::catalog::{Builtin, CatalogError, Catalogs, builtin_names};
use fanfare_trust::Workload;

use super::duration::{Size, duration};

/// What `fanfare` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Server and bridge in one process, with a development key and ready tokens (the default).
    Dev(DevArgs),
    /// The server: producers publish to it, bridges and consumers read from it.
    Server(ServerCommand),
    /// A bridge: browsers connect to it.
    Bridge(BridgeCommand),
    /// Publishes events.
    Notify(NotifyArgs),
    /// Prints the events of some rooms.
    Subscribe(Box<SubscribeArgs>),
    /// Publishes the rows of an outbox table in PostgreSQL.
    Relay(Box<RelayArgs>),
    /// Makes a token.
    Token(TokenArgs),
    /// Writes the types of events and calls: TypeScript, JSON Schema or AsyncAPI.
    Types(TypesArgs),
    /// Checks catalogs and configuration.
    Check(CheckArgs),
    /// Prints the script by which a shell completes commands and flags.
    Completions(CompletionsArgs),
    /// Prints a page for `man`.
    Man(ManArgs),
}

/// `fanfare bridge`.
pub(crate) type BridgeCommand = PeerArgs;

/// `fanfare dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) bridge: BridgeArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// `fanfare server`.
#[derive(Debug, Args)]
pub(crate) struct ServerCommand {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) clients: ClientCertificateArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// `fanfare bridge`.
#[derive(Debug, Args)]
pub(crate) struct PeerArgs {
    #[command(flatten)]
    pub(crate) bridge: BridgeArgs,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) server_tls: ServerTlsArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// A server to link to; repeatable. Each address of the URL's host is a server too. The bridge
    /// links to a random one, and to another when that one is lost or shuts down.
    #[arg(
        long,
        env = "FANFARE_SERVER",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:50051",
        help_heading = "Bridge"
    )]
    pub(crate) server: Vec<String>,
    /// The bridge's own token, with the scope `bridge`; made from --jwt-secret when absent, unless
    /// --server-cert says who the bridge is.
    #[arg(
        long,
        env = "FANFARE_BRIDGE_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        help_heading = "Bridge"
    )]
    pub(crate) bridge_token: Option<String>,
    /// A file with the bridge's token, instead of --bridge-token.
    #[arg(
        long,
        env = "FANFARE_BRIDGE_TOKEN_FILE",
        value_name = "FILE",
        conflicts_with = "bridge_token",
        help_heading = "Bridge"
    )]
    pub(crate) bridge_token_file: Option<PathBuf>,
}

/// TLS of a listener.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArgs {
    /// A file with the certificate (PEM), intermediate ones after it. The files are read again when
    /// they change. Absent: no TLS.
    #[arg(long, env = "FANFARE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// A file with the certificate's private key (PEM).
    #[arg(long, env = "FANFARE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

/// Certificates that clients of the server present.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct ClientCertificateArgs {
    /// A file with the authorities (PEM) of client certificates. Clients without one are refused.
    #[arg(long, env = "FANFARE_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// What a client may do without a token: a URI or DNS name in its certificate, scopes, and
    /// perhaps a tenant, e.g. `spiffe://example.org/orders=notify+subscribe@acme`; repeatable.
    #[arg(
        long,
        env = "FANFARE_TLS_IDENTITY",
        value_name = "NAME=SCOPES[@TENANT]",
        value_delimiter = ',',
        requires = "tls_client_ca"
    )]
    pub(crate) tls_identity: Vec<Workload>,
}

/// TLS towards a server.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct ServerTlsArgs {
    /// A file with the authorities (PEM) that an `https` server is trusted by, instead of the
    /// system's.
    #[arg(long, env = "FANFARE_SERVER_CA", value_name = "FILE")]
    pub(crate) server_ca: Option<PathBuf>,
    /// A file with the certificate (PEM) that is presented to the server.
    #[arg(long, env = "FANFARE_SERVER_CERT", value_name = "FILE", requires = "server_key")]
    pub(crate) server_cert: Option<PathBuf>,
    /// A file with that certificate's private key (PEM).
    #[arg(long, env = "FANFARE_SERVER_KEY", value_name = "FILE", requires = "server_cert")]
    pub(crate) server_key: Option<PathBuf>,
}

/// What server, bridge and dev have in common.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    #[command(flatten)]
    pub(crate) tokens: TokenSettings,
    /// Origin whose pages may connect, e.g. `https://app.example.com`; repeatable; `*` is any. Absent: no CORS (`dev`: any).
    #[arg(long, env = "FANFARE_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub(crate) cors_origin: Vec<String>,
    /// Where metrics are served at `/metrics`, without a token: an address that only the monitoring
    /// reaches; port 0 chooses one. Absent: only on the main port, for an administrator's token.
    #[arg(long, env = "FANFARE_METRICS_LISTEN", value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Tenants that metrics tell apart by name; all others are counted together. 0: no metric names
    /// tenants.
    #[arg(long, env = "FANFARE_METRICS_TENANTS", value_name = "COUNT", default_value_t = 0)]
    pub(crate) metrics_tenants: u16,
    /// How long to wait for what is under way when told to stop.
    #[arg(long, env = "FANFARE_SHUTDOWN_GRACE", value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub(crate) shutdown_grace: Duration,
}

/// The server's settings.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// Where gRPC, gRPC-Web, Connect, reflection and health are served; port 0 chooses one.
    #[arg(long, env = "FANFARE_GRPC_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    pub(crate) grpc_listen: SocketAddr,
    #[command(flatten)]
    pub(crate) catalogs: CatalogArgs,
    /// What this server calls itself, in logs and towards bridges and operators.
    #[arg(long, env = "FANFARE_SERVER_NAME", value_name = "TEXT", default_value = "server")]
    pub(crate) server_name: String,
    /// The catalogs that clients of the Socket.IO namespace `/`, `/ws`, `/events` and `/poll` get, by package; absent: all. Each
    /// catalog has a namespace of its own besides, e.g. `/messenger`.
    #[arg(long, env = "FANFARE_DEFAULT_CATALOGS", value_name = "PACKAGE", value_delimiter = ',')]
    pub(crate) default_catalogs: Vec<String>,
    /// Where the log is kept, on a disk of this machine; absent: in memory, gone with the process.
    #[arg(long, env = "FANFARE_DATA_DIR", value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Keeps logs and sessions on Redis 7.0 or Valkey 7.2 and later, shared by any number of servers:
    /// redis://, rediss://, redis+sentinel://HOST,HOST/NAME or redis+cluster://HOST,HOST.
    #[arg(long, env = "FANFARE_REDIS", value_name = "URL", conflicts_with_all = ["data_dir", "nats"], hide_env_values = true)]
    pub(crate) redis: Option<String>,
    /// When Notify answers: once the primary has the event in memory, or once a replica has it too.
    #[arg(
        long,
        env = "FANFARE_REDIS_ACK",
        value_name = "WHEN",
        value_enum,
        default_value = "memory",
        requires = "redis"
    )]
    pub(crate) redis_ack: RedisAck,
    /// The first part of all keys and channels on Redis.
    #[arg(long, env = "FANFARE_REDIS_PREFIX", value_name = "TEXT", default_value = "ff")]
    pub(crate) redis_prefix: String,
    /// A file with certificates (PEM) that Redis servers are trusted by, instead of the system's.
    #[arg(long, env = "FANFARE_REDIS_CA_FILE", value_name = "FILE", requires = "redis")]
    pub(crate) redis_ca_file: Option<PathBuf>,
    /// A file with the name of the Redis user, instead of one in the URL.
    #[arg(long, env = "FANFARE_REDIS_USER_FILE", value_name = "FILE", requires = "redis")]
    pub(crate) redis_user_file: Option<PathBuf>,
    /// A file with the name of the user at sentinels.
    #[arg(long, env = "FANFARE_REDIS_SENTINEL_USER_FILE", value_name = "FILE", requires = "redis")]
    pub(crate) redis_sentinel_user_file: Option<PathBuf>,
    /// A file with the password at sentinels.
    #[arg(long, env = "FANFARE_REDIS_SENTINEL_PASSWORD_FILE", value_name = "FILE", requires = "redis")]
    pub(crate) redis_sentinel_password_file: Option<PathBuf>,
    /// A file with the password of the Redis user, instead of one in the URL.
    #[arg(long, env = "FANFARE_REDIS_PASSWORD_FILE", value_name = "FILE", requires = "redis")]
    pub(crate) redis_password_file: Option<PathBuf>,
    /// Keeps logs and sessions on NATS JetStream (2.11 or later), shared by any number of servers; give
    /// several servers of one cluster with commas between.
    #[arg(
        long,
        env = "FANFARE_NATS",
        value_name = "URL",
        value_delimiter = ',',
        conflicts_with = "data_dir",
        hide_env_values = true
    )]
    pub(crate) nats: Vec<String>,
    /// A file with a NATS user's JWT and seed.
    #[arg(long, env = "FANFARE_NATS_CREDENTIALS", value_name = "FILE", requires = "nats")]
    pub(crate) nats_credentials: Option<PathBuf>,
    /// A file with certificates (PEM) that NATS servers are trusted by, beside the system's.
    #[arg(long, env = "FANFARE_NATS_CA_FILE", value_name = "FILE", requires = "nats")]
    pub(crate) nats_ca_file: Option<PathBuf>,
    /// The first token of all subjects on NATS: a-z, 0-9 and "-".
    #[arg(long, env = "FANFARE_NATS_PREFIX", value_name = "TEXT", default_value = "ff")]
    pub(crate) nats_prefix: String,
    /// Copies of each stream: 1, 3 or 5. Notify answers when more than half have the event.
    #[arg(long, env = "FANFARE_NATS_REPLICAS", value_name = "COUNT", default_value_t = 3)]
    pub(crate) nats_replicas: usize,
    /// Streams over which tenants are spread. Fixed once they exist.
    #[arg(long, env = "FANFARE_NATS_PARTITIONS", value_name = "COUNT", default_value_t = 16)]
    pub(crate) nats_partitions: u32,
    /// Answers publishers before the disk has their events, by at most so long: what was answered in that time is lost when the
    /// machine or the server crashes, and then all clients read current state anew. 0s: answers when the disk has them.
    #[arg(long, env = "FANFARE_LOSE_IN_A_CRASH", value_name = "TIME", value_parser = duration, default_value = "0s")]
    pub(crate) lose_in_a_crash: Duration,
    /// Events that a tenant's log keeps.
    #[arg(long, env = "FANFARE_RETENTION_EVENTS", value_name = "COUNT", default_value_t = 100_000)]
    pub(crate) retention_events: usize,
    /// Bytes that a tenant's log keeps.
    #[arg(long, env = "FANFARE_RETENTION_BYTES", value_name = "SIZE", default_value = "64MiB")]
    pub(crate) retention_bytes: Size,
    /// Bytes that all logs together keep; the largest give way.
    #[arg(long, env = "FANFARE_RETENTION_BYTES_TOTAL", value_name = "SIZE", default_value = "2GiB")]
    pub(crate) retention_bytes_total: Size,
    /// How long a tenant's log keeps an event.
    #[arg(long, env = "FANFARE_RETENTION_AGE", value_name = "TIME", value_parser = duration, default_value = "1h")]
    pub(crate) retention_age: Duration,
    /// The largest event.
    #[arg(long, env = "FANFARE_EVENT_BYTES_MAX", value_name = "SIZE", default_value = "64KiB")]
    pub(crate) event_bytes_max: Size,
    /// Entries of a tenant's state: events whose type declares `state`.
    #[arg(long, env = "FANFARE_STATE_ENTRIES_MAX", value_name = "COUNT", default_value_t = 10_000)]
    pub(crate) state_entries_max: usize,
    /// Payload and envelope bytes of a tenant's state.
    #[arg(long, env = "FANFARE_STATE_BYTES_MAX", value_name = "SIZE", default_value = "16MiB")]
    pub(crate) state_bytes_max: Size,
    /// Tenants with a log.
    #[arg(long, env = "FANFARE_TENANTS_MAX", value_name = "COUNT", default_value_t = 100_000)]
    pub(crate) tenants_max: usize,
    /// How long an idempotency key is remembered.
    #[arg(long, env = "FANFARE_IDEMPOTENCY_AGE", value_name = "TIME", value_parser = duration, default_value = "10m")]
    pub(crate) idempotency_age: Duration,
    /// Concurrent calls on one connection.
    #[arg(long, env = "FANFARE_STREAMS_PER_CONNECTION_MAX", value_name = "COUNT", default_value_t = 10_000)]
    pub(crate) streams_per_connection_max: u32,
    /// Connections at once.
    #[arg(long, env = "FANFARE_GRPC_CONNECTIONS_MAX", value_name = "COUNT", default_value_t = 20_000)]
    pub(crate) grpc_connections_max: usize,
    /// Connections from one address.
    #[arg(
        long,
        env = "FANFARE_GRPC_CONNECTIONS_PER_ADDRESS_MAX",
        value_name = "COUNT",
        default_value_t = 5_000
    )]
    pub(crate) grpc_connections_per_address_max: usize,
    /// Subscribe streams of one user at once.
    #[arg(long, env = "FANFARE_SUBSCRIPTIONS_PER_USER_MAX", value_name = "COUNT", default_value_t = 100)]
    pub(crate) subscriptions_per_user_max: usize,
    /// Subscribe streams of one service at once. A service is known by its token's subject.
    #[arg(
        long,
        env = "FANFARE_SUBSCRIPTIONS_PER_SERVICE_MAX",
        value_name = "COUNT",
        default_value_t = 1_000
    )]
    pub(crate) subscriptions_per_service_max: usize,
    /// Rooms of all Subscribe streams of one user or service.
    #[arg(long, env = "FANFARE_ROOMS_PER_USER_MAX", value_name = "COUNT", default_value_t = 10_000)]
    pub(crate) rooms_per_user_max: usize,
    /// Bytes that a user may publish per second, by what browsers emit and call.
    #[arg(long, env = "FANFARE_PUBLISH_BYTES_PER_USER", value_name = "SIZE", default_value = "256KiB")]
    pub(crate) publish_bytes_per_user: Size,
    /// Likewise, at once.
    #[arg(long, env = "FANFARE_PUBLISH_BYTES_PER_USER_BURST", value_name = "SIZE", default_value = "1MiB")]
    pub(crate) publish_bytes_per_user_burst: Size,
    /// Bytes that all users of a tenant may publish per second, by what browsers emit and call.
    #[arg(long, env = "FANFARE_PUBLISH_BYTES_PER_TENANT", value_name = "SIZE", default_value = "8MiB")]
    pub(crate) publish_bytes_per_tenant: Size,
    /// Likewise, at once.
    #[arg(
        long,
        env = "FANFARE_PUBLISH_BYTES_PER_TENANT_BURST",
        value_name = "SIZE",
        default_value = "32MiB"
    )]
    pub(crate) publish_bytes_per_tenant_burst: Size,
    /// How long a connection may take to its first request, and a message of a request from its first byte to its last.
    #[arg(long, env = "FANFARE_GRPC_REQUEST_TIMEOUT", value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub(crate) grpc_request_timeout: Duration,
    /// How long a connection without requests is kept.
    #[arg(long, env = "FANFARE_GRPC_IDLE_TIMEOUT", value_name = "TIME", value_parser = duration, default_value = "5m")]
    pub(crate) grpc_idle_timeout: Duration,
    /// How long a user whose last session was cut off still counts as online, so that a reload tells nobody.
    #[arg(long, env = "FANFARE_PRESENCE_GRACE", value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub(crate) presence_grace: Duration,
    /// How long a lost session can be recovered. 0s: none can, and Socket.IO handlers get no cursor argument.
    #[arg(long, env = "FANFARE_RECOVERY_WINDOW", value_name = "TIME", value_parser = duration, default_value = "2m")]
    pub(crate) recovery_window: Duration,
    /// Lost sessions that are kept; beyond that the oldest of the same tenant are evicted.
    #[arg(long, env = "FANFARE_RECOVERABLE_MAX", value_name = "COUNT", default_value_t = 100_000)]
    pub(crate) recoverable_max: usize,
    /// Lost sessions that are kept per tenant; beyond that its oldest are evicted.
    #[arg(long, env = "FANFARE_RECOVERABLE_PER_TENANT_MAX", value_name = "COUNT", default_value_t = 50_000)]
    pub(crate) recoverable_per_tenant_max: usize,
    /// Lost sessions that are kept per user; beyond that their oldest are evicted.
    #[arg(long, env = "FANFARE_RECOVERABLE_PER_USER_MAX", value_name = "COUNT", default_value_t = 64)]
    pub(crate) recoverable_per_user_max: usize,
    /// A catalog whose presence events are published; repeatable; absent: all.
    #[arg(long, env = "FANFARE_PRESENCE_CATALOG", value_name = "PACKAGE", value_delimiter = ',')]
    pub(crate) presence_catalog: Vec<String>,
    /// Sessions of one user, on all bridges.
    #[arg(long, env = "FANFARE_SESSIONS_PER_USER_MAX", value_name = "COUNT", default_value_t = 64)]
    pub(crate) sessions_per_user_max: usize,
    /// An internal gRPC service that catalogs pass browsers' calls to; repeatable.
    #[arg(long, env = "FANFARE_UPSTREAM", value_name = "NAME=URL", value_parser = upstream, value_delimiter = ',')]
    pub(crate) upstream: Vec<(String, String)>,
    /// A file with the authorities (PEM) that `https` upstreams are trusted by, instead of the system's.
    #[arg(long, env = "FANFARE_UPSTREAM_CA", value_name = "FILE")]
    pub(crate) upstream_ca: Option<PathBuf>,
    /// A file with the certificate (PEM) that is presented to upstreams.
    #[arg(long, env = "FANFARE_UPSTREAM_CERT", value_name = "FILE", requires = "upstream_key")]
    pub(crate) upstream_cert: Option<PathBuf>,
    /// A file with that certificate's private key (PEM).
    #[arg(long, env = "FANFARE_UPSTREAM_KEY", value_name = "FILE", requires = "upstream_cert")]
    pub(crate) upstream_key: Option<PathBuf>,
    /// How long an upstream may take to answer.
    #[arg(long, env = "FANFARE_UPSTREAM_TIMEOUT", value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub(crate) upstream_timeout: Duration,
    /// How often a silent stream says that it is alive.
    #[arg(long, env = "FANFARE_HEARTBEAT_INTERVAL", value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub(crate) heartbeat_interval: Duration,
}

/// `NAME=URL`.
fn upstream(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, url)| !name.is_empty() && !url.is_empty());
    let (name, url) = parts.ok_or("want a name and a URL, e.g. billing=http://127.0.0.1:50052")?;
    Ok((name.to_owned(), url.to_owned()))
}

/// A network, or a single address.
fn network(text: &str) -> Result<ipnet::IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| "want a network, e.g. 10.0.0.0/8 or 192.0.2.1".into())
}

/// The catalogs.
#[derive(Debug, Clone, Args)]
pub(crate) struct CatalogArgs {
    /// A catalog: a .proto file, or a folder of them; repeatable.
    #[arg(long, env = "FANFARE_CATALOG", value_name = "FILE|FOLDER", value_delimiter = ',')]
    pub(crate) catalog: Vec<PathBuf>,
    /// An example catalog that is loaded too; repeatable. Absent: `server` and `check` load none; other
    /// commands load all, unless --catalog is given.
    #[arg(long, env = "FANFARE_BUILTIN", value_name = "NAME", value_delimiter = ',', value_parser = builtin())]
    pub(crate) builtin: Vec<String>,
}

const ALL: &str = "all";
const NONE: &str = "none";

fn builtin() -> PossibleValuesParser {
    PossibleValuesParser::new(builtin_names().into_iter().chain([ALL, NONE]))
}

impl CatalogArgs {
    /// With all examples, unless other catalogs are chosen.
    pub(crate) fn or_examples(mut self) -> Self {
        if self.catalog.is_empty() && self.builtin.is_empty() {
            self.builtin.push(ALL.to_owned());
        }
        self
    }

    fn chosen(&self) -> Builtin<'_> {
        if self.builtin.iter().any(|name| name == ALL) { Builtin::All } else { Builtin::Only(&self.builtin) }
    }

    /// The catalogs of a tool.
    pub(crate) fn load(&self) -> Result<Catalogs, CatalogError> {
        Catalogs::load(self.chosen(), &self.catalog)
    }

    /// The catalogs of a server, whose namespace `/` serves `defaults`.
    pub(crate) fn load_served(&self, defaults: &[String]) -> anyhow::Result<Catalogs> {
        let catalogs = Catalogs::load_served(self.chosen(), &self.catalog, defaults)?;
        anyhow::ensure!(
            !catalogs.packages().is_empty(),
            "no catalog is loaded: give --catalog FILE|FOLDER, or an example by --builtin NAME ({}, {ALL})",
            builtin_names().join(", ")
        );
        Ok(catalogs)
    }
}

/// The bridge's settings.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bridge")]
pub(crate) struct BridgeArgs {
    /// What this bridge calls itself, in logs and towards servers and operators.
    #[arg(long, env = "FANFARE_BRIDGE_NAME", value_name = "TEXT", default_value = "bridge")]
    pub(crate) bridge_name: String,
    /// Where browsers connect; port 0 chooses one.
    #[arg(long, env = "FANFARE_HTTP_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    pub(crate) http_listen: SocketAddr,
    /// The path of Socket.IO.
    #[arg(long, env = "FANFARE_SOCKETIO_PATH", value_name = "PATH", default_value = "/socket.io/")]
    pub(crate) socketio_path: String,
    /// How often a client is pinged.
    #[arg(long, env = "FANFARE_PING_INTERVAL", value_name = "TIME", value_parser = duration, default_value = "25s")]
    pub(crate) ping_interval: Duration,
    /// How long the pong may take.
    #[arg(long, env = "FANFARE_PING_TIMEOUT", value_name = "TIME", value_parser = duration, default_value = "20s")]
    pub(crate) ping_timeout: Duration,
    /// How long a client may take from its connection to its session.
    #[arg(long, env = "FANFARE_CONNECT_TIMEOUT", value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub(crate) connect_timeout: Duration,
    /// How long the head of an HTTP request may take, and its body.
    #[arg(long, env = "FANFARE_REQUEST_TIMEOUT", value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub(crate) request_timeout: Duration,
    /// How long bytes may wait for a peer to take them before its connection is closed.
    #[arg(long, env = "FANFARE_WRITE_TIMEOUT", value_name = "TIME", value_parser = duration, default_value = "20s")]
    pub(crate) write_timeout: Duration,
    /// The largest message from a browser.
    #[arg(long, env = "FANFARE_PAYLOAD_BYTES_MAX", value_name = "SIZE", default_value = "64KiB")]
    pub(crate) payload_bytes_max: Size,
    /// Bytes that may wait for a session before it is closed as too slow.
    #[arg(long, env = "FANFARE_QUEUE_BYTES_MAX", value_name = "SIZE", default_value = "1MiB")]
    pub(crate) queue_bytes_max: Size,
    /// Calls per second of a session, in the long run.
    #[arg(long, env = "FANFARE_CALLS_PER_SECOND", value_name = "COUNT", default_value_t = 50)]
    pub(crate) calls_per_second: u32,
    /// Calls of a session at once.
    #[arg(long, env = "FANFARE_CALLS_BURST", value_name = "COUNT", default_value_t = 100)]
    pub(crate) calls_burst: u32,
    /// Calls and polls per second of all sessions of a user on this bridge, in the long run.
    #[arg(long, env = "FANFARE_USER_CALLS_PER_SECOND", value_name = "COUNT", default_value_t = 100)]
    pub(crate) user_calls_per_second: u32,
    /// Likewise, at once.
    #[arg(long, env = "FANFARE_USER_CALLS_BURST", value_name = "COUNT", default_value_t = 200)]
    pub(crate) user_calls_burst: u32,
    /// Sessions that a user may open per second on this bridge, in the long run.
    #[arg(long, env = "FANFARE_USER_CONNECTS_PER_SECOND", value_name = "COUNT", default_value_t = 50)]
    pub(crate) user_connects_per_second: u32,
    /// Likewise, at once.
    #[arg(long, env = "FANFARE_USER_CONNECTS_BURST", value_name = "COUNT", default_value_t = 500)]
    pub(crate) user_connects_burst: u32,
    /// How long a session may stay over a limit, refused again and again, before it is closed for
    /// good.
    #[arg(long, env = "FANFARE_ABUSE_AFTER", value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub(crate) abuse_after: Duration,
    /// How long a poll waits for events.
    #[arg(long, env = "FANFARE_POLL_WAIT", value_name = "TIME", value_parser = duration, default_value = "25s")]
    pub(crate) poll_wait: Duration,
    /// Rooms that a session may be in, besides `org` and its user's.
    #[arg(long, env = "FANFARE_ROOMS_PER_SESSION_MAX", value_name = "COUNT", default_value_t = 128, value_parser = value_parser!(u16).range(..=9000))]
    pub(crate) rooms_per_session_max: u16,
    /// Rooms of all sessions of a tenant on this bridge.
    #[arg(long, env = "FANFARE_ROOMS_PER_TENANT_MAX", value_name = "COUNT", default_value_t = 250_000)]
    pub(crate) rooms_per_tenant_max: usize,
    /// Connections at once.
    #[arg(long, env = "FANFARE_CONNECTIONS_MAX", value_name = "COUNT", default_value_t = 100_000)]
    pub(crate) connections_max: usize,
    /// Connections of one address at once. IPv6 addresses count by their /64 network.
    #[arg(long, env = "FANFARE_CONNECTIONS_PER_ADDRESS_MAX", value_name = "COUNT", default_value_t = 10_000)]
    pub(crate) connections_per_address_max: usize,
    /// New connections per second of one address, in the long run.
    #[arg(long, env = "FANFARE_CONNECTS_PER_SECOND", value_name = "COUNT", default_value_t = 1000)]
    pub(crate) connects_per_second: u32,
    /// Likewise, at once.
    #[arg(long, env = "FANFARE_CONNECTS_BURST", value_name = "COUNT", default_value_t = 10_000)]
    pub(crate) connects_burst: u32,
    /// Connections that are no session yet.
    #[arg(long, env = "FANFARE_HANDSHAKES_MAX", value_name = "COUNT", default_value_t = 20_000)]
    pub(crate) handshakes_max: usize,
    /// Likewise, of one address.
    #[arg(long, env = "FANFARE_HANDSHAKES_PER_ADDRESS_MAX", value_name = "COUNT", default_value_t = 8192)]
    pub(crate) handshakes_per_address_max: usize,
    /// Sessions of one address.
    #[arg(long, env = "FANFARE_SESSIONS_PER_ADDRESS_MAX", value_name = "COUNT", default_value_t = 10_000)]
    pub(crate) sessions_per_address_max: usize,
    /// A proxy's network, e.g. `10.0.0.0/8`, whose X-Forwarded-For tells the client's address;
    /// repeatable.
    #[arg(long, env = "FANFARE_TRUSTED_PROXY", value_name = "CIDR", value_parser = network, value_delimiter = ',')]
    pub(crate) trusted_proxy: Vec<ipnet::IpNet>,
    /// Whether trusted proxies begin each connection with a PROXY protocol header, version 2.
    #[arg(long, env = "FANFARE_PROXY_PROTOCOL", value_name = "BOOL", default_value_t = false, action = ArgAction::Set)]
    pub(crate) proxy_protocol: bool,
    /// Whether events are compressed for WebSocket clients that offer permessage-deflate.
    #[arg(long, env = "FANFARE_COMPRESSION", value_name = "BOOL", default_value_t = false, action = ArgAction::Set)]
    pub(crate) compression: bool,
    /// Whether the Socket.IO client is served at `/socket.io/socket.io.js`; absent: only by `dev`.
    #[arg(long, env = "FANFARE_CLIENT_BUNDLE", value_name = "BOOL", action = ArgAction::Set)]
    pub(crate) client_bundle: Option<bool>,
    /// Parts that sessions are divided into, each with a task of its own for large fan-outs; absent:
    /// one per core.
    #[arg(long, env = "FANFARE_SHARDS", value_name = "COUNT", value_parser = value_parser!(u16).range(1..=256))]
    pub(crate) shards: Option<u16>,
    /// Whether the console is served at `/` and its calls are passed on to the server.
    #[arg(long, env = "FANFARE_CONSOLE", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub(crate) console: bool,
}

/// How tokens are verified, and made by tools.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tokens")]
pub(crate) struct TokenSettings {
    /// The secret that signs tokens with HS256, HS384 or HS512; at least 16 bytes.
    #[arg(long, env = "FANFARE_JWT_SECRET", value_name = "TEXT", hide_env_values = true)]
    pub(crate) jwt_secret: Option<String>,
    /// A PEM public key that verifies RS256, ES256 or EdDSA tokens; repeatable.
    #[arg(long, env = "FANFARE_JWT_PEM", value_name = "FILE", value_delimiter = ',')]
    pub(crate) jwt_pem: Vec<PathBuf>,
    /// A file with the secret, instead of --jwt-secret.
    #[arg(long, env = "FANFARE_JWT_SECRET_FILE", value_name = "FILE", conflicts_with = "jwt_secret")]
    pub(crate) jwt_secret_file: Option<PathBuf>,
    /// A JSON Web Key Set: a file or a URL; repeatable. What is behind a URL is fetched at the start, again
    /// before it is too old, and when a token names a key that is not known.
    #[arg(long, env = "FANFARE_JWT_JWKS", value_name = "FILE|URL", value_delimiter = ',')]
    pub(crate) jwt_jwks: Vec<String>,
    /// A file with the authorities (PEM) that servers of key sets are trusted by, instead of the system's.
    #[arg(long, env = "FANFARE_JWT_JWKS_CA", value_name = "FILE")]
    pub(crate) jwt_jwks_ca: Option<PathBuf>,
    /// An issuer with keys of its own, and perhaps an audience and the tenant of all its tokens:
    /// `ISSUER;jwks=FILE|URL;audience=TEXT;tenant=NAME`; repeatable.
    #[arg(long, env = "FANFARE_JWT_TRUST", value_name = "ISSUER;jwks=…", value_delimiter = ',')]
    pub(crate) jwt_trust: Vec<String>,
    /// Accepted `iss`; repeatable; absent: not checked.
    #[arg(long, env = "FANFARE_JWT_ISSUER", value_name = "TEXT", value_delimiter = ',')]
    pub(crate) jwt_issuer: Vec<String>,
    /// Accepted `aud`; repeatable; absent: not checked.
    #[arg(long, env = "FANFARE_JWT_AUDIENCE", value_name = "TEXT", value_delimiter = ',')]
    pub(crate) jwt_audience: Vec<String>,
    /// Tolerance for `exp` and `nbf`, in whole seconds.
    #[arg(long, env = "FANFARE_JWT_LEEWAY", value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub(crate) jwt_leeway: Duration,
    /// Accepts tokens without `exp`.
    #[arg(long, env = "FANFARE_JWT_ALLOW_NO_EXPIRY")]
    pub(crate) jwt_allow_no_expiry: bool,
    /// Claims with the user's id, the first that is present counts.
    #[arg(
        long,
        env = "FANFARE_CLAIM_USER",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "userId,sub,id"
    )]
    pub(crate) claim_user: Vec<String>,
    /// Claims with the tenant.
    #[arg(
        long,
        env = "FANFARE_CLAIM_TENANT",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "organizationId,tenant"
    )]
    pub(crate) claim_tenant: Vec<String>,
    /// Claims with the user's name.
    #[arg(
        long,
        env = "FANFARE_CLAIM_NAME",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "username,name"
    )]
    pub(crate) claim_name: Vec<String>,
    /// Claims with a service's scopes.
    #[arg(
        long,
        env = "FANFARE_CLAIM_SCOPES",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "scopes"
    )]
    pub(crate) claim_scopes: Vec<String>,
    /// Claims with the rooms a user is restricted to.
    #[arg(
        long,
        env = "FANFARE_CLAIM_ROOMS",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "rooms"
    )]
    pub(crate) claim_rooms: Vec<String>,
    /// The tenant of tokens that name none; empty: they are refused.
    #[arg(long, env = "FANFARE_DEFAULT_TENANT", value_name = "NAME", default_value = "default")]
    pub(crate) default_tenant: String,
}

/// How logs are written.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// What is logged: a level, or a filter such as `info,fanfare_bridge=debug`.
    #[arg(long, env = "FANFARE_LOG", value_name = "FILTER", default_value = "info", global = true)]
    pub(crate) log: String,
    /// How it is written.
    #[arg(long, env = "FANFARE_LOG_FORMAT", value_name = "FORMAT", default_value = "text", global = true)]
    pub(crate) log_format: LogFormat,
    /// Lines per second that one place in the program may log; the rest is counted. 0: any number.
    #[arg(
        long,
        env = "FANFARE_LOG_LINES_PER_SECOND",
        value_name = "COUNT",
        default_value_t = 100,
        global = true
    )]
    pub(crate) log_lines_per_second: u32,
    /// Where security-relevant lines go, as JSON and whatever --log says: a file that is appended to, or
    /// `stderr`. Absent: they are part of the log, with the target `audit`.
    #[arg(long, env = "FANFARE_AUDIT_LOG", value_name = "FILE", global = true)]
    pub(crate) audit_log: Option<PathBuf>,
}

/// When an append on Redis is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RedisAck {
    /// Once the primary has it in memory.
    Memory,
    /// Once a replica has it too.
    Replica,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// To whom tools speak, and as whom.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// The server.
    #[arg(long, env = "FANFARE_SERVER", value_name = "URL", default_value = "http://127.0.0.1:50051")]
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) server_tls: ServerTlsArgs,
    /// The token; made from --jwt-secret, or for a server on this machine from the development key, when absent.
    #[arg(long, env = "FANFARE_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// A file with the token, instead of --token.
    #[arg(long, env = "FANFARE_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// The secret to make a token from.
    #[arg(long, env = "FANFARE_JWT_SECRET", value_name = "TEXT", hide_env_values = true)]
    pub(crate) jwt_secret: Option<String>,
    /// A file with the secret, instead of --jwt-secret.
    #[arg(long, env = "FANFARE_JWT_SECRET_FILE", value_name = "FILE", conflicts_with = "jwt_secret")]
    pub(crate) jwt_secret_file: Option<PathBuf>,
    /// The tenant; `*` is all. Absent: the token's, or the server's default tenant, as for all tokens
    /// that name none.
    #[arg(long, env = "FANFARE_TENANT", value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) tenant: String,
    #[command(flatten)]
    pub(crate) catalogs: CatalogArgs,
}

/// `fanfare completions`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fanfare completions bash > /etc/bash_completion.d/fanfare")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// `fanfare man`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  fanfare man > /usr/local/share/man/man1/fanfare.1\n  fanfare man server | man -l -"
)]
pub(crate) struct ManArgs {
    /// The command that the page is about; absent: the program.
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Option<String>,
}

/// `fanfare notify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  fanfare notify messenger.v1.NewMessage '{\"id\":1,\"chatId\":7,\"content\":\"Hello\",\"fromMe\":true,\"channel\":\"whatsapp\"}'"
)]
pub(crate) struct NotifyArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The event: its full name (messenger.v1.NewMessage), or its browser name where only one catalog has it.
    #[arg(value_name = "TYPE")]
    pub(crate) kind: String,
    /// The payload as JSON, as browsers see it; internal fields may be set too. `-` reads one per line
    /// from standard input and streams them.
    #[arg(value_name = "JSON", default_value = "{}")]
    pub(crate) json: String,
    /// A room, instead of those the event declares; repeatable.
    #[arg(long, value_name = "ROOM")]
    pub(crate) room: Vec<String>,
    /// Makes a retry safe.
    #[arg(long, value_name = "KEY", default_value = "")]
    pub(crate) idempotency_key: String,
    /// For events whose type declares `state`: publishes only if the entry has this revision, the seq of
    /// its event; 0: if there is none.
    #[arg(long, value_name = "SEQ")]
    pub(crate) expected_revision: Option<u64>,
    /// How long it is tried while no server takes it.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "15s")]
    pub(crate) retry_for: Duration,
    /// A session that does not get it; repeatable.
    #[arg(long, value_name = "SESSION")]
    pub(crate) except_session: Vec<String>,
}

/// `fanfare subscribe`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fanfare subscribe org chat:7\n  fanfare subscribe '*' --tenant '*'\n  \
    fanfare subscribe '*' --tenant acme --follow --out events.jsonl")]
pub(crate) struct SubscribeArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Rooms, e.g. org or chat:7. `*` is all rooms: to print from now on, also ephemeral events, with the
    /// scope `admin`; with --after or --out stored events of one tenant, with the scope `subscribe`.
    #[arg(value_name = "ROOM", required = true)]
    pub(crate) rooms: Vec<String>,
    /// Resume after this cursor (an event's id). With --out for the first start only.
    #[arg(long, value_name = "CURSOR", default_value = "")]
    pub(crate) after: String,
    /// Stores events instead of printing them, each once, and resumes where they end: a file that lines of
    /// JSON are appended to, or postgres://USER@HOST:PORT/DATABASE.
    #[arg(long, env = "FANFARE_OUT", value_name = "FILE|URL", hide_env_values = true)]
    pub(crate) out: Option<String>,
    /// With --out: when the log does not reach back to where the stored events end, notes that and
    /// goes on, instead of ending.
    #[arg(long, requires = "out")]
    pub(crate) follow: bool,
    /// With --out in a file: how large it becomes before it is renamed and a new one begins; 0: any
    /// size.
    #[arg(long, env = "FANFARE_ROTATE_BYTES", value_name = "SIZE", default_value = "0")]
    pub(crate) rotate_bytes: Size,
    /// With --out in PostgreSQL: what this consumer's cursor is kept as; absent: tenant and rooms.
    #[arg(
        long,
        env = "FANFARE_SINK_NAME",
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) sink_name: String,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
}

/// `fanfare relay`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fanfare relay --print-migration | psql \"$DATABASE_URL\"\n  \
    fanfare relay --postgres \"$DATABASE_URL\" --server http://127.0.0.1:50051 --tenant '*'")]
pub(crate) struct RelayArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The database: postgres://USER@HOST:PORT/DATABASE.
    #[arg(
        long,
        env = "FANFARE_POSTGRES",
        value_name = "URL",
        hide_env_values = true,
        required_unless_present = "print_migration"
    )]
    pub(crate) postgres: Option<String>,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    /// The outbox table, perhaps with its schema.
    #[arg(long, env = "FANFARE_OUTBOX_TABLE", value_name = "NAME", default_value = "fanfare_outbox")]
    pub(crate) outbox_table: String,
    /// Prints the SQL that makes the table, and ends.
    #[arg(long)]
    pub(crate) print_migration: bool,
    /// Rows that are read and published together, at most.
    #[arg(
        long,
        env = "FANFARE_BATCH_ROWS_MAX",
        value_name = "COUNT",
        default_value_t = 1000,
        value_parser = value_parser!(u32).range(1..=10_000)
    )]
    pub(crate) batch_rows_max: u32,
    /// How often the relay looks for rows that no notification announced; at least once per second.
    #[arg(long, env = "FANFARE_POLL_INTERVAL", value_name = "TIME", value_parser = duration, default_value = "1s")]
    pub(crate) poll_interval: Duration,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; port 0 chooses one. Absent: nowhere.
    #[arg(long, env = "FANFARE_METRICS_LISTEN", value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// How long the batch under way may take when told to stop.
    #[arg(long, env = "FANFARE_SHUTDOWN_GRACE", value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub(crate) shutdown_grace: Duration,
}

/// How a database is connected to.
#[derive(Debug, Args)]
pub(crate) struct DatabaseArgs {
    /// A file with the database user's password, instead of one in the URL.
    #[arg(long, env = "FANFARE_POSTGRES_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) postgres_password_file: Option<PathBuf>,
    #[arg(skip)]
    pub(crate) postgres_password: Option<String>,
    /// A file with certificates (PEM) that the database is trusted by, instead of the system's.
    #[arg(long, env = "FANFARE_POSTGRES_CA", value_name = "FILE")]
    pub(crate) postgres_ca: Option<PathBuf>,
}

/// `fanfare token`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  fanfare token --user 42 --tenant 1 --name Ada\n  fanfare token --scope notify --tenant '*' --expires 30d --jwt-secret \"$SECRET\""
)]
pub(crate) struct TokenArgs {
    /// The secret that signs; the development key when absent.
    #[arg(long, env = "FANFARE_JWT_SECRET", value_name = "TEXT", hide_env_values = true)]
    pub(crate) jwt_secret: Option<String>,
    /// A file with the secret, instead of --jwt-secret.
    #[arg(long, env = "FANFARE_JWT_SECRET_FILE", value_name = "FILE", conflicts_with = "jwt_secret")]
    pub(crate) jwt_secret_file: Option<PathBuf>,
    /// The user's (or service's) id.
    #[arg(long, value_name = "ID")]
    pub(crate) user: Option<String>,
    /// The tenant; `*` is all, for services.
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// The user's name.
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// What a service may do: notify, subscribe, admin or bridge; repeatable.
    #[arg(long, value_name = "SCOPE", value_parser = ["notify", "subscribe", "admin", "bridge"])]
    pub(crate) scope: Vec<String>,
    /// Restricts a user to this room; repeatable.
    #[arg(long, value_name = "ROOM")]
    pub(crate) room: Vec<String>,
    /// How long it is good.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "24h")]
    pub(crate) expires: Duration,
    /// Another claim; the value is JSON or else text; repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) claim: Vec<String>,
}

/// `fanfare types`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  fanfare types --package messenger.v1 --out src/events.ts\n  fanfare types --package messenger.v1 --out src/events.ts --check"
)]
pub(crate) struct TypesArgs {
    #[command(flatten)]
    pub(crate) catalogs: CatalogArgs,
    /// A catalog whose types are written; repeatable; absent: all.
    #[arg(long, value_name = "PACKAGE", value_delimiter = ',')]
    pub(crate) package: Vec<String>,
    /// What is written.
    #[arg(long, value_name = "FORMAT", default_value = "typescript")]
    pub(crate) format: TypesFormat,
    /// The file that is written; absent: standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Writes nothing, and fails when the file is not what would be written.
    #[arg(long, requires = "out")]
    pub(crate) check: bool,
}

/// What `fanfare types` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TypesFormat {
    /// For `Socket` of socket.io-client, and for the raw WebSocket.
    Typescript,
    /// Draft 2020-12, all messages under `$defs`.
    JsonSchema,
    /// AsyncAPI 3.0.
    Asyncapi,
    /// JSON with the full type name of each event, by package: for the emitter.
    Names,
}

/// `fanfare check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) bridge: BridgeArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) clients: ClientCertificateArgs,
    #[command(flatten)]
    pub(crate) server_tls: ServerTlsArgs,
    /// Catalogs as they were, files or folders; repeatable. Lists the changes that break their clients, and
    /// fails when there are any.
    #[arg(long, value_name = "FILE|FOLDER", value_delimiter = ',')]
    pub(crate) against: Vec<PathBuf>,
}
