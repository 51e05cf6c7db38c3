//! A server under measurement: its processes, how it is started, published to and stopped.
//!
//! Knows nothing of sessions, nor of what is measured.

pub(crate) mod fanfare;
mod peer;
mod process;

use std::{net::SocketAddr, time::Duration};

use clap::ValueEnum;

use crate::{binaries::Binaries, measure};
use fanfare::Producer;
use peer::Control;
use process::Process;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// `fanfare server` and `fanfare bridge`.
    Fanfare,
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
            Self::Node => "node",
            Self::Socketioxide => "socketioxide",
        }
    }
}

/// A run of events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) count: u32,
    /// The number of the first.
    pub(crate) first: u32,
    /// Between two events; zero: all at once.
    pub(crate) interval: Duration,
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
}

impl Target {
    /// Starts the server; `burst` is the number of events that may wait for one session.
    pub(crate) async fn start(kind: Kind, binaries: &Binaries, burst: u32) -> anyhow::Result<Self> {
        match kind {
            Kind::Fanfare => {
                let started = fanfare::start(binaries.fanfare()?, burst).await?;
                Ok(Self {
                    kind,
                    version: binaries.fanfare_version(),
                    address: started.address,
                    processes: started.processes,
                    publisher: Publisher::Grpc(Box::new(started.producer)),
                })
            }
            Kind::Node | Kind::Socketioxide => {
                let command = match kind {
                    Kind::Node => peer::node(&binaries.node_server()),
                    Kind::Socketioxide | Kind::Fanfare => peer::socketioxide(binaries.socketioxide()?, burst),
                };
                let started = peer::start(kind.name(), command).await?;
                let version = started.version.unwrap_or_else(|| binaries.socketioxide_version());
                Ok(Self {
                    kind,
                    version,
                    address: started.address,
                    processes: vec![started.process],
                    publisher: Publisher::Control(started.control),
                })
            }
        }
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
        match self.kind {
            Kind::Fanfare => fanfare::user_auth(session),
            Kind::Node | Kind::Socketioxide => Ok(String::new()),
        }
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
