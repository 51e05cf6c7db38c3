//! Tables in PostgreSQL: events, and the cursor that each sink has reached. Both change in one
//! transaction.

use rand::RngExt as _;
use std::time::Duration;
use tokio::time::Instant;

use crate::{
    Database, Error,
    database::{Session, within},
};

use super::Record;

/// Creates the tables.
const MIGRATION: &str = include_str!("migration.sql");
const INSERT: &str = include_str!("insert.sql");
/// Advances a cursor if it still has the value that this sink stored last.
const MOVE: &str =
    "UPDATE fanfare_cursors SET cursor = $3, updated_at = now() WHERE sink = $1 AND cursor = $2";
/// The class of the advisory locks that sinks hold: an arbitrary constant.
const LOCK: &str = "SELECT pg_try_advisory_lock(1181902, hashtext($1))";
/// How long to retry when the database fails.
const RETRY_FOR: Duration = Duration::from_secs(60);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Tables into which events are inserted.
#[derive(Debug)]
pub struct TableSink {
    database: Database,
    name: String,
    session: Option<Session>,
    cursor: String,
}

/// JSON without `\u0000`, which PostgreSQL cannot store: it becomes U+FFFD.
fn without_nul(json: &str) -> String {
    if !json.contains("\\u0000") {
        return json.to_owned();
    }
    let (mut made, mut rest) = (String::with_capacity(json.len()), json);
    while let Some(at) = rest.find('\\') {
        made.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("\\u0000") {
            made.push_str("\\ufffd");
            rest = after;
        } else {
            // In JSON, a backslash and the character that it escapes are ASCII.
            let end = rest.char_indices().nth(2).map_or(rest.len(), |(end, _)| end);
            made.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    made.push_str(rest);
    made
}

impl TableSink {
    /// Opens the tables, and creates them if they do not exist. `name` distinguishes the sinks of
    /// one database.
    pub async fn open(database: Database, name: String) -> Result<Self, Error> {
        let mut sink = Self { database, name, session: None, cursor: String::new() };
        let session = sink.connect().await?;
        let failed = |source| Error::Database { doing: "read the cursor", source };
        let make = "INSERT INTO fanfare_cursors (sink, cursor) VALUES ($1, '') ON CONFLICT DO NOTHING";
        within("make the cursor", session.client.execute(make, &[&sink.name])).await?;
        let read = "SELECT cursor FROM fanfare_cursors WHERE sink = $1";
        let row = within("read the cursor", session.client.query_one(read, &[&sink.name])).await?;
        sink.cursor = row.try_get(0).map_err(failed)?;
        sink.session = Some(session);
        Ok(sink)
    }

    async fn connect(&self) -> Result<Session, Error> {
        let session = self.database.connect().await?;
        within("make the tables of events", session.client.batch_execute(MIGRATION)).await?;
        let failed = |source| Error::Database { doing: "lock the sink", source };
        let row = within("lock the sink", session.client.query_one(LOCK, &[&self.name])).await?;
        if row.try_get(0).map_err(failed)? { Ok(session) } else { Err(Error::SinkTaken(self.name.clone())) }
    }

    pub(super) fn cursor(&self) -> &str {
        &self.cursor
    }

    pub(super) async fn store(&mut self, records: &[Record]) -> Result<(), Error> {
        let Some(last) = records.last() else { return Ok(()) };
        let lines: Vec<String> = records.iter().map(|record| without_nul(&record.json)).collect();
        let events = format!("[{}]", lines.join(","));
        self.advance(Some(&events), &last.cursor.clone(), false).await
    }

    pub(super) async fn reach(&mut self, cursor: &str) -> Result<(), Error> {
        self.advance(None, cursor, false).await
    }

    pub(super) async fn miss(&mut self, cursor: &str) -> Result<(), Error> {
        self.advance(None, cursor, true).await
    }

    /// Retries for a while, because the database may be restarting.
    async fn advance(&mut self, events: Option<&str>, cursor: &str, is_gap: bool) -> Result<(), Error> {
        let (began, mut pause) = (Instant::now(), BACKOFF_MIN);
        loop {
            let error = match self.try_advance(events, cursor, is_gap).await {
                Ok(()) => {
                    cursor.clone_into(&mut self.cursor);
                    return Ok(());
                }
                Err(error) => error,
            };
            self.session = None;
            if !error.is_retry() || began.elapsed() > RETRY_FOR {
                return Err(error);
            }
            tracing::warn!(problem = error.to_string(), "events wait; the sink tries again");
            tokio::time::sleep(pause.mul_f64(rand::rng().random_range(0.5..1.0))).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    async fn try_advance(&mut self, events: Option<&str>, cursor: &str, is_gap: bool) -> Result<(), Error> {
        let connected = match self.session.take() {
            Some(session) => session,
            None => self.connect().await?,
        };
        let session = self.session.insert(connected);
        let doing = "store events";
        let transaction = within(doing, session.client.transaction()).await?;
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&self.name, &self.cursor, &cursor];
        if within(doing, transaction.execute(MOVE, &values)).await? == 0 {
            // The previous attempt may have been committed before it failed.
            let read = "SELECT cursor FROM fanfare_cursors WHERE sink = $1";
            let row = within(doing, transaction.query_one(read, &[&self.name])).await?;
            let reached: String = row.try_get(0).map_err(|source| Error::Database { doing, source })?;
            return if reached == cursor { Ok(()) } else { Err(Error::SinkTaken(self.name.clone())) };
        }
        if let Some(events) = events {
            within(doing, transaction.execute(INSERT, &[&events])).await?;
        }
        if is_gap {
            let gap = "INSERT INTO fanfare_gaps (sink, after, cursor) VALUES ($1, $2, $3)";
            within(doing, transaction.execute(gap, &values)).await?;
        }
        within(doing, transaction.commit()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_escaped_nul_is_replaced() {
        let json = r#"{"a":"x\u0000y","b":"\\u0000","c":"\\\u0000","d":"é\n"}"#;
        let made = r#"{"a":"x\ufffdy","b":"\\u0000","c":"\\\ufffd","d":"é\n"}"#;
        assert_eq!(without_nul(json), made);
        assert_eq!(without_nul("{}"), "{}");
    }
}
