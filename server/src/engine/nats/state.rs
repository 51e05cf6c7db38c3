//! The state of JetStream, for operators.

use std::{collections::BTreeMap, time::Duration};

use async_nats::{connection::State as Connection, jetstream::stream::Info};
use fanfare_proto::v1::{EngineProblem, EngineState, StoreNode, StorePartition};
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::shared::Shared;
use crate::engine::state::{outage, warning};

/// How long a stream may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(700);
/// Streams that are queried concurrently.
const AT_ONCE: usize = 64;
/// Maximum number of servers listed.
const NODES_MAX: usize = 64;

impl Shared {
    /// Queries the leaders of all partitions.
    pub(super) async fn state(&self) -> EngineState {
        let client = &self.store.client;
        let mut state = EngineState { kind: "nats".to_owned(), ..EngineState::default() };
        let connected = client.server_info().server_name;
        if client.connection_state() != Connection::Connected {
            state.problems.push(outage("the connection to NATS is lost"));
            state.nodes.push(StoreNode { name: connected, offline: true, ..StoreNode::default() });
            return state;
        }
        let mut nodes = BTreeMap::new();
        nodes.insert(connected.clone(), StoreNode { role: "connected".to_owned(), ..StoreNode::default() });
        let asked = self.store.names.partitions().map(|number| async move {
            let info = timeout(ANSWER_TIMEOUT, self.store.info(&self.store.names.log_stream(number))).await;
            (number, info.ok().and_then(Result::ok))
        });
        let mut answers = stream::iter(asked).buffered(AT_ONCE);
        while let Some((number, info)) = answers.next().await {
            state.partitions.push(match info {
                Some(info) => describe(number, &info, self.config.replicas, &connected, &mut nodes),
                None => {
                    StorePartition { number, replicas: replicas(self.config.replicas), ..Default::default() }
                }
            });
        }
        let partitions = state.partitions.len() as u64;
        state.bytes_used = state.partitions.iter().map(|partition| partition.bytes_used).sum();
        state.bytes_max = self.config.partition_bytes_max.unwrap_or_default().saturating_mul(partitions);
        state.problems = problems(&state.partitions, &nodes, self.config.partition_bytes_max);
        let nodes = nodes.into_iter().take(NODES_MAX);
        state.nodes = nodes.map(|(name, node)| StoreNode { name, ..node }).collect();
        state.commands = Some(self.store.commands.read());
        state
    }
}

fn replicas(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A partition as its leader describes it. Adds the servers that have a copy to `nodes`.
fn describe(
    number: u32,
    info: &Info,
    configured: usize,
    connected: &str,
    nodes: &mut BTreeMap<String, StoreNode>,
) -> StorePartition {
    let mut partition = StorePartition {
        number,
        // Without a cluster, the connected server has the only copy.
        leader: connected.to_owned(),
        replicas: replicas(configured),
        current: 1,
        bytes_used: info.state.bytes,
        ..StorePartition::default()
    };
    if let Some(cluster) = &info.cluster {
        partition.leader = cluster.leader.clone().unwrap_or_default();
        partition.current = u32::from(cluster.leader.is_some());
        for peer in &cluster.replicas {
            partition.current += u32::from(peer.current && !peer.offline);
            if !peer.offline {
                partition.lag = partition.lag.max(peer.lag.unwrap_or_default());
            }
            nodes.entry(peer.name.clone()).or_default().offline |= peer.offline;
        }
    }
    if !partition.leader.is_empty() {
        nodes.entry(partition.leader.clone()).or_default().leads += 1;
    }
    partition
}

fn problems(
    partitions: &[StorePartition],
    nodes: &BTreeMap<String, StoreNode>,
    bytes_max: Option<u64>,
) -> Vec<EngineProblem> {
    let count = |what: fn(&StorePartition) -> bool| partitions.iter().filter(|one| what(one)).count();
    let of = partitions.len();
    let mut problems = Vec::new();
    let leaderless = count(|one| one.leader.is_empty());
    if leaderless > 0 {
        let text = format!(
            "{leaderless} of {of} partitions have no leader that answers; their tenants cannot publish"
        );
        problems.push(outage(text));
    }
    let full = partitions.iter().filter(|one| bytes_max.is_some_and(|max| one.bytes_used >= max)).count();
    if full > 0 {
        problems.push(outage(format!("{full} of {of} partitions are full; their tenants cannot publish")));
    }
    for (name, _) in nodes.iter().filter(|(_, node)| node.offline) {
        problems.push(warning(format!("NATS server {name} is offline")));
    }
    let behind = count(|one| !one.leader.is_empty() && one.current < one.replicas);
    if behind > 0 {
        problems.push(warning(format!("{behind} of {of} partitions have copies that are not up to date")));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_without_a_leader_stop_publishing_and_copies_that_are_late_do_not() {
        let partition = |number, leader: &str, current| StorePartition {
            number,
            leader: leader.to_owned(),
            replicas: 3,
            current,
            ..StorePartition::default()
        };
        let whole = [partition(0, "n1", 3), partition(1, "n2", 3)];
        assert!(problems(&whole, &BTreeMap::new(), None).is_empty());
        let offline = StoreNode { offline: true, ..StoreNode::default() };
        let nodes = BTreeMap::from([("n3".to_owned(), offline)]);
        let told = problems(&[partition(0, "n1", 2), partition(1, "", 0)], &nodes, None);
        let stops: Vec<bool> = told.iter().map(|problem| problem.stops_publishing).collect();
        assert_eq!(stops, [true, false, false], "{told:?}");
        let full = StorePartition { bytes_used: 10, ..partition(0, "n1", 3) };
        assert!(problems(&[full], &BTreeMap::new(), Some(10)).first().unwrap().stops_publishing);
    }
}
