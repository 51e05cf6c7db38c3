//! `fanfare completions` and `fanfare man`: input for shells and `man`, generated from the
//! settings.

use std::io::Write as _;

use anyhow::anyhow;
use clap::{Command, CommandFactory as _};

use crate::settings::{Cli, CompletionsArgs, ManArgs};

pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fanfare", &mut script);
    print(&script)
}

pub(crate) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let command = Cli::command();
    let command = match &args.command {
        None => command,
        Some(name) => subcommand(command, name)?,
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    print(&page)
}

fn subcommand(mut command: Command, name: &str) -> anyhow::Result<Command> {
    command.build();
    let names: Vec<_> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let found = command.find_subcommand(name).cloned();
    let found = found.ok_or_else(|| anyhow!("{name:?} is no command: want one of {}", names.join(", ")))?;
    Ok(found.name(format!("fanfare-{name}")))
}

/// If the reader has closed the pipe, that is not an error.
fn print(text: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
