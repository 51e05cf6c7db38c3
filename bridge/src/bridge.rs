//! Wires the parts together; the only module that knows them all.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use fanfare_proto::token::Verifier;
use fanfare_telemetry::Source;
use fanfare_trust::{Jwks, ServerTls};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::{
    config::Config,
    error::Error,
    http,
    link::Link,
    listener::{self, Listener},
    metrics::BridgeMetrics,
    sessions::{Sessions, shutdown},
    transport::{engineio::Engine, socketio::SocketIo},
};

/// How often the limits of disconnected clients are evicted.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);
/// The period over which sessions are asked to reconnect elsewhere, so that they do not all
/// reconnect at once.
const FAREWELL_WINDOW: Duration = Duration::from_secs(1);

/// A bridge that is bound to its address. [`Bridge::run`] serves.
#[derive(Debug)]
pub struct Bridge {
    socket: TcpListener,
    address: SocketAddr,
    listener: Arc<Listener>,
    sessions: Arc<Sessions>,
    engine: Arc<Engine<SocketIo>>,
    jwks: Arc<Jwks>,
}

impl Bridge {
    /// Checks the configuration and binds the listener. Must be called within a runtime.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let verifier = Arc::new(Verifier::new(&config.tokens)?);
        let jwks = Arc::new(Jwks::new(verifier.clone(), config.jwks_ca.as_deref())?);
        let link = Link::new(&config)?;
        let listen = config.listen;
        let sessions = Sessions::new(config, verifier, link);
        let engine = Engine::new(SocketIo { sessions: sessions.clone() }, sessions.clone());
        let router = http::router(&sessions, &engine)?;
        let tls =
            sessions.config.tls.clone().map(|files| ServerTls::load(files, &["http/1.1"])).transpose()?;
        let reserve_router = http::reserve_router(&sessions);
        let listener = Listener::new(sessions.clone(), router, reserve_router, tls);
        let failed = |source| Error::Listen { address: listen, source };
        let socket = listener::listen(listen).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address, listener, sessions, engine, jwks })
    }

    /// The bridge's values for the metrics page.
    pub fn metrics(&self) -> Arc<dyn Source> {
        let (sessions, listener) = (self.sessions.clone(), Some(self.listener.clone()));
        Arc::new(BridgeMetrics { sessions, listener })
    }

    /// The address that it listens on.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves. Then accepts no more connections, asks sessions to connect
    /// elsewhere, and waits up to `grace` until everything queued for them is written. Returns true
    /// if all of that was done in time.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send,
        grace: Duration,
    ) -> Result<bool, Error> {
        self.start();
        tokio::select! {
            () = self.listener.accept(&self.socket) => {}
            () = shutdown => {}
        }
        drop(self.socket);
        let (sessions, connections, engine) = (&self.sessions, &self.listener.connections, &self.engine);
        let drained = tokio::time::timeout(grace, async {
            take_leave(sessions, engine, FAREWELL_WINDOW.min(grace / 2)).await;
            wait(connections).await;
        });
        let is_clean = drained.await.is_ok();
        sessions.stopping.cancel();
        wait(connections).await;
        wait(&sessions.tasks).await;
        Ok(is_clean)
    }

    /// Starts every task that runs for the bridge's lifetime.
    fn start(&self) {
        let sessions = self.sessions.clone();
        self.sessions.spawn(async move { sessions.link.run(&*sessions).await });
        let jwks = self.jwks.clone();
        self.sessions.spawn(jwks.run());
        if let Some(tls) = &self.listener.tls {
            self.sessions.spawn(tls.clone().watch());
        }
        let clock = self.sessions.clock.clone();
        self.sessions.spawn(async move { clock.run().await });
        for shard in &self.sessions.rooms.shards {
            let (shard, sessions) = (shard.clone(), self.sessions.clone());
            self.sessions.spawn(async move { shard.run(&sessions.stats).await });
        }
        let sessions = self.sessions.clone();
        self.sessions.spawn(async move {
            let mut ticks = tokio::time::interval(FORGET_INTERVAL);
            loop {
                ticks.tick().await;
                sessions.forget_idle();
            }
        });
    }
}

/// Ends all sessions, spread over `window`.
async fn take_leave(sessions: &Sessions, engine: &Engine<SocketIo>, window: Duration) {
    sessions.draining.cancel();
    engine.cut_handshakes();
    let all = sessions.rooms.sessions(None);
    tracing::info!(sessions = all.len(), "bridge drains");
    let pause = window / u32::try_from(all.len().max(1)).unwrap_or(u32::MAX);
    let chunk = (all.len() / 100).max(1);
    for some in all.chunks(chunk) {
        some.iter().for_each(|session| session.close(&shutdown()));
        tokio::time::sleep(pause * u32::try_from(some.len()).unwrap_or(1)).await;
    }
    // Connections and sessions that opened in the meantime.
    engine.cut_handshakes();
    sessions.rooms.sessions(None).iter().for_each(|session| session.close(&shutdown()));
}

async fn wait(tasks: &TaskTracker) {
    tasks.close();
    tasks.wait().await;
}
