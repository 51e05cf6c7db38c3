//! Fanfare, Socket.IO on Node and socketioxide, measured side by side in one run: server CPU per
//! delivery, latency, and memory per idle session.
//!
//! `target` runs the servers, `client` loads them, `measure` asks the operating system, `trial` puts the
//! three together, `report` prints. `publish` and `storm` measure Fanfare alone. Nothing here knows more of Fanfare than its flags and its contract.

mod binaries;
mod client;
mod event;
mod measure;
mod publish;
mod report;
mod storm;
mod target;
mod trial;

use std::{path::PathBuf, time::Duration};

use anyhow::{bail, ensure};
use clap::{Parser, ValueEnum};

use binaries::Binaries;
use measure::Others;
use report::Results;
use target::{Kind, Target};
use trial::{Phase, Stage};

/// The interval of steady events: 20 a second.
const STEADY_INTERVAL: Duration = Duration::from_millis(50);
const STEADY_EVENTS_PER_SECOND: u32 = 20;
/// With more than this going on besides, figures are not to be quoted.
const OTHERS_CORES_MAX: f64 = 0.1;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// Deliveries to sessions and idle sessions, beside the peers.
    Peers,
    /// Acknowledged events a second, by engine, way and events in flight.
    Publish,
    /// Sessions that come back all at once.
    Storm,
}

/// Measures Fanfare and its peers side by side on this machine.
#[derive(Debug, Parser)]
struct Args {
    /// What is measured.
    #[arg(long, value_enum, default_value = "peers")]
    subject: Subject,
    /// Sessions in a recovery storm.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    storm_sessions: u32,
    /// Events that each of them has missed.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    storm_missed: u32,
    /// WebSocket sessions in one room.
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    /// How long the steady phase of a round takes, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Events in a burst.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    burst: u32,
    /// Bursts in a round, taken as one measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    bursts: u32,
    /// Sessions that idle while memory is measured; 0 leaves it out.
    #[arg(long, default_value_t = 8000)]
    idle_sessions: usize,
    /// What is measured.
    #[arg(long, value_delimiter = ',', default_value = "fanfare,node,socketioxide")]
    only: Vec<Kind>,
    /// Rounds that count; one more, first, does not.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Measures this `fanfare` program, instead of one built from the workspace.
    #[arg(long)]
    fanfare: Option<PathBuf>,
}

impl Args {
    fn conditions(&self) -> String {
        let Self { sessions, seconds, burst, bursts, idle_sessions, rounds, .. } = self;
        format!(
            "{sessions} sessions in one room; steady {STEADY_EVENTS_PER_SECOND} events/s for {seconds} s; \
             {bursts} bursts of {burst} events; {idle_sessions} idle sessions; {rounds} rounds after one \
             that does not count"
        )
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !cfg!(debug_assertions),
            "a debug build measures nothing: cargo run --release -p fanfare-bench"
        );
        ensure!(self.sessions > 0, "--sessions 0 delivers nothing: give at least 1");
        for (index, kind) in self.only.iter().enumerate() {
            ensure!(!self.only[..index].contains(kind), "--only names {} twice", kind.name());
        }
        measure::allow_sockets(match self.subject {
            Subject::Peers => self.idle_sessions.max(self.sessions * self.only.len()),
            Subject::Publish => 0,
            // Those that are gone may not be closed yet.
            Subject::Storm => 2 * self.storm_sessions as usize,
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    args.check()?;
    match args.subject {
        Subject::Peers => peers(&args).await,
        Subject::Publish => {
            let binaries = Binaries::prepare(&[Kind::Fanfare], args.fanfare.clone())?;
            publish::run(binaries.fanfare()?, args.rounds, args.seconds).await
        }
        Subject::Storm => {
            let binaries = Binaries::prepare(&[Kind::Fanfare], args.fanfare.clone())?;
            storm::run(&binaries, args.rounds, args.storm_sessions as usize, args.storm_missed).await
        }
    }
}

async fn peers(args: &Args) -> anyhow::Result<()> {
    let binaries = Binaries::prepare(&args.only, args.fanfare.clone())?;
    let others = Others::watch()?;
    let mut results = deliveries(args, &binaries).await?;
    let others = others.cores()?;
    if args.idle_sessions > 0 {
        idle(args, &binaries, &mut results).await?;
    }
    let machine =
        format!("{}; other processes kept {others:.2} cores busy while CPU was measured", measure::machine());
    report::print(&results, &args.conditions(), &machine);
    if others > OTHERS_CORES_MAX {
        eprintln!("the machine was not idle: compare the columns of this run, and do not quote its figures");
    }
    if !results.iter().all(Results::is_exact) {
        bail!("not every session got every event once and in order: see the last row");
    }
    Ok(())
}

/// CPU and latency: all servers run, with their sessions, and take turns.
async fn deliveries(args: &Args, binaries: &Binaries) -> anyhow::Result<Vec<Results>> {
    let steady = Phase { count: args.seconds * STEADY_EVENTS_PER_SECOND, interval: STEADY_INTERVAL, runs: 1 };
    let burst = Phase { count: args.burst, interval: Duration::ZERO, runs: args.bursts };
    let (mut stages, mut results) = (Vec::new(), Vec::new());
    for &kind in &args.only {
        let target = Target::start(kind, binaries, args.burst).await?;
        eprintln!("connecting {} sessions to {}", args.sessions, target.version());
        results.push(Results::new(kind, target.version()));
        stages.push(Stage::connect(target, args.sessions).await?);
    }
    for round in 0..=args.rounds {
        for (stage, results) in stages.iter_mut().zip(&mut results) {
            let (steady, burst) = (stage.measure(steady).await?, stage.measure(burst).await?);
            eprintln!(
                "round {round} of {}: {:<12} {:6.2} steady, {:6.2} burst CPU µs/delivery",
                args.rounds,
                results.kind.name(),
                steady.cpu_micros_per_delivery,
                burst.cpu_micros_per_delivery
            );
            if round > 0 {
                results.steady.push(steady);
                results.burst.push(burst);
            }
        }
    }
    for (stage, results) in stages.into_iter().zip(&mut results) {
        results.ended = stage.stop().await?;
    }
    Ok(results)
}

/// Memory: each server afresh and alone.
async fn idle(args: &Args, binaries: &Binaries, results: &mut [Results]) -> anyhow::Result<()> {
    for round in 1..=args.rounds {
        for results in &mut *results {
            let target = Target::start(results.kind, binaries, args.burst).await?;
            let kib = trial::idle_kib(target, args.idle_sessions).await?;
            eprintln!("idle {round} of {}: {:<12} {kib:6.2} KiB/session", args.rounds, results.kind.name());
            results.idle_kib.push(kib);
        }
    }
    Ok(())
}
