//! One process of a server: started with pipes, killed when it is dropped.

use std::{process::Stdio, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines},
    process::{Child, Command},
};

/// How long a server may take to say that it listens.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    id: u32,
    child: Child,
}

impl Process {
    /// Starts it; its standard input, output and error are as the command says.
    pub(super) fn start(name: &'static str, command: &mut Command) -> anyhow::Result<Self> {
        let child = command.kill_on_drop(true).spawn().with_context(|| format!("cannot start {name}"))?;
        let id = child.id().with_context(|| format!("{name} ended at once"))?;
        Ok(Self { name, id, child })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot stop {}", self.name))
    }
}

/// A command whose pipes are closed unless opened.
pub(super) fn command(program: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// The lines of a pipe.
pub(super) fn lines<P: AsyncRead + Unpin>(pipe: Option<P>) -> anyhow::Result<Lines<BufReader<P>>> {
    Ok(BufReader::new(pipe.context("the pipe was not opened")?).lines())
}
