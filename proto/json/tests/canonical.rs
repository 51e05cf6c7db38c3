//! The JSON of clients that may also call over gRPC: JSON from generated code can be read, and
//! generated code can read the JSON written here.

use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage};

use super::{pool, shape};
use crate::json::PayloadError;

/// The bytes that prost-reflect creates from canonical JSON.
fn theirs(name: &str, json: &str) -> Vec<u8> {
    let descriptor = pool().get_message_by_name(name).unwrap();
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(descriptor, &mut deserializer, &options);
    message.unwrap().encode_to_vec()
}

/// The bytes that our code creates, with fields in the order of their numbers.
fn ours(name: &str, json: &str) -> Result<Vec<u8>, PayloadError> {
    let bytes = shape(name).read_canonical(json.as_bytes())?;
    let descriptor = pool().get_message_by_name(name).unwrap();
    Ok(DynamicMessage::decode(descriptor, &bytes[..]).unwrap().encode_to_vec())
}

const OURS: &str =
    r#"{"id":"7","color":"COLOR_RED","secret":"s","more":[{"id":8,"color":"COLOR_RED"}],"left":"l"}"#;

#[test]
fn what_is_written_is_what_others_read() {
    let read = shape("t.Ours").read_canonical(OURS.as_bytes()).unwrap();
    let written = String::from_utf8(shape("t.Ours").write_canonical(&read).unwrap()).unwrap();
    assert_eq!(theirs("t.Ours", &written), theirs("t.Ours", OURS));
    assert!(written.contains(r#""color":"COLOR_RED""#) && written.contains(r#""secret":"s""#), "{written}");
    // An unset enum has no browser JSON.
    let unset = String::from_utf8(shape("t.Ours").write_canonical(&[]).unwrap()).unwrap();
    assert_eq!(theirs("t.Ours", &unset), theirs("t.Ours", "{}"));
    assert!(shape("t.Ours").read_json(br#"{"secret":"s"}"#).is_err(), "browsers do not set it");
}

#[test]
fn an_any_is_read_wherever_its_type_stands() {
    let first = r#"{"any":{"@type":"type.googleapis.com/t.Ours","id":"7","secret":"s"}}"#;
    let last = r#"{"any":{"id":7,"secret":"s","@type":"type.googleapis.com/t.Ours"}}"#;
    for json in [first, last, "{}"] {
        assert_eq!(ours("t.Holds", json).unwrap(), theirs("t.Holds", json), "{json}");
    }
}

#[test]
fn a_wrong_any_is_refused_where_it_is_wrong() {
    let refusal = |json: &str| ours("t.Holds", json).unwrap_err().to_string();
    assert_eq!(
        refusal(r#"{"any":{"id":1}}"#),
        r#"any: want "@type", e.g. "type.googleapis.com/messenger.v1.NewMessage""#
    );
    let wrong = r#"{"any":{"more":[{"id":"x"}],"@type":"type.googleapis.com/t.Ours"}}"#;
    assert_eq!(refusal(wrong), r#"any.more[0].id: want an integer, got the string "x""#);
    assert_eq!(refusal(r#"{"any":{"@type":"a/t.None"}}"#), r#"any: no catalog has the type "t.None""#);
    let twice = r#"{"any":{"@type":"a/t.Ours","id":1,"id":2}}"#;
    assert_eq!(refusal(twice), r#"any: the field "id" is there twice"#);
    let nested = r#"{"any":{"@type":"a/t.Holds","any":{"@type":"a/t.Ours"}}}"#;
    assert!(refusal(nested).starts_with("any.any: "), "{}", refusal(nested));
    // The restriction inside an Any does not apply to the fields after it.
    let two = r#"{"any":{"@type":"type.googleapis.com/t.Ours"},"null":null}"#;
    assert!(ours("t.Holds", two).is_ok());
    assert!(shape("t.Holds").read_json(br#"{"any":{}}"#).is_err(), "browsers send none");
}

#[test]
fn an_any_is_written_with_its_type_first() {
    let json = r#"{"any":{"@type":"type.googleapis.com/t.Ours","id":"7","secret":"s"}}"#;
    let bytes = shape("t.Holds").read_canonical(json.as_bytes()).unwrap();
    let written = String::from_utf8(shape("t.Holds").write_canonical(&bytes).unwrap()).unwrap();
    assert!(written.contains(r#""any":{"@type":"type.googleapis.com/t.Ours","id":7,"#), "{written}");
    let mut out = Vec::new();
    assert!(shape("t.Holds").write_json(&bytes, &mut out).is_err(), "browsers get none");
}
