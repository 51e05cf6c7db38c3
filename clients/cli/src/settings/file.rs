//! The TOML file.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::Command;
use fanfare_proto::json::closest;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot read the settings in {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}: {message}")]
    Syntax { path: String, message: String },
    #[error("{path}:{line}: {key:?} is no setting{hint}; see fanfare --help")]
    Unknown { path: String, line: usize, key: String, hint: String },
    #[error("{path}:{line}: {key} cannot be {found}: want a string, number, boolean, or a list of strings")]
    Kind { path: String, line: usize, key: String, found: &'static str },
}

/// Flags that are not allowed in a file.
const NOT_IN_FILES: [&str; 6] = ["against", "config", "print-config", "print-migration", "help", "version"];

/// The file that the command line or the environment specifies.
pub(super) fn path(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        if text == "--config" {
            return args.next().map(PathBuf::from);
        }
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(path.into());
        }
    }
    std::env::var_os("FANFARE_CONFIG").map(PathBuf::from)
}

/// Makes the file's values the defaults of the flags with the same names, in all commands; also
/// returns the file's keys.
pub(super) fn apply(command: Command, path: &Path) -> Result<(Command, BTreeSet<String>), FileError> {
    let shown = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|source| FileError::Read { path: shown.clone(), source })?;
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| FileError::Syntax { path: shown.clone(), message: e.to_string() })?;
    let known = names(&command);
    let (mut command, mut keys) = (command, BTreeSet::new());
    for (key, value) in table {
        let line = text.lines().position(|l| l.trim_start().starts_with(&key)).map_or(1, |at| at + 1);
        if !known.contains(&key) {
            let near = closest(&key, known.iter().map(String::as_str));
            let hint = near.map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default();
            return Err(FileError::Unknown { path: shown, line, key, hint });
        }
        let values = texts(&value).map_err(|found| FileError::Kind {
            path: shown.clone(),
            line,
            key: key.clone(),
            found,
        })?;
        command = set(command, &key, &values);
        keys.insert(key);
    }
    Ok((command, keys))
}

fn names(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|a| a.get_long().map(str::to_owned));
    let below = command.get_subcommands().flat_map(names);
    own.chain(below).filter(|name| !NOT_IN_FILES.contains(&name.as_str())).collect()
}

fn texts(value: &toml::Value) -> Result<Vec<String>, &'static str> {
    match value {
        toml::Value::String(text) => Ok(vec![text.clone()]),
        toml::Value::Integer(number) => Ok(vec![number.to_string()]),
        toml::Value::Boolean(flag) => Ok(vec![flag.to_string()]),
        toml::Value::Array(items) => {
            items.iter().map(|i| i.as_str().map(str::to_owned).ok_or("a list of other things")).collect()
        }
        toml::Value::Float(_) => Err("a fraction"),
        toml::Value::Datetime(_) => Err("a date"),
        toml::Value::Table(_) => Err("a table"),
    }
}

fn set(mut command: Command, key: &str, values: &[String]) -> Command {
    let id = command.get_arguments().find(|a| a.get_long() == Some(key)).map(|a| a.get_id().clone());
    if let Some(id) = id {
        command = command.mut_arg(id, |arg| {
            let is_secret = super::print::is_secret(key, values);
            arg.default_values(values.to_vec()).hide_default_value(is_secret)
        });
    }
    let below: Vec<String> = command.get_subcommands().map(|s| s.get_name().to_owned()).collect();
    for name in below {
        command = command.mut_subcommand(name, |sub| set(sub, key, values));
    }
    command
}
