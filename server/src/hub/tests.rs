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
    engine::{Engine, memory::MemoryEngine},
    error::Refusal,
    event::{Draft, Event, draft},
};

/// A hub with a small window over a memory engine.
struct World {
    hub: Arc<Hub>,
    engine: Arc<dyn Engine>,
    stored: Arc<EventType>,
    passing: Arc<EventType>,
    tenant: Tenant,
}

impl World {
    fn new(window: usize, retention: usize) -> Self {
        let catalogs = Catalogs::builtin().unwrap();
        let limits = Limits { window_events_max: window, ..Limits::default() };
        let retention = Retention { events_max: retention, ..Retention::default() };
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new(retention, limits));
        Self {
            hub: Arc::new(Hub::new(limits, engine.clone())),
            engine,
            stored: catalogs.event("messenger.v1.NewMessage").unwrap().clone(),
            passing: catalogs.event("messenger.v1.TypingStart").unwrap().clone(),
            tenant: Tenant::new("1").unwrap(),
        }
    }

    fn draft(&self, rooms: &[Room], passing: bool) -> Draft {
        Draft {
            tenant: self.tenant.clone(),
            rooms: rooms.to_vec(),
            time: Timestamp::default(),
            sender: String::new(),
            kind: if passing { self.passing.clone() } else { self.stored.clone() },
            payload: Bytes::new(),
            except_sessions: Vec::new(),
            idempotency_key: String::new(),
            id_field: None,
            state: None,
        }
    }

    /// Publishes an event and returns its id once the window has the event.
    async fn publish(&self, rooms: &[Room], passing: bool) -> String {
        let draft = self.draft(rooms, passing);
        let before = self.end();
        let appended = self.engine.append(&self.tenant, vec![draft]).await.unwrap();
        while before.is_some() && self.end() == before {
            tokio::task::yield_now().await;
        }
        appended[0].receipt().id
    }

    /// The end of the tenant's window, if there is one.
    fn end(&self) -> Option<u64> {
        let channels = self.hub.channels.read().unwrap();
        channels.get(&self.tenant).map(|channel| channel.lock().window.end())
    }

    fn open(
        &self,
        rooms: Vec<Room>,
        after: Option<Cursor>,
        inbox: &Arc<Inbox>,
    ) -> Result<Subscription, Refusal> {
        Subscription::open(&self.hub, &self.tenant, rooms, after, inbox, 7).now_or_never().unwrap()
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
    /// Reads once, if the subscription was woken.
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

/// Reads until nothing is left, like a reader that was woken.
async fn drain(subscription: &mut Subscription, inbox: &Inbox, got: &mut Vec<String>) {
    while inbox.ready().now_or_never().is_some() {
        while read(subscription, got).await {}
    }
}

async fn read(subscription: &mut Subscription, got: &mut Vec<String>) -> bool {
    let batch = subscription.next().await.unwrap();
    got.extend(batch.events.iter().map(|e| e.id.clone()));
    batch.more
}

proptest! {
    /// For every order of publishing, adding, removing, resuming and reading, through a window that
    /// is far too small: each stored event of a wanted room is returned exactly once and in order;
    /// ephemeral events at most once and in order.
    #[test]
    fn every_interleaving_of_log_and_window_gives_each_event_once(steps in steps(), window in 1..6usize, first in 1..64u8) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(interleave(steps, window, first))?;
    }
}

async fn interleave(steps: Vec<Step>, window: usize, first: u8) -> Result<(), TestCaseError> {
    let world = World::new(window, 10_000);
    let mut inbox = Arc::new(Inbox::default());
    let mut subscription = world.open(rooms(first), None, &inbox).unwrap();
    let (mut wanted, mut expected, mut possible, mut got) = (first, Vec::new(), Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Publish { rooms: mask, passing } => {
                let id = world.publish(&rooms(mask), passing).await;
                if mask & wanted != 0 {
                    possible.push(id.clone());
                    if !passing {
                        expected.push(id);
                    }
                }
            }
            Step::Read => {
                if inbox.ready().now_or_never().is_some() {
                    while read(&mut subscription, &mut got).await {}
                }
            }
            Step::Add(mask) => {
                drain(&mut subscription, &inbox, &mut got).await;
                // Read to the very end, even if no event was wanted.
                while read(&mut subscription, &mut got).await {}
                subscription.add(rooms(mask));
                wanted |= mask;
            }
            Step::Remove(mask) => {
                drain(&mut subscription, &inbox, &mut got).await;
                while read(&mut subscription, &mut got).await {}
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
    drain(&mut subscription, &inbox, &mut got).await;
    let stored: Vec<_> = got.iter().filter(|id| !id.starts_with('~')).cloned().collect();
    prop_assert_eq!(stored, expected);
    let mut rest = possible.iter();
    prop_assert!(
        got.iter().all(|id| rest.any(|p| p == id)),
        "out of order, doubled, or never sent: {:?}",
        got
    );
    let listening = subscription.channel_listeners();
    prop_assert_eq!(listening, wanted.count_ones() as usize);
    drop(subscription);
    let channel = world.hub.channel(&world.tenant).await.unwrap();
    prop_assert_eq!(channel.lock().rooms_with_listeners(), 0);
    Ok(())
}

#[tokio::test]
async fn a_reader_is_woken_only_by_its_rooms() {
    let world = World::new(8, 100);
    let inbox = Arc::new(Inbox::default());
    let mut subscription = world.open(rooms(1), None, &inbox).unwrap();
    drain(&mut subscription, &inbox, &mut Vec::new()).await;
    world.publish(&rooms(2), false).await;
    assert!(inbox.ready().now_or_never().is_none());
    world.publish(&rooms(3), false).await;
    assert_eq!(inbox.ready().now_or_never(), Some(vec![7]));
}

#[tokio::test]
async fn a_cursor_that_the_log_does_not_reach_is_refused_with_the_present_one() {
    let world = World::new(8, 3);
    let start = world.head();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.publish(&rooms(1), false).await);
    }
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

#[tokio::test]
async fn a_subscription_that_falls_behind_the_log_ends_with_reset() {
    let world = World::new(2, 3);
    let inbox = Arc::new(Inbox::default());
    let mut subscription = world.open(rooms(1), None, &inbox).unwrap();
    for _ in 0..9 {
        world.publish(&rooms(1), false).await;
    }
    assert!(matches!(subscription.next().await, Err(Refusal::Reset(cursor)) if cursor == world.head()));
}

#[tokio::test]
async fn a_batch_is_bounded_and_says_that_there_is_more() {
    let world = World::new(2000, 2000);
    let inbox = Arc::new(Inbox::default());
    let mut subscription = world.open(rooms(1), None, &inbox).unwrap();
    for _ in 0..1000 {
        world.publish(&rooms(1), false).await;
    }
    let mut sizes = Vec::new();
    loop {
        let batch = subscription.next().await.unwrap();
        sizes.push(batch.events.len());
        if !batch.more {
            break;
        }
    }
    assert_eq!(sizes, [512, 488]);
}

#[tokio::test]
async fn large_events_of_the_log_come_in_batches_of_bounded_bytes() {
    let world = World::new(1, 1000);
    let start = world.head();
    let batch = (0..100).map(|_| Draft { rooms: rooms(1), ..draft("1", "", 40_000) }).collect();
    world.engine.append(&world.tenant, batch).await.unwrap();
    let mut subscription = world.open(rooms(1), Some(start), &Arc::default()).unwrap();
    let mut seqs = Vec::new();
    while seqs.len() < 100 {
        let batch = subscription.next().await.unwrap();
        let bytes: usize = batch.events.iter().map(|event| event.cost_bytes()).sum();
        assert!(bytes <= 256 << 10, "{bytes} bytes");
        seqs.extend(batch.events.iter().map(|event| event.seq));
        assert_eq!(batch.cursor.seq, *seqs.last().unwrap());
    }
    assert_eq!(seqs, (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn all_windows_together_are_bounded_and_those_that_nobody_follows_are_freed() {
    let limits = Limits { window_total_bytes_max: 60_000, ..Limits::default() };
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new(Retention::default(), limits));
    let hub = Arc::new(Hub::new(limits, engine.clone()));
    let [large, small] = ["large", "small"].map(|tenant| Tenant::new(tenant).unwrap());
    let append = async |tenant: &Tenant| {
        engine.append(tenant, vec![draft(tenant.as_str(), "", 500)]).await.unwrap();
        hub.catch_up().await;
    };
    let bytes = async |tenant: &Tenant| hub.channel(tenant).await.unwrap().lock().window.bytes();
    assert_eq!((bytes(&small).await, bytes(&large).await), (0, 0));
    append(&small).await;
    let of_small = bytes(&small).await;
    for _ in 0..100 {
        append(&large).await;
    }
    let of_large = bytes(&large).await;
    assert!(of_large + of_small <= 60_000 && of_large > of_small);
    assert_eq!(bytes(&small).await, of_small);
    assert_eq!(usize::try_from(hub.bytes.load(Ordering::Relaxed)).unwrap(), of_large + of_small);
    hub.release(&large);
    hub.release(&small);
    assert_eq!(hub.bytes.load(Ordering::Relaxed), 0);
    assert!(hub.channels().is_empty());
}

#[tokio::test]
async fn after_a_lost_feed_nothing_is_missing_and_nothing_comes_twice() {
    let world = World::new(64, 10_000);
    let inbox = Arc::new(Inbox::default());
    let mut subscription = world.open(rooms(1), None, &inbox).unwrap();
    let mut got = Vec::new();
    let mut sent = vec![world.publish(&rooms(1), false).await];
    drain(&mut subscription, &inbox, &mut got).await;
    // More events at once than a feed holds: the whole feed is lost.
    for _ in 0..9 {
        let batch = (0..100).map(|_| world.draft(&rooms(1), false)).collect();
        let answers = world.engine.append(&world.tenant, batch).await.unwrap();
        sent.extend(answers.iter().map(|answer| answer.receipt().id));
    }
    while got.len() < sent.len() {
        inbox.ready().await;
        while read(&mut subscription, &mut got).await {}
    }
    assert!(got == sent);
}

#[tokio::test]
async fn when_history_is_lost_each_subscription_is_told_once_and_goes_on() {
    let world = World::new(8, 100);
    let inbox = Arc::new(Inbox::default());
    let mut subscription = world.open(rooms(1), None, &inbox).unwrap();
    world.publish(&rooms(1), false).await;
    let channel = world.hub.channel(&world.tenant).await.unwrap();
    let cursor = Cursor::new(fanfare_proto::cursor::Epoch::random(), 0);
    channel.reset(cursor);
    inbox.ready().await;
    assert!(matches!(subscription.next().await, Err(Refusal::Reset(now)) if now == cursor));
    let batch = subscription.next().await.unwrap();
    assert!(batch.events.is_empty() && batch.cursor == cursor && !batch.more);
    let event =
        Arc::new(Event::stored(Cursor { seq: 1, ..cursor }, Draft { rooms: rooms(1), ..draft("1", "", 0) }));
    channel.publish([event], &Taps::default());
    inbox.ready().await;
    assert_eq!(subscription.next().await.unwrap().events.len(), 1);
}

#[tokio::test]
async fn a_subscription_waits_while_the_window_is_of_a_history_that_the_log_does_not_have() {
    let world = World::new(8, 100);
    let inbox = Arc::new(Inbox::default());
    let channel = world.hub.channel(&world.tenant).await.unwrap();
    let head = world.head();
    for old in [Cursor { seq: head.seq + 50, tag: 7, ..head }, Cursor { tag: head.tag + 1, ..head }] {
        channel.reset(old);
        let mut subscription = world.open(rooms(1), Some(head), &inbox).unwrap();
        inbox.ready().await;
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), subscription.next());
        let batch = next.await.expect("it does not read the log again and again").unwrap();
        assert!(batch.events.is_empty() && batch.cursor == head && !batch.more);
        // The window follows the log again, and the subscription has missed nothing.
        channel.reset(head);
        inbox.ready().await;
        assert!(subscription.next().await.unwrap().events.is_empty());
        let event = Event::stored(
            Cursor { seq: head.seq + 1, ..head },
            Draft { rooms: rooms(1), ..draft("1", "", 0) },
        );
        channel.publish([Arc::new(event)], &Taps::default());
        inbox.ready().await;
        assert_eq!(subscription.next().await.unwrap().events.len(), 1);
    }
}

#[tokio::test]
async fn a_replay_reaches_the_end_of_the_log_while_the_window_lags() {
    let world = World::new(8, 100);
    let inbox = Arc::new(Inbox::default());
    let mut subscription = world.open(rooms(1), Some(world.head()), &inbox).unwrap();
    let mut expected = vec![world.publish(&rooms(1), false).await];
    // The follower runs at the next yield: until then only the log has this event.
    let behind = vec![world.draft(&rooms(1), false)];
    let appended = world.engine.append(&world.tenant, behind).now_or_never().unwrap().unwrap();
    expected.push(appended[0].receipt().id);
    let batch = subscription.next_of_log().now_or_never().unwrap().unwrap();
    let ids = |events: &[Arc<Event>]| events.iter().map(|event| event.id.clone()).collect::<Vec<_>>();
    assert_eq!((ids(&batch.events), batch.cursor, batch.more), (expected, world.head(), false));
    // The subscription continues in the window without a repeat.
    let next = world.publish(&rooms(1), false).await;
    let mut got = Vec::new();
    drain(&mut subscription, &inbox, &mut got).await;
    assert_eq!(got, [next]);
}

#[tokio::test]
async fn encoded_forms_are_kept_while_an_event_is_in_the_window() {
    let world = World::new(2, 100);
    let inbox = Arc::new(Inbox::default());
    let mut subscription = world.open(rooms(1), None, &inbox).unwrap();
    let id = world.publish(&rooms(1), false).await;
    let batch = subscription.next().await.unwrap();
    let event = batch.events.into_iter().find(|event| event.id == id).unwrap();
    let is_kept = || event.generic().as_ptr() == event.generic().as_ptr();
    assert!(is_kept());
    for _ in 0..2 {
        world.publish(&rooms(1), false).await;
    }
    // Both are alive at the same time, so different addresses prove that the form was encoded
    // twice.
    let (one, other) = (event.generic(), event.generic());
    assert!(one == other && one.as_ptr() != other.as_ptr());
}

#[tokio::test]
async fn all_rooms_are_read_from_log_and_window_until_the_subscription_ends() {
    let world = World::new(2, 100);
    let inbox = Arc::new(Inbox::default());
    let mut ids = vec![world.publish(&rooms(1), false).await];
    let before = world.head();
    let mut subscription = world.open(Vec::new(), Some(before), &inbox).unwrap();
    subscription.add_everything();
    let mut got = Vec::new();
    for mask in [1, 2, 4, 8, 16] {
        ids.push(world.publish(&rooms(mask), false).await);
    }
    drain(&mut subscription, &inbox, &mut got).await;
    ids.push(world.publish(&rooms(32), false).await);
    drain(&mut subscription, &inbox, &mut got).await;
    assert_eq!(got, ids[1..]);
    let channel = world.hub.channel(&world.tenant).await.unwrap();
    assert!(channel.has_listeners());
    drop(subscription);
    assert!(!channel.has_listeners());
}
