//! Accepts connections: limits them, determines their client, and serves HTTP on them until they
//! end or are upgraded.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use fanfare_trust::ServerTls;
use http::{HeaderValue, Request, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{
    client::{self, ClientAddress},
    deadline::DeadlineStream,
    limits::{Kind, Place},
    refusal::Refusal,
    sessions::Sessions,
    socket::Socket,
    transport::upgrade::{Continuation, UpgradeSlot},
};

/// Connections that may wait to be accepted; the system may allow fewer (Linux:
/// `net.core.somaxconn`, 4096).
const BACKLOG: u32 = 4096;
/// Pause after a failed accept, for example because there are no file descriptors.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Connections beyond the limits that receive a refusal and can fetch the health pages.
const RESERVE: usize = 64;
/// How long such a connection may take to send its request.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest request head, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Accepts and serves connections.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) sessions: Arc<Sessions>,
    /// All routes, and the routes for connections beyond the limits.
    pub(crate) router: Router,
    pub(crate) reserve_router: Router,
    pub(crate) connections: TaskTracker,
    pub(crate) tls: Option<Arc<ServerTls>>,
    reserve: Arc<Semaphore>,
}

/// A connection's right to be served.
enum Right {
    /// Served normally.
    Full(#[allow(dead_code, reason = "held")] Place),
    /// Served only to report that the bridge is full.
    Reserve(#[allow(dead_code, reason = "held")] OwnedSemaphorePermit, Refusal),
}

/// Listens with a long backlog, for many clients that connect at once: when it is full, further
/// clients wait seconds until they retry.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listener {
    pub(crate) fn new(
        sessions: Arc<Sessions>,
        router: Router,
        reserve_router: Router,
        tls: Option<ServerTls>,
    ) -> Arc<Self> {
        let (connections, reserve) = (TaskTracker::new(), Arc::new(Semaphore::new(RESERVE)));
        let tls = tls.map(Arc::new);
        Arc::new(Self { sessions, router, reserve_router, connections, tls, reserve })
    }

    /// Number of connections beyond the limits that are served, and the limit.
    pub(crate) fn reserve_usage(&self) -> (usize, usize) {
        (RESERVE - self.reserve.available_permits(), RESERVE)
    }

    /// Accepts connections forever.
    pub(crate) async fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let mut pause = ACCEPT_PAUSE_MIN;
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                    continue;
                }
            };
            pause = ACCEPT_PAUSE_MIN;
            let proxies = &self.sessions.config.trusted_proxies;
            let is_proxy = client::is_trusted(peer.ip(), proxies);
            let Some(right) = self.admit(peer.ip(), is_proxy) else { continue };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            // Boxed: the memory that HTTP needs is released when the connection is upgraded.
            let http = Box::pin(self.clone().serve(stream, peer.ip(), is_proxy, right));
            let serving = async move {
                if let Some((continuation, _right)) = http.await {
                    continuation.await;
                }
            };
            let stopping = self.sessions.stopping.clone();
            self.connections.spawn(stopping.run_until_cancelled_owned(serving));
        }
    }

    /// `None`: the connection is dropped.
    fn admit(&self, address: IpAddr, is_proxy: bool) -> Option<Right> {
        let addresses = &self.sessions.addresses;
        let counted = if is_proxy { Ok(()) } else { addresses.count_connect(address) };
        let place = counted.and_then(|()| addresses.take((!is_proxy).then_some(address), Kind::Connection));
        match place {
            Ok(place) => {
                self.sessions.stats.count_accepted();
                Some(Right::Full(place))
            }
            Err(refusal) => {
                self.sessions.refuse_connect(&refusal, Some(address), None);
                Some(Right::Reserve(self.reserve.clone().try_acquire_owned().ok()?, refusal))
            }
        }
    }

    /// Performs the TLS handshake, within the limits of handshakes; `None` if it fails.
    async fn secure(&self, tls: &ServerTls, stream: TcpStream, address: Option<IpAddr>) -> Option<Socket> {
        let Ok(_shaking) = self.sessions.addresses.take(address, Kind::Handshake) else {
            tracing::debug!("a TLS handshake was refused: there are too many");
            return None;
        };
        let shaking = TlsAcceptor::from(tls.config()).accept(stream);
        match tokio::time::timeout(self.sessions.config.request_timeout, shaking).await {
            Ok(Ok(stream)) => Some(stream.into()),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                None
            }
        }
    }

    /// Serves HTTP; when the connection is upgraded, returns its continuation and its right.
    async fn serve(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: IpAddr,
        is_proxy: bool,
        right: Right,
    ) -> Option<(Continuation, Right)> {
        let since = Instant::now();
        let mut address = peer;
        if is_proxy && self.sessions.config.proxy_protocol {
            let header = client::read_proxy_header(&mut stream);
            match tokio::time::timeout(self.sessions.config.request_timeout, header).await.ok()? {
                Ok(client) => address = client.unwrap_or(peer),
                Err(error) => {
                    tracing::debug!(%error, "a connection without its client's address");
                    return None;
                }
            }
        }
        let client = ClientAddress { address, must_count: is_proxy, since };
        let socket = match &self.tls {
            None => stream.into(),
            Some(tls) => self.secure(tls, stream, (!is_proxy).then_some(address)).await?,
        };
        let continuation = self.serve_http(socket, client, is_proxy, &right).await?;
        Some((continuation, right))
    }

    /// Serves HTTP; when the connection is upgraded, returns its continuation.
    async fn serve_http(
        self: &Arc<Self>,
        socket: Socket,
        client: ClientAddress,
        is_proxy: bool,
        right: &Right,
    ) -> Option<Continuation> {
        let config = &self.sessions.config;
        let slot = UpgradeSlot::default();
        let (is_first, in_slot) = (AtomicBool::new(true), slot.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let mut client = client;
            if is_proxy
                && let Some(address) =
                    client::forwarded(request.headers(), &self.sessions.config.trusted_proxies)
            {
                client.address = address;
            }
            // On a kept-alive connection, the time of a later request starts when it arrives.
            if !is_first.swap(false, Ordering::Relaxed) {
                client = ClientAddress { since: Instant::now(), must_count: true, ..client };
            }
            request.extensions_mut().insert(client);
            request.extensions_mut().insert(in_slot.clone());
            let (router, refusal) = match right {
                Right::Full(_) => (self.router.clone(), None),
                Right::Reserve(_, refusal) => (self.reserve_router.clone(), Some(refusal.clone())),
            };
            if let Some(refusal) = refusal {
                request.extensions_mut().insert(refusal);
            }
            let draining = self.sessions.draining.clone();
            Box::pin(async move {
                let response = router.oneshot(request.map(Body::new)).await;
                response
                    .map(|mut response| {
                        let is_upgrade = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
                        if draining.is_cancelled() && !is_upgrade {
                            response
                                .headers_mut()
                                .insert(header::CONNECTION, HeaderValue::from_static("close"));
                        }
                        Ok::<_, Infallible>(response)
                    })
                    .unwrap_or_else(|never| match never {})
            })
        });
        let timeout = match right {
            Right::Full(_) => config.request_timeout,
            Right::Reserve(..) => RESERVE_TIMEOUT,
        };
        let io = TokioIo::new(DeadlineStream::new(socket, config.write_timeout));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(timeout).max_buf_size(HEAD_BYTES_MAX);
        let mut connection = builder.serve_connection(io, service);
        let served = drain(&mut connection, &self.sessions.draining).await;
        if let Err(error) = served {
            tracing::debug!(%error, "connection ended");
            return None;
        }
        let parts = connection.into_parts();
        slot.start(parts.io.into_inner().into_inner(), &parts.read_buf)
    }
}

/// Serves a connection; when the bridge drains, it ends after the current response.
async fn drain<S>(
    connection: &mut http1::Connection<TokioIo<DeadlineStream>, S>,
    draining: &CancellationToken,
) -> hyper::Result<()>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body> + Unpin,
    S::Future: Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    {
        let serving = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx));
        tokio::select! {
            served = serving => return served,
            () = draining.cancelled() => {}
        }
    }
    std::pin::Pin::new(&mut *connection).graceful_shutdown();
    std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await
}
