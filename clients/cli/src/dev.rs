//! `fanfare dev`: everything in one process.

use std::{net::SocketAddr, sync::Arc};

use anyhow::bail;
use fanfare_bridge::Bridge;
use fanfare_proto::{signer::Signer, token::DEVELOPMENT_SECRET};
use fanfare_server::Server;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    banner, files, identity,
    logging::Logs,
    metrics::Scrapes,
    run::{bridge_config, ended, server_config, stop_signal},
    settings::DevArgs,
};

pub(crate) async fn dev(mut args: DevArgs, logs: &Logs) -> anyhow::Result<()> {
    args.server.catalogs = args.server.catalogs.or_examples();
    let settings = &args.common.tokens;
    let tokens = identity::config(settings, true)?;
    let is_public = fanfare_proto::token::trusts_development_key(&tokens)?;
    let own_key = settings.jwt_secret.is_some()
        || !settings.jwt_pem.is_empty()
        || !settings.jwt_jwks.is_empty()
        || !settings.jwt_trust.is_empty();
    for address in [args.server.grpc_listen, args.bridge.http_listen] {
        refuse_public(address, own_key && !is_public)?;
    }
    let secret = match &settings.jwt_secret {
        Some(secret) => secret.as_str(),
        None if own_key => bail!(
            "fanfare dev makes tokens itself: give --jwt-secret, or run fanfare server and fanfare bridge"
        ),
        None => DEVELOPMENT_SECRET,
    };
    let origins = if args.common.cors_origin.is_empty() {
        vec!["*".to_owned()]
    } else {
        args.common.cors_origin.clone()
    };
    // The development key is public, so any client may as well get tokens that are signed with it.
    let signer = (!own_key).then(|| Signer::new(secret, &tokens));
    let mut config = server_config(&args.server, tokens.clone(), origins.clone())?;
    config.signer.clone_from(&signer);
    config.jwks_ca.clone_from(&settings.jwt_jwks_ca);
    config.metrics_tenants = args.common.metrics_tenants.into();
    let stop = stop_signal()?;
    files::allow(args.bridge.connections_max);
    let server = Server::bind(config).await;
    let server = server.map_err(|error| match error {
        fanfare_server::Error::Listen { .. } => explain(error.into(), "--grpc-listen 127.0.0.1:0"),
        other => other.into(),
    })?;
    let grpc = server.local_addr();
    info!(address = %grpc, "server listening");
    let token = identity::bridge_token(settings, secret)?;
    let mut config = bridge_config(&args.bridge, vec![format!("http://{grpc}")], token, tokens, origins);
    config.development = signer;
    config.jwks_ca.clone_from(&settings.jwt_jwks_ca);
    config.metrics_tenants = args.common.metrics_tenants.into();
    config.client_bundle = args.bridge.client_bundle.unwrap_or(true);
    let bridge = Bridge::bind(config).map_err(|error| match error {
        fanfare_bridge::Error::Listen { .. } => explain(error.into(), "--http-listen 127.0.0.1:0"),
        other => other.into(),
    })?;
    let http = bridge.local_addr();
    info!(address = %http, "bridge listening");

    let sources = vec![server.metrics(), bridge.metrics(), Arc::new(logs.clone())];
    let scrapes = Scrapes::bind(args.common.metrics_listen, sources).await?;
    let (stop_bridge, stop_server) = (CancellationToken::new(), CancellationToken::new());
    let grace = args.common.shutdown_grace;
    banner::print(grpc, http, secret, args.bridge.console)?;
    let serving = server.run(stop_server.clone().cancelled_owned(), grace);
    let bridging = bridge.run(stop_bridge.clone().cancelled_owned(), grace);
    let bridge_then_server = async {
        let bridge_clean = bridging.await;
        stop_server.cancel();
        bridge_clean
    };
    let stopping = async {
        stop.await;
        stop_bridge.cancel();
    };
    let all = async { tokio::join!(serving, bridge_then_server, stopping) };
    let (server_clean, bridge_clean, ()) = scrapes.serve_during(all).await;
    ended("dev", server_clean? && bridge_clean?)
}

/// The development key is public, so it must not protect anything that other machines can reach.
fn refuse_public(address: SocketAddr, own_key: bool) -> anyhow::Result<()> {
    if own_key || address.ip().is_loopback() {
        return Ok(());
    }
    bail!(
        "{address} can be reached from other machines, and fanfare dev uses a public development key: give --jwt-secret, or listen on 127.0.0.1"
    )
}

fn explain(error: anyhow::Error, flag: &str) -> anyhow::Error {
    error.context(format!("if the port is taken, choose another, e.g. fanfare dev {flag}"))
}
