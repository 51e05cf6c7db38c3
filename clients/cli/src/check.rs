//! `fanfare check`.

use std::{collections::BTreeMap, io::Write as _, path::PathBuf};

use anyhow::{Context as _, bail};
use fanfare_proto::{
    catalog::{Builtin, Catalogs, Method, breaking_changes},
    token::Verifier,
};
use fanfare_trust::ServerTls;

use crate::{identity, run::server_tls, settings::CheckArgs};

/// Prints a line. If the reader has closed the pipe, that is not an error.
macro_rules! say {
    ($($line:tt)*) => {
        if writeln!(std::io::stdout(), $($line)*).is_err() {
            return Ok(());
        }
    };
}

/// Checks that server and bridge, in one process or on one machine, do not listen on the same
/// address.
fn check_listeners(args: &CheckArgs) -> anyhow::Result<()> {
    let (grpc, http) = (args.server.grpc_listen, args.bridge.http_listen);
    let overlap = grpc.ip() == http.ip()
        || (grpc.is_ipv4() == http.is_ipv4() && (grpc.ip().is_unspecified() || http.ip().is_unspecified()));
    if grpc.port() != 0 && grpc.port() == http.port() && overlap {
        bail!("--grpc-listen {grpc} and --http-listen {http} are the same place: give them different ports");
    }
    Ok(())
}

/// Checks that every upstream that a catalog names has an address, unless it is optional.
fn check_upstreams(args: &CheckArgs, catalogs: &Catalogs) -> anyhow::Result<()> {
    for method in catalogs.methods() {
        let Method::Client(method) = method else { continue };
        let Some(name) = method.upstream.as_ref().filter(|_| !method.upstream_optional) else { continue };
        if !args.server.upstream.iter().any(|(given, _)| given == name) {
            let (method, name) = (method.path.clone(), name.clone());
            return Err(fanfare_server::Error::UpstreamMissing { method, name }.into());
        }
    }
    Ok(())
}

/// Checks that all configured certificates and keys can be used.
fn check_tls(args: &CheckArgs) -> anyhow::Result<()> {
    if let Some(tls) = server_tls(&args.tls, &args.clients) {
        ServerTls::load(tls.files, &[])?;
    }
    identity::client_tls(&args.server_tls)?.grpc()?;
    Ok(())
}

/// Checks that nothing that clients of the old catalogs use was removed.
fn check_against(old: &[PathBuf], new: &Catalogs) -> anyhow::Result<()> {
    let changes = breaking_changes(&Catalogs::load(Builtin::Only(&[]), old).context("--against")?, new);
    for change in &changes {
        say!("{change}");
    }
    match changes.len() {
        0 => {
            say!("no change breaks clients of the old catalogs");
            Ok(())
        }
        count => bail!("{count} changes break clients of the old catalogs"),
    }
}

pub(crate) fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let catalogs = args.server.catalogs.load_served(&args.server.default_catalogs)?;
    Verifier::new(&identity::config(&args.common.tokens, true)?)?;
    check_listeners(args)?;
    check_upstreams(args, &catalogs)?;
    check_tls(args)?;
    if !args.against.is_empty() {
        return check_against(&args.against, &catalogs);
    }
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
    for kind in catalogs.undeclared_kinds() {
        say!(
            "warning: rooms of the kind {kind:?} are open to every user of the tenant whose token has no rooms claim; declare who may enter, e.g. option (fanfare.v1.room) = {{ kind: {kind:?} access: ACCESS_CLAIM }}"
        );
    }
    let methods = catalogs.services().len();
    let streams = catalogs.methods().filter(|m| matches!(m, Method::Subscribe(_))).count();
    say!(
        "{} catalogs, {methods} services, {streams} Subscribe methods: all right",
        catalogs.packages().len()
    );
    Ok(())
}
