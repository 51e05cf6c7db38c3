//! What happens when a connection or a primary fails.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{server::Server, *};

/// Forwards bytes. On request, it cuts the connection instead of the next answer that looks like an
/// append's, or drops all answers.
pub(super) struct Proxy {
    pub(super) port: u16,
    /// The target of new connections.
    pub(super) target: watch::Sender<u16>,
    cut: watch::Sender<bool>,
    pub(super) mute: watch::Sender<bool>,
    _work: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, _) = watch::channel(false);
        let ((mute, _), (target, _)) = (watch::channel(false), watch::channel(target));
        let (mut work, told) = (JoinSet::new(), (target.clone(), cut.clone(), mute.clone()));
        work.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (target, cut, mute) = told.clone();
                connections.spawn(pass(client, target, cut, mute));
            }
        });
        Self { port, target, cut, mute, _work: work }
    }
}

async fn pass(
    client: TcpStream,
    target: watch::Sender<u16>,
    cut: watch::Sender<bool>,
    mute: watch::Sender<bool>,
) {
    let port = *target.borrow();
    let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
            let is_append = bytes[..count].windows(8).any(|word| word == b"appended");
            if is_append && cut.send_if_modified(std::mem::take) {
                return;
            }
            if *mute.borrow() {
                continue;
            }
            if to_client.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = answers => {}
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
    }
}

/// Appends until it succeeds, as a caller with an idempotency key does.
pub(super) async fn append_at_last(engine: &RedisEngine, key: &str) -> u64 {
    for _ in 0..20 {
        if let Ok(appended) = append(engine, key).await {
            return seq(&appended);
        }
    }
    panic!("appends do not work again");
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_is_stored_once() {
    let Some(server) = Server::start(&[]) else { return };
    let proxy = Proxy::start(server.port).await;
    let config = RedisConfig::parse(&format!("redis://127.0.0.1:{}", proxy.port)).unwrap();
    let engine = engine_with(config, Retention::default(), Limits::default()).await;
    let (_, mut feed) = engine.follow(&tenant()).await.unwrap();
    append(&engine, "").await.unwrap();
    proxy.cut.send_replace(true);
    // Without an idempotency key, the tag of the frame must suffice.
    assert_eq!(seq(&append(&engine, "").await.unwrap()), 2);
    assert!(!*proxy.cut.borrow(), "no answer was cut");
    assert_eq!(seq(&append(&engine, "").await.unwrap()), 3);
    let seqs: Vec<u64> = take(&mut feed, 3).await.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2, 3]);
    assert_eq!(server.command(&["XLEN", "ff:{1}:l"]), ::redis::Value::Int(3));
}

#[tokio::test]
async fn without_redis_appends_are_refused_in_time_and_a_restart_without_its_data_resets() {
    let Some(mut server) = Server::start(&[]) else { return };
    let mut config = RedisConfig::parse(&server.url()).unwrap();
    config.call_timeout = Duration::from_millis(500);
    let engine = engine_with(config, Retention::default(), Limits::default()).await;
    append(&engine, "").await.unwrap();
    let old = engine.head(&tenant()).await.unwrap();
    server.kill();
    let at = std::time::Instant::now();
    assert!(matches!(append(&engine, "").await, Err(Refusal::Storage("written"))));
    assert!(at.elapsed() < Duration::from_secs(5), "{:?}", at.elapsed());
    server.restart();
    assert_eq!(append_at_last(&engine, "k").await, 1);
    assert!(matches!(engine.read(&tenant(), &all(), old, LIMITS).await, Err(Refusal::Reset(_))));
}

#[tokio::test]
async fn an_append_waits_for_a_replica_when_that_is_configured() {
    let Some(primary) = Server::start(&[]) else { return };
    let mut config = RedisConfig::parse(&primary.url()).unwrap();
    (config.ack, config.call_timeout) = (Ack::Replica, Duration::from_millis(500));
    config.command_timeout = Duration::from_millis(400);
    let engine = engine_with(config, Retention::default(), Limits::default()).await;
    assert!(append(&engine, "k").await.is_err(), "there is no replica");
    let port = primary.port.to_string();
    let Some(replica) = Server::start(&["--replicaof", &format!("127.0.0.1 {port}")]) else { return };
    assert_eq!(append_at_last(&engine, "k").await, 1);
    assert_eq!(append_at_last(&engine, "l").await, 2);
    drop(replica);
    assert!(append(&engine, "k").await.is_err(), "a duplicate is no more durable than the first");
}

#[tokio::test]
async fn a_sentinel_names_the_new_primary() {
    let Some(mut primary) = Server::start(&[]) else { return };
    let replica_of = format!("127.0.0.1 {}", primary.port);
    let replica = Server::start(&["--replicaof", &replica_of]).unwrap();
    let Some(sentinel) = Server::sentinel("main", primary.port) else { return };
    // The sentinel must know the replica before it can promote it.
    sentinel.until(|| {
        let ::redis::Value::Array(replicas) = sentinel.command(&["SENTINEL", "REPLICAS", "main"]) else {
            return false;
        };
        !replicas.is_empty()
    });
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    let mut config = RedisConfig::parse(&url).unwrap();
    config.ack = Ack::Replica;
    let engine = engine_with(config, Retention::default(), Limits::default()).await;
    let (_, mut feed) = engine.follow(&tenant()).await.unwrap();
    assert_eq!(append_at_last(&engine, "a").await, 1);
    primary.kill();
    replica.until_primary();
    // The new primary has no replicas, so only memory can acknowledge.
    let config = RedisConfig::parse(&url).unwrap();
    let other = engine_with(config, Retention::default(), Limits::default()).await;
    assert_eq!(append_at_last(&other, "b").await, 2);
    let seqs: Vec<u64> = take(&mut feed, 2).await.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2], "the follower goes on at the new primary, and is not reset");
}

#[tokio::test]
async fn a_cluster_is_used_in_all_its_slots_and_survives_a_planned_failover() {
    let Some(cluster) = Server::cluster() else { return };
    let url = format!("redis+cluster://127.0.0.1:{}", cluster[0].port);
    let config = RedisConfig::parse(&url).unwrap();
    let a = engine_with(config.clone(), Retention::default(), Limits::default()).await;
    let b = engine_with(config, Retention::default(), Limits::default()).await;
    let mut feeds = Vec::new();
    for name in 0..12 {
        let tenant = Tenant::new(&name.to_string()).unwrap();
        feeds.push((tenant.clone(), b.follow(&tenant).await.unwrap().1));
    }
    for (tenant, feed) in &mut feeds {
        a.append(tenant, vec![draft(tenant.as_str(), "k", 1)]).await.unwrap();
        assert_eq!(take(feed, 1).await[0].seq, 1);
    }
    let (_, mut leases) = b.records(&Space::Leases).await.unwrap();
    let lease = Replacement { value: Some(Bytes::new()), expected: 0, ttl: None };
    a.replace(&Space::Leases, "a", lease).await.unwrap();
    assert_eq!(take(&mut leases, 1).await.len(), 1);
    assert_eq!(a.tenants(100).await.unwrap().len(), 12);
    for replica in &cluster[3..] {
        assert_eq!(replica.command(&["CLUSTER", "FAILOVER"]), ::redis::Value::Okay);
        replica.until_primary();
    }
    for (tenant, feed) in &mut feeds {
        let answer = a.append(tenant, vec![draft(tenant.as_str(), "l", 1)]).await.unwrap();
        assert_eq!((answer.len(), seq(&answer[0])), (1, 2));
        assert_eq!(take(feed, 1).await[0].seq, 2, "nobody is reset");
    }
}
