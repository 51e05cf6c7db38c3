//! The outbox table: its name, and the SQL that creates it.

use std::{fmt, str::FromStr};

use crate::Error;

use super::partitions;

/// The longest part of a name, in bytes. With the suffixes it fits into PostgreSQL's 63.
const NAME_BYTES_MAX: usize = 40;

/// The name of an outbox table, optionally with its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    schema: Option<String>,
    name: String,
}

impl FromStr for Table {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_name = |part: &str| {
            part.len() <= NAME_BYTES_MAX
                && part.starts_with(|c: char| c.is_ascii_lowercase())
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        if !is_name(name) || !schema.is_none_or(is_name) {
            return Err(Error::Table(text.to_owned()));
        }
        Ok(Self { schema: schema.map(str::to_owned), name: name.to_owned() })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.beside(""))
    }
}

impl Table {
    /// The name of a related object in the same schema.
    fn beside(&self, suffix: &str) -> String {
        let schema = self.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
        format!("{schema}{}{suffix}", self.name)
    }

    /// The table for refused rows.
    pub(super) fn refused(&self) -> String {
        self.beside("_refused")
    }

    /// The channel on which new rows are announced.
    pub(super) fn channel(&self) -> String {
        format!("{}_{}", self.schema.as_deref().unwrap_or("public"), self.name)
    }

    /// The SQL that creates the table. It may be run repeatedly.
    pub fn migration(&self) -> String {
        include_str!("migration.sql")
            .replace("{table}", &self.to_string())
            .replace("{refused}", &self.refused())
            .replace("{index}", &format!("{}_partition", self.name))
            .replace("{trigger}", &format!("{}_notify", self.name))
            .replace("{function}", &self.beside("_notify"))
            .replace("{channel}", &self.channel())
            .replace("{partition_mask}", &(partitions::COUNT - 1).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_needs_quotes_is_refused() {
        for wrong in ["", "Outbox", "a-b", "a.b.c", "1a", "a.", ".a", "a\"b", &"a".repeat(41)] {
            let error = wrong.parse::<Table>().unwrap_err().to_string();
            assert!(error.contains("is no name of a table"), "{error}");
        }
    }

    #[test]
    fn the_migration_names_everything_after_the_table() {
        let sql = "app.events".parse::<Table>().unwrap().migration();
        for part in [
            "CREATE TABLE IF NOT EXISTS app.events (",
            "CREATE TABLE IF NOT EXISTS app.events_refused (",
            "INDEX IF NOT EXISTS events_partition ON app.events",
            "pg_notify('app_events', '')",
            "TRIGGER events_notify AFTER INSERT ON app.events",
            "key, 0) & 31)::smallint",
        ] {
            assert!(sql.contains(part), "{part} is not in\n{sql}");
        }
        assert!(!sql.contains("{table}") && !sql.contains("{function}"), "{sql}");
    }
}
