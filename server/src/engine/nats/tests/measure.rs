//! Measurements, printed if `FANFARE_NATS_MEASURE` is set: appends one by one and batched, with one
//! and three replicas, and the cost of two servers that append to one tenant.

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::*;

const TIME: Duration = Duration::from_secs(1);
/// Rounds in which one server and two servers take turns, so that both run under the same load.
const ROUNDS: usize = 5;

/// Lets `writers` writers per engine append batches for a while.
async fn run(what: &str, engines: &[Arc<NatsEngine>], t: &Tenant, writers: usize, batch: usize) -> f64 {
    let (mut tasks, start) = (JoinSet::new(), Instant::now());
    for engine in engines {
        for _ in 0..writers {
            let (engine, t) = (engine.clone(), t.clone());
            tasks.spawn(async move {
                let mut times = Vec::new();
                while start.elapsed() < TIME {
                    let batch = (0..batch).map(|_| typed(&t, "messenger.v1.NewMessage", "", &[0; 100]));
                    let began = Instant::now();
                    engine.append(&t, batch.collect()).await.unwrap();
                    times.push(began.elapsed());
                }
                times
            });
        }
    }
    let mut times = Vec::new();
    while let Some(some) = tasks.join_next().await {
        times.extend(some.unwrap());
    }
    let rate = (times.len() * batch) as f64 / start.elapsed().as_secs_f64();
    times.sort();
    let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    eprintln!("{what}: {rate:.0} events/s, p50 {half:.2?}, p99 {most:.2?}");
    rate
}

#[tokio::test(flavor = "multi_thread")]
async fn figures() {
    if std::env::var_os("FANFARE_NATS_MEASURE").is_none() {
        return;
    }
    for replicas in [1, 3] {
        let Some(servers) = Servers::start(replicas) else { return };
        let config = settings(&servers, replicas);
        let mut engines = Vec::new();
        for name in ["a", "b"] {
            let engine = loop {
                if let Ok(engine) = open(&config, name).await {
                    break engine;
                }
            };
            engines.push(Arc::new(engine));
        }
        sleep_until(Instant::now() + Duration::from_secs(2)).await;
        let (one, both) = (&engines[..1], &engines[..]);
        let t = |name: &str| tenant(&format!("{name}-{replicas}"));
        let name = |what: &str| format!("R{replicas}, {what}");
        run(&name("one by one"), one, &t("1"), 1, 1).await;
        run(&name("64 writers"), one, &t("1"), 64, 1).await;
        run(&name("4 writers, 100 a batch"), one, &t("1"), 4, 100).await;
        for writers in [1, 8, 32] {
            let mut costs = Vec::new();
            for _ in 0..ROUNDS {
                let what = format!("{} writers on one server", writers * 2);
                let alone = run(&name(&what), one, &t("2"), writers * 2, 1).await;
                let what = format!("{writers} writers on each of two servers, one tenant");
                let shared = run(&name(&what), both, &t("3"), writers, 1).await;
                costs.push((1.0 - shared / alone) * 100.0);
            }
            costs.sort_by(f64::total_cmp);
            eprintln!("R{replicas}, {writers} writers: contention costs {costs:.0?} %");
        }
    }
}
