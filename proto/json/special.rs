//! Messages with a special JSON form, in both directions: times, durations, field masks.

use std::io::Write;

use chrono::{DateTime, SecondsFormat};

use super::{
    NAME_CHARS_MAX, PayloadError,
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
    let part = |index, kind| {
        let read = found.last(index).map(|v| integer(kind, v)).transpose()?;
        Ok::<_, PayloadError>(match read.flatten() {
            Some(Integer::Signed(v)) => v,
            _ => 0,
        })
    };
    Ok((part(0, FieldKind::Int64 { js_number: false })?, part(1, FieldKind::Int32)?))
}

/// Whether a `google.protobuf.Timestamp` is valid.
pub(super) fn is_timestamp(seconds: i64, nanos: i64) -> bool {
    TIMESTAMP_SECONDS.contains(&seconds) && (0..1_000_000_000).contains(&nanos)
}

/// Whether a `google.protobuf.Duration` is valid.
pub(super) const fn is_duration(seconds: i64, nanos: i64) -> bool {
    let mixed = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
    !mixed && nanos.unsigned_abs() < 1_000_000_000 && seconds.unsigned_abs() <= DURATION_SECONDS_MAX
}

pub(super) fn timestamp<W: Write>(found: &Found<'_>, out: &mut W) -> Result<()> {
    let (seconds, nanos) = seconds_and_nanos(found)?;
    let time = u32::try_from(nanos)
        .ok()
        .filter(|_| is_timestamp(seconds, nanos))
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
    if !is_duration(seconds, nanos) {
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

/// Whether a path of a `google.protobuf.FieldMask` survives the round trip through JSON.
pub(super) fn is_field_mask_path(path: &str) -> bool {
    !path.is_empty() && !path.contains(',') && snake(&camel(path)) == path
}

pub(super) fn field_mask<W: Write>(shape: &MessageShape, found: &Found<'_>, out: &mut W) -> Result<()> {
    let mut paths: Vec<String> = Vec::new();
    found.each(0, shape.fields[0].number, |value| {
        let path = utf8(value)?;
        if !is_field_mask_path(path) {
            let shown: String = path.chars().take(NAME_CHARS_MAX).collect();
            return Err(PayloadError::new(format!(
                "the path {shown:?} has no browser JSON: want names in lower_snake_case"
            )));
        }
        paths.push(camel(path));
        Ok(())
    })?;
    serde_json::to_writer(out, &paths.join(",")).map_err(|e| io(e.into()))
}

fn camel(path: &str) -> String {
    let (mut out, mut upper) = (String::with_capacity(path.len()), false);
    for c in path.chars() {
        match c {
            '_' => upper = true,
            c => out.push(if std::mem::take(&mut upper) { c.to_ascii_uppercase() } else { c }),
        }
    }
    out
}

/// The names of a field mask in protobuf form.
pub(super) fn snake(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 4);
    for c in path.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Seconds and nanoseconds of an RFC 3339 text; a leap second becomes the last nanosecond before
/// it.
pub(super) fn read_timestamp(text: &str) -> Option<(i64, i64)> {
    let date_time = text.as_bytes().get(10).filter(|c| c.eq_ignore_ascii_case(&b'T'));
    let fraction = text.get(19..)?.strip_prefix('.').unwrap_or_default();
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    date_time.filter(|_| digits <= 9)?;
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    let seconds = Some(time.timestamp()).filter(|s| TIMESTAMP_SECONDS.contains(s))?;
    Some((seconds, i64::from(time.timestamp_subsec_nanos().min(999_999_999))))
}

/// Seconds and nanoseconds of a text such as `-1.5s`.
pub(super) fn read_duration(text: &str) -> Option<(i64, i64)> {
    let number = text.strip_suffix('s')?;
    let (sign, number) = number.strip_prefix('-').map_or((1, number), |rest| (-1, rest));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 || number.ends_with('.')
    {
        return None;
    }
    let seconds: i64 = whole.parse().ok().filter(|s: &i64| s.unsigned_abs() <= DURATION_SECONDS_MAX)?;
    let nanos: i64 = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").parse().ok()? };
    Some((sign * seconds, sign * nanos))
}
