//! Three servers with three replicas: servers end and pause while others write and follow.

use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::*;

/// How long a writer retries an event before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn settings(servers: &Servers) -> NatsConfig {
    NatsConfig {
        request_timeout: Duration::from_secs(1),
        deadline: Duration::from_secs(4),
        ..super::settings(servers, 3)
    }
}

/// An engine on a cluster that may not have elected its leaders yet.
async fn patient(config: &NatsConfig, name: &str) -> NatsEngine {
    let end = Instant::now() + PATIENCE;
    loop {
        match open(config, name).await {
            Ok(engine) => return engine,
            Err(error) => assert!(Instant::now() < end, "{error:?}"),
        }
    }
}

/// Appends `count` events one after the other, each until it is acknowledged. Returns their ids.
async fn write(engine: Arc<NatsEngine>, t: Tenant, writer: String, count: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0..count {
        let (key, end) = (format!("{writer}-{number}"), Instant::now() + PATIENCE);
        loop {
            match engine.append(&t, vec![draft(&t, &key)]).await {
                Ok(answers) => {
                    acknowledged.push(match &answers[0] {
                        Appended::Event(event) => event.id.clone(),
                        Appended::Duplicate(receipt) => receipt.id.clone(),
                    });
                    break;
                }
                Err(refusal) => assert!(Instant::now() < end, "{refusal:?}"),
            }
        }
    }
    acknowledged
}

/// Follows like the hub, reading what a feed has lost, until it has `count` events.
async fn follow(engine: Arc<NatsEngine>, t: Tenant, mut after: Cursor, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    let end = Instant::now() + PATIENCE * 2;
    while seen.len() < count {
        assert!(Instant::now() < end, "{} of {count}", seen.len());
        let Ok((from, mut feed)) = engine.follow(&t).await else { continue };
        while after != from && after.seq < from.seq {
            let Ok(page) = engine.read(&t, &everything(), after, LIMITS).await else { continue };
            seen.extend(ids(&page.events));
            after = page.cursor;
        }
        while seen.len() < count {
            let next = timeout(PATIENCE, feed.next()).await.expect("the feed is silent");
            let Some(events) = next else { break };
            for event in events {
                if event.seq <= after.seq {
                    continue;
                }
                assert_eq!(event.seq, after.seq + 1, "a gap");
                after = cursor(&event);
                seen.push(event.id.clone());
            }
        }
    }
    seen
}

/// The server that leads a tenant's stream.
async fn leader(engine: &NatsEngine, t: &Tenant) -> usize {
    let end = Instant::now() + PATIENCE;
    loop {
        let stream = engine.shared.store.context.get_stream(engine.shared.store.names.log(t).stream).await;
        let leader = stream.ok().and_then(|stream| stream.cached_info().cluster.clone()?.leader);
        if let Some(leader) = leader {
            return leader.strip_prefix('n').unwrap().parse().unwrap();
        }
        assert!(Instant::now() < end, "no leader");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_end_or_pause_lose_no_acknowledged_event_and_repeat_none() {
    const EACH: usize = 400;
    let Some(mut servers) = Servers::start(3) else { return };
    let config = settings(&servers);
    let a = Arc::new(patient(&config, "a").await);
    let b = Arc::new(patient(&config, "b").await);
    let t = tenant("1");
    let start = a.head(&t).await.unwrap();
    let (mut writers, mut followers) = (JoinSet::new(), JoinSet::new());
    for (engine, name) in [(&a, "a"), (&b, "b")] {
        followers.spawn(follow(engine.clone(), t.clone(), start, EACH * 4));
        for number in 0..2 {
            writers.spawn(write(engine.clone(), t.clone(), format!("{name}{number}"), EACH));
        }
    }
    let reach = async |seq: u64| {
        let end = Instant::now() + PATIENCE;
        while !a.head(&t).await.is_ok_and(|head| head.seq >= seq) {
            assert!(Instant::now() < end, "the log does not grow");
        }
    };
    // The leader ends, then a follower ends, then a leader pauses.
    reach(100).await;
    let first = leader(&a, &t).await;
    servers.kill(first);
    reach(400).await;
    servers.launch(first);
    let second = (leader(&a, &t).await + 1) % 3;
    reach(600).await;
    servers.kill(second);
    servers.launch(second);
    reach(900).await;
    let third = leader(&a, &t).await;
    servers.pause(third);
    let paused = timeout(Duration::from_secs(3), reach(1_000_000)).await;
    assert!(paused.is_err());
    servers.resume(third);
    let mut acknowledged = HashSet::new();
    while let Some(ids) = writers.join_next().await {
        let ids = ids.unwrap();
        let seqs: Vec<u64> = ids.iter().map(|id| id.parse::<Cursor>().unwrap().seq).collect();
        assert!(seqs.is_sorted(), "a writer's events are in its order");
        acknowledged.extend(ids);
    }
    let log = ids(&read_all(&a, &t, start).await);
    assert_eq!(log.len(), EACH * 4, "each event is in the log once");
    assert_eq!(log.iter().cloned().collect::<HashSet<_>>(), acknowledged);
    while let Some(seen) = followers.join_next().await {
        assert_eq!(seen.unwrap(), log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_appends_are_refused_in_time_and_nothing_acknowledged_is_lost() {
    let Some(mut servers) = Servers::start(3) else { return };
    let config = settings(&servers);
    let a = Arc::new(patient(&config, "a").await);
    let t = tenant("1");
    let start = a.head(&t).await.unwrap();
    let before = write(a.clone(), t.clone(), "before".into(), 50).await;
    let state = a.state().await;
    assert_eq!((state.nodes.len(), state.partitions.len()), (3, config.partitions as usize), "{state:?}");
    assert!(state.partitions.iter().all(|one| one.replicas == 3 && !one.leader.is_empty()), "{state:?}");
    servers.kill(0);
    servers.kill(1);
    let (end, is_out) = (Instant::now() + PATIENCE, |state: &EngineState| {
        state.problems.iter().any(|one| one.stops_publishing)
    });
    while !is_out(&a.state().await) {
        assert!(Instant::now() < end, "the state does not tell");
    }
    let limit = config.deadline + Duration::from_secs(1);
    for what in ["append", "head", "read"] {
        let asked = Instant::now();
        let refusal = match what {
            "append" => a.append(&t, vec![draft(&t, "meanwhile")]).await.map(|_| ()),
            "head" => a.head(&t).await.map(|_| ()),
            _ => a.read(&t, &everything(), start, LIMITS).await.map(|_| ()),
        };
        assert!(asked.elapsed() < limit, "{what} took {:?}", asked.elapsed());
        if what == "append" {
            assert!(matches!(refusal, Err(Refusal::Storage(_))), "{refusal:?}");
        }
    }
    servers.launch(0);
    servers.launch(1);
    let after = write(a.clone(), t.clone(), "after".into(), 50).await;
    let repeated = write(a.clone(), t.clone(), "before".into(), 50).await;
    assert_eq!(repeated, before, "the keys are known still");
    while is_out(&a.state().await) {
        assert!(Instant::now() < end + PATIENCE, "the state does not recover");
    }
    let log: HashSet<String> = ids(&read_all(&a, &t, start).await).into_iter().collect();
    assert!(before.iter().chain(&after).all(|id| log.contains(id)));
    assert!((100..=101).contains(&log.len()), "{}", log.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_write_on_the_disk_all_servers_may_end_at_once() {
    let Some(mut servers) = Servers::start_with(3, "sync_interval: always") else { return };
    let config = settings(&servers);
    let a = Arc::new(patient(&config, "a").await);
    let t = tenant("1");
    let start = a.head(&t).await.unwrap();
    let mut writers = JoinSet::new();
    for number in 0..4 {
        writers.spawn(write(a.clone(), t.clone(), number.to_string(), 100));
    }
    let end = Instant::now() + PATIENCE;
    while !a.head(&t).await.is_ok_and(|head| head.seq >= 100) {
        assert!(Instant::now() < end, "the log does not grow");
    }
    (0..3).for_each(|number| servers.kill(number));
    (0..3).for_each(|number| servers.launch(number));
    let mut acknowledged = HashSet::new();
    while let Some(ids) = writers.join_next().await {
        acknowledged.extend(ids.unwrap());
    }
    let log: HashSet<String> = ids(&read_all(&a, &t, start).await).into_iter().collect();
    assert_eq!(log.len(), 400, "each event is in the log once");
    assert_eq!(log, acknowledged);
}
