//! The rows of the outbox: reads them in order, deletes published ones, and moves refused ones to
//! another table.

use std::time::Duration;

use tokio_postgres::{Row as Record, types::ToSql};

use crate::{
    Error,
    database::{Session, within},
};

use super::table::Table;

/// The largest row that is read, in bytes. The server's limit is lower.
pub(super) const ROW_BYTES_MAX: i64 = 1 << 20;
/// A batch ends with the row that reaches this size, in bytes.
const BATCH_BYTES_MAX: i64 = 8 << 20;
/// Maximum number of rows of one partition in a batch, so that the cost of reading a batch does not
/// depend on the number of queued rows.
const PARTITION_ROWS_MAX: i64 = 250;
/// The longest reason that is stored with a refused row, in characters.
const REASON_CHARS_MAX: usize = 1000;

/// A queued row.
#[derive(Debug, Default, Clone)]
pub(super) struct Row {
    pub(super) position: i64,
    /// The idempotency key.
    pub(super) id: String,
    pub(super) tenant: String,
    /// The event's name.
    pub(super) kind: String,
    pub(super) json: Option<String>,
    pub(super) protobuf: Option<Vec<u8>>,
    pub(super) rooms: Vec<String>,
    pub(super) except_sessions: Vec<String>,
    /// The row's size. A row that is too large is read without payload and rooms.
    pub(super) bytes: i64,
    /// Time since its transaction began.
    pub(super) age: Duration,
}

/// The statements for one table.
#[derive(Debug)]
pub(super) struct Rows {
    read: String,
    delete: String,
    refuse: String,
}

fn row(record: &Record) -> Result<Row, tokio_postgres::Error> {
    let age: f64 = record.try_get("age")?;
    Ok(Row {
        position: record.try_get("position")?,
        id: record.try_get("id")?,
        tenant: record.try_get("tenant")?,
        kind: record.try_get("type")?,
        json: record.try_get("json")?,
        protobuf: record.try_get("protobuf")?,
        rooms: record.try_get("rooms")?,
        except_sessions: record.try_get("except_sessions")?,
        bytes: record.try_get("bytes")?,
        age: Duration::try_from_secs_f64(age).unwrap_or_default(),
    })
}

impl Rows {
    pub(super) fn new(table: &Table) -> Self {
        let refused = table.refused();
        let read = format!(
            "SELECT position, id::text AS id, left(tenant, 256) AS tenant, left(type, 512) AS type, bytes, \
             CASE WHEN bytes <= $3 THEN payload::text END AS json, \
             CASE WHEN bytes <= $3 THEN protobuf END AS protobuf, \
             CASE WHEN bytes <= $3 THEN rooms ELSE '{{}}' END AS rooms, \
             CASE WHEN bytes <= $3 THEN except_sessions ELSE '{{}}' END AS except_sessions, \
             extract(epoch FROM clock_timestamp() - created_at)::float8 AS age \
             FROM (SELECT *, (sum(bytes) OVER (ORDER BY position) - bytes)::bigint AS before FROM (\
               SELECT *, (coalesce(octet_length(payload::text), octet_length(protobuf)) \
                 + octet_length(tenant) + octet_length(type) \
                 + octet_length(rooms::text) + octet_length(except_sessions::text))::bigint AS bytes \
               FROM {table} WHERE position = ANY(ARRAY(\
                 SELECT head.position FROM unnest($1::smallint[]) AS own (partition) CROSS JOIN LATERAL (\
                   SELECT position FROM {table} AS o WHERE o.partition = own.partition \
                   ORDER BY position LIMIT $5) AS head \
                 ORDER BY position LIMIT $2))) AS first) AS sized \
             WHERE before < $4 ORDER BY position"
        );
        let delete = format!("DELETE FROM {table} WHERE position = ANY($1)");
        let columns =
            "position, id, tenant, key, type, payload, protobuf, rooms, except_sessions, created_at";
        let refuse = format!(
            "WITH moved AS (DELETE FROM {table} WHERE position = $1 RETURNING {columns}) \
             INSERT INTO {refused} ({columns}, reason) SELECT {columns}, $2 FROM moved"
        );
        Self { read, delete, refuse }
    }

    /// Reads some of the first rows of the partitions; each partition's rows are in order and
    /// without gaps.
    pub(super) async fn read(
        &self,
        session: &Session,
        partitions: &[i16],
        rows_max: u32,
    ) -> Result<Vec<Row>, Error> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let doing = "read the outbox";
        let (limit, partitions) = (i64::from(rows_max), partitions.to_vec());
        let values: [&(dyn ToSql + Sync); 5] =
            [&partitions, &limit, &ROW_BYTES_MAX, &BATCH_BYTES_MAX, &PARTITION_ROWS_MAX];
        let records = within(doing, session.client.query(&self.read, &values)).await?;
        let rows: Result<Vec<Row>, _> = records.iter().map(row).collect();
        rows.map_err(|source| Error::Database { doing, source })
    }

    /// Deletes published rows.
    pub(super) async fn delete(&self, session: &Session, positions: &[i64]) -> Result<(), Error> {
        if positions.is_empty() {
            return Ok(());
        }
        let positions = positions.to_vec();
        within("delete published rows", session.client.execute(&self.delete, &[&positions])).await?;
        Ok(())
    }

    /// Moves a permanently refused row to the table of refused rows.
    pub(super) async fn refuse(&self, session: &Session, position: i64, reason: &str) -> Result<(), Error> {
        let reason: String = reason.chars().filter(|c| *c != '\0').take(REASON_CHARS_MAX).collect();
        within("move a refused row aside", session.client.execute(&self.refuse, &[&position, &reason]))
            .await?;
        Ok(())
    }
}
