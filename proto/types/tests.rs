use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value, json};

use super::*;
use crate::{
    catalog::Builtin,
    json::tests::{
        PROTO,
        oracle::{Choices, Times, random},
    },
    v1::Transport,
};

/// All special cases: reserved names, both sides, oneofs, texts, comments, free JSON.
const SPECIAL: &str = r#"
syntax = "proto3";
package special.v1;
import "fanfare/v1/catalog.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1 [(fanfare.v1.text) = "red"]; COLOR_BLUE = 2 [(fanfare.v1.text) = "blue"]; }
enum Plain { option allow_alias = true; PLAIN_ZERO = 0; PLAIN_ONE = 1; PLAIN_UNO = 1; PLAIN_MINUS = -1; }
// One of each. */ is no end.
message Kinds {
  option (fanfare.v1.event) = { name: "kinds" rooms: "org" };
  double double = 1; int32 int32 = 2; uint64 text64 = 3; uint64 number64 = 4 [jstype = JS_NUMBER]; bool yes = 5;
  bytes raw = 6; Color color = 7; optional Color shade = 8; repeated Color colors = 9; Plain plain = 10;
  map<string, Color> by_name = 11; map<int64, Inner> by_number = 12; map<bool, string> by_bool = 13;
  google.protobuf.Timestamp time = 14; google.protobuf.Duration duration = 15; google.protobuf.FieldMask mask = 16;
  google.protobuf.Struct object = 17; google.protobuf.Value value = 18; google.protobuf.ListValue list = 19;
  google.protobuf.StringValue wrapped = 20; google.protobuf.Int64Value wrapped64 = 21; google.protobuf.NullValue null = 22;
  google.protobuf.Empty empty = 23; repeated float floats = 24; string odd = 25 [json_name = "odd-name"];
  string secret = 26 [(fanfare.v1.internal) = true];
  /*
   * Above.
   *
   * And below.
   */
  string long = 27;
  string behind = 28; // Behind it.
  message Inner { Kinds back = 1; repeated Inner more = 2; }
  oneof pick { string left = 29;
    // To the right.
    Inner right = 30;
    string hidden = 31 [(fanfare.v1.internal) = true]; }
  oneof single { string alone = 32; }
}
// Said in a room.
message Said {
  option (fanfare.v1.event) = { name: "said" rooms: "room:{room}" };
  string room = 1;
  Author author = 2;
}
message Author { string id = 1 [(fanfare.v1.fill) = FILL_USER_ID]; string mood = 2; }
message Ask { string room = 1; Author author = 2; optional string more = 3; google.protobuf.Any any = 4; }
message Nothing {}
message Failure { option (fanfare.v1.event) = { name: "failure" rooms: "org" ephemeral: true }; string type = 1; }
message Reset { option (fanfare.v1.event) = { name: "re\"set" rooms: "org" }; optional string type = 1; string cursor = 2; }
message Cursored { option (fanfare.v1.event) = { name: "cursored" rooms: "org" }; string cursor = 1; }
message NewMessage { option (fanfare.v1.event) = { name: "error" rooms: "org" }; string text = 1; }
service Client {
  // Says it.
  rpc Say(Ask) returns (Author) { option (fanfare.v1.client) = { on: "say" publish: "special.v1.Said" reply: "special.v1.Said" }; }
  rpc Ping(Nothing) returns (Nothing) { option (fanfare.v1.client) = { on: "ping:special" }; }
}
"#;

/// The built-in catalogs and one more.
fn load(text: &str) -> Catalogs {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    let name =
        format!("fanfare-types-{}-{}.proto", std::process::id(), FILES.fetch_add(1, Ordering::Relaxed));
    let file: PathBuf = std::env::temp_dir().join(name);
    std::fs::write(&file, text).unwrap();
    let catalogs = Catalogs::load(Builtin::All, std::slice::from_ref(&file)).unwrap();
    std::fs::remove_file(file).unwrap();
    catalogs
}

fn packages(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A declaration in the TypeScript, from its first line to the next empty line.
fn declaration<'a>(typescript: &'a str, start: &str) -> &'a str {
    let at = typescript.find(start).unwrap_or_else(|| panic!("no {start:?} in\n{typescript}"));
    typescript[at..].split("\n\n").next().unwrap()
}

#[test]
fn every_kind_of_field_has_the_type_of_its_json() {
    let text = typescript(&load(SPECIAL), &packages(&["special.v1"]));
    let expected = r#"/** One of each. *\/ is no end. */
export type Kinds = {
  double: number | "NaN" | "Infinity" | "-Infinity";
  int32: number;
  text64: string;
  number64: number;
  yes: boolean;
  raw: string;
  color: Color;
  shade?: Color | "COLOR_UNSPECIFIED";
  colors: (Color | "COLOR_UNSPECIFIED")[];
  plain: Plain;
  byName: { [key: string]: Color };
  byNumber: { [key: string]: Kinds_Inner };
  byBool: { [key: string]: string };
  time?: string;
  duration?: string;
  mask?: string;
  object?: JsonObject;
  value?: JsonValue;
  list?: JsonValue[];
  wrapped?: string;
  wrapped64?: string;
  null: null;
  empty?: Empty;
  floats: (number | "NaN" | "Infinity" | "-Infinity")[];
  "odd-name": string;
  /**
   * Above.
   *
   * And below.
   */
  long: string;
  /** Behind it. */
  behind: string;
  alone?: string;
} & (
  | {
      left: string;
      right?: never;
    }
  | {
      left?: never;
      /** To the right. */
      right: Kinds_Inner;
    }
  | { left?: never; right?: never }
);"#;
    assert_eq!(declaration(&text, "/** One of each. *\\/ is no end. */\nexport type"), expected);
    assert_eq!(declaration(&text, "export type Color ="), "export type Color =\n  | \"red\"\n  | \"blue\";");
    let plain = "export type Plain =\n  | \"PLAIN_MINUS\"\n  | \"PLAIN_ZERO\"\n  | \"PLAIN_ONE\";";
    assert_eq!(declaration(&text, "export type Plain ="), plain);
    let inner = "export interface Kinds_Inner {\n  back?: Kinds;\n  more: Kinds_Inner[];\n}";
    assert_eq!(declaration(&text, "export interface Kinds_Inner"), inner);
    assert!(text.contains("export type Empty = { [key: string]: never };\n"), "{text}");
    assert!(!text.contains("secret") && !text.contains("hidden"), "{text}");
}

#[test]
fn browsers_send_no_field_that_the_server_stamps() {
    let text = typescript(&load(SPECIAL), &packages(&["special.v1"]));
    let ask = "export interface Ask {\n  room: string;\n  author?: AuthorInput;\n  more?: string;\n  any?: never;\n}";
    assert_eq!(declaration(&text, "export interface Ask "), ask);
    let input = "export interface AuthorInput {\n  mood: string;\n}";
    assert_eq!(declaration(&text, "export interface AuthorInput "), input);
    let author = "export interface Author {\n  id: string;\n  mood: string;\n}";
    assert_eq!(declaration(&text, "export interface Author "), author);
    let calls = "export interface ClientToServerEvents {
  \"ping:special\": (request?: Nothing, acknowledge?: (answer: Answer<Nothing>) => void) => void;
  /** Says it. */
  say: (request: Ask, acknowledge?: (answer: Answer<Author>) => void) => void;
}";
    assert_eq!(declaration(&text, "export interface ClientToServerEvents"), calls);
}

#[test]
fn events_carry_a_cursor_where_the_server_sends_one() {
    let text = typescript(&load(SPECIAL), &packages(&["special.v1"]));
    let events = r#"export interface ServerToClientEvents {
  cursored: (event: Cursored, cursor: string) => void;
  /** A call failed that has no callback, or the session is ended for good. */
  error: (event: NewMessage | Failure, cursor?: string) => void;
  failure: (event: SpecialV1Failure) => void;
  /** One of each. *\/ is no end. */
  kinds: (event: Kinds, cursor: string) => void;
  "re\"set": (event: Reset, cursor: string) => void;
  /** Said in a room. */
  said: (event: Said, cursor?: string) => void;
}"#;
    assert_eq!(declaration(&text, "export interface ServerToClientEvents"), events);
    let messages = r#"export type WebSocketEvents =
  | { type: "cursored"; cursor?: string; payload: Cursored }
  | ({ type: "cursored" } & Cursored)
  | ({ type: "error"; cursor?: string } & NewMessage)
  | { type: "failure"; payload: SpecialV1Failure }
  /** One of each. *\/ is no end. */
  | ({ type: "kinds"; cursor?: string } & Kinds)
  | { type: "re\"set"; cursor?: string; payload: Reset }
  | ({ type: "re\"set" } & Omit<Reset, "type">)
  /** Said in a room. */
  | ({ type: "said"; cursor?: string } & Said)
  | { type: "ack"; ref: number; data: Author | Nothing }
  | { type: "reset"; cursor: string }
  /** A stream of `/events` ends and `EventSource` comes back by itself: close it when the reason is final. */
  | ({ type: "end" } & Failure)
  | ({ type: "error"; ref?: number } & Failure);"#;
    assert_eq!(declaration(&text, "export type WebSocketEvents"), messages);
}

#[test]
fn a_name_that_two_packages_have_stands_behind_its_package_in_both() {
    let catalogs = load(SPECIAL);
    let text = typescript(&catalogs, &packages(&["special.v1", "messenger.v1", "chat.v1"]));
    for name in
        ["SpecialV1NewMessage", "MessengerV1NewMessage", "ChatV1NewMessage", "SpecialV1Failure", "NewChat"]
    {
        assert!(text.contains(&format!("export interface {name} {{")), "{name}");
    }
    assert!(!text.contains("interface NewMessage {"));
    let alone = typescript(&catalogs, &packages(&["messenger.v1"]));
    assert!(alone.contains("export interface NewMessage {"));
    assert!(alone.starts_with("// Made by `fanfare types --package messenger.v1`."), "{alone}");
}

#[test]
fn names_that_meet_within_a_package_stay_apart() {
    let catalogs = load(
        r#"
        syntax = "proto3";
        package meet.v1;
        import "fanfare/v1/catalog.proto";
        message A { option (fanfare.v1.event) = { name: "a" rooms: "org" }; B x = 1; A_B y = 2; BInput z = 3; Class c = 4; MeetV1A d = 5; message B { int32 n = 1; } }
        message A_B { string own = 1; }
        message B { string id = 1 [(fanfare.v1.fill) = FILL_USER_ID]; }
        message BInput { string own_input = 1; }
        message Class { class inner = 1; }
        message class { string lower = 1; }
        message MeetV1A { Answer answer = 1; }
        message Answer { string own_answer = 1; }
        message Ask { B b = 1; }
        service Client { rpc Do(Ask) returns (B) { option (fanfare.v1.client) = { on: "do" }; } }
        "#,
    );
    let text = typescript(&catalogs, &packages(&["meet.v1"]));
    let declared: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("export interface ")).collect();
    let unique: BTreeSet<&str> = declared.iter().copied().collect();
    assert_eq!(unique.len(), declared.len(), "{declared:?}");
    for (name, field) in [
        ("MeetV1A_B", "own: string;"),
        ("MeetV1BInput", "ownInput: string;"),
        ("MeetV1class", "lower: string;"),
        ("MeetV1Answer", "ownAnswer: string;"),
    ] {
        let found = ["", "_"].map(|end| format!("export interface {name}{end} {{\n  {field}\n}}"));
        assert!(found.iter().any(|declaration| text.contains(declaration)), "{name} in\n{text}");
    }
}

#[test]
fn what_is_for_another_transport_is_not_in_the_maps_of_socketio() {
    let catalogs = Catalogs::builtin().unwrap();
    let text = typescript(&catalogs, &packages(&["dialogs.v1"]));
    let calls = declaration(&text, "export interface ClientToServerEvents");
    assert_eq!(calls, "export interface ClientToServerEvents {\n}");
    assert!(!declaration(&text, "export interface ServerToClientEvents").contains("dialog_update"));
    assert!(declaration(&text, "export type WebSocketEvents").contains("dialog_update"));
    let both = typescript(&catalogs, &packages(&["dialogs.v1", "chat.v1"]));
    let ping = "\n  ping: (request?: ChatV1PingRequest, acknowledge?: (answer: Answer<ChatV1Pong>) => void) => void;";
    assert!(declaration(&both, "export interface ClientToServerEvents").contains(ping), "{both}");
    let calls = declaration(&both, "export type WebSocketCalls");
    assert_eq!(calls.matches("\"ping\"").count(), 1, "over /ws, ping is that of dialogs: {calls}");
}

#[test]
fn the_output_is_the_same_each_time() {
    let (one, other) = (load(SPECIAL), load(SPECIAL));
    assert_eq!(typescript(&one, &[]), typescript(&other, &[]));
    assert_eq!(asyncapi(&one, &[]).to_string(), asyncapi(&other, &[]).to_string());
    assert_eq!(json_schemas(&one, &[]).to_string(), json_schemas(&other, &[]).to_string());
}

#[test]
fn an_unknown_package_is_refused_with_the_one_that_was_meant() {
    let refused = check_packages(&Catalogs::builtin().unwrap(), &packages(&["messenger.v2"])).unwrap_err();
    assert!(
        refused.starts_with("package \"messenger.v2\" is no catalog (did you mean \"messenger.v1\"?)"),
        "{refused}"
    );
}

/// The catalogs with the messages of the mapping's own tests.
fn mapped() -> &'static Catalogs {
    static CATALOGS: OnceLock<Catalogs> = OnceLock::new();
    CATALOGS.get_or_init(|| load(PROTO))
}

fn validator(full_name: &str) -> jsonschema::Validator {
    let schema = json_schema(mapped(), full_name).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    jsonschema::draft202012::new(&schema).unwrap()
}

/// The JSON that browsers get.
fn written(full_name: &str, bytes: &[u8]) -> Value {
    let mut out = Vec::new();
    mapped().shape(full_name).unwrap().write_json(bytes, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_is_as_the_schema_says(choices in prop::collection::vec(any::<u8>(), 0..1500)) {
        static VALIDATORS: OnceLock<Vec<(&str, jsonschema::Validator)>> = OnceLock::new();
        let validators = VALIDATORS.get_or_init(|| ["t.All", "t.Ours", "t.Raw"].map(|n| (n, validator(n))).into());
        for (name, validator) in validators {
            let descriptor = mapped().pool().get_message_by_name(name).unwrap();
            let message = random(descriptor, &mut Choices(&choices), 0, Times::Exact);
            let json = written(name, &message.encode_to_vec());
            let problem = validator.validate(&json).err().map(|e| format!("{e} at {}", e.instance_path()));
            prop_assert_eq!(problem, None, "{}: {}", name, json);
            // The description is also complete: an extra field, or a missing required one, is
            // refused.
            let mut more = json.clone();
            more["noSuchField"] = json!(1);
            prop_assert!(!validator.is_valid(&more));
            let optional = typescript_optional(name);
            for field in json.as_object().unwrap().keys().filter(|field| !optional.contains(field.as_str())) {
                let mut less = json.clone();
                less.as_object_mut().unwrap().remove(field);
                prop_assert!(!validator.is_valid(&less), "without {}", field);
            }
        }
    }
}

/// The fields of a message that may be absent, according to their descriptors.
fn typescript_optional(full_name: &str) -> BTreeSet<String> {
    let descriptor = mapped().pool().get_message_by_name(full_name).unwrap();
    descriptor.fields().filter(|f| f.supports_presence()).map(|f| f.json_name().to_owned()).collect()
}

#[test]
fn schemas_refuse_what_is_never_written() {
    let all = written("t.All", &[]);
    let ours = json!({ "id": 1, "color": "red", "more": [], "text": "" });
    for (name, base, field, value) in [
        ("t.All", &all, "fInt32", json!(2_147_483_648_u64)),
        ("t.All", &all, "fInt32", json!("1")),
        ("t.All", &all, "fInt64", json!(1)),
        ("t.All", &all, "fInt64", json!("01")),
        ("t.All", &all, "fUint64", json!("-1")),
        ("t.All", &all, "fFloat", json!("nan")),
        ("t.All", &all, "fEnum", json!("PLAIN_TWO")),
        ("t.All", &all, "fBool", json!(0)),
        ("t.All", &all, "time", json!("2026-01-31T12:00:00Z")),
        ("t.All", &all, "time", Value::Null),
        ("t.All", &all, "duration", json!("1.5")),
        ("t.All", &all, "rInt32", json!([1, null])),
        ("t.All", &all, "mChild", json!({ "x": all })),
        ("t.All", &all, "mBool", json!({ "yes": "" })),
        ("t.All", &all, "object", json!([])),
        ("t.All", &all, "list", json!({})),
        ("t.Ours", &ours, "id", json!(9_007_199_254_740_992_u64)),
        ("t.Ours", &ours, "id", json!("1")),
        ("t.Ours", &ours, "color", json!("COLOR_UNSPECIFIED")),
        ("t.Ours", &ours, "color", json!("COLOR_RED")),
        ("t.Ours", &ours, "secret", json!("x")),
    ] {
        let validator = validator(name);
        assert!(validator.is_valid(base), "{name}");
        let mut wrong = base.clone();
        wrong[field] = value;
        assert!(!validator.is_valid(&wrong), "{name}.{field}: {}", wrong[field]);
    }
    let mut both = all.clone();
    (both["cString"], both["cInt64"]) = (json!(""), json!("1"));
    assert!(!validator("t.All").is_valid(&both), "members of a oneof exclude each other");
    let mut unset = ours.clone();
    unset["shade"] = json!("COLOR_UNSPECIFIED");
    assert!(validator("t.Ours").is_valid(&unset), "it can be set on purpose, and is written then");
}

#[test]
fn messages_with_json_of_their_own_have_a_schema_too() {
    for (name, right, wrong) in [
        ("google.protobuf.Timestamp", json!("2026-01-31T12:00:00.000Z"), json!({})),
        ("google.protobuf.Struct", json!({ "a": null }), json!("a")),
        ("google.protobuf.Int64Value", json!("7"), json!(7)),
        ("google.protobuf.Empty", json!({}), json!({ "a": 1 })),
        (
            "t.Holds",
            json!({ "null": null, "nulls": [null] }),
            json!({ "any": {}, "null": null, "nulls": [] }),
        ),
    ] {
        let validator = validator(name);
        assert!(validator.is_valid(&right), "{name}: {right}");
        assert!(!validator.is_valid(&wrong), "{name}: {wrong}");
    }
    assert_eq!(json_schema(mapped(), "t.Nobody"), None);
}

#[test]
fn every_event_and_call_is_an_operation_of_asyncapi() {
    let catalogs = Catalogs::builtin().unwrap();
    let document = asyncapi(&catalogs, &[]);
    let operations = document["operations"].as_object().unwrap();
    let count = |action: &str| operations.values().filter(|o| o["action"] == action).count();
    assert_eq!(count("send"), catalogs.events().count());
    assert_eq!(count("receive"), catalogs.calls().count());
    let ping = catalogs.call("ping", Transport::Websocket, "/").unwrap();
    let operation = &operations[&format!("receive.{}", ping.path[1..].replace('/', "."))];
    assert_eq!(operation["tags"], json!([{ "name": "dialogs.v1" }, { "name": "websocket" }]));
}

const BINARY: &str = r#"
syntax = "proto3";
package binary.v1;
import "fanfare/v1/catalog.proto";
import "google/protobuf/wrappers.proto";
message Chunk {
  option (fanfare.v1.event) = { name: "chunk" rooms: "org" binary: true };
  string name = 1;
  repeated Part parts = 2;
  Mark mark = 3;
}
message Part { bytes content = 1; google.protobuf.BytesValue more = 2; }
message Mark { string text = 1; }
message Text {
  option (fanfare.v1.event) = { name: "text" rooms: "org" };
  Part part = 1;
}
message Ask {}
service Client {
  rpc Get(Ask) returns (Part) { option (fanfare.v1.client) = { on: "get" binary: true }; }
}
"#;

#[test]
fn bytes_of_binary_events_are_attachments_over_socketio_and_text_elsewhere() {
    let catalogs = load(BINARY);
    let text = typescript(&catalogs, &packages(&["binary.v1"]));
    for (start, wanted) in [
        ("export interface ServerToClientEvents", "  chunk: (event: ChunkBinary, cursor: string) => void;"),
        ("export interface ServerToClientEvents", "  text: (event: Text, cursor: string) => void;"),
        ("export interface ClientToServerEvents", "acknowledge?: (answer: Answer<PartBinary>) => void"),
        ("export type WebSocketEvents", "{ type: \"chunk\"; cursor?: string } & Chunk)"),
        ("export type WebSocketEvents", "{ type: \"ack\"; ref: number; data: Part }"),
        ("export interface ChunkBinary", "  parts: PartBinary[];"),
        ("export interface ChunkBinary", "  mark?: Mark;"),
        ("export interface PartBinary", "  content: Binary;\n  more?: Binary;"),
        ("export interface Part {", "  content: string;\n  more?: string;"),
        ("export type Binary", "= ArrayBuffer | Uint8Array;"),
    ] {
        let found = declaration(&text, start);
        assert!(found.contains(wanted), "{wanted} in {found}");
    }
    let schema = json_schemas(&catalogs, &packages(&["binary.v1"])).to_string();
    assert!(schema.contains("base64") && !schema.contains("Binary"), "the schema is of the JSON: {schema}");
    assert!(!typescript(&load(SPECIAL), &packages(&["special.v1"])).contains("type Binary"));
}

#[test]
fn binary_without_bytes_is_refused_with_the_remedy() {
    for (from, to, what) in [
        (
            "bytes content = 1; google.protobuf.BytesValue more = 2;",
            "string content = 1;",
            "response binary.v1.Part",
        ),
        ("repeated Part parts = 2;", "", "event binary.v1.Chunk"),
    ] {
        let file = std::env::temp_dir().join(format!("fanfare-binary-{}.proto", std::process::id()));
        std::fs::write(&file, BINARY.replace(from, to)).unwrap();
        let refused = Catalogs::load(Builtin::All, &[file]).unwrap_err().to_string();
        assert!(refused.contains(what) && refused.contains("remove `binary`, or give it one"), "{refused}");
    }
}

#[test]
fn packages_with_the_same_names_are_described_one_by_one() {
    let catalogs = load(&BINARY.replace("\"text\"", "\"new_message\""));
    let refused = check_packages(&catalogs, &[]).unwrap_err();
    assert!(
        refused.contains("both have the event \"new_message\"") && refused.contains("give --package"),
        "{refused}"
    );
    check_packages(&catalogs, &packages(&["binary.v1", "messenger.v1"])).unwrap();
    assert!(check_packages(&catalogs, &packages(&["binary.v1", "chat.v1"])).is_err());
    check_packages(&Catalogs::builtin().unwrap(), &[]).unwrap();
}
