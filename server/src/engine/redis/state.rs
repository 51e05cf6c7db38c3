//! The state of Redis, for operators.

use std::time::{Duration, Instant};

use fanfare_proto::v1::{EngineProblem, EngineState, StoreNode};
use futures_util::future::join_all;
use redis::Value;

use super::{
    super::state::{micros, outage, warning},
    Shared,
    checks::{field, info_text},
    config::Ack,
    fault::Fault,
    node::Node,
};

/// How long a node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(700);
/// Maximum number of nodes that are queried.
const NODES_MAX: usize = 64;
/// The memory usage that causes a warning, in percent.
const NEARLY_FULL: u64 = 90;

impl Shared {
    /// Queries all primaries concurrently.
    pub(super) async fn state(&self) -> EngineState {
        let mut state = EngineState { kind: "redis".to_owned(), ..EngineState::default() };
        let primaries = tokio::time::timeout(ANSWER_TIMEOUT, self.nodes.primaries()).await;
        let nodes = match primaries {
            Ok(Ok(nodes)) => nodes,
            Ok(Err(fault)) => {
                state.problems.push(outage(fault.to_string()));
                return state;
            }
            Err(_) => {
                state.problems.push(outage("nobody says where the primary is"));
                return state;
            }
        };
        let asked = nodes.iter().take(NODES_MAX).map(|node| ask(node));
        for (node, answer) in nodes.iter().zip(join_all(asked).await) {
            let name = node.address.to_string();
            match answer {
                Ok((info, time)) => {
                    let (node, problems) = describe(name, &info, time, self.ack);
                    state.bytes_used += node.bytes_used;
                    state.bytes_max += node.bytes_max;
                    state.nodes.push(node);
                    state.problems.extend(problems);
                }
                Err(why) => {
                    state.problems.push(outage(format!("Redis at {name}: {why}")));
                    state.nodes.push(StoreNode { name, offline: true, ..StoreNode::default() });
                }
            }
        }
        state.problems.sort_by_key(|problem| !problem.stops_publishing);
        state.commands = Some(self.nodes.commands());
        state
    }
}

/// The INFO of a node, and how long the answer took.
async fn ask(node: &Node) -> Result<(String, Duration), String> {
    let mut cmd = redis::cmd("INFO");
    cmd.arg("memory").arg("replication").arg("persistence");
    let since = Instant::now();
    let (value, _) = tokio::time::timeout(ANSWER_TIMEOUT, node.run(&cmd))
        .await
        .map_err(|_| format!("no answer within {} ms", ANSWER_TIMEOUT.as_millis()))?
        .map_err(|fault: Fault| fault.to_string())?;
    let time = since.elapsed();
    let info = info_text(value).map_err(|_: Value| "it does not say how it is".to_owned())?;
    Ok((info, time))
}

fn describe(name: String, info: &str, time: Duration, ack: Ack) -> (StoreNode, Vec<EngineProblem>) {
    let number = |key: &str| field(info, key).and_then(|value| value.parse::<u64>().ok()).unwrap_or_default();
    let offset = number("master_repl_offset");
    let replicas: Vec<u64> = (0..number("connected_slaves"))
        .filter_map(|i| field(info, &format!("slave{i}")))
        .filter(|line| line.split(',').any(|part| part == "state=online"))
        .filter_map(|line| line.split(',').find_map(|part| part.strip_prefix("offset=")?.parse().ok()))
        .collect();
    let (used, max) = (number("used_memory"), number("maxmemory"));
    let is_primary = field(info, "role") == Some("master");
    let mut problems = Vec::new();
    if !is_primary {
        problems.push(outage(format!("Redis at {name} is no primary")));
    }
    if field(info, "loading") == Some("1") {
        problems.push(outage(format!("Redis at {name} is loading its data")));
    }
    if field(info, "aof_last_write_status") == Some("err") {
        problems.push(outage(format!("Redis at {name} cannot write to its disk")));
    }
    if replicas.is_empty() && ack == Ack::Replica {
        problems.push(outage(format!("Redis at {name} has no replica that could confirm events")));
    }
    // Replica buffers do not count towards the limit.
    let counted = used.saturating_sub(number("mem_not_counted_for_evict"));
    if max > 0 && counted >= max {
        problems.push(outage(format!("the memory of Redis at {name} is full")));
    } else if max > 0 && counted.saturating_mul(100) / max >= NEARLY_FULL {
        problems.push(warning(format!("the memory of Redis at {name} is nearly full")));
    }
    if let Some(policy) = field(info, "maxmemory_policy").filter(|policy| *policy != "noeviction") {
        problems.push(warning(format!(
            "Redis at {name} may evict logs: its maxmemory-policy is {policy}, want noeviction"
        )));
    }
    let node = StoreNode {
        name,
        role: if is_primary { "primary".to_owned() } else { "replica".to_owned() },
        answer_micros: micros(time),
        bytes_used: used,
        bytes_max: max,
        replicas: u32::try_from(replicas.len()).unwrap_or(u32::MAX),
        replica_lag_bytes: replicas.iter().map(|at| offset.saturating_sub(*at)).max().unwrap_or_default(),
        ..StoreNode::default()
    };
    (node, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Memory\r\nused_memory:950\r\nmaxmemory:1000\r\nmaxmemory_policy:noeviction\r\n\
        # Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
        slave0:ip=10.0.0.8,port=6379,state=online,offset=90,lag=0\r\n\
        slave1:ip=10.0.0.9,port=6379,state=wait_bgsave,offset=0,lag=0\r\nmaster_repl_offset:100\r\n";

    fn described(info: &str, ack: Ack) -> (StoreNode, Vec<(String, bool)>) {
        let (node, problems) = describe("r:1".to_owned(), info, Duration::from_micros(7), ack);
        (node, problems.into_iter().map(|p| (p.text, p.stops_publishing)).collect())
    }

    #[test]
    fn a_node_tells_its_memory_and_the_lag_of_replicas_that_are_online() {
        let (node, problems) = described(INFO, Ack::Replica);
        assert_eq!((node.bytes_used, node.bytes_max, node.answer_micros), (950, 1000, 7));
        assert_eq!((node.replicas, node.replica_lag_bytes, node.role.as_str()), (1, 10, "primary"));
        assert_eq!(problems, [("the memory of Redis at r:1 is nearly full".to_owned(), false)]);
    }

    #[test]
    fn what_stops_publishing_is_told_from_what_does_not() {
        let full =
            INFO.replace("used_memory:950", "used_memory:1000").replace("state=online", "state=handshake");
        let (_, problems) = described(&full, Ack::Replica);
        assert!(problems.iter().all(|(_, stops)| *stops) && problems.len() == 2, "{problems:?}");
        let (_, problems) = described(&INFO.replace("noeviction", "allkeys-lru"), Ack::Memory);
        assert!(problems.iter().all(|(_, stops)| !stops) && problems.len() == 2, "{problems:?}");
    }
}
