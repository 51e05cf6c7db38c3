//! The streams of `fanfare.v1.Admin`. As with Subscribe, the transport pulls them, and they need no
//! task of their own.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use fanfare_proto::{
    latency::Snapshot,
    room::{Room, Tenant},
    token::{Identity, Scope, TenantScope, TokenError},
    v1::{
        self, ServerStats, Stats, TailHeartbeat, TailRequest, TailResponse, TailedEvent, WatchStatsRequest,
        tail_response::Kind,
    },
};
use futures_util::{FutureExt as _, Stream, stream};
use http::Response;
use prost::Message;
use tokio::time::{Interval, MissedTickBehavior};
use tonic::{Request, Status, body::Body};
use tower::service_fn;

use super::super::{
    REQUEST_BYTES_MAX, Services,
    codec::{Frame, FrameCodec},
};
use crate::{
    auth,
    error::Refusal,
    event::Event,
    hub::{Tap, Wanted},
    ingest,
    peers::Description,
};

/// How often stats are sent, in milliseconds.
const INTERVAL_DEFAULT: u32 = 1000;
const INTERVAL_MIN: u32 = 250;
const INTERVAL_MAX: u32 = 60_000;
/// Maximum number of rooms or names in the filters of a Tail stream.
const FILTERS_MAX: usize = 64;
/// The longest wait for an expiry. A later expiry is checked again after that.
const EXPIRY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A stream that ends with the caller's token or when the server shuts down.
struct Session<S> {
    services: Arc<Services>,
    identity: Arc<Identity>,
    source: S,
    ended: bool,
}

/// The source of a stream's messages.
trait Source: Send + 'static {
    type Request: Message + Default + 'static;
    type Message: Message;

    /// Opens the source or refuses.
    fn open(
        services: &Services,
        identity: &Identity,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self, Refusal>> + Send
    where
        Self: Sized;

    /// The next message. May be dropped while waiting.
    fn next(&mut self, services: &Services) -> impl Future<Output = Self::Message> + Send;
}

impl<S: Source> Session<S> {
    async fn step(mut self) -> Option<(Result<Frame, Status>, Self)> {
        if self.ended {
            return None;
        }
        tokio::select! {
            biased;
            refusal = end(&self.services, &self.identity) => {
                self.ended = true;
                Some((Err(refusal.into()), self))
            }
            message = self.source.next(&self.services) => Some((Ok(Frame::message(&message)), self)),
        }
    }
}

/// Resolves when the server shuts down, or when the token expires or is revoked.
async fn end(services: &Services, identity: &Identity) -> Refusal {
    let mut revocations = services.revoked.changes();
    loop {
        if let Err(revoked) = services.revoked.check(identity) {
            return revoked.into();
        }
        let remaining = services.auth.remaining(identity);
        if remaining == Some(Duration::ZERO) {
            return TokenError::Expired.into();
        }
        tokio::select! {
            () = services.closing.cancelled() => return Refusal::Shutdown,
            _ = revocations.changed() => {}
            () = tokio::time::sleep(remaining.unwrap_or(EXPIRY_MAX).min(EXPIRY_MAX)) => {}
        }
    }
}

/// Serves a server-streaming method.
async fn serve<S>(services: Arc<Services>, request: http::Request<Body>) -> Response<Body>
where
    S: Source,
{
    let method = service_fn(move |request: Request<S::Request>| {
        let services = services.clone();
        async move {
            let identity = services.identify(&request)?;
            auth::require(&identity, Scope::Admin)?;
            let source = S::open(&services, &identity, request.into_inner()).await?;
            let session = Session { services: services.clone(), identity, source, ended: false };
            Ok::<_, Status>(tonic::Response::new(services.watched(frames(session))))
        }
        .boxed()
    });
    let codec = FrameCodec::<S::Request>::default();
    super::super::grpc(codec, REQUEST_BYTES_MAX).server_streaming(method, request).await
}

fn frames<S: Source>(session: Session<S>) -> impl Stream<Item = Result<Frame, Status>> + Send {
    stream::unfold(session, Session::step)
}

pub(in crate::grpc) async fn watch_stats(
    services: Arc<Services>,
    request: http::Request<Body>,
) -> Response<Body> {
    serve::<Watch>(services, request).await
}

pub(in crate::grpc) async fn tail(services: Arc<Services>, request: http::Request<Body>) -> Response<Body> {
    serve::<Reader>(services, request).await
}

/// The state of a WatchStats stream.
struct Watch {
    /// The first tick is immediate.
    ticks: Interval,
    append: Snapshot,
}

impl Source for Watch {
    type Request = WatchStatsRequest;
    type Message = Stats;

    async fn open(
        services: &Services,
        identity: &Identity,
        request: WatchStatsRequest,
    ) -> Result<Self, Refusal> {
        if identity.tenant != TenantScope::Any {
            return Err(Refusal::AllTenants);
        }
        let millis = match request.interval_millis {
            0 => INTERVAL_DEFAULT,
            millis @ INTERVAL_MIN..=INTERVAL_MAX => millis,
            millis => {
                let message = format!("interval_millis is {millis}: want {INTERVAL_MIN} to {INTERVAL_MAX}");
                return Err(Refusal::Invalid(message));
            }
        };
        let mut ticks = tokio::time::interval(Duration::from_millis(millis.into()));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { ticks, append: services.stats.append.snapshot() })
    }

    async fn next(&mut self, services: &Services) -> Stats {
        self.ticks.tick().await;
        let others = services.peers.others(services.presence.servers());
        let (others, own) = tokio::join!(others, services.stats());
        let other = |description: Description| {
            let (info, stats) = (description.info?, description.stats);
            Some(ServerStats { id: info.id, name: info.name, stats })
        };
        Stats {
            append: Some(services.stats.append.since(&mut self.append)),
            others: others.known.into_iter().filter_map(other).collect(),
            silent_servers: others.silent,
            ..own
        }
    }
}

impl Services {
    /// The statistics of this server, without the append latency.
    pub(crate) async fn stats(&self) -> Stats {
        let (gauges, engine) = tokio::join!(self.gauges(), self.health.state());
        let counts = self.stats.counts();
        Stats {
            time: Some(ingest::now()),
            events_stored: counts.stored,
            events_ephemeral: counts.ephemeral,
            events_refused: counts.refused,
            events_duplicate: counts.duplicate,
            calls: counts.calls,
            tenants: gauges.tenants as u64,
            users: gauges.users as u64,
            sessions: self.presence.session_count() as u64,
            subscriptions: counts.subscriptions,
            subscription_events: counts.subscription_events,
            bridges: self.bridges.stats(),
            engine: Some(engine),
            refusals: self.stats.refusals.counts(),
            events: self.stats.top_events(),
            ..Stats::default()
        }
    }
}

/// The state of a Tail stream.
struct Reader {
    tap: Tap,
    waiting: VecDeque<Arc<Event>>,
    /// The number of events missed after those in `waiting`.
    missed: u64,
    /// The first tick is immediate, so that the client knows that the stream is open.
    heartbeat: Interval,
}

/// The filters of a request.
pub(super) fn wanted(
    services: &Services,
    tenant: Option<Tenant>,
    rooms: Vec<String>,
    names: Vec<String>,
) -> Result<Wanted, Refusal> {
    Ok(Wanted {
        tenant,
        hidden: services.about.probed.clone(),
        rooms: few("rooms", rooms)?.iter().map(|room| Room::new(room)).collect::<Result<_, _>>()?,
        names: few("names", names)?.into_iter().collect(),
    })
}

/// Refuses a list of filters that is too long.
fn few(field: &str, texts: Vec<String>) -> Result<Vec<String>, Refusal> {
    if texts.len() > FILTERS_MAX {
        let count = texts.len();
        return Err(Refusal::Invalid(format!("{field} has {count} entries; the limit is {FILTERS_MAX}")));
    }
    Ok(texts)
}

impl Source for Reader {
    type Request = TailRequest;
    type Message = TailResponse;

    async fn open(services: &Services, identity: &Identity, request: TailRequest) -> Result<Self, Refusal> {
        let tenant = match &identity.tenant {
            TenantScope::Any if request.tenant.is_empty() => None,
            _ => Some(auth::tenant(identity, &request.tenant)?),
        };
        let tap = services.hub.tap(wanted(services, tenant, request.rooms, request.names)?).await?;
        let mut heartbeat = tokio::time::interval(services.heartbeat_interval);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { tap, waiting: VecDeque::new(), missed: 0, heartbeat })
    }

    async fn next(&mut self, _: &Services) -> TailResponse {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.heartbeat.reset();
                return tailed(Kind::Event(along(&event)));
            }
            if self.missed > 0 {
                return tailed(Kind::Missed(std::mem::take(&mut self.missed)));
            }
            tokio::select! {
                biased;
                (events, missed) = self.tap.next() => {
                    self.waiting = events;
                    self.missed = missed;
                }
                _ = self.heartbeat.tick() => return tailed(Kind::Heartbeat(TailHeartbeat {})),
            }
        }
    }
}

fn tailed(kind: Kind) -> TailResponse {
    TailResponse { kind: Some(kind) }
}

/// An event for a Tail stream, with the JSON that is encoded once for all recipients.
pub(super) fn along(event: &Event) -> TailedEvent {
    let delivery = v1::Delivery::decode(event.delivery()).unwrap_or_default();
    TailedEvent {
        event: Some(event.whole()),
        name: event.draft.kind.name.clone(),
        json: String::from_utf8_lossy(&delivery.json).into_owned(),
    }
}
