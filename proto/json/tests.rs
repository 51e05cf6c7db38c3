mod canonical;
pub(crate) mod oracle;
mod plan;

use std::sync::OnceLock;

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use super::*;

/// Every kind of field, with and without presence.
pub(crate) const PROTO: &str = r#"
syntax = "proto3";
package t;
import "fanfare/v1/catalog.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
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
  google.protobuf.FieldMask mask = 37; repeated fixed64 r_fixed64 = 38; map<string, Plain> m_enum = 39; repeated Plain r_enum = 40;
  google.protobuf.ListValue list = 41; google.protobuf.BytesValue w_bytes = 42; google.protobuf.BoolValue w_bool = 43;
  google.protobuf.DoubleValue w_double = 44; google.protobuf.UInt32Value w_uint32 = 45; google.protobuf.Empty empty = 46;
  repeated google.protobuf.Duration durations = 47; map<string, google.protobuf.Value> m_value = 48;
}
// Nothing but what the wire format itself says of right and wrong, with maps and without.
message Raw {
  int32 a = 1; sint64 b = 2; fixed32 c = 3; double d = 4; string e = 5; bytes f = 6; optional bool g = 7;
  repeated uint32 h = 8; repeated float i = 9; repeated sfixed64 j = 10; repeated string k = 11; Raw l = 12; repeated Raw m = 13;
  map<string, Raw> n = 14; map<uint64, bytes> o = 15; oneof p { string q = 16; Raw r = 17; uint64 s = 18; }
  repeated sint32 t = 2047 [packed = false];
}
message Bare {
  int32 a = 1; sint64 b = 2; fixed32 c = 3; double d = 4; string e = 5; bytes f = 6; optional bool g = 7;
  repeated uint32 h = 8; repeated float i = 9; repeated sfixed64 j = 10; repeated string k = 11; Bare l = 12; repeated Bare m = 13;
  oneof p { string q = 16; Bare r = 17; uint64 s = 18; } repeated sint32 t = 2047 [packed = false];
}
enum Alias { option allow_alias = true; ALIAS_ZERO = 0; ALIAS_FIRST = 1; ALIAS_AGAIN = 1; }
message Aliased { Alias alias = 1; }
message Holds { google.protobuf.Any any = 1; google.protobuf.NullValue null = 2; repeated google.protobuf.NullValue nulls = 3; }
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

/// A round trip: the JSON of the message that the JSON describes.
fn round(name: &str, json: &str) -> String {
    json_of(name, &shape(name).read_json(json.as_bytes()).unwrap()).unwrap()
}

/// The JSON that prost-reflect writes, with the options closest to our mapping.
fn oracle(bytes: &[u8]) -> Option<serde_json::Value> {
    let descriptor = pool().get_message_by_name("t.All").unwrap();
    let message = DynamicMessage::decode(descriptor, bytes).ok()?;
    let options = SerializeOptions::new().skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).ok()
}

/// Removes the declared differences from a JSON value: `null` for unset fields, and fractional
/// digits beyond milliseconds.
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
        // In free JSON an integer is written without `.0`; the number is the same.
        Value::Number(number) => number.as_f64().map_or(Value::Number(number), Value::from),
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
        // The written JSON is read back to the same bytes, except for fields that defaults made
        // explicit.
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
        // In the other direction, some values have no browser JSON: enum numbers, times, NaN in a
        // Value.
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
fn the_first_of_several_names_of_an_enum_value_is_written() {
    for name in ["\"ALIAS_FIRST\"", "\"ALIAS_AGAIN\"", "1"] {
        assert_eq!(round("t.Aliased", &format!("{{\"alias\":{name}}}")), r#"{"alias":"ALIAS_FIRST"}"#);
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
        (r#"{"colour":"red"}"#, r#"colour: t.Ours has no field "colour" (did you mean "color"?)"#),
        (r#"{"secret":"x"}"#, r#"secret: t.Ours has no field "secret""#),
        (r#"{"id":1,"id":2}"#, r#"id: the field "id" is there twice"#),
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
        (r#"{"at":"0000-12-31T23:59:59Z"}"#, "at: want a time"),
        (r#"{"at":"9999-12-31T23:59:59-00:01"}"#, "at: want a time"),
        (r#"{"at":"2026-01-31 12:00:00Z"}"#, "at: want a time"),
        (r#"{"at":"2026-01-31T12:00:00.0000000001Z"}"#, "at: want a time"),
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
fn values_of_lists_and_maps_are_refused_for_what_they_are() {
    let long = "k".repeat(100_000);
    for (json, message) in [
        (r#"{"rInt32":7}"#, "rInt32: want an array, got the number 7"),
        (r#"{"rInt32":[1,"x"]}"#, r#"rInt32[1]: want an integer, got the string "x""#),
        (r#"{"rInt32":[1,[2]]}"#, "rInt32[1]: want an integer, got an array"),
        (
            r#"{"rInt32":[2147483648]}"#,
            "rInt32[0]: 2147483648 is out of range: want -2147483648 to 2147483647",
        ),
        (r#"{"rString":[null]}"#, "rString[0]: null cannot stand in a list or map"),
        (r#"{"rString":[{}]}"#, "rString[0]: want a string, got an object"),
        (r#"{"rDouble":["x"]}"#, r#"rDouble[0]: want a number, got the string "x""#),
        (r#"{"rEnum":["x"]}"#, r#"rEnum[0]: want one of "PLAIN_ZERO", "PLAIN_ONE", got the string "x""#),
        (r#"{"rChild":[{},3]}"#, "rChild[1]: want an object, got the number 3"),
        (r#"{"mString":[]}"#, "mString: want an object, got an array"),
        (r#"{"mString":{"a":null}}"#, "mString.a: null cannot stand in a list or map"),
        (r#"{"mString":{"a":[]}}"#, "mString.a: want an integer, got an array"),
        (r#"{"mString":{"a":1,"a":2}}"#, "mString.a: the key is there twice"),
        (r#"{"mBool":{"yes":""}}"#, r#"mBool.yes: want true or false, got the string "yes""#),
        (r#"{"mChild":{"1":{},"01":{}}}"#, "mChild.01: the key is there twice"),
        (r#"{"mEnum":{"a":7}}"#, "mEnum.a: want one of"),
        (r#"{"fInt32":1,"f_int32":1}"#, r#"fInt32: the field "fInt32" is there twice"#),
        (
            r#"{"fUint64":1e30}"#,
            "fUint64: 1000000000000000019884624838656 is out of range: want 0 to 18446744073709551615",
        ),
        (r#"{"fFloat":1e39}"#, "fFloat: 1000000000000000000000000000000000000000 does not fit a float"),
        (r#"{"fBytes":"*"}"#, r#"fBytes: want bytes as base64 text, got the string "*""#),
        (r#"{"mask":"a_b"}"#, "mask: want field names in lowerCamelCase"),
        (r#"{"duration":"1."}"#, "duration: want a duration"),
        (r#"{"duration":"1.s"}"#, "duration: want a duration"),
    ] {
        let refused = refusal("t.All", json);
        assert!(refused.starts_with(message), "{json}: {refused}");
    }
    let refused = refusal("t.All", &format!(r#"{{"mString":{{"{long}":true}}}}"#));
    assert!(refused.len() < 200, "a long key is cut: {} bytes", refused.len());
    for json in
        [r#"{"fUint64":1.8e19}"#, r#"{"fInt32":-0}"#, r#"{"fInt32":1e3}"#, r#"{"rInt32":["7",7.0]}"#, ""]
    {
        shape("t.All").read_json(json.as_bytes()).unwrap();
    }
}

#[test]
fn base64_is_read_in_all_its_spellings() {
    for text in ["-_8=", "-_8", "+/8=", "+/8"] {
        let bytes = shape("t.All").read_json(format!(r#"{{"fBytes":"{text}"}}"#).as_bytes()).unwrap();
        assert_eq!(bytes, [0x7a, 2, 0xfb, 0xff]);
    }
}

#[test]
fn numbers_that_json_has_not_are_texts() {
    let json = r#"{"fDouble":"-Infinity","fFloat":"NaN","rDouble":["Infinity"],"wDouble":"Infinity"}"#;
    let written: serde_json::Value = serde_json::from_str(&round("t.All", json)).unwrap();
    let expected: serde_json::Value = serde_json::from_str(json).unwrap();
    for field in ["fDouble", "fFloat", "rDouble", "wDouble"] {
        assert_eq!(written[field], expected[field]);
    }
    // A google.protobuf.Value can be any JSON, but never one of these.
    let mut infinite = vec![0x92, 2, 9, 0x11];
    infinite.extend(f64::INFINITY.to_le_bytes());
    let refused = shape("t.All").validate(&infinite).unwrap_err().to_string();
    assert_eq!(refused, "value: a google.protobuf.Value cannot hold NaN or Infinity");
}

#[test]
fn both_forms_are_written_in_one_pass_with_attachments_in_order_of_appearance() {
    let json = r#"{"fBytes":"AQI=","rChild":[{"fBytes":"Aw=="},{}],"child":{"fBytes":"BA=="},"fString":"x"}"#;
    let bytes = shape("t.All").read_json(json.as_bytes()).unwrap();
    let mut plain = Vec::new();
    let attached = shape("t.All").write_both(&bytes, &mut plain).unwrap();
    assert_eq!(String::from_utf8(plain.clone()).unwrap(), json_of("t.All", &bytes).unwrap());
    // Restoring the attachments yields the other form.
    let (mut restored, mut seen) = (String::from_utf8(attached.json).unwrap(), Vec::new());
    for (num, attachment) in attached.attachments.iter().enumerate() {
        use base64::Engine as _;
        let placeholder = format!(r#"{{"_placeholder":true,"num":{num}}}"#);
        seen.push(restored.find(&placeholder).expect("each once"));
        let text = base64::engine::general_purpose::STANDARD.encode(attachment);
        restored = restored.replacen(&placeholder, &format!("\"{text}\""), 1);
    }
    assert_eq!(restored.as_bytes(), plain);
    assert!(seen.is_sorted() && seen.len() >= 4, "an unset field is an empty attachment: {seen:?}");
    assert!(shape("t.All").has_bytes() && !shape("google.protobuf.Timestamp").has_bytes());
    assert!(shape("google.protobuf.BytesValue").has_bytes());
}

#[test]
fn integers_in_free_json_are_written_as_integers() {
    for (number, written) in [
        ("3", "3"),
        ("3.0", "3"),
        ("-7e3", "-7000"),
        ("0", "0"),
        ("-0.0", "-0.0"),
        ("2.5", "2.5"),
        ("9007199254740992", "9007199254740992"),
        ("-9007199254740992", "-9007199254740992"),
        // Beyond 2^53 not every integer is representable.
        ("9007199254740994", "9007199254740994.0"),
    ] {
        let json = format!(r#"{{"object":{{"a":[{number}],"b":{number}}},"value":{number}}}"#);
        let all = round("t.All", &json);
        let wanted = format!(r#""object":{{"a":[{written}],"b":{written}}}"#);
        assert!(all.contains(&wanted) && all.contains(&format!(r#""value":{written}"#)), "{number}: {all}");
    }
    // A field that is declared as a double stays one.
    assert!(round("t.All", r#"{"fDouble":3,"wDouble":3}"#).contains(r#""fDouble":3.0"#));
}

#[test]
fn any_is_refused_and_null_values_are_null() {
    let refused = shape("t.Holds").validate(&[0x0a, 0]).unwrap_err().to_string();
    assert_eq!(refused, "any: google.protobuf.Any has no browser JSON");
    assert_eq!(round("t.Holds", r#"{"nulls":[null,null]}"#), r#"{"null":null,"nulls":[null,null]}"#);
    assert!(refusal("t.Holds", r#"{"any":{}}"#).starts_with("any: want nothing"));
}

#[test]
fn masks_without_json_are_refused() {
    let mask = |path: &str| {
        let inner = [&[0x0a, u8::try_from(path.len()).unwrap()], path.as_bytes()].concat();
        [&[0xaa, 2, u8::try_from(inner.len()).unwrap()], inner.as_slice()].concat()
    };
    assert_eq!(shape("t.All").validate(&mask("chat_id.name")), Ok(()));
    for path in ["chatId", "chat__id", "chat_", "a,b", ""] {
        let refused = shape("t.All").validate(&mask(path)).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("mask: the path {path:?} has no browser JSON")), "{refused}");
    }
}

/// `levels` nested messages, each in the field that `wrap` writes.
fn nested(levels: usize, wrap: impl Fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    (0..levels).fold(Vec::new(), |inner, _| wrap(inner))
}

fn delimited(field: u32, inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(inner.len() as u64, &mut out);
    out.extend_from_slice(inner);
    out
}

#[test]
fn what_is_valid_nests_no_deeper_than_protobuf_libraries_read() {
    let raw = shape("t.Raw");
    let child = |inner: Vec<u8>| delimited(12, &inner);
    let in_map = |inner: Vec<u8>| delimited(14, &delimited(2, &inner));
    assert_eq!(raw.validate(&nested(DEPTH_MAX, child)), Ok(()));
    assert!(raw.validate(&nested(DEPTH_MAX + 1, child)).unwrap_err().message.contains("deeper than 64"));
    assert!(raw.validate(&nested(100_000, child)).is_err());
    for levels in 1..=DEPTH_MAX {
        let bytes = nested(levels, in_map);
        let valid = raw.validate(&bytes);
        assert_eq!(valid.is_ok(), levels <= DEPTH_MAX / 2, "{levels}");
        if valid.is_ok() {
            DynamicMessage::decode(pool().get_message_by_name("t.Raw").unwrap(), bytes.as_slice()).unwrap();
            let json = json_of("t.Raw", &bytes).unwrap();
            assert_eq!(json_of("t.Raw", &raw.read_json(json.as_bytes()).unwrap()).unwrap(), json);
        }
    }
    for levels in 1..70 {
        let json = format!(r#"{{"value":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        if let Ok(bytes) = shape("t.All").read_json(json.as_bytes()) {
            assert_eq!(shape("t.All").validate(&bytes), Ok(()), "{levels}");
        }
    }
}

#[test]
fn what_is_overwritten_must_be_valid_too() {
    // A member of the oneof whose packed list ends in the middle of a number, then another member.
    let hidden = [delimited(17, &[0x42, 1, 0x80]), vec![0x90, 1, 1]].concat();
    let refused = shape("t.Raw").validate(&hidden).unwrap_err().to_string();
    assert!(refused.starts_with("r.h: not valid protobuf: the bytes end"), "{refused}");
    let wrong_type = shape("t.Raw").validate(&[0x0d, 0, 0, 0, 0]).unwrap_err().to_string();
    assert!(wrong_type.starts_with("a: not valid protobuf: the wire type"), "{wrong_type}");
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
    assert_eq!(text("text", &[]), FieldText::Default(String::new()));
    assert_eq!(text("id", &[]), FieldText::Default("0".into()));
    assert_eq!(text("id", &[0x08, 0]), FieldText::Value("0".into()));
    assert_eq!(text("shade", &[]), FieldText::Unset);
    assert_eq!(text("shade", &[0x20, 0]), FieldText::Value("COLOR_UNSPECIFIED".into()));
    // Absent and zero are the same for a field without presence.
    for bytes in [&[][..], &[0x18, 0]] {
        let refused = ours.path("color").unwrap().text(bytes).unwrap_err().to_string();
        assert!(refused.starts_with(r#"color: is unset: want one of "red""#), "{refused}");
    }
    let plain = |bytes| shape("t.All").path("f_enum").unwrap().text(bytes).unwrap();
    assert_eq!(plain(&[]), FieldText::Default("PLAIN_ZERO".into()));
    assert_eq!(plain(&[0x80, 1, 0]), FieldText::Value("PLAIN_ZERO".into()));
    let refused = ours.path("at.seconds").unwrap().text(&[0x32, 2, 0x0a, 0]).unwrap_err().to_string();
    assert!(refused.starts_with("at.seconds: not valid protobuf"), "{refused}");
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
