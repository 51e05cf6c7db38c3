//! Checks at the start: the version must be supported, and settings that can lose data cause a
//! warning that says what to set.

use redis::Value;

use super::{Shared, config::Ack, fault::Fault};
use crate::error::Error;

/// The oldest supported versions: they have sharded pub/sub and `#!lua` scripts.
const REDIS_MIN: (u64, u64) = (7, 0);
const VALKEY_MIN: (u64, u64) = (7, 2);

impl Shared {
    /// Fails if Redis cannot be reached or is too old.
    pub(super) async fn check(&self) -> Result<(), Error> {
        let wrong = |problem: String| Error::Redis { problem };
        let server = self.info("server").await.map_err(|fault| wrong(fault.to_string()))?;
        let (name, version, oldest) = match field(&server, "valkey_version") {
            Some(version) => ("Valkey", version, VALKEY_MIN),
            None => ("Redis", field(&server, "redis_version").unwrap_or_default(), REDIS_MIN),
        };
        let mut numbers = version.split('.').map(|part| part.parse::<u64>().unwrap_or_default());
        let found = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        if found < oldest {
            return Err(wrong(format!(
                "this is {name} {version:?}; want {}.{} or later",
                oldest.0, oldest.1
            )));
        }
        for warning in
            self.warnings().await.unwrap_or_else(|fault| vec![format!("cannot be checked: {fault}")])
        {
            tracing::warn!("Redis: {warning}");
        }
        Ok(())
    }

    async fn warnings(&self) -> Result<Vec<String>, Fault> {
        let (memory, persistence) = (self.info("memory").await?, self.info("persistence").await?);
        let mut warnings = Vec::new();
        match field(&memory, "maxmemory_policy") {
            None | Some("noeviction") => {}
            Some(policy) => warnings.push(format!(
                "maxmemory-policy is {policy}, by which logs may be evicted; set maxmemory-policy noeviction"
            )),
        }
        if field(&memory, "maxmemory") == Some("0") {
            warnings.push("maxmemory is not set, and a full machine ends Redis; set maxmemory".to_owned());
        }
        if field(&persistence, "aof_enabled") != Some("1") {
            warnings.push(
                "a restart loses what was acknowledged since the last snapshot; set appendonly yes"
                    .to_owned(),
            );
        }
        if let Some(least) = self.setting("min-replicas-to-write").await
            && least == "0"
            && self.ack == Ack::Replica
        {
            warnings.push(
                "a primary that is cut off takes events that are lost later; set min-replicas-to-write 1"
                    .to_owned(),
            );
        }
        Ok(warnings)
    }

    async fn info(&self, section: &str) -> Result<String, Fault> {
        let mut cmd = redis::cmd("INFO");
        cmd.arg(section);
        let answer = self.nodes.run(&self.keys.index(), &cmd, true).await?.value;
        info_text(answer).map_err(|other| Fault::unexpected(&other))
    }

    /// A setting, if the user may read it.
    async fn setting(&self, name: &str) -> Option<String> {
        let mut cmd = redis::cmd("CONFIG");
        cmd.arg("GET").arg(name);
        let answered = self.nodes.run(&self.keys.index(), &cmd, true).await.ok()?;
        redis::from_redis_value::<std::collections::HashMap<String, String>>(answered.value)
            .ok()?
            .remove(name)
    }
}

/// The text of an answer to INFO.
pub(super) fn info_text(answer: Value) -> Result<String, Value> {
    match answer {
        Value::BulkString(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Value::VerbatimString { text, .. } => Ok(text),
        other => Err(other),
    }
}

/// A field of an INFO text.
pub(super) fn field<'t>(info: &'t str, name: &str) -> Option<&'t str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
