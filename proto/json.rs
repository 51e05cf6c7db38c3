//! Browser JSON: the mapping between an event's protobuf bytes and the JSON that browsers see,
//! implemented once for both directions.
//!
//! It is the canonical protobuf JSON mapping (protobuf.dev, "ProtoJSON Format") with three declared
//! differences:
//!
//! 1. 64-bit integers follow the standard `jstype` option: `JS_NUMBER` is a JSON number, and a
//!    value beyond ±(2^53−1) is refused; without it they are strings, as in the canonical mapping.
//! 2. An enum value may have its own text, `[(fanfare.v1.text) = "whatsapp"]`.
//! 3. Fields without presence are always included, with their default; unset `optional` and message
//!    fields are absent.
//!
//! Integers in `google.protobuf.Value` and `Struct` are written as integers (`3`, not `3.0`) up to
//! 2^53. In addition, fields marked `(fanfare.v1.internal)` are never visible, and timestamps have
//! exactly three fractional digits. Works directly on the wire bytes, with a plan made at load and
//! without dynamic messages.

mod found;
mod output;
mod path;
mod plan;
mod read;
mod shape;
mod special;
#[cfg(test)]
pub(crate) mod tests;
mod wire;
mod write;

use std::fmt;

pub use output::Attached;
pub use path::{FieldPath, FieldText, PathError};
pub(crate) use plan::{Selection, Values};
/// The plans themselves, for code that describes the JSON instead of writing it: the generated
/// types.
pub(crate) use shape::{FieldKind, FieldShape, MessageShape, Repetition, Special, Table};
pub use shape::{Shape, Shapes};

/// The largest integer that a JavaScript number represents exactly; its negative is the smallest.
pub const SAFE_INTEGER_MAX: i64 = (1 << 53) - 1;
/// Maximum nesting depth of messages in protobuf bytes and in JSON, including map entries.
pub const DEPTH_MAX: usize = 64;

/// The only key of an object that represents an attachment in a call's JSON. A `bytes` field
/// accepts such an object in addition to base64 text; every other field refuses it.
pub const ATTACHMENT_KEY: &str = "$bytes";

/// Maximum length of external text that an error repeats, in characters.
const NAME_CHARS_MAX: usize = 80;

/// Why a payload was refused: where and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadError {
    /// The field as browsers name it, e.g. `chatId` or `users[2].userId`; empty: the whole payload.
    pub path: String,
    /// What is wrong, and what would be correct.
    pub message: String,
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl std::error::Error for PayloadError {}

impl PayloadError {
    fn new(message: impl Into<String>) -> Self {
        Self { path: String::new(), message: message.into() }
    }

    /// The same error, relative to the message that contains the field.
    fn within(mut self, field: &str) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        // A map's key may be as long as the payload.
        let end = field.char_indices().nth(NAME_CHARS_MAX).map_or(field.len(), |(at, _)| at);
        self.path = format!("{}{joint}{}", &field[..end], self.path);
        self
    }

    fn at(mut self, index: usize) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("[{index}]{joint}{}", self.path);
        self
    }
}

/// The candidate that `name` was probably meant to be, if one is close.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate, allowed), candidate))
        .filter(|(far, _)| *far <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The Levenshtein distance, or more than `most`.
fn distance(a: &str, b: &str, most: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > most {
        return most + 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
