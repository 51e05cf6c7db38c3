//! The health of the store and of delivery, for `/readyz` and for operators.
//!
//! Everything is checked at most once per second for any number of callers, and answers arrive
//! within a few seconds even if the store is slow.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_proto::v1::EngineState;
use tokio::sync::Mutex;

use crate::{
    engine::{
        Engine,
        state::{micros, outage},
    },
    ingest,
    peers::Peers,
    probe::Probe,
};

/// How long a result is valid.
const AGE_MAX: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1000 });
/// How long the engine may take to report its state.
const STATE_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long the feed may be silent before the server is not ready. Followers of a silent feed
/// compare their position with the log after the same time.
const FEED_SILENCE_MAX: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 5000 });

/// Checks the store.
#[derive(Debug)]
pub(crate) struct Health {
    engine: Arc<dyn Engine>,
    peers: Arc<Peers>,
    probe: Probe,
    /// Locked during a check, so that concurrent callers share its result.
    last: Mutex<Look>,
}

/// The last result.
#[derive(Debug, Default)]
struct Look {
    found: Option<(Instant, EngineState)>,
    /// When the first unanswered message was sent; `None` after a message has arrived.
    unanswered: Option<Instant>,
}

impl Health {
    pub(crate) fn new(engine: Arc<dyn Engine>, peers: Arc<Peers>, probe: Probe) -> Self {
        Self { engine, peers, probe, last: Mutex::default() }
    }

    /// The state of the store, at most a second old.
    pub(crate) async fn state(&self) -> EngineState {
        let mut last = self.last.lock().await;
        if let Some((at, state)) = &last.found
            && at.elapsed() < AGE_MAX
        {
            return state.clone();
        }
        let sent = Instant::now();
        let state = tokio::time::timeout(STATE_TIMEOUT, self.engine.state());
        let (state, echo) = tokio::join!(state, self.peers.echo());
        let mut state = state.unwrap_or_else(|_| EngineState {
            kind: last.found.as_ref().map(|(_, state)| state.kind.clone()).unwrap_or_default(),
            problems: vec![outage("the store does not tell its state")],
            ..EngineState::default()
        });
        state.time = Some(ingest::now());
        if let Some(time) = echo {
            last.unanswered = None;
            state.feed_micros = micros(time);
        } else {
            let silent = last.unanswered.get_or_insert(sent).elapsed();
            state.feed_silent_millis = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX).max(1);
            if silent > FEED_SILENCE_MAX {
                let text = format!("nothing has come through the feed for {} s", silent.as_secs());
                state.problems.push(outage(text));
            }
        }
        last.found = Some((Instant::now(), state.clone()));
        state
    }

    /// Whether an event can be delivered: details if so, otherwise the reasons.
    pub(crate) async fn ready(&self) -> Result<String, String> {
        let (probed, state) = tokio::join!(self.probe.run(), self.state());
        let outages = state.problems.iter().filter(|problem| problem.stops_publishing);
        let mut reasons: Vec<&str> = outages.map(|problem| problem.text.as_str()).collect();
        if let Err(why) = &probed {
            reasons.insert(0, why);
        }
        // The failure of single partitions affects all servers equally, so each server stays ready
        // for the remaining partitions.
        let is_partial = probed.is_ok() && state.partitions.iter().any(|one| !one.leader.is_empty());
        let is_silent = u128::from(state.feed_silent_millis) > FEED_SILENCE_MAX.as_millis();
        if !reasons.is_empty() && (!is_partial || is_silent) {
            return Err(reasons.join("; "));
        }
        Ok(details(&state))
    }
}

/// One line per problem, and one per partition of the store.
fn details(state: &EngineState) -> String {
    let mut text = String::new();
    for problem in &state.problems {
        let _ = writeln!(text, "problem: {}", problem.text);
    }
    for one in &state.partitions {
        let leader = if one.leader.is_empty() { "none" } else { &one.leader };
        let _ = writeln!(
            text,
            "partition {}: leader {leader}, {} of {} copies up to date, lag {}",
            one.number, one.current, one.replicas, one.lag
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use fanfare_proto::{catalog::Catalogs, v1::StorePartition};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        config::{Limits, Retention},
        engine::memory::MemoryEngine,
        hub::Hub,
        peers::{Question, Reply, Respond},
    };

    struct Mute;

    impl Respond for Mute {
        async fn respond(&self, _: Question) -> Option<Reply> {
            None
        }
    }

    #[tokio::test]
    async fn a_silent_feed_is_a_reason_not_to_be_ready_until_it_speaks_again() {
        let (limits, catalogs) = (Limits::default(), Catalogs::builtin().unwrap());
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new(Retention::default(), limits));
        let hub = Arc::new(Hub::new(limits, engine.clone()));
        let peers = Arc::new(Peers::new(engine.clone()));
        let probe = Probe::new(Probe::tenant(), &catalogs, hub, engine.clone());
        let health = Health::new(engine, peers.clone(), probe);
        // No task reads the signals, so the probe arrives but the message to the server itself does
        // not.
        let why = health.ready().await.unwrap_err();
        assert!(why.starts_with("nothing has come through the feed"), "{why}");
        let closing = CancellationToken::new();
        let (listening, end) = (peers.clone(), closing.clone());
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move { listening.run(Arc::new(Mute), &end).await });
        while health.state().await.feed_micros == 0 {}
        assert_eq!(health.ready().await.as_deref(), Ok(""));
        closing.cancel();
        task.join_next().await.unwrap().unwrap();
    }

    #[test]
    fn details_name_the_leader_and_the_copies_of_each_partition() {
        let partition =
            StorePartition { leader: "n1".into(), replicas: 3, current: 2, lag: 4, ..Default::default() };
        let state =
            EngineState { partitions: vec![partition], problems: vec![outage("x")], ..Default::default() };
        let want = "problem: x\npartition 0: leader n1, 2 of 3 copies up to date, lag 4\n";
        assert_eq!(details(&state), want);
    }
}
