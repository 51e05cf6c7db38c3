//! The bridge's settings as plain values; the caller decides where they come from.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use fanfare_proto::{rate::Rate, signer::Signer, token::TokenConfig};
use fanfare_trust::{ClientTls, TlsFiles};
use ipnet::IpNet;

/// Everything a bridge needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where browsers connect. Port 0 chooses one.
    pub listen: SocketAddr,
    /// Present: connections of browsers are secure. Absent: plain.
    pub tls: Option<TlsFiles>,
    /// The name in logs and towards the server.
    pub name: String,
    /// Servers, as URLs. Each address of a URL's host is a server. The link goes to a random one,
    /// and to another when it is lost.
    pub servers: Vec<String>,
    /// What is trusted and presented where a server's URL is `https`.
    pub server_tls: ClientTls,
    /// The bridge's own token, with the scope `bridge`. Empty: its certificate says who it is.
    pub token: String,
    /// How users' tokens are verified.
    pub tokens: TokenConfig,
    /// The authorities that servers of token keys are trusted by, instead of the system's.
    pub jwks_ca: Option<PathBuf>,
    /// Origins whose pages may connect; `*` is any. Empty: no page of another origin may use polling (there are no CORS
    /// headers), any may use WebSocket. Requests without `Origin` (not from browsers) always may.
    pub cors_origins: Vec<String>,
    /// The path of Socket.IO.
    pub path: String,
    /// How often a client is pinged.
    pub ping_interval: Duration,
    /// How long the pong may take.
    pub ping_timeout: Duration,
    /// How long a client may take from its connection to its session, and rooms to become certain.
    pub connect_timeout: Duration,
    /// How long bytes may wait for a peer to take them.
    pub write_timeout: Duration,
    /// The largest message from a browser, in bytes.
    pub payload_bytes_max: usize,
    /// Bytes that wait for a session; an event that does not fit closes it (retry).
    pub queue_bytes_max: usize,
    /// What a session may emit.
    pub calls_per_session: Rate,
    /// What all sessions of a user may emit together on this bridge, and how often the user may poll.
    pub calls_per_user: Rate,
    /// How many sessions a user may open on this bridge.
    pub connects_per_user: Rate,
    /// How long a session may stay over a limit, refused again and again; then it is closed for good.
    pub abuse_after: Duration,
    /// How long a poll waits for events.
    pub poll_wait: Duration,
    /// Rooms of a session, besides `org` and its user's.
    pub rooms_per_session_max: usize,
    /// Calls of a session that wait for their turn.
    pub calls_waiting_max: usize,
    /// Rooms of one tenant's sessions on this bridge, together.
    pub rooms_per_tenant_max: usize,
    /// Connections at once, and those of one address. IPv6 addresses count by their /64 network.
    pub connections_max: usize,
    /// Likewise, of one address.
    pub connections_per_address_max: usize,
    /// How many connections and handshakes may begin, per address.
    pub connects_per_address: Rate,
    /// Connections that are no session yet, in all.
    pub handshakes_max: usize,
    /// Likewise, of one address.
    pub handshakes_per_address_max: usize,
    /// Sessions of one address.
    pub sessions_per_address_max: usize,
    /// How long a request's head, and its body, may take.
    pub request_timeout: Duration,
    /// Proxies whose word on the client's address is taken: `X-Forwarded-For`, or with
    /// `proxy_protocol` the header that begins the connection.
    pub trusted_proxies: Vec<IpNet>,
    /// Trusted proxies begin each connection with a PROXY protocol header, version 2.
    pub proxy_protocol: bool,
    /// Events go out compressed to WebSocket clients that offer permessage-deflate.
    pub compression: bool,
    /// Serves the Socket.IO client at `socket.io.js` below [`Self::path`].
    pub client_bundle: bool,
    /// Parts that the sessions are divided into for the fan-out; at least 1.
    pub shards: usize,
    /// How long a room without sessions is still followed, so that a reload costs nothing.
    pub interest_linger: Duration,
    /// Whether the console is served at `/` and its calls are passed on to the server.
    pub console: bool,
    /// Lets everybody on this machine into the console; only for development, with the public key.
    pub development: Option<Signer>,
    /// Tenants that metrics tell apart; 0: none.
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
