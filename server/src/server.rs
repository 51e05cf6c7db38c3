//! Wires the parts together: the only module that knows them all.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use fanfare_proto::{rate::KeyedLimiter, token::Identity};
use fanfare_telemetry::{Exposition, Metrics, Source};
use fanfare_trust::{Jwks, ServerTls, Workloads};
use http::{HeaderName, HeaderValue, Method, Request, header};
use hyper::body::Incoming;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    accept::{Acceptor, Bounds},
    auth::Auth,
    bridges::Bridges,
    call::Calls,
    config::{Config, Limits, NatsConfig, RedisConfig, Store, Tls},
    connection,
    engine::{
        Engine, ServerId, disk::DiskEngine, memory::MemoryEngine, nats::NatsEngine, redis::RedisEngine,
    },
    error::{Error, Refusal},
    grpc::{About, Budget, Front, Peer, Services, WATCHES_MAX, upstream::Upstreams},
    health::Health,
    history::History,
    hub::Hub,
    ingest::Ingest,
    metrics::ServerMetrics,
    peers::Peers,
    presence::Presence,
    probe::Probe,
    revoked::Revoked,
    rules::Rules,
    secure::Secure,
    stats::Stats,
    subscribers::Subscribers,
};

/// How often expired data is removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How long the first connections wait until the revoked tokens are known.
const LOAD_MAX: Duration = Duration::from_secs(5);

/// A listening server. [`Server::run`] makes it serve requests.
#[derive(Debug)]
pub struct Server {
    acceptor: Acceptor,
    rules: connection::Rules,
    secure: Option<Arc<Secure>>,
    jwks: Arc<Jwks>,
    address: SocketAddr,
    services: Arc<Services>,
    cors: CorsLayer,
    budget: Budget,
    source: Arc<ServerMetrics>,
}

impl Server {
    /// Checks the configuration and listens.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let (retention, limits) = (config.retention, config.limits);
        let (catalogs, server) = (config.catalogs.clone(), ServerId::random());
        let engine: Arc<dyn Engine> = match &config.store {
            Store::Memory => Arc::new(MemoryEngine::new(retention, limits)),
            Store::Disk(folder) => Arc::new(DiskEngine::open(folder, catalogs, retention, limits)?),
            Store::Redis(redis) => {
                let redis = RedisConfig::clone(redis);
                Arc::new(RedisEngine::connect(redis, server, catalogs, retention, limits).await?)
            }
            Store::Nats(nats) => {
                let nats = NatsConfig::clone(nats);
                Arc::new(NatsEngine::connect(nats, server, catalogs, retention, limits).await?)
            }
        };
        Self::bind_on(config, engine).await
    }

    /// Like [`Self::bind`], on an existing engine.
    pub(crate) async fn bind_on(config: Config, engine: Arc<dyn Engine>) -> Result<Self, Error> {
        let hub = Arc::new(Hub::new(config.limits, engine.clone()));
        let (cors, limits) = (cors(&config.cors_origins)?, config.limits);
        let auth = Auth::new(&config.tokens)?;
        let jwks = Arc::new(Jwks::new(auth.verifier().clone(), config.jwks_ca.as_deref())?);
        let secure = config.tls.map(|tls| secure(tls, limits.request_timeout)).transpose()?;
        let catalogs = config.catalogs;
        let stats = Arc::new(Stats::new(&catalogs, config.metrics_tenants));
        let size_max = config.limits.event_bytes_max;
        let ingest = Ingest::new(catalogs.clone(), &hub, engine.clone(), size_max, stats.clone());
        let ingest = Arc::new(ingest);
        let presence = Arc::new(Presence::new(&catalogs, &config.presence, engine.clone())?);
        let rules = Arc::new(Rules::new(catalogs.clone(), presence.clone()));
        let history = Arc::new(History::new(engine.clone()));
        let calls = Calls {
            catalogs: catalogs.clone(),
            ingest: ingest.clone(),
            presence: presence.clone(),
            history: history.clone(),
            rules: rules.clone(),
            upstreams: Upstreams::new(&config.upstreams, &catalogs)?,
            stats: stats.clone(),
            per_user: KeyedLimiter::new(limits.calls_per_user),
            bytes_per_user: KeyedLimiter::new(limits.publish_bytes_per_user),
            bytes_per_tenant: KeyedLimiter::new(limits.publish_bytes_per_tenant),
        };
        let (listener, address) = listen(config.listen).await?;
        let probed = Probe::tenant();
        let probe = Probe::new(probed.clone(), &catalogs, hub.clone(), engine.clone());
        let peers = Arc::new(Peers::new(engine.clone()));
        let services = Arc::new(Services {
            name: config.name,
            auth,
            ingest,
            presence,
            health: Health::new(engine.clone(), peers.clone(), probe),
            peers,
            calls,
            catalogs,
            revoked: Arc::new(Revoked::new(engine.clone())),
            rules,
            engine,
            hub,
            history,
            stats,
            subscribers: Arc::new(Subscribers::new(limits)),
            bridges: Arc::new(Bridges::default()),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            about: About::new(
                url(address, secure.is_some()),
                config.store.kind(),
                config.signer,
                config.tokens.default_tenant,
                probed,
            ),
            heartbeat_interval: config.heartbeat_interval,
            request_timeout: limits.request_timeout,
            closing: CancellationToken::new(),
        });
        let rules = connection_rules(&limits);
        let acceptor = Acceptor::new(listener, bounds(&limits));
        let (budget, retention) = (Budget::new(), config.retention);
        let (places, of) = (acceptor.places(), services.clone());
        let source = ServerMetrics { services: of, places, budget: budget.clone(), limits, retention };
        let source = Arc::new(source);
        Ok(Self { acceptor, rules, secure, jwks, address, services, cors, budget, source })
    }

    /// The source of the server's metrics.
    pub fn metrics(&self) -> Arc<dyn Source> {
        self.source.clone()
    }

    /// The address that the server listens on.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Starts the tasks that run as long as the server.
    fn start(&self) -> TaskTracker {
        let closing = &self.services.closing;
        let tasks = TaskTracker::new();
        let services = self.services.clone();
        tasks.spawn(closing.clone().run_until_cancelled_owned(async move {
            let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
            loop {
                ticks.tick().await;
                services.engine.sweep().await;
                services.hub.sweep();
                services.calls.forget();
                services.revoked.sweep().await;
            }
        }));
        let services = self.services.clone();
        tasks.spawn(async move {
            services.presence.run(&services.ingest, &services.closing).await;
        });
        let services = self.services.clone();
        tasks.spawn(async move { services.revoked.run(&services.closing).await });
        let services = self.services.clone();
        tasks.spawn(async move { services.peers.run(services.clone(), &services.closing).await });
        tasks.spawn(closing.clone().run_until_cancelled_owned(self.jwks.clone().run()));
        if let Some(secure) = &self.secure {
            tasks.spawn(closing.clone().run_until_cancelled_owned(secure.tls.clone().watch()));
        }
        tasks
    }

    /// Serves until `shutdown`. Then takes no more events, ends streams with a reason that says
    /// *retry*, and waits at most `grace` for running calls. True if all of them ended.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send,
        grace: Duration,
    ) -> Result<bool, Error> {
        let closing = self.services.closing.clone();
        let tasks = self.start();
        let metrics = Metrics::new(vec![self.source.clone()]);
        let pages = pages(self.services.clone(), metrics);
        let front = Arc::new(Front::new(self.services.clone(), pages, self.cors).await?);
        let (connections, cut, budget) = (TaskTracker::new(), CancellationToken::new(), self.budget.clone());
        let accepting = async {
            // If the store does not answer in time, connections are accepted, and tokens are
            // checked against revocations as they become known.
            let _late = tokio::time::timeout(LOAD_MAX, self.services.revoked.loaded()).await;
            loop {
                let (stream, place) = self.acceptor.accept().await;
                let (front, budget) = (front.clone(), budget.of_connection(place.address()));
                let answer = move |peer: Option<Arc<Identity>>| {
                    move |mut request: Request<Incoming>| {
                        let (front, budget) = (front.clone(), budget.clone());
                        if let Some(peer) = &peer {
                            request.extensions_mut().insert(Peer(peer.clone()));
                        }
                        async move { front.answer(request, budget).await }
                    }
                };
                let (rules, closing, secure) = (self.rules, closing.clone(), self.secure.clone());
                connections.spawn(cut.clone().run_until_cancelled_owned(async move {
                    match secure {
                        None => connection::serve(stream, rules, closing, answer(None)).await,
                        Some(secure) => {
                            let secured = secure.handshake(stream, &place);
                            if let Some(Some((stream, peer))) = closing.run_until_cancelled(secured).await {
                                connection::serve(stream, rules, closing, answer(peer)).await;
                            }
                        }
                    }
                    drop(place);
                }));
            }
        };
        tokio::select! {
            () = accepting => {}
            () = shutdown => {}
        }
        self.services.ingest.close();
        closing.cancel();
        connections.close();
        let clean = tokio::time::timeout(grace, connections.wait()).await.is_ok();
        cut.cancel();
        tasks.close();
        tasks.wait().await;
        self.services.engine.close().await;
        Ok(clean)
    }
}

/// A listener and its address.
async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let refused = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// The connection limits of the listener.
const fn bounds(limits: &Limits) -> Bounds {
    Bounds { connections_max: limits.connections_max, per_address_max: limits.connections_per_address_max }
}

/// The URL of the server. Empty if it listens on all addresses, because then only others know the
/// URL.
fn url(address: SocketAddr, is_secure: bool) -> String {
    match address.ip().is_unspecified() {
        true => String::new(),
        false => format!("{}://{address}", if is_secure { "https" } else { "http" }),
    }
}

/// TLS of the listener: gRPC speaks HTTP/2, gRPC-Web and health checks may speak HTTP/1.1.
fn secure(tls: Tls, timeout: Duration) -> Result<Arc<Secure>, Error> {
    let listener = ServerTls::load(tls.files, &["h2", "http/1.1"])?;
    Ok(Arc::new(Secure::new(listener, Workloads::new(tls.workloads), timeout)))
}

const fn connection_rules(limits: &Limits) -> connection::Rules {
    connection::Rules {
        streams_max: limits.streams_per_connection_max,
        request_timeout: limits.request_timeout,
        idle_timeout: limits.idle_timeout,
    }
}

/// The health and metrics pages.
fn pages(services: Arc<Services>, metrics: Arc<Metrics>) -> Router {
    let scraped = get(scrape).with_state((services.clone(), metrics));
    Router::new()
        .route("/metrics", scraped)
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(services)
}

/// Ready means that an event can be delivered: a probe passes through the engine and the hub, and
/// signals between servers arrive.
async fn readyz(State(services): State<Arc<Services>>) -> (StatusCode, String) {
    if services.closing.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".into());
    }
    match services.health.ready().await {
        Ok(details) => (StatusCode::OK, format!("ok\n{details}")),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not delivering: {why}\n")),
    }
}

/// The metrics, for administrators of all tenants.
async fn scrape(
    State((services, metrics)): State<(Arc<Services>, Arc<Metrics>)>,
    request: axum::extract::Request,
) -> Result<impl IntoResponse, (StatusCode, String)> {
    services.check_operator(&request).map_err(|refusal| {
        let status = if matches!(refusal, Refusal::Token(_)) {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::FORBIDDEN
        };
        (status, format!("{refusal}\n"))
    })?;
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let Exposition { content_type, text } = metrics.expose(accept).await;
    Ok(([(header::CONTENT_TYPE, content_type)], text))
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
        "connect-timeout-ms",
        "content-encoding",
    ];
    let response = ["grpc-status", "grpc-message", "grpc-status-details-bin"];
    Ok(CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::POST, Method::GET, Method::OPTIONS])
        .allow_headers(request.map(HeaderName::from_static))
        .expose_headers(response.map(HeaderName::from_static))
        .max_age(Duration::from_secs(7200)))
}
