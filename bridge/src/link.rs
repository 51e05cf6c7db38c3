//! The link: which rooms this bridge follows, and the one stream from a server that carries their
//! events.
//!
//! Rooms are *wanted* and *released*. A room is followed from the first want until some time after
//! the last release. When the server is lost, the next one is asked for everything after each
//! tenant's cursor, so that sessions are not affected. Knows no sessions and no transport; drives a
//! [`Downstream`].

mod interest;
mod reports;
mod servers;

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use fanfare_client::edge::{self, EdgeClient};
use fanfare_proto::{
    room::{Room, Tenant},
    v1::{
        CallRequest, CallResponse, Caller, Delivery, EventBatch, LinkHello, LinkRequest, LinkResponse,
        Reason, RecoverRequest, Recovered, ReplayRequest, ReplayResponse, SessionOpened, StateRequest,
        StateResponse, link_request, link_response,
    },
};
use futures_util::FutureExt as _;
use http::{Request, Response};
use prost::Message as _;
use rand::RngExt as _;
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior},
};

use crate::{config::Config, downstream::Downstream, error::Error, event::Event, refusal::Refusal};
use interest::Interests;
use reports::Reports;
use servers::Servers;

/// How long the first response on a new link may take.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
/// How many heartbeats may be missed before the link counts as lost.
const SILENT_HEARTBEATS_MAX: u32 = 3;
/// Pause between two attempts to link.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(3);
/// How often rooms that are no longer wanted are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// Maximum number of messages that have already arrived and are processed together.
const DRAIN_MAX: usize = 32;
/// Maximum number of events that are written to a session at once.
const ROUND_EVENTS_MAX: usize = 128;
/// Minimum number of rounds that fit in a session's queue, so that a session that reads is not
/// considered slow.
const ROUND_SHARE: usize = 8;
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of calls that may wait for the server's responses.
const CALL_BYTES_MAX: usize = 32 << 20;
/// What a call costs in addition to its bytes.
const CALL_BYTES: usize = 1024;
/// Requests queued for the link's stream; others remain with their sources.
const OUTGOING_MAX: usize = 16;

/// The link of a bridge.
#[derive(Debug)]
pub(crate) struct Link {
    name: String,
    /// Distinguishes this process from other bridges.
    instance: String,
    servers: Servers,
    up: AtomicBool,
    /// Number of links since the start.
    links: AtomicU64,
    interests: Interests,
    reports: Reports,
    call_bytes: Semaphore,
    round_bytes_max: usize,
}

/// Current usage of the link's limits, each with its limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) rooms: (usize, usize),
    /// Of the tenant with the most rooms.
    pub(crate) rooms_of_tenant: usize,
    /// Bytes of calls that wait for the server's responses.
    pub(crate) call_bytes: (usize, usize),
    /// Changes of sessions that have not been sent to the server.
    pub(crate) changes: (usize, usize),
    /// Number of links since the start.
    pub(crate) links: u64,
}

/// Why a link was lost.
#[derive(Debug)]
enum Lost {
    /// The server is shutting down normally: another one may be healthy.
    Draining,
    Broken(String),
}

impl From<String> for Lost {
    fn from(why: String) -> Self {
        Self::Broken(why)
    }
}

impl From<&str> for Lost {
    fn from(why: &str) -> Self {
        Self::Broken(why.to_owned())
    }
}

impl From<fanfare_client::Error> for Lost {
    fn from(error: fanfare_client::Error) -> Self {
        if error.is_shutdown() { Self::Draining } else { Self::Broken(error.to_string()) }
    }
}

/// The server did not respond.
#[derive(Debug)]
pub(crate) struct Unavailable;

impl Link {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            name: config.name.clone(),
            instance: format!("{:032x}", rand::random::<u128>()),
            servers: Servers::new(&config.servers, &config.token, &config.server_tls)?,
            up: AtomicBool::new(false),
            links: AtomicU64::new(0),
            interests: Interests::new(config.interest_linger, config.rooms_per_tenant_max),
            reports: Reports::new(),
            call_bytes: Semaphore::new(CALL_BYTES_MAX),
            round_bytes_max: config.queue_bytes_max / ROUND_SHARE,
        })
    }

    /// Current usage of the link's limits.
    pub(crate) fn usage(&self) -> Usage {
        let (rooms, rooms_of_tenant) = self.interests.usage();
        let call_bytes = CALL_BYTES_MAX - self.call_bytes.available_permits();
        let changes = self.reports.usage();
        let links = self.links.load(Ordering::Relaxed);
        Usage { rooms, rooms_of_tenant, call_bytes: (call_bytes, CALL_BYTES_MAX), changes, links }
    }

    /// Whether a server is linked.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Wants rooms; resolves when delivery of their events is guaranteed, or with the server's
    /// refusal. Every want needs a [`Self::release`], whatever it resolves to, and also if it is
    /// dropped while waiting. The exception is a want that is refused at once because there are too
    /// many rooms.
    pub(crate) fn want(
        &self,
        tenant: &Tenant,
        rooms: &[Room],
    ) -> Result<impl Future<Output = Result<(), Refusal>> + Send + use<>, Refusal> {
        self.interests.want(tenant, rooms)
    }

    /// Releases rooms, once for each want.
    pub(crate) fn release(&self, tenant: &Tenant, rooms: &[Room]) {
        self.interests.release(tenant, rooms);
    }

    /// Reports to the server that a session is about to be ready; resolves with its greeting
    /// events, or with the reason for its refusal. A session that does not become
    /// [ready](Self::ready) must then be [closed](Self::closed).
    pub(crate) fn open(
        &self,
        session_id: &str,
        opened: SessionOpened,
    ) -> impl Future<Output = Result<Vec<Delivery>, Refusal>> + Send + use<> {
        self.reports.open(session_id, opened)
    }

    /// Reports to the server that a session receives the events of its rooms; returns the number of
    /// the change.
    pub(crate) fn ready(&self, session_id: &str, opened: SessionOpened) -> u64 {
        self.reports.ready(session_id, opened)
    }

    /// Reports to the server that a session entered or left rooms; returns the number of the
    /// change.
    pub(crate) fn moved(&self, session_id: &str, entered: &[Room], left: &[Room], catalog: &str) -> u64 {
        self.reports.rooms(session_id, entered, left, catalog)
    }

    /// Reports to the server that a session has ended, and whether its client ended it.
    pub(crate) fn closed(&self, session_id: &str, left: bool) {
        self.reports.closed(session_id, left);
    }

    /// Resolves when the server has applied the change with this number.
    pub(crate) fn applied(&self, number: u64) -> impl Future<Output = ()> + Send + use<> {
        self.reports.reach_applied(number)
    }

    /// Resolves when the change with this number is durable.
    pub(crate) fn durable(&self, number: u64) -> impl Future<Output = ()> + Send + use<> {
        self.reports.reach_durable(number)
    }

    /// Finds a lost session of a user; `None` if the server knows that it cannot be recovered.
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

    /// One page of the current state of rooms.
    pub(crate) async fn state(&self, request: StateRequest) -> Result<StateResponse, fanfare_client::Error> {
        let late = |_| fanfare_client::Error::Unreachable("the reading of the state timed out".into());
        tokio::time::timeout(CALL_TIMEOUT, self.server().state(request)).await.map_err(late)?
    }

    /// Lets the server run a browser's call.
    pub(crate) async fn call(&self, request: CallRequest) -> Result<CallResponse, Refusal> {
        if !self.is_up() {
            return Err(Refusal::unavailable());
        }
        let cost = u32::try_from(request.encoded_len() + CALL_BYTES).unwrap_or(u32::MAX);
        let Ok(_place) = self.call_bytes.try_acquire_many(cost) else {
            let message = "the server is slow, and too many calls wait for it; try again";
            return Err(Refusal::new(Reason::Unavailable, message).over("call-bytes"));
        };
        let server = self.server();
        match tokio::time::timeout(CALL_TIMEOUT, server.call(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                tracing::warn!(%error, "call failed");
                Err(Refusal::unavailable())
            }
            Err(_) => {
                tracing::warn!("call timed out");
                Err(Refusal::unavailable())
            }
        }
    }

    /// Forwards a browser's gRPC-Web call to the server.
    pub(crate) async fn pass_on(&self, request: Request<Body>) -> Response<Body> {
        self.server().pass_on(request).await.map(Body::new)
    }

    fn server(&self) -> EdgeClient {
        self.servers.current()
    }

    /// Maintains the link forever, with one server after another.
    pub(crate) async fn run<D: Downstream>(&self, downstream: &D) {
        let mut pause = BACKOFF_MIN;
        self.servers.advance().await;
        loop {
            let linked_at = Instant::now();
            let lost = match self.hold(downstream).await {
                Ok(()) => Lost::Broken("the server ended the link".to_owned()),
                Err(lost) => lost,
            };
            self.up.store(false, Ordering::Release);
            self.interests.unlink();
            self.reports.unlink();
            // Rooms that are no longer wanted are dropped even without a server.
            let _no_link = self.interests.drops();
            if linked_at.elapsed() > BACKOFF_MAX {
                pause = BACKOFF_MIN;
                self.servers.settle();
            }
            let has_others = self.servers.advance().await;
            let why = match lost {
                Lost::Draining if has_others => {
                    tracing::info!("the server shuts down; another one is linked to");
                    continue;
                }
                Lost::Draining => "the server is shutting down".to_owned(),
                Lost::Broken(why) => why,
            };
            let wait = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            tracing::warn!(why, retry_in = ?wait, "no link to a server");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    /// Opens a link; returns it with the maximum time that it may be silent.
    async fn connect<D: Downstream>(&self, downstream: &D) -> Result<(edge::Link, Duration), Lost> {
        let timed_out = |_| format!("no answer within {WELCOME_TIMEOUT:?}");
        let opened = tokio::time::timeout(WELCOME_TIMEOUT, self.server().link()).await;
        let mut link = opened.map_err(timed_out)??;
        let first = tokio::time::timeout(WELCOME_TIMEOUT, link.next()).await;
        let first = first.map_err(timed_out)??;
        let Some(LinkResponse { kind: Some(link_response::Kind::Welcome(welcome)) }) = first else {
            return Err("the server did not begin with a welcome".into());
        };
        let silence_max = Duration::from_millis(u64::from(welcome.heartbeat_millis)) * SILENT_HEARTBEATS_MAX;
        tracing::info!(server = welcome.server, address = self.servers.address(), "linked");
        downstream.welcome(&welcome);
        Ok((link, silence_max))
    }

    /// The first requests on a new link.
    fn introduction<D: Downstream>(&self, downstream: &D) -> VecDeque<LinkRequest> {
        let hello = link_request::Kind::Hello(LinkHello {
            bridge: self.name.clone(),
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let mut outgoing = VecDeque::from([LinkRequest { kind: Some(hello) }]);
        outgoing.extend(self.interests.link());
        // Before the requests that wait until a tenant is replayed.
        outgoing.extend(self.reports.link(|| downstream.ready_sessions()));
        outgoing.extend(self.interests.additions());
        outgoing
    }

    /// Links to the current server and serves the link until it is lost.
    async fn hold<D: Downstream>(&self, downstream: &D) -> Result<(), Lost> {
        let (mut link, silence_max) = self.connect(downstream).await?;
        let mut outgoing = self.introduction(downstream);
        self.up.store(true, Ordering::Release);
        self.links.fetch_add(1, Ordering::Relaxed);
        let requests = link.requests.clone();
        let mut sweeps = tokio::time::interval(SWEEP_INTERVAL);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            // While the server does not accept requests, the remaining ones stay with their
            // sources.
            let has_room = outgoing.len() < OUTGOING_MAX;
            tokio::select! {
                response = link.next() => {
                    heard = Instant::now();
                    let Some(response) = response? else { return Ok(()) };
                    self.take(response, &mut link, downstream).await?;
                }
                permit = requests.reserve(), if !outgoing.is_empty() => {
                    let permit = permit.map_err(|_| "the link is closed".to_owned())?;
                    if let Some(request) = outgoing.pop_front() {
                        permit.send(request);
                    }
                }
                () = self.interests.changed(), if has_room => outgoing.extend(self.interests.additions()),
                () = self.reports.changed(), if has_room => outgoing.extend(self.reports.take()),
                stats = downstream.report(), if has_room => {
                    outgoing.push_back(LinkRequest { kind: Some(link_request::Kind::Stats(stats)) });
                }
                _ = sweeps.tick() => {
                    if has_room {
                        outgoing.extend(self.interests.drops());
                    }
                    if heard.elapsed() > silence_max {
                        return Err(format!("the server was silent for {silence_max:?}").into());
                    }
                    if self.reports.are_too_many() {
                        return Err("the server does not take the changes of sessions".into());
                    }
                }
            }
        }
    }

    /// Handles a response and those that have already arrived after it; events of one tenant go
    /// together.
    async fn take<D: Downstream>(
        &self,
        first: LinkResponse,
        link: &mut edge::Link,
        downstream: &D,
    ) -> Result<(), Lost> {
        let mut next = Some(first);
        let mut gathered = Gathered::default();
        for taken in 1.. {
            let Some(response) = next.take() else { break };
            match response.kind {
                Some(link_response::Kind::Events(batch)) => {
                    self.gather(batch, &mut gathered, downstream).await?
                }
                other => {
                    self.deliver(&mut gathered, downstream).await;
                    self.control(other, link, downstream);
                }
            }
            if taken == DRAIN_MAX {
                break;
            }
            // A link that ended or failed is noticed at the next wait.
            next = match link.next().now_or_never() {
                Some(Ok(response)) => response,
                Some(Err(error)) => {
                    self.deliver(&mut gathered, downstream).await;
                    return Err(error.into());
                }
                None => None,
            };
        }
        self.deliver(&mut gathered, downstream).await;
        Ok(())
    }

    async fn gather<D: Downstream>(
        &self,
        batch: EventBatch,
        gathered: &mut Gathered,
        downstream: &D,
    ) -> Result<(), Lost> {
        if gathered.tenant.as_ref().is_none_or(|tenant| tenant.as_str() != batch.tenant) {
            self.deliver(gathered, downstream).await;
            gathered.tenant = Some(Tenant::new(&batch.tenant).map_err(|e| e.to_string())?);
        }
        gathered.cursor = batch.cursor;
        gathered.events.extend(batch.events.into_iter().map(|event| Arc::new(Event::new(event))));
        Ok(())
    }

    async fn deliver<D: Downstream>(&self, gathered: &mut Gathered, downstream: &D) {
        let Some(tenant) = gathered.tenant.take() else { return };
        let mut rest = std::mem::take(&mut gathered.events);
        while !rest.is_empty() {
            let later = rest.split_off(self.round(&rest));
            downstream.deliver(&tenant, rest);
            rest = later;
            downstream.settle().await;
        }
        self.interests.reach(&tenant, std::mem::take(&mut gathered.cursor));
    }

    /// How many events are delivered in one write.
    fn round(&self, events: &[Arc<Event>]) -> usize {
        let mut bytes = 0;
        let fits = events.iter().take(ROUND_EVENTS_MAX).take_while(|event| {
            bytes += event.len();
            bytes <= self.round_bytes_max
        });
        fits.count().max(1)
    }

    fn control<D: Downstream>(&self, kind: Option<link_response::Kind>, link: &edge::Link, downstream: &D) {
        match kind {
            Some(link_response::Kind::Applied(applied)) => {
                if let Some((tenant, why)) = self.interests.apply(applied) {
                    downstream.end_all(&tenant, &why);
                }
            }
            Some(link_response::Kind::Sessions(applied)) => self.reports.apply(applied),
            Some(link_response::Kind::Kept(kept)) => self.reports.note_durable(&kept),
            Some(link_response::Kind::End(end)) => downstream.end(end),
            Some(link_response::Kind::Leave(leave)) => downstream.leave(leave),
            Some(link_response::Kind::Revocations(list)) => downstream.revoke(&list.revocations),
            Some(link_response::Kind::Inspect(question)) => {
                let kind = link_request::Kind::Inspected(downstream.inspect(question));
                // If there is no room for the answer, it is not sent.
                let _full = link.requests.try_send(LinkRequest { kind: Some(kind) });
            }
            Some(link_response::Kind::Reset(reset)) => {
                let Ok(tenant) = Tenant::new(&reset.tenant) else { return };
                tracing::warn!(
                    tenant = reset.tenant,
                    "events were lost to this bridge; its sessions start anew"
                );
                self.interests.reach(&tenant, reset.cursor);
                let message = "events were lost; connect again and read current state";
                downstream.end_all(&tenant, &Refusal::new(Reason::Reset, message));
            }
            Some(
                link_response::Kind::Welcome(_)
                | link_response::Kind::Heartbeat(_)
                | link_response::Kind::Events(_),
            )
            | None => {}
        }
    }
}

/// Events of one tenant that are delivered together.
#[derive(Debug, Default)]
struct Gathered {
    tenant: Option<Tenant>,
    cursor: String,
    events: Vec<Arc<Event>>,
}
