//! Tests with a real server on loopback and the bridge's side of a link.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fanfare_proto::{
    catalog::{Builtin, Catalogs},
    cursor::Cursor,
    room::{Room, Tenant},
    signer::{Bearer, Signer},
    token::{KeySource, TokenConfig},
    v1::{
        self, Caller, EngineState, Interest, InterestApplied, LinkRequest, LinkResponse, LinkWelcome, Reason,
        SessionChange, SessionChanges, SessionOpened, edge_client::EdgeClient, link_request, link_response,
        session_change,
    },
};
use futures_util::future::BoxFuture;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Streaming, transport::Channel};

use crate::{
    Config, Limits, Server,
    engine::{
        Appended, Engine, Feed, Followed, Page, ReadLimits, Record, Replaced, Replacement, ServerId, Space,
        StateLimits, StatePage, Watched, memory::MemoryEngine,
    },
    error::Refusal,
    event::{Draft, draft},
    interest,
};

const SECRET: &str = "a-secret-of-the-tests-0123456789abcdef";

/// A running server.
struct World {
    url: String,
    token: String,
    engine: Arc<Flaky>,
    _running: (JoinSet<()>, DropGuard),
}

/// An engine that fails to read the logs of the tenant `bad` while `fails` is set.
#[derive(Debug)]
struct Flaky {
    inner: MemoryEngine,
    fails: AtomicBool,
}

impl Engine for Flaky {
    fn server(&self) -> &ServerId {
        self.inner.server()
    }

    fn append<'a>(
        &'a self,
        tenant: &'a Tenant,
        batch: Vec<Draft>,
    ) -> BoxFuture<'a, Result<Vec<Appended>, Refusal>> {
        self.inner.append(tenant, batch)
    }

    fn read<'a>(
        &'a self,
        tenant: &'a Tenant,
        interest: &'a interest::Interest,
        after: Cursor,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Page, Refusal>> {
        // The check whether the log reaches back names no room and does not fail.
        if self.fails.load(Ordering::SeqCst) && tenant.as_str() == "bad" && !interest.is_empty() {
            return Box::pin(async { Err(Refusal::Storage("read")) });
        }
        self.inner.read(tenant, interest, after, limits)
    }

    fn head<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Cursor, Refusal>> {
        self.inner.head(tenant)
    }

    fn cursor_at<'a>(&'a self, tenant: &'a Tenant, seq: u64) -> BoxFuture<'a, Result<Cursor, Refusal>> {
        self.inner.cursor_at(tenant, seq)
    }

    fn state_entries<'a>(
        &'a self,
        tenant: &'a Tenant,
        room: &'a Room,
        after: Option<&'a str>,
        limits: StateLimits,
    ) -> BoxFuture<'a, Result<StatePage, Refusal>> {
        self.inner.state_entries(tenant, room, after, limits)
    }

    fn follow<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Followed, Refusal>> {
        self.inner.follow(tenant)
    }

    fn tenants(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Tenant>, Refusal>> {
        self.inner.tenants(limit)
    }

    fn record<'a>(
        &'a self,
        space: &'a Space,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Record>, Refusal>> {
        self.inner.record(space, key)
    }

    fn replace<'a>(
        &'a self,
        space: &'a Space,
        key: &'a str,
        replacement: Replacement,
    ) -> BoxFuture<'a, Result<Replaced, Refusal>> {
        self.inner.replace(space, key, replacement)
    }

    fn records<'a>(&'a self, space: &'a Space) -> BoxFuture<'a, Result<Watched, Refusal>> {
        self.inner.records(space)
    }

    fn signal<'a>(&'a self, to: Option<&'a ServerId>, bytes: Bytes) -> BoxFuture<'a, Result<(), Refusal>> {
        self.inner.signal(to, bytes)
    }

    fn signals(&self) -> BoxFuture<'_, Result<Feed<Bytes>, Refusal>> {
        self.inner.signals()
    }

    fn state(&self) -> BoxFuture<'_, EngineState> {
        self.inner.state()
    }

    fn sweep(&self) -> BoxFuture<'_, ()> {
        self.inner.sweep()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

impl World {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let tokens = TokenConfig { keys: vec![KeySource::Secret(SECRET.into())], ..TokenConfig::default() };
        let bearer = Bearer { tenant: "*", user_id: "bridge", scopes: &["bridge"], ..Bearer::default() };
        let (token, _) = Signer::new(SECRET, &tokens).sign(bearer, Duration::from_secs(600)).unwrap();
        let catalogs = Arc::new(Catalogs::builtin().unwrap());
        let mut config = Config::new("127.0.0.1:0".parse().unwrap(), catalogs, tokens);
        change(&mut config);
        let inner = MemoryEngine::new(config.retention, config.limits);
        let engine = Arc::new(Flaky { inner, fails: AtomicBool::new(false) });
        let server = Server::bind_on(config, engine.clone()).await.unwrap();
        let url = format!("http://{}", server.local_addr());
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            server.run(stopped, Duration::from_secs(1)).await.unwrap();
        });
        Self { url, token, engine, _running: (tasks, stop.drop_guard()) }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let token = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", token);
        request
    }

    async fn client(&self) -> EdgeClient<Channel> {
        EdgeClient::connect(self.url.clone()).await.unwrap()
    }

    async fn link(&self) -> (Bridge, LinkWelcome) {
        let (requests, receiver) = mpsc::channel(64);
        let request = self.request(ReceiverStream::new(receiver));
        let responses = self.client().await.link(request).await.unwrap().into_inner();
        let mut bridge = Bridge { requests, responses };
        let link_response::Kind::Welcome(welcome) = bridge.next().await else { panic!("no welcome") };
        (bridge, welcome)
    }

    /// Appends an event to the room `org` of a tenant.
    async fn append(&self, tenant: &str) -> String {
        let kind = Catalogs::builtin().unwrap().event("messenger.v1.UserOnline").unwrap().clone();
        let draft = Draft { kind, ..draft(tenant, "", 0) };
        let appended = self.engine.append(&draft.tenant.clone(), vec![draft]).await.unwrap();
        appended[0].receipt().id
    }
}

/// One link, seen from the bridge.
struct Bridge {
    requests: mpsc::Sender<LinkRequest>,
    responses: Streaming<LinkResponse>,
}

impl Bridge {
    async fn next(&mut self) -> link_response::Kind {
        self.responses.message().await.unwrap().expect("the link goes on").kind.unwrap()
    }

    async fn send(&self, kind: link_request::Kind) {
        self.requests.send(LinkRequest { kind: Some(kind) }).await.unwrap();
    }

    async fn want(&self, r#ref: u64, tenant: &str, rooms: &[&str], after: &str) {
        let add = rooms.iter().map(|room| (*room).to_owned()).collect();
        let interest = Interest { r#ref, tenant: tenant.into(), add, drop: Vec::new(), after: after.into() };
        self.send(link_request::Kind::Interest(interest)).await;
    }

    /// The next answer to an Interest. Earlier responses are skipped.
    async fn applied(&mut self) -> InterestApplied {
        loop {
            if let link_response::Kind::Applied(applied) = self.next().await {
                return applied;
            }
        }
    }

    /// The ids of the next events of a tenant.
    async fn events(&mut self, tenant: &str, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            if let link_response::Kind::Events(batch) = self.next().await {
                assert_eq!(batch.tenant, tenant);
                ids.extend(batch.events.into_iter().map(|event| event.id));
            }
        }
        ids
    }

    async fn open(&self, r#ref: u64, tenant: &str, session_id: &str) {
        let caller = Caller {
            tenant: tenant.into(),
            user_id: "42".into(),
            session_id: session_id.into(),
            ..Caller::default()
        };
        let opened = SessionOpened { caller: Some(caller), ..SessionOpened::default() };
        let kind = Some(session_change::Kind::Opened(opened));
        let changes = vec![SessionChange { session_id: session_id.into(), kind }];
        self.send(link_request::Kind::Sessions(SessionChanges { r#ref, changes })).await;
    }

    async fn greeting(&mut self) -> v1::Greeting {
        loop {
            if let link_response::Kind::Sessions(applied) = self.next().await {
                return applied.greetings.into_iter().next().unwrap();
            }
        }
    }
}

fn reason(applied: &InterestApplied) -> Option<Reason> {
    applied.refused.as_ref().map(v1::CallError::reason)
}

#[tokio::test]
async fn a_refused_interest_is_answered_with_the_reason_and_leaves_the_link_as_it_was() {
    let limits = Limits { tenants_max: 1, ..Limits::default() };
    let world = World::start(|config| config.limits = limits).await;
    let (mut bridge, _) = world.link().await;
    bridge.want(1, "a", &["org"], "").await;
    assert_eq!(reason(&bridge.applied().await), None);
    bridge.want(2, "b", &["org"], "").await;
    let refused = bridge.applied().await;
    assert_eq!((refused.r#ref, refused.tenant.as_str()), (2, "b"));
    assert_eq!(reason(&refused), Some(Reason::Limit));
    for (r#ref, tenant, room, wanted) in [
        (3, "", "org", Reason::InvalidArgument),
        (4, "a", "no room", Reason::InvalidArgument),
        (5, "b", "no room", Reason::InvalidArgument),
    ] {
        bridge.want(r#ref, tenant, &["chat:1", room], "").await;
        let refused = bridge.applied().await;
        assert_eq!((refused.r#ref, reason(&refused)), (r#ref, Some(wanted)), "{room:?} of {tenant:?}");
    }
    let sent = world.append("a").await;
    assert_eq!(bridge.events("a", 1).await, [sent], "the tenant that is followed still is");
    assert_eq!(world.engine.tenants(9).await.unwrap().len(), 1, "the other has left no log");
}

#[tokio::test]
async fn a_session_of_one_tenant_too_many_is_refused_at_once() {
    let limits = Limits { tenants_max: 1, ..Limits::default() };
    let world = World::start(|config| config.limits = limits).await;
    let (mut bridge, _) = world.link().await;
    bridge.open(1, "a", "s1").await;
    assert_eq!(bridge.greeting().await.refused, None);
    bridge.open(2, "b", "s2").await;
    let refused = bridge.greeting().await;
    assert_eq!(refused.session_id, "s2");
    assert_eq!(refused.refused.unwrap().reason(), Reason::Limit);
}

#[tokio::test]
async fn a_tenant_that_cannot_be_read_is_tried_again_and_holds_up_no_other() {
    // A window of one event: the others come from the log.
    let limits = Limits { window_events_max: 1, ..Limits::default() };
    let world = World::start(|config| config.limits = limits).await;
    let bad = Tenant::new("bad").unwrap();
    let begin = world.engine.head(&bad).await.unwrap().to_string();
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(world.append("bad").await);
    }
    world.engine.fails.store(true, Ordering::SeqCst);
    let (mut bridge, _) = world.link().await;
    bridge.want(1, "bad", &["org"], &begin).await;
    assert_eq!(reason(&bridge.applied().await), None);
    // Its log cannot be read to the end, so nothing can be added.
    bridge.want(2, "bad", &["chat:1"], "").await;
    let refused = bridge.applied().await;
    assert_eq!((refused.r#ref, reason(&refused)), (2, Some(Reason::Unavailable)));
    bridge.want(3, "good", &["org"], "").await;
    assert_eq!(bridge.applied().await.r#ref, 3);
    let good = world.append("good").await;
    assert_eq!(bridge.events("good", 1).await, [good]);
    world.engine.fails.store(false, Ordering::SeqCst);
    assert_eq!(bridge.events("bad", 3).await, sent, "in order, without a gap or a repeat");
    bridge.want(4, "bad", &["chat:1"], "").await;
    assert_eq!(reason(&bridge.applied().await), None);
}

#[tokio::test]
async fn the_welcome_names_the_namespaces_and_calls_are_looked_up_in_them() {
    let defaults = ["chat.v1".to_owned()];
    let catalogs = Arc::new(Catalogs::load_served(Builtin::All, &[], &defaults).unwrap());
    let world = World::start(|config| config.catalogs = catalogs).await;
    let (_bridge, welcome) = world.link().await;
    let of = |name: &str| {
        let found = welcome.namespaces.iter().find(|namespace| namespace.name == name);
        found.map(|namespace| namespace.catalogs.clone()).unwrap_or_default()
    };
    assert_eq!((of("/"), of("/messenger")), (vec!["chat.v1".into()], vec!["messenger.v1".into()]));
    for (namespace, wanted) in [("/messenger", None), ("", Some(Reason::UnknownEvent))] {
        let caller = Caller {
            tenant: "a".into(),
            user_id: "42".into(),
            session_id: "s".into(),
            transport: v1::Transport::Socketio.into(),
            namespace: namespace.into(),
            ..Caller::default()
        };
        let request = v1::CallRequest {
            caller: Some(caller),
            name: "subscribe:chat".into(),
            json: r#"{"chatId":7}"#.into(),
        };
        let answer = world.client().await.call(world.request(request)).await.unwrap().into_inner();
        let refused = match answer.result.unwrap() {
            v1::call_response::Result::Ok(ok) => {
                assert_eq!((ok.join, ok.catalog.as_str()), (vec!["chat:7".into()], "messenger.v1"));
                None
            }
            v1::call_response::Result::Error(error) => Some(error.reason()),
        };
        assert_eq!(refused, wanted, "in {namespace:?}");
    }
}

#[tokio::test]
async fn the_welcome_says_whether_sessions_can_be_recovered() {
    let with = World::start(|_| ()).await;
    assert!(with.link().await.1.recovers);
    let without = World::start(|config| config.presence.recovery_window = Duration::ZERO).await;
    let (bridge, welcome) = without.link().await;
    assert!(!welcome.recovers);
    bridge.open(1, "a", "s").await;
    let caller =
        Caller { tenant: "a".into(), user_id: "42".into(), session_id: "s".into(), ..Caller::default() };
    let request = v1::RecoverRequest { caller: Some(caller), pid: "pid".into(), ..Default::default() };
    let answer = without.client().await.recover(without.request(request)).await.unwrap().into_inner();
    assert_eq!(answer.recovered, None);
}
