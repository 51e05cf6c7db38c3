//! How fast acknowledged events get in: the memory and the disk engine, unary and as a stream, with some events in flight.
//!
//! One producer on one HTTP/2 connection, nobody subscribed. An event counts when its answer has come.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    audience::Audience,
    measure,
    report::Spread,
    target::{
        fanfare::{StartedServer, start_server},
        producer::{Producer, request},
    },
};

/// Events in flight.
const IN_FLIGHT: [usize; 3] = [1, 16, 256];
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Unary,
    Stream,
}

/// One way to publish to one engine.
#[derive(Debug)]
struct Case {
    engine: &'static str,
    way: Way,
    in_flight: usize,
    outcomes: Vec<Outcome>,
}

#[derive(Debug)]
struct Outcome {
    per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
    cpu_micros: f64,
}

/// Measures all cases in turns and prints the table.
pub(crate) async fn run(program: &Path, rounds: u32, seconds: u32) -> anyhow::Result<()> {
    let folder = program.parent().context("the program is in no folder")?.join("bench-publish");
    // What an earlier run that was interrupted left behind.
    let _absent = std::fs::remove_dir_all(&folder);
    let engines = [
        ("memory", start_server(program, None).await?),
        ("disk", start_server(program, Some(&folder)).await?),
    ];
    let mut cases = Vec::new();
    for (engine, _) in &engines {
        for way in [Way::Unary, Way::Stream] {
            cases.extend(IN_FLIGHT.map(|in_flight| Case { engine, way, in_flight, outcomes: Vec::new() }));
        }
    }
    let time = Duration::from_secs(u64::from(seconds));
    for round in 0..=rounds {
        for case in &mut cases {
            let server = &engines.iter().find(|(name, _)| *name == case.engine).context("no such engine")?.1;
            let outcome = measure_case(server, case.way, case.in_flight, time).await?;
            eprintln!(
                "round {round} of {rounds}: {} {:?} {:>3}: {:>7.0}/s",
                case.engine, case.way, case.in_flight, outcome.per_second
            );
            // The first round warms up.
            if round > 0 {
                case.outcomes.push(outcome);
            }
        }
    }
    for (_, server) in engines {
        server.process.stop().await?;
    }
    std::fs::remove_dir_all(&folder)?;
    print(&cases, &measure::machine(), rounds, seconds);
    Ok(())
}

async fn measure_case(
    server: &StartedServer,
    way: Way,
    in_flight: usize,
    time: Duration,
) -> anyhow::Result<Outcome> {
    let before = measure::cpu(server.process.id())?;
    let began = Instant::now();
    let mut latencies = match way {
        Way::Unary => unary(&server.producer, in_flight, began + time).await?,
        Way::Stream => stream(&server.producer, in_flight, began + time).await?,
    };
    let (elapsed, count) = (began.elapsed().as_secs_f64(), latencies.len());
    let cpu = measure::cpu(server.process.id())?.saturating_sub(before);
    latencies.sort_unstable();
    let at = |share: f64| latencies[((count - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    if count == 0 {
        bail!("no event was answered");
    }
    Ok(Outcome {
        per_second: count as f64 / elapsed,
        p50_micros: at(0.5),
        p99_micros: at(0.99),
        cpu_micros: cpu.as_secs_f64() * 1e6 / count as f64,
    })
}

/// So many callers, each with one call after the other.
async fn unary(producer: &Producer, in_flight: usize, end: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut callers = JoinSet::new();
    for caller in 0..in_flight {
        let (mut client, first) = (producer.client.clone(), u32::try_from(caller)?);
        let bearer = producer.authorized(()).metadata().clone();
        callers.spawn(async move {
            let mut latencies = Vec::new();
            while Instant::now() < end {
                let mut call = tonic::Request::new(request(first, &Audience::All));
                *call.metadata_mut() = bearer.clone();
                let sent = Instant::now();
                timeout(PATIENCE, client.notify(call)).await??;
                latencies.push(sent.elapsed());
            }
            Ok::<_, anyhow::Error>(latencies)
        });
    }
    let mut all = Vec::new();
    while let Some(latencies) = callers.join_next().await {
        all.extend(latencies??);
    }
    Ok(all)
}

/// One stream with so many events unanswered.
async fn stream(producer: &Producer, in_flight: usize, end: Instant) -> anyhow::Result<Vec<Duration>> {
    let (requests, outgoing) = mpsc::channel(in_flight);
    let outbound = producer.authorized(ReceiverStream::new(outgoing));
    let (mut sent, mut latencies) = (std::collections::VecDeque::new(), Vec::new());
    for number in 0..in_flight {
        sent.push_back(Instant::now());
        requests.send(request(u32::try_from(number)?, &Audience::All)).await?;
    }
    let mut answers = producer.client.clone().notify_stream(outbound).await?.into_inner();
    let mut requests = Some(requests);
    while timeout(PATIENCE, answers.message()).await??.is_some() {
        latencies.push(sent.pop_front().context("an answer to nothing")?.elapsed());
        if Instant::now() >= end {
            requests = None;
        }
        if let Some(requests) = &requests {
            sent.push_back(Instant::now());
            requests.send(request(0, &Audience::All)).await?;
        }
    }
    Ok(latencies)
}

#[allow(clippy::print_stdout, reason = "the report is what the program is for")]
fn print(cases: &[Case], machine: &str, rounds: u32, seconds: u32) {
    println!(
        "Acknowledged events, {seconds} s a case, median (least to greatest) of {rounds} rounds, on {machine}\n"
    );
    println!("| engine | way | in flight | events/s | p50 µs | p99 µs | server CPU µs/event |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for case in cases {
        let cell =
            |value: fn(&Outcome) -> f64| Spread::cell(Spread::of(case.outcomes.iter().map(value).collect()));
        println!(
            "| {} | {:?} | {} | {} | {} | {} | {} |",
            case.engine,
            case.way,
            case.in_flight,
            cell(|o| o.per_second),
            cell(|o| o.p50_micros),
            cell(|o| o.p99_micros),
            cell(|o| o.cpu_micros)
        );
    }
}
