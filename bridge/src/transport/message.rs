//! The JSON messages of the plain transports: an event's name as `type`, next to the payload's
//! fields.

use std::collections::HashMap;

use fanfare_proto::v1::Delivery;
use serde_json::{Value, json, value::RawValue};

use crate::refusal::Refusal;

/// An event as one JSON object. A payload that has its own field `type` (or `cursor`, if a cursor
/// is given) is nested in `payload` instead.
pub(crate) fn message(event: &Delivery, cursor: Option<&str>) -> String {
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

/// The acknowledgement of a call.
pub(crate) fn acknowledgement(id: i64, json: &[u8]) -> String {
    format!("{{\"type\":\"ack\",\"ref\":{id},\"data\":{}}}", String::from_utf8_lossy(json))
}

/// A refusal; with the id of the call, if it has one.
pub(crate) fn failure(id: Option<i64>, refusal: &Refusal) -> String {
    let mut message = refusal.json();
    message["type"] = "error".into();
    if let Some(id) = id {
        message["ref"] = id.into();
    }
    message.to_string()
}

/// Reports a gap: reading continues at this cursor.
pub(crate) fn reset(cursor: &str) -> String {
    json!({ "type": "reset", "cursor": cursor }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> Delivery {
        Delivery { name: "a:b".into(), json: json.to_owned().into(), ..Delivery::default() }
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
