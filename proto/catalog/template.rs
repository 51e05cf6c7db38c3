//! Room templates: `org`, `chat:{chat_id}`.

use std::fmt;

use crate::{
    json::{FieldPath, FieldText, PayloadError, Shape},
    room::{AddressError, Room, check_kind},
};

/// A room with placeholders for fields of a message.
pub struct RoomTemplate {
    text: String,
    parts: Vec<Part>,
    /// The room of a template without fields.
    fixed: Option<Room>,
}

/// Capacity for the text of most rooms.
const TEXT_BYTES: usize = 64;

enum Part {
    Text(String),
    Field(FieldPath),
}

/// Why a template yields no room for a message.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The field is empty.
    #[error("{field} is empty, but the room {template:?} needs it")]
    Empty {
        /// The field's path.
        field: String,
        /// The path as browsers name it.
        path: String,
        /// The template.
        template: String,
    },
    /// The field's value does not make a room.
    #[error("the room template {template:?} gives no room")]
    Address {
        /// The template.
        template: String,
        /// The cause.
        #[source]
        source: AddressError,
    },
    /// A field of a state key is empty.
    #[error("{field} is empty, but the state key {template:?} needs it")]
    KeyEmpty {
        /// The field's path.
        field: String,
        /// The path as browsers name it.
        path: String,
        /// The template.
        template: String,
    },
    /// A field of a state key is unset.
    #[error("a field of the state key {template:?} is unset")]
    KeyUnset {
        /// The template.
        template: String,
    },
    /// The fields' values do not make a state key.
    #[error(
        "the state key {template:?} gives no key: want at most 128 bytes without white space or control characters"
    )]
    Key {
        /// The template.
        template: String,
    },
    /// The payload is invalid.
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

impl fmt::Debug for RoomTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomTemplate({:?})", self.text)
    }
}

impl fmt::Display for RoomTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl RoomTemplate {
    /// Parses a template against the message whose fields it names. The error describes what is
    /// wrong.
    pub(super) fn parse(text: &str, shape: &Shape) -> Result<Self, String> {
        let malformed = |why: &str| {
            format!(
                "room template {text:?} {why}; write a kind such as \"org\", or a kind and an id such as \"chat:{{chat_id}}\""
            )
        };
        let kind = text.split_once(':').map_or(text, |(kind, _)| kind);
        check_kind(kind).map_err(|()| {
            malformed(&format!(
                "begins with {kind:?}, which is no kind (a-z, 0-9, '_', '-', beginning with a letter)"
            ))
        })?;
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let Some(open) = rest.find(['{', '}']) else {
                parts.push(Part::Text(rest.to_owned()));
                break;
            };
            let close = rest[open..].find('}').map(|at| open + at).filter(|_| rest[open..].starts_with('{'));
            let close = close.ok_or_else(|| malformed("has a brace without its partner"))?;
            if open > 0 {
                parts.push(Part::Text(rest[..open].to_owned()));
            }
            let field =
                shape.path(&rest[open + 1..close]).map_err(|e| format!("room template {text:?} {e}"))?;
            parts.push(Part::Field(field));
            rest = &rest[close + 1..];
        }
        let example: String = parts.iter().map(|p| if let Part::Text(t) = p { t } else { "1" }).collect();
        let room = Room::new(&example).map_err(|e| malformed(&format!("cannot make a room: {e}")))?;
        let fixed = parts.iter().all(|p| matches!(p, Part::Text(_))).then_some(room);
        Ok(Self { text: text.to_owned(), parts, fixed })
    }

    /// The kind of the rooms that it yields.
    pub fn kind(&self) -> &str {
        self.text.split_once(':').map_or(&self.text, |(kind, _)| kind)
    }

    /// The template's text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The kind and the field, if the template is a kind followed by one field, e.g.
    /// `chat:{chat_id}`.
    pub(super) fn only_field(&self) -> Option<(&str, String)> {
        match self.parts.as_slice() {
            [Part::Text(kind), Part::Field(field)] => Some((kind.strip_suffix(':')?, field.to_string())),
            _ => None,
        }
    }

    /// The fields it names.
    pub(super) fn fields(&self) -> impl Iterator<Item = &FieldPath> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Field(path) => Some(path),
        })
    }

    /// The room for an event's bytes; `None` if a field with presence is unset.
    pub fn render(&self, message: &[u8]) -> Result<Option<Room>, RenderError> {
        self.render_by(message, |value| value)
    }

    /// The same for a browser's request, in which an absent number names no room.
    pub fn render_sent(&self, message: &[u8]) -> Result<Option<Room>, RenderError> {
        self.render_by(message, |_| String::new())
    }

    fn render_by(
        &self,
        message: &[u8],
        default: impl Fn(String) -> String,
    ) -> Result<Option<Room>, RenderError> {
        self.render_with(&mut String::with_capacity(TEXT_BYTES), |field, out| {
            match field.text(message)? {
                FieldText::Unset => return Ok(false),
                FieldText::Default(value) => out.push_str(&default(value)),
                FieldText::Value(value) => out.push_str(&value),
            }
            Ok(true)
        })
    }

    /// Builds the room from the texts that `push` appends for its fields. `push` returns `false` if
    /// a field is unset. The text is built in `text`, so that its capacity can be reused.
    pub(super) fn render_with(
        &self,
        text: &mut String,
        mut push: impl FnMut(&FieldPath, &mut String) -> Result<bool, PayloadError>,
    ) -> Result<Option<Room>, RenderError> {
        if let Some(room) = &self.fixed {
            return Ok(Some(room.clone()));
        }
        text.clear();
        for part in &self.parts {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Field(field) => {
                    let before = text.len();
                    if !push(field, text)? {
                        return Ok(None);
                    }
                    if text.len() == before {
                        return Err(RenderError::Empty {
                            field: field.to_string(),
                            path: field.json_path(),
                            template: self.text.clone(),
                        });
                    }
                }
            }
        }
        let room =
            Room::new(text).map_err(|source| RenderError::Address { template: self.text.clone(), source })?;
        Ok(Some(room))
    }
}
