//! The fast check of a payload. Each message type has a plan: a table, indexed by field number, of
//! the conditions for each value.
//!
//! A plan accepts only payloads that are certainly valid, and records the values of selected fields
//! in the same pass. It leaves all other payloads to the JSON writer: invalid ones, because the
//! writer creates the errors, and valid ones that are unusual, for example because a field occurs
//! twice. Invariant: a plan accepts nothing that the writer refuses.

use super::{
    DEPTH_MAX, FieldPath,
    shape::{EnumShape, FieldKind, FieldShape, MessageShape, Repetition, Special, Table},
    special::{is_duration, is_field_mask_path, is_timestamp},
    wire::{Reader, WireType, WireValue},
    write::{Next, check_safe, default, integer, is_js_number, packed},
};

/// Maximum number of fields whose values one pass can record.
pub(crate) const VALUES_MAX: usize = 8;
/// Maximum number of fields of a message that have a bit. The writer checks payloads with other
/// fields.
const BITS: usize = 64;
/// Field numbers below this are indexes into the table; larger ones are searched.
const DENSE_MAX: u32 = 128;

/// How a message's bytes are checked.
#[derive(Debug)]
pub(super) struct MessagePlan {
    form: Form,
    /// By field number; `None`: no field has the number.
    dense: Vec<Option<FieldPlan>>,
    /// The fields with larger numbers, sorted.
    sparse: Vec<(u32, FieldPlan)>,
    /// The fields that must occur, because their default has no JSON.
    required: u64,
    /// At least one of these fields must occur; 0: none must.
    any_of: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Fields,
    Timestamp,
    Duration,
    /// The writer decides.
    Unusual,
}

#[derive(Debug, Clone, Copy)]
struct FieldPlan {
    check: Check,
    wire_type: WireType,
    /// Reads the next value of a packed field; `None`: the field is not repeated, or never packed.
    packed: Option<Next>,
    bit: u64,
    /// The fields that must not occur before it: itself unless it is repeated, and its oneof.
    excludes: u64,
}

/// The condition for a value, in addition to its wire type.
#[derive(Debug, Clone, Copy)]
enum Check {
    /// Every value is valid.
    Nothing,
    Utf8,
    /// An integer that a JavaScript number holds exactly.
    Safe(FieldKind),
    Finite,
    Enum {
        index: usize,
        /// A bit for each defined enum number from 0 to 63.
        small: u64,
    },
    Message(usize),
    MaskPath,
    /// The writer decides.
    Unusual,
}

/// The value of a selected field.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    /// A message on its path does not occur.
    Unset,
    /// The field does not occur.
    Default,
    /// The field occurs.
    Set(WireValue<'a>),
}

/// The values of the selected fields, in the order of the selection.
pub(crate) type Values<'a> = [Value<'a>; VALUES_MAX];

/// Fields of a message whose values are recorded.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// The bits of all fields below.
    bits: u64,
    /// Selected fields of the message itself, and the indexes of their values.
    values: Vec<(u64, usize)>,
    /// Message fields that contain selected fields.
    inside: Vec<(u64, Self)>,
}

impl Selection {
    /// Selects the last field of each path; all paths start at one message. `None`: there are too
    /// many.
    pub(crate) fn new<'p>(paths: impl IntoIterator<Item = &'p FieldPath>) -> Option<Self> {
        let mut selection = Self::default();
        for (place, path) in paths.into_iter().enumerate() {
            if place >= VALUES_MAX {
                return None;
            }
            selection.add(&path.steps, place);
        }
        Some(selection)
    }

    fn add(&mut self, steps: &[(usize, usize)], place: usize) {
        let [(_, index), rest @ ..] = steps else { return };
        let bit = bit(*index);
        self.bits |= bit;
        if rest.is_empty() {
            self.values.push((bit, place));
            return;
        }
        match self.inside.iter_mut().find(|(own, _)| *own == bit) {
            Some((_, inner)) => inner.add(rest, place),
            None => {
                let mut inner = Self::default();
                inner.add(rest, place);
                self.inside.push((bit, inner));
            }
        }
    }
}

/// The bit of a message's field; 0: it has none.
const fn bit(index: usize) -> u64 {
    if index < BITS { 1 << index } else { 0 }
}

impl MessagePlan {
    pub(super) fn new(shape: &MessageShape, enums: &[EnumShape]) -> Self {
        let mut plan =
            Self { form: form(shape), dense: Vec::new(), sparse: Vec::new(), required: 0, any_of: 0 };
        for (index, field) in shape.fields.iter().enumerate() {
            let own = FieldPlan::new(shape, index, enums);
            if field.number < DENSE_MAX {
                let number = field.number as usize;
                if plan.dense.len() <= number {
                    plan.dense.resize(number + 1, None);
                }
                plan.dense[number] = Some(own);
            } else {
                plan.sparse.push((field.number, own));
            }
            if needs_value(shape, field, enums) {
                plan.required |= own.bit;
                if own.bit == 0 {
                    plan.form = Form::Unusual;
                }
            }
        }
        plan.sparse.sort_unstable_by_key(|(number, _)| *number);
        if shape.special == Special::Value {
            plan.any_of = (0..shape.fields.len()).map(bit).fold(0, |all, bit| all | bit);
        }
        plan
    }

    #[inline]
    fn field(&self, number: u32) -> Option<&FieldPlan> {
        if let Some(field) = self.dense.get(number as usize) {
            return field.as_ref();
        }
        let at = self.sparse.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        Some(&self.sparse[at].1)
    }
}

const fn form(shape: &MessageShape) -> Form {
    match shape.special {
        Special::None | Special::Transparent | Special::Value | Special::FieldMask => Form::Fields,
        Special::Timestamp => Form::Timestamp,
        Special::Duration => Form::Duration,
        Special::Any => Form::Unusual,
    }
}

/// Whether a message without the field has, or may have, no JSON.
fn needs_value(shape: &MessageShape, field: &FieldShape, enums: &[EnumShape]) -> bool {
    match (field.repetition, field.kind) {
        (Repetition::Singular { presence: false }, FieldKind::Enum(index)) => {
            let shape = &enums[index];
            // Zero means "unset", or is not a value.
            !shape.is_null && (shape.zero_is_unset || !shape.texts.contains_key(&0))
        }
        // The default value of a map entry may be invalid.
        (Repetition::Singular { .. }, FieldKind::Message(_) | FieldKind::Enum(_)) => shape.is_entry,
        _ => false,
    }
}

impl FieldPlan {
    fn new(shape: &MessageShape, index: usize, enums: &[EnumShape]) -> Self {
        let field = &shape.fields[index];
        let repeated = !matches!(field.repetition, Repetition::Singular { .. });
        let own = bit(index);
        let mut excludes = if repeated { 0 } else { own };
        for (other, member) in shape.fields.iter().enumerate() {
            if field.oneof.is_some() && member.oneof == field.oneof {
                excludes |= bit(other);
            }
        }
        let check = if own == 0 { Check::Unusual } else { check(shape, field, enums) };
        Self {
            check,
            wire_type: default(field.kind).wire_type(),
            packed: if field.repetition == Repetition::Repeated { packed(field.kind) } else { None },
            bit: own,
            excludes,
        }
    }
}

fn check(shape: &MessageShape, field: &FieldShape, enums: &[EnumShape]) -> Check {
    match field.kind {
        FieldKind::Double if shape.special == Special::Value => Check::Finite,
        FieldKind::String if shape.special == Special::FieldMask => Check::MaskPath,
        FieldKind::String => Check::Utf8,
        FieldKind::Message(inner) => Check::Message(inner),
        FieldKind::Enum(index) if enums[index].is_null => Check::Nothing,
        FieldKind::Enum(index) => {
            let shape = &enums[index];
            let unset = field.repetition == (Repetition::Singular { presence: false }) && shape.zero_is_unset;
            let is_small = |n: &i32| (0..64).contains(n) && !(unset && *n == 0);
            let small = shape.texts.keys().filter(|n| is_small(n)).fold(0, |all, n| all | 1 << n);
            Check::Enum { index, small }
        }
        kind if is_js_number(kind) => Check::Safe(kind),
        _ => Check::Nothing,
    }
}

/// The selected values of a message that is certainly valid. `None`: the writer must check the
/// message.
pub(super) fn accept<'a>(
    table: &Table,
    index: usize,
    bytes: &'a [u8],
    selection: &Selection,
) -> Option<Values<'a>> {
    let mut values = [Value::Unset; VALUES_MAX];
    message(table, index, bytes, 0, Some(selection), &mut values)?;
    Some(values)
}

fn message<'a>(
    table: &Table,
    index: usize,
    bytes: &'a [u8],
    depth: usize,
    selection: Option<&Selection>,
    values: &mut Values<'a>,
) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    let plan = &table.plans[index];
    match plan.form {
        Form::Fields => {}
        Form::Unusual => return None,
        // Selected fields of times are rare; the fast check does not record them.
        Form::Timestamp | Form::Duration if selection.is_some_and(|s| s.bits != 0) => return None,
        Form::Timestamp => return time(bytes).filter(|(s, n)| is_timestamp(*s, *n)).map(drop),
        Form::Duration => return time(bytes).filter(|(s, n)| is_duration(*s, *n)).map(drop),
    }
    for (_, place) in selection.map_or(&[][..], |s| &s.values) {
        values[*place] = Value::Default;
    }
    let selected = selection.map_or(0, |s| s.bits);
    let (mut seen, mut reader) = (0, Reader::new(bytes));
    while !reader.is_done() {
        let (number, value) = reader.field().ok()?;
        let Some(field) = plan.field(number) else { continue };
        if seen & field.excludes != 0 {
            return None;
        }
        seen |= field.bit;
        let mut inner = None;
        if selected & field.bit != 0 {
            let selection = selection?;
            for (_, place) in selection.values.iter().filter(|(bit, _)| *bit == field.bit) {
                values[*place] = Value::Set(value);
            }
            inner = selection.inside.iter().find(|(bit, _)| *bit == field.bit).map(|(_, inner)| inner);
        }
        match (field.check, value) {
            (Check::Message(index), WireValue::Bytes(bytes)) => {
                message(table, index, bytes, depth + 1, inner, values)?;
            }
            (_, WireValue::Bytes(bytes)) if field.packed.is_some() => {
                let (mut reader, next) = (Reader::new(bytes), field.packed?);
                while !reader.is_done() {
                    single(table, field, next(&mut reader).ok()?)?;
                }
            }
            _ => single(table, field, value)?,
        }
    }
    let complete = seen & plan.required == plan.required && (plan.any_of == 0 || seen & plan.any_of != 0);
    complete.then_some(())
}

/// Checks one value that is not a message.
#[inline]
fn single(table: &Table, field: &FieldPlan, value: WireValue<'_>) -> Option<()> {
    if value.wire_type() != field.wire_type {
        return None;
    }
    let is_valid = match (field.check, value) {
        (Check::Nothing, _) => true,
        (Check::Utf8, WireValue::Bytes(bytes)) => std::str::from_utf8(bytes).is_ok(),
        (Check::MaskPath, WireValue::Bytes(bytes)) => {
            std::str::from_utf8(bytes).is_ok_and(is_field_mask_path)
        }
        (Check::Safe(kind), _) => check_safe(integer(kind, value).ok()??).is_ok(),
        (Check::Finite, WireValue::Fixed64(bits)) => f64::from_bits(bits).is_finite(),
        (Check::Enum { index, small }, WireValue::Varint(value)) => is_enum_value(table, index, small, value),
        _ => false,
    };
    is_valid.then_some(())
}

#[allow(clippy::cast_possible_truncation)]
fn is_enum_value(table: &Table, index: usize, small: u64, value: u64) -> bool {
    // Protobuf uses the low 32 bits.
    let number = (value as u32).cast_signed();
    match number {
        0..64 => small >> number & 1 == 1,
        _ => table.enums[index].texts.contains_key(&number),
    }
}

/// The fields 1 (int64 seconds) and 2 (int32 nanos). `None`: one occurs twice, or is invalid.
#[allow(clippy::cast_possible_truncation)]
fn time(bytes: &[u8]) -> Option<(i64, i64)> {
    let (mut seconds, mut nanos) = (None, None);
    let mut reader = Reader::new(bytes);
    while !reader.is_done() {
        match reader.field().ok()? {
            (1, WireValue::Varint(v)) if seconds.is_none() => seconds = Some(v.cast_signed()),
            (2, WireValue::Varint(v)) if nanos.is_none() => nanos = Some(i64::from((v as u32).cast_signed())),
            (1 | 2, _) => return None,
            _ => {}
        }
    }
    Some((seconds.unwrap_or(0), nanos.unwrap_or(0)))
}
