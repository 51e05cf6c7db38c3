//! The engine on a real Redis.

mod batches;
mod bounds;
mod failures;
mod least;
mod links;
mod server;

use std::time::Duration;

use self::{least::Least, server::Server};
use super::{super::*, *};
use crate::event::{builtin_catalogs, draft};

/// A handle on a server.
async fn engine(server: &Server) -> RedisEngine {
    engine_with(RedisConfig::parse(&server.url()).unwrap(), Retention::default(), Limits::default()).await
}

async fn engine_with(config: RedisConfig, retention: Retention, limits: Limits) -> RedisEngine {
    RedisEngine::connect(config, ServerId::random(), builtin_catalogs().clone(), retention, limits)
        .await
        .unwrap()
}

/// Two handles on a store of their own for the conformance suite, connected as the documented user.
pub(crate) async fn pair_on_own_store(
    retention: Retention,
    limits: Limits,
) -> crate::engine::conformance::Pair {
    let server = Least::start()?;
    let config = RedisConfig::parse(&server.url()).unwrap();
    let first = engine_with(config.clone(), retention, limits).await;
    let second = engine_with(config, retention, limits).await;
    Some((Arc::new(first), Arc::new(second), Box::new(server)))
}

fn tenant() -> Tenant {
    Tenant::new("1").unwrap()
}

/// Everything in the log.
fn all() -> Interest {
    let mut interest = Interest::default();
    interest.add(fanfare_proto::room::Room::org(), crate::interest::Since::default());
    interest
}

const LIMITS: ReadLimits = ReadLimits { events_max: 10_000, scan_max: 10_000 };

async fn append(engine: &RedisEngine, key: &str) -> Result<Appended, Refusal> {
    let answers = engine.append(&tenant(), vec![draft("1", key, 10)]).await?;
    Ok(answers.into_iter().next().unwrap())
}

fn seq(appended: &Appended) -> u64 {
    match appended {
        Appended::Event(event) => event.seq,
        Appended::Duplicate(receipt) => receipt.seq,
    }
}

/// The next `count` items of a feed.
async fn take<T>(feed: &mut Feed<T>, count: usize) -> Vec<T> {
    let mut items = Vec::new();
    while items.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(20), feed.next()).await;
        items.extend(next.expect("nothing more comes").expect("the feed has ended"));
    }
    items
}

async fn ended<T>(feed: &mut Feed<T>) {
    while tokio::time::timeout(Duration::from_secs(20), feed.next())
        .await
        .expect("the feed has not ended")
        .is_some()
    {}
}

fn start_cursor(cursor: Cursor) -> Cursor {
    Cursor { seq: 0, tag: 0, ..cursor }
}

#[tokio::test]
async fn what_one_server_appends_another_reads_and_follows() {
    let Some(server) = Server::start(&[]) else { return };
    let (a, b) = (engine(&server).await, engine(&server).await);
    let (cursor, mut feed) = b.follow(&tenant()).await.unwrap();
    assert_eq!(cursor.seq, 0);
    let Appended::Event(first) = append(&a, "").await.unwrap() else { panic!("a duplicate") };
    let three = (0..3).map(|_| draft("1", "", 10)).collect();
    a.append(&tenant(), three).await.unwrap();
    let followed = take(&mut feed, 4).await;
    assert_eq!(followed.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!((&followed[0].id, followed[0].tag), (&first.id, first.tag));
    let page = b.read(&tenant(), &all(), cursor, LIMITS).await.unwrap();
    let ids = |events: &[Arc<Event>]| events.iter().map(|event| event.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&page.events), ids(&followed));
    assert_eq!((page.cursor, page.more), (b.head(&tenant()).await.unwrap(), false));
    // A cursor within a frame.
    let after: Cursor = page.events[1].id.parse().unwrap();
    let rest = b.read(&tenant(), &all(), after, LIMITS).await.unwrap();
    assert_eq!(ids(&rest.events), ids(&followed)[2..]);
    let limits = ReadLimits { events_max: 2, scan_max: 100 };
    let page = b.read(&tenant(), &all(), cursor, limits).await.unwrap();
    assert_eq!((page.events.len(), page.cursor.seq, page.more), (2, 2, true));
    assert_eq!(b.tenants(10).await.unwrap(), [tenant()]);
    a.close().await;
    assert!(matches!(append(&a, "").await, Err(Refusal::Shutdown)));
}

#[tokio::test]
async fn appends_of_two_servers_have_one_order_without_gap_or_repeat() {
    let Some(server) = Server::start(&[]) else { return };
    let (a, b) = (Arc::new(engine(&server).await), Arc::new(engine(&server).await));
    let (_, mut at_a) = a.follow(&tenant()).await.unwrap();
    let (_, mut at_b) = b.follow(&tenant()).await.unwrap();
    let mut work = tokio::task::JoinSet::new();
    for engine in [a.clone(), b.clone()] {
        for _ in 0..4 {
            let engine = engine.clone();
            work.spawn(async move {
                for _ in 0..50 {
                    append(&engine, "").await.unwrap();
                }
            });
        }
    }
    let (at_a, at_b) = tokio::join!(take(&mut at_a, 400), take(&mut at_b, 400));
    work.join_all().await;
    let seqs: Vec<u64> = (1..=400).collect();
    assert_eq!(at_a.iter().map(|event| event.seq).collect::<Vec<_>>(), seqs);
    let ids = |events: &[Arc<Event>]| events.iter().map(|event| event.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&at_a), ids(&at_b));
    let page =
        a.read(&tenant(), &all(), start_cursor(a.head(&tenant()).await.unwrap()), LIMITS).await.unwrap();
    assert_eq!(ids(&page.events), ids(&at_a));
}

#[tokio::test]
async fn an_idempotency_key_is_known_on_every_server() {
    let Some(server) = Server::start(&[]) else { return };
    let (a, b) = (engine(&server).await, engine(&server).await);
    let first = append(&a, "k").await.unwrap();
    let Appended::Event(event) = &first else { panic!("a duplicate") };
    let batch = vec![draft("1", "new", 1), draft("1", "k", 1), draft("1", "new", 1), draft("1", "", 1)];
    let answers = b.append(&tenant(), batch).await.unwrap();
    let Appended::Duplicate(receipt) = &answers[1] else { panic!("stored twice") };
    assert_eq!((&receipt.id, receipt.seq), (&event.id, 1));
    assert_eq!(answers.iter().map(seq).collect::<Vec<_>>(), [2, 1, 2, 3]);
    assert!(matches!(answers[2], Appended::Duplicate(_)));
    assert_eq!(a.head(&tenant()).await.unwrap().seq, 3);
}

#[tokio::test]
async fn flushed_history_has_a_new_epoch_and_followers_are_reset() {
    let Some(server) = Server::start(&[]) else { return };
    let (a, b) = (engine(&server).await, engine(&server).await);
    let old = {
        append(&a, "").await.unwrap();
        a.head(&tenant()).await.unwrap()
    };
    let (_, mut feed) = b.follow(&tenant()).await.unwrap();
    server.command(&["FLUSHALL"]);
    append(&a, "").await.unwrap();
    ended(&mut feed).await;
    let Err(Refusal::Reset(head)) = b.read(&tenant(), &all(), old, LIMITS).await else { panic!("not reset") };
    assert!(head.epoch != old.epoch && head.seq == 1);
    append(&a, "").await.unwrap();
    assert_eq!(a.tenants(1).await.unwrap(), [tenant()], "the index is made again");
}

#[tokio::test]
async fn lost_writes_whose_seqs_were_given_again_reset_whoever_saw_them() {
    let Some(server) = Server::start(&[]) else { return };
    let (a, b) = (engine(&server).await, engine(&server).await);
    append(&a, "").await.unwrap();
    let kept = a.head(&tenant()).await.unwrap();
    let keys = ["ff:{1}:m", "ff:{1}:l"];
    let dumps = keys.map(|key| {
        let ::redis::Value::BulkString(dump) = server.command(&["DUMP", key]) else {
            panic!("nothing dumped")
        };
        dump
    });
    let Appended::Event(lost) = append(&a, "").await.unwrap() else { panic!("a duplicate") };
    let (_, mut feed) = b.follow(&tenant()).await.unwrap();
    for (key, dump) in keys.iter().zip(dumps) {
        let client = ::redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        ::redis::cmd("RESTORE").arg(key).arg(0).arg(dump).arg("REPLACE").exec(&mut connection).unwrap();
    }
    for seq in 2..=4 {
        let Appended::Event(event) = append(&a, "").await.unwrap() else { panic!("a duplicate") };
        assert!(event.seq == seq && event.id != lost.id);
    }
    ended(&mut feed).await;
    let after: Cursor = lost.id.parse().unwrap();
    assert!(matches!(b.read(&tenant(), &all(), after, LIMITS).await, Err(Refusal::Reset(_))));
    let page = b.read(&tenant(), &all(), kept, LIMITS).await.unwrap();
    assert_eq!(page.events.len(), 3, "what was not lost is where it was");
}

#[tokio::test]
async fn a_lost_subscription_is_made_up_for_from_the_log() {
    let Some(server) = Server::start(&[]) else { return };
    let (a, b) = (engine(&server).await, engine(&server).await);
    let (_, mut feed) = b.follow(&tenant()).await.unwrap();
    for round in 1..=20 {
        append(&a, "").await.unwrap();
        if round % 5 == 0 {
            server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        }
    }
    let seqs: Vec<u64> = take(&mut feed, 20).await.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_of_two_servers_that_replace_a_record_wins_and_followers_see_all_changes() {
    let Some(server) = Server::start(&[]) else { return };
    let (a, b) = (engine(&server).await, engine(&server).await);
    let space = Space::Users(tenant());
    let value = |text: &'static str, expected| Replacement {
        value: Some(Bytes::from_static(text.as_bytes())),
        expected,
        ttl: None,
    };
    let (snapshot, mut feed) = b.records(&space).await.unwrap();
    assert_eq!(snapshot, []);
    let (at_a, at_b) =
        tokio::join!(a.replace(&space, "u", value("a", 0)), b.replace(&space, "u", value("b", 0)));
    let (at_a, at_b) = (at_a.unwrap(), at_b.unwrap());
    let revision = match (at_a, at_b) {
        (Replaced::Revision(revision), Replaced::Conflict)
        | (Replaced::Conflict, Replaced::Revision(revision)) => revision,
        other => panic!("both or neither: {other:?}"),
    };
    let held = a.record(&space, "u").await.unwrap().unwrap();
    assert_eq!(held.revision, revision);
    assert_eq!(b.records(&space).await.unwrap().0, std::slice::from_ref(&held));
    let removal = Replacement { value: None, expected: revision, ttl: None };
    let Replaced::Revision(removed) = a.replace(&space, "u", removal).await.unwrap() else {
        panic!("a conflict")
    };
    assert!(removed > revision);
    assert_eq!(a.record(&space, "u").await.unwrap(), None);
    assert_eq!(a.replace(&space, "u", value("c", revision)).await.unwrap(), Replaced::Conflict);
    assert!(matches!(a.replace(&space, "u", value("bin\0\n ", 0)).await.unwrap(), Replaced::Revision(_)));
    let changes = take(&mut feed, 3).await;
    assert_eq!(changes[0], held);
    assert_eq!((changes[1].value.clone(), changes[1].revision), (None, removed));
    assert_eq!(changes[2].value.as_deref(), Some(&b"bin\0\n "[..]));
    assert_eq!(Some(&changes[2]), a.record(&space, "u").await.unwrap().as_ref());
    // A change that is not announced ends the feed.
    server.command(&["SET", "ff:{1}:v", "9000000000000000"]);
    ended(&mut feed).await;
}

#[tokio::test]
async fn a_record_expires_by_the_clock_of_redis_and_followers_see_it() {
    let Some(server) = Server::start(&[]) else { return };
    let (a, b) = (engine(&server).await, engine(&server).await);
    let (_, mut feed) = b.records(&Space::Leases).await.unwrap();
    let lease =
        |expected| Replacement { value: Some(Bytes::new()), expected, ttl: Some(Duration::from_millis(300)) };
    let Replaced::Revision(first) = a.replace(&Space::Leases, "a", lease(0)).await.unwrap() else {
        panic!("conflict")
    };
    let Replaced::Revision(second) = a.replace(&Space::Leases, "a", lease(first)).await.unwrap() else {
        panic!("conflict")
    };
    let at = std::time::Instant::now();
    let changes = take(&mut feed, 3).await;
    assert!(at.elapsed() < Duration::from_millis(1300), "{:?}", at.elapsed());
    assert_eq!(changes[1].revision, second);
    assert!(changes[2].value.is_none() && changes[2].revision > second);
    assert_eq!(a.record(&Space::Leases, "a").await.unwrap(), None);
    assert!(matches!(a.replace(&Space::Leases, "a", lease(0)).await.unwrap(), Replaced::Revision(_)));
}

#[tokio::test]
async fn signals_reach_one_server_or_all_others() {
    let Some(server) = Server::start(&[]) else { return };
    let (a, b) = (engine(&server).await, engine(&server).await);
    let (mut at_a, mut at_b) = (a.signals().await.unwrap(), b.signals().await.unwrap());
    a.signal(None, Bytes::from_static(b"all")).await.unwrap();
    assert_eq!(take(&mut at_b, 1).await, ["all"]);
    b.signal(Some(a.server()), Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(take(&mut at_a, 1).await, ["one"]);
    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    ended(&mut at_a).await;
}

#[tokio::test]
async fn a_full_redis_refuses_appends_and_is_still_read() {
    let Some(server) = Server::start(&["--maxmemory", "4mb"]) else { return };
    let engine = engine(&server).await;
    let mut stored = 0;
    let refusal = loop {
        match engine.append(&tenant(), vec![draft("1", "", 32 << 10)]).await {
            Ok(_) => stored += 1,
            Err(refusal) => break refusal,
        }
        assert!(stored < 1000, "never full");
    };
    assert!(matches!(refusal, Refusal::StoreFull), "{refusal}");
    let head = engine.head(&tenant()).await.unwrap();
    assert_eq!(head.seq, stored);
    assert!(!engine.read(&tenant(), &all(), start_cursor(head), LIMITS).await.unwrap().events.is_empty());
    server.command(&["CONFIG", "SET", "maxmemory", "64mb"]);
    append(&engine, "").await.unwrap();
}

#[tokio::test]
async fn a_log_keeps_what_its_retention_allows() {
    let Some(server) = Server::start(&[]) else { return };
    let config = RedisConfig::parse(&server.url()).unwrap();
    let retention = Retention { events_max: 10, ..Retention::default() };
    let engine = engine_with(config, retention, Limits::default()).await;
    for _ in 0..30 {
        append(&engine, "").await.unwrap();
    }
    engine.sweep().await;
    let head = engine.head(&tenant()).await.unwrap();
    let reset = engine.read(&tenant(), &all(), start_cursor(head), LIMITS).await;
    assert!(matches!(reset, Err(Refusal::Reset(_))));
    assert_eq!(server.command(&["XLEN", "ff:{1}:l"]), ::redis::Value::Int(10));
    // The oldest remaining frame confirms the tag of its predecessor.
    let ::redis::Value::Array(entries) = server.command(&["XRANGE", "ff:{1}:l", "-", "+", "COUNT", "1"])
    else {
        panic!()
    };
    let ::redis::Value::Array(entry) = &entries[0] else { panic!() };
    let ::redis::Value::Array(fields) = &entry[1] else { panic!() };
    let tag = u64::from_str_radix(log::text(&fields[3]).unwrap(), 16).unwrap();
    let edge = Cursor { seq: 20, tag, ..head };
    assert_eq!(engine.read(&tenant(), &all(), edge, LIMITS).await.unwrap().events.len(), 10);
    let forged = Cursor { tag: tag ^ 1, ..edge };
    assert!(matches!(engine.read(&tenant(), &all(), forged, LIMITS).await, Err(Refusal::Reset(_))));
}

#[tokio::test]
async fn too_many_tenants_are_refused() {
    let Some(server) = Server::start(&[]) else { return };
    let config = RedisConfig::parse(&server.url()).unwrap();
    let engine =
        engine_with(config, Retention::default(), Limits { tenants_max: 1, ..Limits::default() }).await;
    append(&engine, "").await.unwrap();
    let other = Tenant::new("2").unwrap();
    let refused = engine.append(&other, vec![draft("2", "", 1)]).await;
    assert!(matches!(refused, Err(Refusal::TooManyTenants(1))));
}
