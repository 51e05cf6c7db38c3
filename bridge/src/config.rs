//! The bridge's settings as plain values; the caller decides where they come from.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use fanfare_proto::{rate::Rate, signer::Signer, token::TokenConfig};
use fanfare_trust::{ClientTls, TlsFiles};
use ipnet::IpNet;

/// All settings of a bridge.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address on which browsers connect. Port 0 chooses a free port.
    pub listen: SocketAddr,
    /// If present, browsers connect over TLS; if absent, without.
    pub tls: Option<TlsFiles>,
    /// The bridge's name in logs and towards the server.
    pub name: String,
    /// Servers, as URLs. Each address of a URL's host is one server. The link goes to a random
    /// server, and to another one when it is lost.
    pub servers: Vec<String>,
    /// Which authorities are trusted, and which certificate is presented, if a server's URL is
    /// `https`.
    pub server_tls: ClientTls,
    /// The bridge's own token, with the scope `bridge`. If empty, its certificate identifies it.
    pub token: String,
    /// How users' tokens are verified.
    pub tokens: TokenConfig,
    /// The authorities trusted for servers of token keys, instead of the system's.
    pub jwks_ca: Option<PathBuf>,
    /// Origins whose pages may connect; `*` allows any. If empty, pages of other origins cannot use
    /// polling (no CORS headers are sent) but can use WebSocket. Requests without `Origin` (not
    /// from browsers) are always allowed.
    pub cors_origins: Vec<String>,
    /// The path of Socket.IO.
    pub path: String,
    /// How often a client is pinged.
    pub ping_interval: Duration,
    /// How long a client may take to answer a ping.
    pub ping_timeout: Duration,
    /// How long a client may take from its connection to its session, and how long rooms may take
    /// to be confirmed.
    pub connect_timeout: Duration,
    /// How long bytes may wait for a peer to accept them.
    pub write_timeout: Duration,
    /// The largest message from a browser, in bytes.
    pub payload_bytes_max: usize,
    /// Bytes that may be queued for a session; an event that does not fit closes the session
    /// (retry).
    pub queue_bytes_max: usize,
    /// How many calls a session may emit.
    pub calls_per_session: Rate,
    /// How many calls all sessions of a user together may emit on this bridge, and how often the
    /// user may poll.
    pub calls_per_user: Rate,
    /// How many sessions a user may open on this bridge.
    pub connects_per_user: Rate,
    /// How long a session may exceed a limit and be refused repeatedly before it is closed for
    /// good.
    pub abuse_after: Duration,
    /// How long a poll waits for events.
    pub poll_wait: Duration,
    /// Rooms per session, in addition to `org` and the user's own.
    pub rooms_per_session_max: usize,
    /// Calls of a session that may be queued.
    pub calls_waiting_max: usize,
    /// Rooms of all sessions of one tenant on this bridge.
    pub rooms_per_tenant_max: usize,
    /// Connections that may be open at once. IPv6 addresses count by their /64 network.
    pub connections_max: usize,
    /// The same, per address.
    pub connections_per_address_max: usize,
    /// How many connections and handshakes may begin, per address.
    pub connects_per_address: Rate,
    /// Connections without a session, in total.
    pub handshakes_max: usize,
    /// The same, per address.
    pub handshakes_per_address_max: usize,
    /// Sessions per address.
    pub sessions_per_address_max: usize,
    /// How long a request's head may take, and how long its body.
    pub request_timeout: Duration,
    /// Proxies that are trusted to report the client's address, in `X-Forwarded-For` or, with
    /// `proxy_protocol`, in the header that begins the connection.
    pub trusted_proxies: Vec<IpNet>,
    /// Trusted proxies begin each connection with a PROXY protocol header, version 2.
    pub proxy_protocol: bool,
    /// Events are sent compressed to WebSocket clients that offer permessage-deflate.
    pub compression: bool,
    /// Serves the Socket.IO client at `socket.io.js` below [`Self::path`].
    pub client_bundle: bool,
    /// Number of parts that the sessions are divided into for the fan-out; at least 1.
    pub shards: usize,
    /// How long a room without sessions is still followed, so that a page reload costs nothing.
    pub interest_linger: Duration,
    /// Whether the console is served at `/` and its calls are forwarded to the server.
    pub console: bool,
    /// Admits every client on this machine to the console. For development only, with the public
    /// key.
    pub development: Option<Signer>,
    /// Number of tenants that metrics distinguish; 0: none.
    pub metrics_tenants: usize,
}

impl Config {
    /// Settings with the defaults for everything that has one.
    pub fn new(listen: SocketAddr, servers: Vec<String>, token: String, tokens: TokenConfig) -> Self {
        Self {
            listen,
            tls: None,
            name: "bridge".into(),
            servers,
            server_tls: ClientTls::default(),
            token,
            tokens,
            jwks_ca: None,
            cors_origins: Vec::new(),
            path: "/socket.io/".into(),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(20),
            payload_bytes_max: 64 << 10,
            queue_bytes_max: 1 << 20,
            calls_per_session: Rate { per_second: 50, burst: 100 },
            calls_per_user: Rate { per_second: 100, burst: 200 },
            connects_per_user: Rate { per_second: 50, burst: 500 },
            abuse_after: Duration::from_secs(10),
            poll_wait: Duration::from_secs(25),
            rooms_per_session_max: 128,
            calls_waiting_max: 128,
            rooms_per_tenant_max: 250_000,
            connections_max: 100_000,
            connections_per_address_max: 10_000,
            connects_per_address: Rate { per_second: 1000, burst: 10_000 },
            handshakes_max: 20_000,
            handshakes_per_address_max: 8192,
            sessions_per_address_max: 10_000,
            request_timeout: Duration::from_secs(10),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            compression: false,
            client_bundle: false,
            shards: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            interest_linger: Duration::from_secs(1),
            console: true,
            metrics_tenants: 0,
            development: None,
        }
    }
}
