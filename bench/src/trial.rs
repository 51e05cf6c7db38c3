//! One measurement of one target: a phase of events to connected sessions, or sessions that idle.

use std::time::Duration;

use anyhow::Context as _;

use crate::{
    client::Load,
    target::{Run, Target},
};

/// After the last delivery, so that what the server does afterwards counts too.
const SETTLE: Duration = Duration::from_millis(300);
/// After a start, and after the last session connected, before memory is read.
const IDLE_SETTLE: Duration = Duration::from_secs(5);

/// Events to all sessions, in one manner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    pub(crate) count: u32,
    /// Between two events; zero: all at once.
    pub(crate) interval: Duration,
    /// How many such runs are taken as one measurement: the CPU clock ticks are 10 ms long.
    pub(crate) runs: u32,
}

/// What a phase measured.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Of all processes of the target.
    pub(crate) cpu_micros_per_delivery: f64,
    pub(crate) cpu_by_process: Vec<(&'static str, f64)>,
    pub(crate) p50_millis: f64,
    pub(crate) p99_millis: f64,
    pub(crate) max_millis: f64,
    pub(crate) lost: u64,
    pub(crate) misplaced: u64,
    pub(crate) frame_bytes: usize,
}

/// A server with its sessions, between the phases.
#[derive(Debug)]
pub(crate) struct Stage {
    target: Target,
    load: Load,
    next: u32,
}

impl Stage {
    /// Connects sessions to a started server.
    pub(crate) async fn connect(target: Target, sessions: usize) -> anyhow::Result<Self> {
        let load = Load::connect(target.address(), sessions, |session| target.auth(session)).await;
        let load = load.with_context(|| format!("sessions of {}", target.kind().name()))?;
        Ok(Self { target, load, next: 1 })
    }

    /// Ends the sessions, then the server; gives how many sessions the server had ended before.
    pub(crate) async fn stop(self) -> anyhow::Result<u64> {
        let ended = self.load.ended();
        drop(self.load);
        self.target.stop().await?;
        Ok(ended)
    }

    /// Sends the phase's events and waits until all sessions have them.
    pub(crate) async fn measure(&mut self, phase: Phase) -> anyhow::Result<Outcome> {
        let before = self.target.cpu()?;
        let (mut outcome, mut deliveries, mut latencies) = (Outcome::default(), 0, Vec::new());
        for _ in 0..phase.runs {
            let run = Run { count: phase.count, first: self.next, interval: phase.interval };
            self.load.begin(run.first, run.count);
            let published = self.target.publish(run).await;
            published.with_context(|| format!("publishing to {}", self.target.kind().name()))?;
            let received = self.load.finish(run.count).await;
            self.next += run.count;
            deliveries += received.events;
            outcome.lost += received.lost;
            outcome.misplaced += received.misplaced;
            outcome.frame_bytes = received.frame_bytes;
            latencies.extend(received.latencies_micros);
        }
        tokio::time::sleep(SETTLE).await;
        outcome.cpu_by_process = self
            .target
            .cpu()?
            .into_iter()
            .zip(before)
            .map(|((name, after), (_, before))| {
                (name, (after.saturating_sub(before)).as_secs_f64() * 1e6 / deliveries.max(1) as f64)
            })
            .collect();
        outcome.cpu_micros_per_delivery = outcome.cpu_by_process.iter().map(|(_, micros)| micros).sum();
        latencies.sort_unstable();
        outcome.p50_millis = quantile_millis(&latencies, 0.5);
        outcome.p99_millis = quantile_millis(&latencies, 0.99);
        outcome.max_millis = quantile_millis(&latencies, 1.0);
        Ok(outcome)
    }
}

/// Resident KiB that each of `sessions` idle sessions costs a freshly started server.
pub(crate) async fn idle_kib(target: Target, sessions: usize) -> anyhow::Result<f64> {
    tokio::time::sleep(IDLE_SETTLE).await;
    let before = target.resident_kib()?;
    let stage = Stage::connect(target, sessions).await?;
    tokio::time::sleep(IDLE_SETTLE).await;
    let after = stage.target.resident_kib()?;
    let ended = stage.stop().await?;
    anyhow::ensure!(ended == 0, "{ended} idle sessions ended");
    Ok(after.saturating_sub(before) as f64 / sessions as f64)
}

/// Of sorted microseconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the length")]
fn quantile_millis(sorted: &[u32], quantile: f64) -> f64 {
    let index = (sorted.len().saturating_sub(1) as f64 * quantile).round() as usize;
    sorted.get(index).map_or(f64::NAN, |&micros| f64::from(micros) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let sorted: Vec<u32> = (0..=1000).map(|n| n * 1000).collect();
        assert!((quantile_millis(&sorted, 0.5) - 500.0).abs() < f64::EPSILON);
        assert!((quantile_millis(&sorted, 0.99) - 990.0).abs() < f64::EPSILON);
        assert!((quantile_millis(&sorted, 1.0) - 1000.0).abs() < f64::EPSILON);
        assert!(quantile_millis(&[], 0.5).is_nan());
    }
}
