use std::sync::OnceLock;

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use super::*;

/// Every kind of field, with and without presence.
const PROTO: &str = r#"
syntax = "proto3";
package t;
import "fanfare/v1/catalog.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Plain { PLAIN_ZERO = 0; PLAIN_ONE = 1; }
enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1 [(fanfare.v1.text) = "red"]; COLOR_BLUE = 2 [(fanfare.v1.text) = "blue"]; }
message All {
  double f_double = 1; float f_float = 2; int32 f_int32 = 3; int64 f_int64 = 4; uint32 f_uint32 = 5; uint64 f_uint64 = 6;
  sint32 f_sint32 = 7; sint64 f_sint64 = 8; fixed32 f_fixed32 = 9; fixed64 f_fixed64 = 10; sfixed32 f_sfixed32 = 11;
  sfixed64 f_sfixed64 = 12; bool f_bool = 13; string f_string = 14; bytes f_bytes = 15; Plain f_enum = 16;
  optional int32 o_int32 = 17; optional string o_string = 18; optional Plain o_enum = 19; All child = 20;
  repeated int32 r_int32 = 21; repeated string r_string = 22; repeated All r_child = 23; repeated double r_double = 24 [packed = false];
  map<string, int64> m_string = 25; map<int32, All> m_child = 26; map<bool, string> m_bool = 27;
  oneof choice { string c_string = 28; int64 c_int64 = 29; All c_child = 30; }
  google.protobuf.Timestamp time = 31; google.protobuf.Duration duration = 32; google.protobuf.Struct object = 33;
  google.protobuf.Value value = 34; google.protobuf.StringValue w_string = 35; google.protobuf.Int64Value w_int64 = 36;
  google.protobuf.FieldMask mask = 37; repeated fixed64 r_fixed64 = 38;
}
message Ours {
  int64 id = 1 [jstype = JS_NUMBER];
  optional uint64 count = 2 [jstype = JS_NUMBER];
  Color color = 3;
  optional Color shade = 4;
  string secret = 5 [(fanfare.v1.internal) = true];
  google.protobuf.Timestamp at = 6;
  repeated Ours more = 7;
  string text = 8;
  oneof pick { string left = 9; string right = 10; }
}
"#;

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
        struct Own;
        impl FileResolver for Own {
            fn open_file(&self, name: &str) -> Result<File, protox::Error> {
                match name {
                    "t.proto" => File::from_source(name, PROTO),
                    "fanfare/v1/catalog.proto" => {
                        File::from_source(name, include_str!("../fanfare/v1/catalog.proto"))
                    }
                    _ => Err(protox::Error::file_not_found(name)),
                }
            }
        }
        let mut chain = ChainFileResolver::new();
        chain.add(Own);
        chain.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(chain);
        compiler.include_imports(true).open_file("t.proto").unwrap();
        compiler.descriptor_pool()
    })
}

fn shape(name: &str) -> std::sync::Arc<Shape> {
    static SHAPES: OnceLock<Shapes> = OnceLock::new();
    SHAPES.get_or_init(|| Shapes::new(pool())).get(name).unwrap()
}

fn json_of(name: &str, bytes: &[u8]) -> Result<String, PayloadError> {
    let mut out = Vec::new();
    shape(name).write_json(bytes, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn refusal(name: &str, json: &str) -> String {
    shape(name).read_json(json.as_bytes()).unwrap_err().to_string()
}

/// There and back: the JSON of what the JSON says.
fn round(name: &str, json: &str) -> String {
    json_of(name, &shape(name).read_json(json.as_bytes()).unwrap()).unwrap()
}

/// What prost-reflect writes, with the options nearest to ours.
fn oracle(bytes: &[u8]) -> Option<serde_json::Value> {
    let descriptor = pool().get_message_by_name("t.All").unwrap();
    let message = DynamicMessage::decode(descriptor, bytes).ok()?;
    let options = SerializeOptions::new().skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).ok()
}

/// The declared differences, taken out of a JSON value: `null` for unset fields, digits of time beyond milliseconds.
fn comparable(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let entries = map.into_iter().filter(|(k, v)| !v.is_null() || k.starts_with("any"));
            Value::Object(
                entries
                    .map(|(k, v)| if k == "time" { (k, Value::Null) } else { (k, comparable(v)) })
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(comparable).collect()),
        other => other,
    }
}

/// A valid message as JSON, from random parts.
fn all() -> impl Strategy<Value = serde_json::Value> {
    let leaf = (
        (any::<i32>(), any::<i64>(), any::<u32>(), any::<u64>()),
        (-1e300..1e300, ".{0,12}", any::<bool>(), prop::collection::vec(any::<u8>(), 0..9)),
        (
            prop::option::of(any::<i32>()),
            prop::option::of(".{0,4}"),
            prop::collection::vec(any::<i32>(), 0..4),
        ),
        (
            prop::collection::btree_map(".{0,4}", any::<i64>(), 0..3),
            0..3u8,
            -60_000_000_000i64..250_000_000_000,
            0..1000u32,
        ),
    );
    let leaf = leaf.prop_map(|((i, l, u, ul), (d, s, b, bytes), (oi, os, ri), (map, choice, seconds, millis))| {
        use base64::Engine as _;
        let time = chrono::DateTime::from_timestamp(seconds, millis * 1_000_000).unwrap();
        let mut value = serde_json::json!({
            "fDouble": d, "fFloat": 1.5, "fInt32": i, "fInt64": l.to_string(), "fUint32": u, "fUint64": ul.to_string(),
            "fSint32": i, "fSint64": l, "fFixed32": u, "fFixed64": ul, "fSfixed32": i, "fSfixed64": l, "fBool": b,
            "fString": s, "fBytes": base64::engine::general_purpose::STANDARD.encode(bytes),
            "fEnum": if b { "PLAIN_ONE" } else { "PLAIN_ZERO" }, "oInt32": oi, "oString": os, "rInt32": ri, "mString": map,
            "time": time.to_rfc3339(), "duration": format!("{}.5s", i.unsigned_abs()), "rDouble": [d, 0.0], "mBool": { "true": s },
            "object": { "a": [1.5, null, { "b": s }] }, "value": d, "wString": s, "wInt64": l.to_string(), "mask": "a,bC",
            "rFixed64": [ul], "rString": [s, ""],
        });
        match choice {
            0 => value["cString"] = s.into(),
            1 => value["cInt64"] = l.to_string().into(),
            _ => {}
        }
        value
    });
    leaf.prop_recursive(2, 6, 2, |inner| {
        (inner.clone(), inner).prop_map(|(mut outer, inner)| {
            outer["child"] = inner.clone();
            outer["mChild"] = serde_json::json!({ "-3": inner });
            outer["rChild"] = serde_json::json!([inner, {}]);
            outer
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn json_in_and_out_agrees_with_the_canonical_mapping(value in all()) {
        let json = value.to_string();
        let bytes = shape("t.All").read_json(json.as_bytes()).unwrap();
        let written = json_of("t.All", &bytes).unwrap();
        let ours: serde_json::Value = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(comparable(ours), comparable(oracle(&bytes).unwrap()));
        // And again: what was written is read back to the same bytes, but for the fields that defaults made explicit.
        let again = shape("t.All").read_json(written.as_bytes()).unwrap();
        prop_assert_eq!(json_of("t.All", &again).unwrap(), written);
    }

    #[test]
    fn mutated_bytes_are_valid_exactly_when_protobuf_says_so(value in all(), at: prop::sample::Index, byte: u8) {
        let mut bytes = shape("t.All").read_json(value.to_string().as_bytes()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let valid = shape("t.All").validate(&bytes);
        let mut out = Vec::new();
        prop_assert_eq!(&shape("t.All").write_json(&bytes, &mut out), &valid);
        let decoded = DynamicMessage::decode(pool().get_message_by_name("t.All").unwrap(), bytes.as_slice());
        if valid.is_ok() {
            prop_assert!(decoded.is_ok(), "accepted what protobuf refuses: {:?}", decoded);
            serde_json::from_slice::<serde_json::Value>(&out).unwrap();
        }
        // The other way round there are values without browser JSON: numbers of enums, times, NaN in a Value.
    }

    #[test]
    fn any_bytes_are_judged_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for name in ["t.All", "t.Ours"] {
            let _any = shape(name).validate(&bytes);
            let _any = shape(name).path("text").map(|p| p.text(&bytes));
        }
    }

    #[test]
    fn any_json_is_judged_without_panic(json in "[\\[\\]{}\":,a-zA-Z0-9.\\\\ -]{0,60}") {
        let _any = shape("t.All").read_json(json.as_bytes());
        let _any = shape("t.Ours").read_json(json.as_bytes());
    }
}

#[test]
fn the_declared_differences() {
    assert_eq!(
        round("t.Ours", r#"{"id":"9007199254740991","color":"red","at":"2026-01-31T13:00:00.9999+01:00"}"#),
        r#"{"id":9007199254740991,"color":"red","at":"2026-01-31T12:00:00.999Z","more":[],"text":""}"#
    );
    assert_eq!(
        round("t.Ours", r#"{"id":-1.0,"color":2,"shade":"COLOR_RED","count":0,"text":null,"right":"r"}"#),
        r#"{"id":-1,"count":0,"color":"blue","shade":"red","more":[],"text":"","right":"r"}"#
    );
}

#[test]
fn json_is_refused_with_place_and_remedy() {
    for (json, message) in [
        (r#"{"id":9007199254740992}"#, "id: 9007199254740992 is beyond ±9007199254740991"),
        (r#"{"id":-9007199254740992}"#, "id: -9007199254740992 is beyond"),
        (r#"{"id":true}"#, "id: want an integer, got true"),
        (r#"{"id":[1]}"#, "id: want an integer, got an array"),
        (r#"{"color":"green"}"#, r#"color: want one of "red", "blue", got the string "green""#),
        (r#"{"color":9}"#, r#"color: want one of "red", "blue", got the number 9"#),
        (r#"{"colour":"red"}"#, r#"t.Ours has no field "colour" (did you mean "color"?)"#),
        (r#"{"secret":"x"}"#, r#"t.Ours has no field "secret""#),
        (r#"{"id":1,"id":2}"#, r#"the field "id" is there twice"#),
        (r#"{"left":"a","right":"b"}"#, r#""left" and "right" exclude each other"#),
        (
            r#"{"more":[{"id":1},{"more":[{"text":7}]}]}"#,
            "more[1].more[0].text: want a string, got the number 7",
        ),
        (r#"{"more":[null]}"#, "more[0]: null cannot stand in a list"),
        (
            r#"{"at":"yesterday"}"#,
            r#"at: want a time such as "2026-01-31T12:00:00.000Z", got the string "yesterday""#,
        ),
        (r#"{} {}"#, "not valid JSON: trailing characters"),
        (r#"{"id":1"#, "not valid JSON: EOF"),
        ("[]", "want an object, got an array"),
    ] {
        let refused = refusal("t.Ours", json);
        assert!(refused.starts_with(message), "{json}: {refused}");
    }
    let deep = format!("{}{}", r#"{"more":["#.repeat(100), "]}".repeat(100));
    assert!(
        refusal("t.Ours", &deep).contains("recursion limit exceeded"),
        "the parser's own bound is 128 levels of JSON"
    );
}

#[test]
fn bytes_are_refused_with_place_and_remedy() {
    let refused = |bytes: &[u8]| shape("t.Ours").validate(bytes).unwrap_err().to_string();
    assert!(refused(&[]).starts_with(r#"color: is unset: want one of "red", "blue""#));
    assert!(refused(&[0x18, 9]).starts_with("color: 9 is not a value of t.Color"));
    assert!(refused(&[0x18, 1, 0x42, 1, 0xff]).starts_with("text: the string is not UTF-8"));
    assert!(
        refused(&[0x18, 1, 0x2a, 1, 0xff]).starts_with("secret: the string is not UTF-8"),
        "also what nobody sees"
    );
    assert!(refused(&[0x18, 1, 0x3a, 2, 0x18, 7]).starts_with("more[0].color: 7 is not"));
    let too_late = [0x18, 1, 0x32, 7, 0x08, 0x80, 0xdc, 0xea, 0xaf, 0xbd, 0x0f];
    assert!(refused(&too_late).contains("no time: want years 1 to 9999"), "{}", refused(&too_late));
}

#[test]
fn the_last_value_counts_and_messages_merge() {
    // text "a", then "b"; a member of the oneof, then the other.
    let bytes = [0x18, 1, 0x42, 1, b'a', 0x42, 1, b'b', 0x4a, 1, b'l', 0x52, 1, b'r'];
    assert_eq!(
        json_of("t.Ours", &bytes).unwrap(),
        r#"{"id":0,"color":"red","more":[],"text":"b","right":"r"}"#
    );
    // child { f_int32: 1 } and child { f_bool: true } are one child.
    let bytes = [0xa2, 1, 2, 0x18, 1, 0xa2, 1, 2, 0x68, 1];
    let json: serde_json::Value = serde_json::from_str(&json_of("t.All", &bytes).unwrap()).unwrap();
    assert_eq!((&json["child"]["fInt32"], &json["child"]["fBool"]), (&1.into(), &true.into()));
}

#[test]
fn paths_give_text_or_say_why_not() {
    let ours = shape("t.Ours");
    let text = |path: &str, bytes: &[u8]| ours.path(path).unwrap().text(bytes).unwrap();
    assert_eq!(text("id", &[0x08, 0x07]), FieldText::Value("7".into()));
    assert_eq!(text("count", &[]), FieldText::Unset);
    assert_eq!(text("color", &[0x18, 2]), FieldText::Value("blue".into()));
    assert_eq!(text("at.seconds", &[0x32, 2, 0x08, 5]), FieldText::Value("5".into()));
    assert_eq!(text("at.seconds", &[]), FieldText::Unset);
    let error = |path: &str| ours.path(path).unwrap_err().to_string();
    assert_eq!(error("colr"), r#"names no field of t.Ours (did you mean "color"?)"#);
    assert_eq!(error("more"), "names more, which is not a singular string, integer or enum field");
    assert_eq!(error("at"), "names at, which is not a singular string, integer or enum field");
}

#[test]
fn near_names_are_found() {
    assert_eq!(closest("chatid", ["chat_id", "id"]), Some("chat_id"));
    assert_eq!(closest("x", ["chat_id", "abc"]), None);
    let message = DynamicMessage::new(pool().get_message_by_name("t.Ours").unwrap());
    assert!(message.encode_to_vec().is_empty());
}
