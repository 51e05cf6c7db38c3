//! `fanfare relay`.

use std::{io::Write as _, sync::Arc};

use anyhow::Context as _;
use fanfare_relay::{
    Database,
    outbox::{Config, Relay, Table},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    identity,
    logging::Logs,
    metrics::Scrapes,
    run::{ended, stop_signal},
    settings::{DatabaseArgs, RelayArgs},
};

/// The database that the settings specify.
pub(crate) fn database(url: &str, args: &DatabaseArgs) -> anyhow::Result<Database> {
    Ok(Database::new(url, args.postgres_password.as_deref(), args.postgres_ca.as_deref())?)
}

pub(crate) async fn relay(args: RelayArgs, logs: &Logs) -> anyhow::Result<()> {
    let table: Table = args.outbox_table.parse().context("outbox-table")?;
    if args.print_migration {
        std::io::stdout().write_all(table.migration().as_bytes())?;
        return Ok(());
    }
    let stop_signal = stop_signal()?;
    let relay = Relay::new(Config {
        database: database(args.postgres.as_deref().unwrap_or_default(), &args.database)?,
        table,
        client: identity::tool_client(&args.client, &["notify"])?,
        catalogs: args.client.catalogs.clone().or_examples().load()?,
        batch_rows_max: args.batch_rows_max,
        poll_interval: args.poll_interval,
    });
    let counters = relay.counters();
    let scrapes = Scrapes::bind_with_health(
        args.metrics_listen,
        vec![counters.clone(), Arc::new(logs.clone())],
        counters,
    );
    let stop = CancellationToken::new();
    let work = async {
        let run = relay.run(&stop);
        tokio::pin!(run);
        tokio::select! {
            ended = &mut run => return ended.map(|()| true),
            () = stop_signal => stop.cancel(),
        }
        match tokio::time::timeout(args.shutdown_grace, run).await {
            Ok(ended) => ended.map(|()| true),
            Err(_) => Ok(false),
        }
    };
    info!(server = args.client.server, table = args.outbox_table, "relay runs");
    let clean = scrapes.await?.serve_during(work).await?;
    ended("relay", clean)
}
