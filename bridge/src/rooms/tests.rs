use std::sync::Mutex;

use bytes::Bytes;
use fanfare_proto::{
    revocation::TokenStamp,
    token::TokenConfig,
    v1::{CallOk, Caller, Delivery, Reason},
};
use proptest::prelude::*;

use super::*;
use crate::{
    clock::Clock,
    config::Config,
    limits::{Addresses, Kind, SessionLimits},
    outbox::{Entry, Outbox, OutboxLimits},
    refusal::Refusal,
    session::{Namespace, SessionParts, Writer},
};

/// Observes a session.
#[derive(Clone)]
pub(crate) struct Witness {
    outbox: Arc<Outbox>,
    endings: Arc<Mutex<Vec<Reason>>>,
}

impl Witness {
    /// The names of the events it received since the last call.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = self.outbox.pull().unwrap_or_default();
        let name = |entry: &Entry| match entry {
            Entry::Event(event) => event.delivery.name.clone(),
            Entry::Bytes(bytes) => panic!("not an event: {bytes:?}"),
        };
        entries.iter().map(name).collect()
    }

    /// The reason of each time it was ended.
    pub(crate) fn endings(&self) -> Vec<Reason> {
        self.endings.lock().unwrap().clone()
    }
}

struct Recorder(Arc<Mutex<Vec<Reason>>>);

impl Writer for Recorder {
    fn reply(&self, _: &Arc<Outbox>, _: Delivery) {}

    fn acknowledge(&self, _: &Arc<Outbox>, _: i64, _: &CallOk) {}

    fn fail(&self, _: &Arc<Outbox>, _: Option<i64>, _: &Refusal) {}

    fn end(&self, _: &Arc<Outbox>, why: &Refusal) {
        self.0.lock().unwrap().push(why.reason);
    }
}

/// A session of tenant "1" that pulls its events and can queue `bytes_max` bytes.
pub(crate) fn session(id: &str, bytes_max: usize, replays: bool) -> (Arc<Session>, Witness) {
    let config = Config::new(([127, 0, 0, 1], 0).into(), Vec::new(), String::new(), TokenConfig::default());
    let limits = OutboxLimits { bytes_max, write_timeout: config.write_timeout, clock: Clock::default() };
    let outbox = Outbox::new(&Arc::new(limits));
    let endings: Arc<Mutex<Vec<Reason>>> = Arc::default();
    let parts = SessionParts {
        address: None,
        token: TokenStamp::default(),
        tenant: Tenant::new("1").unwrap(),
        caller: Caller { session_id: id.to_owned(), ..Caller::default() },
        pid: String::new(),
        expires_at: None,
        namespace: Arc::new(Namespace { name: "/".into(), catalogs: None }),
        form: None,
        writer: Box::new(Recorder(endings.clone())),
        outbox: outbox.clone(),
        limits: SessionLimits::new(&config),
        place: Addresses::new(&config).take(None, Kind::Session).unwrap(),
        replays,
        user_agent: "".into(),
    };
    (Arc::new(Session::new(parts)), Witness { outbox, endings })
}

fn event(name: &str, rooms: &[&str], except: &[&str]) -> Arc<Event> {
    let texts = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect();
    let (rooms, except_sessions) = (texts(rooms), texts(except));
    let json = Bytes::from_static(b"{}");
    Arc::new(Event::new(Delivery {
        name: name.to_owned(),
        json,
        rooms,
        except_sessions,
        ..Delivery::default()
    }))
}

fn rooms(texts: &[&str]) -> Vec<Room> {
    texts.iter().map(|t| Room::new(t).unwrap()).collect()
}

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

#[test]
fn each_event_reaches_a_session_once_and_in_order() {
    let (registry, stats) = (Rooms::new(3), Stats::default());
    let (a, witness_a) = session("a", 10_000, false);
    let (b, witness_b) = session("b", 10_000, false);
    registry.enter(&a, &rooms(&["org", "chat:7", "chat:9"]), || {});
    registry.enter(&b, &rooms(&["org"]), || {});
    let batch = vec![
        event("1", &["org", "chat:7"], &[]),
        event("2", &["chat:7", "chat:9"], &[]),
        event("3", &["org"], &["a"]),
        event("4", &["chat:8"], &[]),
        event("5", &["org"], &[]),
    ];
    registry.deliver(&tenant("1"), batch.clone(), &stats);
    registry.deliver(&tenant("2"), batch, &stats);
    assert_eq!(witness_a.names(), ["1", "2", "5"]);
    assert_eq!(witness_b.names(), ["1", "3", "5"]);
    assert_eq!(registry.leave(&a, &rooms(&["chat:7", "chat:8"])), rooms(&["chat:7"]));
    registry.deliver(&tenant("1"), vec![event("6", &["chat:7"], &[])], &stats);
    assert!(witness_a.names().is_empty());
    registry.remove(&a);
    registry.remove(&b);
    assert!(registry.shards.iter().all(|shard| shard.is_empty()), "empty rooms cost nothing");
}

#[test]
fn a_full_session_is_ended_and_gets_nothing_more() {
    let (registry, stats) = (Rooms::new(1), Stats::default());
    let (slow, slow_witness) = session("a", 150, false);
    let (good, good_witness) = session("b", 10_000, false);
    registry.enter(&slow, &rooms(&["org"]), || {});
    registry.enter(&good, &rooms(&["org"]), || {});
    let batch: Vec<_> = ["1", "2", "3"].iter().map(|name| event(name, &["org"], &[])).collect();
    registry.deliver(&tenant("1"), batch.clone(), &stats);
    assert_eq!(slow_witness.endings(), [Reason::Slow]);
    slow_witness.names();
    registry.deliver(&tenant("1"), batch, &stats);
    assert!(slow_witness.names().is_empty());
    assert_eq!(good_witness.names().len(), 6);
}

#[tokio::test]
async fn a_large_fan_out_is_left_to_the_shard_and_keeps_the_order() {
    let (registry, stats) = (Rooms::new(1), Stats::default());
    let members: Vec<_> = (0..200).map(|n| session(&n.to_string(), 100_000, false)).collect();
    for (session, _) in &members {
        registry.enter(session, &rooms(&["org"]), || {});
    }
    let shard = registry.shards[0].clone();
    registry.deliver(&tenant("1"), vec![event("1", &["org"], &[])], &stats);
    let late = session("late", 1000, false);
    registry.enter(&late.0, &rooms(&["org"]), || {});
    registry.deliver(&tenant("1"), vec![event("2", &["org"], &["3"])], &stats);
    // An event for few sessions still comes after it.
    let (few, few_witness) = &members[3];
    registry.enter(few, &rooms(&["chat:7"]), || {});
    registry.deliver(&tenant("1"), vec![event("3", &["chat:7"], &[])], &stats);
    let _for_ever = tokio::time::timeout(std::time::Duration::from_millis(500), shard.run(&stats)).await;
    assert_eq!(few_witness.names(), ["1", "3"]);
    assert_eq!(members[4].1.names(), ["1", "2"]);
    assert_eq!(late.1.names(), ["2"], "it came after the first");
}

/// One step of the model.
#[derive(Debug, Clone)]
enum Step {
    Enter(usize, usize),
    Leave(usize, usize),
    Remove(usize),
    Publish(Vec<usize>, Option<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    let (session, room) = (0usize..6, 0usize..4);
    prop_oneof![
        (session.clone(), room.clone()).prop_map(|(s, r)| Step::Enter(s, r)),
        (session.clone(), room.clone()).prop_map(|(s, r)| Step::Leave(s, r)),
        session.clone().prop_map(Step::Remove),
        (proptest::collection::vec(room, 1..3), proptest::option::of(session))
            .prop_map(|(r, e)| Step::Publish(r, e)),
    ]
}

proptest! {
    #[test]
    fn sessions_get_what_a_simple_model_says(steps in proptest::collection::vec(step(), 1..80), shards in 1usize..4) {
        const ROOMS: [&str; 4] = ["org", "chat:1", "chat:2", "chat:3"];
        let (registry, stats) = (Rooms::new(shards), Stats::default());
        let sessions: Vec<_> = (0..6).map(|n| session(&n.to_string(), 1 << 20, false)).collect();
        let mut model = vec![std::collections::HashSet::new(); 6];
        let mut wanted: Vec<Vec<String>> = vec![Vec::new(); 6];
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Enter(s, r) => {
                    // Every session is in `org`.
                    registry.enter(&sessions[s].0, &rooms(&["org", ROOMS[r]]), || {});
                    model[s].extend([0, r]);
                }
                Step::Leave(s, r) if r != 0 => {
                    registry.leave(&sessions[s].0, &rooms(&[ROOMS[r]]));
                    model[s].remove(&r);
                }
                Step::Leave(..) => {}
                Step::Remove(s) => {
                    registry.remove(&sessions[s].0);
                    model[s].clear();
                }
                Step::Publish(to, except) => {
                    let names: Vec<&str> = to.iter().map(|r| ROOMS[*r]).collect();
                    let left_out = except.map(|s| s.to_string()).unwrap_or_default();
                    let event = event(&number.to_string(), &names, &[left_out.as_str()]);
                    registry.deliver(&tenant("1"), vec![event], &stats);
                    for s in (0..6).filter(|s| Some(*s) != except && to.iter().any(|r| model[*s].contains(r))) {
                        wanted[s].push(number.to_string());
                    }
                }
            }
        }
        for ((_, witness), wanted) in sessions.iter().zip(wanted) {
            prop_assert_eq!(witness.names(), wanted);
        }
    }
}
