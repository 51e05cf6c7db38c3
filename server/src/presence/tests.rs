//! Users against a model that scans all sessions for every query, and presence on a real engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fanfare_proto::v1::Transport;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::{
    user::{Context, Transition, User},
    *,
};
use crate::{
    config::{Limits, Retention},
    engine::{Replacement, ServerId, Space, memory::MemoryEngine},
    hub::Hub,
    ingest::Ingest,
};

const GRACE: u64 = 100;
/// A cursor in a log.
const HEAD: &str = "000000000001-5";
const ROOMS: [&str; 4] = ["org", "user:x", "chat:1", "chat:2"];

#[derive(Debug, Clone)]
enum Step {
    /// A session is opening.
    Open {
        session: usize,
        link: u64,
    },
    /// It is ready, and in these rooms in addition to its own.
    Ready {
        session: usize,
        link: u64,
        chats: Vec<usize>,
    },
    Enter {
        session: usize,
        room: usize,
    },
    Leave {
        session: usize,
        room: usize,
    },
    Close {
        session: usize,
    },
    /// Its client ends it.
    End {
        session: usize,
    },
    /// A bridge dies.
    Unlink {
        link: u64,
    },
    Wait {
        millis: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (session, link, chat) = (0..6_usize, 1..3_u64, 2..4_usize);
    let chats = proptest::collection::vec(chat.clone(), 0..2);
    prop_oneof![
        (session.clone(), link.clone()).prop_map(|(session, link)| Step::Open { session, link }),
        (session.clone(), link.clone(), chats).prop_map(|(session, link, chats)| Step::Ready {
            session,
            link,
            chats
        }),
        (session.clone(), chat.clone()).prop_map(|(session, room)| Step::Enter { session, room }),
        (session.clone(), chat).prop_map(|(session, room)| Step::Leave { session, room }),
        session.clone().prop_map(|session| Step::Close { session }),
        session.prop_map(|session| Step::End { session }),
        link.prop_map(|link| Step::Unlink { link }),
        (0..160_u64).prop_map(|millis| Step::Wait { millis }),
    ]
}

/// Two sessions per user.
const fn user(session: usize) -> usize {
    session / 2
}

fn room(index: usize) -> Room {
    Room::new(ROOMS[index]).unwrap()
}

/// A place: a room and a user.
type Place = (usize, usize);

#[derive(Default)]
struct Model {
    now: Duration,
    /// The link and the rooms of each session.
    sessions: BTreeMap<usize, (u64, BTreeSet<usize>)>,
    told: BTreeSet<Place>,
    /// When the last session of an announced user went.
    gone: BTreeMap<Place, Duration>,
    /// The announcements: the place, and whether the user came.
    tells: Vec<(Place, bool)>,
}

impl Model {
    fn is_there(&self, (room, of): Place) -> bool {
        self.sessions.iter().any(|(session, (_, rooms))| user(*session) == of && rooms.contains(&room))
    }

    fn put(&mut self, session: usize, rooms: &[usize]) {
        for room in rooms {
            if let Some((_, own)) = self.sessions.get_mut(&session) {
                own.insert(*room);
                self.gone.remove(&(*room, user(session)));
            }
        }
    }

    fn tell(&mut self, session: usize, rooms: &[usize]) {
        for room in rooms {
            if self.sessions.contains_key(&session) && self.told.insert((*room, user(session))) {
                self.tells.push(((*room, user(session)), true));
            }
        }
    }

    fn close(&mut self, session: usize) {
        let Some((_, rooms)) = self.sessions.remove(&session) else { return };
        for place in rooms.into_iter().map(|room| (room, user(session))) {
            if !self.is_there(place) && self.told.contains(&place) {
                self.gone.insert(place, self.now);
            }
        }
    }

    fn open(&mut self, session: usize, link: u64, rooms: &[usize]) {
        self.close(session);
        self.sessions.insert(session, (link, BTreeSet::new()));
        self.put(session, rooms);
    }

    fn leave(&mut self, session: usize, room: usize) {
        let left = self.sessions.get_mut(&session).is_some_and(|(_, rooms)| rooms.remove(&room));
        let place = (room, user(session));
        if left && !self.is_there(place) && self.told.remove(&place) {
            self.tells.push((place, false));
        }
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        let over: Vec<Place> = self
            .gone
            .iter()
            .filter(|(_, since)| **since + Duration::from_millis(GRACE) <= self.now)
            .map(|(place, _)| *place)
            .collect();
        for place in over {
            self.gone.remove(&place);
            self.told.remove(&place);
            self.tells.push((place, false));
        }
    }

    fn members(&self, room: usize) -> Vec<(usize, usize)> {
        let sessions = |of| {
            let here = |(s, (_, rooms)): &(&usize, &(u64, BTreeSet<usize>))| {
                user(**s) == of && rooms.contains(&room)
            };
            self.sessions.iter().filter(here).count()
        };
        let listed = |of: &usize| sessions(*of) > 0 || self.gone.contains_key(&(room, *of));
        (0..3).filter(listed).map(|of| (of, sessions(of))).collect()
    }
}

/// The records of one tenant's users, changed as a server changes them, and the model.
struct Both {
    server: ServerId,
    index: Index,
    revision: u64,
    told: Vec<(Place, bool)>,
    model: Model,
}

impl Both {
    fn new() -> Self {
        let server = ServerId::random();
        let index = Index::new(server.clone());
        Self { server, index, revision: 0, told: Vec::new(), model: Model::default() }
    }

    fn change(&mut self, of: usize, change: impl FnOnce(&mut User, Context<'_>)) {
        let key = UserKey { tenant: Tenant::new("1").unwrap(), user_id: of.to_string().into() };
        let mut user = self.index.get(&key).map(|known| (*known.user).clone()).unwrap_or_default();
        let now = u64::try_from(self.model.now.as_millis()).unwrap();
        let (nonce, is_published) = (self.revision << 16, |_: &Room, _: &str, _| true);
        let (grace, window, lost_max, sessions_max) = (GRACE, 0, 9, 9);
        let server = &self.server;
        change(
            &mut user,
            Context {
                now,
                server,
                grace,
                window,
                lost_max,
                sessions_max,
                nonce,
                is_published: &is_published,
            },
        );
        let place = |t: &Transition| (ROOMS.iter().position(|r| *r == t.room.as_str()).unwrap(), of);
        self.told.extend(user.pending.drain(..).map(|transition| (place(&transition), transition.came)));
        // A stored record is read back unchanged.
        let stored = record::decode(&record::encode(&user)).unwrap();
        assert_eq!(stored, user);
        self.revision += 1;
        let user = (!stored.is_empty()).then(|| Arc::new(stored));
        self.index.put(&key, user, self.revision, true);
    }

    fn report(&self, session: usize, link: u64, rooms: &[usize]) -> Report {
        let (bridge, instance) = (Arc::default(), link.to_string().into());
        Report {
            session_id: format!("s{session}").into(),
            user_name: Arc::default(),
            pid: Arc::default(),
            transport: Transport::Socketio,
            owner: Owner { server: self.server.clone(), link, bridge, instance },
            head: Arc::default(),
            rooms: rooms.iter().map(|at| room(*at)).collect(),
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Open { session, link } => {
                let report = self.report(*session, *link, &[0, 1]);
                self.change(user(*session), |user, cx| user.open(&report, cx).unwrap());
                self.model.open(*session, *link, &[0, 1]);
            }
            Step::Ready { session, link, chats } => {
                let all = [&[0, 1][..], chats].concat();
                let report = self.report(*session, *link, &all);
                self.change(user(*session), |user, cx| user.ready(&report, cx));
                self.model.open(*session, *link, &all);
                self.model.tell(*session, &all);
            }
            Step::Enter { session, room: at } => {
                let (id, catalog) = (format!("s{session}"), "chat.v1".into());
                self.change(user(*session), |user, cx| user.enter(&id, &[room(*at)], &catalog, cx));
                self.model.put(*session, &[*at]);
                self.model.tell(*session, &[*at]);
            }
            Step::Leave { session, room: at } => {
                let id = format!("s{session}");
                self.change(user(*session), |user, cx| user.leave(&id, &[room(*at)], cx));
                self.model.leave(*session, *at);
            }
            Step::Close { session } => {
                let id = format!("s{session}");
                self.change(user(*session), |user, cx| user.close(&id, cx));
                self.model.close(*session);
            }
            Step::End { session } => {
                let id = format!("s{session}");
                self.change(user(*session), |user, cx| user.end(&id, cx));
                (0..ROOMS.len()).for_each(|room| self.model.leave(*session, room));
                self.model.close(*session);
            }
            Step::Unlink { link } => {
                let server = self.server.clone();
                (0..3).for_each(|of| self.change(of, |user, cx| user.unlink(&server, *link, cx)));
                let of_link = self.model.sessions.iter().filter(|(_, (of, _))| of == link);
                let ids: Vec<usize> = of_link.map(|(id, _)| *id).collect();
                ids.into_iter().for_each(|id| self.model.close(id));
            }
            Step::Wait { millis } => {
                self.model.wait(*millis);
                (0..3).for_each(|of| self.change(of, |user, cx| user.expire(cx)));
            }
        }
    }

    fn compare(&mut self) -> Result<(), TestCaseError> {
        let tenant = Tenant::new("1").unwrap();
        let (mut told, mut wanted) = (std::mem::take(&mut self.told), std::mem::take(&mut self.model.tells));
        told.sort_unstable();
        wanted.sort_unstable();
        prop_assert_eq!(told, wanted);
        for (index, name) in ROOMS.iter().enumerate() {
            let listed = self.index.members(&tenant, &room(index), "", usize::MAX);
            let listed: Vec<_> = listed
                .iter()
                .map(|(user_id, user)| (user_id.parse::<usize>().unwrap(), user.count_in(&room(index))))
                .collect();
            prop_assert_eq!(&listed, &self.model.members(index), "{}", name);
            let sessions = listed.iter().map(|(_, count)| count).sum();
            prop_assert_eq!(self.index.count(&tenant, &room(index)), (listed.len(), sessions));
        }
        prop_assert_eq!(self.index.own_sessions(), self.model.sessions.len());
        Ok(())
    }
}

proptest! {
    #[test]
    fn each_coming_and_going_is_told_once_and_listed_exactly(steps in proptest::collection::vec(step(), 1..60)) {
        let mut both = Both::new();
        for step in &steps {
            both.take(step);
            both.compare()?;
        }
        for session in 0..6 {
            both.take(&Step::Close { session });
        }
        both.take(&Step::Wait { millis: GRACE });
        both.compare()?;
        prop_assert!(both.index.is_empty(), "something was left behind");
    }

    #[test]
    fn no_bytes_make_the_reader_of_records_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _any = record::decode(&bytes);
    }
}

fn presence_of(engine: &MemoryEngine, config: &PresenceConfig) -> Arc<Presence> {
    let catalogs = Catalogs::builtin().unwrap();
    Arc::new(Presence::new(&catalogs, config, Arc::new(engine.clone())).unwrap())
}

fn presence() -> Arc<Presence> {
    presence_of(&MemoryEngine::new(Retention::default(), Limits::default()), &PresenceConfig::default())
}

/// A session of user 42.
fn caller(session_id: &str) -> Caller {
    Caller { tenant: "1".into(), user_id: "42".into(), session_id: session_id.into(), ..Caller::default() }
}

fn key_of(user_id: &str) -> UserKey {
    UserKey { tenant: Tenant::new("1").unwrap(), user_id: user_id.into() }
}

#[test]
fn a_room_is_told_by_the_catalog_whose_call_it_was() {
    let presence = presence();
    let transition = |room: &str, catalog: &str, came| Transition {
        id: 0,
        room: Room::new(room).unwrap(),
        session_id: Arc::default(),
        catalog: catalog.into(),
        came,
        at: 0,
    };
    let names = |room, catalog, came| -> Vec<String> {
        let transition = transition(room, catalog, came);
        let told = presence.announcements.of(&key_of("42"), &User::default(), &transition);
        told.into_iter().map(|one| one.kind.name.clone()).collect()
    };
    assert_eq!(names("chat:7", "messenger.v1", true), ["operator:joined"]);
    assert_eq!(names("chat:7", "chat.v1", false), ["user_left_chat"]);
    assert_eq!(names("org", "", true), ["user_online", "user:online"]);
    assert!(names("chat:seven", "messenger.v1", true).is_empty(), "its chats have numbers");
    assert!(names("user:42", "", true).is_empty());
}

#[tokio::test]
async fn a_session_that_is_ended_for_good_while_it_opens_is_told_again_and_never_recovered() {
    let presence = presence();
    let link = presence.link();
    let (tenant, own) = (Tenant::new("1").unwrap(), Room::user("42").unwrap());
    let end = async |whom: &Whom| presence.disconnect(&tenant, whom, Reason::Disconnected, "").await.unwrap();
    presence.open(&link, &caller("a"), "pid-a", HEAD).await.unwrap();
    assert_eq!(end(&Whom::User(own.clone())).await, 1);
    assert_eq!(link.orders().await.0.len(), 1, "told at once");
    presence.ready(&link, &caller("a"), "pid-a", HEAD, &[Room::org(), own.clone()]).await.unwrap();
    assert_eq!(link.orders().await.0[0].session_id, "a", "told again, now that the bridge has it");
    assert!(presence.recoverable(&caller("a"), "pid-a", "").await.unwrap().is_none());
    presence.close(&link, "a", false).await;
    assert!(presence.recoverable(&caller("a"), "pid-a", "").await.unwrap().is_none());
    // A session that was lost before is released by its id.
    presence.ready(&link, &caller("b"), "pid-b", HEAD, &[Room::org(), own]).await.unwrap();
    presence.close(&link, "b", false).await;
    assert!(presence.recoverable(&caller("b"), "pid-b", "").await.unwrap().is_some());
    assert_eq!(end(&Whom::Session("b".into())).await, 0);
    assert!(presence.recoverable(&caller("b"), "pid-b", "").await.unwrap().is_none());
    // A user cannot take another user's session id.
    presence.open(&link, &caller("c"), "pid-c", HEAD).await.unwrap();
    let other = Caller { user_id: "43".into(), ..caller("c") };
    assert!(presence.ready(&link, &other, "pid-d", HEAD, &[Room::org()]).await.is_err());
}

#[tokio::test]
async fn of_two_bridges_that_have_a_session_the_one_that_its_client_went_to_keeps_it() {
    let presence = presence();
    let [old, new, again] = [("a", "1"), ("b", "2"), ("a", "1")].map(|(bridge, instance)| {
        let link = presence.link();
        link.introduce(bridge, instance);
        link
    });
    let caller = caller("s");
    let rooms = [Room::org(), Room::user("42").unwrap()];
    let holder = || presence.index().session("s").map(|(_, session)| session.owner.link);
    let ready = async |link: &Link| presence.ready(link, &caller, "pid", HEAD, &rooms).await.unwrap();
    ready(&old).await;
    // The old bridge does not answer; the client reconnects to another one.
    presence.hand_over(&caller, "pid", "s", "2").await.unwrap();
    presence.open(&new, &caller, "pid", HEAD).await.unwrap();
    ready(&new).await;
    assert_eq!(old.orders().await.0.len(), 1);
    // The old bridge links again with its previous sessions.
    ready(&again).await;
    assert_eq!(again.orders().await.0[0].session_id, "s");
    presence.close(&again, "s", false).await;
    assert_eq!(holder(), Some(new.number()));
    // The connection that opens the session last has it, even if two connections return at once.
    presence.open(&again, &caller, "pid", HEAD).await.unwrap();
    assert_eq!(new.orders().await.0.len(), 1);
    ready(&new).await;
    assert_eq!(new.orders().await.0.len(), 1);
    assert_eq!(holder(), Some(again.number()));
    // A bridge whose old link is not yet known to be lost takes over its own session.
    ready(&old).await;
    assert_eq!(holder(), Some(old.number()));
    // The session can be recovered again while it opens, and also if opening fails.
    let recoverable =
        async || presence.recoverable(&caller, "pid", "").await.unwrap().map(|found| found.rooms.len());
    presence.rooms(&old, "s", vec![Room::new("chat:7").unwrap()], Vec::new(), "chat.v1").await;
    presence.open(&new, &caller, "pid", HEAD).await.unwrap();
    assert_eq!(recoverable().await, Some(3));
    presence.close(&new, "s", false).await;
    assert_eq!((holder(), recoverable().await), (None, Some(3)));
}

#[tokio::test]
async fn a_session_whose_link_is_lost_before_it_is_told_to_be_ready_can_be_recovered() {
    let presence = presence();
    let link = presence.link();
    for id in ["a", "b", "c"] {
        presence.open(&link, &caller(id), id, HEAD).await.unwrap();
    }
    presence.close(&link, "a", false).await;
    assert!(presence.recoverable(&caller("a"), "a", "").await.unwrap().is_none(), "it never came to be");
    assert!(
        presence.recoverable(&caller("b"), "b", "").await.unwrap().is_some(),
        "its client knows the secret"
    );
    presence.hand_over(&caller("b"), "b", "b", "").await.unwrap();
    presence.unlink(&link);
    assert!(presence.work_off().await);
    assert_eq!(presence.session_count(), 0);
    for id in ["b", "c"] {
        assert!(presence.recoverable(&caller(id), id, "").await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_cursor_of_the_session_before_is_not_taken_for_one_of_this() {
    let presence = presence();
    let caller = caller("s");
    let rooms = [Room::org(), Room::user("42").unwrap()];
    let link = presence.link();
    let after =
        async |cursor| Some(presence.recoverable(&caller, "pid", cursor).await.unwrap()?.after.to_string());
    let given = |cursor: &str| Some(cursor.to_owned());
    presence.open(&link, &caller, "pid", HEAD).await.unwrap();
    presence.ready(&link, &caller, "pid", "000000000001-6", &rooms).await.unwrap();
    let every = [
        ("", HEAD),
        ("000000000001-4", HEAD),
        // Cursors of another epoch cannot be compared.
        ("000000000002-9", "000000000002-9"),
        ("000000000001-7", "000000000001-7"),
    ];
    for (said, wanted) in every {
        assert_eq!(after(said).await, given(wanted), "{said}");
    }
    assert_eq!(after("nonsense").await, None);
    // The session is lost and recovered; its beginning stays the same.
    presence.hand_over(&caller, "pid", "s", "").await.unwrap();
    presence.open(&link, &caller, "pid", "000000000001-8").await.unwrap();
    presence.ready(&link, &caller, "pid", "000000000001-8", &rooms).await.unwrap();
    assert_eq!(after("000000000001-4").await, given(HEAD));
    // If the server did not see a session begin, it may be older than its first report.
    let other = Caller { session_id: "t".into(), ..caller.clone() };
    presence.ready(&link, &other, "other", HEAD, &rooms).await.unwrap();
    let after =
        async |cursor| Some(presence.recoverable(&other, "other", cursor).await.unwrap()?.after.to_string());
    assert_eq!((after("000000000001-4").await, after("").await), (given("000000000001-4"), given(HEAD)));
    assert_eq!(after("nonsense").await, None);
}

/// Servers on one store, with their presence, in the order of their start.
struct Servers {
    catalogs: Arc<Catalogs>,
    engine: MemoryEngine,
    config: PresenceConfig,
}

struct Running {
    presence: Arc<Presence>,
    closing: CancellationToken,
    task: tokio::task::JoinSet<()>,
}

impl Servers {
    fn new(grace: Duration) -> Self {
        let engine = MemoryEngine::new(Retention::default(), Limits::default());
        let config = PresenceConfig { grace, ..PresenceConfig::default() };
        Self { catalogs: Arc::new(Catalogs::builtin().unwrap()), engine, config }
    }

    fn start(&self) -> Running {
        let engine = self.engine.another();
        let presence = presence_of(&engine, &self.config);
        let hub = Arc::new(Hub::new(Limits::default(), Arc::new(engine.clone())));
        let (catalogs, closing) = (self.catalogs.clone(), CancellationToken::new());
        let stats = Arc::new(crate::stats::Stats::new(&catalogs, 0));
        let ingest = Ingest::new(catalogs, &hub, Arc::new(engine), 65_536, stats);
        let mut task = tokio::task::JoinSet::new();
        task.spawn({
            let (presence, closing) = (presence.clone(), closing.clone());
            async move { presence.run(&ingest, &closing).await }
        });
        Running { presence, closing, task }
    }

    /// The names of all presence events of tenant 1, once there are at least `count`.
    async fn told(&self, count: usize) -> Vec<String> {
        let tenant = Tenant::new("1").unwrap();
        let (_, mut feed) = self.engine.follow(&tenant).await.unwrap();
        loop {
            let everything = crate::interest::Interest::everything();
            let head = self.engine.head(&tenant).await.unwrap();
            let limits = crate::engine::ReadLimits { events_max: 1000, scan_max: 1000 };
            let start = Cursor { seq: 0, ..head };
            let page = self.engine.read(&tenant, &everything, start, limits).await.unwrap();
            if page.events.len() >= count {
                return page.events.iter().map(|event| event.draft.kind.full_name.clone()).collect();
            }
            feed.next().await.unwrap();
        }
    }
}

impl Running {
    /// Ends abruptly, like a killed process.
    async fn kill(mut self) {
        self.task.shutdown().await;
        let lease = self.presence.engine.server().as_str().to_owned();
        let held = self.presence.engine.record(&Space::Leases, &lease).await.unwrap();
        // The lease expires.
        let expiry = Replacement { value: None, expected: held.map_or(0, |lease| lease.revision), ttl: None };
        self.presence.engine.replace(&Space::Leases, &lease, expiry).await.unwrap();
    }

    async fn close(self) {
        self.closing.cancel();
        self.task.join_all().await;
    }
}

const ONLINE: [&str; 2] = ["chat.v1.UserOnline", "messenger.v1.UserOnline"];
const OFFLINE: [&str; 2] = ["chat.v1.UserOffline", "messenger.v1.UserOffline"];

#[tokio::test]
async fn the_sessions_of_a_server_that_is_killed_are_taken_over_and_told_once() {
    let servers = Servers::new(Duration::from_millis(50));
    let [first, second, third] = [servers.start(), servers.start(), servers.start()];
    let rooms = [Room::org(), Room::user("42").unwrap()];
    let link = first.presence.link();
    first.presence.ready(&link, &caller("s"), "pid", HEAD, &rooms).await.unwrap();
    assert_eq!(servers.told(2).await, ONLINE);
    first.kill().await;
    assert_eq!(servers.told(4).await, [ONLINE, OFFLINE].concat());
    // The session can be recovered on any server.
    for server in [&second, &third] {
        let found = server.presence.recoverable(&caller("s"), "pid", "").await.unwrap().unwrap();
        assert_eq!(found.rooms.len(), 2);
    }
    let link = third.presence.link();
    third.presence.ready(&link, &caller("s"), "pid", HEAD, &rooms).await.unwrap();
    assert_eq!(servers.told(6).await, [ONLINE, OFFLINE, ONLINE].concat());
    second.close().await;
    third.close().await;
}

#[tokio::test]
async fn a_client_that_returns_within_the_grace_period_is_told_by_nobody() {
    let servers = Servers::new(Duration::from_secs(60));
    let [first, second] = [servers.start(), servers.start()];
    let rooms = [Room::org(), Room::user("42").unwrap()];
    let link = first.presence.link();
    first.presence.ready(&link, &caller("s"), "pid", HEAD, &rooms).await.unwrap();
    assert_eq!(servers.told(2).await, ONLINE);
    first.kill().await;
    let link = second.presence.link();
    second.presence.ready(&link, &caller("s"), "pid", HEAD, &rooms).await.unwrap();
    second.presence.close(&link, "s", true).await;
    assert_eq!(servers.told(4).await, [ONLINE, OFFLINE].concat(), "ended by its client: told at once");
    second.close().await;
}

#[tokio::test]
async fn what_a_server_had_not_published_when_it_was_killed_is_published_once() {
    let servers = Servers::new(Duration::from_secs(60));
    // This server never runs: it dies between storing the record and publishing the event.
    let killed = presence_of(&servers.engine.another(), &servers.config);
    let link = killed.link();
    let rooms = [Room::org(), Room::user("42").unwrap()];
    killed.ready(&link, &caller("s"), "pid", HEAD, &rooms).await.unwrap();
    let [one, other] = [servers.start(), servers.start()];
    assert_eq!(servers.told(2).await, ONLINE);
    let link = one.presence.link();
    one.presence.ready(&link, &caller("t"), "pid-t", HEAD, &rooms).await.unwrap();
    one.presence.close(&link, "t", false).await;
    one.close().await;
    other.close().await;
    assert_eq!(servers.told(2).await, ONLINE);
}

#[tokio::test]
async fn of_two_servers_that_get_a_users_first_session_at_once_one_tells() {
    let servers = Servers::new(Duration::from_secs(60));
    let [first, second] = [servers.start(), servers.start()];
    let rooms = [Room::org(), Room::user("42").unwrap()];
    let (a, b) = (first.presence.link(), second.presence.link());
    for round in 0..20 {
        let [one, two] = ["a", "b"].map(|id| caller(&format!("{id}{round}")));
        let (left, right) = tokio::join!(
            first.presence.ready(&a, &one, "", HEAD, &rooms),
            second.presence.ready(&b, &two, "", HEAD, &rooms)
        );
        left.unwrap();
        right.unwrap();
        tokio::join!(
            first.presence.close(&a, &one.session_id, true),
            second.presence.close(&b, &two.session_id, true)
        );
        let told = servers.told(4 * (round + 1)).await;
        assert_eq!(told[4 * round..], [ONLINE, OFFLINE].concat(), "round {round}");
    }
    first.close().await;
    second.close().await;
}

#[tokio::test]
async fn a_disconnect_reaches_a_session_of_another_server() {
    let servers = Servers::new(Duration::from_secs(60));
    let [first, second] = [servers.start(), servers.start()];
    let link = first.presence.link();
    let rooms = [Room::org(), Room::user("42").unwrap()];
    first.presence.ready(&link, &caller("s"), "pid", HEAD, &rooms).await.unwrap();
    let (tenant, whom) = (Tenant::new("1").unwrap(), Whom::User(Room::user("42").unwrap()));
    let count = second.presence.disconnect(&tenant, &whom, Reason::Disconnected, "bye").await.unwrap();
    assert_eq!(count, 1);
    let ends = link.orders().await.0;
    assert_eq!((ends[0].session_id.as_str(), ends[0].message.as_str()), ("s", "bye"));
    first.close().await;
    second.close().await;
}

#[tokio::test]
async fn a_session_that_goes_on_over_another_server_is_ended_where_it_was() {
    let servers = Servers::new(Duration::from_secs(60));
    let [first, second] = [servers.start(), servers.start()];
    let (old, new) = (first.presence.link(), second.presence.link());
    old.introduce("a", "1");
    new.introduce("b", "2");
    let rooms = [Room::org(), Room::user("42").unwrap()];
    first.presence.ready(&old, &caller("s"), "pid", HEAD, &rooms).await.unwrap();
    second.presence.hand_over(&caller("s"), "pid", "s", "2").await.unwrap();
    assert_eq!(old.orders().await.0[0].session_id, "s");
    second.presence.open(&new, &caller("s"), "pid", HEAD).await.unwrap();
    second.presence.ready(&new, &caller("s"), "pid", HEAD, &rooms).await.unwrap();
    first.presence.close(&old, "s", false).await;
    let found = second.presence.find_session(&Tenant::new("1").unwrap(), "s").await.unwrap().unwrap();
    assert_eq!(found.1.server, *second.presence.engine.server());
    assert_eq!(servers.told(2).await, ONLINE);
    first.close().await;
    second.close().await;
}

#[tokio::test]
async fn a_session_that_its_client_ended_is_not_handed_over() {
    let servers = Servers::new(Duration::from_secs(60));
    let [first, second] = [servers.start(), servers.start()];
    let link = first.presence.link();
    first.presence.ready(&link, &caller("s"), "pid", HEAD, &[Room::org()]).await.unwrap();
    assert!(second.presence.recoverable(&caller("s"), "pid", "").await.unwrap().is_some());
    first.presence.close(&link, "s", true).await;
    assert!(!second.presence.hand_over(&caller("s"), "pid", "s", "2").await.unwrap());
    first.close().await;
    second.close().await;
}

#[tokio::test]
async fn without_a_recovery_window_nothing_is_kept_of_a_lost_session() {
    let config = PresenceConfig { recovery_window: Duration::ZERO, ..PresenceConfig::default() };
    let presence = presence_of(&MemoryEngine::new(Retention::default(), Limits::default()), &config);
    let link = presence.link();
    assert!(!presence.recovers());
    presence.ready(&link, &caller("s"), "pid", HEAD, &[Room::org()]).await.unwrap();
    assert!(
        presence.recoverable(&caller("s"), "pid", "").await.unwrap().is_none(),
        "not while it is connected"
    );
    presence.close(&link, "s", false).await;
    assert!(presence.recoverable(&caller("s"), "pid", "").await.unwrap().is_none(), "nor later");
    let known = presence.index().get(&key_of("42")).unwrap();
    assert!(known.user.sessions.is_empty(), "nothing is stored");
}

#[tokio::test]
async fn a_session_is_greeted_by_the_catalogs_of_its_namespace() {
    let presence = presence();
    let in_namespace = |namespace: &str| {
        let transport = Transport::Socketio.into();
        Caller { transport, namespace: namespace.into(), ..caller("s") }
    };
    let greetings = |namespace| {
        let mut catalogs: Vec<String> = presence
            .announcements
            .greet(&in_namespace(namespace))
            .into_iter()
            .map(|event| event.catalog)
            .collect();
        catalogs.sort();
        catalogs
    };
    assert_eq!(greetings("/chat"), ["chat.v1"]);
    assert!(greetings("/dialogs").is_empty(), "its greeting is for /ws");
    assert!(greetings("").contains(&"chat.v1".to_owned()));
    assert_eq!(greetings(""), greetings("/"));
    let link = presence.link();
    let refused = presence.open(&link, &in_namespace("/none"), "pid", HEAD).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::InvalidNamespace);
    assert!(presence.index().session("s").is_none());
}

#[tokio::test]
async fn a_greeting_names_the_catalog_that_declares_it() {
    let greetings =
        presence().announcements.greet(&Caller { transport: Transport::Socketio.into(), ..caller("s") });
    assert!(!greetings.is_empty());
    for greeting in greetings {
        assert!(
            matches!(greeting.catalog.as_str(), "chat.v1" | "messenger.v1" | "todo.v1" | "dialogs.v1"),
            "{greeting:?}"
        );
    }
}

#[tokio::test]
async fn a_session_that_its_client_ended_is_told_at_once_and_never_recovered() {
    let presence = presence();
    let link = presence.link();
    let ready = async |id| {
        let pid = format!("pid-{id}");
        presence.ready(&link, &caller(id), &pid, HEAD, &[Room::org()]).await.unwrap();
    };
    let gone = || {
        let known = presence.index().get(&key_of("42")).unwrap();
        known.user.pending.iter().filter(|transition| !transition.came).count()
    };
    let is_recoverable =
        async |id| presence.recoverable(&caller(id), &format!("pid-{id}"), "").await.unwrap().is_some();
    ready("a").await;
    ready("b").await;
    presence.close(&link, "a", true).await;
    assert_eq!((gone(), is_recoverable("a").await), (0, false), "the user has another session");
    presence.close(&link, "b", true).await;
    assert_eq!((gone(), is_recoverable("b").await), (1, false), "it was the last: no grace period");
    // A session that is cut off causes no announcement and can be recovered.
    ready("c").await;
    presence.close(&link, "c", false).await;
    assert_eq!((gone(), is_recoverable("c").await), (1, true), "no more than before");
    // The client reconnects, and ends the session before it is ready.
    presence.open(&link, &caller("c"), "pid-c", HEAD).await.unwrap();
    presence.close(&link, "c", true).await;
    assert!(!is_recoverable("c").await);
    let known = presence.index().get(&key_of("42")).unwrap();
    assert!(known.user.sessions.is_empty(), "nothing is stored any more");
}

#[test]
fn a_removal_takes_all_sessions_out_and_is_told_until_the_bridge_reports_it() {
    let mut users = Both::new();
    let rooms = [0, 1, 2];
    for (session, link) in [(0, 1), (1, 2)] {
        let report = users.report(session, link, &rooms);
        users.change(0, |user, cx| user.ready(&report, cx));
    }
    let mut count = 0;
    users.change(0, |user, cx| count = user.remove_from(&room(2), cx));
    assert_eq!(count, 2);
    let in_room = |user: &User| user.sessions.iter().filter(|s| s.rooms.contains(&room(2))).count();
    let removals = |user: &User| user.connected().map(|session| session.removals.len()).sum::<usize>();
    users.change(0, |user, _| assert_eq!((in_room(user), removals(user)), (0, 2)));
    // The bridge reports the session again, before it has received the order.
    let report = users.report(0, 1, &rooms);
    users.change(0, |user, cx| user.ready(&report, cx));
    users.change(0, |user, _| assert_eq!((in_room(user), removals(user)), (0, 2)));
    let id = report.session_id.clone();
    users.change(0, |user, cx| user.leave(&id, &[room(2)], cx));
    users.change(0, |user, _| assert_eq!((in_room(user), removals(user)), (0, 1)));
    users.change(0, |user, cx| user.enter(&id, &[room(2)], &"".into(), cx));
    users.change(0, |user, _| assert_eq!((in_room(user), removals(user)), (1, 1)));
}
