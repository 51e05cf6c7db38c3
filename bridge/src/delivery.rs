//! An event on its way to browsers: what the server made once, and the text that each transport makes of it once.

use std::{collections::HashMap, sync::OnceLock};

use fanfare_proto::{cursor::Cursor, v1};
use serde_json::{Value, value::RawValue};

use crate::transport::{socketio, websocket};

/// An event for browsers, shared by all its recipients.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) event: v1::Delivery,
    socketio: OnceLock<socketio::Text>,
    message: OnceLock<websocket::Text>,
    message_with_cursor: OnceLock<websocket::Text>,
}

impl Delivery {
    pub(crate) const fn new(event: v1::Delivery) -> Self {
        Self {
            event,
            socketio: OnceLock::new(),
            message: OnceLock::new(),
            message_with_cursor: OnceLock::new(),
        }
    }

    /// The Socket.IO packet of the event.
    pub(crate) fn socketio(&self) -> &socketio::Text {
        self.socketio.get_or_init(|| socketio::event(&self.event))
    }

    /// The event as one JSON object: its name as `type`, beside the payload's fields.
    pub(crate) fn message(&self) -> &websocket::Text {
        self.message.get_or_init(|| message(&self.event, None).into())
    }

    /// The same with the place behind the event as `cursor`, where it has one.
    pub(crate) fn message_with_cursor(&self) -> &websocket::Text {
        self.message_with_cursor.get_or_init(|| message(&self.event, self.cursor()).into())
    }

    /// The place behind the event; none for those that are not stored.
    pub(crate) fn cursor(&self) -> Option<&str> {
        (!self.event.ephemeral).then_some(self.event.id.as_str())
    }

    /// Whether it comes later in the log than a cursor, as far as it is in the log at all.
    pub(crate) fn is_after(&self, upto: &str) -> bool {
        let own = self.cursor().and_then(|cursor| cursor.parse::<Cursor>().ok());
        let (Some(own), Ok(upto)) = (own, upto.parse::<Cursor>()) else { return true };
        own.epoch != upto.epoch || own.seq > upto.seq
    }
}

/// An event as one JSON object, with a cursor. A payload that has a field `type` (or `cursor`, where there is one) of its own
/// stands apart, as `payload`.
pub(crate) fn message(event: &v1::Delivery, cursor: Option<&str>) -> String {
    let payload = String::from_utf8_lossy(&event.json);
    let mut text = String::with_capacity(payload.len() + event.name.len() + 64);
    text.push_str("{\"type\":");
    text.push_str(&Value::from(event.name.as_str()).to_string());
    let inner = payload.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    match inner.filter(|_| !clashes(&payload, cursor.is_some())) {
        Some("") => {}
        Some(fields) => {
            text.push(',');
            text.push_str(fields);
        }
        None => {
            text.push_str(",\"payload\":");
            text.push_str(&payload);
        }
    }
    if let Some(cursor) = cursor {
        text.push_str(",\"cursor\":");
        text.push_str(&Value::from(cursor).to_string());
    }
    text.push('}');
    text
}

fn clashes(payload: &str, with_cursor: bool) -> bool {
    let suspected = payload.contains("\"type\"") || (with_cursor && payload.contains("\"cursor\""));
    if !suspected {
        return false;
    }
    let fields: HashMap<String, &RawValue> = serde_json::from_str(payload).unwrap_or_default();
    fields.contains_key("type") || (with_cursor && fields.contains_key("cursor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> v1::Delivery {
        v1::Delivery { name: "a:b".into(), json: json.to_owned().into(), ..v1::Delivery::default() }
    }

    #[test]
    fn fields_stand_beside_the_type_unless_they_clash() {
        assert_eq!(message(&event("{}"), None), r#"{"type":"a:b"}"#);
        assert_eq!(message(&event(r#"{"x":1}"#), None), r#"{"type":"a:b","x":1}"#);
        assert_eq!(message(&event(r#"{"x":1}"#), Some("c-1")), r#"{"type":"a:b","x":1,"cursor":"c-1"}"#);
        assert_eq!(message(&event(r#"{"type":1}"#), None), r#"{"type":"a:b","payload":{"type":1}}"#);
        assert_eq!(message(&event(r#"{"x":{"type":1}}"#), None), r#"{"type":"a:b","x":{"type":1}}"#);
        assert_eq!(message(&event(r#"{"cursor":1}"#), None), r#"{"type":"a:b","cursor":1}"#);
        let apart = r#"{"type":"a:b","payload":{"cursor":1},"cursor":"c-1"}"#;
        assert_eq!(message(&event(r#"{"cursor":1}"#), Some("c-1")), apart);
    }
}
