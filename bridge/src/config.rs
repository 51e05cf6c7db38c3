//! The bridge's settings as plain values; where they come from is the caller's business.

use std::{net::SocketAddr, time::Duration};

use fanfare_proto::{rate::Rate, signer::Signer, token::TokenConfig};

/// Everything a bridge needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where browsers connect. Port 0 chooses one.
    pub listen: SocketAddr,
    /// The name in logs and towards the server.
    pub name: String,
    /// Servers, as URLs; the link goes to one of them, and to the next when it is lost.
    pub servers: Vec<String>,
    /// The bridge's own token, with the scope `bridge`.
    pub token: String,
    /// How users' tokens are verified.
    pub tokens: TokenConfig,
    /// Origins whose pages may connect; `*` is any. Empty: no page of another origin may use polling (there are no CORS
    /// headers), any may use WebSocket. Requests without `Origin` (not from browsers) always may.
    pub cors_origins: Vec<String>,
    /// The path of Socket.IO.
    pub path: String,
    /// How often a session is asked whether it lives.
    pub ping_interval: Duration,
    /// How long it may take to answer.
    pub ping_timeout: Duration,
    /// How long a connection may take to present its token, and its rooms to become certain.
    pub connect_timeout: Duration,
    /// How long a peer may leave its TCP window closed.
    pub write_timeout: Duration,
    /// The largest message from a browser, in bytes.
    pub payload_bytes_max: usize,
    /// Packets that wait for a session; one that does not fit closes it (retry). A waiting packet costs about
    /// 100 bytes, its text is shared.
    pub queue_packets_max: usize,
    /// Bytes that wait for a session; an event that does not fit closes it (retry). For Socket.IO the bound is kept within half
    /// of it: a session is closed when between half and all of it waits.
    pub queue_bytes_max: usize,
    /// What a session may emit.
    pub calls_per_session: Rate,
    /// What all sessions of a user may emit together on this bridge, and how often the user may poll.
    pub calls_per_user: Rate,
    /// Refusals for exceeding a limit that a session may go through; one is forgiven each second. Then it is closed for good.
    pub refusals_max: u32,
    /// How long a poll waits for events.
    pub poll_wait: Duration,
    /// Rooms a session, besides `org` and its user's.
    pub rooms_per_session_max: usize,
    /// Calls of a session that wait for their turn.
    pub calls_waiting_max: usize,
    /// Connections at once.
    pub connections_max: usize,
    /// How long a room without sessions is still followed, so that a reload costs nothing.
    pub interest_linger: Duration,
    /// Whether the console is served at `/`, and what it calls is passed on to the server.
    pub console: bool,
    /// Lets everybody who comes from this machine into the console; only for development, with the key that everybody knows.
    pub development: Option<Signer>,
}

impl Config {
    /// Settings with the defaults for everything that has one.
    pub fn new(listen: SocketAddr, servers: Vec<String>, token: String, tokens: TokenConfig) -> Self {
        Self {
            listen,
            name: "bridge".into(),
            servers,
            token,
            tokens,
            cors_origins: Vec::new(),
            path: "/socket.io/".into(),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(20),
            payload_bytes_max: 64 << 10,
            queue_packets_max: 8192,
            queue_bytes_max: 1 << 20,
            calls_per_session: Rate { per_second: 50, burst: 100 },
            calls_per_user: Rate { per_second: 100, burst: 200 },
            refusals_max: 100,
            poll_wait: Duration::from_secs(25),
            rooms_per_session_max: 128,
            calls_waiting_max: 128,
            connections_max: 100_000,
            interest_linger: Duration::from_secs(1),
            console: true,
            development: None,
        }
    }
}
