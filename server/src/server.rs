//! Wires the parts: the only module that knows them all.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use fanfare_proto::rate::KeyedLimiter;
use http::{HeaderName, HeaderValue, Method};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, service::Routes, transport};
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    auth::Auth,
    bridges::Bridges,
    call::Calls,
    config::Config,
    engine::{Engine, disk::DiskEngine, memory::MemoryEngine},
    error::Error,
    grpc::{self, About, Services, upstream::Upstreams},
    hub::Hub,
    ingest::Ingest,
    presence::Presence,
    probe::Probe,
    stats::Stats,
};

/// How often logs are looked through for what is too old.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How often an idle HTTP/2 connection is asked whether it lives, and how long it may take to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// HTTP/2 flow control windows, in bytes: enough for pipelined producers on a fast network.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// A server that listens. [`Server::run`] makes it serve.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    services: Arc<Services>,
    probe: Arc<Probe>,
    cors: CorsLayer,
    streams_max: u32,
}

impl Server {
    /// Checks the configuration and listens.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let cors = cors(&config.cors_origins)?;
        let auth = Auth::new(&config.tokens)?;
        let hub = Arc::new(Hub::new(config.limits));
        let catalogs = config.catalogs;
        let (retention, limits) = (config.retention, config.limits);
        let engine: Arc<dyn Engine> = match &config.data_dir {
            None => Arc::new(MemoryEngine::new(retention, limits, hub.clone())),
            Some(folder) => {
                Arc::new(DiskEngine::open(folder, catalogs.clone(), retention, limits, hub.clone())?)
            }
        };
        let stats = Arc::new(Stats::default());
        let size_max = config.limits.event_bytes_max;
        let ingest = Arc::new(Ingest::new(catalogs.clone(), engine.clone(), size_max, stats.clone()));
        let presence = Arc::new(Presence::new(&catalogs, &config.presence)?);
        presence.restore(engine.kept());
        let calls = Calls {
            catalogs: catalogs.clone(),
            ingest: ingest.clone(),
            presence: presence.clone(),
            upstreams: Upstreams::new(&config.upstreams, &catalogs)?,
            stats: stats.clone(),
            per_user: KeyedLimiter::new(config.limits.calls_per_user),
        };
        let listen = |source| Error::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let probed = Probe::tenant();
        let probe = Probe::new(probed.clone(), &catalogs, hub.clone(), engine.clone());
        let services = Arc::new(Services {
            name: config.name,
            auth,
            ingest,
            presence,
            calls,
            catalogs,
            engine,
            hub,
            stats,
            bridges: Arc::new(Bridges::default()),
            about: About::new(
                address,
                config.data_dir.is_some(),
                config.signer,
                config.tokens.default_tenant,
                probed,
            ),
            heartbeat_interval: config.heartbeat_interval,
            closing: CancellationToken::new(),
        });
        let probe = Arc::new(probe);
        let streams_max = config.limits.streams_per_connection_max;
        Ok(Self { listener, address, services, probe, cors, streams_max })
    }

    /// Where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`; then takes no more events, ends streams with a reason that says *retry*, and waits
    /// at most `grace` for calls under way. True when all of them ended.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send,
        grace: Duration,
    ) -> Result<bool, Error> {
        let closing = self.services.closing.clone();
        let tasks = TaskTracker::new();
        let services = self.services.clone();
        tasks.spawn(closing.clone().run_until_cancelled_owned(async move {
            let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
            loop {
                ticks.tick().await;
                services.engine.sweep();
                services.hub.sweep();
                services.presence.sweep();
                services.calls.per_user.forget();
            }
        }));
        let services = self.services.clone();
        tasks.spawn(async move {
            services.presence.run(&services.ingest, &*services.engine, &services.closing).await;
        });
        let router = router(&self.services, self.probe.clone()).await?;
        let incoming = TcpListenerStream::new(self.listener);
        let serving = transport::Server::builder()
            .accept_http1(true)
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(self.streams_max)
            .layer(self.cors)
            .add_routes(Routes::from(router))
            .serve_with_incoming_shutdown(nodelay(incoming), closing.clone().cancelled_owned());
        tokio::pin!(serving, shutdown);
        let ended = tokio::select! {
            result = &mut serving => Some(result),
            () = &mut shutdown => None,
        };
        self.services.ingest.close();
        closing.cancel();
        let clean = match ended {
            Some(result) => result.map(|()| true)?,
            None => match tokio::time::timeout(grace, serving).await {
                Ok(result) => result.map(|()| true)?,
                Err(_) => false,
            },
        };
        tasks.close();
        tasks.wait().await;
        self.services.engine.close().await;
        Ok(clean)
    }
}

/// Without it, small answers wait for the peer's acknowledgement of earlier ones.
fn nodelay(
    incoming: TcpListenerStream,
) -> impl tokio_stream::Stream<Item = std::io::Result<tokio::net::TcpStream>> {
    use futures_util::TryStreamExt as _;
    incoming.inspect_ok(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    })
}

async fn router(services: &Arc<Services>, probe: Arc<Probe>) -> Result<Router, Error> {
    let catalogs = services.catalogs.clone();
    let names = [&grpc::CONTRACT_SERVICES.map(str::to_owned)[..], &catalogs.services()].concat();
    let (reporter, health) = tonic_health::server::health_reporter();
    for name in names {
        reporter.set_service_status(name, tonic_health::ServingStatus::Serving).await;
    }
    let descriptors = catalogs.pool().encode_to_vec();
    let reflection =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(&descriptors);
    let (v1, v1alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    let for_dispatch = services.clone();
    let dispatch = service_fn(move |request: http::Request<axum::body::Body>| {
        let services = for_dispatch.clone();
        async move {
            Ok::<_, Infallible>(
                grpc::dispatch(services, request.map(Body::new)).await.map(axum::body::Body::new),
            )
        }
    });
    let methods: Router = Routes::new(health)
        .add_service(v1)
        .add_service(v1alpha)
        .into_axum_router()
        .fallback_service(dispatch);
    let web = GrpcWebLayer::new().layer(Routes::from(methods));
    let web = web.map_request(|request: http::Request<axum::body::Body>| request.map(Body::new));
    let health_pages = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state((services.clone(), probe));
    Ok(health_pages.fallback_service(web))
}

/// Ready is who delivers: an event goes through the engine and the hub, and comes out.
async fn readyz(State((services, probe)): State<(Arc<Services>, Arc<Probe>)>) -> (StatusCode, String) {
    if services.closing.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".into());
    }
    match probe.run().await {
        Ok(()) => (StatusCode::OK, "ok\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not delivering: {why}\n")),
    }
}

fn cors(origins: &[String]) -> Result<CorsLayer, Error> {
    let allowed = if origins.iter().any(|o| o == "*") {
        AllowOrigin::any()
    } else {
        let origins = origins.iter().map(|o| o.parse::<HeaderValue>().map_err(|_| Error::Origin(o.clone())));
        AllowOrigin::list(origins.collect::<Result<Vec<_>, _>>()?)
    };
    let request = [
        "authorization",
        "content-type",
        "x-grpc-web",
        "x-user-agent",
        "grpc-timeout",
        "connect-protocol-version",
    ];
    let response = ["grpc-status", "grpc-message", "grpc-status-details-bin"];
    Ok(CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::POST, Method::GET, Method::OPTIONS])
        .allow_headers(request.map(HeaderName::from_static))
        .expose_headers(response.map(HeaderName::from_static))
        .max_age(Duration::from_secs(7200)))
}
