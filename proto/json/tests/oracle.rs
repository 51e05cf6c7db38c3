//! Messages created by prost-reflect, so that the bytes do not come from the code under test.

use prost_reflect::{
    EnumValueDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
};
use serde::Serialize as _;

use super::*;

/// Random choices. When they run out, every choice is zero, so that messages end.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl Choices<'_> {
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u64 {
        // Small numbers, the ends of ranges, and values between.
        let shift = u32::from(self.byte()) % 64;
        let word = u64::from_le_bytes(std::array::from_fn(|_| self.byte())) >> shift;
        if self.byte() & 1 == 0 { word } else { word.wrapping_neg() }
    }

    fn text(&mut self) -> String {
        (0..self.byte() % 6)
            .map(|_| ['a', '"', '\\', '\u{1}', '\u{2028}', 'é', '𝄞', '<'][usize::from(self.byte() % 8)])
            .collect()
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    fn double(&mut self) -> f64 {
        let value = f64::from_bits(self.word());
        if value.is_nan() { f64::INFINITY } else { value }
    }
}

/// Whether times have nanoseconds or only the precision that browsers see.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Times {
    Exact,
    Milliseconds,
}

#[allow(clippy::cast_possible_wrap)]
fn special(message: &mut DynamicMessage, choices: &mut Choices<'_>, times: Times) -> bool {
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => {
            message.set_field_by_name(
                "seconds",
                Value::I64(choices.below(315_537_897_600) as i64 - 62_135_596_800),
            );
            let nanos = choices.below(1_000_000_000) as i32;
            let nanos = if times == Times::Exact { nanos } else { nanos / 1_000_000 * 1_000_000 };
            message.set_field_by_name("nanos", Value::I32(nanos));
        }
        "google.protobuf.Duration" => {
            let sign = if choices.byte() & 1 == 0 { 1 } else { -1 };
            message.set_field_by_name("seconds", Value::I64(sign * choices.below(315_576_000_000) as i64));
            message.set_field_by_name("nanos", Value::I32(sign as i32 * choices.below(1_000_000_000) as i32));
        }
        "google.protobuf.FieldMask" => {
            let paths = (0..choices.byte() % 3)
                .map(|_| Value::String(["a", "b_c.d", "e1_f"][usize::from(choices.byte() % 3)].into()));
            message.set_field_by_name("paths", Value::List(paths.collect()));
        }
        "google.protobuf.Value" => {
            let kind = message.descriptor().fields().nth(usize::from(choices.byte() % 6)).unwrap();
            let value = match kind.kind() {
                Kind::Double => Value::F64(Some(choices.double()).filter(|v| v.is_finite()).unwrap_or(1e-7)),
                Kind::Enum(_) => Value::EnumNumber(0),
                _ => value(&kind, choices, 1, times),
            };
            message.set_field(&kind, value);
        }
        // prost-reflect writes infinity as null.
        "google.protobuf.DoubleValue" => {
            let value = Some(choices.double()).filter(|v| v.is_finite());
            message.set_field_by_name("value", Value::F64(value.unwrap_or(1e300)));
        }
        _ => return false,
    }
    true
}

pub(crate) fn random(
    descriptor: MessageDescriptor,
    choices: &mut Choices<'_>,
    depth: usize,
    times: Times,
) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    if special(&mut message, choices, times) {
        return message;
    }
    for field in descriptor.fields() {
        let is_deep = depth > 6 && matches!(field.kind(), Kind::Message(_));
        // An enum whose zero means "unset" has no default that browsers can see.
        let has_default = field.supports_presence() || field.is_list() || unset(&field).is_none();
        if has_default && (choices.byte() % 3 != 1 || is_deep) {
            continue;
        }
        let count = usize::from(choices.byte() % 4);
        let value = if field.is_map() {
            let Kind::Message(entry) = field.kind() else { unreachable!() };
            let pairs = (0..count).map(|_| {
                let key = key(&entry.map_entry_key_field(), choices);
                (key, value(&entry.map_entry_value_field(), choices, depth + 1, times))
            });
            Value::Map(pairs.collect())
        } else if field.is_list() {
            Value::List((0..count).map(|_| value(&field, choices, depth + 1, times)).collect())
        } else {
            value(&field, choices, depth + 1, times)
        };
        message.set_field(&field, value);
    }
    message
}

/// The value of an enum field that means "unset".
fn unset(field: &FieldDescriptor) -> Option<EnumValueDescriptor> {
    let Kind::Enum(kind) = field.kind() else { return None };
    kind.get_value(0).filter(|zero| zero.name().ends_with("_UNSPECIFIED"))
}

pub(super) fn key(field: &FieldDescriptor, choices: &mut Choices<'_>) -> MapKey {
    match field.kind() {
        Kind::Bool => MapKey::Bool(choices.byte() & 1 == 0),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(choices.word() as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(choices.word().cast_signed()),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(choices.word() as u32),
        Kind::Uint64 | Kind::Fixed64 => MapKey::U64(choices.word()),
        _ => MapKey::String(choices.text()),
    }
}

#[allow(clippy::cast_possible_wrap)]
fn value(field: &FieldDescriptor, choices: &mut Choices<'_>, depth: usize, times: Times) -> Value {
    let jstype = field.options().get_field_by_name("jstype").and_then(|v| v.as_enum_number());
    let js_number = jstype == Some(2);
    match field.kind() {
        Kind::Double => Value::F64(choices.double()),
        Kind::Float => {
            let value = f32::from_bits(choices.word() as u32);
            Value::F32(if value.is_nan() { f32::NEG_INFINITY } else { value })
        }
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(choices.word() as i32),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(choices.word() as u32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 if js_number => {
            Value::I64((choices.word() as i64).clamp(-SAFE_INTEGER_MAX, SAFE_INTEGER_MAX))
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(choices.word() as i64),
        Kind::Uint64 | Kind::Fixed64 if js_number => Value::U64(choices.below(1 << 53)),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(choices.word()),
        Kind::Bool => Value::Bool(choices.byte() & 1 == 0),
        Kind::String => Value::String(choices.text()),
        Kind::Bytes => {
            Value::Bytes((0..choices.byte() % 9).map(|_| choices.byte()).collect::<Vec<_>>().into())
        }
        Kind::Enum(kind) => {
            let unset = unset(field);
            let numbers: Vec<i32> =
                kind.values().filter(|v| Some(v) != unset.as_ref()).map(|v| v.number()).collect();
            Value::EnumNumber(numbers[usize::from(choices.byte()) % numbers.len()])
        }
        Kind::Message(kind) => Value::Message(random(kind, choices, depth, times)),
    }
}

/// Whether two messages are equal in protobuf: without presence, a default equals an absent value.
fn same(a: &DynamicMessage, b: &DynamicMessage) -> bool {
    let plain = |m: &DynamicMessage| m.serialize(serde_json::value::Serializer).unwrap();
    plain(a) == plain(b)
}

fn descriptor(name: &str) -> MessageDescriptor {
    pool().get_message_by_name(name).unwrap()
}

fn decode(name: &str, bytes: &[u8]) -> Result<DynamicMessage, prost::DecodeError> {
    DynamicMessage::decode(descriptor(name), bytes)
}

/// One modification that a hostile or faulty producer may make.
pub(super) fn mutate(bytes: &mut Vec<u8>, (kind, at, byte): &(u8, prop::sample::Index, u8)) {
    if bytes.is_empty() {
        return bytes.push(*byte);
    }
    let at = at.index(bytes.len());
    match kind % 4 {
        0 => bytes[at] = *byte,
        1 => bytes.insert(at, *byte),
        2 => bytes.truncate(at),
        _ => {
            bytes.remove(at);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_written_is_read_back_as_the_same_message(choices in prop::collection::vec(any::<u8>(), 0..900)) {
        for name in ["t.All", "t.Ours", "t.Raw"] {
            let sent = random(descriptor(name), &mut Choices(&choices), 0, Times::Exact).encode_to_vec();
            let seen = random(descriptor(name), &mut Choices(&choices), 0, Times::Milliseconds);
            prop_assert_eq!(shape(name).validate(&sent), Ok(()));
            let json = json_of(name, &sent).unwrap();
            let read = shape(name).read_json(json.as_bytes()).unwrap();
            // Internal fields are never visible.
            let mut seen = seen;
            if name == "t.Ours" { forget_secrets(&mut seen); }
            prop_assert!(same(&decode(name, &read).unwrap(), &seen), "{}", json);
            prop_assert_eq!(shape(name).validate(&read), Ok(()));
        }
    }

    #[test]
    fn what_is_written_is_what_the_oracle_writes(choices in prop::collection::vec(any::<u8>(), 0..900)) {
        for name in ["t.All", "t.Raw"] {
            let message = random(descriptor(name), &mut Choices(&choices), 0, Times::Exact);
            let ours = json_of(name, &message.encode_to_vec()).unwrap();
            // Converted through text, because a serde_json::Value would widen floats.
            let mut theirs = Vec::new();
            let options = SerializeOptions::new().skip_default_fields(false);
            message.serialize_with_options(&mut serde_json::Serializer::new(&mut theirs), &options).unwrap();
            let parsed: serde_json::Value = serde_json::from_slice(&theirs).unwrap();
            prop_assert_eq!(comparable(serde_json::from_str(&ours).unwrap()), comparable(parsed));
            // The oracle's JSON is also read as the message.
            let read = shape(name).read_json(&theirs).unwrap();
            prop_assert!(same(&decode(name, &read).unwrap(), &message));
        }
    }

    #[test]
    fn bytes_without_rules_for_values_are_valid_exactly_when_the_oracle_reads_them(
        choices in prop::collection::vec(any::<u8>(), 0..300),
        more in prop::collection::vec(any::<u8>(), 0..300),
        edits in prop::collection::vec((any::<u8>(), any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        // Two concatenated messages merge, which overwrites and joins fields.
        for name in ["t.Raw", "t.Bare"] {
            let mut bytes = random(descriptor(name), &mut Choices(&choices), 0, Times::Exact).encode_to_vec();
            bytes.extend(random(descriptor(name), &mut Choices(&more), 0, Times::Exact).encode_to_vec());
            let merged = json_of(name, &bytes).unwrap();
            let read = shape(name).read_json(merged.as_bytes()).unwrap();
            prop_assert!(same(&decode(name, &read).unwrap(), &decode(name, &bytes).unwrap()), "{}", merged);
            for edit in &edits {
                mutate(&mut bytes, edit);
            }
            let (valid, decoded) = (shape(name).validate(&bytes), decode(name, &bytes));
            // Our code refuses groups, known or not; prost-reflect accepts a map of any wire type.
            let is_group = valid.as_ref().is_err_and(|e| e.message.contains("has wire type"));
            let is_stricter = is_group || name == "t.Raw";
            prop_assert!(decoded.is_ok() || valid.is_err(), "{:?}: {:02x?}", decoded.err(), bytes);
            prop_assert!(valid.is_ok() || decoded.is_err() || is_stricter, "{:?}: {:02x?}", valid, bytes);
            let mut out = Vec::new();
            prop_assert_eq!(&shape(name).write_json(&bytes, &mut out), &valid);
            if valid.is_ok() {
                // Compared as text, because NaN equals nothing.
                let read = shape(name).read_json(&out).unwrap();
                let again = json_of(name, &read).unwrap();
                prop_assert_eq!(again.as_bytes(), out);
            }
        }
    }

    #[test]
    fn any_edit_of_valid_json_is_judged_without_panic(
        value in all(),
        edits in prop::collection::vec((any::<u8>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut json = value.to_string().into_bytes();
        for edit in &edits {
            mutate(&mut json, edit);
        }
        if let Ok(bytes) = shape("t.All").read_json(&json) {
            prop_assert_eq!(shape("t.All").validate(&bytes), Ok(()));
        }
    }
}

fn forget_secrets(message: &mut DynamicMessage) {
    message.clear_field_by_name("secret");
    let Some(Value::List(more)) = message.get_field_by_name_mut("more") else { return };
    for inner in more {
        if let Value::Message(inner) = inner {
            forget_secrets(inner);
        }
    }
}
