//! The roster against a model that scans all sessions for every question.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    lost::{Began, LostSession},
    *,
};

const GRACE: Duration = Duration::from_millis(100);
/// A place in a log.
const HEAD: &str = "000000000001-5";
const ROOMS: [&str; 4] = ["org", "user:x", "chat:1", "chat:2"];

#[derive(Debug, Clone)]
enum Step {
    /// A session is about to be ready.
    Open {
        session: usize,
        link: u64,
    },
    /// It is ready, in these rooms besides its own.
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

/// Two sessions a user.
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
    /// Since when nobody is there who was announced.
    gone: BTreeMap<Place, Duration>,
    /// What is told: the place, and whether the user came.
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
            .filter(|(_, since)| **since + GRACE <= self.now)
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

fn lost(window: Duration) -> Lost {
    Lost::new(Bounds { window, sessions_max: 9, per_tenant_max: 9, per_user_max: 9 })
}

fn told(caller: &Caller, link: u64, tenant: Tenant) -> Told<'_> {
    Told { caller, tenant, pid: "", link, head: Arc::default() }
}

struct Both {
    roster: Roster,
    model: Model,
    start: Instant,
}

impl Both {
    fn now(&self) -> Now {
        Now { instant: self.start + self.model.now, time: prost_types::Timestamp::default() }
    }

    fn caller(session: usize) -> Caller {
        Caller { session_id: format!("s{session}"), user_id: user(session).to_string(), ..Caller::default() }
    }

    fn take(&mut self, step: &Step) {
        let (tenant, now) = (Tenant::new("1").unwrap(), self.now());
        let (roster, model) = (&mut self.roster, &mut self.model);
        match step {
            Step::Open { session, link } => {
                let caller = Self::caller(*session);
                roster.open(told(&caller, *link, tenant), &[room(0), room(1)], now);
                model.open(*session, *link, &[0, 1]);
            }
            Step::Ready { session, link, chats } => {
                let all = [&[0, 1][..], chats].concat();
                let rooms: Vec<Room> = all.iter().map(|r| room(*r)).collect();
                let caller = Self::caller(*session);
                roster.ready(told(&caller, *link, tenant), &rooms, now);
                model.open(*session, *link, &all);
                model.tell(*session, &all);
            }
            Step::Enter { session, room: at } => {
                roster.enter(&format!("s{session}").into(), &[room(*at)], &"chat.v1".into(), now);
                model.put(*session, &[*at]);
                model.tell(*session, &[*at]);
            }
            Step::Leave { session, room: at } => {
                roster.leave(&format!("s{session}"), &[room(*at)], now);
                model.leave(*session, *at);
            }
            Step::Close { session } => {
                roster.close(&format!("s{session}"), now);
                model.close(*session);
            }
            Step::End { session } => {
                roster.end(&format!("s{session}"), now);
                (0..ROOMS.len()).for_each(|room| model.leave(*session, room));
                model.close(*session);
            }
            Step::Unlink { link } => {
                roster.unlink(*link, now);
                let of_link = model.sessions.iter().filter(|(_, (of, _))| of == link);
                let ids: Vec<usize> = of_link.map(|(id, _)| *id).collect();
                ids.into_iter().for_each(|id| model.close(id));
            }
            Step::Wait { millis } => {
                model.wait(*millis);
                let now = self.now();
                self.roster.expire(now);
            }
        }
    }

    fn compare(&mut self) -> Result<(), TestCaseError> {
        let tenant = Tenant::new("1").unwrap();
        let place = |t: &Transition| {
            let room = ROOMS.iter().position(|r| *r == t.room.as_str()).unwrap();
            ((room, t.user_id.parse::<usize>().unwrap()), t.came)
        };
        let mut told: Vec<_> = self.roster.transitions().drain(..).map(|t| place(&t)).collect();
        let mut wanted = std::mem::take(&mut self.model.tells);
        told.sort_unstable();
        wanted.sort_unstable();
        prop_assert_eq!(told, wanted);
        for (index, name) in ROOMS.iter().enumerate() {
            let listed = self.roster.list(&tenant, &room(index), "", usize::MAX);
            let listed: Vec<_> =
                listed.iter().map(|l| (l.user_id.parse::<usize>().unwrap(), l.sessions.len())).collect();
            prop_assert_eq!(listed, self.model.members(index), "{}", name);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn whoever_comes_and_goes_is_told_of_once_and_listed_exactly(steps in proptest::collection::vec(step(), 1..60)) {
        let mut both = Both { roster: Roster::new(GRACE, lost(Duration::ZERO)), model: Model::default(), start: Instant::now() };
        for step in &steps {
            both.take(step);
            both.compare()?;
        }
        for session in 0..6 {
            both.take(&Step::Close { session });
        }
        both.take(&Step::Wait { millis: 100 });
        both.compare()?;
        prop_assert!(both.roster.is_empty(), "something was left behind");
    }
}

fn presence() -> Presence {
    Presence::new(&Catalogs::builtin().unwrap(), &PresenceConfig::default()).unwrap()
}

/// A session of user 42.
fn caller(session_id: &str) -> Caller {
    Caller { tenant: "1".into(), user_id: "42".into(), session_id: session_id.into(), ..Caller::default() }
}

#[test]
fn a_room_is_told_by_the_catalog_whose_call_it_was() {
    let presence = presence();
    let transition = |room: &str, catalog: &str, came| Transition {
        tenant: Tenant::new("1").unwrap(),
        room: Room::new(room).unwrap(),
        user_id: "42".into(),
        user_name: Arc::default(),
        session_id: Arc::default(),
        catalog: catalog.into(),
        came,
        time: prost_types::Timestamp::default(),
    };
    let names = |room, catalog, came| -> Vec<String> {
        let made = presence.events(&transition(room, catalog, came));
        made.into_iter().map(|made| made.kind.name.clone()).collect()
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
    let end = |whom| presence.disconnect(&tenant, &whom, Reason::Disconnected, "");
    presence.open(&link, &caller("a"), "pid-a", HEAD).unwrap();
    assert_eq!(end(Whom::User(own.clone())), 1);
    assert_eq!(link.ends().await.len(), 1, "told at once");
    presence.ready(&link, &caller("a"), "pid-a", HEAD, &[Room::org(), own.clone()]).unwrap();
    assert_eq!(link.ends().await[0].session_id, "a", "told again, now that the bridge has it");
    assert!(presence.recoverable(&caller("a"), "pid-a", "").is_none());
    presence.close(&link, "a", false);
    assert!(presence.recoverable(&caller("a"), "pid-a", "").is_none());
    // One that was lost before is let go of by its id.
    presence.ready(&link, &caller("b"), "pid-b", HEAD, &[Room::org(), own]).unwrap();
    presence.close(&link, "b", false);
    assert!(presence.recoverable(&caller("b"), "pid-b", "").is_some());
    assert_eq!(end(Whom::Session("b".into())), 0);
    assert!(presence.recoverable(&caller("b"), "pid-b", "").is_none());
    // Nobody takes another user's id.
    presence.open(&link, &caller("c"), "pid-c", HEAD).unwrap();
    let other = Caller { user_id: "43".into(), ..caller("c") };
    assert!(presence.ready(&link, &other, "pid-d", HEAD, &[Room::org()]).is_err());
}

#[tokio::test]
async fn of_two_bridges_that_have_a_session_the_one_that_its_client_went_to_keeps_it() {
    let presence = presence();
    let [old, new, again] = [("a", "1"), ("b", "2"), ("a", "1")].map(|(bridge, instance)| {
        let link = presence.link();
        link.name(bridge, instance);
        link
    });
    let caller = caller("s");
    let rooms = [Room::org(), Room::user("42").unwrap()];
    let holder = || presence.lock().session("s").map(|known| known.link);
    let ready = |link: &Link| presence.ready(link, &caller, "pid", HEAD, &rooms).unwrap();
    ready(&old);
    // The old bridge does not answer; its client comes back to another one.
    presence.let_go(&caller, "pid", "s", "2");
    presence.open(&new, &caller, "pid", HEAD).unwrap();
    ready(&new);
    assert_eq!(old.ends().await.len(), 1);
    // It links again with what it had.
    ready(&again);
    assert_eq!(again.ends().await[0].session_id, "s");
    presence.close(&again, "s", false);
    assert_eq!(holder(), Some(new.number()));
    // Whoever opens it last has it, also when two connections come back at once.
    presence.open(&again, &caller, "pid", HEAD).unwrap();
    assert_eq!(new.ends().await.len(), 1);
    ready(&new);
    assert_eq!(new.ends().await.len(), 1);
    assert_eq!(holder(), Some(again.number()));
    // A bridge whose old link is not seen to be lost yet takes its own over.
    ready(&old);
    assert_eq!(holder(), Some(old.number()));
    // While it opens, it can be recovered once more, and when that comes to nothing too.
    let recoverable = || presence.recoverable(&caller, "pid", "").map(|found| found.rooms.len());
    presence.rooms(&old, "s", &[Room::new("chat:7").unwrap()], &[], "chat.v1");
    presence.open(&new, &caller, "pid", HEAD).unwrap();
    assert_eq!(recoverable(), Some(3));
    presence.close(&new, "s", false);
    assert_eq!((holder(), recoverable()), (None, Some(3)));
}

#[test]
fn a_session_whose_link_is_lost_before_it_is_told_to_be_ready_can_be_recovered() {
    let presence = presence();
    let link = presence.link();
    for id in ["a", "b", "c"] {
        presence.open(&link, &caller(id), id, HEAD).unwrap();
    }
    presence.close(&link, "a", false);
    assert!(presence.recoverable(&caller("a"), "a", "").is_none(), "it never came to be");
    assert!(presence.recoverable(&caller("b"), "b", "").is_some(), "its client knows the secret");
    presence.let_go(&caller("b"), "b", "b", "");
    presence.unlink(&link);
    for id in ["b", "c"] {
        assert!(presence.recoverable(&caller(id), id, "").is_some());
    }
}

#[test]
fn a_cursor_of_the_session_before_is_not_taken_for_one_of_this() {
    let presence = presence();
    let caller = caller("s");
    let rooms = [Room::org(), Room::user("42").unwrap()];
    let link = presence.link();
    let after = |cursor| Some(presence.recoverable(&caller, "pid", cursor)?.after.to_string());
    let given = |cursor: &str| Some(cursor.to_owned());
    presence.open(&link, &caller, "pid", HEAD).unwrap();
    presence.ready(&link, &caller, "pid", "000000000001-6", &rooms).unwrap();
    let every = [
        ("", HEAD),
        ("000000000001-4", HEAD),
        // Of another epoch nothing is known.
        ("000000000002-9", "000000000002-9"),
        ("000000000001-7", "000000000001-7"),
    ];
    for (said, wanted) in every {
        assert_eq!(after(said), given(wanted), "{said}");
    }
    assert_eq!(after("nonsense"), None);
    // It is lost and comes back: it began where it began.
    presence.let_go(&caller, "pid", "s", "");
    presence.open(&link, &caller, "pid", "000000000001-8").unwrap();
    presence.ready(&link, &caller, "pid", "000000000001-8", &rooms).unwrap();
    assert_eq!(after("000000000001-4"), given(HEAD));
    // One that the server has not seen begin may be older than its first report.
    let other = Caller { session_id: "t".into(), ..caller.clone() };
    presence.ready(&link, &other, "other", HEAD, &rooms).unwrap();
    let after = |cursor| Some(presence.recoverable(&other, "other", cursor)?.after.to_string());
    assert_eq!((after("000000000001-4"), after("")), (given("000000000001-4"), given(HEAD)));
    assert_eq!(after("nonsense"), None);
}

#[test]
fn a_crash_within_the_grace_period_leaves_nobody_who_is_taken_for_there() {
    let start = Instant::now();
    let at = |millis| Now {
        instant: start + Duration::from_millis(millis),
        time: prost_types::Timestamp::default(),
    };
    let (tenant, caller) = (Tenant::new("1").unwrap(), Both::caller(0));
    let fresh = || Roster::new(GRACE, lost(Duration::from_secs(60)));
    let kept = |roster: &mut Roster, now| -> Vec<(String, Vec<u8>)> {
        roster.changed(now).into_iter().map(|(pid, record)| (pid, record.unwrap())).collect()
    };
    let gone = |roster: &mut Roster, now| {
        roster.expire(now);
        roster.transitions().drain(..).filter(|told| !told.came).map(|told| told.room).collect::<Vec<_>>()
    };
    let mut before = fresh();
    let told = Told { pid: "pid", ..told(&caller, 1, tenant) };
    before.ready(told, &[room(0)], at(0));
    before.close("s0", at(1));
    let within_grace = kept(&mut before, at(2));
    // Another process goes on with what was kept: the room is told.
    let mut after = fresh();
    after.restore(within_grace, at(10));
    assert_eq!(gone(&mut after, at(10 + 100)), [room(0)]);
    // Once it has been, nobody tells it again.
    let mut later = fresh();
    later.restore(kept(&mut after, at(111)), at(120));
    assert!(gone(&mut later, at(300)).is_empty());
    assert!(later.recoverable("pid", at(300)).is_some());
}

#[test]
fn without_a_recovery_window_nothing_is_kept_of_a_lost_session() {
    let config = PresenceConfig { recovery_window: Duration::ZERO, ..PresenceConfig::default() };
    let presence = Presence::new(&Catalogs::builtin().unwrap(), &config).unwrap();
    let link = presence.link();
    assert!(!presence.recovers());
    presence.ready(&link, &caller("s"), "pid", HEAD, &[Room::org()]).unwrap();
    assert!(presence.recoverable(&caller("s"), "pid", "").is_none(), "not while it is connected");
    presence.close(&link, "s", false);
    assert!(presence.recoverable(&caller("s"), "pid", "").is_none(), "nor later");
    assert!(presence.lock().changed(now()).is_empty(), "nothing goes to the engine");
    // The record of a process that kept it is deleted.
    let session = LostSession {
        id: "s".into(),
        tenant: Tenant::new("1").unwrap(),
        user_id: "42".into(),
        user_name: Arc::default(),
        rooms: HashMap::new(),
        began: Began { cursor: HEAD.into(), is_certain: true },
    };
    presence.restore(vec![("old".into(), session.to_record(false))]);
    assert!(presence.recoverable(&caller("s"), "old", "").is_none());
    assert_eq!(presence.lock().changed(now()), [("old".to_owned(), None)]);
}

#[test]
fn a_session_is_greeted_by_the_catalogs_of_its_namespace() {
    let presence = presence();
    let in_namespace = |namespace: &str| {
        let transport = Transport::Socketio.into();
        Caller { transport, namespace: namespace.into(), ..caller("s") }
    };
    let greetings = |namespace| {
        let mut catalogs: Vec<String> =
            presence.greet(&in_namespace(namespace)).into_iter().map(|event| event.catalog).collect();
        catalogs.sort();
        catalogs
    };
    assert_eq!(greetings("/chat"), ["chat.v1"]);
    assert!(greetings("/dialogs").is_empty(), "its greeting is for /ws");
    assert!(greetings("").contains(&"chat.v1".to_owned()));
    assert_eq!(greetings(""), greetings("/"));
    let link = presence.link();
    let refused = presence.open(&link, &in_namespace("/none"), "pid", HEAD).unwrap_err();
    assert_eq!(refused.reason(), Reason::InvalidNamespace);
    assert!(presence.lock().session("s").is_none());
}

#[test]
fn a_greeting_names_the_catalog_that_declares_it() {
    let greetings = presence().greet(&Caller { transport: Transport::Socketio.into(), ..caller("s") });
    assert!(!greetings.is_empty());
    for greeting in greetings {
        assert!(
            matches!(greeting.catalog.as_str(), "chat.v1" | "messenger.v1" | "todo.v1" | "dialogs.v1"),
            "{greeting:?}"
        );
    }
}

#[test]
fn a_session_that_its_client_ended_is_told_at_once_and_never_recovered() {
    let presence = presence();
    let link = presence.link();
    let ready = |id| presence.ready(&link, &caller(id), &format!("pid-{id}"), HEAD, &[Room::org()]).unwrap();
    let gone = || presence.lock().transitions().drain(..).filter(|told| !told.came).count();
    let is_recoverable = |id| presence.recoverable(&caller(id), &format!("pid-{id}"), "").is_some();
    ready("a");
    ready("b");
    presence.close(&link, "a", true);
    assert_eq!((gone(), is_recoverable("a")), (0, false), "the user has another session");
    presence.close(&link, "b", true);
    assert_eq!((gone(), is_recoverable("b")), (1, false), "it was the last: no grace period");
    // One that is cut off is neither.
    ready("c");
    presence.close(&link, "c", false);
    assert_eq!((gone(), is_recoverable("c")), (0, true));
    // Its client comes back, and ends it before it is ready.
    presence.open(&link, &caller("c"), "pid-c", HEAD).unwrap();
    presence.close(&link, "c", true);
    assert!(!is_recoverable("c"));
    let records = presence.lock().changed(now());
    assert!(records.iter().all(|(_, record)| record.is_none()), "the engine forgets them too");
}
