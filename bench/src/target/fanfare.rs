//! Fanfare: a server process and a bridge process, published to over gRPC.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use fanfare_proto::{
    token,
    v1::{NotifyRequest, Target as Address, realtime_client::RealtimeClient},
};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::{
    io::{BufReader, Lines},
    process::ChildStderr,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::{
    Run,
    process::{Process, START_TIMEOUT, command, lines},
};
use crate::event::{NewMessage, ROOM, TYPE};

/// Servers of a benchmark live for minutes, on loopback.
const SECRET: &str = "the-secret-of-a-benchmark-on-loopback";
const TENANT: &str = "bench";
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The bridge's own default of the packets that may wait for a session.
const QUEUE_PACKETS_MIN: u32 = 4096;

/// A started server with its bridge.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) processes: Vec<Process>,
    pub(super) address: SocketAddr,
    pub(super) producer: Producer,
}

pub(super) async fn start(program: &Path, burst: u32) -> anyhow::Result<Started> {
    let mut server = start_server(program, None).await?;
    let queue = burst.saturating_mul(2).max(QUEUE_PACKETS_MIN).to_string();
    let bridge =
        ["bridge", "--http-listen", "127.0.0.1:0", "--server", &server.url, "--queue-packets-max", &queue];
    let (bridge, address) = spawn(program, "bridge", &bridge, &mut server.producer.logs).await?;
    Ok(Started { processes: vec![server.process, bridge], address, producer: server.producer })
}

/// A server without a bridge.
#[derive(Debug)]
pub(crate) struct StartedServer {
    pub(crate) process: Process,
    pub(crate) producer: Producer,
    url: String,
}

/// Starts a server whose log is in memory or, where a folder is given, on disk.
pub(crate) async fn start_server(program: &Path, folder: Option<&Path>) -> anyhow::Result<StartedServer> {
    let mut logs = JoinSet::new();
    // Like the peers, it tells nobody who comes and goes: todo has no such events.
    let mut server = vec!["server", "--grpc-listen", "127.0.0.1:0", "--presence-catalog", "todo.v1"];
    let folder = folder.map(|folder| folder.to_string_lossy().into_owned());
    server.extend(folder.iter().flat_map(|folder| ["--data-dir", folder]));
    let (process, grpc) = spawn(program, "server", &server, &mut logs).await?;
    let url = format!("http://{grpc}");
    let claims = json!({ "scopes": ["notify"], "tenant": TENANT, "sub": "bench" });
    let producer = Producer {
        client: RealtimeClient::new(Endpoint::from_shared(url.clone())?.tcp_nodelay(true).connect().await?),
        bearer: format!("Bearer {}", sign(claims)?).parse()?,
        logs,
    };
    Ok(StartedServer { process, producer, url })
}

/// The CONNECT payload of a session; each is a user of its own.
pub(crate) fn user_auth(session: usize) -> anyhow::Result<String> {
    let token = sign(json!({ "userId": session + 1, "organizationId": TENANT }))?;
    Ok(json!({ "token": token }).to_string())
}

fn sign(claims: Value) -> anyhow::Result<String> {
    let mut claims: BTreeMap<String, Value> = serde_json::from_value(claims)?;
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH)? + TOKEN_LIFE;
    claims.insert("exp".into(), expiry.as_secs().into());
    Ok(token::sign(SECRET, &claims)?)
}

/// Starts one process and waits until it says where it listens; what it logs later is shown when it is a warning.
async fn spawn(
    program: &Path,
    name: &'static str,
    arguments: &[&str],
    logs: &mut JoinSet<()>,
) -> anyhow::Result<(Process, SocketAddr)> {
    let mut command = command(program);
    command.args(arguments).args(["--jwt-secret", SECRET, "--log", "info", "--log-format", "json"]);
    // Settings of the caller's environment are not those of the measurement.
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("FANFARE_")) {
        command.env_remove(key);
    }
    let mut process = Process::start(name, command.stderr(Stdio::piped()))?;
    let mut log = lines(process.child().stderr.take())?;
    let address = timeout(START_TIMEOUT, listening(name, &mut log))
        .await
        .with_context(|| format!("fanfare {name} did not say where it listens"))??;
    logs.spawn(async move {
        while let Ok(Some(line)) = log.next_line().await {
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            if !matches!(entry["level"].as_str(), Some("INFO" | "DEBUG" | "TRACE")) {
                eprintln!("fanfare {name}: {line}");
            }
        }
    });
    Ok((process, address))
}

/// The address in the line "server listening" or "bridge listening".
async fn listening(name: &str, log: &mut Lines<BufReader<ChildStderr>>) -> anyhow::Result<SocketAddr> {
    let mut before = String::new();
    let expected = format!("{name} listening");
    while let Some(line) = log.next_line().await? {
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        if entry["message"] == *expected {
            let address = entry["address"].as_str().with_context(|| format!("no address in {line}"))?;
            return Ok(address.parse()?);
        }
        before.push_str(&line);
        before.push('\n');
    }
    bail!("fanfare {name} ended before it listened:\n{before}")
}

/// A producer on one gRPC connection.
#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) client: RealtimeClient<Channel>,
    bearer: MetadataValue<Ascii>,
    logs: JoinSet<()>,
}

impl Producer {
    /// Steady: one `Notify` an event. A burst: all of them through one `NotifyStream`, in hand before the
    /// first is sent: the burst's latency counts from there.
    pub(super) async fn publish(&mut self, run: Run) -> anyhow::Result<()> {
        let Run { count, first, interval } = run;
        if interval.is_zero() {
            let requests: Vec<_> = (first..first + count).map(request).collect();
            let outbound = self.authorized(tokio_stream::iter(requests));
            let mut answers = self.client.notify_stream(outbound).await?.into_inner();
            let mut answered = 0;
            while answers.message().await?.is_some() {
                answered += 1;
            }
            if answered != count {
                bail!("{count} events were published and {answered} answered");
            }
            return Ok(());
        }
        let start = Instant::now();
        for index in 0..count {
            sleep_until(start + interval * index).await;
            let event = self.authorized(request(first + index));
            self.client.notify(event).await?;
        }
        Ok(())
    }

    pub(crate) fn authorized<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request
    }
}

/// The request that publishes the event of this number.
pub(crate) fn request(number: u32) -> NotifyRequest {
    let event = prost_types::Any {
        type_url: format!("type.googleapis.com/{TYPE}"),
        value: NewMessage::new(number).encode_to_vec(),
    };
    let target = Address { rooms: vec![ROOM.into()], ..Address::default() };
    NotifyRequest { target: Some(target), event: Some(event) }
}
