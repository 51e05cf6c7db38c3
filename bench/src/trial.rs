//! One measurement of one target: the events of a case to connected sessions.

use std::time::Duration;

use anyhow::Context as _;

use crate::{
    audience::{Audience, chat_of},
    client::{Entrance, Load},
    phase::{Case, Layout, Pace, To},
    target::{Run, Target},
};

/// After the last delivery, so that what the server does afterwards counts too.
pub(crate) const SETTLE: Duration = Duration::from_millis(300);

/// What a case measured.
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

/// A server with its sessions, between the cases.
#[derive(Debug)]
pub(crate) struct Stage {
    target: Target,
    load: Load,
    chats: u32,
    next: u32,
}

impl Stage {
    /// Connects the sessions of a layout to a started server.
    pub(crate) async fn connect(target: Target, layout: &Layout) -> anyhow::Result<Self> {
        let load = Load::connect(target.address(), entrances(&target, layout)?).await;
        let load = load.with_context(|| format!("sessions of {}", target.kind().name()))?;
        Ok(Self { target, load, chats: layout.chats, next: 1 })
    }

    /// Ends the sessions, then the server; gives how many sessions the server had ended before.
    pub(crate) async fn stop(self) -> anyhow::Result<u64> {
        let ended = self.load.ended();
        drop(self.load);
        self.target.stop().await?;
        Ok(ended)
    }

    /// The resident memory of the server, in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        self.target.resident_kib()
    }

    /// Publishes the events of a case and waits until all sessions have theirs.
    pub(crate) async fn measure(&mut self, case: Case, pace: Pace) -> anyhow::Result<Outcome> {
        let audience = match case.to() {
            To::All => Audience::All,
            To::TwoRooms => Audience::TwoRooms,
            To::AllButOne => Audience::AllButOne(self.load.ids().into()),
            To::Chats => Audience::Chats(self.chats),
        };
        let before = self.target.cpu()?;
        let (mut outcome, mut deliveries, mut latencies) = (Outcome::default(), 0, Vec::new());
        for _ in 0..pace.runs {
            let Pace { count, interval, in_flight, .. } = pace;
            let run = Run { count, first: self.next, interval, in_flight, audience: audience.clone() };
            let due = self.load.begin(run.first, run.count, &run.audience);
            let published = self.target.publish(run).await;
            published.with_context(|| format!("publishing to {}", self.target.kind().name()))?;
            let received = self.load.finish(due).await;
            self.next += count;
            deliveries += received.events;
            outcome.lost += received.lost;
            outcome.misplaced += received.misplaced;
            outcome.frame_bytes = received.frame_bytes;
            latencies.extend(received.latencies_micros);
        }
        tokio::time::sleep(SETTLE).await;
        outcome.cpu_by_process = cpu_since(&self.target, before, deliveries)?;
        outcome.cpu_micros_per_delivery = outcome.cpu_by_process.iter().map(|(_, micros)| micros).sum();
        latencies.sort_unstable();
        outcome.p50_millis = quantile_millis(&latencies, 0.5);
        outcome.p99_millis = quantile_millis(&latencies, 0.99);
        outcome.max_millis = quantile_millis(&latencies, 1.0);
        Ok(outcome)
    }
}

/// How each session of a layout comes in.
pub(crate) fn entrances(target: &Target, layout: &Layout) -> anyhow::Result<Vec<Entrance>> {
    let entrance = |session: usize| {
        let chat =
            (layout.chats > 0).then(|| u32::try_from(session).map(|session| chat_of(session, layout.chats)));
        Ok(Entrance { auth: target.auth(session)?, chat: chat.transpose()? })
    };
    (0..layout.sessions).map(entrance).collect()
}

/// The CPU time of each process since `before`, in µs for each of `count` things done.
pub(crate) fn cpu_since(
    target: &Target,
    before: Vec<(&'static str, Duration)>,
    count: u64,
) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count.max(1) as f64;
    let pairs = target.cpu()?.into_iter().zip(before);
    Ok(pairs.map(|((name, after), (_, before))| (name, each(after.saturating_sub(before)))).collect())
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
