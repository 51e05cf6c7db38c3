//! The stream of one bridge: the rooms it follows, and their events.
//!
//! A tenant that cannot be served does not affect the others: its request is refused or its read is
//! retried, and the others continue.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use fanfare_proto::{
    catalog::Namespace,
    cursor::Cursor,
    room::{Room, Tenant, shown},
    token::Identity,
    v1::{
        self, Interest, InterestApplied, LinkHeartbeat, LinkRequest, LinkReset, LinkResponse, LinkWelcome,
        Revocations, SessionsApplied, link_request, link_response,
    },
};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{
    sync::watch,
    time::{Instant, Interval},
};
use tonic::{Status, Streaming};

use super::{
    super::{Services, codec::Frame},
    sessions::{Reports, Sessions},
};
use crate::{
    auth,
    bridges::Linked,
    error::Refusal,
    hub::{Inbox, Subscription},
};

/// Rooms of one link. A bridge that resumes sends all rooms of a tenant in one request.
const LINK_ROOMS_MAX: usize = 1_000_000;
/// How long the end of a link waits for accepted events that are not in the log yet.
const FINISH_MAX: Duration = Duration::from_secs(3);
/// Revocations per message.
const REVOCATIONS_AT_ONCE: usize = 1000;
/// The pause before a failed read of a tenant is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// One bridge's stream. The transport pulls it: while a bridge does not read, nothing is read for
/// it.
pub(super) struct Link {
    services: Arc<Services>,
    identity: Arc<Identity>,
    requests: Streaming<LinkRequest>,
    sessions: Arc<Sessions>,
    /// A report of the bridge that is being applied. The next request is read only after that.
    applying: Option<BoxFuture<'static, (u64, Result<SessionsApplied, Refusal>)>>,
    linked: Linked,
    inbox: Arc<Inbox>,
    tenants: HashMap<Tenant, u64>,
    subscriptions: HashMap<u64, Followed>,
    next_key: u64,
    rooms: usize,
    /// Subscriptions with more to read.
    ready: VecDeque<u64>,
    /// Whether this turn reads a ready subscription. Such turns alternate with all other work.
    reads: bool,
    /// Subscriptions whose last read failed. They are retried at `retry_at`.
    failing: HashSet<u64>,
    retry_at: Option<Instant>,
    /// Rooms that are added once their tenant has been read to its end. Until then, no other
    /// request is read.
    joining: Option<Joining>,
    reports: Reports,
    pending: VecDeque<Frame>,
    heartbeat: Interval,
    revocations: watch::Receiver<u64>,
    /// The number of the last revocation that was sent to the bridge.
    revoked: u64,
    finishes: bool,
    ended: bool,
}

/// A change of the rooms of a followed tenant.
struct Joining {
    key: u64,
    add: Vec<Room>,
    drop: Vec<Room>,
    r#ref: u64,
}

struct Followed {
    subscription: Subscription,
    /// The number of rooms that the subscription has.
    rooms: usize,
    /// The last cursor that was sent to the bridge.
    told: Cursor,
}

/// The outcome of one read.
enum Reached {
    /// More can be read immediately.
    Middle,
    End,
    /// The tenant could not be read. The read is retried.
    Nothing(Refusal),
}

fn frame(kind: link_response::Kind) -> Frame {
    Frame::message(&LinkResponse { kind: Some(kind) })
}

fn namespace(of: &Namespace) -> v1::Namespace {
    v1::Namespace { name: of.name.clone(), catalogs: of.catalogs.clone() }
}

pub(super) fn parse(rooms: &[String]) -> Result<Vec<Room>, Refusal> {
    Ok(rooms.iter().map(|room| Room::new(room)).collect::<Result<_, _>>()?)
}

/// Resolves when a report is applied; never without one.
async fn applied<T>(applying: &mut Option<BoxFuture<'static, T>>) -> T {
    match applying {
        Some(applying) => applying.await,
        None => std::future::pending().await,
    }
}

/// Resolves at this time; never without one.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Link {
    pub(super) fn new(
        services: Arc<Services>,
        identity: Arc<Identity>,
        requests: Streaming<LinkRequest>,
    ) -> Self {
        let heartbeat = services.heartbeat();
        let mut revocations = services.revoked.changes();
        // The known revocations are sent immediately.
        revocations.mark_changed();
        let period = services.heartbeat_interval.as_millis();
        let welcome = LinkWelcome {
            server: services.name.clone(),
            heartbeat_millis: u32::try_from(period).unwrap_or(u32::MAX),
            namespaces: services.catalogs.namespaces().iter().map(namespace).collect(),
            recovers: services.presence.recovers(),
        };
        let sessions = Arc::new(Sessions::new(&services));
        let linked = services.bridges.link(sessions.link.number());
        Self {
            services,
            identity,
            requests,
            sessions,
            applying: None,
            linked,
            inbox: Arc::default(),
            tenants: HashMap::new(),
            subscriptions: HashMap::new(),
            next_key: 0,
            rooms: 0,
            ready: VecDeque::new(),
            reads: false,
            failing: HashSet::new(),
            retry_at: None,
            joining: None,
            reports: Reports::default(),
            pending: VecDeque::from([frame(link_response::Kind::Welcome(welcome))]),
            heartbeat,
            revocations,
            revoked: 0,
            finishes: false,
            ended: false,
        }
    }

    /// The next frame of the stream; `None` at the end.
    pub(super) async fn step(mut self) -> Option<(Result<Frame, Status>, Self)> {
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

    /// Waits for work and does it; false if the bridge is gone.
    async fn fill(&mut self) -> Result<bool, Status> {
        // Turns alternate, so that a long catch-up does not delay sessions and sessions do not
        // delay events.
        self.reads = !self.reads;
        if self.reads
            && let Some(key) = self.ready.pop_front()
        {
            let reached = self.read(key).await;
            let over = !matches!(reached, Reached::Middle);
            if let Some(joining) = self.joining.take_if(|joining| over && joining.key == key) {
                match reached {
                    Reached::Nothing(refusal) => self.refuse(joining, &refusal),
                    // The tenant was read to its end, so the added rooms are followed from there.
                    Reached::Middle | Reached::End => self.join(joining),
                }
            }
            return Ok(true);
        }
        tokio::select! {
            biased;
            () = self.services.closing.cancelled() => self.finish().await?,
            upto = self.reports.stored(&self.services.presence) => {
                let kept = self.reports.take(upto);
                self.pending.extend(kept.map(|kept| frame(link_response::Kind::Kept(kept))));
            }
            request = self.requests.message(), if self.joining.is_none() && self.applying.is_none() => match request? {
                Some(request) => self.request(request).await?,
                None => return Ok(false),
            },
            (r#ref, applied) = applied(&mut self.applying) => {
                self.applying = None;
                self.reports.push(self.services.presence.reported(), r#ref);
                self.pending.push_back(frame(link_response::Kind::Sessions(applied?)));
            }
            _ = self.revocations.changed() => self.revoke()?,
            () = self.sessions.link.closing.cancelled() => return Err(Refusal::LeaseLost.into()),
            keys = self.inbox.ready() => self.ready.extend(keys),
            (ends, leaves) = self.sessions.link.orders() => {
                self.pending.extend(ends.into_iter().map(|end| frame(link_response::Kind::End(end))));
                self.pending.extend(leaves.into_iter().map(|leave| frame(link_response::Kind::Leave(leave))));
            }
            questions = self.linked.bridge.questions() => {
                self.pending.extend(questions.into_iter().map(|one| frame(link_response::Kind::Inspect(one))));
            }
            _ = self.heartbeat.tick() => self.beat().await?,
            () = reached(self.retry_at) => {
                self.retry_at = None;
                self.ready.extend(&self.failing);
            }
            () = std::future::ready(()), if !self.ready.is_empty() => {}
        }
        Ok(true)
    }

    /// On shutdown: sends everything that was acknowledged, then ends the stream.
    async fn finish(&mut self) -> Result<(), Refusal> {
        // Bounded, because a producer that does not read its answers must not delay the shutdown.
        if !std::mem::replace(&mut self.finishes, true) {
            let finished = async {
                self.services.ingest.finished().await;
                self.services.hub.catch_up().await;
            };
            let _stalled = tokio::time::timeout(FINISH_MAX, finished).await;
        }
        let keys: Vec<u64> = self.subscriptions.keys().copied().collect();
        for key in keys {
            self.read(key).await;
        }
        if self.pending.is_empty() { Err(Refusal::Shutdown) } else { Ok(()) }
    }

    async fn request(&mut self, request: LinkRequest) -> Result<(), Status> {
        match request.kind {
            Some(link_request::Kind::Hello(hello)) => {
                let bridge = shown(&hello.bridge);
                self.sessions.link.introduce(&bridge, &hello.instance);
                self.linked.bridge.hello(&hello);
                tracing::info!(target: "audit", bridge, user.id = auth::sender(&self.identity), "bridge linked");
            }
            Some(link_request::Kind::Sessions(changes)) => {
                let (sessions, identity) = (self.sessions.clone(), self.identity.clone());
                let applied = async move { (changes.r#ref, sessions.apply(identity, changes).await) };
                self.applying = Some(applied.boxed());
            }
            Some(link_request::Kind::Stats(stats)) => self.linked.bridge.report(stats),
            Some(link_request::Kind::Inspected(answer)) => self.linked.bridge.inspected(answer),
            Some(link_request::Kind::Interest(interest)) => {
                let (tenant, r#ref) = (interest.tenant.clone(), interest.r#ref);
                if let Err(refusal) = self.interest(interest).await {
                    self.refused(&tenant, r#ref, &refusal);
                }
            }
            None => {}
        }
        Ok(())
    }

    async fn interest(&mut self, interest: Interest) -> Result<(), Refusal> {
        let tenant = auth::tenant(&self.identity, &interest.tenant)?;
        let key = self.tenants.get(&tenant).copied();
        // Rooms are dropped even if the rooms to add are refused. Invalid rooms were never
        // followed.
        let drop: Vec<Room> = interest.drop.iter().filter_map(|room| Room::new(room).ok()).collect();
        let add = self.added(&interest);
        match (key, add) {
            (Some(key), Ok(add)) => {
                self.ready.push_back(key);
                self.joining = Some(Joining { key, add, drop, r#ref: interest.r#ref });
            }
            (Some(key), Err(refusal)) => {
                self.refuse(Joining { key, add: Vec::new(), drop, r#ref: interest.r#ref }, &refusal);
            }
            (None, add) => {
                let key = self.follow(&tenant, add?, &interest.after).await?;
                self.join(Joining { key, add: Vec::new(), drop, r#ref: interest.r#ref });
            }
        }
        Ok(())
    }

    /// The rooms that a request adds, if they are valid and not too many.
    fn added(&self, interest: &Interest) -> Result<Vec<Room>, Refusal> {
        let held = self.rooms + interest.add.len();
        if held > LINK_ROOMS_MAX || interest.drop.len() > LINK_ROOMS_MAX {
            return Err(Refusal::Invalid(format!(
                "a link has at most {LINK_ROOMS_MAX} rooms; this would be {held}"
            )));
        }
        parse(&interest.add)
    }

    /// Logs and answers a refused request.
    fn refused(&mut self, tenant: &str, r#ref: u64, refusal: &Refusal) {
        tracing::warn!(tenant = shown(tenant), %refusal, "an interest was refused");
        if r#ref == 0 {
            return;
        }
        let (tenant, refused) = (tenant.to_owned(), Some(refusal.into()));
        let applied = InterestApplied { r#ref, tenant, cursor: String::new(), refused };
        self.pending.push_back(frame(link_response::Kind::Applied(applied)));
    }

    /// Refuses a change for a followed tenant: no rooms are added, but rooms are dropped.
    fn refuse(&mut self, joining: Joining, refusal: &Refusal) {
        let Joining { key, drop, r#ref, .. } = joining;
        let Some(followed) = self.subscriptions.get(&key) else { return };
        let tenant = followed.subscription.tenant().as_str().to_owned();
        self.refused(&tenant, r#ref, refusal);
        self.join(Joining { key, add: Vec::new(), drop, r#ref: 0 });
    }

    /// Changes the rooms of a tenant that was just read to its end.
    fn join(&mut self, joining: Joining) {
        let Joining { key, add, drop, r#ref } = joining;
        let Some(followed) = self.subscriptions.get_mut(&key) else { return };
        followed.subscription.add(add);
        followed.subscription.remove(&drop);
        self.rooms = self.rooms - followed.rooms + followed.subscription.room_count();
        followed.rooms = followed.subscription.room_count();
        let (tenant, cursor) = (followed.subscription.tenant().clone(), followed.subscription.cursor());
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
            self.failing.remove(&key);
        }
    }

    /// Begins to follow a tenant: after the cursor, or from the end of the log if the cursor is
    /// lost.
    async fn follow(&mut self, tenant: &Tenant, rooms: Vec<Room>, after: &str) -> Result<u64, Refusal> {
        let key = self.next_key;
        self.next_key += 1;
        let after = Cursor::after(after)?;
        let hub = &self.services.hub;
        let open = |rooms, after| Subscription::open(hub, tenant, rooms, after, &self.inbox, key);
        let (subscription, reset) = match open(rooms.clone(), after).await {
            Err(Refusal::Reset(cursor)) => (open(rooms, None).await?, Some(cursor)),
            other => (other?, None),
        };
        if let Some(cursor) = reset {
            self.reset(tenant, cursor);
        }
        let told = subscription.cursor();
        self.tenants.insert(tenant.clone(), key);
        self.subscriptions.insert(key, Followed { subscription, rooms: 0, told });
        Ok(key)
    }

    fn reset(&mut self, tenant: &Tenant, cursor: Cursor) {
        let reset = LinkReset { tenant: tenant.as_str().to_owned(), cursor: cursor.to_string() };
        self.pending.push_back(frame(link_response::Kind::Reset(reset)));
    }

    /// Reads one batch of a tenant.
    async fn read(&mut self, key: u64) -> Reached {
        let Some(followed) = self.subscriptions.get_mut(&key) else { return Reached::End };
        let tenant = followed.subscription.tenant().clone();
        let read = followed.subscription.next().await;
        let failed_before = self.failing.remove(&key);
        match read {
            Ok(batch) => {
                if !batch.events.is_empty() {
                    followed.told = batch.cursor;
                    let (tenant, cursor) = (tenant.as_str().to_owned(), batch.cursor.to_string());
                    self.pending.push_back(Frame::Link { tenant, cursor, events: batch.events });
                }
                if !batch.more {
                    return Reached::End;
                }
                if !self.ready.contains(&key) {
                    self.ready.push_back(key);
                }
                Reached::Middle
            }
            Err(Refusal::Reset(cursor)) => {
                followed.subscription.skip_to_end();
                self.reset(&tenant, cursor);
                Reached::End
            }
            Err(refusal) => {
                if !failed_before {
                    tracing::warn!(tenant = tenant.as_str(), %refusal, "a tenant cannot be read; it is tried again");
                }
                self.failing.insert(key);
                self.retry_at.get_or_insert_with(|| Instant::now() + RETRY_PAUSE);
                Reached::Nothing(refusal)
            }
        }
    }

    /// Sends new revocations to the bridge. Ends the link if the bridge's own token is revoked.
    fn revoke(&mut self) -> Result<(), Refusal> {
        self.services.revoked.check(&self.identity)?;
        let (revocations, last) = self.services.revoked.after(self.revoked, REVOCATIONS_AT_ONCE);
        if revocations.len() == REVOCATIONS_AT_ONCE {
            self.revocations.mark_changed();
        }
        self.revoked = last;
        if !revocations.is_empty() {
            self.pending.push_back(frame(link_response::Kind::Revocations(Revocations { revocations })));
        }
        Ok(())
    }

    /// Sends a heartbeat and, for tenants without wanted events, the cursor that was reached.
    async fn beat(&mut self) -> Result<(), Refusal> {
        self.services.check_expiry(&self.identity)?;
        self.pending.push_back(frame(link_response::Kind::Heartbeat(LinkHeartbeat {})));
        let keys: Vec<u64> = self.subscriptions.keys().copied().collect();
        for key in keys {
            self.read(key).await;
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
