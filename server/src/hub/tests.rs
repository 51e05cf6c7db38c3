use std::sync::Arc;

use bytes::Bytes;
use fanfare_proto::{
    catalog::{Catalogs, EventType},
    cursor::Cursor,
    room::{Room, Tenant},
};
use futures_util::FutureExt as _;
use proptest::prelude::*;
use prost_types::Timestamp;

use super::*;
use crate::{
    config::Retention,
    engine::{OldEngine, memory::MemoryEngine},
    error::Refusal,
    event::Draft,
};

/// A hub with a window of few events over a memory engine.
struct World {
    hub: Arc<Hub>,
    engine: Arc<dyn OldEngine>,
    stored: Arc<EventType>,
    passing: Arc<EventType>,
    tenant: Tenant,
}

impl World {
    fn new(window: usize, retention: usize) -> Self {
        let catalogs = Catalogs::builtin().unwrap();
        let limits = Limits { window_events_max: window, ..Limits::default() };
        let hub = Arc::new(Hub::new(limits));
        let retention = Retention { events_max: retention, ..Retention::default() };
        Self {
            engine: Arc::new(MemoryEngine::new(retention, limits, hub.clone())),
            hub,
            stored: catalogs.event("messenger.v1.NewMessage").unwrap().clone(),
            passing: catalogs.event("messenger.v1.TypingStart").unwrap().clone(),
            tenant: Tenant::new("1").unwrap(),
        }
    }

    /// Publishes an event and gives its id. Nothing here ever waits.
    fn publish(&self, rooms: &[Room], passing: bool) -> String {
        let draft = Draft {
            tenant: self.tenant.clone(),
            rooms: rooms.to_vec(),
            time: Timestamp::default(),
            sender: String::new(),
            kind: if passing { self.passing.clone() } else { self.stored.clone() },
            payload: Bytes::new(),
            except_sessions: Vec::new(),
            idempotency_key: String::new(),
            id_field: None,
            sequence: None,
        };
        self.engine.append(draft).now_or_never().unwrap().unwrap().id
    }

    fn open(
        &self,
        rooms: Vec<Room>,
        after: Option<Cursor>,
        inbox: &Arc<Inbox>,
    ) -> Result<Subscription, Refusal> {
        let engine = self.engine.clone();
        Subscription::open(&self.hub, engine, &self.tenant, rooms, after, inbox, 7).now_or_never().unwrap()
    }

    fn head(&self) -> Cursor {
        self.engine.head(&self.tenant).now_or_never().unwrap().unwrap()
    }
}

fn rooms(mask: u8) -> Vec<Room> {
    (0..6)
        .filter(|bit| mask & (1 << bit) != 0)
        .map(|bit| Room::new(&format!("chat:{bit}")).unwrap())
        .collect()
}

#[derive(Debug, Clone)]
enum Step {
    Publish {
        rooms: u8,
        passing: bool,
    },
    /// One batch, if the subscription was woken.
    Read,
    Add(u8),
    Remove(u8),
    /// Drops the subscription and resumes at its cursor.
    Resume,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1..64u8, prop::bool::weighted(0.2)).prop_map(|(rooms, passing)| Step::Publish { rooms, passing }),
        3 => Just(Step::Read),
        1 => (1..64u8).prop_map(Step::Add),
        1 => (1..64u8).prop_map(Step::Remove),
        1 => Just(Step::Resume),
    ];
    prop::collection::vec(step, 0..120)
}

/// Reads until nothing is left, as a reader does that is woken.
fn drain(subscription: &mut Subscription, inbox: &Inbox, got: &mut Vec<String>) {
    while inbox.ready().now_or_never().is_some() {
        while read(subscription, got) {}
    }
}

fn read(subscription: &mut Subscription, got: &mut Vec<String>) -> bool {
    let batch = subscription.next().now_or_never().unwrap().unwrap();
    got.extend(batch.events.iter().map(|e| e.id.clone()));
    batch.more
}

proptest! {
    /// Whatever is published, wanted, dropped, resumed and read in whatever order, through a window far too small: each
    /// stored event of a wanted room comes exactly once and in order; passing ones at most once and in order.
    #[test]
    fn every_interleaving_of_log_and_window_gives_each_event_once(steps in steps(), window in 1..6usize, first in 1..64u8) {
        let world = World::new(window, 10_000);
        let mut inbox = Arc::new(Inbox::default());
        let mut subscription = world.open(rooms(first), None, &inbox).unwrap();
        let (mut wanted, mut expected, mut possible, mut got) = (first, Vec::new(), Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Publish { rooms: mask, passing } => {
                    let id = world.publish(&rooms(mask), passing);
                    if mask & wanted != 0 {
                        possible.push(id.clone());
                        if !passing {
                            expected.push(id);
                        }
                    }
                }
                Step::Read => {
                    if inbox.ready().now_or_never().is_some() {
                        while read(&mut subscription, &mut got) {}
                    }
                }
                Step::Add(mask) => {
                    drain(&mut subscription, &inbox, &mut got);
                    // To the very end, also where nothing was wanted.
                    while read(&mut subscription, &mut got) {}
                    subscription.add(rooms(mask));
                    wanted |= mask;
                }
                Step::Remove(mask) => {
                    drain(&mut subscription, &inbox, &mut got);
                    while read(&mut subscription, &mut got) {}
                    subscription.remove(&rooms(mask));
                    wanted &= !mask;
                }
                Step::Resume => {
                    let cursor = subscription.cursor();
                    drop(subscription);
                    inbox = Arc::new(Inbox::default());
                    subscription = world.open(rooms(wanted), Some(cursor), &inbox).unwrap();
                }
            }
        }
        drain(&mut subscription, &inbox, &mut got);
        let stored: Vec<_> = got.iter().filter(|id| !id.starts_with('~')).cloned().collect();
        prop_assert_eq!(stored, expected);
        let mut rest = possible.iter();
        prop_assert!(got.iter().all(|id| rest.any(|p| p == id)), "out of order, doubled, or never sent: {:?}", got);
        let listening = subscription.channel_listeners();
        prop_assert_eq!(listening, wanted.count_ones() as usize);
        drop(subscription);
        prop_assert!(world.hub.channel(&world.tenant, 0).lock().listeners.is_empty());
    }
}

#[test]
fn a_reader_is_woken_only_by_its_rooms() {
    let world = World::new(8, 100);
    let inbox = Arc::new(Inbox::default());
    let mut subscription = world.open(rooms(1), None, &inbox).unwrap();
    drain(&mut subscription, &inbox, &mut Vec::new());
    world.publish(&rooms(2), false);
    assert!(inbox.ready().now_or_never().is_none());
    world.publish(&rooms(3), false);
    assert_eq!(inbox.ready().now_or_never(), Some(vec![7]));
}

#[test]
fn a_cursor_that_the_log_does_not_reach_is_refused_with_the_present_one() {
    let world = World::new(8, 3);
    let start = world.head();
    let ids: Vec<_> = (0..5).map(|_| world.publish(&rooms(1), false)).collect();
    let refused = |after: Cursor| match world.open(rooms(1), Some(after), &Arc::default()) {
        Err(Refusal::Reset(cursor)) => assert_eq!(cursor, world.head()),
        other => panic!("not refused: {other:?}"),
    };
    refused(start);
    refused(ids[0].parse().unwrap());
    refused(Cursor { seq: 6, ..start });
    refused(Cursor::new(fanfare_proto::cursor::Epoch::random(), 4));
    assert!(world.open(rooms(1), Some(ids[1].parse().unwrap()), &Arc::default()).is_ok());
}

#[test]
fn a_subscription_that_falls_behind_the_log_ends_with_reset() {
    let world = World::new(2, 3);
    let inbox = Arc::new(Inbox::default());
    let mut subscription = world.open(rooms(1), None, &inbox).unwrap();
    for _ in 0..9 {
        world.publish(&rooms(1), false);
    }
    assert!(
        matches!(subscription.next().now_or_never().unwrap(), Err(Refusal::Reset(cursor)) if cursor == world.head())
    );
}

#[test]
fn a_batch_is_bounded_and_says_that_there_is_more() {
    let world = World::new(2000, 2000);
    let inbox = Arc::new(Inbox::default());
    let mut subscription = world.open(rooms(1), None, &inbox).unwrap();
    for _ in 0..1000 {
        world.publish(&rooms(1), false);
    }
    let mut sizes = Vec::new();
    loop {
        let batch = subscription.next().now_or_never().unwrap().unwrap();
        sizes.push(batch.events.len());
        if !batch.more {
            break;
        }
    }
    assert_eq!(sizes, [512, 488]);
}

#[test]
fn all_windows_together_are_bounded_and_those_that_nobody_follows_are_freed() {
    let limits = Limits { window_total_bytes_max: 60_000, ..Limits::default() };
    let hub = Arc::new(Hub::new(limits));
    let engine = MemoryEngine::new(Retention::default(), limits, hub.clone());
    let kind = Catalogs::builtin().unwrap().event("messenger.v1.NewMessage").unwrap().clone();
    let append = |tenant: &str| {
        let draft = Draft {
            tenant: Tenant::new(tenant).unwrap(),
            rooms: vec![Room::org()],
            time: Timestamp::default(),
            sender: String::new(),
            kind: kind.clone(),
            payload: Bytes::from_static(&[0; 500]),
            except_sessions: Vec::new(),
            idempotency_key: String::new(),
            id_field: None,
            sequence: None,
        };
        engine.append(draft).now_or_never().unwrap().unwrap();
    };
    let bytes = |tenant: &str| hub.channel(&Tenant::new(tenant).unwrap(), 0).lock().window.bytes();
    append("small");
    let small = bytes("small");
    for _ in 0..100 {
        append("large");
    }
    assert!(bytes("large") + bytes("small") <= 60_000);
    assert_eq!(bytes("small"), small);
    assert_eq!(usize::try_from(hub.bytes.load(Ordering::Relaxed)).unwrap(), bytes("large") + bytes("small"));
    assert!(hub.release(&Tenant::new("large").unwrap()) && hub.release(&Tenant::new("small").unwrap()));
    assert_eq!(hub.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn encoded_forms_are_kept_while_an_event_is_in_the_window() {
    let world = World::new(2, 100);
    let id = world.publish(&rooms(1), false);
    let inbox = Arc::new(Inbox::default());
    let after = Cursor { seq: 0, ..world.head() };
    let mut subscription = world.open(rooms(1), Some(after), &inbox).unwrap();
    let batch = subscription.next().now_or_never().unwrap().unwrap();
    let event = batch.events.into_iter().find(|event| event.id == id).unwrap();
    let is_kept = || event.generic().as_ptr() == event.generic().as_ptr();
    assert!(is_kept());
    (0..2).for_each(|_| drop(world.publish(&rooms(1), false)));
    // Two that are alive at once: what is not kept is made anew.
    let (one, other) = (event.generic(), event.generic());
    assert!(one == other && one.as_ptr() != other.as_ptr());
}
