//! Serves `/metrics` on a separate address, so that scrapes need no token and share no limits with
//! clients.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::metrics::{Exposition, Health, Metrics};

/// Connections that are served at once; others wait.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may take to send the head of a request, including the first.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is served; after that scrapers reconnect.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(600);
/// The pause after a failed accept, for example because there are no file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener for scrapes.
#[derive(Debug)]
pub struct MetricsListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl MetricsListener {
    /// Binds the listener. Port 0 chooses a free port.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address that it listens on.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves forever. Dropping the future ends all connections.
    pub async fn run(self, metrics: Arc<Metrics>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let served = serve(stream, metrics.clone());
                    connections.spawn(async move {
                        let _expired = tokio::time::timeout(CONNECTION_AGE_MAX, served).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, metrics: Arc<Metrics>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let metrics = metrics.clone();
        async move { Ok::<_, Infallible>(answer(&metrics, &request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection for metrics ended");
    }
}

async fn answer(metrics: &Metrics, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: &str| {
        let mut response = Response::new(Full::from(text.to_owned()));
        *response.status_mut() = status;
        response
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") if metrics.health().is_some() => {
            plain(StatusCode::OK, "ok\n")
        }
        (&Method::GET | &Method::HEAD, "/readyz") if metrics.health().is_some() => {
            match metrics.health().and_then(Health::problem) {
                None => plain(StatusCode::OK, "ok\n"),
                Some(problem) => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{problem}\n")),
            }
        }
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
            let Exposition { content_type, text } = metrics.expose(accept).await;
            let mut response = Response::new(Full::from(text));
            response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
            response
        }
        (&Method::GET | &Method::HEAD, _) => plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n"),
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n"),
    }
}
