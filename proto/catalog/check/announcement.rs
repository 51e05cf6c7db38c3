//! The rules for events that the server publishes automatically.

use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};

use crate::{
    catalog::{
        Announcement, FillSource, RoomTemplate,
        fill::{self, options},
    },
    v1::Presence,
};

/// When the server publishes the event automatically, if it does.
pub(super) fn announcement(
    message: &MessageDescriptor,
    declared: &DynamicMessage,
    rooms: &[RoomTemplate],
    ephemeral: bool,
) -> Result<Option<Announcement>, String> {
    let on = match declared.get_field_by_name("presence").as_deref() {
        Some(Value::EnumNumber(number)) => Presence::try_from(*number).unwrap_or_default(),
        _ => Presence::Unspecified,
    };
    let name = message.full_name();
    let room = match on {
        Presence::Unspecified => return Ok(None),
        Presence::Connected if !ephemeral => {
            return Err(format!("{name}: a greeting is for one session alone: add `ephemeral: true`"));
        }
        Presence::Connected => None,
        Presence::Online | Presence::Offline if rooms.is_empty() => {
            return Err(format!(
                "{name} is published by presence, but declares no rooms; add e.g. `rooms: \"org\"`"
            ));
        }
        Presence::Online | Presence::Offline => None,
        Presence::Joined | Presence::Left => {
            let field = match rooms {
                [only] => only.only_field(),
                _ => None,
            };
            let found =
                field.and_then(|(kind, field)| Some((kind.to_owned(), message.get_field_by_name(&field)?)));
            let usable = |kind: &Kind| matches!(kind, Kind::String) || fill::is_integer(kind);
            match found.filter(|(_, field)| usable(&field.kind())) {
                Some(found) => Some(found),
                None => {
                    return Err(format!(
                        "{name} is published when a room is joined or left: it needs exactly one room template of a kind and one string or integer field, e.g. `rooms: \"chat:{{chat_id}}\"`"
                    ));
                }
            }
        }
    };
    let transport = options::transport(&message.parent_file());
    Ok(Some(Announcement { on, transport, plan: fill::plan(None, message), room }))
}

/// The field that receives the event's id, if there is one.
pub(super) fn id_field(message: &MessageDescriptor) -> Option<u32> {
    message.fields().find(|f| options::fill(f) == Some(FillSource::EventId)).map(|f| f.number())
}
