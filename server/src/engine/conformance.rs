//! The guarantees of every engine to servers that share a store, tested with two handles on one
//! store. An engine runs all tests with `conformance!(name, open)`, where `open` is an async
//! function from bounds to two handles on a fresh store.

mod state;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_proto::{
    cursor::{Cursor, Epoch},
    room::{Room, Tenant},
};
use tokio::task::JoinSet;

use super::*;
use crate::{
    config::{Limits, Retention},
    event::{builtin_kind, draft},
    interest::{Interest, Since},
};

pub(crate) use self::state::*;

/// Two servers on one store, and a guard that ends the store when it is dropped. Absent if the
/// store's program is not installed; the test is then skipped.
pub(crate) type Pair = Option<(Arc<dyn Engine>, Arc<dyn Engine>, Box<dyn Send>)>;

const LIMITS: ReadLimits = ReadLimits { events_max: 64, scan_max: 4096 };

/// The tests of one engine.
macro_rules! conformance {
    ($name:ident, $open:path) => {
        conformance!($name, $open,
            appended_here_is_read_and_followed_there
            concurrent_appends_leave_no_gap_and_no_repeat
            a_key_gives_the_first_answer_on_every_server_and_within_a_batch
            nothing_of_a_refused_batch_is_stored
            ephemeral_events_come_in_order_with_stored_ones
            a_read_is_bounded_by_what_it_scans
            what_is_not_retained_is_refused
            a_log_can_be_read_from_any_seq_that_it_has
            another_history_is_refused
            a_feed_that_was_cut_is_followed_again_without_loss
            a_race_for_a_record_is_won_once
            a_feed_of_records_has_every_change_in_order
            a_record_expires
            a_crash_between_record_and_event_publishes_one_event
            signals_reach_one_server_or_all_others
            the_state_has_the_newest_event_of_each_key
            a_change_of_another_revision_is_refused_with_its_batch
            one_of_many_creates_an_entry
            the_state_is_bounded
            an_entry_ends
            the_state_lasts_longer_than_its_events
            a_snapshot_and_the_log_after_it_are_the_truth
        );
    };
    ($name:ident, $open:path, $($test:ident)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let limit = std::time::Duration::from_secs(60);
                    let test = $crate::engine::conformance::$test(&$open);
                    tokio::time::timeout(limit, test).await.expect("in time");
                }
            )*
        }
    };
}

conformance!(memory, crate::engine::tests::memory_pair);
conformance!(disk, crate::engine::tests::disk_pair);
conformance!(nats, crate::engine::nats::tests::pair_on_own_store);
conformance!(redis, crate::engine::redis::tests::pair_on_own_store);

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

fn in_room(room: &str) -> Draft {
    Draft { rooms: vec![Room::new(room).unwrap()], ..draft("1", "", 8) }
}

fn passing(key: &str) -> Draft {
    Draft { kind: builtin_kind("messenger.v1.TypingStart"), ..draft("1", key, 8) }
}

fn rooms(names: &[&str]) -> Interest {
    let mut interest = Interest::default();
    for name in names {
        interest.add(Room::new(name).unwrap(), Since::default());
    }
    interest
}

async fn append(engine: &Arc<dyn Engine>, draft: Draft) -> (Receipt, bool) {
    let tenant = draft.tenant.clone();
    let answer = &engine.append(&tenant, vec![draft]).await.unwrap()[0];
    (answer.receipt(), answer.is_duplicate())
}

/// All wanted events after a cursor, and the cursor at which the read ended.
async fn read(
    engine: &Arc<dyn Engine>,
    tenant: &Tenant,
    interest: &Interest,
    mut after: Cursor,
) -> (Vec<Arc<Event>>, Cursor) {
    let mut events = Vec::new();
    loop {
        let page = engine.read(tenant, interest, after, LIMITS).await.unwrap();
        assert!(page.cursor.seq > after.seq || !page.more, "a page goes on");
        events.extend(page.events);
        after = page.cursor;
        if !page.more {
            return (events, after);
        }
    }
}

/// The next `count` items of a feed.
async fn take<T>(feed: &mut Feed<T>, count: usize) -> Vec<T> {
    let mut items = Vec::new();
    while items.len() < count {
        items.extend(feed.next().await.expect("the feed goes on"));
    }
    items
}

fn seqs(events: &[Arc<Event>]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

pub(crate) async fn appended_here_is_read_and_followed_there(open: &impl AsyncFn(Retention, Limits) -> Pair) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let one = tenant("1");
    assert_ne!(a.server(), b.server());
    append(&a, draft("1", "", 8)).await;
    let (start, mut feed) = b.follow(&one).await.unwrap();
    assert_eq!(start, a.head(&one).await.unwrap());
    let answers =
        a.append(&one, vec![draft("1", "", 8), in_room("chat:7"), draft("1", "", 8)]).await.unwrap();
    let ids: Vec<String> = answers.iter().map(|answer| answer.receipt().id).collect();
    let (events, end) = read(&b, &one, &rooms(&["org", "chat:7"]), start).await;
    assert_eq!(events.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!((end, b.head(&one).await.unwrap()), (a.head(&one).await.unwrap(), end));
    let followed = take(&mut feed, 3).await;
    assert_eq!(followed.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!(ids[2].parse(), Ok(end), "an event's id is its place");
    let (quiet, end) = read(&b, &one, &rooms(&["chat:7"]), start).await;
    assert_eq!((seqs(&quiet), end), (vec![events[1].seq], a.head(&one).await.unwrap()));
    assert_eq!(b.tenants(10).await.unwrap(), [one]);
}

pub(crate) async fn concurrent_appends_leave_no_gap_and_no_repeat(
    open: &impl AsyncFn(Retention, Limits) -> Pair,
) {
    const TENANTS: usize = 8;
    const PRODUCERS: usize = 4;
    const BATCHES: usize = 6;
    const BATCH: usize = 5;
    const ALL: usize = PRODUCERS * BATCHES * BATCH;
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let names: Vec<String> = (0..TENANTS).map(|number| format!("t{number}")).collect();
    let mut feeds = Vec::new();
    for (name, engine) in names.iter().zip([&a, &b].into_iter().cycle()) {
        feeds.push(engine.follow(&tenant(name)).await.unwrap());
    }
    let mut producers = JoinSet::new();
    for (number, engine) in (0..TENANTS * PRODUCERS).zip([&a, &b].into_iter().cycle()) {
        // Each tenant has producers on both servers.
        let (engine, name) = (engine.clone(), names[(number / 2) % TENANTS].clone());
        producers.spawn(async move {
            for batch in 0..BATCHES {
                let key = |event| format!("{number} {batch} {event}");
                let drafts = (0..BATCH).map(|event| draft(&name, &key(event), 8)).collect();
                let answers = engine.append(&tenant(&name), drafts).await.unwrap();
                let seqs: Vec<u64> = answers.iter().map(|answer| answer.receipt().seq).collect();
                assert!(seqs.is_sorted_by(|one, next| one < next), "the order of a batch is the log's");
                tokio::task::yield_now().await;
            }
        });
    }
    producers.join_all().await;
    for (name, (start, mut feed)) in names.iter().zip(feeds) {
        let followed = take(&mut feed, ALL).await;
        let head = a.head(&tenant(name)).await.unwrap();
        assert_eq!(head, b.head(&tenant(name)).await.unwrap());
        let (logged, _) = read(&b, &tenant(name), &Interest::everything(), start).await;
        assert_eq!(seqs(&followed), seqs(&logged), "a feed is the log");
        let expected: Vec<u64> = (start.seq + 1..=start.seq + ALL as u64).collect();
        assert_eq!((seqs(&logged), head.seq), (expected, start.seq + ALL as u64));
        let ids: HashMap<&str, u64> = logged.iter().map(|event| (event.id.as_str(), event.seq)).collect();
        assert_eq!(ids.len(), ALL, "ids are unique");
    }
}

pub(crate) async fn a_key_gives_the_first_answer_on_every_server_and_within_a_batch(
    open: &impl AsyncFn(Retention, Limits) -> Pair,
) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let (first, duplicate) = append(&a, draft("1", "key", 8)).await;
    assert!(!duplicate);
    assert_eq!(append(&b, draft("1", "key", 9)).await, (first.clone(), true));
    assert!(!append(&b, draft("2", "key", 8)).await.1, "keys are a tenant's own");
    let batch = ["new", "key", "new", ""].map(|key| draft("1", key, 8)).into();
    let answers = b.append(&tenant("1"), batch).await.unwrap();
    let duplicates: Vec<bool> = answers.iter().map(Appended::is_duplicate).collect();
    assert_eq!(duplicates, [false, true, true, false]);
    let answers: Vec<Receipt> = answers.iter().map(Appended::receipt).collect();
    assert_eq!((&answers[1], &answers[2]), (&first, &answers[0]));
    assert_eq!(a.head(&tenant("1")).await.unwrap().seq, first.seq + 2);
    // An event that is not logged is also published only once per key.
    assert_eq!(append(&a, passing("p")).await.0, append(&b, passing("p")).await.0);
}

pub(crate) async fn nothing_of_a_refused_batch_is_stored(open: &impl AsyncFn(Retention, Limits) -> Pair) {
    let Some((a, b, _store)) =
        open(Retention::default(), Limits { tenants_max: 1, ..Limits::default() }).await
    else {
        return;
    };
    let start = b.head(&tenant("1")).await.unwrap();
    append(&a, draft("1", "", 8)).await;
    let batch = || (0..3).map(|_| draft("2", "", 8)).collect::<Vec<_>>();
    for engine in [&a, &b] {
        let refused = engine.append(&tenant("2"), batch()).await;
        assert!(matches!(refused, Err(Refusal::TooManyTenants(1))), "{refused:?}");
    }
    assert_eq!(b.tenants(10).await.unwrap(), [tenant("1")]);
    append(&b, draft("1", "", 8)).await;
    assert_eq!(a.head(&tenant("1")).await.unwrap().seq, start.seq + 2, "the other tenant goes on");
}

pub(crate) async fn ephemeral_events_come_in_order_with_stored_ones(
    open: &impl AsyncFn(Retention, Limits) -> Pair,
) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let one = tenant("1");
    let (start, mut feed) = b.follow(&one).await.unwrap();
    let mut expected = Vec::new();
    for round in 0..20 {
        let batch = if round % 3 == 0 {
            vec![passing(""), draft("1", "", 8), passing("")]
        } else {
            vec![draft("1", "", 8), passing("")]
        };
        let engine = if round % 2 == 0 { &a } else { &b };
        let answers = engine.append(&one, batch).await.unwrap();
        expected.extend(answers.iter().map(|answer| answer.receipt().id));
    }
    let followed = take(&mut feed, expected.len()).await;
    assert_eq!(followed.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), expected);
    let (logged, _) = read(&a, &one, &rooms(&["org"]), start).await;
    assert_eq!(logged.len(), 20, "the log has none of them");
}

pub(crate) async fn a_read_is_bounded_by_what_it_scans(open: &impl AsyncFn(Retention, Limits) -> Pair) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let one = tenant("1");
    let start = a.head(&one).await.unwrap();
    a.append(&one, (0..100).map(|_| draft("1", "", 8)).collect()).await.unwrap();
    append(&a, in_room("chat:7")).await;
    let limits = ReadLimits { events_max: 10, scan_max: 30 };
    let page = b.read(&one, &Interest::everything(), start, limits).await.unwrap();
    assert_eq!((page.events.len(), page.cursor.seq, page.more), (10, start.seq + 10, true));
    // A quiet room's event is found, however many pages the read takes.
    let (mut after, mut found) = (start, Vec::new());
    for _ in 0..5 {
        let page = b.read(&one, &rooms(&["chat:7"]), after, limits).await.unwrap();
        found.extend(page.events);
        after = page.cursor;
        if !page.more {
            break;
        }
    }
    assert_eq!((found.len(), after), (1, a.head(&one).await.unwrap()));
    // A room that is wanted from a cursor on returns no earlier events.
    let mut later = Interest::default();
    later.add(Room::org(), Since { position: 0, seq: start.seq + 98 });
    assert_eq!(read(&b, &one, &later, start).await.0.len(), 2);
}

pub(crate) async fn a_log_can_be_read_from_any_seq_that_it_has(
    open: &impl AsyncFn(Retention, Limits) -> Pair,
) {
    let retention = Retention { events_max: 20, ..Retention::default() };
    let Some((a, b, _store)) = open(retention, Limits::default()).await else { return };
    let tenant = tenant("1");
    let start = a.head(&tenant).await.unwrap();
    assert_eq!(b.cursor_at(&tenant, 0).await.unwrap(), start, "the beginning of a log without events");
    for _ in 0..5 {
        a.append(&tenant, (0..3).map(|_| draft("1", "", 8)).collect()).await.unwrap();
    }
    let head = b.head(&tenant).await.unwrap();
    assert_eq!(b.cursor_at(&tenant, u64::MAX).await.unwrap(), head);
    for seq in start.seq..head.seq {
        let cursor = b.cursor_at(&tenant, seq).await.unwrap();
        assert_eq!(cursor.seq, seq);
        let page = b.read(&tenant, &Interest::everything(), cursor, LIMITS).await.unwrap();
        assert_eq!(page.events.first().map(|event| event.seq), Some(seq + 1), "after {seq}");
    }
    // For a trimmed log, the cursor is the oldest one that can be read from.
    for _ in 0..20 {
        a.append(&tenant, (0..3).map(|_| draft("1", "", 8)).collect()).await.unwrap();
    }
    a.sweep().await;
    loop {
        let oldest = b.cursor_at(&tenant, start.seq + 1).await.unwrap();
        match b.read(&tenant, &Interest::everything(), oldest, LIMITS).await {
            Ok(page) => {
                assert_eq!(page.events.first().map(|event| event.seq), Some(oldest.seq + 1));
                assert!(oldest.seq > start.seq + 1, "{oldest} is trimmed");
                break;
            }
            // The log was trimmed in between.
            Err(Refusal::Reset(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn what_is_not_retained_is_refused(open: &impl AsyncFn(Retention, Limits) -> Pair) {
    let retention = Retention { events_max: 10, ..Retention::default() };
    let Some((a, b, _store)) = open(retention, Limits::default()).await else { return };
    let one = tenant("1");
    let start = a.head(&one).await.unwrap();
    for _ in 0..40 {
        append(&a, draft("1", "", 8)).await;
    }
    a.sweep().await;
    let refused = b.read(&one, &Interest::everything(), start, LIMITS).await;
    let head = a.head(&one).await.unwrap();
    assert!(matches!(refused, Err(Refusal::Reset(cursor)) if cursor == head), "{refused:?}");
    assert!(b.read(&one, &Interest::default(), head, LIMITS).await.is_ok());
}

pub(crate) async fn another_history_is_refused(open: &impl AsyncFn(Retention, Limits) -> Pair) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let one = tenant("1");
    let (receipt, _) = append(&a, draft("1", "", 8)).await;
    append(&a, draft("1", "", 8)).await;
    let (first, head): (Cursor, _) = (receipt.id.parse().unwrap(), b.head(&one).await.unwrap());
    assert!(b.read(&one, &Interest::everything(), first, LIMITS).await.is_ok());
    let others = [
        Cursor { epoch: Epoch::random(), ..first },
        Cursor { tag: first.tag ^ 1, ..first },
        Cursor { seq: head.seq + 1, ..head },
    ];
    for other in others {
        for interest in [Interest::everything(), Interest::default()] {
            let refused = b.read(&one, &interest, other, LIMITS).await;
            assert!(matches!(refused, Err(Refusal::Reset(cursor)) if cursor == head), "{other}: {refused:?}");
        }
    }
}

pub(crate) async fn a_feed_that_was_cut_is_followed_again_without_loss(
    open: &impl AsyncFn(Retention, Limits) -> Pair,
) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let one = tenant("1");
    let (start, mut feed) = b.follow(&one).await.unwrap();
    append(&a, draft("1", "", 8)).await;
    let mut followed = take(&mut feed, 1).await;
    drop(feed);
    a.append(&one, (0..5).map(|_| draft("1", "", 8)).collect()).await.unwrap();
    let (from, mut feed) = b.follow(&one).await.unwrap();
    let reached: Cursor = followed[0].id.parse().unwrap();
    let (gap, _) = read(&b, &one, &Interest::everything(), reached).await;
    followed.extend(gap.into_iter().filter(|event| event.seq <= from.seq));
    append(&a, draft("1", "", 8)).await;
    // A feed may begin before the end of the log; it then delivers the missing events itself.
    let rest = 7 - followed.len();
    followed.extend(take(&mut feed, rest).await);
    assert_eq!(seqs(&followed), (start.seq + 1..=start.seq + 7).collect::<Vec<_>>());
}

fn replacement(value: Option<&str>, expected: u64) -> Replacement {
    Replacement { value: value.map(|text| Bytes::from(text.to_owned())), expected, ttl: None }
}

pub(crate) async fn a_race_for_a_record_is_won_once(open: &impl AsyncFn(Retention, Limits) -> Pair) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let space = Space::Users(tenant("1"));
    let mut revision = 0;
    for round in 0..10 {
        let mut racers = JoinSet::new();
        for (number, engine) in (0..6).zip([&a, &b].into_iter().cycle()) {
            let (engine, space) = (engine.clone(), space.clone());
            racers.spawn(async move {
                let value = format!("{round} {number}");
                let replaced = engine.replace(&space, "user", replacement(Some(&value), revision)).await;
                (value, replaced.unwrap())
            });
        }
        let won: Vec<_> =
            racers.join_all().await.into_iter().filter(|(_, r)| *r != Replaced::Conflict).collect();
        let [(value, Replaced::Revision(next))] = won.as_slice() else { panic!("{won:?}") };
        assert!(*next > revision);
        revision = *next;
        let record = b.record(&space, "user").await.unwrap().unwrap();
        assert_eq!((record.value, record.revision), (Some(Bytes::from(value.clone())), revision));
    }
    let other = Space::Users(tenant("2"));
    assert_eq!(a.record(&other, "user").await.unwrap(), None, "spaces are apart");
    assert_eq!(a.replace(&other, "user", replacement(None, 1)).await.unwrap(), Replaced::Conflict);
}

pub(crate) async fn a_feed_of_records_has_every_change_in_order(
    open: &impl AsyncFn(Retention, Limits) -> Pair,
) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let space = Space::Users(tenant("1"));
    a.replace(&space, "before", replacement(Some("0"), 0)).await.unwrap();
    let (snapshot, mut feed) = b.records(&space).await.unwrap();
    assert_eq!(snapshot, [a.record(&space, "before").await.unwrap().unwrap()]);
    let (mut revision, mut expected) = (0, Vec::new());
    for (round, value) in [Some("1"), Some("2"), None, Some("3"), None].into_iter().enumerate() {
        let engine = if round % 2 == 0 { &a } else { &b };
        let replaced = engine.replace(&space, "user", replacement(value, revision)).await.unwrap();
        let Replaced::Revision(next) = replaced else { panic!("nobody else has changed it") };
        assert!(expected.last().is_none_or(|(_, before)| next > *before), "revisions grow");
        revision = if value.is_some() { next } else { 0 };
        expected.push((value.map(|text| Bytes::from(text.to_owned())), next));
    }
    let changes = take(&mut feed, expected.len()).await;
    assert!(changes.iter().all(|change| &*change.key == "user"));
    assert_eq!(
        changes.into_iter().map(|change| (change.value, change.revision)).collect::<Vec<_>>(),
        expected
    );
}

pub(crate) async fn a_record_expires(open: &impl AsyncFn(Retention, Limits) -> Pair) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let (_, mut feed) = b.records(&Space::Leases).await.unwrap();
    let lease = Replacement { ttl: Some(Duration::from_millis(50)), ..replacement(Some("1"), 0) };
    let replaced = a.replace(&Space::Leases, "a", lease).await.unwrap();
    assert!(matches!(replaced, Replaced::Revision(_)));
    assert!(take(&mut feed, 1).await[0].value.is_some());
    let expired = async {
        loop {
            if let Some(gone) = {
                a.sweep().await;
                futures_util::FutureExt::now_or_never(feed.next())
            } {
                break gone.unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(expired.await[0].value, None);
    assert_eq!(b.record(&Space::Leases, "a").await.unwrap(), None);
    let again = b.replace(&Space::Leases, "a", replacement(Some("2"), 0)).await.unwrap();
    assert!(matches!(again, Replaced::Revision(_)), "there is none to replace");
}

pub(crate) async fn a_crash_between_record_and_event_publishes_one_event(
    open: &impl AsyncFn(Retention, Limits) -> Pair,
) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let (one, space) = (tenant("1"), Space::Users(tenant("1")));
    let start = b.head(&one).await.unwrap();
    let replaced = a.replace(&space, "user", replacement(Some("to publish"), 0)).await.unwrap();
    let Replaced::Revision(revision) = replaced else { panic!("nobody else has changed it") };
    let key = format!("user {revision}");
    // The next server cannot know whether the server that crashed had published the event.
    append(&a, draft("1", &key, 8)).await;
    drop(a);
    let record = b.record(&space, "user").await.unwrap().unwrap();
    assert_eq!(record.revision, revision);
    assert!(append(&b, draft("1", &key, 8)).await.1);
    let done = b.replace(&space, "user", replacement(Some("published"), revision)).await.unwrap();
    assert!(matches!(done, Replaced::Revision(_)));
    assert_eq!(read(&b, &one, &Interest::everything(), start).await.0.len(), 1);
}

pub(crate) async fn signals_reach_one_server_or_all_others(open: &impl AsyncFn(Retention, Limits) -> Pair) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let (mut to_a, mut to_b) = (a.signals().await.unwrap(), b.signals().await.unwrap());
    let text = Bytes::from_static;
    a.signal(None, text(b"all")).await.unwrap();
    a.signal(Some(b.server()), text(b"b")).await.unwrap();
    assert_eq!(take(&mut to_b, 2).await, [text(b"all"), text(b"b")]);
    b.signal(Some(a.server()), text(b"a")).await.unwrap();
    assert_eq!(take(&mut to_a, 1).await, [text(b"a")], "its own are not sent back");
    b.signal(Some(&"0123456789abcdef".into()), text(b"nobody")).await.unwrap();
}
