//! What still works when Redis refuses writes, and the limits.

use super::{super::log::Part, server::Server, *};

const VALUE: Replacement = Replacement { value: Some(Bytes::from_static(b"v")), expected: 0, ttl: None };

/// Runs everything that only reads.
async fn reads_go_on(engine: &RedisEngine, start: Cursor, events: usize) {
    let head = engine.head(&tenant()).await.unwrap();
    assert_eq!(head.seq, start.seq + events as u64);
    assert_eq!(engine.read(&tenant(), &all(), start, LIMITS).await.unwrap().events.len(), events);
    assert_eq!(engine.follow(&tenant()).await.unwrap().0, head);
    let space = Space::Users(tenant());
    let record = engine.record(&space, "kept").await.unwrap().unwrap();
    assert_eq!(engine.records(&space).await.unwrap().0, [record]);
    assert_eq!(engine.tenants(10).await.unwrap(), [tenant()]);
}

#[tokio::test]
async fn without_memory_or_without_replicas_reads_go_on() {
    let Some(server) = Server::start(&[]) else { return };
    let mut config = RedisConfig::parse(&server.url()).unwrap();
    config.call_timeout = Duration::from_millis(500);
    let start = engine(&server).await.head(&tenant()).await.unwrap();
    let writer = engine_with(config.clone(), Retention::default(), Limits::default()).await;
    for _ in 0..3 {
        append(&writer, "").await.unwrap();
    }
    let space = Space::Users(tenant());
    writer.replace(&space, "kept", VALUE).await.unwrap();
    let Replaced::Revision(expected) = writer.replace(&space, "removed", VALUE).await.unwrap() else {
        panic!("a conflict")
    };
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]);
    // A server without any previous knowledge.
    let reader = engine_with(config.clone(), Retention::default(), Limits::default()).await;
    let refused = append(&reader, "").await;
    assert!(matches!(refused, Err(Refusal::StoreFull)), "{refused:?}");
    let removal = Replacement { value: None, expected, ttl: None };
    let removed = reader.replace(&space, "removed", removal).await.unwrap();
    assert!(matches!(removed, Replaced::Revision(_)), "a removal frees memory");
    reads_go_on(&reader, start, 3).await;
    assert_eq!(reader.head(&Tenant::new("new").unwrap()).await.unwrap().seq, 0);
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    server.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let reader = engine_with(config, Retention::default(), Limits::default()).await;
    let refused = append(&reader, "").await;
    assert!(matches!(refused, Err(Refusal::Storage("written"))), "{refused:?}");
    reads_go_on(&reader, start, 3).await;
}

#[tokio::test]
async fn records_that_have_expired_are_in_no_snapshot() {
    let Some(server) = Server::start(&[]) else { return };
    let engine = engine(&server).await;
    let lease = Replacement { ttl: Some(Duration::from_millis(1)), ..VALUE };
    engine.replace(&Space::Leases, "a", lease).await.unwrap();
    while engine.record(&Space::Leases, "a").await.unwrap().is_some() {}
    assert_eq!(server.command(&["HLEN", "ff:{~leases}:r"]), ::redis::Value::Int(1));
    let (snapshot, mut feed) = engine.records(&Space::Leases).await.unwrap();
    assert_eq!(snapshot, []);
    assert_eq!(take(&mut feed, 1).await[0].value, None, "its removal follows");
}

#[tokio::test]
async fn one_command_reads_so_many_bytes_and_frames_and_no_more() {
    let Some(server) = Server::start(&[]) else { return };
    let engine = engine(&server).await;
    let start = engine.head(&tenant()).await.unwrap();
    for _ in 0..8 {
        engine.append(&tenant(), vec![draft("1", "", 200 << 10)]).await.unwrap();
    }
    let middle = engine.head(&tenant()).await.unwrap();
    let read = async |after| match engine.shared.read_frames(&tenant(), after, 4096).await.unwrap() {
        Part::Frames { frames, .. } => frames.len(),
        Part::Reset(_) => panic!("a reset"),
    };
    assert_eq!(read(start).await, 1);
    for _ in 0..300 {
        append(&engine, "").await.unwrap();
    }
    assert!((128..136).contains(&read(middle).await));
    let (mut after, mut events) = (start, 0);
    loop {
        let page = engine.read(&tenant(), &all(), after, LIMITS).await.unwrap();
        events += page.events.len();
        after = page.cursor;
        if !page.more {
            break;
        }
    }
    assert_eq!(events, 308);
}

#[tokio::test]
async fn a_tenant_without_events_leaves_the_index_and_comes_back() {
    let Some(server) = Server::start(&[]) else { return };
    let config = RedisConfig::parse(&server.url()).unwrap();
    let retention = Retention { age_max: Duration::from_millis(1), ..Retention::default() };
    let engine = engine_with(config, retention, Limits::default()).await;
    append(&engine, "").await.unwrap();
    let head = engine.head(&tenant()).await.unwrap();
    let other = Tenant::new("2").unwrap();
    let start = engine.follow(&other).await.unwrap().0;
    engine.read(&other, &all(), start, LIMITS).await.unwrap();
    let emptied = async {
        while !engine.tenants(10).await.unwrap().is_empty() {
            engine.sweep().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), emptied).await.expect("it stays in the index");
    let is_forgotten =
        |key: &str| matches!(server.command(&["PTTL", key]), ::redis::Value::Int(millis @ 1..) if millis > 0);
    assert!(is_forgotten("ff:{1}:m") && is_forgotten("ff:{2}:m"), "logs without events are forgotten");
    assert_eq!(engine.head(&tenant()).await.unwrap(), head, "but not soon");
    append(&engine, "").await.unwrap();
    let next = engine.head(&tenant()).await.unwrap();
    assert_eq!((next.epoch, next.seq), (head.epoch, 2));
    assert_eq!(engine.tenants(10).await.unwrap(), [tenant()]);
    assert!(!is_forgotten("ff:{1}:m"));
}

#[tokio::test]
async fn an_event_of_a_newer_catalog_ends_the_read_and_the_feed() {
    let Some(server) = Server::start(&[]) else { return };
    let (a, b) = (engine(&server).await, engine(&server).await);
    let newer = |rooms: &str| {
        let known = draft("1", "", 1);
        let of_another = Catalogs::builtin().unwrap().event("messenger.v1.NewMessage").unwrap().clone();
        let mut kind = Arc::into_inner(of_another).expect("its catalogs are gone");
        kind.full_name = "messenger.v2.Later".to_owned();
        let rooms = vec![fanfare_proto::room::Room::new(rooms).unwrap()];
        Draft { kind: Arc::new(kind), rooms, ..known }
    };
    let (start, mut feed) = b.follow(&tenant()).await.unwrap();
    // Unwanted events may have unknown types.
    a.append(&tenant(), vec![draft("1", "", 1), newer("chat:7"), draft("1", "", 1)]).await.unwrap();
    ended(&mut feed).await;
    let page = b.read(&tenant(), &all(), start, LIMITS).await.unwrap();
    assert_eq!((page.events.len(), page.more), (2, false));
    a.append(&tenant(), vec![draft("1", "", 1), newer("org")]).await.unwrap();
    let page = b.read(&tenant(), &all(), page.cursor, LIMITS).await.unwrap();
    assert_eq!((page.events.len(), page.more), (1, true), "what comes before it is read");
    let refused = b.read(&tenant(), &all(), page.cursor, LIMITS).await;
    assert!(
        matches!(&refused, Err(Refusal::NewerCatalog(name)) if name == "messenger.v2.Later"),
        "{refused:?}"
    );
}
