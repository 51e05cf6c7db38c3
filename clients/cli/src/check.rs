//! `fanfare check`.

use std::{collections::BTreeMap, io::Write as _};

use fanfare_proto::{
    catalog::{Catalogs, Method},
    token::Verifier,
};

use crate::{identity, settings::CheckArgs};

/// Prints a line; a reader that has gone is no fault.
macro_rules! say {
    ($($line:tt)*) => {
        if writeln!(std::io::stdout(), $($line)*).is_err() {
            return Ok(());
        }
    };
}

pub(crate) fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let catalogs = Catalogs::load_served(&args.server.catalogs.catalog, &args.server.default_catalogs)?;
    Verifier::new(&identity::config(&args.common.tokens, true)?)?;
    let mut events: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for event in catalogs.events() {
        let rooms: Vec<&str> = event.rooms.iter().map(|r| r.as_str()).collect();
        let rooms =
            if rooms.is_empty() { "rooms named by the producer".to_owned() } else { rooms.join(", ") };
        let kept = if event.ephemeral { ", never stored" } else { "" };
        events.entry(&event.package).or_default().push(format!("  {:<24} {rooms}{kept}", event.name));
    }
    for (package, mut lines) in events {
        lines.sort();
        say!("{package}: {} events", lines.len());
        for line in lines {
            say!("{line}");
        }
    }
    for namespace in catalogs.namespaces() {
        say!("namespace {}: {}", namespace.name, namespace.catalogs.join(", "));
    }
    let mut calls: Vec<&str> = catalogs.call_names().collect();
    calls.sort_unstable();
    say!("browsers may emit: {}", calls.join(", "));
    let methods = catalogs.services().len();
    let streams = catalogs.methods().filter(|m| matches!(m, Method::Subscribe(_))).count();
    say!(
        "{} catalogs, {methods} services, {streams} Subscribe methods: all right",
        catalogs.packages().len()
    );
    Ok(())
}
