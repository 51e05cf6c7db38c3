//! Fanfare: a server process and a bridge process, or both in one, and the tokens of their sessions.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use fanfare_proto::token;
use serde_json::{Value, json};
use tokio::{
    io::{BufReader, Lines},
    process::ChildStderr,
    task::JoinSet,
    time::timeout,
};

use super::{
    process::{Process, START_TIMEOUT, command, lines},
    producer::Producer,
};

/// Servers of a benchmark live for minutes, on loopback.
const SECRET: &str = "the-secret-of-a-benchmark-on-loopback";
const TENANT: &str = "bench";
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// What earlier builds let wait for a session by default, in packets.
const QUEUE_PACKETS_MIN: u32 = 4096;
/// All sessions of the load come from one address, which is no attack here.
const LOAD_MAX: &str = "100000";
const ADDRESS_LIMITS: [&str; 6] = [
    "--connections-per-address-max",
    "--connects-per-second",
    "--connects-burst",
    "--handshakes-max",
    "--handshakes-per-address-max",
    "--sessions-per-address-max",
];
/// Like the peers, it tells nobody who comes and goes: todo has no such events.
const SERVER_SETTINGS: [&str; 4] = ["--grpc-listen", "127.0.0.1:0", "--presence-catalog", "todo.v1"];
const BRIDGE_SETTINGS: [&str; 2] = ["--http-listen", "127.0.0.1:0"];

/// A started server with its bridge.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) processes: Vec<Process>,
    pub(super) address: SocketAddr,
    pub(super) producer: Producer,
    pub(super) logs: JoinSet<()>,
}

/// Starts a server and a bridge; `settings` are further ones of the bridge.
pub(super) async fn start(program: &Path, burst: u32, settings: &[&str]) -> anyhow::Result<Started> {
    let mut server = start_server(program, None).await?;
    let mut bridge: Vec<String> = ["bridge", "--server", &server.url].map(str::to_owned).into();
    bridge.extend(BRIDGE_SETTINGS.into_iter().chain(settings.iter().copied()).map(str::to_owned));
    bridge.extend(bridge_limits(program, burst)?);
    let (bridge, [address]) = spawn(program, "bridge", &bridge, ["bridge"], &mut server.logs).await?;
    let processes = vec![server.process, bridge];
    Ok(Started { processes, address, producer: server.producer, logs: server.logs })
}

/// Starts both in one process.
pub(super) async fn start_dev(program: &Path, burst: u32) -> anyhow::Result<Started> {
    let mut logs = JoinSet::new();
    let mut dev = vec!["dev".to_owned()];
    dev.extend(SERVER_SETTINGS.into_iter().chain(BRIDGE_SETTINGS).map(str::to_owned));
    dev.extend(bridge_limits(program, burst)?);
    let (process, [grpc, address]) = spawn(program, "dev", &dev, ["server", "bridge"], &mut logs).await?;
    let producer = connect(&format!("http://{grpc}")).await?;
    Ok(Started { processes: vec![process], address, producer, logs })
}

/// A server without a bridge.
#[derive(Debug)]
pub(crate) struct StartedServer {
    pub(crate) process: Process,
    pub(crate) producer: Producer,
    url: String,
    logs: JoinSet<()>,
}

/// Starts a server whose log is in memory or, where a folder is given, on disk.
pub(crate) async fn start_server(program: &Path, folder: Option<&Path>) -> anyhow::Result<StartedServer> {
    let mut logs = JoinSet::new();
    let mut server = vec!["server".to_owned()];
    server.extend(SERVER_SETTINGS.map(str::to_owned));
    if let Some(folder) = folder {
        server.extend(["--data-dir".to_owned(), folder.to_string_lossy().into_owned()]);
    }
    let (process, [grpc]) = spawn(program, "server", &server, ["server"], &mut logs).await?;
    let url = format!("http://{grpc}");
    Ok(StartedServer { process, producer: connect(&url).await?, url, logs })
}

async fn connect(url: &str) -> anyhow::Result<Producer> {
    let claims = json!({ "scopes": ["notify"], "tenant": TENANT, "sub": "bench" });
    Producer::connect(url.to_owned(), &sign(claims)?).await
}

/// The limits of a bridge that are raised for the load, as far as this build has them.
fn bridge_limits(program: &Path, burst: u32) -> anyhow::Result<Vec<String>> {
    let help = help(program)?;
    let queue = burst.saturating_mul(2).max(QUEUE_PACKETS_MIN).to_string();
    let limits = ADDRESS_LIMITS.iter().map(|flag| (*flag, LOAD_MAX));
    let limits = limits.chain([("--queue-packets-max", queue.as_str())]);
    Ok(limits
        .filter(|(flag, _)| names(&help, flag))
        .flat_map(|(f, v)| [f.to_owned(), v.to_owned()])
        .collect())
}

/// Whether this build's bridge has the setting.
pub(crate) fn has_setting(program: &Path, flag: &str) -> anyhow::Result<bool> {
    Ok(names(&help(program)?, flag))
}

fn help(program: &Path) -> anyhow::Result<String> {
    let output = std::process::Command::new(program).args(["bridge", "--help"]).output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a help text has the flag itself, not only a longer one.
fn names(help: &str, flag: &str) -> bool {
    help.split(|c: char| c.is_whitespace() || matches!(c, '=' | ',' | '[')).any(|word| word == flag)
}

/// The token of a session; each is a user of its own.
pub(crate) fn user_token(session: usize) -> anyhow::Result<String> {
    sign(json!({ "userId": session + 1, "organizationId": TENANT }))
}

/// The CONNECT payload of a session.
pub(crate) fn user_auth(session: usize) -> anyhow::Result<String> {
    Ok(json!({ "token": user_token(session)? }).to_string())
}

fn sign(claims: Value) -> anyhow::Result<String> {
    let mut claims: BTreeMap<String, Value> = serde_json::from_value(claims)?;
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH)? + TOKEN_LIFE;
    claims.insert("exp".into(), expiry.as_secs().into());
    Ok(token::sign(SECRET, &claims)?)
}

/// Starts one process and waits until it says where its parts listen; what it logs later is shown when it is a warning.
async fn spawn<const PARTS: usize>(
    program: &Path,
    name: &'static str,
    arguments: &[String],
    parts: [&str; PARTS],
    logs: &mut JoinSet<()>,
) -> anyhow::Result<(Process, [SocketAddr; PARTS])> {
    let mut command = command(program);
    command.args(arguments).args(["--jwt-secret", SECRET, "--log", "info", "--log-format", "json"]);
    // Settings of the caller's environment are not those of the measurement.
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("FANFARE_")) {
        command.env_remove(key);
    }
    // Not a flag: other builds may not have it.
    command.env("FANFARE_BUILTIN", "all");
    let mut process = Process::start(name, command.stderr(Stdio::piped()))?;
    let mut log = lines(process.child().stderr.take())?;
    let addresses = timeout(START_TIMEOUT, listening(name, parts, &mut log))
        .await
        .with_context(|| format!("fanfare {name} did not say where it listens"))??;
    logs.spawn(async move {
        while let Ok(Some(line)) = log.next_line().await {
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            if !matches!(named(&entry, ["severity_text", "level"]), Some("INFO" | "DEBUG" | "TRACE")) {
                eprintln!("fanfare {name}: {line}");
            }
        }
    });
    Ok((process, addresses))
}

/// A field of a log line by its name, or by the name that it has in older builds.
fn named<'a>(entry: &'a Value, names: [&str; 2]) -> Option<&'a str> {
    names.into_iter().find_map(|name| entry[name].as_str())
}

/// The addresses in the lines "server listening" and "bridge listening", in the order of the parts.
async fn listening<const PARTS: usize>(
    name: &str,
    parts: [&str; PARTS],
    log: &mut Lines<BufReader<ChildStderr>>,
) -> anyhow::Result<[SocketAddr; PARTS]> {
    let mut before = String::new();
    let mut found = [None; PARTS];
    while let Some(line) = log.next_line().await? {
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        for (part, found) in parts.iter().zip(&mut found) {
            if named(&entry, ["body", "message"]) == Some(&format!("{part} listening")) {
                let address = entry["address"].as_str().with_context(|| format!("no address in {line}"))?;
                *found = Some(address.parse::<SocketAddr>()?);
            }
        }
        let all: Vec<SocketAddr> = found.iter().flatten().copied().collect();
        if let Ok(all) = all.try_into() {
            return Ok(all);
        }
        before.push_str(&line);
        before.push('\n');
    }
    bail!("fanfare {name} ended before it listened:\n{before}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_flag_is_another_one() {
        let help = "      --connections-max-x <COUNT>\n      --shards=<COUNT>\n";
        assert!(names(help, "--shards"));
        assert!(!names(help, "--connections-max"));
    }
}
