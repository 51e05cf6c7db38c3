//! The model that all generated types share: the events, calls and messages, and the JSON of each
//! field.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use prost_reflect::{EnumDescriptor, MessageDescriptor};

use super::comments::Comments;
use crate::{
    catalog::{Catalogs, ClientMethod, EventType, is_stamped},
    json::{FieldKind, FieldShape, MessageShape, Repetition, SAFE_INTEGER_MAX, Special, Table},
    v1::Transport,
};

/// The side that writes a message's JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Side {
    /// The server: every field that has a default is present.
    Server,
    /// A browser: fields that the server stamps are absent.
    Browser,
    /// The server, with `bytes` as attachments.
    Attached,
}

/// A message's type: its index in the table, and the side that writes it, where that matters.
pub(super) type Key = (usize, Side);

/// The JSON of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Text,
    Base64,
    /// `bytes` sent separately from the JSON.
    Attachment,
    Bool,
    /// A number, or one of the texts for values that JSON numbers cannot express.
    Float,
    Integer {
        min: i64,
        max: i64,
    },
    /// 64 bits as decimal text.
    IntegerText {
        signed: bool,
    },
    /// `zero`: the value that means "unset" is allowed.
    Enum {
        index: usize,
        zero: bool,
    },
    Null,
    Timestamp,
    Duration,
    FieldMask,
    /// google.protobuf.Any, which has no browser JSON.
    Nothing,
    /// Any JSON.
    Json,
    JsonObject,
    JsonList,
    Message(Key),
}

/// The JSON of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    One(Scalar),
    List(Scalar),
    Map { key: FieldKind, value: Scalar },
}

/// A field as it appears in JSON.
#[derive(Debug)]
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) comment: String,
    pub(super) value: Value,
    /// Whether it may be absent.
    pub(super) optional: bool,
    /// The index of the message's oneof that contains it, if the oneof has other members too.
    pub(super) oneof: Option<usize>,
}

/// The events and calls of some packages, and all types that they use.
#[derive(Debug)]
pub(super) struct Model<'a> {
    pub(super) catalogs: &'a Catalogs,
    pub(super) packages: Vec<&'a str>,
    pub(super) comments: Comments,
    /// By name, then by type.
    pub(super) events: Vec<&'a Arc<EventType>>,
    /// By name, then by path.
    pub(super) calls: Vec<&'a Arc<ClientMethod>>,
    /// The messages in use.
    pub(super) messages: BTreeSet<Key>,
    /// The enums in use.
    pub(super) enums: BTreeSet<usize>,
    /// Whether google.protobuf.Value, Struct or ListValue is in use.
    pub(super) free_json: bool,
    table: Arc<Table>,
    /// By message: whether it has stamped fields, at any depth; empty if browsers write nothing.
    stamped: Vec<bool>,
}

impl<'a> Model<'a> {
    /// The model of the named packages (none named: all).
    pub(super) fn new(catalogs: &'a Catalogs, packages: &[String]) -> Self {
        let packages: BTreeSet<&str> = if packages.is_empty() {
            catalogs.packages().iter().map(String::as_str).collect()
        } else {
            catalogs.packages().iter().filter(|p| packages.contains(p)).map(String::as_str).collect()
        };
        let mut events: Vec<_> =
            catalogs.events().filter(|e| packages.contains(e.package.as_str())).collect();
        events.sort_by(|a, b| (&a.name, &a.full_name).cmp(&(&b.name, &b.full_name)));
        let mut calls: Vec<_> = catalogs.calls().filter(|c| packages.contains(c.package.as_str())).collect();
        calls.sort_by(|a, b| (&a.on, &a.path).cmp(&(&b.on, &b.path)));
        let mut model = Self::empty(catalogs);
        model.stamped = stamped(catalogs, &model.table);
        model.packages = packages.into_iter().collect();
        for event in &events {
            model.need(event.shape.index, Side::Server);
        }
        for call in &calls {
            model.need(call.request.index, Side::Browser);
            model.need(call.response.index, Side::Server);
        }
        (model.events, model.calls) = (events, calls);
        model
    }

    /// The model of one message that the server writes, if there is one with this name.
    pub(super) fn of_message(catalogs: &'a Catalogs, full_name: &str) -> Option<(Self, usize)> {
        let index = catalogs.shape(full_name)?.index;
        let mut model = Self::empty(catalogs);
        model.need(index, Side::Server);
        Some((model, index))
    }

    fn empty(catalogs: &'a Catalogs) -> Self {
        Self {
            catalogs,
            packages: Vec::new(),
            comments: Comments::default(),
            events: Vec::new(),
            calls: Vec::new(),
            messages: BTreeSet::new(),
            enums: BTreeSet::new(),
            free_json: false,
            stamped: Vec::new(),
            table: catalogs.table(),
        }
    }

    /// The calls that can be emitted over a transport, resolved as the server does: a call for only
    /// this transport takes precedence over one for all. Socket.IO clients find the calls of these
    /// packages in their namespaces; on other transports the calls of all packages share one
    /// namespace.
    pub(super) fn calls_over(&self, transport: Transport) -> Vec<&'a Arc<ClientMethod>> {
        let is_hidden = |call: &ClientMethod| {
            let hides = |other: &ClientMethod| other.on == call.on && other.transport == transport;
            match transport {
                Transport::Socketio => self.calls.iter().any(|other| hides(other)),
                _ => self.catalogs.calls().any(|other| hides(other)),
            }
        };
        let is_found = |call: &&&Arc<ClientMethod>| {
            call.transport == transport || (call.transport == Transport::Unspecified && !is_hidden(call))
        };
        self.calls.iter().filter(is_found).copied().collect()
    }

    /// The events of files that are for the transport, by name.
    pub(super) fn events_over(&self, transports: &[Transport]) -> BTreeMap<&'a str, Vec<&'a Arc<EventType>>> {
        let mut events: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for event in &self.events {
            let only = event.transport();
            if only == Transport::Unspecified || transports.contains(&only) {
                events.entry(&event.name).or_default().push(*event);
            }
        }
        events
    }

    /// Whether the event is the reply to a call.
    pub(super) fn is_reply(&self, event: &EventType) -> bool {
        let replies = self.catalogs.calls().filter_map(|call| call.reply.as_ref());
        replies.into_iter().any(|(reply, _)| reply.full_name == event.full_name)
    }

    /// A message's type. All sides share one type unless it contains stamped fields or attachments.
    pub(super) fn key(&self, index: usize, side: Side) -> Key {
        let differs = match side {
            Side::Server => false,
            Side::Browser => self.stamped.get(index) == Some(&true),
            Side::Attached => self.table.with_bytes[index],
        };
        (index, if differs { side } else { Side::Server })
    }

    /// Whether anything is declared `binary`.
    pub(super) fn has_attachments(&self) -> bool {
        self.events.iter().any(|event| event.binary) || self.calls.iter().any(|call| call.binary)
    }

    /// Adds the types of what is declared `binary`, as sent over Socket.IO.
    pub(super) fn attach(&mut self) {
        for event in self.events.clone().into_iter().filter(|event| event.binary) {
            self.need(event.shape.index, Side::Attached);
        }
        for call in self.calls.clone().into_iter().filter(|call| call.binary) {
            self.need(call.response.index, Side::Attached);
        }
    }

    fn need(&mut self, index: usize, side: Side) {
        let table = self.table.clone();
        let mut open = vec![(index, side)];
        while let Some((index, side)) = open.pop() {
            let message = &table.messages[index];
            match message.special {
                Special::None => {}
                Special::Value | Special::Transparent => {
                    let free =
                        ["google.protobuf.Value", "google.protobuf.Struct", "google.protobuf.ListValue"];
                    self.free_json |= free.contains(&message.full_name.as_str());
                    continue;
                }
                Special::Timestamp | Special::Duration | Special::FieldMask | Special::Any => continue,
            }
            if !self.messages.insert(self.key(index, side)) {
                continue;
            }
            let kinds: Vec<_> = self.shown(index, side).into_iter().map(|f| value_kind(&table, f)).collect();
            for kind in kinds {
                match kind {
                    FieldKind::Message(inner) => open.push((inner, side)),
                    FieldKind::Enum(inner) if !table.enums[inner].is_null => {
                        self.enums.insert(inner);
                    }
                    _ => {}
                }
            }
        }
    }

    pub(super) fn message_name(&self, index: usize) -> &str {
        &self.table.messages[index].full_name
    }

    pub(super) fn enum_name(&self, index: usize) -> &str {
        &self.table.enums[index].full_name
    }

    pub(super) fn message(&self, index: usize) -> Option<MessageDescriptor> {
        self.catalogs.pool().get_message_by_name(self.message_name(index))
    }

    pub(super) fn enumeration(&self, index: usize) -> Option<EnumDescriptor> {
        self.catalogs.pool().get_enum_by_name(self.enum_name(index))
    }

    /// The comment of a message.
    pub(super) fn message_comment(&self, index: usize) -> String {
        let message = self.message(index);
        message.map(|m| self.comments.of(&m.parent_file(), m.path())).unwrap_or_default()
    }

    /// The comment of a gRPC method such as `/messenger.v1.MessengerClient/SubscribeChat`.
    pub(super) fn call_comment(&self, call: &ClientMethod) -> String {
        let found = call.path.trim_start_matches('/').split_once('/').and_then(|(service, method)| {
            let service = self.catalogs.pool().get_service_by_name(service)?;
            service.methods().find(|m| m.name() == method)
        });
        found.map(|m| self.comments.of(&m.parent_file(), m.path())).unwrap_or_default()
    }

    /// An enum's texts with their comments, by number; includes the value that means "unset" only
    /// if `zero` is true.
    pub(super) fn texts(&self, index: usize, zero: bool) -> Vec<(&str, String)> {
        let shape = &self.table.enums[index];
        let descriptor = self.enumeration(index);
        let comment = |number: i32| {
            let descriptor = descriptor.as_ref()?;
            let values = descriptor.values().filter(|v| v.number() == number);
            let value = values.min_by(|a, b| a.path().cmp(b.path()))?;
            Some(self.comments.of(&descriptor.parent_file(), value.path()))
        };
        let texts = shape.texts.iter().filter(|(n, _)| zero || !(shape.zero_is_unset && **n == 0));
        texts.map(|(number, text)| (text.as_str(), comment(*number).unwrap_or_default())).collect()
    }

    /// The text of an enum's value that means "unset".
    pub(super) fn unset_text(&self, index: usize) -> Option<&str> {
        let shape = &self.table.enums[index];
        shape.texts.get(&0).filter(|_| shape.zero_is_unset).map(String::as_str)
    }

    /// The fields of a message's JSON, in the order of the `.proto`.
    pub(super) fn fields(&self, (index, side): Key) -> Vec<Field<'_>> {
        let descriptor = self.message(index);
        let shown = self.shown(index, side);
        let is_alone = |oneof: usize| shown.iter().filter(|f| f.oneof == Some(oneof)).count() < 2;
        let fields = shown.iter().map(|field| {
            let described = descriptor.as_ref().and_then(|d| d.get_field(field.number));
            let comment = described.map(|f| self.comments.of(&f.parent_message().parent_file(), f.path()));
            Field {
                name: &field.json_name,
                comment: comment.unwrap_or_default(),
                value: self.value(field, side),
                optional: field.repetition == (Repetition::Singular { presence: true }),
                oneof: field.oneof.filter(|oneof| !is_alone(*oneof)),
            }
        });
        fields.collect()
    }

    /// The fields that appear in the JSON of a side.
    fn shown(&self, index: usize, side: Side) -> Vec<&FieldShape> {
        let message = &self.table.messages[index];
        let descriptor = self.message(index);
        let is_server_s = |field: &FieldShape| {
            let field = descriptor.as_ref().and_then(|d| d.get_field(field.number));
            side == Side::Browser && field.is_some_and(|f| is_stamped(&f))
        };
        message.fields.iter().filter(|f| !f.internal && !is_server_s(f)).collect()
    }

    fn value(&self, field: &FieldShape, side: Side) -> Value {
        let implicit = |repetition| repetition == Repetition::Singular { presence: false };
        match (field.repetition, field.kind) {
            (Repetition::Map, FieldKind::Message(entry)) => {
                let entry = &self.table.messages[entry].fields;
                let value = self.scalar(entry[1].kind, implicit(entry[1].repetition), side);
                Value::Map { key: entry[0].kind, value }
            }
            (Repetition::Map | Repetition::Repeated, kind) => Value::List(self.scalar(kind, false, side)),
            (repetition, kind) => Value::One(self.scalar(kind, implicit(repetition), side)),
        }
    }

    /// `implicit`: unset cannot be distinguished from the default.
    fn scalar(&self, kind: FieldKind, implicit: bool, side: Side) -> Scalar {
        let safe = |min| Scalar::Integer { min, max: SAFE_INTEGER_MAX };
        match kind {
            FieldKind::Double | FieldKind::Float => Scalar::Float,
            FieldKind::Int32 | FieldKind::Sint32 | FieldKind::Sfixed32 => {
                Scalar::Integer { min: i32::MIN.into(), max: i32::MAX.into() }
            }
            FieldKind::Uint32 | FieldKind::Fixed32 => Scalar::Integer { min: 0, max: u32::MAX.into() },
            FieldKind::Int64 { js_number: true }
            | FieldKind::Sint64 { js_number: true }
            | FieldKind::Sfixed64 { js_number: true } => safe(-SAFE_INTEGER_MAX),
            FieldKind::Uint64 { js_number: true } | FieldKind::Fixed64 { js_number: true } => safe(0),
            FieldKind::Int64 { .. } | FieldKind::Sint64 { .. } | FieldKind::Sfixed64 { .. } => {
                Scalar::IntegerText { signed: true }
            }
            FieldKind::Uint64 { .. } | FieldKind::Fixed64 { .. } => Scalar::IntegerText { signed: false },
            FieldKind::Bool => Scalar::Bool,
            FieldKind::String => Scalar::Text,
            FieldKind::Bytes if side == Side::Attached => Scalar::Attachment,
            FieldKind::Bytes => Scalar::Base64,
            FieldKind::Enum(index) if self.table.enums[index].is_null => Scalar::Null,
            // Written if it was set explicitly; browsers have no reason to set it.
            FieldKind::Enum(index) => Scalar::Enum {
                index,
                zero: !self.table.enums[index].zero_is_unset || (!implicit && side != Side::Browser),
            },
            FieldKind::Message(index) => self.message_value(index, side),
        }
    }

    /// A message's JSON.
    pub(super) fn message_value(&self, index: usize, side: Side) -> Scalar {
        let message = &self.table.messages[index];
        match (message.special, message.full_name.as_str()) {
            (Special::None, _) => Scalar::Message(self.key(index, side)),
            (Special::Timestamp, _) => Scalar::Timestamp,
            (Special::Duration, _) => Scalar::Duration,
            (Special::FieldMask, _) => Scalar::FieldMask,
            (Special::Any, _) => Scalar::Nothing,
            (Special::Value, _) => Scalar::Json,
            (Special::Transparent, "google.protobuf.Struct") => Scalar::JsonObject,
            (Special::Transparent, "google.protobuf.ListValue") => Scalar::JsonList,
            // The wrappers: the JSON of their only field.
            (Special::Transparent, _) => self.scalar(message.fields[0].kind, true, side),
        }
    }
}

/// Whether a message's type is the one that browsers send, while the server sends another.
pub(super) fn is_input(model: &Model<'_>, index: usize, side: Side) -> bool {
    side == Side::Browser && model.messages.contains(&(index, Side::Server))
}

/// The kind of a field's values; of a map's values, not its entries.
fn value_kind(table: &Table, field: &FieldShape) -> FieldKind {
    match (field.repetition, field.kind) {
        (Repetition::Map, FieldKind::Message(entry)) => table.messages[entry].fields[1].kind,
        (_, kind) => kind,
    }
}

/// By message: whether browsers have fewer fields to send, in it or in a nested message.
fn stamped(catalogs: &Catalogs, table: &Table) -> Vec<bool> {
    let own = |message: &MessageShape| {
        let descriptor = catalogs.pool().get_message_by_name(&message.full_name);
        let is_stamped = |field: &FieldShape| {
            descriptor.as_ref().and_then(|d| d.get_field(field.number)).is_some_and(|f| is_stamped(&f))
        };
        message.fields.iter().any(|field| !field.internal && is_stamped(field))
    };
    let mut stamped: Vec<bool> = table.messages.iter().map(own).collect();
    loop {
        let before = stamped.clone();
        for (index, message) in table.messages.iter().enumerate() {
            let inner = |field: &FieldShape| match value_kind(table, field) {
                FieldKind::Message(inner) => before[inner] && !field.internal,
                _ => false,
            };
            stamped[index] = before[index] || message.fields.iter().any(inner);
        }
        if stamped == before {
            return stamped;
        }
    }
}
