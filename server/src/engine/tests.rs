//! The guarantees of every engine, tested on each of them.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use fanfare_proto::{catalog::Catalogs, room::Room};

use super::{disk::DiskEngine, memory::MemoryEngine, *};
use crate::{
    config::{Limits, Retention},
    event::draft,
    hub::{Hub, Inbox, Subscription},
    interest::Interest,
};

/// A read that only checks whether the log reaches back to a cursor.
const ONE: ReadLimits = ReadLimits { events_max: 1, scan_max: 1 };

/// One engine of each kind with these bounds, each with a hub.
fn engines(retention: Retention, limits: Limits) -> Vec<(Arc<dyn Engine>, Arc<Hub>)> {
    let engines: [Arc<dyn Engine>; 2] =
        [Arc::new(MemoryEngine::new(retention, limits)), Arc::new(opened(&folder(), retention, limits))];
    let with_hub = |engine: Arc<dyn Engine>| {
        let hub = Arc::new(Hub::new(limits, engine.clone()));
        (engine, hub)
    };
    engines.into_iter().map(with_hub).collect()
}

/// Two servers on one store in memory.
pub(super) async fn memory_pair(retention: Retention, limits: Limits) -> super::conformance::Pair {
    let engine = MemoryEngine::new(retention, limits);
    let other = engine.another();
    Some((Arc::new(engine), Arc::new(other), Box::new(())))
}

/// Two servers on one store on disk.
pub(super) async fn disk_pair(retention: Retention, limits: Limits) -> super::conformance::Pair {
    let engine = opened(&folder(), retention, limits);
    let other = engine.another();
    Some((Arc::new(engine), Arc::new(other), Box::new(())))
}

/// A folder that no other test has.
pub(super) fn folder() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("fanfare-engine-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    let _fresh = std::fs::remove_dir_all(&folder);
    folder
}

pub(super) fn opened(folder: &std::path::Path, retention: Retention, limits: Limits) -> DiskEngine {
    let catalogs = Arc::new(Catalogs::builtin().unwrap());
    DiskEngine::open(folder, catalogs, retention, limits).unwrap()
}

/// The answer to one draft.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) id: String,
    pub(super) seq: u64,
    pub(super) duplicate: bool,
}

/// Appends one draft.
pub(super) async fn append(engine: &Arc<dyn Engine>, draft: Draft) -> Result<Answered, Refusal> {
    let answers = engine.append(&draft.tenant.clone(), vec![draft]).await?;
    let Receipt { id, seq, .. } = answers[0].receipt();
    Ok(Answered { id, seq, duplicate: answers[0].is_duplicate() })
}

/// The seqs in a tenant's log, as a fresh reader sees them.
pub(super) async fn held(engine: &Arc<dyn Engine>, tenant: &str, limits: Limits) -> Vec<u64> {
    let tenant = Tenant::new(tenant).unwrap();
    let head = engine.head(&tenant).await.unwrap();
    // A fresh hub: all events come from the log.
    let hub = Arc::new(Hub::new(limits, engine.clone()));
    for seq in 0..=head.seq {
        let (after, inbox) = (Some(Cursor { seq, ..head }), Arc::new(Inbox::default()));
        let open = Subscription::open(&hub, &tenant, vec![Room::org()], after, &inbox, 0);
        let Ok(mut subscription) = open.await else { continue };
        return rest(&mut subscription).await;
    }
    Vec::new()
}

/// The seqs that a subscription can read immediately.
pub(super) async fn rest(subscription: &mut Subscription) -> Vec<u64> {
    let mut seqs = Vec::new();
    loop {
        let batch = subscription.next().await.unwrap();
        seqs.extend(batch.events.iter().map(|event| event.seq));
        if !batch.more {
            return seqs;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_holds_count_bytes_and_age_of_each_tenant_apart() {
    let limits = Limits::default();
    let by_count = Retention { events_max: 2, ..Retention::default() };
    let by_bytes = Retention { bytes_max: 2500, ..Retention::default() };
    for retention in [by_count, by_bytes] {
        for (engine, _) in engines(retention, limits) {
            for _ in 0..3 {
                append(&engine, draft("1", "", 800)).await.unwrap();
            }
            append(&engine, draft("2", "", 800)).await.unwrap();
            assert_eq!(held(&engine, "1", limits).await, [2, 3], "{engine:?}");
            assert_eq!(held(&engine, "2", limits).await, [1]);
        }
    }
    let by_age = Retention { age_max: Duration::from_millis(1), ..Retention::default() };
    for (engine, _) in engines(by_age, limits) {
        append(&engine, draft("1", "", 800)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        engine.sweep().await;
        assert!(held(&engine, "1", limits).await.is_empty());
        // A removed log leaves no gap: the next seq follows.
        assert_eq!(append(&engine, draft("1", "", 1)).await.unwrap().seq, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gives_the_first_answer_until_it_is_forgotten() {
    let limits = Limits { idempotency_keys_max: 2, ..Limits::default() };
    for (engine, _) in engines(Retention::default(), limits) {
        let append = async |tenant, key| append(&engine, draft(tenant, key, 1)).await.unwrap();
        let first = append("1", "a").await;
        let again = append("1", "a").await;
        assert_eq!((again.seq, &again.id, again.duplicate), (1, &first.id, true));
        assert!(!append("2", "a").await.duplicate, "keys are a tenant's own");
        for key in ["b", "c", "d"] {
            assert!(!append("1", key).await.duplicate);
        }
        assert!(!append("1", "a").await.duplicate, "the oldest key is forgotten first");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_bounded_and_known_ones_go_on() {
    for (engine, _) in engines(Retention::default(), Limits { tenants_max: 1, ..Limits::default() }) {
        append(&engine, draft("1", "", 1)).await.unwrap();
        assert!(matches!(append(&engine, draft("2", "", 1)).await, Err(Refusal::TooManyTenants(1))));
        assert_eq!(append(&engine, draft("1", "", 1)).await.unwrap().seq, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_empty_and_idle_is_freed_and_no_place_is_given_twice() {
    let limits = Limits { tenants_max: 1, idle_age_max: Duration::ZERO, ..Limits::default() };
    let retention = Retention { age_max: Duration::from_millis(1), ..Retention::default() };
    for (engine, _) in engines(retention, limits) {
        let (one, two) = (Tenant::new("1").unwrap(), Tenant::new("2").unwrap());
        let swept = async |tenant: &Tenant| {
            append(&engine, draft(tenant.as_str(), "", 1)).await.unwrap();
            let head = engine.head(tenant).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            engine.sweep().await;
            head
        };
        let (start, mut feed) = engine.follow(&one).await.unwrap();
        swept(&one).await;
        append(&engine, draft("1", "", 1)).await.unwrap();
        let mut followed = Vec::new();
        while followed.len() < 2 {
            followed.extend(feed.next().await.unwrap().iter().map(|event| event.seq));
        }
        assert_eq!(followed, [start.seq + 1, start.seq + 2], "{engine:?}: a follower misses nothing");
        drop(feed);
        let last = swept(&one).await;
        let other = swept(&two).await;
        assert!(other.seq > last.seq && other.epoch == last.epoch, "{engine:?}: {other:?}");
        // A reader of the freed log gets a reset, so that it never misses events silently.
        assert!(
            matches!(append(&engine, draft("1", "", 1)).await, Ok(Answered { seq, .. }) if seq == other.seq + 1)
        );
        let read = engine.read(&one, &Interest::default(), last, ONE).await;
        assert!(matches!(read, Err(Refusal::Reset(_))), "{engine:?}: {read:?}");
        engine.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_logs_together_are_bounded_and_the_largest_give_way() {
    let retention = Retention { total_bytes_max: 40_000, ..Retention::default() };
    for (engine, _) in engines(retention, Limits::default()) {
        for _ in 0..4 {
            append(&engine, draft("small", "", 1000)).await.unwrap();
        }
        for _ in 0..100 {
            append(&engine, draft("large", "", 1000)).await.unwrap();
        }
        let large = held(&engine, "large", Limits::default()).await;
        assert!(large.len() < 40 && large.last() == Some(&100), "{engine:?} has {} events", large.len());
        assert_eq!(held(&engine, "small", Limits::default()).await, [1, 2, 3, 4]);
        engine.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_subscribes_anywhere_gets_the_rest_once_and_in_order() {
    const EVENTS: u64 = 160;
    // A window that most subscribers fall behind.
    let limits = Limits { window_events_max: 16, ..Limits::default() };
    for (engine, hub) in engines(Retention::default(), limits) {
        let tenant = Tenant::new("1").unwrap();
        let start = engine.head(&tenant).await.unwrap();
        let (appended, progress) = tokio::sync::watch::channel(0);
        let appending = async {
            for _ in 0..EVENTS {
                let seq = append(&engine, draft("1", "", 8)).await.unwrap().seq;
                appended.send_replace(seq);
            }
        };
        let reading = async |after: u64| {
            // Like a client that has received events up to here.
            progress.clone().wait_for(|seq| *seq >= after).await.unwrap();
            let inbox = Arc::new(Inbox::default());
            let cursor = Some(Cursor { seq: after, ..start });
            let open = Subscription::open(&hub, &tenant, vec![Room::org()], cursor, &inbox, 0);
            let mut subscription = open.await.unwrap();
            let mut next = after + 1;
            while next <= EVENTS {
                let batch = subscription.next().await.unwrap();
                for event in &batch.events {
                    assert_eq!(event.seq, next, "after {after}");
                    next += 1;
                }
                if !batch.more && next <= EVENTS {
                    inbox.ready().await;
                }
            }
        };
        let all = async {
            tokio::join!(appending, reading(0), reading(7), reading(60), reading(150));
        };
        tokio::time::timeout(Duration::from_secs(240), all).await.unwrap();
    }
}
