//! The nodes of Redis: which node has a slot, and how commands reach it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fanfare_proto::v1::Latency;
use redis::{Cmd, Value};

use super::{
    super::Feed,
    config::{Ack, Address, Layout, RedisConfig},
    fault::Fault,
    keys,
    node::{Connector, Link, Node, pause},
    script::Script,
};

/// Minimum time between two requests for the layout.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// All nodes.
#[derive(Debug)]
pub(super) struct Nodes {
    config: RedisConfig,
    connector: Arc<Connector>,
    state: Mutex<State>,
    /// Held while the layout is requested; the time of the last request.
    refreshing: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct State {
    /// The node of the slots up to and including a number, in order.
    slots: Vec<(u16, Address)>,
    by_address: HashMap<Address, Arc<Node>>,
}

/// An answer, and the link that returned it.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) value: Value,
    node: Arc<Node>,
    link: Link,
}

impl Nodes {
    pub(super) fn new(config: RedisConfig, connector: Arc<Connector>) -> Self {
        let mut state = State::default();
        if let Layout::Single(address) = &config.layout {
            state.slots.push((u16::MAX, address.clone()));
        }
        Self { config, connector, state: Mutex::new(state), refreshing: Default::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, address: &Address) -> Arc<Node> {
        let mut state = self.lock();
        let new = || Arc::new(Node::new(address.clone(), self.connector.clone()));
        state.by_address.entry(address.clone()).or_insert_with(new).clone()
    }

    /// The node that has a key's slot.
    pub(super) async fn node(&self, key: &str) -> Result<Arc<Node>, Fault> {
        let slot = if matches!(self.config.layout, Layout::Cluster(_)) { keys::slot(key) } else { 0 };
        for _ in 0..2 {
            let address = {
                let state = self.lock();
                state.slots.iter().find(|(last, _)| slot <= *last).map(|(_, address)| address.clone())
            };
            match address {
                Some(address) => return Ok(self.at(&address)),
                None => self.refresh().await?,
            }
        }
        Err(Fault::NotRun("no node has the slot".to_owned()))
    }

    /// All nodes that have slots.
    pub(super) fn all(&self) -> Vec<Arc<Node>> {
        self.lock().by_address.values().cloned().collect()
    }

    /// The nodes that have the slots, each once.
    pub(super) async fn primaries(&self) -> Result<Vec<Arc<Node>>, Fault> {
        for _ in 0..2 {
            let mut addresses: Vec<Address> =
                self.lock().slots.iter().map(|(_, address)| address.clone()).collect();
            if !addresses.is_empty() {
                addresses.sort_unstable_by_key(ToString::to_string);
                addresses.dedup();
                return Ok(addresses.iter().map(|address| self.at(address)).collect());
            }
            self.refresh().await?;
        }
        Err(Fault::NotRun("no node is known".to_owned()))
    }

    /// How long commands took since the last call.
    pub(super) fn commands(&self) -> Latency {
        self.connector.commands.read()
    }

    /// Asks which node has which slots.
    async fn refresh(&self) -> Result<(), Fault> {
        let mut last = self.refreshing.lock().await;
        if last.is_some_and(|at| at.elapsed() < REFRESH_PAUSE) {
            return Ok(());
        }
        let slots = match &self.config.layout {
            Layout::Single(_) => return Ok(()),
            Layout::Sentinel { sentinels, primary } => self.ask_sentinels(sentinels, primary).await,
            Layout::Cluster(seeds) => self.ask_cluster(seeds).await,
        };
        *last = Some(Instant::now());
        let slots = slots?;
        let gone: Vec<Arc<Node>> = {
            let mut state = self.lock();
            state.slots = slots;
            let State { slots, by_address } = &mut *state;
            let is_used = |address: &Address| slots.iter().any(|(_, other)| other == address);
            by_address.extract_if(|address, _| !is_used(address)).map(|(_, node)| node).collect()
        };
        for node in gone {
            node.subscriptions.end().await;
        }
        Ok(())
    }

    async fn ask_sentinels(
        &self,
        sentinels: &[Address],
        primary: &str,
    ) -> Result<Vec<(u16, Address)>, Fault> {
        let mut cmd = redis::cmd("SENTINEL");
        cmd.arg("GET-MASTER-ADDR-BY-NAME").arg(primary);
        let mut fault = Fault::NotRun("no sentinel is configured".to_owned());
        for sentinel in sentinels {
            let asked = async {
                let mut connection = self.connector.connect_sentinel(sentinel).await?;
                cmd.query_async::<Option<(String, u16)>>(&mut connection).await.map_err(Fault::from)
            };
            match asked.await {
                Ok(Some((host, port))) => return Ok(vec![(u16::MAX, Address { host, port })]),
                Ok(None) => fault = Fault::NotRun(format!("{sentinel} knows no primary {primary:?}")),
                Err(other) => fault = Fault::NotRun(format!("sentinel {sentinel}: {other}")),
            }
        }
        Err(fault)
    }

    async fn ask_cluster(&self, seeds: &[Address]) -> Result<Vec<(u16, Address)>, Fault> {
        let mut asked: Vec<Address> = self.lock().by_address.keys().cloned().collect();
        asked.extend(seeds.iter().filter(|seed| !asked.contains(seed)).cloned().collect::<Vec<_>>());
        let mut fault = Fault::NotRun("no node of the cluster is configured".to_owned());
        for address in asked {
            let mut cmd = redis::cmd("CLUSTER");
            cmd.arg("SLOTS");
            let answer = async {
                let mut connection = self.connector.connect(&address, None).await?;
                connection.send_packed_command(&cmd).await.map_err(Fault::from)
            };
            match answer.await.map(|value| slots(&value, &address)) {
                Ok(Some(slots)) if !slots.is_empty() => return Ok(slots),
                Ok(_) => fault = Fault::NotRun(format!("{address} is in no cluster that has slots")),
                Err(other) => fault = Fault::NotRun(format!("{address}: {other}")),
            }
        }
        Err(fault)
    }

    /// Runs a command once, on the node that has the slot of `key`.
    async fn run_once(&self, key: &str, cmd: &Cmd, asked: &mut Option<Address>) -> Result<Answered, Fault> {
        let (node, answer) = match asked.take() {
            Some(address) => {
                let node = self.at(&address);
                let answer = node.run_asking(cmd).await;
                (node, answer)
            }
            None => {
                let node = self.node(key).await?;
                let answer = node.run(cmd).await;
                (node, answer)
            }
        };
        answer.map(|(value, link)| Answered { value, node, link })
    }

    /// Runs a command until the deadline. It is repeated if it did not run. If it may have run, it
    /// is repeated only if it is `repeatable`.
    pub(super) async fn run(&self, key: &str, cmd: &Cmd, repeatable: bool) -> Result<Answered, Fault> {
        let deadline = Instant::now() + self.config.call_timeout;
        let (mut failures, mut asked) = (0, None);
        loop {
            let fault = match self.run_once(key, cmd, &mut asked).await {
                Ok(answered) => return Ok(answered),
                Err(fault) => fault,
            };
            if !(if repeatable { fault.is_transient() } else { fault.is_harmless() }) {
                return Err(fault);
            }
            let wait = match &fault {
                Fault::Ask(address) => {
                    asked = Some(address.clone());
                    Duration::ZERO
                }
                // An idle connection may have broken long ago.
                Fault::Unknown(_) | Fault::Moved(_) if failures == 0 => Duration::ZERO,
                _ => pause(failures),
            };
            failures += 1;
            if Instant::now() + wait >= deadline {
                return Err(fault);
            }
            if !matches!(fault, Fault::Ask(_)) {
                // The fault at hand is more useful than one of the refresh.
                let _refreshed = self.refresh().await;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Runs a script on the node that has the slot of its first key.
    pub(super) async fn script(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[&[u8]],
        repeatable: bool,
    ) -> Result<Answered, Fault> {
        let key = keys.first().copied().unwrap_or_default();
        let command = |name: &str, text: &str| {
            let mut cmd = redis::cmd(name);
            cmd.arg(text).arg(keys.len()).arg(keys).arg(arguments);
            cmd
        };
        match self.run(key, &command("EVALSHA", &script.hash), repeatable).await {
            Err(Fault::NoScript) => self.run(key, &command("EVAL", &script.text), repeatable).await,
            other => other,
        }
    }

    /// Resolves when the answered write is as durable as configured.
    pub(super) async fn acknowledged(
        &self,
        answered: &Answered,
        mark: impl FnOnce() -> String,
    ) -> Result<(), Fault> {
        match self.config.ack {
            Ack::Memory => Ok(()),
            Ack::Replica => answered.node.replicated(&answered.link, mark()).await,
        }
    }

    /// Subscribes to a channel; the feed has every message after this resolves. Retried until the
    /// deadline.
    pub(super) async fn subscribe(&self, channel: &str) -> Result<Feed<Bytes>, Fault> {
        let deadline = Instant::now() + self.config.call_timeout;
        let mut failures = 0;
        loop {
            let subscribed = async { self.node(channel).await?.subscriptions.subscribe(channel).await };
            match subscribed.await {
                Ok(feed) => return Ok(feed),
                Err(fault) => {
                    let wait = pause(failures);
                    failures += 1;
                    if !fault.is_transient() || Instant::now() + wait >= deadline {
                        return Err(fault);
                    }
                    let _refreshed = self.refresh().await;
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

/// The slots in an answer to CLUSTER SLOTS from the node at an address.
fn slots(value: &Value, asked: &Address) -> Option<Vec<(u16, Address)>> {
    let Value::Array(ranges) = value else { return None };
    let mut slots = Vec::with_capacity(ranges.len());
    for range in ranges {
        let Value::Array(parts) = range else { return None };
        let [_, Value::Int(last), Value::Array(node), ..] = parts.as_slice() else { return None };
        let [host, Value::Int(port), ..] = node.as_slice() else { return None };
        let host = match host {
            Value::BulkString(host) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
            _ => asked.host.clone(),
        };
        slots.push((u16::try_from(*last).ok()?, Address { host, port: u16::try_from(*port).ok()? }));
    }
    slots.sort_unstable_by_key(|(last, _)| *last);
    Some(slots)
}
