//! The engine on real servers.

mod cluster;
mod histories;
mod least;
mod measure;
mod newer;
mod order;
mod restart;
mod servers;

use std::collections::HashSet;

use fanfare_proto::room::Room;
use prost_types::Timestamp;

use self::{least::Least, servers::Servers};
use super::*;
use crate::{event::builtin_catalogs, interest::Since};

const LIMITS: ReadLimits = ReadLimits { events_max: 1000, scan_max: 10_000 };

fn settings(servers: &Servers, replicas: usize) -> NatsConfig {
    let partitions = 2;
    NatsConfig { replicas, partitions, ..NatsConfig::new(servers.urls()) }
}

async fn open(config: &NatsConfig, name: &str) -> Result<NatsEngine, Error> {
    open_with(config, name, Retention::default(), Limits::default()).await
}

async fn open_with(
    config: &NatsConfig,
    name: &str,
    retention: Retention,
    limits: Limits,
) -> Result<NatsEngine, Error> {
    NatsEngine::connect(config.clone(), name.into(), builtin_catalogs().clone(), retention, limits).await
}

/// Two handles on one store.
async fn pair(servers: &Servers) -> (NatsEngine, NatsEngine) {
    let config = settings(servers, 1);
    (open(&config, "a").await.unwrap(), open(&config, "b").await.unwrap())
}

/// Two handles on a store of their own for the conformance suite, connected as the documented user.
pub(crate) async fn pair_on_own_store(
    retention: Retention,
    limits: Limits,
) -> crate::engine::conformance::Pair {
    let servers = Least::start()?;
    let config = servers.settings();
    let first = open_with(&config, "a", retention, limits).await.unwrap();
    let second = open_with(&config, "b", retention, limits).await.unwrap();
    Some((Arc::new(first), Arc::new(second), Box::new(servers)))
}

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

fn typed(tenant: &Tenant, type_name: &str, key: &str, payload: &[u8]) -> Draft {
    Draft {
        tenant: tenant.clone(),
        rooms: vec![Room::org()],
        time: Timestamp { seconds: 1, nanos: 2 },
        sender: "s".into(),
        kind: builtin_catalogs().event(type_name).unwrap().clone(),
        payload: Bytes::copy_from_slice(payload),
        except_sessions: Vec::new(),
        idempotency_key: key.to_owned(),
        id_field: None,
        state: None,
    }
}

fn draft(tenant: &Tenant, key: &str) -> Draft {
    typed(tenant, "messenger.v1.NewMessage", key, &[])
}

fn everything() -> Interest {
    let mut interest = Interest::default();
    interest.add(Room::org(), Since::default());
    interest
}

/// All events after a cursor, page by page.
async fn read_all(engine: &NatsEngine, tenant: &Tenant, mut after: Cursor) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    loop {
        let page = engine.read(tenant, &everything(), after, LIMITS).await.unwrap();
        events.extend(page.events);
        after = page.cursor;
        if !page.more {
            return events;
        }
    }
}

/// The next `count` events of a feed.
async fn take(feed: &mut Feed<Arc<Event>>, count: usize) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    while events.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(20), feed.next()).await;
        events.extend(next.expect("the feed is silent").expect("the feed has ended"));
    }
    events
}

fn event(appended: &Appended) -> &Arc<Event> {
    match appended {
        Appended::Event(event) => event,
        Appended::Duplicate(receipt) => panic!("a duplicate of {receipt:?}"),
    }
}

fn cursor(event: &Event) -> Cursor {
    event.id.parse().unwrap()
}

fn ids(events: &[Arc<Event>]) -> Vec<String> {
    events.iter().map(|event| event.id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_appends_another_reads_and_follows() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let t = tenant("a.b*>ä");
    let start = b.head(&t).await.unwrap();
    assert_eq!(start, a.head(&t).await.unwrap(), "an empty log has one beginning");
    let (from, mut feed) = b.follow(&t).await.unwrap();
    assert_eq!(from, start);
    let mut appended = Vec::new();
    for n in 0..10u8 {
        let batch = (0..=n % 3).map(|_| draft(&t, "")).collect();
        appended.extend(a.append(&t, batch).await.unwrap().iter().map(|one| event(one).clone()));
    }
    let seqs: Vec<u64> = appended.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=19).collect::<Vec<_>>());
    assert_eq!(ids(&take(&mut feed, 19).await), ids(&appended));
    for skip in 0..=19 {
        let after = if skip == 0 { start } else { cursor(&appended[skip - 1]) };
        let read = read_all(&b, &t, after).await;
        assert_eq!(ids(&read), ids(&appended[skip..]), "after {skip}");
    }
    let read = read_all(&b, &t, start).await;
    assert_eq!(read[0].draft.sender, "s");
    assert_eq!(b.head(&t).await.unwrap(), cursor(&appended[18]));
    assert_eq!(b.tenants(10).await.unwrap(), [t]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_bounded_by_what_is_looked_at() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let t = tenant("1");
    let start = a.head(&t).await.unwrap();
    for _ in 0..3 {
        a.append(&t, (0..5).map(|_| draft(&t, "")).collect()).await.unwrap();
    }
    let nothing = Interest::default();
    let limits = ReadLimits { events_max: 100, scan_max: 7 };
    let page = b.read(&t, &nothing, start, limits).await.unwrap();
    assert_eq!((page.events.len(), page.cursor.seq, page.more), (0, 7, true));
    let page = b.read(&t, &everything(), page.cursor, ReadLimits { events_max: 2, scan_max: 7 }).await;
    let page = page.unwrap();
    assert_eq!((page.events.len(), page.cursor.seq, page.more), (2, 9, true));
    let page = b.read(&t, &everything(), page.cursor, LIMITS).await.unwrap();
    assert_eq!((page.events.len(), page.cursor.seq, page.more), (6, 15, false));
    let wrong = Cursor { tag: page.cursor.tag ^ 1, ..page.cursor };
    assert!(matches!(b.read(&t, &everything(), wrong, LIMITS).await, Err(Refusal::Reset(_))));
    let wrong = Cursor { seq: 4, ..wrong };
    assert!(matches!(b.read(&t, &everything(), wrong, LIMITS).await, Err(Refusal::Reset(_))));
    let beyond = Cursor { seq: 16, ..page.cursor };
    assert!(matches!(b.read(&t, &everything(), beyond, LIMITS).await, Err(Refusal::Reset(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_append_at_once_give_one_order_without_gap_or_repeat() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let (a, b, t) = (Arc::new(a), Arc::new(b), tenant("1"));
    let start = a.head(&t).await.unwrap();
    let (_, mut feed_a) = a.follow(&t).await.unwrap();
    let (_, mut feed_b) = b.follow(&t).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for engine in [&a, &b] {
        for _ in 0..4 {
            let (engine, t) = (engine.clone(), t.clone());
            writers.spawn(async move {
                let mut mine = Vec::new();
                for _ in 0..25 {
                    let answers = engine.append(&t, vec![draft(&t, ""), draft(&t, "")]).await.unwrap();
                    mine.extend(answers.iter().map(|one| event(one).id.clone()));
                }
                mine
            });
        }
    }
    let mut acknowledged = HashSet::new();
    while let Some(mine) = writers.join_next().await {
        let mine = mine.unwrap();
        let seqs: Vec<u64> = mine.iter().map(|id| id.parse::<Cursor>().unwrap().seq).collect();
        assert!(seqs.is_sorted(), "a writer's events are in its order");
        acknowledged.extend(mine);
    }
    assert_eq!(acknowledged.len(), 400);
    let log = ids(&read_all(&a, &t, start).await);
    assert_eq!(log.iter().cloned().collect::<HashSet<_>>(), acknowledged);
    assert_eq!(log.len(), 400);
    assert_eq!(ids(&take(&mut feed_a, 400).await), log);
    assert_eq!(ids(&take(&mut feed_b, 400).await), log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_appends_for_another_may_end() {
    let Some(servers) = Servers::start(1) else { return };
    for ending in ["a", "b"] {
        let (a, b) = pair(&servers).await;
        let t = tenant(ending);
        let start = a.head(&t).await.unwrap();
        for _ in 0..50 {
            let batch = |key| vec![draft(&t, key), typed(&t, "messenger.v1.TypingStart", "", &[])];
            let (one, two) = tokio::join!(a.append(&t, batch("")), b.append(&t, batch("k")));
            assert_eq!((one.unwrap().len(), two.unwrap().len()), (2, 2));
        }
        let (ends, stays) = if ending == "a" { (a, b) } else { (b, a) };
        ends.close().await;
        for number in 0..5 {
            // An event on its way to the server that ended may get no answer; it is sent again
            // under its key, as a producer does.
            let key = format!("after {number}");
            while stays.append(&t, vec![draft(&t, &key)]).await.is_err() {}
        }
        let log = read_all(&stays, &t, start).await;
        assert_eq!(log.len(), 50 + 1 + 5, "a key is stored once, whoever appends it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_stored_once_whichever_server_sees_it() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let t = tenant("1");
    let first = a.append(&t, vec![draft(&t, "k"), draft(&t, ""), draft(&t, "k")]).await.unwrap();
    let receipt = shared::receipt(event(&first[0]));
    assert!(matches!(&first[2], Appended::Duplicate(again) if *again == receipt), "{first:?}");
    let again = b.append(&t, vec![draft(&t, "k"), draft(&t, "other")]).await.unwrap();
    assert!(matches!(&again[0], Appended::Duplicate(again) if *again == receipt), "{again:?}");
    assert_eq!(event(&again[1]).seq, 3);
    // `a` has not seen `other` when it writes; the conflict reveals it.
    let again = a.append(&t, vec![draft(&t, "other")]).await.unwrap();
    assert!(matches!(&again[0], Appended::Duplicate(again) if again.seq == 3), "{again:?}");
    let one_more = a.append(&t, vec![draft(&t, "")]).await.unwrap();
    assert_eq!(event(&one_more[0]).seq, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_whose_answer_was_lost_is_found_and_not_written_again() {
    let Some(servers) = Servers::start(1) else { return };
    let request_timeout = Duration::from_millis(200);
    let config = NatsConfig { request_timeout, deadline: Duration::from_secs(10), ..settings(&servers, 1) };
    let (a, t) = (open(&config, "a").await.unwrap(), tenant("1"));
    let start = a.head(&t).await.unwrap();
    for n in 1..=5 {
        a.append(&t, vec![draft(&t, "")]).await.unwrap();
        // The server stores the frame only after the engine has given up on the answer.
        servers.pause(0);
        let mut append = a.append(&t, vec![draft(&t, "")]);
        let early = tokio::time::timeout(request_timeout * 3, &mut append).await;
        assert!(early.is_err(), "nobody has answered: {early:?}");
        servers.resume(0);
        let appended = append.await.unwrap();
        assert_eq!(event(&appended[0]).seq, 2 * n);
        assert_eq!(read_all(&a, &t, start).await.len() as u64, 2 * n, "it is there once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_events_reach_followers_everywhere_and_no_log() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let t = tenant("1");
    let (_, mut here) = a.follow(&t).await.unwrap();
    let (start, mut there) = b.follow(&t).await.unwrap();
    let typing = || typed(&t, "messenger.v1.TypingStart", "", &[]);
    assert!(typing().kind.ephemeral);
    let answers = a.append(&t, vec![draft(&t, ""), typing(), draft(&t, "")]).await.unwrap();
    let sent = ids(&answers.iter().map(|one| event(one).clone()).collect::<Vec<_>>());
    assert_eq!(ids(&take(&mut here, 3).await), sent);
    let arrived: HashSet<String> = ids(&take(&mut there, 3).await).into_iter().collect();
    assert_eq!(arrived, sent.iter().cloned().collect());
    assert_eq!(read_all(&b, &t, start).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_resets_cursors_and_ends_feeds() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let t = tenant("1");
    let (_, mut feed) = b.follow(&t).await.unwrap();
    let mut appended = Vec::new();
    for _ in 0..5 {
        appended.extend(a.append(&t, vec![draft(&t, "k")]).await.unwrap());
    }
    take(&mut feed, 1).await;
    let old = cursor(event(&appended[0]));
    a.shared.store.context.delete_stream(a.shared.store.names.log(&t).stream).await.unwrap();
    // The append that detects the loss does not know its own outcome.
    let found_out = a.append(&t, vec![draft(&t, "")]).await;
    assert!(matches!(found_out, Err(Refusal::Storage(_))), "{found_out:?}");
    let again = a.append(&t, vec![draft(&t, "k")]).await.unwrap();
    let new = cursor(event(&again[0]));
    assert_ne!(new.epoch, old.epoch);
    let Err(Refusal::Reset(head)) = b.read(&t, &everything(), old, LIMITS).await else {
        panic!("a cursor of another history was taken")
    };
    assert_eq!(head, new);
    let end = tokio::time::timeout(Duration::from_secs(20), feed.next()).await;
    assert!(end.expect("the feed goes on").is_none(), "nothing of the other history is fed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_the_store_resets_whoever_was_beyond() {
    let Some(mut servers) = Servers::start(1) else { return };
    let (a, t) = (open(&settings(&servers, 1), "a").await.unwrap(), tenant("1"));
    let mut kept = a.append(&t, vec![draft(&t, ""), draft(&t, "")]).await.unwrap();
    a.close().await;
    servers.kill(0);
    let copy = servers.store(0).with_extension("copy");
    copy_folder(&servers.store(0), &copy);
    servers.launch(0);
    let a = open(&settings(&servers, 1), "a").await.unwrap();
    let lost = a.append(&t, (0..3).map(|_| draft(&t, "")).collect()).await.unwrap();
    let (_, mut feed) = a.follow(&t).await.unwrap();
    servers.kill(0);
    std::fs::remove_dir_all(servers.store(0)).unwrap();
    std::fs::rename(&copy, servers.store(0)).unwrap();
    servers.launch(0);
    let b = open(&settings(&servers, 1), "b").await.unwrap();
    // Other events get the seqs of the lost ones.
    let other = b.append(&t, (0..4).map(|_| draft(&t, "")).collect()).await.unwrap();
    assert_eq!(event(&other[2]).seq, event(&lost[2]).seq);
    for engine in [&a, &b] {
        for one in &lost {
            let read = engine.read(&t, &everything(), cursor(event(one)), LIMITS).await;
            assert!(matches!(read, Err(Refusal::Reset(_))), "{read:?}");
        }
        let rest = read_all(engine, &t, cursor(event(&kept[1]))).await;
        assert_eq!(rest.len(), 4);
    }
    let end = tokio::time::timeout(Duration::from_secs(20), feed.next()).await;
    assert!(end.expect("the feed goes on").is_none(), "nothing of the other history is fed");
    kept.extend(a.append(&t, vec![draft(&t, "")]).await.unwrap());
    assert_eq!(event(&kept[2]).seq, 7);
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_removes_the_oldest_and_keeps_the_last_frame() {
    let Some(servers) = Servers::start(1) else { return };
    let config = settings(&servers, 1);
    let retention = Retention { events_max: 10, ..Retention::default() };
    let a = open_with(&config, "a", retention, Limits::default()).await.unwrap();
    let (t, other) = (tenant("1"), tenant("other"));
    let mut appended = Vec::new();
    for _ in 0..40 {
        appended.extend(a.append(&t, vec![draft(&t, "")]).await.unwrap());
        a.append(&other, vec![draft(&other, "")]).await.unwrap();
    }
    a.sweep().await;
    let read = a.read(&t, &everything(), cursor(event(&appended[28])), LIMITS).await;
    assert!(matches!(read, Err(Refusal::Reset(_))), "{read:?}");
    assert_eq!(read_all(&a, &t, cursor(event(&appended[29]))).await.len(), 10);
    let by_age = Retention { age_max: Duration::ZERO, ..Retention::default() };
    let b = open_with(&config, "b", by_age, Limits::default()).await.unwrap();
    // One call per partition.
    b.sweep().await;
    b.sweep().await;
    assert_eq!(read_all(&b, &t, cursor(event(&appended[38]))).await.len(), 1);
    let read = b.read(&t, &everything(), cursor(event(&appended[37])), LIMITS).await;
    assert!(matches!(read, Err(Refusal::Reset(_))), "{read:?}");
    assert_eq!(event(&b.append(&t, vec![draft(&t, "")]).await.unwrap()[0]).seq, 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_refuses_appends_and_goes_on_reading() {
    let Some(servers) = Servers::start(1) else { return };
    let config = NatsConfig { partition_bytes_max: Some(20_000), ..settings(&servers, 1) };
    let a = open(&config, "a").await.unwrap();
    let t = tenant("1");
    let start = a.head(&t).await.unwrap();
    let mut count = 0;
    let refusal = loop {
        match a.append(&t, vec![typed(&t, "messenger.v1.NewMessage", "", &[0; 1000])]).await {
            Ok(_) => count += 1,
            Err(refusal) => break refusal,
        }
        assert!(count < 100);
    };
    assert!(matches!(refusal, Refusal::StoreFull), "{refusal:?}");
    assert_eq!(read_all(&a, &t, start).await.len(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_nats_does_not_take_is_refused_with_the_limit() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, t) = (open(&settings(&servers, 1), "a").await.unwrap(), tenant("1"));
    let large = typed(&t, "messenger.v1.NewMessage", "", &[0; 1 << 20]);
    let refusal = a.append(&t, vec![large]).await.unwrap_err();
    assert!(refusal.to_string().contains("max_payload"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_tenants_than_allowed_are_refused() {
    let Some(servers) = Servers::start(1) else { return };
    let limits = Limits { tenants_max: 2, ..Limits::default() };
    let a = open_with(&settings(&servers, 1), "a", Retention::default(), limits).await.unwrap();
    for name in ["1", "2", crate::engine::OWN_TENANT] {
        a.append(&tenant(name), vec![draft(&tenant(name), "")]).await.unwrap();
    }
    let t = tenant("3");
    let refused = a.append(&t, vec![draft(&t, "")]).await;
    assert!(matches!(refused, Err(Refusal::TooManyTenants(2))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_do_not_fit_the_streams_are_refused_with_the_difference() {
    let Some(servers) = Servers::start(1) else { return };
    let config = settings(&servers, 1);
    open(&config, "a").await.unwrap();
    let refusal = |config: NatsConfig| async move {
        match open(&config, "b").await.unwrap_err() {
            Error::Nats { problem, .. } => problem,
            other => panic!("{other}"),
        }
    };
    let problem = refusal(NatsConfig { partitions: 3, ..config.clone() }).await;
    assert!(problem.contains("partitions: \"2\", want \"3\""), "{problem}");
    let limited = NatsConfig { partition_bytes_max: Some(1 << 30), ..config.clone() };
    let problem = refusal(limited).await;
    assert!(problem.contains("nats stream edit FF_LOG_") && problem.contains("--max-bytes"), "{problem}");
    let problem = refusal(NatsConfig { replicas: 2, ..config.clone() }).await;
    assert!(problem.contains("want 1, 3 or 5"), "{problem}");
    let problem = refusal(NatsConfig { prefix: "f.f".into(), ..config }).await;
    assert!(problem.contains("\"f.f\" is no prefix"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_do_not_take_a_full_frame_are_refused() {
    let Some(servers) = Servers::start_configured(1, "sync_interval: 2m", "max_payload: 400000") else {
        return;
    };
    let config = settings(&servers, 1);
    let refused = open(&config, "a").await.unwrap_err().to_string();
    assert!(refused.contains("of 400000 bytes") && refused.contains("max_payload"), "{refused}");
    let limits = Limits { event_bytes_max: 1000, ..Limits::default() };
    open_with(&config, "a", Retention::default(), limits).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_removal_of_no_record_has_a_revision_and_a_record_may_follow() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let none = Replacement { value: None, expected: 0, ttl: None };
    let first = revision(a.replace(&Space::Occupancy, "k", none.clone()).await.unwrap());
    let second = revision(b.replace(&Space::Occupancy, "k", none.clone()).await.unwrap());
    let third = revision(b.replace(&Space::Occupancy, "k", value("1", 0)).await.unwrap());
    assert!(0 < first && first < second && second < third);
    assert_eq!(a.replace(&Space::Occupancy, "k", none).await.unwrap(), Replaced::Conflict);
}

fn value(text: &str, expected: u64) -> Replacement {
    Replacement { value: Some(Bytes::copy_from_slice(text.as_bytes())), expected, ttl: None }
}

fn revision(replaced: Replaced) -> u64 {
    match replaced {
        Replaced::Revision(revision) => revision,
        Replaced::Conflict => panic!("a conflict"),
    }
}

async fn changes(feed: &mut Feed<Record>, count: usize) -> Vec<Record> {
    let mut records = Vec::new();
    while records.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(20), feed.next()).await;
        records.extend(next.expect("the feed is silent").expect("the feed has ended"));
    }
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_changes_only_if_it_is_as_expected_and_followers_see_each_change() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let space = Space::Users(tenant("1.x"));
    let (snapshot, mut feed) = b.records(&space).await.unwrap();
    assert_eq!(snapshot, []);
    let mut seen = Vec::new();
    for key in ["u 1", ""] {
        let first = revision(a.replace(&space, key, value("1", 0)).await.unwrap());
        seen.extend(changes(&mut feed, 1).await);
        assert_eq!(b.replace(&space, key, value("2", 0)).await.unwrap(), Replaced::Conflict);
        let second = revision(b.replace(&space, key, value("2", first)).await.unwrap());
        seen.extend(changes(&mut feed, 1).await);
        assert!(second > first);
        assert_eq!(a.replace(&space, key, value("3", first)).await.unwrap(), Replaced::Conflict);
        let found = a.record(&space, key).await.unwrap().unwrap();
        assert_eq!((found.value.as_deref(), found.revision), (Some(&b"2"[..]), second));
        let none = Replacement { value: None, expected: second, ttl: None };
        let third = revision(a.replace(&space, key, none.clone()).await.unwrap());
        seen.extend(changes(&mut feed, 1).await);
        assert!(third > second);
        assert_eq!(b.record(&space, key).await.unwrap(), None);
        assert_eq!(b.replace(&space, key, none).await.unwrap(), Replaced::Conflict);
        let fourth = revision(b.replace(&space, key, value("4", 0)).await.unwrap());
        assert!(fourth > third, "revisions grow over removals");
        seen.extend(changes(&mut feed, 1).await);
        let fed: Vec<(&str, u64)> = seen.iter().map(|one| (&*one.key, one.revision)).collect();
        assert_eq!(fed, [(key, first), (key, second), (key, third), (key, fourth)]);
        assert!(seen[2].value.is_none() && seen[3].value.is_some());
        seen.clear();
    }
    let (snapshot, _) = a.records(&space).await.unwrap();
    assert_eq!(snapshot.len(), 2);
    let (others, _) = a.records(&Space::Users(tenant("1"))).await.unwrap();
    assert_eq!(others, [], "spaces are apart");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_servers_that_replace_a_record_at_once_one_wins() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let space = Space::Occupancy;
    let mut expected = 0;
    for round in 0..50 {
        let (one, two) = tokio::join!(
            a.replace(&space, "k", value("a", expected)),
            b.replace(&space, "k", value("b", expected))
        );
        let won = [one.unwrap(), two.unwrap()];
        let won: Vec<&Replaced> = won.iter().filter(|one| **one != Replaced::Conflict).collect();
        assert_eq!(won.len(), 1, "round {round}");
        expected = revision(*won[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_expires_unless_it_is_renewed_and_followers_see_it() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let space = Space::Leases;
    let (_, mut feed) = b.records(&space).await.unwrap();
    let lease = |expected| Replacement { ttl: Some(Duration::from_secs(2)), ..value("x", expected) };
    let first = revision(a.replace(&space, "a", lease(0)).await.unwrap());
    let mut fed = changes(&mut feed, 1).await;
    let second = revision(a.replace(&space, "a", lease(first)).await.unwrap());
    fed.extend(changes(&mut feed, 2).await);
    assert_eq!((fed[0].revision, fed[1].revision), (first, second));
    assert!(fed[2].value.is_none() && fed[2].revision > second, "{fed:?}");
    assert_eq!(a.record(&space, "a").await.unwrap(), None);
    assert_eq!(b.replace(&space, "a", lease(second)).await.unwrap(), Replaced::Conflict);
    let again = revision(b.replace(&space, "a", lease(0)).await.unwrap());
    assert!(again > fed[2].revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_server_or_all_others() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = pair(&servers).await;
    let (mut at_a, mut at_b) = (a.signals().await.unwrap(), b.signals().await.unwrap());
    a.signal(Some(&"b".into()), Bytes::from_static(b"1")).await.unwrap();
    a.signal(None, Bytes::from_static(b"2")).await.unwrap();
    b.signal(Some(&"a".into()), Bytes::from_static(b"3")).await.unwrap();
    a.signal(Some(&"a".into()), Bytes::from_static(b"4")).await.unwrap();
    let mut got = (Vec::new(), Vec::new());
    let wait = Duration::from_secs(20);
    while got.0.len() < 2 {
        got.0.extend(tokio::time::timeout(wait, at_a.next()).await.unwrap().unwrap());
    }
    while got.1.len() < 2 {
        got.1.extend(tokio::time::timeout(wait, at_b.next()).await.unwrap().unwrap());
    }
    got.0.sort();
    got.1.sort();
    assert_eq!(got, (vec!["3", "4"].into_iter().map(Bytes::from).collect(), vec!["1".into(), "2".into()]));
}
