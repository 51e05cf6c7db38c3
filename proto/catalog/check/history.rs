//! The rules of `history`.

use std::collections::HashMap;

use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::{
    Checker,
    client::{Refused, refuse, template_of},
    text,
};
use crate::{
    catalog::{
        FillSource, HistoryMethod,
        fill::{self, options},
        history::HistoryElement,
    },
    json::Shape,
};

impl Checker<'_> {
    /// The page in a client method's response, if the method declares one.
    pub(super) fn history(
        &self,
        declared: &DynamicMessage,
        request: &Shape,
        input: &MessageDescriptor,
        output: &MessageDescriptor,
    ) -> Result<Option<HistoryMethod>, Refused> {
        if !declared.has_field_by_name("history") {
            return check_fills(output).map(|()| None);
        }
        let value = declared.get_field_by_name("history");
        let Some(history) = value.as_deref().and_then(Value::as_message) else { return Ok(None) };
        for other in ["upstream", "publish", "join", "leave"] {
            if !text(declared, other).is_empty() {
                return Err(refuse(format!(
                    "history: a method with `history` has no `{other}`; write two methods"
                )));
            }
        }
        let room = text(history, "room");
        if room.is_empty() {
            return Err(refuse(
                "history: `room` is missing; write the room whose events are wanted, e.g. room: \"chat:{chat_id}\"".into(),
            ));
        }
        let declared_limit = history.get_field_by_name("default_limit").and_then(|v| v.as_u32());
        let declared_limit = declared_limit.unwrap_or_default();
        let default_limit = HistoryMethod::default_limit(declared_limit).ok_or_else(|| {
            refuse(format!(
                "history: default_limit is {declared_limit}; want 1 to {}",
                HistoryMethod::EVENTS_MAX
            ))
        })?;
        let (field, element) = self.element(output)?;
        Ok(Some(HistoryMethod {
            room: template_of("history", &room, request, input)?,
            limit: request_field(history, "limit", input, "an integer", fill::is_integer)?,
            before: request_field(history, "before", input, "a string", |kind| *kind == Kind::String)?,
            default_limit,
            field,
            element,
        }))
    }

    /// The one repeated field of the response that receives events.
    fn element(&self, output: &MessageDescriptor) -> Result<(u32, HistoryElement), Refused> {
        let mut found = Vec::new();
        for field in output.fields().filter(FieldDescriptor::is_list) {
            let Kind::Message(message) = field.kind() else { continue };
            if self.events.contains_key(message.full_name()) {
                found.push((field.number(), HistoryElement::Event(message.full_name().to_owned())));
            } else if let Some(members) = self.members(&message) {
                let plan = fill::plan(None, &message);
                found.push((field.number(), HistoryElement::OneOf { members, plan }));
            }
        }
        let count = found.len();
        match (found.pop(), count) {
            (Some(only), 1) => Ok(only),
            _ => Err(refuse(format!(
                "history: {} has {count} fields that can take the events; want exactly one, a repeated field of an event, or of a message with one oneof of events",
                output.full_name()
            ))),
        }
    }

    /// The members of the message's oneof, if it has exactly one and all members are events.
    fn members(&self, message: &MessageDescriptor) -> Option<HashMap<String, u32>> {
        let mut oneofs = message.oneofs().filter(|oneof| !oneof.is_synthetic());
        let (oneof, None) = (oneofs.next()?, oneofs.next()) else { return None };
        let member = |field: FieldDescriptor| {
            let Kind::Message(event) = field.kind() else { return None };
            self.events
                .contains_key(event.full_name())
                .then(|| (event.full_name().to_owned(), field.number()))
        };
        oneof.fields().map(member).collect()
    }
}

/// The field of the request that the option names, if any.
fn request_field(
    history: &DynamicMessage,
    option: &str,
    input: &MessageDescriptor,
    wanted: &str,
    fits: impl Fn(&Kind) -> bool,
) -> Result<Option<FieldDescriptor>, Refused> {
    let name = text(history, option);
    if name.is_empty() {
        return Ok(None);
    }
    let field = input.get_field_by_name(&name).filter(|field| {
        fits(&field.kind()) && field.cardinality() != Cardinality::Repeated && options::fill(field).is_none()
    });
    field.map(Some).ok_or_else(|| {
        refuse(format!(
            "history: {option}: {:?} is no field of {} that is {wanted}, not repeated and without `fill`",
            name,
            input.full_name()
        ))
    })
}

/// Refuses fields that can only be filled within a page.
fn check_fills(output: &MessageDescriptor) -> Result<(), Refused> {
    let of_history = |field: &FieldDescriptor| {
        matches!(options::fill(field), Some(FillSource::HistoryCursor | FillSource::HistoryMore))
    };
    match output.fields().find(of_history) {
        None => Ok(()),
        Some(field) => Err(refuse(format!(
            "field {} is filled by `history`, which the method does not declare; add e.g. history: {{ room: \"chat:{{chat_id}}\" }}",
            field.full_name()
        ))),
    }
}
