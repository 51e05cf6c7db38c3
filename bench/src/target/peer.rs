//! The peers: servers that emit by themselves, told so by JSON lines on their standard input.
//!
//! The lines are described in `bench/peers/node/server.js`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncWriteExt as _, BufReader, Lines},
    process::{ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::{
    Run,
    process::{Process, START_TIMEOUT, command, lines},
};
use crate::audience::Audience;

/// socketioxide's own default is 128 packets, less than a burst.
const BUFFER_PACKETS_MIN: u32 = 1024;

/// A started peer.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
    pub(super) control: Control,
    /// What it says about itself.
    pub(super) version: Option<String>,
}

/// Socket.IO on Node.
pub(super) fn node(server: &Path) -> Command {
    let mut command = command(Path::new("node"));
    command.arg(server).env("NODE_ENV", "production");
    command
}

/// socketioxide, with room for a burst in each session's buffer.
pub(super) fn socketioxide(program: &Path, burst: u32) -> Command {
    let mut command = command(program);
    command.arg("--max-buffer-size").arg(burst.saturating_mul(2).max(BUFFER_PACKETS_MIN).to_string());
    command
}

pub(super) async fn start(name: &'static str, mut command: Command) -> anyhow::Result<Started> {
    let mut process = Process::start(name, command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let answers = lines(process.child().stdout.take())?;
    let commands = process.child().stdin.take().context("the pipe was not opened")?;
    let mut control = Control { commands, answers };
    let hello = timeout(START_TIMEOUT, control.answer())
        .await
        .with_context(|| format!("{name} did not say where it listens"))??;
    let port = hello["listening"].as_u64().with_context(|| format!("{name} named no port: {hello}"))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port)?));
    Ok(Started { process, address, control, version: hello["version"].as_str().map(str::to_owned) })
}

/// The pipes to a peer.
#[derive(Debug)]
pub(super) struct Control {
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Control {
    pub(super) async fn publish(&mut self, run: Run) -> anyhow::Result<()> {
        let Run { count, first, interval, ref audience, .. } = run;
        let chats = match audience {
            Audience::All => 0,
            Audience::Chats(chats) => *chats,
            Audience::TwoRooms | Audience::AllButOne(_) => bail!("a peer cannot publish to {audience:?}"),
        };
        let line = json!({
            "count": count,
            "first": first,
            "intervalMicros": u64::try_from(interval.as_micros())?,
            "chats": chats,
        });
        self.commands.write_all(format!("{line}\n").as_bytes()).await?;
        let answer = self.answer().await?;
        if answer["emitted"] != count {
            bail!("asked to emit {count} events, the server answered {answer}");
        }
        Ok(())
    }

    async fn answer(&mut self) -> anyhow::Result<Value> {
        let line = self.answers.next_line().await?.context("the server ended")?;
        serde_json::from_str(&line).with_context(|| format!("not an answer: {line}"))
    }
}
