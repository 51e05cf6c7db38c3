//! The programs of the targets: built or installed before anything is measured, and what versions they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::target::Kind;

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Binaries {
    workspace: PathBuf,
    /// Cargo's folder of release binaries, in which the harness is too.
    release: PathBuf,
    fanfare: Option<PathBuf>,
    before: Option<PathBuf>,
    socketioxide: Option<PathBuf>,
}

/// Builds of Fanfare that are measured as they are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    /// Instead of one built from the workspace.
    pub(crate) fanfare: Option<PathBuf>,
    /// An earlier one to compare with.
    pub(crate) before: Option<PathBuf>,
}

impl Binaries {
    /// Builds what the targets need and is not given, in release mode.
    pub(crate) fn prepare(kinds: &[Kind], given: Given) -> anyhow::Result<Self> {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = bench.parent().context("bench/ has no parent")?.to_owned();
        let own = std::env::current_exe()?;
        let target = own.ancestors().nth(2).context("the harness is not in a target folder of cargo")?;
        let (release, Given { fanfare, before }) = (target.join("release"), given);
        let mut binaries = Self { workspace, release, fanfare, before, socketioxide: None };
        for kind in kinds {
            match kind {
                Kind::Fanfare | Kind::Dev if binaries.fanfare.is_none() => {
                    binaries.fanfare = Some(binaries.build("fanfare")?);
                }
                Kind::Fanfare | Kind::Dev => {}
                Kind::Before => {
                    binaries.before.as_ref().context("--fanfare-before PATH names no build")?;
                }
                Kind::Socketioxide => {
                    binaries.socketioxide = Some(binaries.build("fanfare-bench-socketioxide")?);
                }
                Kind::Node => binaries.install()?,
            }
        }
        Ok(binaries)
    }

    /// The program of a target that is one file.
    pub(crate) fn program(&self, kind: Kind) -> anyhow::Result<&Path> {
        let program = match kind {
            Kind::Fanfare | Kind::Dev => &self.fanfare,
            Kind::Before => &self.before,
            Kind::Socketioxide => &self.socketioxide,
            Kind::Node => &None,
        };
        program.as_deref().with_context(|| format!("{} was not built", kind.name()))
    }

    pub(crate) fn node_server(&self) -> PathBuf {
        self.node_folder().join("server.js")
    }

    /// The commit that the workspace is at, or where the program came from.
    pub(crate) fn fanfare_version(&self, kind: Kind) -> String {
        let program = self.program(kind).ok();
        if let Some(given) = program.filter(|path| !path.starts_with(&self.release)) {
            return format!("fanfare of {}", given.display());
        }
        let mut git = Command::new("git");
        git.args(["describe", "--always", "--dirty"]).current_dir(&self.workspace);
        let commit = git.output().ok().filter(|output| output.status.success());
        let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        format!("fanfare {} ({})", env!("CARGO_PKG_VERSION"), commit.as_deref().unwrap_or("no commit"))
    }

    /// The version in the workspace's lock file.
    pub(crate) fn socketioxide_version(&self) -> String {
        let lock = fs::read_to_string(self.workspace.join("Cargo.lock")).unwrap_or_default();
        let version = |name: &str| {
            let after = lock.split(&format!("name = \"{name}\"\nversion = \"")).nth(1)?;
            after.split('"').next()
        };
        let [own, engine] = ["socketioxide", "engineioxide"].map(|name| version(name).unwrap_or("?"));
        format!("socketioxide {own}, engineioxide {engine}, axum {}", version("axum").unwrap_or("?"))
    }

    fn build(&self, package: &str) -> anyhow::Result<PathBuf> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--release", "--locked", "--package", package, "--bin", package]);
        build.arg("--target-dir").arg(self.release.parent().context("no target folder")?);
        run(build.current_dir(&self.workspace))?;
        Ok(self.release.join(package))
    }

    fn install(&self) -> anyhow::Result<()> {
        if self.node_folder().join("node_modules").exists() {
            return Ok(());
        }
        run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(self.node_folder()))
    }

    fn node_folder(&self) -> PathBuf {
        self.workspace.join("bench/peers/node")
    }
}

/// Runs a command to its end, its output on the standard error of the harness.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdout(std::io::stderr()).status();
    let status = status.with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
