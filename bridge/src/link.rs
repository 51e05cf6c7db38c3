//! The link: which rooms this bridge follows, and the one stream from a server that brings their events.
//!
//! Sessions *want* rooms and *release* them; the room is followed from the first want until a while after the last
//! release. When the server is lost, the next one is asked for everything after each tenant's cursor: sessions
//! notice nothing. Knows no transport.

mod interest;
mod reports;

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use fanfare_client::edge::{self, EdgeClient};
use fanfare_proto::{
    room::{Room, Tenant},
    v1::{
        self, CallRequest, CallResponse, Caller, EndSession, EventBatch, Inspect, Inspected, LinkHello,
        LinkRequest, LinkResponse, Reason, RecoverRequest, Recovered, ReplayRequest, ReplayResponse,
        link_request, link_response,
    },
};
use futures_util::FutureExt as _;
use http::{Request, Response};
use rand::RngExt as _;
use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    config::Config, delivery::Delivery, ending::Ending, error::Error, failure::Failure, rooms::Rooms,
    session::Session, stats::Stats,
};
use interest::Interests;
use reports::Reports;

/// How long the first answer on a new link may take.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
/// How many heartbeats may stay away before the link counts as lost.
const SILENT_HEARTBEATS_MAX: u32 = 3;
/// Pauses between two tries to link.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(3);
/// How often rooms that nobody wants any more are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// Messages that have already arrived and are taken together, at most.
const DRAIN_MAX: usize = 32;
/// Events that a session gets in one go: enough that the write is shared, few enough that what a connection
/// buffers stays small.
const ROUND_EVENTS_MAX: usize = 128;
/// How many rounds a session's queue holds at least.
const ROUND_SHARE: usize = 8;
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The link of a bridge.
#[derive(Debug)]
pub(crate) struct Link {
    name: String,
    /// Tells this process from other bridges.
    instance: String,
    /// Never empty.
    servers: Vec<Mutex<EdgeClient>>,
    /// The server of the current link, as an index.
    current: Mutex<usize>,
    up: AtomicBool,
    interests: Interests,
    reports: Reports,
    rooms: Arc<Rooms>,
    /// What a session gets in one go: a fraction of what may wait for it, so that who reads is not taken for slow.
    round_bytes_max: usize,
    pub(crate) stats: Stats,
}

/// Why a call got no answer from the server.
#[derive(Debug)]
pub(crate) struct Unavailable;

impl Link {
    pub(crate) fn new(config: &Config, rooms: Arc<Rooms>) -> Result<Self, Error> {
        let servers = config.servers.iter().map(|url| EdgeClient::new(url, &config.token));
        let servers: Vec<_> = servers.map(|server| server.map(Mutex::new)).collect::<Result<_, _>>()?;
        if servers.is_empty() {
            return Err(Error::NoServer);
        }
        Ok(Self {
            name: config.name.clone(),
            instance: format!("{:032x}", rand::random::<u128>()),
            servers,
            current: Mutex::new(0),
            up: AtomicBool::new(false),
            interests: Interests::new(config.interest_linger),
            reports: Reports::new(),
            rooms,
            round_bytes_max: config.queue_bytes_max / ROUND_SHARE,
            stats: Stats::default(),
        })
    }

    /// Whether a server is linked.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Wants rooms; resolves when their events are certain to arrive. Every want needs a [`Self::release`], also one that is
    /// dropped while waiting, but not one that is refused because the bridge has too many rooms.
    pub(crate) fn want(
        &self,
        tenant: &Tenant,
        rooms: &[Room],
    ) -> Result<impl Future<Output = ()> + Send + use<>, Failure> {
        self.interests.want(tenant, rooms)
    }

    /// Releases rooms that were wanted, once for each want.
    pub(crate) fn release(&self, tenant: &Tenant, rooms: &[Room]) {
        self.interests.release(tenant, rooms);
    }

    /// Tells the server that a session is about to be ready; resolves with what greets it, or why it must not be. A session that is
    /// not made [ready](Self::ready) then must be [closed](Self::closed).
    pub(crate) fn open(
        &self,
        session: &Session,
    ) -> impl Future<Output = Result<Vec<v1::Delivery>, Failure>> + Send + use<> {
        self.reports.open(session)
    }

    /// Tells the server that a session gets the events of its rooms; gives the number of the change.
    pub(crate) fn ready(&self, session: &Session) -> u64 {
        self.reports.ready(session)
    }

    /// Tells the server that a session has entered or left rooms; gives the number of the change.
    pub(crate) fn moved(&self, session_id: &str, entered: &[Room], left: &[Room], catalog: &str) -> u64 {
        self.reports.rooms(session_id, entered, left, catalog)
    }

    /// Tells the server that a session is gone.
    pub(crate) fn closed(&self, session_id: &str) {
        self.reports.closed(session_id);
    }

    /// Resolves when the server has taken over the change of this number.
    pub(crate) fn settled(&self, number: u64) -> impl Future<Output = ()> + Send + use<> {
        self.reports.settled(number)
    }

    /// Resolves when a change of a session is there after a crash.
    pub(crate) fn durable(&self, number: u64) -> impl Future<Output = ()> + Send + use<> {
        self.reports.durable(number)
    }

    /// Finds a lost session of a user; `None` when the server knows that it cannot be recovered.
    pub(crate) async fn recover(
        &self,
        caller: Caller,
        pid: &str,
        after: &str,
    ) -> Result<Option<Recovered>, Unavailable> {
        let (pid, after, instance) = (pid.to_owned(), after.to_owned(), self.instance.clone());
        let request = RecoverRequest { caller: Some(caller), pid, after, instance };
        let server = self.server();
        let answer = tokio::time::timeout(CALL_TIMEOUT, server.recover(request)).await;
        let answer = answer.map_err(|_| Unavailable)?;
        let failed = |error| {
            tracing::debug!(%error, "a recovery failed");
            Unavailable
        };
        Ok(answer.map_err(failed)?.recovered)
    }

    /// One page of a tenant's log.
    pub(crate) async fn replay(
        &self,
        request: ReplayRequest,
    ) -> Result<ReplayResponse, fanfare_client::Error> {
        let late = |_| fanfare_client::Error::Unreachable("the replay timed out".into());
        tokio::time::timeout(CALL_TIMEOUT, self.server().replay(request)).await.map_err(late)?
    }

    /// Has the server run what a browser emitted.
    pub(crate) async fn call(&self, request: CallRequest) -> Result<CallResponse, Unavailable> {
        if !self.is_up() {
            return Err(Unavailable);
        }
        let server = self.server();
        match tokio::time::timeout(CALL_TIMEOUT, server.call(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                tracing::warn!(%error, "call failed");
                Err(Unavailable)
            }
            Err(_) => {
                tracing::warn!("call timed out");
                Err(Unavailable)
            }
        }
    }

    fn current(&self) -> MutexGuard<'_, EdgeClient> {
        let index = *self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.servers[index % self.servers.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server(&self) -> EdgeClient {
        self.current().clone()
    }

    /// Gives up the connection to the current server. A server that was silent may be well, and the connection dead without
    /// anybody having been told, as when a firewall forgets it; then all that went over it would have to time out.
    fn renew(&self) {
        let mut current = self.current();
        match current.renewed() {
            Ok(renewed) => *current = renewed,
            Err(error) => tracing::warn!(%error, "the connection stays"),
        }
    }

    /// Holds the link for ever, with one server after the other.
    pub(crate) async fn run(&self) {
        let mut pause = BACKOFF_MIN;
        loop {
            let linked_at = Instant::now();
            let why = match self.hold().await {
                Ok(()) => "the server ended the link".to_owned(),
                Err(why) => why,
            };
            self.up.store(false, Ordering::Release);
            self.renew();
            self.interests.unlinked();
            self.reports.unlinked();
            // What nobody wants any more is forgotten without a server too.
            let _no_link = self.interests.drops();
            if linked_at.elapsed() > BACKOFF_MAX {
                pause = BACKOFF_MIN;
            }
            let wait = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            tracing::warn!(why, retry_in = ?wait, "no link to a server");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(BACKOFF_MAX);
            *self.current.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
    }

    /// Links to the current server and serves the link until it is lost.
    async fn hold(&self) -> Result<(), String> {
        let timed_out = |_| format!("no answer within {WELCOME_TIMEOUT:?}");
        let opened = tokio::time::timeout(WELCOME_TIMEOUT, self.server().link()).await;
        let mut link = opened.map_err(timed_out)?.map_err(|e| e.to_string())?;
        let hello = link_request::Kind::Hello(LinkHello {
            bridge: self.name.clone(),
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let mut outgoing = VecDeque::from([LinkRequest { kind: Some(hello) }]);
        let first = tokio::time::timeout(WELCOME_TIMEOUT, link.next()).await;
        let first = first.map_err(timed_out)?.map_err(|e| e.to_string())?;
        let Some(LinkResponse { kind: Some(link_response::Kind::Welcome(welcome)) }) = first else {
            return Err("the server did not begin with a welcome".into());
        };
        let silence_max = Duration::from_millis(u64::from(welcome.heartbeat_millis)) * SILENT_HEARTBEATS_MAX;
        tracing::info!(server = welcome.server, "linked");
        outgoing.push_back(self.stats.report());
        outgoing.extend(self.interests.linked());
        // Before what waits until a tenant has been caught up with.
        outgoing.extend(self.reports.linked(|| self.rooms.sessions(None)));
        outgoing.extend(self.interests.additions());
        self.up.store(true, Ordering::Release);

        let requests = link.requests.clone();
        let mut sweeps = tokio::time::interval(SWEEP_INTERVAL);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                response = link.next() => {
                    heard = Instant::now();
                    let Some(response) = response.map_err(|e| e.to_string())? else { return Ok(()) };
                    self.take(response, &mut link).await?;
                }
                permit = requests.reserve(), if !outgoing.is_empty() => {
                    let permit = permit.map_err(|_| "the link is closed".to_owned())?;
                    if let Some(request) = outgoing.pop_front() {
                        permit.send(request);
                    }
                }
                () = self.interests.changed() => outgoing.extend(self.interests.additions()),
                () = self.reports.changed() => outgoing.extend(self.reports.take()),
                // A link that is busy is told the next time.
                () = self.stats.due() => if outgoing.is_empty() {
                    outgoing.push_back(self.stats.report());
                },
                _ = sweeps.tick() => {
                    outgoing.extend(self.interests.drops());
                    if heard.elapsed() > silence_max {
                        return Err(format!("the server was silent for {silence_max:?}"));
                    }
                }
            }
        }
    }

    /// Handles a response and those that have arrived behind it, events of one tenant together.
    async fn take(&self, first: LinkResponse, link: &mut edge::Link) -> Result<(), String> {
        let mut next = Some(first);
        let mut events = Gathered::default();
        for _ in 0..DRAIN_MAX {
            let Some(response) = next.take() else { break };
            match response.kind {
                Some(link_response::Kind::Events(batch)) => self.gather(batch, &mut events).await?,
                other => {
                    self.deliver(&mut events).await;
                    self.control(other, link);
                }
            }
            // One that ended or failed shows again at the next wait.
            next = match link.next().now_or_never() {
                Some(Ok(response)) => response,
                Some(Err(error)) => {
                    self.deliver(&mut events).await;
                    return Err(error.to_string());
                }
                None => None,
            };
        }
        if let Some(LinkResponse { kind: Some(link_response::Kind::Events(batch)) }) = next {
            self.gather(batch, &mut events).await?;
        } else if let Some(response) = next {
            self.deliver(&mut events).await;
            self.control(response.kind, link);
        }
        self.deliver(&mut events).await;
        Ok(())
    }

    async fn gather(&self, batch: EventBatch, events: &mut Gathered) -> Result<(), String> {
        let tenant = Tenant::new(&batch.tenant).map_err(|e| e.to_string())?;
        if events.tenant.as_ref() != Some(&tenant) {
            self.deliver(events).await;
            events.tenant = Some(tenant);
        }
        events.cursor = batch.cursor;
        events.deliveries.extend(batch.events.into_iter().map(|event| Arc::new(Delivery::new(event))));
        Ok(())
    }

    async fn deliver(&self, events: &mut Gathered) {
        let Some(tenant) = events.tenant.take() else { return };
        let mut rest = events.deliveries.as_slice();
        while !rest.is_empty() {
            let (round, behind) = rest.split_at(self.round(rest));
            rest = behind;
            let handed = self.rooms.deliver(&tenant, round);
            self.stats.handed(round, handed);
            // The connections' tasks must write meanwhile, or a long burst fills the queues of those who read.
            tokio::task::yield_now().await;
        }
        events.deliveries.clear();
        self.interests.reached(&tenant, std::mem::take(&mut events.cursor));
    }

    /// How many events go out in one go.
    fn round(&self, events: &[Arc<Delivery>]) -> usize {
        let mut bytes = 0;
        let fits = events.iter().take(ROUND_EVENTS_MAX).take_while(|delivery| {
            bytes += delivery.event.json.len();
            bytes <= self.round_bytes_max
        });
        fits.count().max(1)
    }

    fn control(&self, kind: Option<link_response::Kind>, link: &edge::Link) {
        match kind {
            Some(link_response::Kind::Applied(applied)) => self.interests.applied(applied),
            Some(link_response::Kind::Sessions(applied)) => self.reports.applied(applied),
            Some(link_response::Kind::Kept(kept)) => self.reports.kept(&kept),
            Some(link_response::Kind::End(end)) => self.end(end),
            Some(link_response::Kind::Inspect(question)) => {
                // Where there is no room for the answer, the server does without.
                let _full = link.requests.try_send(self.inspect(question));
            }
            Some(link_response::Kind::Reset(reset)) => {
                let Ok(tenant) = Tenant::new(&reset.tenant) else { return };
                tracing::warn!(
                    tenant = reset.tenant,
                    "events were lost to this bridge; its sessions start anew"
                );
                self.interests.reached(&tenant, reset.cursor);
                let ending =
                    Ending::new(Reason::Reset, "events were lost; connect again and read current state");
                for session in self.rooms.sessions(Some(&tenant)) {
                    session.close(&ending);
                }
            }
            Some(
                link_response::Kind::Welcome(_)
                | link_response::Kind::Heartbeat(_)
                | link_response::Kind::Events(_),
            )
            | None => {}
        }
    }

    /// What is known of a session.
    fn inspect(&self, question: Inspect) -> LinkRequest {
        let (tenant, own) = (Tenant::new(&question.tenant), Room::user(&question.user_id));
        let session = tenant.ok().zip(own.ok());
        let session = session.and_then(|(t, own)| self.rooms.find(&t, &own, &question.session_id));
        let answer = Inspected {
            r#ref: question.r#ref,
            connection: session.as_ref().map(|session| session.connection()),
            claims_json: session.map(|session| session.caller.claims_json.clone()).unwrap_or_default(),
        };
        LinkRequest { kind: Some(link_request::Kind::Inspected(answer)) }
    }

    /// Passes a browser's gRPC-Web call on to the server.
    pub(crate) async fn pass_on(&self, request: Request<Body>) -> Response<Body> {
        self.server().pass_on(request).await.map(Body::new)
    }

    /// Ends a session, as the server asks.
    fn end(&self, end: EndSession) {
        let (Ok(tenant), Ok(own)) = (Tenant::new(&end.tenant), Room::user(&end.user_id)) else { return };
        if let Some(session) = self.rooms.find(&tenant, &own, &end.session_id) {
            session.close(&Ending::new(end.reason(), end.message));
        }
    }
}

/// Events of one tenant that go out together.
#[derive(Debug, Default)]
struct Gathered {
    tenant: Option<Tenant>,
    cursor: String,
    deliveries: Vec<Arc<Delivery>>,
}
