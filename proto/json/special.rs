//! Messages with a JSON form of their own: times, durations, field masks.

use std::io::Write;

use chrono::{DateTime, SecondsFormat};

use super::{
    PayloadError,
    found::{Found, utf8},
    shape::{FieldKind, MessageShape},
    write::{Integer, integer, io},
};

type Result<T> = std::result::Result<T, PayloadError>;

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z in Unix seconds (google/protobuf/timestamp.proto).
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// ±10,000 years (google/protobuf/duration.proto).
const DURATION_SECONDS_MAX: u64 = 315_576_000_000;

/// The fields 1 (int64 seconds) and 2 (int32 nanos).
fn seconds_and_nanos(found: &Found<'_>) -> Result<(i64, i64)> {
    let part = |index, kind| match found.last(index).map(|v| integer(kind, v)).transpose()?.flatten() {
        Some(Integer::Signed(v)) => Ok(v),
        _ => Ok(0),
    };
    Ok((part(0, FieldKind::Int64 { js_number: false })?, part(1, FieldKind::Int32)?))
}

pub(super) fn timestamp<W: Write>(found: &Found<'_>, out: &mut W) -> Result<()> {
    let (seconds, nanos) = seconds_and_nanos(found)?;
    let time = u32::try_from(nanos)
        .ok()
        .filter(|n| *n < 1_000_000_000 && TIMESTAMP_SECONDS.contains(&seconds))
        .and_then(|nanos| DateTime::from_timestamp(seconds, nanos));
    let time = time.ok_or_else(|| {
        PayloadError::new(format!(
            "{seconds} seconds and {nanos} nanoseconds are no time: want years 1 to 9999 and nanoseconds from 0 to 999999999"
        ))
    })?;
    write!(out, "\"{}\"", time.to_rfc3339_opts(SecondsFormat::Millis, true)).map_err(io)
}

pub(super) fn duration<W: Write>(found: &Found<'_>, out: &mut W) -> Result<()> {
    let (seconds, nanos) = seconds_and_nanos(found)?;
    let mixed = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
    if mixed || nanos.abs() > 999_999_999 || seconds.unsigned_abs() > DURATION_SECONDS_MAX {
        return Err(PayloadError::new(format!("{seconds} seconds and {nanos} nanoseconds are no duration")));
    }
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let (seconds, nanos) = (seconds.unsigned_abs(), nanos.unsigned_abs());
    if nanos == 0 {
        return write!(out, "\"{sign}{seconds}s\"").map_err(io);
    }
    let fraction = format!("{nanos:09}");
    // 3, 6 or 9 digits.
    let digits = if nanos.is_multiple_of(1_000_000) {
        3
    } else if nanos.is_multiple_of(1000) {
        6
    } else {
        9
    };
    write!(out, "\"{sign}{seconds}.{}s\"", &fraction[..digits]).map_err(io)
}

pub(super) fn field_mask<W: Write>(shape: &MessageShape, found: &Found<'_>, out: &mut W) -> Result<()> {
    let mut paths: Vec<String> = Vec::new();
    found.each(0, shape.fields[0].number, |value| {
        let mut path = String::new();
        let mut upper = false;
        for c in utf8(value)?.chars() {
            match c {
                '_' => upper = true,
                c if upper => {
                    path.extend(c.to_uppercase());
                    upper = false;
                }
                c => path.push(c),
            }
        }
        paths.push(path);
        Ok(())
    })?;
    serde_json::to_writer(out, &paths.join(",")).map_err(|e| io(e.into()))
}
