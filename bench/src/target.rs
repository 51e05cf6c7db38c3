//! A server under measurement: its processes, how it is started, published to and stopped.
//!
//! Knows nothing of sessions, nor of what is measured.

pub(crate) mod fanfare;
mod peer;
mod process;
pub(crate) mod producer;

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::bail;
use clap::ValueEnum;
use tokio::task::JoinSet;

use crate::{audience::Audience, binaries::Binaries, measure};
use peer::Control;
use process::Process;
use producer::Producer;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// `fanfare server` and `fanfare bridge`.
    Fanfare,
    /// The same of another build, given with `--fanfare-before`.
    Before,
    /// `fanfare dev`: server and bridge in one process.
    Dev,
    /// Socket.IO on Node.
    Node,
    /// socketioxide.
    Socketioxide,
}

impl Kind {
    /// As on the command line and in the report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fanfare => "fanfare",
            Self::Before => "before",
            Self::Dev => "dev",
            Self::Node => "node",
            Self::Socketioxide => "socketioxide",
        }
    }

    /// Whether it is Fanfare, with tokens, several rooms per event and more transports.
    pub(crate) const fn is_fanfare(self) -> bool {
        matches!(self, Self::Fanfare | Self::Before | Self::Dev)
    }
}

/// A run of events.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) count: u32,
    /// The number of the first.
    pub(crate) first: u32,
    /// Between two events; zero: all at once.
    pub(crate) interval: Duration,
    /// Calls of the producer that may be unanswered.
    pub(crate) in_flight: usize,
    pub(crate) audience: Audience,
}

impl Run {
    /// Events to all, all at once.
    pub(crate) fn burst(first: u32, count: u32) -> Self {
        Self { count, first, interval: Duration::ZERO, in_flight: 1, audience: Audience::All }
    }
}

/// How events get in.
#[derive(Debug)]
enum Publisher {
    /// The whole path, from the producer's call on.
    Grpc(Box<Producer>),
    /// The server makes and emits the events itself when told to.
    Control(Control),
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Target {
    kind: Kind,
    version: String,
    address: SocketAddr,
    processes: Vec<Process>,
    publisher: Publisher,
    /// The tasks that read the logs.
    _logs: JoinSet<()>,
}

impl Target {
    /// Starts the server; `burst` is the number of events that may wait for one session.
    pub(crate) async fn start(kind: Kind, binaries: &Binaries, burst: u32) -> anyhow::Result<Self> {
        match kind {
            Kind::Fanfare | Kind::Before => {
                let started = fanfare::start(binaries.program(kind)?, burst, &[]).await?;
                Ok(Self::of_fanfare(kind, binaries.fanfare_version(kind), started))
            }
            Kind::Dev => {
                let started = fanfare::start_dev(binaries.program(kind)?, burst).await?;
                Ok(Self::of_fanfare(kind, binaries.fanfare_version(kind), started))
            }
            Kind::Node => Self::start_peer(kind, peer::node(&binaries.node_server()), String::new()).await,
            Kind::Socketioxide => {
                let command = peer::socketioxide(binaries.program(kind)?, burst);
                Self::start_peer(kind, command, binaries.socketioxide_version()).await
            }
        }
    }

    /// Starts a server and a bridge with further settings of the bridge.
    pub(crate) async fn start_with(program: &Path, settings: &[&str]) -> anyhow::Result<Self> {
        let started = fanfare::start(program, 1, settings).await?;
        Ok(Self::of_fanfare(Kind::Fanfare, String::new(), started))
    }

    fn of_fanfare(kind: Kind, version: String, started: fanfare::Started) -> Self {
        Self {
            kind,
            version,
            address: started.address,
            processes: started.processes,
            publisher: Publisher::Grpc(Box::new(started.producer)),
            _logs: started.logs,
        }
    }

    /// `version` is for a peer that does not know its own.
    async fn start_peer(
        kind: Kind,
        command: tokio::process::Command,
        version: String,
    ) -> anyhow::Result<Self> {
        let started = peer::start(kind.name(), command).await?;
        Ok(Self {
            kind,
            version: started.version.unwrap_or(version),
            address: started.address,
            processes: vec![started.process],
            publisher: Publisher::Control(started.control),
            _logs: JoinSet::new(),
        })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// What exactly is measured.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Where sessions connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The payload of the CONNECT packet of a session: Fanfare's are authenticated.
    pub(crate) fn auth(&self, session: usize) -> anyhow::Result<String> {
        if self.kind.is_fanfare() { fanfare::user_auth(session) } else { Ok(String::new()) }
    }

    /// The token of a session of `/ws`.
    pub(crate) fn token(&self, session: usize) -> anyhow::Result<String> {
        if !self.kind.is_fanfare() {
            bail!("{} has no /ws", self.kind.name());
        }
        fanfare::user_token(session)
    }

    /// Publishes a run of events; returns when the server has taken them all.
    pub(crate) async fn publish(&mut self, run: Run) -> anyhow::Result<()> {
        match &mut self.publisher {
            Publisher::Grpc(producer) => producer.publish(run).await,
            Publisher::Control(control) => control.publish(run).await,
        }
    }

    /// The CPU time of each process so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Vec<(&'static str, Duration)>> {
        self.processes.iter().map(|p| Ok((p.name(), measure::cpu(p.id())?))).collect()
    }

    /// The resident memory of all processes, in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        self.processes.iter().map(|p| measure::resident_kib(p.id())).sum()
    }

    /// Kills the processes and waits for their end.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for process in self.processes.into_iter().rev() {
            process.stop().await?;
        }
        Ok(())
    }
}
