//! `fanfare.v1.Edge`: the stream and the calls of bridges.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use fanfare_proto::{
    cursor::Cursor,
    room::{Room, Tenant, shown},
    token::{Identity, Scope},
    v1::{
        CallRequest, CallResponse, Delivery, Greeting, Interest, InterestApplied, LinkHeartbeat, LinkRequest,
        LinkReset, LinkResponse, LinkWelcome, RecoverRequest, RecoverResponse, Recovered, ReplayRequest,
        SessionChange, SessionChanges, SessionOpened, SessionsApplied, SessionsKept, call_response,
        link_request, link_response, session_change,
    },
};
use futures_util::{FutureExt as _, stream};
use http::Response;
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming, body::Body, server::Grpc};
use tower::service_fn;

use super::{
    REQUEST_BYTES_MAX, Services,
    codec::{Frame, FrameCodec},
    realtime::ResponseStream,
};
use crate::{
    auth,
    bridges::Linked,
    error::Refusal,
    hub::{self, Inbox, Subscription},
    presence::{self, Presence},
};

/// Rooms of one link. A bridge that resumes names all of a tenant's at once.
const LINK_ROOMS_MAX: usize = 1_000_000;
/// A link's reports that are not on the disk yet and are answered one by one.
const KEEPING_MAX: usize = 1024;
/// Rooms of a replay: those of one session.
const REPLAY_ROOMS_MAX: usize = 10_000;
/// How long the end of a link waits for events that were taken and are not in the log yet.
const FINISH_MAX: Duration = Duration::from_secs(3);
/// The largest request, in bytes: so many rooms of an ordinary length.
pub(super) const LINK_REQUEST_BYTES_MAX: usize = 64 << 20;

pub(super) async fn call(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: CallRequest,
) -> Result<CallResponse, Refusal> {
    auth::require(&identity, Scope::Bridge)?;
    let tenant = request.caller.as_ref().map(|c| c.tenant.as_str()).unwrap_or_default();
    auth::tenant(&identity, tenant)?;
    let result = match services.calls.emitted(&request).await {
        Ok(ok) => call_response::Result::Ok(ok),
        Err(refusal) => call_response::Result::Error((&refusal).into()),
    };
    Ok(CallResponse { result: Some(result) })
}

pub(super) async fn replay(services: Arc<Services>, request: http::Request<Body>) -> Response<Body> {
    let method = service_fn(move |request: Request<ReplayRequest>| {
        let services = services.clone();
        async move {
            let identity = services.identify(request.metadata())?;
            auth::require(&identity, Scope::Bridge)?;
            let page = page(&services, &identity, request.into_inner()).await?;
            Ok::<_, Status>(tonic::Response::new(page))
        }
        .boxed()
    });
    let codec = FrameCodec::<ReplayRequest>::default();
    Grpc::new(codec).max_decoding_message_size(REQUEST_BYTES_MAX).unary(method, request).await
}

pub(super) async fn recover(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: RecoverRequest,
) -> Result<RecoverResponse, Refusal> {
    auth::require(&identity, Scope::Bridge)?;
    let caller = request.caller.unwrap_or_default();
    let tenant = auth::tenant(&identity, &caller.tenant)?;
    let Some(found) = services.presence.recoverable(&caller, &request.pid, &request.after) else {
        return Ok(RecoverResponse { recovered: None });
    };
    // What the log cannot give cannot be recovered: never a part of it.
    match services.engine.read(&tenant, &hub::Interest::default(), found.after, 1).await {
        Ok(_) => {}
        Err(Refusal::Reset(_)) => return Ok(RecoverResponse { recovered: None }),
        Err(other) => return Err(other),
    }
    let (session_id, rooms, after) = (found.session_id, found.rooms, found.after);
    services.presence.let_go(&caller, &request.pid, &session_id, &request.instance);
    let rooms = rooms.iter().map(|room| room.as_str().to_owned()).collect();
    Ok(RecoverResponse { recovered: Some(Recovered { session_id, rooms, after: after.to_string() }) })
}

/// One page of a tenant's log.
async fn page(services: &Services, identity: &Identity, request: ReplayRequest) -> Result<Frame, Refusal> {
    let tenant = auth::tenant(identity, &request.tenant)?;
    let rooms = super::rooms(&request.rooms, REPLAY_ROOMS_MAX)?;
    let Some(after) = Cursor::after(&request.after)? else {
        let cursor = services.engine.head(&tenant).await?.to_string();
        return Ok(Frame::Replay { events: Vec::new(), cursor, more: false });
    };
    // As a subscription that is not kept: what is recent comes from the window, the rest from the log.
    let inbox = Arc::new(Inbox::default());
    let engine = services.engine.clone();
    let open = Subscription::open(&services.hub, engine, &tenant, rooms, Some(after), &inbox, 0);
    let batch = open.await?.next().await?;
    let events = batch.events.into_iter().filter(|event| !event.is_ephemeral()).collect();
    Ok(Frame::Replay { events, cursor: batch.cursor.to_string(), more: batch.more })
}

pub(super) async fn link(services: Arc<Services>, request: http::Request<Body>) -> Response<Body> {
    let method = service_fn(move |request: Request<Streaming<LinkRequest>>| {
        let services = services.clone();
        async move {
            let identity = services.identify(request.metadata())?;
            auth::require(&identity, Scope::Bridge)?;
            let link = Link::new(services, identity, request.into_inner());
            let responses: ResponseStream<Frame> = Box::pin(stream::unfold(link, Link::step));
            Ok::<_, Status>(tonic::Response::new(responses))
        }
        .boxed()
    });
    let codec = FrameCodec::<LinkRequest>::default();
    Grpc::new(codec).max_decoding_message_size(LINK_REQUEST_BYTES_MAX).streaming(method, request).await
}

/// One bridge's stream. The transport pulls it; a bridge that does not read is not read for.
struct Link {
    services: Arc<Services>,
    identity: Arc<Identity>,
    requests: Streaming<LinkRequest>,
    sessions: Sessions,
    linked: Linked,
    inbox: Arc<Inbox>,
    tenants: HashMap<Tenant, u64>,
    subscriptions: HashMap<u64, Followed>,
    next_key: u64,
    rooms: usize,
    /// Subscriptions with more to read.
    ready: VecDeque<u64>,
    /// Whether it is the turn of those, or of everything else.
    reads: bool,
    /// Rooms that are added once their tenant has been read to its end. No other request is taken before.
    joining: Option<Joining>,
    /// The bridge's reports that are not on the disk yet: their numbers for [`Presence::kept`], and the bridge's own.
    keeping: VecDeque<(u64, u64)>,
    pending: VecDeque<Frame>,
    heartbeat: Interval,
    finishes: bool,
    ended: bool,
}

/// The link's part in presence, which ends with it.
struct Sessions {
    presence: Arc<Presence>,
    link: Arc<presence::Link>,
    closing: CancellationToken,
}

impl Drop for Sessions {
    fn drop(&mut self) {
        // When the server goes, its sessions do not: they will be told of to the next one.
        if !self.closing.is_cancelled() {
            self.presence.unlink(&self.link);
        }
    }
}

/// A change of the rooms of a tenant that is followed.
struct Joining {
    key: u64,
    tenant: Tenant,
    add: Vec<Room>,
    drop: Vec<Room>,
    r#ref: u64,
}

struct Followed {
    subscription: Subscription,
    /// How many rooms it has.
    rooms: usize,
    /// The last cursor the bridge was told.
    told: Cursor,
}

fn frame(kind: link_response::Kind) -> Frame {
    Frame::message(&LinkResponse { kind: Some(kind) })
}

fn parse(rooms: &[String]) -> Result<Vec<Room>, Refusal> {
    Ok(rooms.iter().map(|room| Room::new(room)).collect::<Result<_, _>>()?)
}

/// Resolves when the first of these reports is kept; gives the number up to which all are.
async fn kept(presence: &Presence, keeping: &VecDeque<(u64, u64)>) -> u64 {
    match keeping.front() {
        Some((number, _)) => presence.kept(*number).await,
        None => std::future::pending().await,
    }
}

impl Link {
    fn new(services: Arc<Services>, identity: Arc<Identity>, requests: Streaming<LinkRequest>) -> Self {
        let period = services.heartbeat_interval;
        let heartbeat = services.heartbeat();
        let welcome = LinkWelcome {
            server: services.name.clone(),
            heartbeat_millis: u32::try_from(period.as_millis()).unwrap_or(u32::MAX),
            namespaces: Vec::new(),
            recovers: true,
        };
        let sessions = Sessions {
            link: services.presence.link(),
            presence: services.presence.clone(),
            closing: services.closing.clone(),
        };
        let linked = services.bridges.link(sessions.link.number());
        Self {
            services,
            identity,
            requests,
            sessions,
            linked,
            inbox: Arc::default(),
            tenants: HashMap::new(),
            subscriptions: HashMap::new(),
            next_key: 0,
            rooms: 0,
            ready: VecDeque::new(),
            reads: false,
            joining: None,
            keeping: VecDeque::new(),
            pending: VecDeque::from([frame(link_response::Kind::Welcome(welcome))]),
            heartbeat,
            finishes: false,
            ended: false,
        }
    }

    async fn step(mut self) -> Option<(Result<Frame, Status>, Self)> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(frame) = self.pending.pop_front() {
                return Some((Ok(frame), self));
            }
            match self.fill().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(status) => {
                    self.ended = true;
                    return Some((Err(status), self));
                }
            }
        }
    }

    /// Waits for something to do and does it; false when the bridge is gone.
    async fn fill(&mut self) -> Result<bool, Status> {
        // In turns: a long catch-up must not keep sessions waiting, nor they the events.
        self.reads = !self.reads;
        if self.reads
            && let Some(key) = self.ready.pop_front()
        {
            let more = self.read(key).await?;
            // It was read to its end: the added rooms count from here.
            if let Some(joining) = self.joining.take_if(|joining| joining.key == key && !more) {
                self.join(joining);
            }
            return Ok(true);
        }
        tokio::select! {
            biased;
            () = self.services.closing.cancelled() => self.finish().await?,
            upto = kept(&self.services.presence, &self.keeping) => {
                let count = self.keeping.partition_point(|(number, _)| *number <= upto);
                if let Some((_, r#ref)) = self.keeping.drain(..count).next_back() {
                    self.pending.push_back(frame(link_response::Kind::Kept(SessionsKept { r#ref })));
                }
            }
            request = self.requests.message(), if self.joining.is_none() => match request? {
                Some(request) => self.request(request).await?,
                None => return Ok(false),
            },
            keys = self.inbox.ready() => self.ready.extend(keys),
            ends = self.sessions.link.ends() => {
                self.pending.extend(ends.into_iter().map(|end| frame(link_response::Kind::End(end))));
            }
            questions = self.linked.bridge.questions() => {
                self.pending.extend(questions.into_iter().map(|one| frame(link_response::Kind::Inspect(one))));
            }
            _ = self.heartbeat.tick() => self.beat().await?,
            () = std::future::ready(()), if !self.ready.is_empty() => {}
        }
        Ok(true)
    }

    /// The server shuts down: everything that was acknowledged is still sent, then the end.
    async fn finish(&mut self) -> Result<(), Refusal> {
        // A producer that does not read its answers must not hold the others' end.
        if !std::mem::replace(&mut self.finishes, true) {
            let _stalled = tokio::time::timeout(FINISH_MAX, self.services.ingest.finished()).await;
        }
        let keys: Vec<u64> = self.subscriptions.keys().copied().collect();
        for key in keys {
            self.read(key).await?;
        }
        if self.pending.is_empty() { Err(Refusal::Shutdown) } else { Ok(()) }
    }

    async fn request(&mut self, request: LinkRequest) -> Result<(), Status> {
        match request.kind {
            Some(link_request::Kind::Hello(hello)) => {
                let bridge = shown(&hello.bridge);
                self.sessions.link.name(&bridge, &hello.instance);
                self.linked.bridge.hello(&hello);
                tracing::info!(bridge, "bridge linked");
            }
            Some(link_request::Kind::Sessions(changes)) => self.changes(changes).await?,
            Some(link_request::Kind::Stats(stats)) => self.linked.bridge.report(stats),
            Some(link_request::Kind::Inspected(answer)) => self.linked.bridge.inspected(answer),
            Some(link_request::Kind::Interest(interest)) => match self.interest(interest).await {
                // One tenant that cannot be served must not cost the others their link.
                Err(
                    refusal @ (Refusal::TooManyTenants(_)
                    | Refusal::OtherTenant { .. }
                    | Refusal::TenantMissing),
                ) => tracing::warn!(%refusal, "an interest was refused"),
                other => other?,
            },
            None => {}
        }
        Ok(())
    }

    /// Takes over what happened to the bridge's sessions.
    async fn changes(&mut self, changes: SessionChanges) -> Result<(), Refusal> {
        let mut greetings = Vec::new();
        for change in changes.changes {
            let presence = &self.services.presence;
            self.services.closing.run_until_cancelled(presence.caught_up()).await;
            self.change(change, &mut greetings).await?;
        }
        let applied = SessionsApplied { r#ref: changes.r#ref, greetings };
        self.pending.push_back(frame(link_response::Kind::Sessions(applied)));
        if self.keeping.len() >= KEEPING_MAX {
            // It is said with the next one.
            self.keeping.pop_back();
        }
        self.keeping.push_back((self.services.presence.reported(), changes.r#ref));
        Ok(())
    }

    async fn change(&self, change: SessionChange, greetings: &mut Vec<Greeting>) -> Result<(), Refusal> {
        let (presence, session_id) = (&self.services.presence, change.session_id);
        match change.kind {
            Some(session_change::Kind::Opened(opened)) => {
                let (events, refused) = match self.opened(&session_id, opened).await {
                    Ok(events) if events.is_empty() => return Ok(()),
                    Ok(events) => (events, None),
                    Err(refusal) => (Vec::new(), Some((&refusal).into())),
                };
                greetings.push(Greeting { session_id, events, refused });
            }
            Some(session_change::Kind::Rooms(change)) => {
                let (entered, left) = (parse(&change.entered)?, parse(&change.left)?);
                presence.rooms(&self.sessions.link, &session_id, &entered, &left, &change.catalog);
            }
            Some(session_change::Kind::Closed(_)) => presence.close(&self.sessions.link, &session_id),
            None => {}
        }
        Ok(())
    }

    /// Takes a session over; gives the events that greet it.
    async fn opened(&self, session_id: &str, opened: SessionOpened) -> Result<Vec<Delivery>, Refusal> {
        let caller = opened.caller.unwrap_or_default();
        let tenant = auth::tenant(&self.identity, &caller.tenant)?;
        if session_id.is_empty() || caller.session_id != session_id {
            return Err(Refusal::Invalid("a session is opened under another id than its caller's".into()));
        }
        let presence = &self.services.presence;
        let head = self.services.engine.head(&tenant).await.map(|head| head.to_string());
        if opened.ready {
            // It is ready, whatever the engine says; without a place in the log it cannot be recovered, that is all.
            let head = head.unwrap_or_default();
            presence.ready(&self.sessions.link, &caller, &opened.pid, &head, &parse(&opened.rooms)?)?;
            return Ok(Vec::new());
        }
        presence.open(&self.sessions.link, &caller, &opened.pid, &head?)?;
        Ok(presence.greet(&caller))
    }

    async fn interest(&mut self, interest: Interest) -> Result<(), Refusal> {
        let tenant = auth::tenant(&self.identity, &interest.tenant)?;
        let held = self.rooms + interest.add.len();
        if held > LINK_ROOMS_MAX || interest.drop.len() > LINK_ROOMS_MAX {
            return Err(Refusal::Invalid(format!(
                "a link has at most {LINK_ROOMS_MAX} rooms; this would be {held}"
            )));
        }
        let (add, drop) = (parse(&interest.add)?, parse(&interest.drop)?);
        let r#ref = interest.r#ref;
        match self.tenants.get(&tenant) {
            Some(key) => {
                self.ready.push_back(*key);
                self.joining = Some(Joining { key: *key, tenant, add, drop, r#ref });
            }
            None => {
                let key = self.follow(&tenant, add, &interest.after).await?;
                self.join(Joining { key, tenant, add: Vec::new(), drop, r#ref });
            }
        }
        Ok(())
    }

    /// Changes the rooms of a tenant that was just read to its end.
    fn join(&mut self, joining: Joining) {
        let Joining { key, tenant, add, drop, r#ref } = joining;
        let Some(followed) = self.subscriptions.get_mut(&key) else { return };
        followed.subscription.add(add);
        followed.subscription.remove(&drop);
        self.rooms = self.rooms - followed.rooms + followed.subscription.room_count();
        followed.rooms = followed.subscription.room_count();
        let cursor = followed.subscription.cursor();
        if r#ref != 0 {
            let applied = InterestApplied {
                r#ref,
                tenant: tenant.as_str().to_owned(),
                cursor: cursor.to_string(),
                refused: None,
            };
            self.pending.push_back(frame(link_response::Kind::Applied(applied)));
            followed.told = cursor;
        }
        if followed.rooms == 0 {
            self.subscriptions.remove(&key);
            self.tenants.remove(&tenant);
        }
    }

    /// Begins to follow a tenant, after the cursor if that is possible.
    async fn follow(&mut self, tenant: &Tenant, rooms: Vec<Room>, after: &str) -> Result<u64, Refusal> {
        let key = self.next_key;
        self.next_key += 1;
        let after = Cursor::after(after)?;
        let services = self.services.clone();
        let (hub, engine) = (&services.hub, &services.engine);
        let open =
            Subscription::open(hub, engine.clone(), tenant, rooms.clone(), after, &self.inbox, key).await;
        let subscription = match open {
            Err(Refusal::Reset(cursor)) => {
                self.reset(tenant, cursor);
                Subscription::open(hub, engine.clone(), tenant, rooms, None, &self.inbox, key).await?
            }
            other => other?,
        };
        let told = subscription.cursor();
        self.tenants.insert(tenant.clone(), key);
        self.subscriptions.insert(key, Followed { subscription, rooms: 0, told });
        Ok(key)
    }

    fn reset(&mut self, tenant: &Tenant, cursor: Cursor) {
        let reset = LinkReset { tenant: tenant.as_str().to_owned(), cursor: cursor.to_string() };
        self.pending.push_back(frame(link_response::Kind::Reset(reset)));
    }

    /// Reads one batch of a tenant; true when there is more at once.
    async fn read(&mut self, key: u64) -> Result<bool, Refusal> {
        let Some(followed) = self.subscriptions.get_mut(&key) else { return Ok(false) };
        let tenant = followed.subscription.tenant().clone();
        match followed.subscription.next().await {
            Ok(batch) => {
                if !batch.events.is_empty() {
                    followed.told = batch.cursor;
                    let (tenant, cursor) = (tenant.as_str().to_owned(), batch.cursor.to_string());
                    self.pending.push_back(Frame::Link { tenant, cursor, events: batch.events });
                }
                if batch.more && !self.ready.contains(&key) {
                    self.ready.push_back(key);
                }
                Ok(batch.more)
            }
            Err(Refusal::Reset(cursor)) => {
                followed.subscription.skip_to_end();
                self.reset(&tenant, cursor);
                Ok(false)
            }
            Err(other) => Err(other),
        }
    }

    /// Says that the server is alive, and how far it has looked in quiet rooms.
    async fn beat(&mut self) -> Result<(), Refusal> {
        self.services.check_expiry(&self.identity)?;
        self.pending.push_back(frame(link_response::Kind::Heartbeat(LinkHeartbeat {})));
        let keys: Vec<u64> = self.subscriptions.keys().copied().collect();
        for key in keys {
            self.read(key).await?;
            let Some(followed) = self.subscriptions.get_mut(&key) else { continue };
            let cursor = followed.subscription.cursor();
            if followed.told != cursor {
                followed.told = cursor;
                let tenant = followed.subscription.tenant().as_str().to_owned();
                self.pending.push_back(Frame::Link {
                    tenant,
                    cursor: cursor.to_string(),
                    events: Vec::new(),
                });
            }
        }
        Ok(())
    }
}
