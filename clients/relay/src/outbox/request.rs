//! Converts a row to an event.

use fanfare_proto::{
    catalog::{Catalogs, EventType},
    json::closest,
    v1::{NotifyRequest, Target},
};
use prost_types::Any;

use super::rows::{ROW_BYTES_MAX, Row};

/// The event of a row, or why the row is invalid.
pub(super) fn request(catalogs: &Catalogs, row: Row) -> Result<NotifyRequest, String> {
    if row.bytes > ROW_BYTES_MAX {
        return Err(format!("the row has {} bytes; a relay takes at most {ROW_BYTES_MAX}", row.bytes));
    }
    let event = match (row.json, row.protobuf) {
        (Some(json), None) => {
            let kind = find(catalogs, &row.kind)?;
            let value = kind.shape.read_canonical(json.as_bytes());
            let value = value.map_err(|error| format!("the payload is no {}: {error}", kind.full_name))?;
            Any { type_url: kind.type_url.clone(), value }
        }
        // The server knows the type, so the relay need not.
        (None, Some(value)) => {
            let name = find(catalogs, &row.kind).map_or(row.kind.as_str(), |kind| &kind.full_name);
            Any { type_url: format!("type.googleapis.com/{name}"), value }
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err("want either payload or protobuf".to_owned());
        }
    };
    let target = Target {
        tenant: row.tenant,
        rooms: row.rooms,
        idempotency_key: row.id,
        except_sessions: row.except_sessions,
        expected_revision: None,
    };
    Ok(NotifyRequest { target: Some(target), event: Some(event) })
}

/// Finds the event by its full name, or by its browser name if only one catalog has it.
fn find<'c>(catalogs: &'c Catalogs, name: &str) -> Result<&'c EventType, String> {
    if let Some(kind) = catalogs.event(name) {
        return Ok(kind);
    }
    let mut named = catalogs.events().filter(|kind| kind.name == name);
    match (named.next(), named.next()) {
        (Some(kind), None) => Ok(kind),
        (Some(one), Some(other)) => {
            let (one, other) = (&one.full_name, &other.full_name);
            Err(format!("{name:?} is the name of several events: want the full name, e.g. {one} or {other}"))
        }
        (None, _) => {
            let names = catalogs.events().flat_map(|kind| [kind.full_name.as_str(), kind.name.as_str()]);
            let hint = closest(name, names).map(|near| format!(" (did you mean {near:?}?)"));
            Err(format!("no loaded catalog has an event {name:?}{}", hint.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &str, json: &str) -> Row {
        Row { id: "k".into(), kind: kind.into(), json: Some(json.into()), ..Row::default() }
    }

    #[test]
    fn a_row_is_published_under_its_id() {
        let catalogs = Catalogs::builtin().unwrap();
        let made = request(&catalogs, row("chat:deleted", "{\"chatId\": 7}")).unwrap();
        assert_eq!(made.target.unwrap().idempotency_key, "k");
        let event = made.event.unwrap();
        assert_eq!(event.type_url, "type.googleapis.com/messenger.v1.ChatDeleted");
        assert_eq!(event.value, [8, 7]);
    }

    #[test]
    fn what_is_wrong_with_a_row_is_named() {
        let catalogs = Catalogs::builtin().unwrap();
        let reason = |row| request(&catalogs, row).unwrap_err();
        assert!(reason(row("chat:deletd", "{}")).contains("(did you mean \"chat:deleted\"?)"));
        assert!(reason(row("chat:deleted", "{\"chatId\": true}")).contains("chatId"));
        let large = Row { bytes: ROW_BYTES_MAX + 1, ..row("chat:deleted", "{}") };
        assert!(reason(large).contains("at most 1048576"));
    }
}
