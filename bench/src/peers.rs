//! The side-by-side run: all targets with their sessions, layout by layout, taking turns in every round.

use anyhow::bail;

use crate::{
    args::Args,
    binaries::Binaries,
    idle::{self, Idle},
    measure::{self, Others},
    phase::Layout,
    report::{self, Results},
    target::Target,
    trial::Stage,
};

/// With more than this going on besides, figures are not to be quoted.
const OTHERS_CORES_MAX: f64 = 0.1;

/// Measures deliveries, then idle sessions, and prints the table.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let kinds = args.targets();
    let binaries = Binaries::prepare(&kinds, args.given())?;
    let mut results: Vec<Results> = kinds.into_iter().map(Results::new).collect();
    let others = Others::watch()?;
    for layout in args.layouts() {
        // As many targets at the same time as there may be sockets for.
        let together = (measure::sockets_max() / layout.sessions.max(1)).max(1);
        for results in results.chunks_mut(together) {
            deliveries(args, &binaries, &layout, results).await?;
        }
    }
    let others = others.cores()?;
    if args.idle_sessions > 0 {
        measure_idle(args, &binaries, &[Idle::SocketIo], &mut results).await?;
    }
    let machine =
        format!("{}; other processes kept {others:.2} cores busy while CPU was measured", measure::machine());
    report::print(&results, &args.conditions(), &machine);
    if others > OTHERS_CORES_MAX {
        eprintln!("the machine was not idle: compare the columns of this run, and do not quote its figures");
    }
    if !results.iter().all(Results::is_exact) {
        bail!("not every session got every event once and in order: see the row of what was lost");
    }
    Ok(())
}

/// Measures only the memory of sessions, in all ways.
pub(crate) async fn run_idle(args: &Args) -> anyhow::Result<()> {
    let kinds = args.targets();
    let binaries = Binaries::prepare(&kinds, args.given())?;
    let mut results: Vec<Results> = kinds.into_iter().map(Results::new).collect();
    measure_idle(args, &binaries, &Idle::ALL, &mut results).await?;
    let conditions =
        format!("{} sessions; a burst of {} events; {} rounds", args.idle_sessions, args.burst, args.rounds);
    report::print(&results, &conditions, &measure::machine());
    Ok(())
}

/// CPU and latency: the servers run, with their sessions, and take turns.
async fn deliveries(
    args: &Args,
    binaries: &Binaries,
    layout: &Layout,
    results: &mut [Results],
) -> anyhow::Result<()> {
    let mut stages = Vec::new();
    for results in &mut *results {
        let own = |case: &&_| results.kind.is_fanfare() || !crate::phase::Case::is_own(**case);
        let cases: Vec<_> = layout.cases.iter().filter(own).copied().collect();
        if cases.is_empty() {
            stages.push(None);
            continue;
        }
        let target = Target::start(results.kind, binaries, args.burst).await?;
        eprintln!("connecting {} sessions to {}", layout.sessions, target.version());
        target.version().clone_into(&mut results.version);
        stages.push(Some((Stage::connect(target, layout).await?, cases)));
    }
    for round in 0..=args.rounds {
        for (stage, results) in stages.iter_mut().zip(&mut *results) {
            let Some((stage, cases)) = stage else { continue };
            for &case in &*cases {
                let outcome = stage.measure(case, case.pace(args.length())).await?;
                eprintln!(
                    "round {round} of {}: {:<12} {:<17} {:7.2} CPU µs/delivery",
                    args.rounds,
                    results.kind.name(),
                    case.name(),
                    outcome.cpu_micros_per_delivery
                );
                // The first round warms up.
                if round > 0 {
                    results.outcomes.entry(case).or_default().push(outcome);
                }
            }
        }
    }
    for (stage, results) in stages.into_iter().zip(results) {
        if let Some((stage, _)) = stage {
            results.ended += stage.stop().await?;
        }
    }
    Ok(())
}

/// Memory: each server afresh and alone.
async fn measure_idle(
    args: &Args,
    binaries: &Binaries,
    ways: &[Idle],
    results: &mut [Results],
) -> anyhow::Result<()> {
    for round in 1..=args.rounds {
        for results in &mut *results {
            for &way in ways {
                if way == Idle::WebSocket && !results.kind.is_fanfare() {
                    continue;
                }
                let target = Target::start(results.kind, binaries, args.burst).await?;
                target.version().clone_into(&mut results.version);
                let kib = idle::kib(target, way, args.idle_sessions as usize, args.burst).await?;
                let (name, rounds) = (results.kind.name(), args.rounds);
                eprintln!("round {round} of {rounds}: {name:<12} {kib:6.2} {}", way.name());
                results.idle_kib.entry(way).or_default().push(kib);
            }
        }
    }
    Ok(())
}
