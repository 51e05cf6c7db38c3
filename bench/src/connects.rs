//! What a connect costs: sessions that connect to a freshly started server, 64 at the same time, each until its CONNECT
//! is answered.

use std::time::Instant;

use crate::{
    binaries::Binaries,
    client::Load,
    measure,
    phase::Layout,
    report::Spread,
    target::{Kind, Target},
    trial::{SETTLE, cpu_since, entrances},
};

/// Sessions that connect before, so that what a server does only once does not count.
const WARM_UP: usize = 200;

#[derive(Debug)]
struct Outcome {
    cpu_micros: Vec<(&'static str, f64)>,
    per_second: f64,
}

/// Measures all targets in turns and prints the table.
pub(crate) async fn run(
    binaries: &Binaries,
    kinds: &[Kind],
    rounds: u32,
    sessions: usize,
) -> anyhow::Result<()> {
    let mut outcomes: Vec<Vec<Outcome>> = kinds.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (&kind, outcomes) in kinds.iter().zip(&mut outcomes) {
            let outcome = measure_connects(Target::start(kind, binaries, 1).await?, sessions).await?;
            eprintln!("connect {round} of {rounds}: {:<12} {:6.0} µs", kind.name(), total(&outcome));
            outcomes.push(outcome);
        }
    }
    print(kinds, &outcomes, rounds, sessions);
    Ok(())
}

async fn measure_connects(target: Target, sessions: usize) -> anyhow::Result<Outcome> {
    let layout = Layout { sessions: sessions + WARM_UP, chats: 0, cases: Vec::new() };
    let mut first = entrances(&target, &layout)?;
    let rest = first.split_off(WARM_UP);
    let warm = Load::connect(target.address(), first).await?;
    tokio::time::sleep(SETTLE).await;
    let (before, began) = (target.cpu()?, Instant::now());
    let load = Load::connect(target.address(), rest).await?;
    let elapsed = began.elapsed();
    tokio::time::sleep(SETTLE).await;
    let cpu_micros = cpu_since(&target, before, sessions as u64)?;
    let ended = load.ended() + warm.ended();
    anyhow::ensure!(ended == 0, "{ended} sessions of {} ended", target.kind().name());
    drop((load, warm));
    target.stop().await?;
    Ok(Outcome { cpu_micros, per_second: sessions as f64 / elapsed.as_secs_f64() })
}

fn total(outcome: &Outcome) -> f64 {
    outcome.cpu_micros.iter().map(|(_, micros)| micros).sum()
}

#[allow(clippy::print_stdout, reason = "the report is what the program is for")]
fn print(kinds: &[Kind], outcomes: &[Vec<Outcome>], rounds: u32, sessions: usize) {
    println!("{sessions} connects, median (least–greatest) of {rounds} rounds, on {}\n", measure::machine());
    println!("| target | CPU ms/connect | by process | connects/s |");
    println!("| --- | --- | --- | --- |");
    for (kind, outcomes) in kinds.iter().zip(outcomes) {
        let cell =
            |value: &dyn Fn(&Outcome) -> f64| Spread::cell(Spread::of(outcomes.iter().map(value).collect()));
        let names = outcomes.first().map(|outcome| outcome.cpu_micros.iter().map(|(name, _)| *name));
        let processes = (0..).zip(names.into_iter().flatten());
        let processes: Vec<String> = processes
            .map(|(at, name): (usize, _)| format!("{name} {}", cell(&|o| o.cpu_micros[at].1 / 1000.0)))
            .collect();
        println!(
            "| {} | {} | {} | {} |",
            kind.name(),
            cell(&|outcome| total(outcome) / 1000.0),
            processes.join(", "),
            cell(&|outcome| outcome.per_second)
        );
    }
}
