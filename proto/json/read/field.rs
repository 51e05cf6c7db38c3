//! Fields: scalars of every kind, lists and maps, each read from one JSON value.

use std::fmt;

use prost::encoding::{WireType, encode_key};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{
    super::{
        ATTACHMENT_KEY, NAME_CHARS_MAX,
        shape::{FieldKind, FieldShape, Repetition},
        write::{Integer, check_safe, is_js_number},
    },
    Context, MessageSeed, Step, base64, put_bytes, put_varint,
};

/// Converts a field's JSON value to its bytes, including the key; `null` yields no bytes.
pub(super) struct FieldSeed<'c, 't> {
    pub(super) context: &'c Context<'t>,
    pub(super) field: &'t FieldShape,
    /// The depth of a message in the field.
    pub(super) depth: usize,
    /// Whether this is a single value of a list or map, which is never `null`.
    pub(super) is_element: bool,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_, '_> {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        let FieldKind::Message(index) = self.field.kind else { return deserializer.deserialize_any(self) };
        if !self.is_single() {
            return deserializer.deserialize_any(self);
        }
        let seed = MessageSeed { context: self.context, index, depth: self.depth };
        let mut out = Vec::new();
        match seed.deserialize(deserializer)? {
            Some(bytes) => put_bytes(self.field.number, &bytes, &mut out),
            None if self.is_element => return Err(self.no_null()),
            None => {}
        }
        Ok(out)
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
            Self::Text(text) => {
                format!("the string {:?}", text.chars().take(NAME_CHARS_MAX).collect::<String>())
            }
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
            Self::Float(value) => (value.fract() == 0.0 && value.abs() < 1e38).then_some(*value as i128),
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

    /// Whether a single value is expected, not a list or map.
    fn is_single(&self) -> bool {
        self.is_element || matches!(self.field.repetition, Repetition::Singular { .. })
    }

    fn no_null<E: serde::de::Error>(&self) -> E {
        self.context.refuse("null cannot stand in a list or map")
    }

    fn wanted(&self) -> String {
        match (self.field.repetition, self.field.kind) {
            (Repetition::Repeated, _) if !self.is_element => "an array".to_owned(),
            (Repetition::Map, _) if !self.is_element => "an object".to_owned(),
            (_, FieldKind::Enum(index)) => format!("one of {}", self.context.table.enums[index].choices()),
            (_, kind) => Self::scalar_wanted(kind).to_owned(),
        }
    }

    fn wrong<E: serde::de::Error>(&self, got: &str) -> E {
        self.context.refuse(format!("want {}, got {got}", self.wanted()))
    }

    fn singular<E: serde::de::Error>(self, value: &Simple<'_>) -> Result<Vec<u8>, E> {
        let mut out = Vec::new();
        if !self.is_single() {
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

    /// Checks the range of the kind and, where it applies, of JavaScript numbers.
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

    /// Bytes that arrived as an attachment: `{ "$bytes": base64 }`, as written by bridges.
    fn attachment<'de, A: MapAccess<'de>>(&self, mut map: A) -> Result<Vec<u8>, A::Error> {
        let is_alone = map.next_key::<String>()?.as_deref() == Some(ATTACHMENT_KEY);
        let text = if is_alone { map.next_value::<String>()? } else { return Err(self.wrong("an object")) };
        let bytes = base64(&text).filter(|_| matches!(map.next_key::<String>(), Ok(None)));
        let bytes = bytes.ok_or_else(|| self.wrong::<A::Error>("an object"))?;
        let mut out = Vec::new();
        put_bytes(self.field.number, &bytes, &mut out);
        Ok(out)
    }

    /// The map's key, parsed from its text.
    fn key<E: serde::de::Error>(&self, entry: &FieldShape, text: &str, out: &mut Vec<u8>) -> Result<(), E> {
        let seed = FieldSeed { context: self.context, field: entry, depth: self.depth, is_element: true };
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
        let mut out = Vec::new();
        match self.field.kind {
            // In a google.protobuf.NullValue, null is the value.
            FieldKind::Enum(index) if self.is_single() && self.context.table.enums[index].is_null => {
                put_varint(self.field.number, 0, &mut out);
            }
            _ if self.is_element => return Err(self.no_null()),
            _ => {}
        }
        Ok(out)
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
        if self.is_single() || self.field.repetition != Repetition::Repeated {
            return Err(self.wrong("an array"));
        }
        let mut out = Vec::new();
        for index in 0.. {
            let item = FieldSeed { is_element: true, ..self };
            let more = self.context.within(Step::Index(index), || seq.next_element_seed(item))?;
            match more {
                Some(bytes) => out.extend_from_slice(&bytes),
                None => break,
            }
        }
        Ok(out)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<u8>, A::Error> {
        if self.field.kind == FieldKind::Bytes && self.is_single() {
            return self.attachment(map);
        }
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
                // In protobuf, a map entry is a message too.
                let (field, depth) = (&entry.fields[1], self.depth + 1);
                let value = FieldSeed { context: self.context, field, depth, is_element: true };
                pair.extend_from_slice(&map.next_value_seed(value)?);
                Ok::<_, A::Error>(())
            })?;
            put_bytes(self.field.number, &pair, &mut out);
        }
        Ok(out)
    }
}
