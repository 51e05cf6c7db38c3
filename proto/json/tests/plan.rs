//! The fast check compared with the JSON writer, whose answer is authoritative.

use std::{path::PathBuf, sync::Arc};

use prost_reflect::{Kind, MessageDescriptor, ReflectMessage, Value as Reflected};

use super::{
    oracle::{Choices, Times, key, mutate, random},
    *,
};
use crate::{
    catalog::{Builtin, Catalogs, EventType},
    json::plan::{VALUES_MAX, accept},
    room::Room,
};

/// Rooms from every kind of field, set and unset, in the message and nested, and from more fields
/// than one pass records.
const ROOMS: &str = r#"
syntax = "proto3";
package rooms.v1;
import "fanfare/v1/catalog.proto";
import "google/protobuf/timestamp.proto";
enum Color {
  COLOR_UNSPECIFIED = 0;
  COLOR_RED = 1 [(fanfare.v1.text) = "red"];
  COLOR_BLUE = 2 [(fanfare.v1.text) = "blue"];
}
message Inner {
  string text = 1; Inner more = 2; optional sint32 count = 200;
  oneof pick { int64 left = 4; fixed32 right = 5; }
}
message Several {
  option (fanfare.v1.event) = {
    name: "several"
    rooms: "org" rooms: "a:{inner.left}_{inner.right}" rooms: "b:{inner.more.count}" rooms: "c:{id}_{color}"
    rooms: "d:{shade}" rooms: "e:{id}"
  };
  int64 id = 1; Color color = 2; optional Color shade = 3; Inner inner = 4;
  repeated Inner others = 5; map<string, Inner> named = 6;
}
message Many {
  option (fanfare.v1.event) = { name: "many" rooms: "a:{a}_{b}_{c}_{d}_{e}" rooms: "b:{b}_{c}_{d}_{e}_{a}" };
  uint32 a = 1; sint64 b = 2; fixed64 c = 3; sfixed32 d = 4; int32 e = 5;
}
message Text { option (fanfare.v1.event) = { name: "text" rooms: "a:{text}" }; string text = 1; }
message Timed {
  option (fanfare.v1.event) = { name: "timed" rooms: "a:{at.seconds}" };
  google.protobuf.Timestamp at = 1;
}
"#;

/// A message type, and the fields whose values can be recorded.
struct Subject {
    descriptor: MessageDescriptor,
    shape: Arc<Shape>,
    paths: Vec<FieldPath>,
}

/// The built-in catalogs, those of the tests, and the one above.
fn catalogs() -> &'static [Catalogs] {
    static CATALOGS: OnceLock<Vec<Catalogs>> = OnceLock::new();
    CATALOGS.get_or_init(|| {
        let tests = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"));
        let folders =
            ["catalogs", "catalogs-console", "catalogs-namespaces", "catalogs-types", "catalogs-upstream"];
        let mut all: Vec<_> = folders
            .iter()
            .map(|folder| Catalogs::load(Builtin::All, &[tests.join(folder)]).unwrap())
            .collect();
        let file = std::env::temp_dir().join(format!("fanfare-rooms-{}.proto", std::process::id()));
        std::fs::write(&file, ROOMS).unwrap();
        all.push(Catalogs::load(Builtin::All, std::slice::from_ref(&file)).unwrap());
        std::fs::remove_file(file).unwrap();
        all.push(Catalogs::builtin().unwrap());
        all
    })
}

/// Whether the message is not in one of the built-in catalogs, which come last.
fn is_own(index: usize, full_name: &str) -> bool {
    let all = catalogs();
    index + 1 == all.len() || all[all.len() - 1].pool().get_message_by_name(full_name).is_none()
}

fn subjects() -> &'static [Subject] {
    static SUBJECTS: OnceLock<Vec<Subject>> = OnceLock::new();
    SUBJECTS.get_or_init(|| {
        let mut found: Vec<_> = pool()
            .all_messages()
            .filter(|m| m.package_name() == "t")
            .map(|m| (shape(m.full_name()), m))
            .collect();
        for (index, catalogs) in catalogs().iter().enumerate() {
            for message in catalogs.pool().all_messages().filter(|m| is_own(index, m.full_name())) {
                found.push((catalogs.shape(message.full_name()).unwrap(), message));
            }
        }
        found.retain(|(_, message)| !message.is_map_entry());
        assert!(found.len() > 150, "{}", found.len());
        found
            .into_iter()
            .map(|(shape, descriptor)| Subject { paths: paths(&shape), descriptor, shape })
            .collect()
    })
}

fn events() -> impl Iterator<Item = &'static Arc<EventType>> {
    let all = catalogs().iter().enumerate();
    all.flat_map(|(index, catalogs)| catalogs.events().filter(move |e| is_own(index, &e.full_name)))
}

/// All paths of up to two fields that a room template may name.
fn paths(shape: &Shape) -> Vec<FieldPath> {
    let names = |index: usize| shape.table.messages[index].fields.iter();
    let mut texts = Vec::new();
    for field in names(shape.index) {
        texts.push(field.name.clone());
        if let FieldKind::Message(inner) = field.kind {
            texts.extend(names(inner).map(|f| format!("{}.{}", field.name, f.name)));
        }
    }
    texts.iter().filter_map(|text| shape.path(text).ok()).collect()
}

/// Sets one field, at any depth, to a value at the limit of validity, or clears it.
fn spoil(message: &mut DynamicMessage, choices: &mut Choices<'_>, depth: usize) {
    let fields: Vec<_> = message.descriptor().fields().collect();
    if fields.is_empty() {
        return;
    }
    let field = &fields[usize::from(choices.byte()) % fields.len()];
    if choices.byte().is_multiple_of(8) {
        return message.clear_field(field);
    }
    let mut inner = |old: Option<&Reflected>, kind| match (old, kind) {
        (Some(Reflected::Message(old)), Kind::Message(_)) => {
            let mut new = old.clone();
            spoil(&mut new, choices, depth + 1);
            Reflected::Message(new)
        }
        (_, Kind::Message(kind)) => {
            let mut new = DynamicMessage::new(kind);
            if depth < 8 {
                spoil(&mut new, choices, depth + 1);
            }
            Reflected::Message(new)
        }
        (_, kind) => edge(&kind, usize::from(choices.byte())),
    };
    let value = match (message.get_field(field).into_owned(), field.kind()) {
        (Reflected::Map(mut entries), Kind::Message(entry)) => {
            let value = inner(entries.values().next(), entry.map_entry_value_field().kind());
            let key = entries.keys().next().cloned();
            let key = key.unwrap_or_else(|| self::key(&entry.map_entry_key_field(), choices));
            entries.insert(key, value);
            Reflected::Map(entries)
        }
        (Reflected::List(mut items), kind) => {
            let value = inner(items.first(), kind);
            items.push(value);
            Reflected::List(items)
        }
        (old, kind) => inner(Some(&old), kind),
    };
    message.set_field(field, value);
}

fn edge(kind: &Kind, choice: usize) -> Reflected {
    const SAFE: i64 = SAFE_INTEGER_MAX;
    // The limits of safe integers, times and durations, and the values one beyond them.
    const LONG: [i64; 12] = [
        i64::MIN,
        -SAFE - 1,
        -SAFE,
        -315_576_000_001,
        -62_135_596_801,
        -1,
        0,
        253_402_300_799,
        253_402_300_800,
        315_576_000_001,
        SAFE,
        SAFE + 1,
    ];
    const SHORT: [i32; 8] = [i32::MIN, -1_000_000_000, -1, 0, 1, 999_999_999, 1_000_000_000, i32::MAX];
    const NUMBERS: [i32; 8] = [i32::MIN, -1, 0, 1, 2, 63, 64, 1 << 20];
    let long = LONG[choice % LONG.len()];
    let short = SHORT[choice % SHORT.len()];
    match kind {
        Kind::Double => Reflected::F64([f64::NAN, f64::INFINITY, -0.0, 1e300][choice % 4]),
        Kind::Float => Reflected::F32([f32::NAN, f32::NEG_INFINITY, -0.0, 1e30][choice % 4]),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Reflected::I32(short),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Reflected::I64(long),
        Kind::Uint32 | Kind::Fixed32 => Reflected::U32(short.unsigned_abs()),
        Kind::Uint64 | Kind::Fixed64 => Reflected::U64(long.cast_unsigned()),
        Kind::Bool => Reflected::Bool(choice & 1 == 0),
        Kind::String => Reflected::String(["", "a_b", "aB", "a,b", "a__b", "é\0"][choice % 6].to_owned()),
        Kind::Bytes => Reflected::Bytes(vec![0xff; choice % 3].into()),
        Kind::Enum(_) => Reflected::EnumNumber(NUMBERS[choice % NUMBERS.len()]),
        Kind::Message(kind) => Reflected::Message(DynamicMessage::new(kind.clone())),
    }
}

type Edits = Vec<(u8, prop::sample::Index, u8)>;

fn edits() -> impl Strategy<Value = Edits> {
    prop::collection::vec((any::<u8>(), any::<prop::sample::Index>(), any::<u8>()), 1..4)
}

/// First a valid payload, unless the type has none; then one with a value at a limit, two
/// concatenated messages, and modified bytes.
fn payloads(descriptor: &MessageDescriptor, choices: &[u8], more: &[u8], edits: &Edits) -> Vec<Vec<u8>> {
    let made = |choices| random(descriptor.clone(), &mut Choices(choices), 0, Times::Exact);
    let valid = made(choices);
    let mut spoilt = valid.clone();
    spoil(&mut spoilt, &mut Choices(more), 0);
    let mut payloads = vec![valid.encode_to_vec(), spoilt.encode_to_vec()];
    payloads.push([payloads[0].clone(), made(more).encode_to_vec()].concat());
    for index in 0..2 {
        let mut bytes = payloads[index].clone();
        for edit in edits {
            mutate(&mut bytes, edit);
            payloads.push(bytes.clone());
        }
    }
    payloads
}

/// Checks that both checks agree. Returns whether the fast check accepts the bytes.
fn agree(subject: &Subject, bytes: &[u8]) -> Result<bool, TestCaseError> {
    let Subject { shape, paths, .. } = subject;
    let walked = shape.walk(bytes);
    let quick = accept(&shape.table, shape.index, bytes, &Selection::default());
    prop_assert!(quick.is_none() || walked.is_ok(), "{:?} accepts {:02x?}: {:?}", shape, bytes, walked);
    prop_assert_eq!(shape.validate(bytes), walked);
    for paths in paths.chunks(VALUES_MAX) {
        let selection = Selection::new(paths).unwrap();
        let Some(values) = accept(&shape.table, shape.index, bytes, &selection) else { continue };
        prop_assert!(quick.is_some(), "{:?} accepts {:02x?} with a selection only", shape, bytes);
        for (path, value) in paths.iter().zip(values) {
            let mut text = String::new();
            let noted = path.push_value(value, &mut text).map(|is_set| is_set.then_some(text));
            let scanned = path.text(bytes).map(|found| match found {
                FieldText::Unset => None,
                FieldText::Default(text) | FieldText::Value(text) => Some(text),
            });
            prop_assert_eq!(noted, scanned, "{:?} of {:?} in {:02x?}", path, shape, bytes);
        }
    }
    Ok(quick.is_some())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_quick_check_answers_as_the_walk_does(
        choices in prop::collection::vec(any::<u8>(), 0..400),
        more in prop::collection::vec(any::<u8>(), 0..100),
        edits in edits(),
    ) {
        for subject in subjects() {
            let payloads = payloads(&subject.descriptor, &choices, &more, &edits);
            let is_accepted = agree(subject, &payloads[0])?;
            // A fast check that leaves every payload to the writer would be correct, but useless.
            prop_assert!(
                is_accepted || subject.shape.walk(&payloads[0]).is_err(),
                "{:?} does not accept {:02x?}", subject.shape, payloads[0]
            );
            for payload in &payloads[1..] {
                agree(subject, payload)?;
            }
        }
    }

    #[test]
    fn rooms_of_noted_values_are_those_of_the_scanned_bytes(
        choices in prop::collection::vec(any::<u8>(), 0..400),
        more in prop::collection::vec(any::<u8>(), 0..100),
        edits in edits(),
    ) {
        for event in events() {
            for payload in payloads(&event.descriptor, &choices, &more, &edits) {
                let rooms = match event.check(&payload) {
                    Ok(valid) => valid.rooms(),
                    Err(refused) => {
                        prop_assert_eq!(Err(refused), event.shape.walk(&payload));
                        continue;
                    }
                };
                let scanned = event.rooms.iter().filter_map(|t| t.render(&payload).transpose());
                let scanned = scanned.collect::<Result<Vec<Room>, _>>();
                prop_assert_eq!(
                    format!("{rooms:?}"), format!("{scanned:?}"), "{} {:02x?}", event.full_name, payload
                );
            }
        }
    }
}
