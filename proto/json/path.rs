//! Field paths for room templates.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    sync::Arc,
};

use super::{
    PayloadError, closest,
    found::{Found, utf8},
    plan::Value,
    shape::{FieldKind, Repetition, Shape, Table},
    wire::WireValue,
    write::{Integer, default, enum_text, integer},
};

/// A resolved path of field names, ending at a string, integer or enum field.
#[derive(Clone)]
pub struct FieldPath {
    text: String,
    table: Arc<Table>,
    /// Message index and field index of each step.
    pub(super) steps: Vec<(usize, usize)>,
}

/// A field's value as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldText {
    /// The field has presence and is not set, or a message on the path is not set.
    Unset,
    /// The field has no presence and does not occur: its default.
    Default(String),
    /// Its value; may be empty.
    Value(String),
}

/// Why a path does not name a usable field. The text continues after the name of what contains the
/// path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A name on the path is not a field.
    #[error("names no field of {message}{}", hint(.near))]
    Unknown {
        /// The message that was searched.
        message: String,
        /// A field with a similar name.
        near: Option<String>,
    },
    /// The field is repeated, a map, or of a type that has no text.
    #[error("names {field}, which is not a singular string, integer or enum field")]
    Kind {
        /// The field's name.
        field: String,
    },
}

fn hint(near: &Option<String>) -> String {
    near.as_ref().map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default()
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FieldPath({:?})", self.text)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FieldPath {
    pub(super) fn resolve(shape: &Shape, path: &str) -> Result<Self, PathError> {
        let table = shape.table.clone();
        let (mut at, mut steps) = (shape.index, Vec::new());
        let names: Vec<&str> = path.split('.').collect();
        for (depth, name) in names.iter().enumerate() {
            let message = &table.messages[at];
            let Some(index) = message.fields.iter().position(|f| f.name == *name) else {
                let near = closest(name, message.fields.iter().map(|f| f.name.as_str())).map(str::to_owned);
                return Err(PathError::Unknown { message: message.full_name.clone(), near });
            };
            steps.push((at, index));
            let field = &message.fields[index];
            let is_last = depth + 1 == names.len();
            let singular = matches!(field.repetition, Repetition::Singular { .. });
            match field.kind {
                FieldKind::Message(inner) if singular && !is_last => at = inner,
                FieldKind::Message(_)
                | FieldKind::Bool
                | FieldKind::Bytes
                | FieldKind::Double
                | FieldKind::Float => {
                    return Err(PathError::Kind { field: field.name.clone() });
                }
                _ if singular && is_last => {}
                _ => return Err(PathError::Kind { field: field.name.clone() }),
            }
        }
        Ok(Self { text: path.to_owned(), table, steps })
    }

    /// The path as browsers name it, e.g. `message.chatId`.
    pub fn json_path(&self) -> String {
        let names = self
            .steps
            .iter()
            .map(|(message, index)| self.table.messages[*message].fields[*index].json_name.as_str());
        names.collect::<Vec<_>>().join(".")
    }

    /// The field's value in a message's bytes.
    pub fn text(&self, bytes: &[u8]) -> Result<FieldText, PayloadError> {
        let mut bytes = Cow::Borrowed(bytes);
        for (depth, (message, index)) in self.steps.iter().enumerate() {
            let shape = &self.table.messages[*message];
            let field = &shape.fields[*index];
            let found = Found::scan(shape, &bytes).map_err(|e| self.place(depth, e))?;
            if let FieldKind::Message(_) = field.kind {
                let inner = found.message(*index, field).map_err(|e| self.place(depth + 1, e))?;
                let Some(inner) = inner else { return Ok(FieldText::Unset) };
                bytes = inner.into_owned().into();
                continue;
            }
            let implicit = field.repetition == (Repetition::Singular { presence: false });
            let scalar = |value| {
                let mut text = String::new();
                self.push(field.kind, value, implicit, &mut text)
                    .map(|()| text)
                    .map_err(|error| self.place(depth + 1, error))
            };
            return match found.last(*index) {
                Some(value) => scalar(value).map(FieldText::Value),
                None if implicit => scalar(default(field.kind)).map(FieldText::Default),
                None => Ok(FieldText::Unset),
            };
        }
        Ok(FieldText::Unset)
    }

    /// Appends the text of a value that was recorded while the message was checked. `false`: the
    /// field has presence and is not set, or a message on its path is not set.
    pub(crate) fn push_value(&self, value: Value<'_>, out: &mut String) -> Result<bool, PayloadError> {
        let Some((message, index)) = self.steps.last() else { return Ok(false) };
        let field = &self.table.messages[*message].fields[*index];
        let implicit = field.repetition == (Repetition::Singular { presence: false });
        let value = match value {
            Value::Set(value) => value,
            Value::Default if implicit => default(field.kind),
            Value::Default | Value::Unset => return Ok(false),
        };
        self.push(field.kind, value, implicit, out).map_err(|error| self.place(self.steps.len(), error))?;
        Ok(true)
    }

    /// Appends the text of a value.
    fn push(
        &self,
        kind: FieldKind,
        value: WireValue<'_>,
        implicit: bool,
        out: &mut String,
    ) -> Result<(), PayloadError> {
        // Writing to a `String` cannot fail.
        match (kind, value, integer(kind, value)?) {
            (_, _, Some(Integer::Signed(v))) => drop(write!(out, "{v}")),
            (_, _, Some(Integer::Unsigned(v))) => drop(write!(out, "{v}")),
            (FieldKind::Enum(index), WireValue::Varint(v), None) => {
                out.push_str(enum_text(&self.table, index, v, implicit)?);
            }
            _ => out.push_str(utf8(value)?),
        }
        Ok(())
    }

    /// The error relative to the message at which the path starts.
    fn place(&self, steps: usize, error: PayloadError) -> PayloadError {
        self.steps[..steps].iter().rev().fold(error, |error, (message, index)| {
            error.within(&self.table.messages[*message].fields[*index].json_name)
        })
    }
}
