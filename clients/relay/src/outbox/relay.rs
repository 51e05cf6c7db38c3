//! The relay: passes over the outbox until it is stopped.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fanfare_client::Client;
use fanfare_proto::catalog::Catalogs;
use rand::RngExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Database, Error,
    database::{Session, within},
};

use super::{
    counters::Counters,
    partitions::Partitions,
    publish::{Outcome, Publisher},
    rows::{Row, Rows},
    table::Table,
};

/// Pause after a failure.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often relays check whether they own their share of the partitions.
const BALANCE_INTERVAL: Duration = Duration::from_secs(1);

/// A relay's configuration.
#[derive(Debug)]
pub struct Config {
    /// The database of the outbox.
    pub database: Database,
    /// The outbox table.
    pub table: Table,
    /// The client through which events are published.
    pub client: Client,
    /// The events that rows may name.
    pub catalogs: Catalogs,
    /// Maximum number of rows in a batch.
    pub batch_rows_max: u32,
    /// How often it looks for rows without a notification.
    pub poll_interval: Duration,
}

/// Publishes the rows of an outbox.
#[derive(Debug)]
pub struct Relay {
    database: Database,
    table: Table,
    rows: Rows,
    publisher: Publisher,
    batch_rows_max: u32,
    poll_interval: Duration,
    counters: Arc<Counters>,
}

/// The pause after the next failure.
struct Backoff(Duration);

impl Backoff {
    /// Waits, unless the relay is stopped.
    async fn wait(&mut self, stop: &CancellationToken) {
        let pause = self.0.mul_f64(rand::rng().random_range(0.5..1.0));
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        let _stopped = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }

    const fn reset(&mut self) {
        self.0 = BACKOFF_MIN;
    }
}

impl Relay {
    /// Creates a relay; [`Self::run`] starts it.
    pub fn new(config: Config) -> Self {
        let Config { database, table, client, catalogs, batch_rows_max, poll_interval } = config;
        let (rows, publisher) = (Rows::new(&table), Publisher::new(client, catalogs));
        let counters = Arc::default();
        Self { database, table, rows, publisher, batch_rows_max, poll_interval, counters }
    }

    /// The relay's counters, and whether it can make progress.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Publishes until it is stopped; a batch in progress is completed. Returns earlier only if a
    /// retry is pointless.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), Error> {
        let mut backoff = Backoff(BACKOFF_MIN);
        while !stop.is_cancelled() {
            let Err(error) = self.work(stop, &mut backoff).await else { continue };
            if !error.is_retry() {
                return Err(error);
            }
            self.failed(&error);
            backoff.wait(stop).await;
        }
        Ok(())
    }

    fn failed(&self, error: &Error) {
        let problem = error.to_string();
        Counters::add(&self.counters.retries, 1);
        tracing::warn!(problem, "rows wait; the relay tries again");
        self.counters.set_problem(Some(problem));
    }

    /// Works over one connection to the database, for as long as the connection lasts.
    async fn work(&self, stop: &CancellationToken, backoff: &mut Backoff) -> Result<(), Error> {
        let Some(session) = stop.run_until_cancelled(self.database.connect()).await else { return Ok(()) };
        let session = session?;
        let mut partitions = Partitions::join(&session, &self.table).await?;
        let listen = format!("LISTEN \"{}\"", self.table.channel());
        within("listen", session.client.batch_execute(&listen)).await?;
        tracing::info!(table = %self.table, "relay connected to the database");
        let mut balanced: Option<Instant> = None;
        while !stop.is_cancelled() {
            if balanced.is_none_or(|at| at.elapsed() >= BALANCE_INTERVAL) {
                partitions.balance(&session).await?;
                balanced = Some(Instant::now());
            }
            let rows = self.rows.read(&session, &partitions.held(), self.batch_rows_max).await?;
            let oldest = rows.iter().map(|row| row.age).max().unwrap_or_default();
            self.counters.look(partitions.held().len(), oldest);
            if rows.is_empty() {
                backoff.reset();
                self.counters.set_problem(None);
                let pause = self.poll_interval.min(BALANCE_INTERVAL);
                tokio::select! {
                    () = session.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => {}
                }
                continue;
            }
            match self.pass(&session, rows).await? {
                None => {
                    backoff.reset();
                    self.counters.set_problem(None);
                }
                Some(problem) => {
                    self.failed(&problem);
                    backoff.wait(stop).await;
                }
            }
        }
        Ok(())
    }

    /// Publishes a batch and deletes the acknowledged rows; returns what prevented the remaining
    /// rows from being published.
    async fn pass(&self, session: &Session, rows: Vec<Row>) -> Result<Option<Error>, Error> {
        let read = Instant::now();
        let ages: HashMap<i64, Duration> = rows.iter().map(|row| (row.position, row.age)).collect();
        let Outcome { published, duplicates, refused, problem } = self.publisher.publish(rows).await;
        for age in published.iter().filter_map(|position| ages.get(position)) {
            self.counters.delay.record(*age + read.elapsed());
        }
        self.rows.delete(session, &published).await?;
        Counters::add(&self.counters.published, published.len());
        Counters::add(&self.counters.duplicates, usize::try_from(duplicates).unwrap_or_default());
        for (position, reason) in refused {
            self.rows.refuse(session, position, &reason).await?;
            Counters::add(&self.counters.refused, 1);
            tracing::warn!(position, reason, "a row is refused and moved aside");
        }
        Ok(problem)
    }
}
