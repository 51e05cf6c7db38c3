//! Settings: declared once as flags, and set by flag, environment variable (`FANFARE_…`) or TOML
//! file.
//!
//! The file's values become the flags' defaults before the command line is read. Therefore flags
//! take precedence over the environment, the environment over the file, and the file over the
//! built-in defaults.

mod args;
mod duration;
mod file;
mod print;
mod secrets;

use std::{collections::BTreeSet, ffi::OsString, path::PathBuf};

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

pub(crate) use args::{
    BridgeArgs, CheckArgs, ClientArgs, ClientCertificateArgs, Command, CompletionsArgs, DatabaseArgs,
    DevArgs, LogArgs, LogFormat, ManArgs, NotifyArgs, PeerArgs, RedisAck, RelayArgs, ServerArgs,
    ServerCommand, ServerTlsArgs, SubscribeArgs, TlsArgs, TokenArgs, TokenSettings, TypesArgs, TypesFormat,
};
pub(crate) use duration::Size;

/// Fanfare delivers typed realtime events from gRPC producers to browsers.
///
/// Without a command it runs `dev`: server and bridge in one process with a development key.
#[derive(Debug, clap::Parser)]
#[command(name = "fanfare", version, max_term_width = 100)]
#[command(after_help = "Every setting can be given as a flag (--grpc-listen), an environment variable \
    (FANFARE_GRPC_LISTEN) or a key of the TOML file named by --config (grpc-listen = \"…\").\n\n\
    Example:\n  fanfare dev\n  fanfare server --jwt-secret \"$SECRET\" --grpc-listen 0.0.0.0:50051\n  \
    fanfare bridge --jwt-secret \"$SECRET\" --server http://127.0.0.1:50051")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// TOML file with settings; its keys are the flags' names.
    #[arg(long, env = "FANFARE_CONFIG", value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Prints the settings in force and where each comes from, and ends.
    #[arg(long, global = true)]
    pub(crate) print_config: bool,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line is invalid, or help was requested.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file is invalid.
    #[error(transparent)]
    File(#[from] file::FileError),
    /// A secret's file is invalid.
    #[error(transparent)]
    Secret(#[from] secrets::SecretError),
}

/// Reads all settings; `None` if they were only printed.
pub(crate) fn read(args: impl Iterator<Item = OsString>) -> Result<Option<Cli>, Error> {
    let args = with_default_command(args.collect());
    // Each flag's variable is derived from its name, which the help says once instead of for each
    // flag.
    let mut command = Cli::command().mut_subcommands(|sub| sub.mut_args(|arg| arg.hide_env(true)));
    command = command.mut_args(|arg| arg.hide_env(true));
    let mut in_file = BTreeSet::new();
    if let Some(path) = file::path(&args) {
        (command, in_file) = file::apply(command, &path)?;
    }
    let shape = command.clone();
    let matches = command.try_get_matches_from(args)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if cli.print_config {
        let (name, inner) = chosen(&matches);
        print::print(&shape, name, inner, &in_file);
        return Ok(None);
    }
    secrets::read(&mut cli)?;
    Ok(Some(cli))
}

fn chosen(matches: &ArgMatches) -> (&str, &ArgMatches) {
    matches.subcommand().unwrap_or(("dev", matches))
}

/// `fanfare --flag` means `fanfare dev --flag`.
fn with_default_command(mut args: Vec<OsString>) -> Vec<OsString> {
    let command = Cli::command();
    let known = |arg: &OsString| {
        let text = arg.to_string_lossy();
        text == "help" || command.get_subcommands().any(|s| s.get_name() == text)
    };
    let general = ["--help", "-h", "--version", "-V"];
    let bare =
        args.iter().skip(1).all(|arg| !known(arg) && !general.contains(&arg.to_string_lossy().as_ref()));
    if bare {
        args.insert(1.min(args.len()), "dev".into());
    }
    args
}

#[cfg(test)]
mod tests;
