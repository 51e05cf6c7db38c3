//! Records: compare-and-set, expiry by the clock of Redis, and feeds.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use redis::Value;
use tokio::time::Instant;

use super::{
    super::{Feed, FeedSender, Record, Replaced, Replacement, Space, feed},
    Shared,
    fault::Fault,
    keys::SpaceKeys,
    log::text,
    script,
};

/// How often expired records are removed, if any record expires.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);
/// How long the channel may be silent before the newest revision is compared with the received one:
/// messages can be lost without any sign.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Records per read command.
const PAGE: usize = 256;

/// A change as it is announced.
struct Change {
    /// The previous revision of the space.
    previous: u64,
    record: Record,
    expires: bool,
}

/// The newest revision of a space, and its expiry.
struct Newest {
    revision: u64,
    /// The time of Redis.
    millis: u64,
    /// Whether an expired record must still be removed.
    has_expired: bool,
}

/// Sends the changes of a space to a follower.
struct Pump {
    shared: Arc<Shared>,
    keys: SpaceKeys,
    sender: FeedSender<Record>,
    /// The newest revision of the space that was processed.
    revision: u64,
    /// Revisions in the snapshot that are newer than `revision`, by key.
    newer: HashMap<Arc<str>, u64>,
    expires: bool,
}

impl Shared {
    pub(super) async fn record(&self, space: &Space, key: &str) -> Result<Option<Record>, Fault> {
        let keys = self.keys.space(space);
        let answered = self.nodes.script(&script::RECORD, &[&keys.records], &[key.as_bytes()], true).await?;
        match answered.value {
            Value::Nil => Ok(None),
            Value::Array(mut parts) => {
                let value = parts.pop();
                let revision = parts.pop();
                let revision = revision.as_ref().and_then(text).and_then(|text| text.parse().ok());
                match (revision, value) {
                    (Some(revision), Some(Value::BulkString(value))) => {
                        Ok(Some(Record { key: key.into(), value: Some(value.into()), revision }))
                    }
                    _ => Err(Fault::unexpected(&Value::Array(parts))),
                }
            }
            other => Err(Fault::unexpected(&other)),
        }
    }

    pub(super) async fn replace(
        &self,
        space: &Space,
        key: &str,
        replacement: &Replacement,
    ) -> Result<Replaced, Fault> {
        let keys = self.keys.space(space);
        let expected = replacement.expected.to_string();
        let ttl = replacement.ttl.map_or(0, |ttl| ttl.as_millis().max(1)).to_string();
        let (has_value, value) =
            replacement.value.as_ref().map_or((b"0", &[][..]), |value| (b"1", value.as_ref()));
        let arguments = [key.as_bytes(), expected.as_bytes(), has_value, value, ttl.as_bytes()];
        let script = if replacement.value.is_some() { &script::REPLACE } else { &script::REMOVE };
        let answered = self.nodes.script(script, &keys.all(), &arguments, false).await?;
        let revision = match &answered.value {
            Value::Nil => return Ok(Replaced::Conflict),
            value => {
                text(value).and_then(|text| text.parse().ok()).ok_or_else(|| Fault::unexpected(value))?
            }
        };
        self.nodes.acknowledged(&answered, || keys.mark()).await?;
        Ok(Replaced::Revision(revision))
    }

    pub(super) async fn records(
        self: &Arc<Self>,
        space: &Space,
    ) -> Result<(Vec<Record>, Feed<Record>), Fault> {
        let keys = self.keys.space(space);
        let messages = self.nodes.subscribe(&keys.channel).await?;
        let Newest { revision, millis, .. } = self.newest(&keys).await?;
        let (records, expires) = self.snapshot(&keys, millis).await?;
        let newer = records.values().filter(|record| record.revision > revision);
        let newer = newer.map(|record| (record.key.clone(), record.revision)).collect();
        let (sender, feed) = feed();
        let pump = Pump { shared: self.clone(), keys, sender, revision, newer, expires };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = pump.run(messages) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok((records.into_values().collect(), feed))
    }

    /// All records of a space that have not expired, read in pages, and whether one expires.
    /// `millis` is the current time of Redis.
    async fn snapshot(
        &self,
        keys: &SpaceKeys,
        millis: u64,
    ) -> Result<(HashMap<Arc<str>, Record>, bool), Fault> {
        let start = Instant::now();
        let (mut records, mut expires, mut cursor) =
            (HashMap::<Arc<str>, Record>::new(), false, "0".to_owned());
        loop {
            let mut cmd = redis::cmd("HSCAN");
            cmd.arg(&keys.records).arg(&cursor).arg("COUNT").arg(PAGE);
            let answered = self.nodes.run(&keys.records, &cmd, true).await?;
            let unexpected = || Fault::unexpected(&Value::Nil);
            let Value::Array(parts) = answered.value else { return Err(unexpected()) };
            let [next, Value::Array(fields)] = parts.as_slice() else { return Err(unexpected()) };
            for pair in fields.chunks_exact(2) {
                let [name, Value::BulkString(held)] = pair else { return Err(unexpected()) };
                let key: Arc<str> = text(name).ok_or_else(unexpected)?.into();
                let (revision, expiry, value) = held_record(held).ok_or_else(unexpected)?;
                expires |= expiry > 0;
                let elapsed = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                if (1..=millis.saturating_add(elapsed)).contains(&expiry) {
                    records.remove(&key);
                    continue;
                }
                let record = Record { key: key.clone(), value: Some(value), revision };
                // A page may repeat a record; the later page has the newer value.
                records.insert(key, record);
            }
            text(next).ok_or_else(unexpected)?.clone_into(&mut cursor);
            if cursor == "0" {
                return Ok((records, expires));
            }
        }
    }

    /// The newest revision of a space. It is read without a write, so that records can be followed
    /// when Redis refuses writes.
    async fn newest(&self, keys: &SpaceKeys) -> Result<Newest, Fault> {
        let names = [keys.expiries.as_str(), &keys.revision];
        let answered = self.nodes.script(&script::NEWEST, &names, &[], true).await?;
        let number = |part: &Value| text(part)?.parse::<u64>().ok();
        let newest = match &answered.value {
            Value::Array(parts) => match parts.as_slice() {
                [revision, millis, expired] => number(revision).zip(number(millis)).zip(number(expired)),
                _ => None,
            },
            _ => None,
        };
        let ((revision, millis), expired) = newest.ok_or_else(|| Fault::unexpected(&answered.value))?;
        Ok(Newest { revision, millis, has_expired: expired > 0 })
    }

    /// Removes expired records. Returns the newest revision of the space.
    async fn expire(&self, keys: &SpaceKeys) -> Result<u64, Fault> {
        let answered = self.nodes.script(&script::EXPIRE, &keys.all(), &[], true).await?;
        let revision = text(&answered.value).and_then(|text| text.parse().ok());
        revision.ok_or_else(|| Fault::unexpected(&answered.value))
    }
}

impl Pump {
    /// Runs until a change may have been missed.
    async fn run(mut self, mut messages: Feed<Bytes>) {
        let mut checked_at = Instant::now();
        let mut is_behind = false;
        loop {
            let wait = if self.expires || is_behind { EXPIRY_INTERVAL } else { SILENCE_MAX };
            tokio::select! {
                arrived = messages.next() => {
                    let Some(arrived) = arrived else { return };
                    for message in arrived {
                        if !self.take(&message) {
                            return;
                        }
                    }
                }
                () = tokio::time::sleep_until(checked_at + wait) => {
                    checked_at = Instant::now();
                    if self.sender.is_closed() {
                        return;
                    }
                    // While Redis cannot be reached, the subscription reports its own loss.
                    let Ok(newest) = self.newest().await else { continue };
                    // The message about the newest change should have arrived by now.
                    let was_behind = std::mem::replace(&mut is_behind, newest != self.revision);
                    if was_behind && is_behind {
                        if messages_are_lost(&mut self, &mut messages).await {
                            return;
                        }
                        is_behind = newest != self.revision;
                    }
                }
            }
        }
    }

    /// The newest revision of the space, after removing expired records.
    async fn newest(&self) -> Result<u64, Fault> {
        let newest = self.shared.newest(&self.keys).await?;
        if newest.has_expired {
            let expired = self.shared.expire(&self.keys);
            // If Redis refuses writes, expired records are removed later; readers do not see them.
            if let Ok(Ok(revision)) = tokio::time::timeout(EXPIRY_INTERVAL, expired).await {
                return Ok(revision);
            }
        }
        Ok(newest.revision)
    }

    /// Processes an announcement; false if an earlier change is missing.
    fn take(&mut self, message: &Bytes) -> bool {
        let Some(change) = change(message) else { return false };
        let Change { previous, record, expires } = change;
        if record.revision <= self.revision {
            return true;
        }
        if previous != self.revision {
            return false;
        }
        self.revision = record.revision;
        self.expires |= expires;
        if self.newer.get(&record.key).is_some_and(|seen| record.revision <= *seen) {
            return true;
        }
        self.newer.remove(&record.key);
        let bytes = record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
        self.sender.send(record, bytes)
    }
}

/// Processes the next messages. True if none arrive in time, or if a change before them is missing.
async fn messages_are_lost(pump: &mut Pump, messages: &mut Feed<Bytes>) -> bool {
    match tokio::time::timeout(EXPIRY_INTERVAL, messages.next()).await {
        Ok(Some(arrived)) => !arrived.iter().all(|message| pump.take(message)),
        _ => true,
    }
}

/// Reads a stored record: revision, expiry, value.
fn held_record(held: &[u8]) -> Option<(u64, u64, Bytes)> {
    let mut parts = held.splitn(3, |byte| *byte == b' ');
    let number = |part: &[u8]| std::str::from_utf8(part).ok()?.parse().ok();
    Some((number(parts.next()?)?, number(parts.next()?)?, Bytes::copy_from_slice(parts.next()?)))
}

fn change(message: &Bytes) -> Option<Change> {
    let end = message.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(message.get(..end)?).ok()?.split(' ');
    let (previous, revision) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (expires, has_value) = (words.next()? != "0", words.next()? == "1");
    let key_end = end.checked_add(1)?.checked_add(words.next()?.parse().ok()?)?;
    let key = std::str::from_utf8(message.get(end + 1..key_end)?).ok()?.into();
    let value = has_value.then(|| message.slice(key_end..));
    Some(Change { previous, record: Record { key, value, revision }, expires })
}
