//! Reading a tenant's log.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use fanfare_proto::{
    cursor::{Cursor, Epoch},
    room::Tenant,
};
use redis::Value;

use super::{
    Shared,
    fault::Fault,
    frame::{Frame, Head, epoch, epoch_text, tag, tag_text},
    script,
};

/// Approximate bytes of events and frames per command. Redis serves nothing else during that time,
/// which should stay below a millisecond.
pub(super) const READ_BYTES_MAX: usize = 128 << 10;
const READ_FRAMES_MAX: usize = 128;
/// How long a log without events is stored: its end is still the cursor of readers.
pub(super) const KEPT_EMPTY: Duration = Duration::from_secs(24 * 3600);

/// A consecutive part of a log.
#[derive(Debug)]
pub(super) enum Part {
    /// Frames after a cursor. The first may begin before it.
    Frames { frames: Vec<Frame>, head: Cursor },
    /// The log has a different history, or does not reach back that far.
    Reset(Cursor),
}

impl Shared {
    /// The end of a log. It is read without a write, so that it is available when Redis refuses
    /// writes; if the log does not exist, it is created.
    pub(super) async fn head(&self, tenant: &Tenant) -> Result<Cursor, Fault> {
        let keys = self.keys.log(tenant);
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&keys.meta).arg(&["e", "h", "t"]);
        let mut answered = self.nodes.run(&keys.meta, &cmd, true).await?;
        if matches!(&answered.value, Value::Array(parts) if parts.first() == Some(&Value::Nil)) {
            let arguments = [epoch_text(Epoch::random()), KEPT_EMPTY.as_millis().to_string()];
            let arguments = arguments.each_ref().map(String::as_bytes);
            let names = [keys.meta.as_str(), &keys.log, &keys.state, &keys.state_index, &keys.state_ends];
            answered = self.nodes.script(&script::MAKE, &names, &arguments, true).await?;
        }
        let Value::Array(parts) = &answered.value else { return Err(Fault::unexpected(&answered.value)) };
        cursor(parts).ok_or_else(|| Fault::unexpected(&answered.value))
    }

    /// The cursor at a seq, or at the nearest one that can be read from.
    pub(super) async fn cursor_at(&self, tenant: &Tenant, seq: u64) -> Result<Cursor, Fault> {
        let head = self.head(tenant).await?;
        if seq >= head.seq {
            return Ok(head);
        }
        let log = self.keys.log(tenant).log;
        let mut holder = redis::cmd("XREVRANGE");
        holder.arg(&log).arg(format!("{seq}-0")).arg("-").arg("COUNT").arg(1);
        if let Some(frame) = self.frame_head(&log, &holder, head.epoch).await? {
            let end = frame.first + frame.count - 1;
            return Ok(Cursor { epoch: head.epoch, seq: seq.min(end), tag: frame.tag });
        }
        let mut oldest = redis::cmd("XRANGE");
        oldest.arg(&log).arg("-").arg("+").arg("COUNT").arg(1);
        let oldest = self.frame_head(&log, &oldest, head.epoch).await?;
        Ok(oldest.map_or(head, |frame| Cursor {
            epoch: head.epoch,
            seq: frame.first - 1,
            tag: frame.previous,
        }))
    }

    /// The head of the frame that a command returns, if there is one.
    async fn frame_head(&self, key: &str, cmd: &redis::Cmd, epoch: Epoch) -> Result<Option<Head>, Fault> {
        let value = self.nodes.run(key, cmd, true).await?.value;
        let entries: Vec<(String, HashMap<String, Vec<u8>>)> =
            redis::from_redis_value(value).map_err(|error| Fault::Final(error.to_string()))?;
        let Some((id, fields)) = entries.into_iter().next() else { return Ok(None) };
        let field = |name: &str| std::str::from_utf8(fields.get(name)?).ok();
        let head = || {
            let first = id.split('-').next()?.parse::<u64>().ok().filter(|first| *first > 0)?;
            let count = field("n")?.parse::<u64>().ok().filter(|count| *count > 0)?;
            Some(Head { epoch, first, count, tag: tag(field("t")?)?, previous: tag(field("p")?)? })
        };
        head().map(Some).ok_or_else(|| Fault::unexpected(&Value::Nil))
    }

    /// Extends the expiry of a log without events because it is followed.
    pub(super) async fn keep(&self, tenant: &Tenant) -> Result<(), Fault> {
        let meta = self.keys.log(tenant).meta;
        let millis = u64::try_from(KEPT_EMPTY.as_millis()).unwrap_or(u64::MAX);
        let mut cmd = redis::cmd("PEXPIRE");
        cmd.arg(&meta).arg(millis).arg("XX");
        self.nodes.run(&meta, &cmd, true).await.map(drop)
    }

    /// The frames after a cursor, with about `events_max` events.
    pub(super) async fn read_frames(
        &self,
        tenant: &Tenant,
        after: Cursor,
        events_max: usize,
    ) -> Result<Part, Fault> {
        let keys = self.keys.log(tenant);
        let arguments = [
            after.seq.to_string(),
            tag_text(after.tag),
            epoch_text(after.epoch),
            events_max.to_string(),
            READ_BYTES_MAX.to_string(),
            READ_FRAMES_MAX.to_string(),
        ];
        let arguments = arguments.each_ref().map(String::as_bytes);
        let names = [keys.meta.as_str(), &keys.log];
        let answered = self.nodes.script(&script::READ, &names, &arguments, true).await?;
        let unexpected = || Fault::unexpected(&Value::Nil);
        let Value::Array(parts) = answered.value else { return Err(unexpected()) };
        match parts.first() {
            Some(Value::BulkString(kind)) if kind == b"none" => Ok(Part::Reset(self.head(tenant).await?)),
            Some(Value::BulkString(kind)) if kind == b"reset" => {
                cursor(parts.get(1..).unwrap_or_default()).map(Part::Reset).ok_or_else(unexpected)
            }
            Some(Value::BulkString(kind)) if kind == b"frames" => {
                let head = cursor(parts.get(1..4).unwrap_or_default()).ok_or_else(unexpected)?;
                let frames = parts.into_iter().skip(4).map(|part| frame(part, head.epoch));
                Ok(Part::Frames { frames: frames.collect::<Option<_>>().ok_or_else(unexpected)?, head })
            }
            _ => Err(unexpected()),
        }
    }
}

/// A text in an answer.
pub(super) fn text(value: &Value) -> Option<&str> {
    if let Value::BulkString(bytes) = value { std::str::from_utf8(bytes).ok() } else { None }
}

/// Reads a cursor: epoch, seq and tag.
pub(super) fn cursor(parts: &[Value]) -> Option<Cursor> {
    let [first, second, third] = parts else { return None };
    Some(Cursor { epoch: epoch(text(first)?)?, seq: text(second)?.parse().ok()?, tag: tag(text(third)?)? })
}

/// Reads a frame: first seq, count, tag, previous tag and body.
fn frame(value: Value, epoch: Epoch) -> Option<Frame> {
    let Value::Array(mut parts) = value else { return None };
    let Some(Value::BulkString(body)) = parts.pop() else { return None };
    let [first, count, own, previous] = parts.as_slice() else { return None };
    let head = Head {
        epoch,
        first: text(first)?.parse().ok()?,
        count: text(count)?.parse().ok()?,
        tag: tag(text(own)?)?,
        previous: tag(text(previous)?)?,
    };
    Some(Frame { head, body: Bytes::from(body) })
}
