//! `fanfare.v1.Edge`: the stream and the calls of bridges.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use fanfare_proto::{
    cursor::Cursor,
    room::{Room, Tenant, shown},
    token::{Identity, Scope},
    v1::{
        CallRequest, CallResponse, Interest, InterestApplied, LinkHeartbeat, LinkRequest, LinkReset,
        LinkResponse, LinkWelcome, call_response, link_request, link_response,
    },
};
use futures_util::{FutureExt as _, stream};
use http::Response;
use tokio::time::Interval;
use tonic::{Request, Status, Streaming, body::Body, server::Grpc};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::{
    REQUEST_BYTES_MAX, Services,
    codec::{Frame, FrameCodec},
    realtime::ResponseStream,
};
use crate::{
    auth,
    error::Refusal,
    hub::{Inbox, Subscription},
};

/// Rooms of one link. A bridge that resumes names all of a tenant's at once.
const LINK_ROOMS_MAX: usize = 1_000_000;
/// The largest request, in bytes: so many rooms of an ordinary length.
const LINK_REQUEST_BYTES_MAX: usize = 64 << 20;

pub(super) async fn call(services: Arc<Services>, request: http::Request<Body>) -> Response<Body> {
    let method = service_fn(move |request: Request<CallRequest>| {
        let services = services.clone();
        async move {
            let identity = services.identify(request.metadata())?;
            auth::require(&identity, Scope::Bridge)?;
            let request = request.into_inner();
            let tenant = request.caller.as_ref().map(|c| c.tenant.as_str()).unwrap_or_default();
            auth::tenant(&identity, tenant)?;
            let result = match services.calls.run(&request) {
                Ok(ok) => call_response::Result::Ok(ok),
                Err(error) => call_response::Result::Error(error),
            };
            Ok::<_, Status>(tonic::Response::new(CallResponse { result: Some(result) }))
        }
        .boxed()
    });
    let codec = ProstCodec::<CallResponse, CallRequest>::default();
    Grpc::new(codec).max_decoding_message_size(REQUEST_BYTES_MAX).unary(method, request).await
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
    inbox: Arc<Inbox>,
    tenants: HashMap<Tenant, u64>,
    subscriptions: HashMap<u64, Followed>,
    next_key: u64,
    rooms: usize,
    /// Subscriptions with more to read.
    ready: VecDeque<u64>,
    pending: VecDeque<Frame>,
    heartbeat: Interval,
    ended: bool,
}

struct Followed {
    subscription: Subscription,
    /// The last cursor the bridge was told.
    told: Cursor,
}

fn frame(kind: link_response::Kind) -> Frame {
    Frame::message(&LinkResponse { kind: Some(kind) })
}

impl Link {
    fn new(services: Arc<Services>, identity: Arc<Identity>, requests: Streaming<LinkRequest>) -> Self {
        let period = services.heartbeat_interval;
        let heartbeat = services.heartbeat();
        let welcome = LinkWelcome {
            server: services.name.clone(),
            heartbeat_millis: u32::try_from(period.as_millis()).unwrap_or(u32::MAX),
        };
        Self {
            services,
            identity,
            requests,
            inbox: Arc::default(),
            tenants: HashMap::new(),
            subscriptions: HashMap::new(),
            next_key: 0,
            rooms: 0,
            ready: VecDeque::new(),
            pending: VecDeque::from([frame(link_response::Kind::Welcome(welcome))]),
            heartbeat,
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
        if let Some(key) = self.ready.pop_front() {
            self.read(key).await?;
            return Ok(true);
        }
        tokio::select! {
            biased;
            () = self.services.closing.cancelled() => self.finish().await?,
            request = self.requests.message() => match request? {
                Some(request) => self.request(request).await?,
                None => return Ok(false),
            },
            keys = self.inbox.ready() => self.ready.extend(keys),
            _ = self.heartbeat.tick() => self.beat().await?,
        }
        Ok(true)
    }

    /// The server shuts down: everything that was acknowledged is still sent, then the end.
    async fn finish(&mut self) -> Result<(), Refusal> {
        self.services.ingest.finished().await;
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
                tracing::info!(bridge, "bridge linked");
            }
            Some(link_request::Kind::Interest(interest)) => self.interest(interest).await?,
            None => {}
        }
        Ok(())
    }

    async fn interest(&mut self, interest: Interest) -> Result<(), Refusal> {
        let tenant = auth::tenant(&self.identity, &interest.tenant)?;
        let held = self.rooms + interest.add.len();
        if held > LINK_ROOMS_MAX || interest.drop.len() > LINK_ROOMS_MAX {
            return Err(Refusal::Invalid(format!(
                "a link has at most {LINK_ROOMS_MAX} rooms; this would be {held}"
            )));
        }
        let add = interest.add.iter().map(|r| Room::new(r)).collect::<Result<Vec<_>, _>>()?;
        let drop = interest.drop.iter().map(|r| Room::new(r)).collect::<Result<Vec<_>, _>>()?;
        let key = match self.tenants.get(&tenant) {
            Some(key) => {
                let key = *key;
                // To the end first: the added rooms count from there.
                while self.read(key).await? {}
                if let Some(followed) = self.subscriptions.get_mut(&key) {
                    self.rooms -= followed.subscription.room_count();
                    followed.subscription.add(add);
                }
                key
            }
            None => self.follow(&tenant, add, &interest.after).await?,
        };
        let Some(followed) = self.subscriptions.get_mut(&key) else { return Ok(()) };
        followed.subscription.remove(&drop);
        self.rooms += followed.subscription.room_count();
        let cursor = followed.subscription.cursor();
        if interest.r#ref != 0 {
            let applied = InterestApplied {
                r#ref: interest.r#ref,
                tenant: interest.tenant,
                cursor: cursor.to_string(),
            };
            self.pending.push_back(frame(link_response::Kind::Applied(applied)));
            followed.told = cursor;
        }
        if followed.subscription.room_count() == 0 {
            self.subscriptions.remove(&key);
            self.tenants.remove(&tenant);
        }
        Ok(())
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
        self.subscriptions.insert(key, Followed { subscription, told });
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
