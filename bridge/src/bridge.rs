//! Wires the parts: the only module that knows them all.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use fanfare_proto::{token::Verifier, v1::Reason};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config, ending::Ending, error::Error, expiry::Expiry, http, limits::UserLimits, link::Link,
    rooms::Rooms, sessions::Sessions, transport::io::WriteDeadline,
};

/// How long a client may take to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted; the system may allow fewer (Linux: `net.core.somaxconn`, 4096).
const BACKLOG: u32 = 4096;
/// The pause after an accept that failed, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often limits of users who are gone are let go of.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);
/// Over how long sessions are told to connect elsewhere, so that they do not come back all at once.
const FAREWELL_WINDOW: Duration = Duration::from_secs(1);

/// A bridge that listens. [`Bridge::run`] makes it serve.
#[derive(Debug)]
pub struct Bridge {
    listener: TcpListener,
    address: SocketAddr,
    router: axum::Router,
    sessions: Arc<Sessions>,
    connections: Arc<Semaphore>,
    write_timeout: Duration,
}

impl Bridge {
    /// Checks the configuration and listens. Needs a runtime.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let verifier = Verifier::new(&config.tokens)?;
        let rooms = Arc::new(Rooms::default());
        let link = Arc::new(Link::new(&config, rooms.clone())?);
        let (expiry, tasks) = (Arc::new(Expiry::default()), TaskTracker::new());
        let stop = CancellationToken::new();
        let (listen, write_timeout) = (config.listen, config.write_timeout);
        let connections = Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS)));
        let sessions = Arc::new(Sessions {
            user_limits: UserLimits::new(&config),
            config,
            verifier,
            rooms: rooms.clone(),
            link: link.clone(),
            expiry: expiry.clone(),
            returning: Arc::default(),
            tasks: tasks.clone(),
            stopping: stop.clone(),
        });
        let router = http::router(&sessions)?;
        let failed = |source| Error::Listen { address: listen, source };
        let listener = self::listen(listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, router, sessions, connections, write_timeout })
    }

    /// Where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`; then accepts no more, tells sessions to connect elsewhere, and waits at most `grace` for
    /// them. True when all had gone.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send,
        grace: Duration,
    ) -> Result<bool, Error> {
        let (stop, tasks) = (self.sessions.stopping.clone(), self.sessions.tasks.clone());
        let (link, expiry, sessions) =
            (self.sessions.link.clone(), self.sessions.expiry.clone(), self.sessions.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move { link.run().await }));
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move { expiry.run().await }));
        let (counted, rooms) = (self.sessions.link.clone(), self.sessions.rooms.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move { counted.stats.run(&rooms).await }));
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            let mut ticks = tokio::time::interval(FORGET_INTERVAL);
            loop {
                ticks.tick().await;
                sessions.user_limits.forget();
            }
        }));
        tokio::select! {
            () = self.accept(&stop) => {}
            () = shutdown => {}
        }
        drop(self.listener);
        let sessions = self.sessions.rooms.sessions(None);
        tracing::info!(sessions = sessions.len(), "bridge drains");
        let ended = tokio::time::timeout(grace, async {
            let ending = Ending::new(Reason::Shutdown, "the bridge shuts down; connect again");
            let pause =
                FAREWELL_WINDOW.min(grace / 2) / u32::try_from(sessions.len().max(1)).unwrap_or(u32::MAX);
            let chunk = (sessions.len() / 100).max(1);
            for some in sessions.chunks(chunk) {
                some.iter().for_each(|session| session.close(&ending));
                tokio::time::sleep(pause * u32::try_from(some.len()).unwrap_or(1)).await;
            }
            stop.cancel();
            tasks.close();
            tasks.wait().await;
        });
        let clean = ended.await.is_ok();
        stop.cancel();
        Ok(clean)
    }

    async fn accept(&self, stop: &CancellationToken) {
        loop {
            let Ok(place) = self.connections.clone().acquire_owned().await else { return };
            let (stream, _) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            let stream = WriteDeadline::new(stream, self.write_timeout, place);
            let connection = serve(stream, self.router.clone());
            self.sessions.tasks.spawn(stop.clone().run_until_cancelled_owned(connection));
        }
    }
}

/// Listens with room for many who come at once: where it is full, clients wait for seconds before they are heard again.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn serve(stream: WriteDeadline, router: axum::Router) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended");
    }
}
