//! gRPC: the only place that knows the protocol. Every method is served by hand from its path, so that catalog
//! methods (which have no Rust code) and the contract's go the same way, and streams send shared bytes.

mod catalog;
mod codec;
mod edge;
mod realtime;
mod status;
mod subscribe;

use std::{sync::Arc, time::Duration};

use fanfare_proto::{
    catalog::{Catalogs, Method},
    room::shown,
    token::{Identity, TokenError},
};
use http::{Request, Response};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, metadata::MetadataMap};

use crate::{auth::Auth, call::Calls, engine::Engine, error::Refusal, hub::Hub, ingest::Ingest};

/// The largest request message that is decoded; larger ones get OUT_OF_RANGE from the transport. Events have a
/// bound of their own, which is lower.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// What the methods work with.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) name: String,
    pub(crate) auth: Auth,
    pub(crate) catalogs: Arc<Catalogs>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) ingest: Ingest,
    pub(crate) calls: Calls,
    pub(crate) heartbeat_interval: Duration,
    /// Cancelled when the server shuts down: streams end, intake stops.
    pub(crate) closing: CancellationToken,
}

impl Services {
    /// The caller's verified identity.
    fn identify(&self, metadata: &MetadataMap) -> Result<Arc<Identity>, Refusal> {
        let header = metadata.get("authorization").ok_or(TokenError::Missing)?;
        let token = header.to_str().map_err(|_| TokenError::Invalid("not ASCII".into()))?;
        Ok(self.auth.identify(token)?)
    }

    /// The clock by which a silent stream says that it is alive.
    fn heartbeat(&self) -> Interval {
        let period = self.heartbeat_interval;
        let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// Refuses an identity whose token has expired since it was verified.
    fn check_expiry(&self, identity: &Identity) -> Result<(), Refusal> {
        match self.auth.remaining(identity) {
            Some(Duration::ZERO) => Err(TokenError::Expired.into()),
            _ => Ok(()),
        }
    }
}

/// Serves a request by its path.
pub(crate) async fn dispatch(services: Arc<Services>, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path();
    match path {
        "/fanfare.v1.Realtime/Notify" => realtime::notify(services, request).await,
        "/fanfare.v1.Realtime/NotifyStream" => realtime::notify_stream(services, request).await,
        "/fanfare.v1.Realtime/Subscribe" => realtime::subscribe(services, request).await,
        "/fanfare.v1.Edge/Link" => edge::link(services, request).await,
        "/fanfare.v1.Edge/Call" => edge::call(services, request).await,
        _ => match services.catalogs.method(path).cloned() {
            Some(Method::Notify(method)) => catalog::notify(services, method, request).await,
            Some(Method::Subscribe(method)) => catalog::subscribe(services, method, request).await,
            Some(Method::Client(method)) => {
                let message = format!("{} needs a session: browsers emit {:?}", method.path, method.on);
                Status::failed_precondition(message).into_http()
            }
            None => {
                Status::unimplemented(format!("no loaded service has the method {}", shown(path))).into_http()
            }
        },
    }
}

/// The names of the contract's services.
pub(crate) const CONTRACT_SERVICES: [&str; 2] = ["fanfare.v1.Realtime", "fanfare.v1.Edge"];
