//! gRPC: the only module that knows the protocol. Every method is dispatched by hand from its path.
//! Thus catalog methods, which have no Rust code, are served like contract methods, and streams
//! send shared bytes.

mod admin;
mod catalog;
mod codec;
mod connect;
mod edge;
mod front;
mod message;
mod notify_stream;
mod realtime;
mod revoke;
mod status;
mod subscribe;
pub(crate) mod upstream;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fanfare_proto::{
    catalog::{Catalogs, Method},
    room::{Room, shown},
    token::{Identity, Scope, TenantScope, TokenError},
    v1::Reason,
};
use futures_util::{FutureExt as _, Stream, TryStreamExt as _};
use http::{Extensions, HeaderMap, Request, Response, Uri, header};
use tokio::{
    sync::Semaphore,
    time::{Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, codec::Codec, codec::CompressionEncoding, server::Grpc};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::{
    access::Asked,
    auth::{self, Auth},
    bridges::Bridges,
    call::Calls,
    engine::Engine,
    error::Refusal,
    health::Health,
    history::History,
    hub::Hub,
    ingest::Ingest,
    peers::Peers,
    presence::Presence,
    revoked::Revoked,
    rules::Rules,
    stats::Stats,
    subscribers::Subscribers,
};
pub(crate) use admin::About;
pub(crate) use front::{Front, WATCHES_MAX};
pub(crate) use message::Budget;
use message::Messages;
use realtime::ResponseStream;

/// The largest request message that is decoded. The transport answers larger ones with
/// OUT_OF_RANGE. Events have a lower bound of their own.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// Maximum number of rooms per subscription.
const ROOMS_MAX: usize = 256;

/// The identity that a connection's client certificate stands for. Stored in the extensions of its
/// requests.
#[derive(Debug, Clone)]
pub(crate) struct Peer(pub(crate) Arc<Identity>);

/// Everything that the methods need.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) name: String,
    pub(crate) auth: Auth,
    pub(crate) catalogs: Arc<Catalogs>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) history: Arc<History>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) health: Health,
    pub(crate) calls: Calls,
    pub(crate) stats: Arc<Stats>,
    pub(crate) revoked: Arc<Revoked>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) subscribers: Arc<Subscribers>,
    pub(crate) bridges: Arc<Bridges>,
    /// Permits for Health/Watch streams.
    pub(crate) watches: Arc<Semaphore>,
    pub(crate) about: About,
    pub(crate) heartbeat_interval: Duration,
    /// How long a request message may take to arrive.
    pub(crate) request_timeout: Duration,
    /// Cancelled when the server shuts down: streams end and intake stops.
    pub(crate) closing: CancellationToken,
}

impl Services {
    /// The caller's verified identity.
    fn identify<T>(&self, request: &tonic::Request<T>) -> Result<Arc<Identity>, Refusal> {
        self.identify_by(request.metadata().as_ref(), request.extensions())
    }

    /// Like [`Self::identify`], before anything of the body is read.
    fn identify_head<T>(&self, request: &Request<T>) -> Result<Arc<Identity>, Refusal> {
        self.identify_by(request.headers(), request.extensions())
    }

    /// Identifies the caller by the token or, without a token, by the certificate of the
    /// connection.
    fn identify_by(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Arc<Identity>, Refusal> {
        let Some(header) = headers.get(header::AUTHORIZATION) else {
            let Peer(identity) = extensions.get().ok_or(TokenError::Missing)?;
            self.revoked.check(identity)?;
            return Ok(identity.clone());
        };
        let token = header.to_str().map_err(|_| TokenError::Invalid("not ASCII".into()))?;
        let identity = self.auth.identify(token)?;
        self.revoked.check(&identity)?;
        Ok(identity)
    }

    /// Refuses everyone except administrators of all tenants.
    pub(crate) fn check_operator<T>(&self, request: &Request<T>) -> Result<(), Refusal> {
        let identity = self.identify_head(request)?;
        auth::require(&identity, Scope::Admin)?;
        if identity.tenant == TenantScope::Any { Ok(()) } else { Err(Refusal::AllTenants) }
    }

    /// The stream of a response. An error at its end is counted.
    fn watched<T: Send + 'static>(
        self: &Arc<Self>,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> ResponseStream<T> {
        let services = self.clone();
        Box::pin(stream.inspect_err(move |status| _ = services.refuse(status)))
    }

    /// Counts a refusal and returns its reason.
    fn refuse(&self, status: &Status) -> Reason {
        self.stats.refuse_with(status, status::reason(status.code()))
    }

    /// The ticks at which a silent stream sends a heartbeat.
    fn heartbeat(&self) -> Interval {
        let period = self.heartbeat_interval;
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// Refuses an identity whose token has expired or was revoked since it was verified.
    fn check_expiry(&self, identity: &Identity) -> Result<(), Refusal> {
        match self.auth.remaining(identity) {
            Some(Duration::ZERO) => Err(TokenError::Expired.into()),
            _ => Ok(self.revoked.check(identity)?),
        }
    }
}

/// Parses the rooms of a request: at least one, at most `max`.
fn rooms(texts: &[String], max: usize) -> Result<Vec<Room>, Refusal> {
    if texts.is_empty() || texts.len() > max {
        return Err(Refusal::Invalid(format!(
            "rooms has {} entries: want 1 to {max}, e.g. \"org\"",
            texts.len()
        )));
    }
    Ok(texts.iter().map(|room| Room::new(room)).collect::<Result<_, _>>()?)
}

/// The scope that a service requires before anything of a request's body is read.
fn scope(path: &str) -> Option<Scope> {
    if path.starts_with("/fanfare.v1.Edge/") {
        return Some(Scope::Bridge);
    }
    path.starts_with("/fanfare.v1.Admin/").then_some(Scope::Admin)
}

/// A request whose caller was admitted.
#[derive(Debug)]
struct Admitted {
    asked: Asked,
    identity: Arc<Identity>,
}

/// Refuses callers without access to a method, before anything of the body is read.
fn admit(
    services: &Services,
    uri: &Uri,
    headers: &HeaderMap,
    extensions: &Extensions,
    budget: &Budget,
) -> Result<Admitted, Status> {
    let asked = Asked { method: uri.clone(), address: budget.address(), since: Instant::now() };
    let refused = |identity: Option<&Identity>, refusal: Refusal| {
        let status = Status::from(refusal);
        asked.refused(identity, services.refuse(&status), &status);
        status
    };
    let identity = services.identify_by(headers, extensions).map_err(|refusal| refused(None, refusal))?;
    if let Some(Err(refusal)) = scope(uri.path()).map(|scope| auth::require(&identity, scope)) {
        return Err(refused(Some(&identity), refusal));
    }
    Ok(Admitted { asked, identity })
}

/// How a method reads requests: bounded, compressed or not.
fn grpc<C: Codec>(codec: C, bytes_max: usize) -> Grpc<C> {
    Grpc::new(codec).max_decoding_message_size(bytes_max).accept_compressed(CompressionEncoding::Gzip)
}

/// Admits a request and serves it by its path.
async fn dispatch<B>(services: Arc<Services>, request: Request<B>, budget: Budget) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let admitted = admit(&services, request.uri(), request.headers(), request.extensions(), &budget);
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(status) => return status.into_http(),
    };
    let path = request.uri().path();
    let is_link = path == "/fanfare.v1.Edge/Link";
    let rules = message::Rules {
        bytes_max: if is_link { edge::LINK_REQUEST_BYTES_MAX } else { REQUEST_BYTES_MAX },
        timeout: services.request_timeout,
        is_awaited: !is_link && path != "/fanfare.v1.Realtime/NotifyStream",
    };
    // A bridge sends all rooms of a tenant in one request.
    let budget = if is_link { Budget::boundless() } else { budget };
    let request = request.map(|body| Body::new(Messages::new(body, rules, budget)));
    serve(services, admitted, request).await
}

/// Serves an admitted request and logs the outcome.
async fn serve(services: Arc<Services>, admitted: Admitted, request: Request<Body>) -> Response<Body> {
    let response = method(services.clone(), request).await;
    let Admitted { asked, identity } = admitted;
    match response.extensions().get::<Status>() {
        Some(status) => asked.refused(Some(&identity), services.refuse(status), status),
        None => asked.answered(&identity),
    }
    response
}

async fn method(services: Arc<Services>, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path();
    match path {
        "/fanfare.v1.Realtime/Notify" => unary(services, request, realtime::notify).await,
        "/fanfare.v1.Realtime/NotifyStream" => notify_stream::notify_stream(services, request).await,
        "/fanfare.v1.Realtime/Subscribe" => realtime::subscribe(services, request).await,
        "/fanfare.v1.Realtime/GetPresence" => unary(services, request, realtime::get_presence).await,
        "/fanfare.v1.Realtime/GetHistory" => unary(services, request, realtime::get_history).await,
        "/fanfare.v1.Realtime/RemoveFromRoom" => unary(services, request, realtime::remove_from_room).await,
        "/fanfare.v1.Realtime/GetState" => unary(services, request, realtime::get_state).await,
        "/fanfare.v1.Realtime/Disconnect" => unary(services, request, realtime::disconnect).await,
        "/fanfare.v1.Admin/GetServer" => unary(services, request, admin::get_server).await,
        "/fanfare.v1.Admin/WatchStats" => admin::watch_stats(services, request).await,
        "/fanfare.v1.Admin/ListTenants" => unary(services, request, admin::list_tenants).await,
        "/fanfare.v1.Admin/ListRooms" => unary(services, request, admin::list_rooms).await,
        "/fanfare.v1.Admin/ListSessions" => unary(services, request, admin::list_sessions).await,
        "/fanfare.v1.Admin/GetSession" => unary(services, request, admin::get_session).await,
        "/fanfare.v1.Admin/ListEvents" => unary(services, request, admin::list_events).await,
        "/fanfare.v1.Admin/Tail" => admin::tail(services, request).await,
        "/fanfare.v1.Admin/ListCatalogs" => unary(services, request, admin::list_catalogs).await,
        "/fanfare.v1.Admin/Revoke" => unary(services, request, revoke::revoke).await,
        "/fanfare.v1.Admin/SignToken" => unary(services, request, admin::sign_token).await,
        "/fanfare.v1.Edge/Link" => edge::link(services, request).await,
        "/fanfare.v1.Edge/Call" => unary(services, request, edge::call).await,
        "/fanfare.v1.Edge/Recover" => unary(services, request, edge::recover).await,
        "/fanfare.v1.Edge/Replay" => edge::replay(services, request).await,
        "/fanfare.v1.Edge/State" => edge::state(services, request).await,
        _ => match services.catalogs.method(path).cloned() {
            Some(Method::Notify(method)) => catalog::notify(services, method, request).await,
            Some(Method::Subscribe(method)) => catalog::subscribe(services, method, request).await,
            Some(Method::Client(method)) => catalog::client(services, method, request).await,
            None => {
                Status::unimplemented(format!("no loaded service has the method {}", shown(path))).into_http()
            }
        },
    }
}

/// Serves a unary method with Rust message types: identifies the caller, then runs the method.
async fn unary<Q, A, F>(
    services: Arc<Services>,
    request: Request<Body>,
    run: fn(Arc<Services>, Arc<Identity>, Q) -> F,
) -> Response<Body>
where
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Send + 'static,
    F: Future<Output = Result<A, Refusal>> + Send + 'static,
{
    let method = service_fn(move |request: tonic::Request<Q>| {
        let services = services.clone();
        async move {
            let identity = services.identify(&request)?;
            let answer = run(services, identity, request.into_inner()).await?;
            Ok::<_, Status>(tonic::Response::new(answer))
        }
        .boxed()
    });
    grpc(ProstCodec::<A, Q>::default(), REQUEST_BYTES_MAX).unary(method, request).await
}

/// The names of the contract's services.
pub(crate) const CONTRACT_SERVICES: [&str; 3] =
    ["fanfare.v1.Realtime", "fanfare.v1.Admin", "fanfare.v1.Edge"];
