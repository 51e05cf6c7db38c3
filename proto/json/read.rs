//! From browser JSON to protobuf bytes, in one pass over the text.

mod any;
mod field;

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{
    DEPTH_MAX, NAME_CHARS_MAX, PayloadError, closest,
    shape::{FieldKind, FieldShape, MessageShape, Repetition, Special, Table},
    special::{read_duration, read_timestamp, snake},
};

/// Who wrote the JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    Browsers,
    /// Clients that may also call over gRPC.
    Callers,
}

/// Reads one JSON value as a message.
pub(super) fn message(
    table: &Table,
    index: usize,
    json: &[u8],
    audience: Audience,
) -> Result<Vec<u8>, PayloadError> {
    if json.is_empty() {
        return Ok(Vec::new());
    }
    let is_browser = audience == Audience::Browsers;
    let context = Context {
        table,
        is_browser,
        takes_any: Cell::new(!is_browser),
        path: RefCell::default(),
        refusal: RefCell::default(),
    };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let seed = MessageSeed { context: &context, index, depth: 0 };
    let read = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    read.map(Option::unwrap_or_default).map_err(|error| {
        let message = context.refusal.take().unwrap_or_else(|| format!("not valid JSON: {error}"));
        context.path.into_inner().into_iter().rev().fold(PayloadError::new(message), |error, step| match step
        {
            Step::Field(name) => error.within(&name),
            Step::Index(index) => error.at(index),
        })
    })
}

use field::{FieldSeed, Simple};

struct Context<'t> {
    table: &'t Table,
    is_browser: bool,
    /// Whether a `google.protobuf.Any` is allowed here; not within another one.
    takes_any: Cell<bool>,
    /// The current position; left unchanged after an error.
    path: RefCell<Vec<Step>>,
    refusal: RefCell<Option<String>>,
}

enum Step {
    Field(String),
    Index(usize),
}

impl Context<'_> {
    fn refuse<E: serde::de::Error>(&self, message: impl Into<String>) -> E {
        let message = message.into();
        let error = E::custom(&message);
        self.refusal.replace(Some(message));
        error
    }

    const fn shows(&self, field: &FieldShape) -> bool {
        !(self.is_browser && field.internal)
    }

    fn unknown(&self, shape: &MessageShape, key: &str) -> String {
        let visible = shape.fields.iter().filter(|f| self.shows(f)).map(|f| f.json_name.as_str());
        let near = closest(key, visible).map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default();
        format!("{} has no field {:?}{near}", shape.full_name, shown(key))
    }

    fn check_depth<E: serde::de::Error>(&self, depth: usize) -> Result<(), E> {
        if depth > DEPTH_MAX {
            return Err(self.refuse(format!("nests deeper than {DEPTH_MAX}")));
        }
        Ok(())
    }

    fn within<T, E>(&self, step: Step, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.path.borrow_mut().push(step);
        let value = read()?;
        self.path.borrow_mut().pop();
        Ok(value)
    }
}

/// A value or `null`, which means that it is absent.
type OrNull<T> = Option<T>;

struct MessageSeed<'c, 't> {
    context: &'c Context<'t>,
    index: usize,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_, '_> {
    type Value = OrNull<Vec<u8>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.context.check_depth(self.depth)?;
        deserializer.deserialize_any(self)
    }
}

impl<'c, 't> MessageSeed<'c, 't> {
    fn shape(&self) -> &'t MessageShape {
        &self.context.table.messages[self.index]
    }

    fn field(&self, field: &'t FieldShape) -> FieldSeed<'c, 't> {
        FieldSeed { context: self.context, field, depth: self.depth + 1, is_element: false }
    }

    /// The seed for a message nested in this one, if the depth limit allows it.
    fn inner<E: serde::de::Error>(&self, field: &FieldShape, got: &str) -> Result<Self, E> {
        let FieldKind::Message(index) = field.kind else { return Err(self.wrong(got)) };
        self.context.check_depth(self.depth + 1)?;
        Ok(Self { context: self.context, index, depth: self.depth + 1 })
    }

    fn wanted(&self) -> &'static str {
        match self.shape().special {
            Special::None => "an object",
            Special::Timestamp => "a time such as \"2026-01-31T12:00:00.000Z\"",
            Special::Duration => "a duration such as \"1.5s\"",
            Special::FieldMask => "field names in lowerCamelCase, separated by commas",
            Special::Value => "a JSON value",
            Special::Any if self.context.takes_any.get() => "an object with \"@type\"",
            Special::Any => "nothing: google.protobuf.Any has no browser JSON",
            Special::Transparent => match self.shape().fields[0].repetition {
                Repetition::Map => "an object",
                Repetition::Repeated => "an array",
                Repetition::Singular { .. } => FieldSeed::scalar_wanted(self.shape().fields[0].kind),
            },
        }
    }

    fn wrong<E: serde::de::Error>(&self, got: &str) -> E {
        self.context.refuse(format!("want {}, got {got}", self.wanted()))
    }

    /// A scalar for a message whose JSON is a scalar.
    fn simple<E: serde::de::Error>(self, value: &Simple<'_>) -> Result<OrNull<Vec<u8>>, E> {
        let shape = self.shape();
        let mut out = Vec::new();
        match (shape.special, value) {
            (Special::Timestamp, Simple::Text(text)) => {
                let (seconds, nanos) = read_timestamp(text).ok_or_else(|| self.wrong::<E>(&value.shown()))?;
                seconds_and_nanos(seconds, nanos, &mut out);
            }
            (Special::Duration, Simple::Text(text)) => {
                let (seconds, nanos) = read_duration(text).ok_or_else(|| self.wrong::<E>(&value.shown()))?;
                seconds_and_nanos(seconds, nanos, &mut out);
            }
            (Special::FieldMask, Simple::Text(text)) => {
                for path in text.split(',').filter(|_| !text.is_empty()) {
                    if path.is_empty() || path.contains('_') {
                        return Err(self.wrong(&value.shown()));
                    }
                    put_bytes(1, snake(path).as_bytes(), &mut out);
                }
            }
            (Special::Transparent, _)
                if matches!(shape.fields[0].repetition, Repetition::Singular { .. }) =>
            {
                self.field(&shape.fields[0]).scalar(value, &mut out)?;
            }
            // google.protobuf.Value: null 1, number 2, string 3, bool 4, struct 5, list 6.
            (Special::Value, _) => match value {
                Simple::Bool(value) => {
                    encode_key(4, WireType::Varint, &mut out);
                    encode_varint(u64::from(*value), &mut out);
                }
                Simple::Text(text) => put_bytes(3, text.as_bytes(), &mut out),
                number => {
                    encode_key(2, WireType::SixtyFourBit, &mut out);
                    out.extend_from_slice(&number.as_f64().to_le_bytes());
                }
            },
            _ => return Err(self.wrong(&value.shown())),
        }
        Ok(Some(out))
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_, '_> {
    type Value = OrNull<Vec<u8>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        // In a google.protobuf.Value, null is itself a value: null_value = 0.
        Ok((self.shape().special == Special::Value).then(|| vec![0x08, 0x00]))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
        self.simple(&Simple::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.simple(&Simple::Unsigned(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.simple(&Simple::Signed(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        self.simple(&Simple::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
        self.simple(&Simple::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        let shape = self.shape();
        let mut out = Vec::new();
        match shape.special {
            Special::Transparent if shape.fields[0].repetition == Repetition::Repeated => {
                self.field(&shape.fields[0]).visit_seq(seq).map(Some)
            }
            Special::Value => {
                let seed = self.inner::<A::Error>(&shape.fields[5], "an array")?;
                put_bytes(6, &seed.visit_seq(seq)?.unwrap_or_default(), &mut out);
                Ok(Some(out))
            }
            _ => Err(self.wrong("an array")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let shape = self.shape();
        match shape.special {
            Special::None => self.object(map).map(Some),
            Special::Any if self.context.takes_any.get() => self.any(map).map(Some),
            Special::Transparent if shape.fields[0].repetition == Repetition::Map => {
                self.field(&shape.fields[0]).visit_map(map).map(Some)
            }
            Special::Value => {
                let seed = self.inner::<A::Error>(&shape.fields[4], "an object")?;
                let mut out = Vec::new();
                put_bytes(5, &seed.visit_map(map)?.unwrap_or_default(), &mut out);
                Ok(Some(out))
            }
            _ => Err(self.wrong("an object")),
        }
    }
}

impl MessageSeed<'_, '_> {
    fn object<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<u8>, A::Error> {
        let (shape, context) = (self.shape(), self.context);
        let mut seen = vec![false; shape.fields.len()];
        let mut members: Vec<Option<usize>> = vec![None; shape.oneofs];
        let mut out = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let known = shape.by_name.get(&key).copied().filter(|i| context.shows(&shape.fields[*i]));
            let Some(index) = known else {
                return context
                    .within(Step::Field(shown(&key)), || Err(context.refuse(context.unknown(shape, &key))));
            };
            let field = &shape.fields[index];
            if std::mem::replace(&mut seen[index], true) {
                let twice = format!("the field {:?} is there twice", field.json_name);
                return context.within(Step::Field(field.json_name.clone()), || Err(context.refuse(twice)));
            }
            let written = out.len();
            context.within(Step::Field(field.json_name.clone()), || {
                let bytes = map.next_value_seed(self.field(field))?;
                out.extend_from_slice(&bytes);
                Ok::<_, A::Error>(())
            })?;
            let Some(oneof) = field.oneof.filter(|_| out.len() > written) else { continue };
            if let Some(other) = members[oneof].replace(index) {
                return Err(context.refuse(format!(
                    "{:?} and {:?} exclude each other; send one",
                    shape.fields[other].json_name, field.json_name
                )));
            }
        }
        Ok(out)
    }
}

fn shown(key: &str) -> String {
    key.chars().take(NAME_CHARS_MAX).collect()
}

fn put_varint(number: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[allow(clippy::cast_sign_loss)]
fn seconds_and_nanos(seconds: i64, nanos: i64, out: &mut Vec<u8>) {
    if seconds != 0 {
        put_varint(1, seconds as u64, out);
    }
    if nanos != 0 {
        put_varint(2, nanos as u64, out);
    }
}

/// Standard or URL-safe base64, with or without padding, as the canonical mapping requires.
fn base64(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    GeneralPurpose::new(alphabet, config).decode(text).ok()
}
