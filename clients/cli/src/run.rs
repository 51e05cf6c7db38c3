//! `fanfare server` and `fanfare bridge`: runs the programs that the settings describe.

use std::{future::Future, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use fanfare_bridge::Bridge;
use fanfare_proto::{rate::Rate, token::TokenConfig};
use fanfare_server::{
    Ack, Limits, NatsConfig, PresenceConfig, RedisConfig, Retention, Server, Store, Tls, Upstreams,
};
use fanfare_trust::{ClientTls, TlsFiles};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    files, identity,
    logging::Logs,
    metrics::Scrapes,
    settings::{
        BridgeArgs, ClientCertificateArgs, PeerArgs, RedisAck, ServerArgs, ServerCommand, Size, TlsArgs,
    },
};

fn byte_rate(per_second: Size, burst: Size) -> Rate {
    let number = |size: Size| u32::try_from(size.0).unwrap_or(u32::MAX);
    Rate { per_second: number(per_second), burst: number(burst) }
}

/// The server's configuration.
pub(crate) fn server_config(
    args: &ServerArgs,
    tokens: TokenConfig,
    cors_origins: Vec<String>,
) -> anyhow::Result<fanfare_server::Config> {
    let catalogs = Arc::new(args.catalogs.load_served(&args.default_catalogs)?);
    let mut config = fanfare_server::Config::new(args.grpc_listen, catalogs, tokens);
    config.name.clone_from(&args.server_name);
    config.cors_origins = cors_origins;
    config.store = store(args)?;
    config.retention = Retention {
        events_max: args.retention_events,
        bytes_max: args.retention_bytes.0,
        age_max: args.retention_age,
        total_bytes_max: args.retention_bytes_total.0,
    };
    config.limits = Limits {
        event_bytes_max: args.event_bytes_max.0,
        state_entries_max: args.state_entries_max,
        state_bytes_max: args.state_bytes_max.0,
        tenants_max: args.tenants_max,
        idempotency_age_max: args.idempotency_age,
        answered_early_max: args.lose_in_a_crash,
        streams_per_connection_max: args.streams_per_connection_max,
        connections_max: args.grpc_connections_max,
        connections_per_address_max: args.grpc_connections_per_address_max,
        request_timeout: args.grpc_request_timeout,
        idle_timeout: args.grpc_idle_timeout,
        subscriptions_per_user_max: args.subscriptions_per_user_max,
        subscriptions_per_service_max: args.subscriptions_per_service_max,
        rooms_per_user_max: args.rooms_per_user_max,
        publish_bytes_per_user: byte_rate(args.publish_bytes_per_user, args.publish_bytes_per_user_burst),
        publish_bytes_per_tenant: byte_rate(
            args.publish_bytes_per_tenant,
            args.publish_bytes_per_tenant_burst,
        ),
        ..Limits::default()
    };
    config.presence = PresenceConfig {
        grace: args.presence_grace,
        sessions_per_user_max: args.sessions_per_user_max,
        recovery_window: args.recovery_window,
        recoverable_max: args.recoverable_max,
        recoverable_per_tenant_max: args.recoverable_per_tenant_max,
        recoverable_per_user_max: args.recoverable_per_user_max,
        catalogs: args.presence_catalog.clone(),
    };
    let (ca, cert, key) = (&args.upstream_ca, &args.upstream_cert, &args.upstream_key);
    let names = ["upstream-cert", "upstream-key"];
    config.upstreams = Upstreams {
        urls: args.upstream.clone(),
        timeout: args.upstream_timeout,
        tls: ClientTls::new(ca.clone(), cert.clone(), key.clone(), names)?,
    };
    config.heartbeat_interval = args.heartbeat_interval;
    Ok(config)
}

/// Where the server stores logs and sessions.
fn store(args: &ServerArgs) -> anyhow::Result<Store> {
    if let Some(url) = &args.redis {
        let mut config = RedisConfig::parse(url)?;
        config.ack = match args.redis_ack {
            RedisAck::Memory => Ack::Memory,
            RedisAck::Replica => Ack::Replica,
        };
        config.prefix.clone_from(&args.redis_prefix);
        config.ca_file.clone_from(&args.redis_ca_file);
        config.credentials.username_file.clone_from(&args.redis_user_file);
        config.credentials.password_file.clone_from(&args.redis_password_file);
        config.sentinel_credentials.username_file.clone_from(&args.redis_sentinel_user_file);
        config.sentinel_credentials.password_file.clone_from(&args.redis_sentinel_password_file);
        return Ok(Store::Redis(Box::new(config)));
    }
    if !args.nats.is_empty() {
        let mut config = NatsConfig::new(args.nats.clone());
        config.credentials.clone_from(&args.nats_credentials);
        config.root_certificates.clone_from(&args.nats_ca_file);
        config.prefix.clone_from(&args.nats_prefix);
        config.replicas = args.nats_replicas;
        config.partitions = args.nats_partitions;
        return Ok(Store::Nats(Box::new(config)));
    }
    Ok(args.data_dir.clone().map_or(Store::Memory, Store::Disk))
}

/// The bridge's configuration.
pub(crate) fn bridge_config(
    args: &BridgeArgs,
    servers: Vec<String>,
    token: String,
    tokens: TokenConfig,
    cors_origins: Vec<String>,
) -> fanfare_bridge::Config {
    let mut config = fanfare_bridge::Config::new(args.http_listen, servers, token, tokens);
    config.name.clone_from(&args.bridge_name);
    config.cors_origins = cors_origins;
    config.path.clone_from(&args.socketio_path);
    config.ping_interval = args.ping_interval;
    config.ping_timeout = args.ping_timeout;
    config.connect_timeout = args.connect_timeout;
    config.request_timeout = args.request_timeout;
    config.write_timeout = args.write_timeout;
    config.payload_bytes_max = args.payload_bytes_max.0;
    config.queue_bytes_max = args.queue_bytes_max.0;
    config.calls_per_session = Rate { per_second: args.calls_per_second, burst: args.calls_burst };
    config.calls_per_user = Rate { per_second: args.user_calls_per_second, burst: args.user_calls_burst };
    config.connects_per_user =
        Rate { per_second: args.user_connects_per_second, burst: args.user_connects_burst };
    config.abuse_after = args.abuse_after;
    config.poll_wait = args.poll_wait;
    config.rooms_per_session_max = args.rooms_per_session_max.into();
    config.rooms_per_tenant_max = args.rooms_per_tenant_max;
    config.connections_max = args.connections_max;
    config.connections_per_address_max = args.connections_per_address_max;
    config.connects_per_address = Rate { per_second: args.connects_per_second, burst: args.connects_burst };
    config.handshakes_max = args.handshakes_max;
    config.handshakes_per_address_max = args.handshakes_per_address_max;
    config.sessions_per_address_max = args.sessions_per_address_max;
    config.trusted_proxies.clone_from(&args.trusted_proxy);
    config.proxy_protocol = args.proxy_protocol;
    config.compression = args.compression;
    config.client_bundle = args.client_bundle.unwrap_or(false);
    config.shards = args.shards.map_or(config.shards, usize::from);
    config.console = args.console;
    config
}

/// The files of a listener; `None`: no TLS.
fn tls_files(args: &TlsArgs, client_ca: Option<PathBuf>) -> Option<TlsFiles> {
    let (certificate, key) = (args.tls_cert.clone()?, args.tls_key.clone()?);
    Some(TlsFiles { certificate, key, client_ca })
}

/// TLS of the server's listener.
pub(crate) fn server_tls(args: &TlsArgs, clients: &ClientCertificateArgs) -> Option<Tls> {
    let files = tls_files(args, clients.tls_client_ca.clone())?;
    Some(Tls { files, workloads: clients.tls_identity.clone() })
}

/// Runs a server until a signal stops it.
pub(crate) async fn server(args: ServerCommand, logs: &Logs) -> anyhow::Result<()> {
    // First, so that a signal is handled whenever it arrives.
    let stop = stop_signal()?;
    let tokens = identity::config(&args.common.tokens, false)?;
    let mut config = server_config(&args.server, tokens, args.common.cors_origin)?;
    config.jwks_ca.clone_from(&args.common.tokens.jwt_jwks_ca);
    config.tls = server_tls(&args.tls, &args.clients);
    config.metrics_tenants = args.common.metrics_tenants.into();
    files::allow(args.server.grpc_connections_max);
    let server = Server::bind(config).await?;
    info!(address = %server.local_addr(), "server listening");
    let scrapes =
        Scrapes::bind(args.common.metrics_listen, vec![server.metrics(), Arc::new(logs.clone())]).await?;
    let clean = scrapes.serve_during(server.run(stop, args.common.shutdown_grace)).await?;
    ended("server", clean)
}

/// Runs a bridge until a signal stops it.
pub(crate) async fn bridge(args: PeerArgs, logs: &Logs) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let tokens = identity::config(&args.common.tokens, false)?;
    let token = match (args.bridge_token, &args.common.tokens.jwt_secret) {
        (Some(token), _) => token,
        (None, _) if args.server_tls.server_cert.is_some() => String::new(),
        (None, Some(secret)) => identity::bridge_token(&args.common.tokens, secret)?,
        (None, None) => {
            bail!(
                "no token towards the server: give --bridge-token, or --jwt-secret to make one, or --server-cert"
            )
        }
    };
    let mut config = bridge_config(&args.bridge, args.server, token, tokens, args.common.cors_origin);
    config.jwks_ca.clone_from(&args.common.tokens.jwt_jwks_ca);
    config.tls = tls_files(&args.tls, None);
    config.server_tls = identity::client_tls(&args.server_tls)?;
    config.metrics_tenants = args.common.metrics_tenants.into();
    files::allow(args.bridge.connections_max);
    let bridge = Bridge::bind(config)?;
    info!(address = %bridge.local_addr(), "bridge listening");
    let scrapes =
        Scrapes::bind(args.common.metrics_listen, vec![bridge.metrics(), Arc::new(logs.clone())]).await?;
    let clean = scrapes.serve_during(bridge.run(stop, args.common.shutdown_grace)).await?;
    ended("bridge", clean)
}

/// Reports how a program ended.
pub(crate) fn ended(what: &str, clean: bool) -> anyhow::Result<()> {
    if clean {
        info!("{what} ended cleanly");
        return Ok(());
    }
    bail!("{what}: the shutdown grace ran out before everything under way had ended")
}

/// Resolves at the first SIGTERM or SIGINT; the second one ends the process immediately.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    #[allow(clippy::disallowed_methods, reason = "lives as long as the process")]
    tokio::spawn(async move {
        for round in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if round > 0 {
                std::process::exit(130);
            }
            info!("told to stop");
            stop.cancel();
        }
    });
    Ok(stopped)
}
