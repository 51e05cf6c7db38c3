//! `--print-config`: what is in force and where it comes from, as a TOML file that gives the same again.

use std::fmt::Write as _;

use clap::{ArgMatches, Command, parser::ValueSource};

/// Settings that are shown only as present.
pub(super) const SECRET: [&str; 3] = ["jwt-secret", "bridge-token", "token"];

#[allow(clippy::print_stdout)]
pub(super) fn print(command: &Command, name: &str, matches: &ArgMatches) {
    let mut command = command.clone();
    command.build();
    let Some(chosen) = command.find_subcommand(name) else { return };
    let mut out = format!("# fanfare {name}\n");
    for arg in chosen.get_arguments() {
        let Some(long) =
            arg.get_long().filter(|l| !matches!(*l, "config" | "print-config" | "help" | "version"))
        else {
            continue;
        };
        let source = match matches.value_source(arg.get_id().as_str()) {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "environment",
            Some(_) => "file or default",
            None => "unset",
        };
        let raw = matches.try_get_raw(arg.get_id().as_str()).ok().flatten();
        let values: Vec<String> =
            raw.into_iter().flatten().map(|v| v.to_string_lossy().into_owned()).collect();
        let line = if values.is_empty() {
            format!("# {long} is not set")
        } else if SECRET.contains(&long) {
            format!("# {long} is set and not shown ({source})")
        } else if values.len() == 1 {
            format!("{long} = {}  # {source}", toml::Value::from(values[0].as_str()))
        } else {
            format!("{long} = {}  # {source}", toml::Value::from(values))
        };
        // Writing to a String cannot fail.
        let _always = writeln!(out, "{line}");
    }
    print!("{out}");
}
