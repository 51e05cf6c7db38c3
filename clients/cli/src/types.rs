//! `fanfare types`.

use std::{collections::BTreeMap, fmt::Write as _, fs, io::Write as _, path::Path};

use anyhow::{Context as _, anyhow, bail};
use fanfare_proto::{catalog::Catalogs, types};

use crate::settings::{TypesArgs, TypesFormat};

/// Maximum length of a line that a message repeats, in characters.
const LINE_CHARS_MAX: usize = 120;

pub(crate) fn types(args: &TypesArgs) -> anyhow::Result<()> {
    let catalogs = args.catalogs.clone().or_examples().load()?;
    types::check_packages(&catalogs, &args.package).map_err(|problem| anyhow!("--package: {problem}"))?;
    let json = |value: serde_json::Value| serde_json::to_string_pretty(&value).map(|text| text + "\n");
    let text = match args.format {
        TypesFormat::Typescript => types::typescript(&catalogs, &args.package),
        TypesFormat::JsonSchema => json(types::json_schemas(&catalogs, &args.package))?,
        TypesFormat::Asyncapi => json(types::asyncapi(&catalogs, &args.package))?,
        TypesFormat::Names => json(serde_json::to_value(names(&catalogs, &args.package))?)?,
    };
    match &args.out {
        Some(file) if args.check => check(args, file, &text),
        Some(file) => fs::write(file, text).with_context(|| format!("cannot write {}", file.display())),
        None => {
            // If the reader has closed the pipe, that is not an error.
            let _gone = std::io::stdout().write_all(text.as_bytes());
            Ok(())
        }
    }
}

/// The full type names of all events, by package and name.
fn names<'c>(catalogs: &'c Catalogs, packages: &[String]) -> BTreeMap<&'c str, BTreeMap<&'c str, &'c str>> {
    let mut names = BTreeMap::<&str, BTreeMap<&str, &str>>::new();
    for event in catalogs.events() {
        let package = event.full_name.rsplit_once('.').map_or("", |(package, _)| package);
        if packages.is_empty() || packages.iter().any(|wanted| wanted == package) {
            names.entry(package).or_default().insert(&event.name, &event.full_name);
        }
    }
    names
}

/// Fails with the location of the first difference and the command that rewrites the file.
fn check(args: &TypesArgs, file: &Path, wanted: &str) -> anyhow::Result<()> {
    let remedy = command(args, file);
    let found = match fs::read_to_string(file) {
        // Git may have changed the line endings.
        Ok(found) => found.replace("\r\n", "\n"),
        Err(error) => bail!("cannot read {}: {error}; to write it, run: {remedy}", file.display()),
    };
    if found == wanted {
        return Ok(());
    }
    let place = found.lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count();
    let shown = |text: &str| match text.lines().nth(place) {
        Some(line) => format!("{:?}", line.chars().take(LINE_CHARS_MAX).collect::<String>()),
        None => "the end of the file".to_owned(),
    };
    bail!(
        "{}:{}: not what the catalogs say: found {}, want {}; to write it anew, run: {remedy}",
        file.display(),
        place + 1,
        shown(&found),
        shown(wanted)
    )
}

/// The command that writes the file.
fn command(args: &TypesArgs, file: &Path) -> String {
    let mut command = "fanfare types".to_owned();
    // Writing to a String cannot fail.
    let mut flag = |name: &str, value: &str| {
        let _always = write!(command, " --{name} {}", quoted(value));
    };
    for catalog in &args.catalogs.catalog {
        flag("catalog", &catalog.display().to_string());
    }
    for name in &args.catalogs.builtin {
        flag("builtin", name);
    }
    for package in &args.package {
        flag("package", package);
    }
    match args.format {
        TypesFormat::Typescript => {}
        TypesFormat::JsonSchema => flag("format", "json-schema"),
        TypesFormat::Asyncapi => flag("format", "asyncapi"),
        TypesFormat::Names => flag("format", "names"),
    }
    flag("out", &file.display().to_string());
    command
}

/// Quoted so that a shell reads back the same text.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':' | '\\');
    if value.chars().all(plain) { value.to_owned() } else { format!("'{}'", value.replace('\'', "'\\''")) }
}
