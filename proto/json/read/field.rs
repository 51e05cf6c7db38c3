//! Fields: scalars of every kind, lists and maps, each from one JSON value.

use std::fmt;

use prost::encoding::{WireType, encode_key};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{
    super::{
        shape::{FieldKind, FieldShape, Repetition},
        write::{Integer, check_safe, is_js_number},
    },
    Context, MessageSeed, Step, base64, put_bytes, put_varint,
};

/// Reads a field's value into its bytes, key included; nothing for `null`.
pub(super) struct FieldSeed<'c, 't> {
    pub(super) context: &'c Context<'t>,
    pub(super) field: &'t FieldShape,
    pub(super) depth: usize,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_, '_> {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        match (self.field.repetition, self.field.kind) {
            (Repetition::Singular { .. }, FieldKind::Message(index)) => {
                let seed = MessageSeed { context: self.context, index, depth: self.depth };
                let mut out = Vec::new();
                if let Some(bytes) = seed.deserialize(deserializer)? {
                    put_bytes(self.field.number, &bytes, &mut out);
                }
                Ok(out)
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

/// A JSON scalar.
pub(super) enum Simple<'a> {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
}

impl Simple<'_> {
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Unsigned(value) => format!("the number {value}"),
            Self::Signed(value) => format!("the number {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Text(text) => format!("the string {:?}", text.chars().take(80).collect::<String>()),
        }
    }

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn as_f64(&self) -> f64 {
        match self {
            Self::Unsigned(value) => *value as f64,
            Self::Signed(value) => *value as f64,
            Self::Float(value) => *value,
            Self::Bool(_) | Self::Text(_) => f64::NAN,
        }
    }

    /// The value as an integer; decimal strings and integral floats are integers too.
    #[allow(clippy::cast_possible_truncation)]
    fn as_integer(&self) -> Option<i128> {
        match self {
            Self::Unsigned(value) => Some(i128::from(*value)),
            Self::Signed(value) => Some(i128::from(*value)),
            Self::Float(value) => (value.fract() == 0.0 && value.abs() < 1e19).then_some(*value as i128),
            Self::Text(text) => text.parse().ok().filter(|_| !text.starts_with('+')),
            Self::Bool(_) => None,
        }
    }
}

impl FieldSeed<'_, '_> {
    pub(super) fn scalar_wanted(kind: FieldKind) -> &'static str {
        match kind {
            FieldKind::Bool => "true or false",
            FieldKind::String => "a string",
            FieldKind::Bytes => "bytes as base64 text",
            FieldKind::Enum(_) => "one of the enum's texts",
            FieldKind::Message(_) => "an object",
            FieldKind::Double | FieldKind::Float => "a number",
            _ => "an integer",
        }
    }

    fn wanted(&self) -> String {
        match (self.field.repetition, self.field.kind) {
            (Repetition::Repeated, _) => "an array".to_owned(),
            (Repetition::Map, _) => "an object".to_owned(),
            (_, FieldKind::Enum(index)) => format!("one of {}", self.context.table.enums[index].choices()),
            (_, kind) => Self::scalar_wanted(kind).to_owned(),
        }
    }

    fn wrong<E: serde::de::Error>(&self, got: &str) -> E {
        self.context.refuse(format!("want {}, got {got}", self.wanted()))
    }

    fn singular<E: serde::de::Error>(self, value: &Simple<'_>) -> Result<Vec<u8>, E> {
        let mut out = Vec::new();
        if !matches!(self.field.repetition, Repetition::Singular { .. }) {
            return Err(self.wrong(&value.shown()));
        }
        self.scalar(value, &mut out)?;
        Ok(out)
    }

    /// Writes key and value of a scalar.
    pub(super) fn scalar<E: serde::de::Error>(&self, value: &Simple<'_>, out: &mut Vec<u8>) -> Result<(), E> {
        let number = self.field.number;
        match (self.field.kind, value) {
            (FieldKind::String, Simple::Text(text)) => put_bytes(number, text.as_bytes(), out),
            (FieldKind::Bytes, Simple::Text(text)) => {
                let bytes = base64(text).ok_or_else(|| self.wrong::<E>(&value.shown()))?;
                put_bytes(number, &bytes, out);
            }
            (FieldKind::Bool, Simple::Bool(value)) => put_varint(number, u64::from(*value), out),
            (FieldKind::Enum(index), _) => put_varint(number, self.enumeration(index, value)?, out),
            (FieldKind::Double, _) => {
                encode_key(number, WireType::SixtyFourBit, out);
                out.extend_from_slice(&self.float::<E>(value)?.to_le_bytes());
            }
            (FieldKind::Float, _) => {
                encode_key(number, WireType::ThirtyTwoBit, out);
                out.extend_from_slice(&self.float32::<E>(value)?.to_le_bytes());
            }
            (FieldKind::String | FieldKind::Bytes | FieldKind::Bool | FieldKind::Message(_), _) => {
                return Err(self.wrong(&value.shown()));
            }
            (kind, _) => self.integer(kind, value, out)?,
        }
        Ok(())
    }

    fn float<E: serde::de::Error>(&self, value: &Simple<'_>) -> Result<f64, E> {
        match value {
            Simple::Bool(_) => Err(self.wrong(&value.shown())),
            Simple::Text("NaN") => Ok(f64::NAN),
            Simple::Text("Infinity") => Ok(f64::INFINITY),
            Simple::Text("-Infinity") => Ok(f64::NEG_INFINITY),
            Simple::Text(text) => {
                let parsed = text.parse().ok().filter(|v: &f64| v.is_finite());
                parsed.ok_or_else(|| self.wrong(&value.shown()))
            }
            number => Ok(number.as_f64()),
        }
    }

    #[allow(clippy::cast_possible_truncation)]
    fn float32<E: serde::de::Error>(&self, value: &Simple<'_>) -> Result<f32, E> {
        let wide = self.float::<E>(value)?;
        let narrow = wide as f32;
        if wide.is_finite() && !narrow.is_finite() {
            return Err(self.context.refuse(format!("{wide} does not fit a float")));
        }
        Ok(narrow)
    }

    #[allow(clippy::cast_sign_loss)]
    fn enumeration<E: serde::de::Error>(&self, index: usize, value: &Simple<'_>) -> Result<u64, E> {
        let shape = &self.context.table.enums[index];
        let number = match value {
            Simple::Text(text) => shape.numbers.get(*text).copied(),
            Simple::Bool(_) => None,
            number => number
                .as_integer()
                .and_then(|n| i32::try_from(n).ok())
                .filter(|n| shape.texts.contains_key(n)),
        };
        let number = number.ok_or_else(|| self.wrong::<E>(&value.shown()))?;
        Ok(i64::from(number) as u64)
    }

    /// Checks the range of the kind, and of JavaScript where that matters.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn integer<E: serde::de::Error>(
        &self,
        kind: FieldKind,
        value: &Simple<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), E> {
        let read = value.as_integer().ok_or_else(|| self.wrong::<E>(&value.shown()))?;
        let (signed, wide) = match kind {
            FieldKind::Int32 | FieldKind::Sint32 | FieldKind::Sfixed32 => (true, false),
            FieldKind::Uint32 | FieldKind::Fixed32 => (false, false),
            FieldKind::Int64 { .. } | FieldKind::Sint64 { .. } | FieldKind::Sfixed64 { .. } => (true, true),
            _ => (false, true),
        };
        let (low, high) = match (signed, wide) {
            (true, false) => (i128::from(i32::MIN), i128::from(i32::MAX)),
            (false, false) => (0, i128::from(u32::MAX)),
            (true, true) => (i128::from(i64::MIN), i128::from(i64::MAX)),
            (false, true) => (0, i128::from(u64::MAX)),
        };
        if !(low..=high).contains(&read) {
            return Err(self.context.refuse(format!("{read} is out of range: want {low} to {high}")));
        }
        if is_js_number(kind) {
            let integer = if signed { Integer::Signed(read as i64) } else { Integer::Unsigned(read as u64) };
            check_safe(integer).map_err(|e| self.context.refuse::<E>(e.message))?;
        }
        let number = self.field.number;
        match kind {
            FieldKind::Sint32 | FieldKind::Sint64 { .. } => {
                let value = read as i64;
                put_varint(number, ((value << 1) ^ (value >> 63)) as u64, out);
            }
            FieldKind::Fixed32 | FieldKind::Sfixed32 => {
                encode_key(number, WireType::ThirtyTwoBit, out);
                out.extend_from_slice(&(read as u32).to_le_bytes());
            }
            FieldKind::Fixed64 { .. } | FieldKind::Sfixed64 { .. } => {
                encode_key(number, WireType::SixtyFourBit, out);
                out.extend_from_slice(&(read as u64).to_le_bytes());
            }
            _ => put_varint(number, read as u64, out),
        }
        Ok(())
    }

    /// The map's key from its text.
    fn key<E: serde::de::Error>(&self, entry: &FieldShape, text: &str, out: &mut Vec<u8>) -> Result<(), E> {
        let seed = FieldSeed { context: self.context, field: entry, depth: self.depth };
        match (entry.kind, text) {
            (FieldKind::Bool, "true") => seed.scalar(&Simple::Bool(true), out),
            (FieldKind::Bool, "false") => seed.scalar(&Simple::Bool(false), out),
            _ => seed.scalar(&Simple::Text(text), out),
        }
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_, '_> {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.wanted())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Vec<u8>, E> {
        Ok(Vec::new())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Vec<u8>, E> {
        self.singular(&Simple::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Vec<u8>, E> {
        self.singular(&Simple::Unsigned(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Vec<u8>, E> {
        self.singular(&Simple::Signed(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Vec<u8>, E> {
        self.singular(&Simple::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Vec<u8>, E> {
        self.singular(&Simple::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
        if self.field.repetition != Repetition::Repeated {
            return Err(self.wrong("an array"));
        }
        let mut out = Vec::new();
        for index in 0.. {
            let item = ItemSeed { context: self.context, field: self.field, depth: self.depth };
            let more = self.context.within(Step::Index(index), || seq.next_element_seed(item))?;
            match more {
                Some(bytes) => out.extend_from_slice(&bytes),
                None => break,
            }
        }
        Ok(out)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<u8>, A::Error> {
        let (Repetition::Map, FieldKind::Message(entry)) = (self.field.repetition, self.field.kind) else {
            return Err(self.wrong("an object"));
        };
        let entry = &self.context.table.messages[entry];
        let mut seen = std::collections::HashSet::new();
        let mut out = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let mut pair = Vec::new();
            self.context.within(Step::Field(key.clone()), || {
                self.key(&entry.fields[0], &key, &mut pair)?;
                if !seen.insert(pair.clone()) {
                    return Err(self.context.refuse("the key is there twice"));
                }
                let value = ItemSeed { context: self.context, field: &entry.fields[1], depth: self.depth };
                pair.extend_from_slice(&map.next_value_seed(value)?);
                Ok::<_, A::Error>(())
            })?;
            put_bytes(self.field.number, &pair, &mut out);
        }
        Ok(out)
    }
}

/// An element of an array or the value of a map: like a singular field, but never `null`.
struct ItemSeed<'c, 't> {
    context: &'c Context<'t>,
    field: &'t FieldShape,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for ItemSeed<'_, '_> {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        let mut out = Vec::new();
        match self.field.kind {
            FieldKind::Message(index) => {
                let seed = MessageSeed { context: self.context, index, depth: self.depth };
                let bytes = seed.deserialize(deserializer)?;
                let bytes = bytes
                    .ok_or_else(|| self.context.refuse::<D::Error>("null cannot stand in a list or map"))?;
                put_bytes(self.field.number, &bytes, &mut out);
            }
            _ => {
                let scalar = deserializer.deserialize_any(ScalarVisitor(&self))?;
                out = scalar;
            }
        }
        Ok(out)
    }
}

struct ScalarVisitor<'s, 'c, 't>(&'s ItemSeed<'c, 't>);

impl ScalarVisitor<'_, '_, '_> {
    fn read<E: serde::de::Error>(&self, value: &Simple<'_>) -> Result<Vec<u8>, E> {
        let item = self.0;
        let mut out = Vec::new();
        FieldSeed { context: item.context, field: item.field, depth: item.depth }
            .scalar_item(value, &mut out)?;
        Ok(out)
    }
}

impl FieldSeed<'_, '_> {
    /// As [`Self::scalar`], with messages that speak of the element rather than the list.
    fn scalar_item<E: serde::de::Error>(&self, value: &Simple<'_>, out: &mut Vec<u8>) -> Result<(), E> {
        let fits = !matches!(
            (self.field.kind, value),
            (
                FieldKind::String | FieldKind::Bytes,
                Simple::Bool(_) | Simple::Unsigned(_) | Simple::Signed(_) | Simple::Float(_)
            ) | (
                FieldKind::Bool,
                Simple::Text(_) | Simple::Unsigned(_) | Simple::Signed(_) | Simple::Float(_)
            )
        );
        if fits {
            return self.scalar(value, out);
        }
        Err(self.context.refuse(format!(
            "want {}, got {}",
            Self::scalar_wanted(self.field.kind),
            value.shown()
        )))
    }
}

impl<'de> Visitor<'de> for ScalarVisitor<'_, '_, '_> {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FieldSeed::scalar_wanted(self.0.field.kind))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Vec<u8>, E> {
        self.read(&Simple::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Vec<u8>, E> {
        self.read(&Simple::Unsigned(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Vec<u8>, E> {
        self.read(&Simple::Signed(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Vec<u8>, E> {
        self.read(&Simple::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Vec<u8>, E> {
        self.read(&Simple::Text(value))
    }
}
