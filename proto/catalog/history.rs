//! Pages of a room's stored events in the response of a call.

use std::collections::{HashMap, HashSet};

use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Value};

use super::{FillPlan, RoomTemplate, Stamp};

/// Number of events in a page if neither the browser nor the catalog specifies it.
const EVENTS_DEFAULT: usize = 50;

/// What a method's `history` option declares.
#[derive(Debug)]
pub struct HistoryMethod {
    /// The room.
    pub room: RoomTemplate,
    /// The request's field with the number of events.
    pub limit: Option<FieldDescriptor>,
    /// The request's field with the start of the page.
    pub before: Option<FieldDescriptor>,
    /// Number of events in a page if the browser does not specify it.
    pub default_limit: usize,
    /// The number of the response's field that receives the events.
    pub field: u32,
    /// The type of the field's elements.
    pub element: HistoryElement,
}

/// An element of the list that holds a page.
#[derive(Debug)]
pub enum HistoryElement {
    /// The event with this full name.
    Event(String),
    /// A message with one oneof of events.
    OneOf {
        /// Field numbers of the members by the event's full name.
        members: HashMap<String, u32>,
        /// How the message's own fields are filled.
        plan: FillPlan,
    },
}

impl HistoryMethod {
    /// Maximum number of events in a page.
    pub const EVENTS_MAX: usize = 200;

    pub(super) fn default_limit(declared: u32) -> Option<usize> {
        match usize::try_from(declared).unwrap_or(usize::MAX) {
            0 => Some(EVENTS_DEFAULT),
            limit @ 1..=Self::EVENTS_MAX => Some(limit),
            _ => None,
        }
    }

    /// The full names of the events that the page can contain.
    pub fn events(&self) -> HashSet<&str> {
        match &self.element {
            HistoryElement::Event(name) => HashSet::from([name.as_str()]),
            HistoryElement::OneOf { members, .. } => members.keys().map(String::as_str).collect(),
        }
    }

    /// How many events a request asks for. Can be any number; the caller must check it.
    pub fn limit(&self, request: &DynamicMessage) -> i128 {
        let asked = self.limit.as_ref().map(|field| match &*request.get_field(field) {
            Value::I32(number) => i128::from(*number),
            Value::I64(number) => i128::from(*number),
            Value::U32(number) => i128::from(*number),
            Value::U64(number) => i128::from(*number),
            _ => 0,
        });
        match asked {
            None | Some(0) => i128::try_from(self.default_limit).unwrap_or_default(),
            Some(number) => number,
        }
    }

    /// Where a request's page starts; empty: at the newest event.
    pub fn before(&self, request: &DynamicMessage) -> String {
        let text =
            self.before.as_ref().and_then(|field| request.get_field(field).as_str().map(str::to_owned));
        text.unwrap_or_default()
    }

    /// Appends an event to a response's bytes. `stamp` contains the event's id and time.
    pub fn append(&self, full_name: &str, payload: &[u8], stamp: &Stamp<'_>, response: &mut Vec<u8>) {
        match &self.element {
            HistoryElement::Event(name) if name == full_name => put(self.field, payload, response),
            HistoryElement::OneOf { members, plan } => {
                let Some(member) = members.get(full_name) else { return };
                let mut element = plan.make(None, stamp).encode_to_vec();
                put(*member, payload, &mut element);
                put(self.field, &element, response);
            }
            HistoryElement::Event(_) => {}
        }
    }
}

/// Writes a message field.
fn put(number: u32, message: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(message.len() as u64, out);
    out.extend_from_slice(message);
}
