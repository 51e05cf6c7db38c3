//! A payload that is valid for its event, and the rooms that its fields name.

use super::{EventType, RenderError};
use crate::{
    json::{PayloadError, Values},
    room::Room,
};

/// A payload that is valid for its event.
#[derive(Debug)]
pub struct ValidPayload<'a> {
    kind: &'a EventType,
    bytes: &'a [u8],
    /// The values of the fields that the rooms name. `None`: they must be read from the bytes.
    values: Option<Values<'a>>,
}

impl EventType {
    /// Checks bytes received from a producer, see
    /// [`Shape::validate`](crate::json::Shape::validate), and records the values that name its
    /// rooms in the same pass.
    pub fn check<'a>(&'a self, bytes: &'a [u8]) -> Result<ValidPayload<'a>, PayloadError> {
        let values = match &self.room_fields {
            Some(fields) => self.shape.check(bytes, fields)?,
            None => {
                self.shape.validate(bytes)?;
                None
            }
        };
        Ok(ValidPayload { kind: self, bytes, values })
    }
}

impl ValidPayload<'_> {
    /// The rooms that the event's type declares, in the order of its templates. A template with an
    /// unset field yields no room.
    pub fn rooms(&self) -> Result<Vec<Room>, RenderError> {
        let mut rooms = Vec::with_capacity(self.kind.rooms.len());
        let Some(values) = &self.values else {
            for template in &self.kind.rooms {
                rooms.extend(template.render(self.bytes)?);
            }
            return Ok(rooms);
        };
        let (mut text, mut before) = (String::new(), 0);
        for template in &self.kind.rooms {
            let mut values = values[before..].iter();
            before += template.fields().count();
            rooms.extend(template.render_with(&mut text, |field, out| match values.next() {
                Some(value) => field.push_value(*value, out),
                None => Ok(false),
            })?);
        }
        Ok(rooms)
    }
}
