//! From protobuf bytes to browser JSON. The same traversal, without output, checks the payloads
//! that the fast check does not accept, and creates the errors.

use super::{
    DEPTH_MAX, PayloadError, SAFE_INTEGER_MAX,
    found::{Found, bytes, check, utf8, wrong_wire_type},
    output::{Canonical, Output},
    shape::{FieldKind, FieldShape, MessageShape, Repetition, Special, Table},
    special::{duration, field_mask, timestamp},
    wire::{Reader, WireError, WireValue},
};

type Result<T> = std::result::Result<T, PayloadError>;

/// Writing to memory or to a sink does not fail.
pub(super) fn io(_: std::io::Error) -> PayloadError {
    PayloadError::new("the JSON could not be written")
}

/// Writes a message.
pub(super) fn message<W: Output>(
    table: &Table,
    index: usize,
    bytes: &[u8],
    out: &mut W,
    depth: usize,
) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(PayloadError::new(format!("messages nest deeper than {DEPTH_MAX}")));
    }
    let shape = &table.messages[index];
    let found = Found::scan(shape, bytes)?;
    if found.hides {
        check(table, index, bytes, depth)?;
    }
    match shape.special {
        Special::None => {
            out.write_all(b"{").map_err(io)?;
            let mut first = true;
            for (i, f) in shape.fields.iter().enumerate() {
                field(table, (i, f), &found, out, depth, &mut first).map_err(|e| e.within(&f.json_name))?;
            }
            out.write_all(b"}").map_err(io)
        }
        Special::Transparent => content(table, (0, &shape.fields[0]), &found, out, depth),
        Special::Value => value(table, shape, &found, out, depth),
        Special::Timestamp => timestamp(&found, out),
        Special::Duration => duration(&found, out),
        Special::FieldMask => field_mask(shape, &found, out),
        Special::Any if out.is_canonical() => any(table, shape, &found, out, depth),
        Special::Any => Err(PayloadError::new("google.protobuf.Any has no browser JSON")),
    }
}

/// An Any for gRPC callers: the fields of its message, after the type's URL as `@type`.
fn any<W: Output>(
    table: &Table,
    shape: &MessageShape,
    found: &Found<'_>,
    out: &mut W,
    depth: usize,
) -> Result<()> {
    let part = |index: usize| found.last(index).unwrap_or(WireValue::Bytes(&[]));
    let (url, value) = (utf8(part(0))?, bytes(part(1))?);
    let index = table.by_name.get(url.rsplit('/').next().unwrap_or_default()).copied();
    let index = index.ok_or_else(|| PayloadError::new(format!("{} of an unknown type", shape.full_name)))?;
    let mut inner = Vec::new();
    message(table, index, value, &mut Canonical(&mut inner), depth + 1)?;
    let url = serde_json::to_string(url).map_err(|e| PayloadError::new(e.to_string()))?;
    write!(out, "{{\"@type\":{url}").map_err(io)?;
    let fields = inner.strip_prefix(b"{").filter(|_| table.messages[index].special == Special::None);
    match fields {
        Some(b"}") => {}
        Some(_) => out.write_all(b",").map_err(io)?,
        None => out.write_all(b",\"value\":").map_err(io)?,
    }
    out.write_all(fields.unwrap_or(&inner)).map_err(io)?;
    if fields.is_none() { out.write_all(b"}").map_err(io) } else { Ok(()) }
}

fn field<W: Output>(
    table: &Table,
    (index, field): (usize, &FieldShape),
    found: &Found<'_>,
    out: &mut W,
    depth: usize,
    first: &mut bool,
) -> Result<()> {
    let present = found.get(index).is_some();
    if !present && field.repetition == (Repetition::Singular { presence: true }) {
        return Ok(());
    }
    if field.internal && !out.is_canonical() {
        // Not visible to browsers, but it must be valid.
        return content(table, (index, field), found, &mut std::io::sink(), depth);
    }
    if !std::mem::replace(first, false) {
        out.write_all(b",").map_err(io)?;
    }
    out.write_all(field.json_key.as_bytes()).map_err(io)?;
    content(table, (index, field), found, out, depth)
}

/// The value of a field that is present or has a default.
fn content<W: Output>(
    table: &Table,
    (index, field): (usize, &FieldShape),
    found: &Found<'_>,
    out: &mut W,
    depth: usize,
) -> Result<()> {
    match (field.repetition, field.kind) {
        (Repetition::Map, FieldKind::Message(entry)) => map(table, (index, field), entry, found, out, depth),
        (Repetition::Map | Repetition::Repeated, _) => list(table, (index, field), found, out, depth),
        (Repetition::Singular { .. }, FieldKind::Message(inner)) => {
            let bytes = found.message(index, field)?.unwrap_or_default();
            message(table, inner, &bytes, out, depth + 1)
        }
        (Repetition::Singular { presence }, kind) => {
            let value = found.last(index).unwrap_or_else(|| default(kind));
            scalar(table, kind, value, !presence, out)
        }
    }
}

fn list<W: Output>(
    table: &Table,
    (index, field): (usize, &FieldShape),
    found: &Found<'_>,
    out: &mut W,
    depth: usize,
) -> Result<()> {
    out.write_all(b"[").map_err(io)?;
    let mut count = 0;
    let mut item = |value: WireValue<'_>, count: &mut usize| -> Result<()> {
        if *count > 0 {
            out.write_all(b",").map_err(io)?;
        }
        let written = match field.kind {
            FieldKind::Message(inner) => bytes(value).and_then(|b| message(table, inner, b, out, depth + 1)),
            kind => scalar(table, kind, value, false, out),
        };
        written.map_err(|e| e.at(*count))?;
        *count += 1;
        Ok(())
    };
    found.each(index, field.number, |value| match (value, packed(field.kind)) {
        (WireValue::Bytes(packed), Some(next)) => unpack(packed, next, |value| item(value, &mut count)),
        _ => item(value, &mut count),
    })?;
    out.write_all(b"]").map_err(io)
}

/// Visits the values of a packed field.
pub(super) fn unpack<'a>(
    packed: &'a [u8],
    next: Next,
    mut visit: impl FnMut(WireValue<'a>) -> Result<()>,
) -> Result<()> {
    let mut reader = Reader::new(packed);
    while !reader.is_done() {
        visit(next(&mut reader)?)?;
    }
    Ok(())
}

pub(super) type Next = for<'a> fn(&mut Reader<'a>) -> std::result::Result<WireValue<'a>, WireError>;

/// How the values of a packed field are read one by one; `None` for kinds that are never packed.
pub(super) fn packed(kind: FieldKind) -> Option<Next> {
    match kind {
        FieldKind::String | FieldKind::Bytes | FieldKind::Message(_) => None,
        FieldKind::Double | FieldKind::Fixed64 { .. } | FieldKind::Sfixed64 { .. } => {
            Some(|r| r.fixed64().map(WireValue::Fixed64))
        }
        FieldKind::Float | FieldKind::Fixed32 | FieldKind::Sfixed32 => {
            Some(|r| r.fixed32().map(WireValue::Fixed32))
        }
        FieldKind::Int32
        | FieldKind::Int64 { .. }
        | FieldKind::Uint32
        | FieldKind::Uint64 { .. }
        | FieldKind::Sint32
        | FieldKind::Sint64 { .. }
        | FieldKind::Bool
        | FieldKind::Enum(_) => Some(|r| r.varint().map(WireValue::Varint)),
    }
}

/// Maps are written in the order of first occurrence; of equal keys the last value counts. An entry
/// is one nesting level, as in protobuf libraries, whose limit is 100.
fn map<W: Output>(
    table: &Table,
    (index, field): (usize, &FieldShape),
    entry_index: usize,
    found: &Found<'_>,
    out: &mut W,
    depth: usize,
) -> Result<()> {
    let entry = &table.messages[entry_index];
    let mut entries: Vec<(String, Found<'_>)> = Vec::new();
    let mut places: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    found.each(index, field.number, |value| {
        let found = Found::scan(entry, bytes(value)?)?;
        if found.hides {
            check(table, entry_index, found.bytes, depth + 1)?;
        }
        let key = map_key(table, entry, &found)?;
        match places.get(&key) {
            Some(place) => {
                let hidden = std::mem::replace(&mut entries[*place].1, found);
                check(table, entry_index, hidden.bytes, depth + 1)?;
            }
            None => {
                places.insert(key.clone(), entries.len());
                entries.push((key, found));
            }
        }
        Ok(())
    })?;
    out.write_all(b"{").map_err(io)?;
    for (place, (key, found)) in entries.iter().enumerate() {
        if place > 0 {
            out.write_all(b",").map_err(io)?;
        }
        serde_json::to_writer(&mut *out, key).map_err(|e| io(e.into()))?;
        out.write_all(b":").map_err(io)?;
        content(table, (1, &entry.fields[1]), found, out, depth + 1).map_err(|e| e.within(key))?;
    }
    out.write_all(b"}").map_err(io)
}

fn map_key(table: &Table, entry: &MessageShape, found: &Found<'_>) -> Result<String> {
    let kind = entry.fields[0].kind;
    let value = found.last(0).unwrap_or_else(|| default(kind));
    if kind == FieldKind::String {
        return utf8(value).map(str::to_owned);
    }
    let mut text = Vec::new();
    scalar(table, kind, value, false, &mut text)?;
    Ok(String::from_utf8_lossy(&text).trim_matches('"').to_owned())
}

pub(super) const fn default(kind: FieldKind) -> WireValue<'static> {
    match kind {
        FieldKind::Double | FieldKind::Fixed64 { .. } | FieldKind::Sfixed64 { .. } => WireValue::Fixed64(0),
        FieldKind::Float | FieldKind::Fixed32 | FieldKind::Sfixed32 => WireValue::Fixed32(0),
        FieldKind::String | FieldKind::Bytes | FieldKind::Message(_) => WireValue::Bytes(b""),
        _ => WireValue::Varint(0),
    }
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// An integer kind's value, as signed or unsigned 64 bits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Integer {
    Signed(i64),
    Unsigned(u64),
}

/// The value of an integer kind; `None` for other kinds. 32-bit kinds use the low bits, as in
/// protobuf.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn integer(kind: FieldKind, value: WireValue<'_>) -> Result<Option<Integer>> {
    use Integer::{Signed, Unsigned};
    use WireValue::{Fixed32, Fixed64, Varint};
    let read = match (kind, value) {
        (FieldKind::Int32, Varint(v)) => Signed(i64::from((v as u32).cast_signed())),
        (FieldKind::Int64 { .. }, Varint(v)) => Signed(v.cast_signed()),
        (FieldKind::Uint32, Varint(v)) => Unsigned(u64::from(v as u32)),
        (FieldKind::Uint64 { .. }, Varint(v)) | (FieldKind::Fixed64 { .. }, Fixed64(v)) => Unsigned(v),
        (FieldKind::Sint32, Varint(v)) => Signed(unzigzag(u64::from(v as u32))),
        (FieldKind::Sint64 { .. }, Varint(v)) => Signed(unzigzag(v)),
        (FieldKind::Fixed32, Fixed32(v)) => Unsigned(u64::from(v)),
        (FieldKind::Sfixed32, Fixed32(v)) => Signed(i64::from(v.cast_signed())),
        (FieldKind::Sfixed64 { .. }, Fixed64(v)) => Signed(v.cast_signed()),
        (
            FieldKind::Double
            | FieldKind::Float
            | FieldKind::Bool
            | FieldKind::String
            | FieldKind::Bytes
            | FieldKind::Enum(_)
            | FieldKind::Message(_),
            _,
        ) => return Ok(None),
        _ => return Err(wrong_wire_type("an integer of the declared kind")),
    };
    Ok(Some(read))
}

/// Refuses integers that a JavaScript number cannot represent.
pub(super) fn check_safe(value: Integer) -> Result<()> {
    let safe = match value {
        Integer::Signed(v) => v.unsigned_abs() <= SAFE_INTEGER_MAX.unsigned_abs(),
        Integer::Unsigned(v) => v <= SAFE_INTEGER_MAX.unsigned_abs(),
    };
    if safe {
        return Ok(());
    }
    let (Integer::Signed(_) | Integer::Unsigned(_)) = value;
    let shown = match value {
        Integer::Signed(v) => v.to_string(),
        Integer::Unsigned(v) => v.to_string(),
    };
    Err(PayloadError::new(format!(
        "{shown} is beyond ±{SAFE_INTEGER_MAX}, which JavaScript numbers hold exactly; declare the field without jstype = JS_NUMBER to send larger values as strings"
    )))
}

const fn is_quoted(kind: FieldKind) -> bool {
    matches!(
        kind,
        FieldKind::Int64 { js_number: false }
            | FieldKind::Uint64 { js_number: false }
            | FieldKind::Sint64 { js_number: false }
            | FieldKind::Fixed64 { js_number: false }
            | FieldKind::Sfixed64 { js_number: false }
    )
}

pub(super) const fn is_js_number(kind: FieldKind) -> bool {
    matches!(
        kind,
        FieldKind::Int64 { js_number: true }
            | FieldKind::Uint64 { js_number: true }
            | FieldKind::Sint64 { js_number: true }
            | FieldKind::Fixed64 { js_number: true }
            | FieldKind::Sfixed64 { js_number: true }
    )
}

fn scalar<W: Output>(
    table: &Table,
    kind: FieldKind,
    value: WireValue<'_>,
    implicit: bool,
    out: &mut W,
) -> Result<()> {
    if let Some(integer) = integer(kind, value)? {
        if is_js_number(kind) {
            check_safe(integer)?;
        }
        let quote = if is_quoted(kind) { "\"" } else { "" };
        return match integer {
            Integer::Signed(v) => write!(out, "{quote}{v}{quote}"),
            Integer::Unsigned(v) => write!(out, "{quote}{v}{quote}"),
        }
        .map_err(io);
    }
    match (kind, value) {
        (FieldKind::Bool, WireValue::Varint(v)) => {
            out.write_all(if v == 0 { b"false" } else { b"true" }).map_err(io)
        }
        (FieldKind::Double, WireValue::Fixed64(v)) => float(f64::from_bits(v), out),
        (FieldKind::Float, WireValue::Fixed32(v)) => {
            let v = f32::from_bits(v);
            if v.is_finite() {
                serde_json::to_writer(out, &v).map_err(|e| io(e.into()))
            } else {
                float(v.into(), out)
            }
        }
        (FieldKind::String, _) => serde_json::to_writer(out, utf8(value)?).map_err(|e| io(e.into())),
        (FieldKind::Bytes, _) => out.write_bytes(bytes(value)?).map_err(io),
        (FieldKind::Enum(index), WireValue::Varint(v)) => enumeration(table, index, v, implicit, out),
        _ => Err(wrong_wire_type("the declared kind")),
    }
}

fn float<W: Output>(value: f64, out: &mut W) -> Result<()> {
    let special = match value {
        v if v.is_nan() => "\"NaN\"",
        f64::INFINITY => "\"Infinity\"",
        f64::NEG_INFINITY => "\"-Infinity\"",
        v => return serde_json::to_writer(out, &v).map_err(|e| io(e.into())),
    };
    out.write_all(special.as_bytes()).map_err(io)
}

/// A number in free JSON: `3` as its sender wrote it, not `3.0`, as long as integers are exact.
#[allow(clippy::cast_possible_truncation)]
fn free_number<W: Output>(value: f64, out: &mut W) -> Result<()> {
    const EXACT_MAX: f64 = (1_u64 << 53) as f64;
    let negative_zero = value == 0.0 && value.is_sign_negative();
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX && !negative_zero {
        return write!(out, "{}", value as i64).map_err(io);
    }
    float(value, out)
}

/// The text of an enum number. Refuses undefined numbers, and an unset field of an enum in which
/// every value has a text.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn enum_text(table: &Table, index: usize, value: u64, implicit: bool) -> Result<&str> {
    let shape = &table.enums[index];
    let number = (value as u32).cast_signed();
    if implicit && number == 0 && shape.zero_is_unset {
        return Err(PayloadError::new(format!("is unset: want one of {}", shape.choices())));
    }
    shape.texts.get(&number).map(String::as_str).ok_or_else(|| {
        let message =
            format!("{number} is not a value of {}: want one of {}", shape.full_name, shape.choices());
        PayloadError::new(message)
    })
}

fn enumeration<W: Output>(
    table: &Table,
    index: usize,
    value: u64,
    implicit: bool,
    out: &mut W,
) -> Result<()> {
    if table.enums[index].is_null {
        return out.write_all(b"null").map_err(io);
    }
    if out.is_canonical() {
        return enum_name(table, index, value, out);
    }
    serde_json::to_writer(out, enum_text(table, index, value, implicit)?).map_err(|e| io(e.into()))
}

/// The protobuf name of an enum number, or the number itself if it has none.
#[allow(clippy::cast_possible_truncation)]
fn enum_name<W: Output>(table: &Table, index: usize, value: u64, out: &mut W) -> Result<()> {
    let number = (value as u32).cast_signed();
    match table.enums[index].names.get(&number) {
        Some(name) => write!(out, "\"{name}\"").map_err(io),
        None => write!(out, "{number}").map_err(io),
    }
}

/// google.protobuf.Value: null 1, number 2, string 3, bool 4, struct 5, list 6.
fn value<W: Output>(
    table: &Table,
    shape: &MessageShape,
    found: &Found<'_>,
    out: &mut W,
    depth: usize,
) -> Result<()> {
    let set = shape.fields.iter().enumerate().find(|(i, _)| found.get(*i).is_some());
    let (index, field) = set.ok_or_else(|| {
        PayloadError::new("a google.protobuf.Value holds nothing; want null_value at least")
    })?;
    match (field.kind, found.last(index)) {
        (FieldKind::Double, Some(WireValue::Fixed64(v))) if !f64::from_bits(v).is_finite() => {
            Err(PayloadError::new("a google.protobuf.Value cannot hold NaN or Infinity"))
        }
        (FieldKind::Double, Some(WireValue::Fixed64(v))) => free_number(f64::from_bits(v), out),
        _ => content(table, (index, field), found, out, depth),
    }
}
