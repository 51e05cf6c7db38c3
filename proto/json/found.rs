//! Locates the fields of a message in its bytes in one pass.

use std::borrow::Cow;

use super::{
    DEPTH_MAX, PayloadError,
    shape::{FieldKind, FieldShape, MessageShape, Repetition, Table},
    wire::{Reader, WireValue},
    write::{default, packed, unpack},
};

type Result<T> = std::result::Result<T, PayloadError>;

/// One field's occurrences in the bytes.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    count: usize,
    /// The offset of the first occurrence that counts.
    start: usize,
    last: WireValue<'a>,
}

/// The location of each field of a message in its bytes. Small messages need no allocation.
pub(super) struct Found<'a> {
    pub(super) bytes: &'a [u8],
    few: [Option<Slot<'a>>; Found::FEW],
    many: Vec<Option<Slot<'a>>>,
    /// Whether a value was overwritten or merged, so that not all bytes will be examined.
    pub(super) hides: bool,
}

impl<'a> Found<'a> {
    const FEW: usize = 16;

    /// Scans the bytes once. Of several members of a oneof, the last one counts.
    pub(super) fn scan(shape: &MessageShape, bytes: &'a [u8]) -> Result<Self> {
        let many = if shape.fields.len() > Self::FEW { vec![None; shape.fields.len()] } else { Vec::new() };
        let mut found = Self { bytes, few: [None; Self::FEW], many, hides: false };
        let mut members = if shape.oneofs > 0 { vec![None; shape.oneofs] } else { Vec::new() };
        let mut reader = Reader::new(bytes);
        while !reader.is_done() {
            let start = reader.offset();
            let (number, value) = reader.field()?;
            let Some(index) = shape.by_number(number) else { continue };
            let field = &shape.fields[index];
            fits(field, value).map_err(|e| e.within(&field.json_name))?;
            if let Some(oneof) = field.oneof {
                match members[oneof].replace(index) {
                    Some(other) if other != index => {
                        *found.slot(other) = None;
                        found.hides = true;
                    }
                    _ => {}
                }
            }
            if matches!(field.repetition, Repetition::Singular { .. }) && found.get(index).is_some() {
                found.hides = true;
            }
            let slot = found.slot(index);
            *slot = Some(match slot {
                None => Slot { count: 1, start, last: value },
                Some(slot) => Slot { count: slot.count + 1, start: slot.start, last: value },
            });
        }
        Ok(found)
    }

    fn slot(&mut self, index: usize) -> &mut Option<Slot<'a>> {
        if self.many.is_empty() { &mut self.few[index] } else { &mut self.many[index] }
    }

    pub(super) fn get(&self, index: usize) -> Option<Slot<'a>> {
        if self.many.is_empty() { self.few[index] } else { self.many[index] }
    }

    /// The last occurrence of a scalar.
    pub(super) fn last(&self, index: usize) -> Option<WireValue<'a>> {
        self.get(index).map(|slot| slot.last)
    }

    /// All occurrences, in order.
    pub(super) fn each(
        &self,
        index: usize,
        number: u32,
        mut visit: impl FnMut(WireValue<'a>) -> Result<()>,
    ) -> Result<()> {
        let Some(slot) = self.get(index) else { return Ok(()) };
        if slot.count == 1 {
            return visit(slot.last);
        }
        let mut reader = Reader::new(&self.bytes[slot.start..]);
        while !reader.is_done() {
            let (found, value) = reader.field()?;
            if found == number {
                visit(value)?;
            }
        }
        Ok(())
    }

    /// The bytes of a message field; several occurrences are merged, which means concatenating
    /// their bytes.
    pub(super) fn message(&self, index: usize, field: &FieldShape) -> Result<Option<Cow<'a, [u8]>>> {
        let Some(slot) = self.get(index) else { return Ok(None) };
        if slot.count == 1 {
            return bytes(slot.last).map(|b| Some(b.into()));
        }
        let mut merged = Vec::new();
        self.each(index, field.number, |value| {
            merged.extend_from_slice(bytes(value)?);
            Ok(())
        })?;
        Ok(Some(merged.into()))
    }
}

/// Checks that a value's wire type is valid for the field.
fn fits(field: &FieldShape, value: WireValue<'_>) -> Result<()> {
    let own = value.wire_type() == default(field.kind).wire_type();
    let packed = field.repetition == Repetition::Repeated && packed(field.kind).is_some();
    if own || (packed && matches!(value, WireValue::Bytes(_))) {
        return Ok(());
    }
    Err(wrong_wire_type("the declared type"))
}

/// Checks all bytes, including overwritten and merged values, because any protobuf library must be
/// able to read them.
pub(super) fn check(table: &Table, index: usize, bytes: &[u8], depth: usize) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(PayloadError::new(format!("messages nest deeper than {DEPTH_MAX}")));
    }
    let shape = &table.messages[index];
    let mut reader = Reader::new(bytes);
    while !reader.is_done() {
        let (number, value) = reader.field()?;
        let Some(field) = shape.by_number(number).map(|at| &shape.fields[at]) else { continue };
        let checked = fits(field, value).and_then(|()| match (field.kind, value) {
            (FieldKind::String, _) => utf8(value).map(drop),
            (FieldKind::Message(inner), WireValue::Bytes(bytes)) => check(table, inner, bytes, depth + 1),
            (kind, WireValue::Bytes(bytes)) => match packed(kind) {
                Some(next) => unpack(bytes, next, |_| Ok(())),
                None => Ok(()),
            },
            _ => Ok(()),
        });
        checked.map_err(|e| e.within(&field.json_name))?;
    }
    Ok(())
}

pub(super) fn wrong_wire_type(wanted: &str) -> PayloadError {
    PayloadError::new(format!("not valid protobuf: the wire type is not that of {wanted}"))
}

pub(super) fn bytes(value: WireValue<'_>) -> Result<&[u8]> {
    match value {
        WireValue::Bytes(bytes) => Ok(bytes),
        _ => Err(wrong_wire_type("a string, bytes or message")),
    }
}

/// A string field's text.
pub(super) fn utf8(value: WireValue<'_>) -> Result<&str> {
    std::str::from_utf8(bytes(value)?).map_err(|_| PayloadError::new("the string is not UTF-8"))
}
