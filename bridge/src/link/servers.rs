//! The servers that a link can use, and the current one.
//!
//! A URL stands for all addresses of its host's name, which is looked up before each attempt: each
//! address is a server. The first server is chosen at random, which spreads bridges over the
//! servers. Knows no link.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fanfare_client::edge::EdgeClient;
use fanfare_trust::ClientTls;
use futures_util::future::join_all;
use rand::seq::IndexedRandom as _;

use crate::error::Error;

/// How long a name lookup may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of addresses of one name; further ones are ignored.
const ADDRESSES_MAX: usize = 64;

/// One server: the index of a URL, and an address of its host. Without an address, the name could
/// not be looked up.
type Server = (usize, Option<SocketAddr>);

#[derive(Debug)]
pub(super) struct Servers {
    /// One per URL, never empty.
    urls: Vec<EdgeClient>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    client: EdgeClient,
    current: Option<Server>,
    /// Servers that the link has left since the last time it had left all of them.
    left: Vec<Server>,
}

impl Servers {
    pub(super) fn new(urls: &[String], token: &str, tls: &ClientTls) -> Result<Self, Error> {
        let made = urls.iter().map(|url| EdgeClient::new(url, token, tls.clone()));
        let urls: Vec<_> = made.collect::<Result<_, _>>()?;
        let client = urls.first().ok_or(Error::NoServer)?.clone();
        let state = State { client, current: None, left: Vec::new() };
        Ok(Self { urls, state: Mutex::new(state) })
    }

    /// The server of the current link.
    pub(super) fn current(&self) -> EdgeClient {
        self.lock().client.clone()
    }

    /// Moves from the current server to another one, if there is one, always over a new connection.
    /// A silent server may be healthy while its connection is dead without a sign, for example
    /// because a firewall dropped its state; then every request on that connection would have to
    /// time out. Returns false if all servers have been left: then all of them may be tried again.
    pub(super) async fn advance(&self) -> bool {
        let urls = self.urls.iter().enumerate();
        let found = join_all(urls.map(|(index, url)| async move {
            addresses(url).await.into_iter().map(move |address| (index, address))
        }));
        let servers: Vec<Server> = found.await.into_iter().flatten().collect();
        let mut state = self.lock();
        let current = state.current;
        state.left.retain(|server| servers.contains(server) && Some(*server) != current);
        state.left.extend(current);
        let has_others = servers.iter().any(|server| !state.left.contains(server));
        if !has_others {
            // The server that was just left is still the last choice.
            state.left = if servers.len() > 1 { current.into_iter().collect() } else { Vec::new() };
        }
        let (index, address) = choose(&servers, &state.left);
        let Some(url) = self.urls.get(index) else { return has_others };
        match url.at(address) {
            Ok(client) => state.client = client,
            Err(error) => tracing::warn!(%error, "the connection stays"),
        }
        state.current = Some((index, address));
        has_others
    }

    /// The current server's address, for the log.
    pub(super) fn address(&self) -> String {
        let current = self.lock().current.and_then(|(_, address)| address);
        current.map(|address| address.to_string()).unwrap_or_default()
    }

    /// The current server is healthy: servers that were left may be tried again.
    pub(super) fn settle(&self) {
        self.lock().left.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A random server; one that was not left, if there is any.
fn choose(servers: &[Server], left: &[Server]) -> Server {
    let fresh: Vec<_> = servers.iter().filter(|server| !left.contains(server)).copied().collect();
    let mut random = rand::rng();
    fresh.choose(&mut random).or_else(|| servers.choose(&mut random)).copied().unwrap_or_default()
}

/// The current addresses of a URL's host; `None` if the lookup fails.
async fn addresses(url: &EdgeClient) -> Vec<Option<SocketAddr>> {
    let found = match url.host_and_port() {
        Some(host) => tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(host)).await,
        None => return vec![None],
    };
    let mut addresses: Vec<_> = match found {
        Ok(Ok(found)) => found.take(ADDRESSES_MAX).map(Some).collect(),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a server's name cannot be looked up");
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() { vec![None] } else { addresses }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(urls: &[&str]) -> Servers {
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        Servers::new(&urls, "token", &ClientTls::default()).unwrap()
    }

    #[tokio::test]
    async fn the_first_server_is_a_random_one() {
        let mut seen = [false; 3];
        for _ in 0..200 {
            let servers = servers(&["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"]);
            servers.advance().await;
            let (index, _) = servers.lock().current.unwrap();
            seen[index] = true;
        }
        assert_eq!(seen, [true; 3]);
    }

    #[tokio::test]
    async fn each_server_is_tried_before_one_that_was_left() {
        let servers = servers(&["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"]);
        let mut round = Vec::new();
        for _ in 0..3 {
            assert!(servers.advance().await);
            round.push(servers.lock().current.unwrap());
        }
        let last = round[2];
        round.sort_unstable();
        round.dedup();
        assert_eq!(round.len(), 3);
        assert!(!servers.advance().await, "all were left");
        assert_ne!(servers.lock().current, Some(last));
    }

    #[tokio::test]
    async fn a_server_that_was_left_may_be_tried_again_once_another_is_well() {
        let servers = servers(&["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        assert!(servers.advance().await && servers.advance().await);
        servers.settle();
        assert!(servers.advance().await);
    }

    #[tokio::test]
    async fn a_name_that_is_not_known_is_tried_by_its_url() {
        let servers = servers(&["http://name.invalid:1"]);
        servers.advance().await;
        assert_eq!(servers.lock().current, Some((0, None)));
        assert!(!servers.advance().await, "there is no other");
    }
}
