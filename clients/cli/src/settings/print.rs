//! `--print-config`: the effective settings and their sources, as a TOML file that yields the same
//! settings.

use std::{collections::BTreeSet, fmt::Write as _};

use clap::{ArgMatches, Command, parser::ValueSource};

/// Settings whose values are hidden; only their presence is shown.
const SECRET: [&str; 4] = ["jwt-secret", "bridge-token", "token", "postgres"];

/// Whether a setting's value is hidden: it is a secret, or a URL that may contain a password.
pub(super) fn is_secret(key: &str, values: &[String]) -> bool {
    let holds_user = |text: &String| {
        let rest = text.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().is_some_and(|authority| authority.contains('@'))
    };
    SECRET.contains(&key) || values.iter().any(holds_user)
}

#[allow(clippy::print_stdout)]
pub(super) fn print(command: &Command, name: &str, matches: &ArgMatches, in_file: &BTreeSet<String>) {
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
            Some(_) if in_file.contains(long) => "file",
            Some(_) => "default",
            None => "unset",
        };
        let raw = matches.try_get_raw(arg.get_id().as_str()).ok().flatten();
        let values: Vec<String> =
            raw.into_iter().flatten().map(|v| v.to_string_lossy().into_owned()).collect();
        let line = if values.is_empty() {
            format!("# {long} is not set")
        } else if is_secret(long, &values) {
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
