//! What clients of older catalogs would not receive, or not understand, from newer ones.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use super::{Catalogs, EventType};

/// The changes from `old` to `new` that break producers, consumers or browsers, one line each,
/// ordered by name. Additions are never breaking.
pub fn breaking_changes(old: &Catalogs, new: &Catalogs) -> Vec<String> {
    let mut changes = BTreeSet::new();
    for event in old.events() {
        match new.event(&event.full_name) {
            None => _ = changes.insert(format!("event {} was removed", event.full_name)),
            Some(now) => compare_events(event, now, &mut changes),
        }
    }
    for path in old.paths().filter(|path| new.method(path).is_none()) {
        changes.insert(format!("method {path} was removed"));
    }
    let calls: BTreeSet<&str> = new.call_names().collect();
    for name in old.call_names().filter(|name| !calls.contains(name)) {
        changes.insert(format!("browsers can no longer emit {name:?}"));
    }
    let is_own = |package: &str| old.packages().iter().any(|own| own == package);
    for message in
        old.pool().all_messages().filter(|message| !message.is_map_entry() && is_own(message.package_name()))
    {
        match new.pool().get_message_by_name(message.full_name()) {
            None => _ = changes.insert(format!("message {} was removed", message.full_name())),
            Some(now) => compare_messages(&message, &now, &mut changes),
        }
    }
    for values in old.pool().all_enums().filter(|values| is_own(values.package_name())) {
        if let Some(now) = new.pool().get_enum_by_name(values.full_name()) {
            compare_enums(&values, &now, &mut changes);
        }
    }
    changes.into_iter().collect()
}

fn compare_events(old: &EventType, new: &EventType, changes: &mut BTreeSet<String>) {
    let name = &old.full_name;
    if old.name != new.name {
        changes.insert(format!("event {name}: browsers know it as {:?}, now as {:?}", old.name, new.name));
    }
    if !old.ephemeral && new.ephemeral {
        changes.insert(format!("event {name}: it was stored and is now ephemeral"));
    }
    let rooms: BTreeSet<&str> = new.rooms.iter().map(|room| room.as_str()).collect();
    for room in old.rooms.iter().map(|room| room.as_str()).filter(|room| !rooms.contains(room)) {
        changes.insert(format!("event {name}: it no longer reaches the room {room:?}"));
    }
}

fn compare_messages(old: &MessageDescriptor, new: &MessageDescriptor, changes: &mut BTreeSet<String>) {
    for field in old.fields() {
        let name = format!("{}.{}", old.full_name(), field.name());
        let Some(now) = new.get_field(field.number()) else {
            changes.insert(format!("field {name} was removed"));
            continue;
        };
        if field.json_name() != now.json_name() {
            changes.insert(format!("field {name}: its name in JSON is now {:?}", now.json_name()));
        }
        let (before, after) = (shape(&field), shape(&now));
        if before != after {
            changes.insert(format!("field {name}: it was {before} and is now {after}"));
        }
    }
}

/// The type of a field as written in a `.proto` file, with what browsers see of it.
fn shape(field: &FieldDescriptor) -> String {
    let label = match field {
        _ if field.is_map() => "map ",
        _ if field.is_list() => "repeated ",
        _ if field.supports_presence() && !matches!(field.kind(), Kind::Message(_)) => "optional ",
        _ => "",
    };
    let kind = match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_ascii_lowercase(),
    };
    let is_number = field.options().get_field_by_name("jstype").and_then(|value| value.as_enum_number());
    let number = if is_number == Some(JS_NUMBER) { " (a number in JSON)" } else { "" };
    format!("{label}{kind}{number}")
}

/// `JS_NUMBER` of `google.protobuf.FieldOptions.JSType`.
const JS_NUMBER: i32 = 2;

fn compare_enums(old: &EnumDescriptor, new: &EnumDescriptor, changes: &mut BTreeSet<String>) {
    let now: BTreeMap<i32, String> =
        new.values().map(|value| (value.number(), value.name().to_owned())).collect();
    for value in old.values() {
        if now.get(&value.number()).is_none_or(|name| name != value.name()) {
            changes.insert(format!("enum {}: {} was removed or renumbered", old.full_name(), value.name()));
        }
    }
}
