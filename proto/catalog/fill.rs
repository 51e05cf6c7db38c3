//! Messages created for a caller: which fields are copied from the request, and which the server
//! stamps.

use std::collections::HashSet;

use prost_reflect::{
    Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};

use super::{Announcement, FillPlan, FillSource};
use crate::{
    room::Room,
    v1::{Caller, Fill, Transport},
};

/// The options of the contract, read from descriptors.
pub(super) mod options {
    use super::{
        Cardinality, DynamicMessage, FieldDescriptor, FillSource, MessageDescriptor, Transport, Value,
    };
    use prost_reflect::{DescriptorPool, MethodDescriptor};

    pub(in crate::catalog) const EVENT: u32 = 50201;
    pub(in crate::catalog) const CLIENT: u32 = 50201;
    pub(in crate::catalog) const NOTIFY: u32 = 50202;
    pub(in crate::catalog) const NAMESPACE: u32 = 50202;
    pub(in crate::catalog) const ROOM: u32 = 50220;

    fn extension(pool: &DescriptorPool, options: &DynamicMessage, name: &str) -> Option<Value> {
        let extension = pool.get_extension_by_name(name)?;
        options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())
    }

    fn message(value: Option<Value>) -> Option<DynamicMessage> {
        match value? {
            Value::Message(message) => Some(message),
            _ => None,
        }
    }

    pub(in crate::catalog) fn event(descriptor: &MessageDescriptor) -> Option<DynamicMessage> {
        message(extension(descriptor.parent_pool(), &descriptor.options(), "fanfare.v1.event"))
    }

    pub(in crate::catalog) fn client(descriptor: &MethodDescriptor) -> Option<DynamicMessage> {
        let pool = descriptor.parent_pool();
        message(extension(pool, &descriptor.options(), "fanfare.v1.client"))
    }

    pub(in crate::catalog) fn notify(descriptor: &MethodDescriptor) -> Option<DynamicMessage> {
        let pool = descriptor.parent_pool();
        message(extension(pool, &descriptor.options(), "fanfare.v1.notify"))
    }

    /// The only transport for a file's client methods and greetings.
    pub(in crate::catalog) fn transport(file: &prost_reflect::FileDescriptor) -> Transport {
        match extension(file.parent_pool(), &file.options(), "fanfare.v1.transport") {
            Some(Value::EnumNumber(number)) => Transport::try_from(number).unwrap_or_default(),
            _ => Transport::Unspecified,
        }
    }

    /// The Socket.IO namespace that a file declares.
    pub(in crate::catalog) fn namespace(file: &prost_reflect::FileDescriptor) -> Option<String> {
        match extension(file.parent_pool(), &file.options(), "fanfare.v1.namespace")? {
            Value::String(name) => Some(name),
            _ => None,
        }
    }

    /// The room rules that a file declares.
    pub(in crate::catalog) fn rooms(file: &prost_reflect::FileDescriptor) -> Vec<DynamicMessage> {
        let declared = extension(file.parent_pool(), &file.options(), "fanfare.v1.room");
        let Some(Value::List(items)) = declared else { return Vec::new() };
        items.into_iter().filter_map(|item| message(Some(item))).collect()
    }

    pub(in crate::catalog) fn fill(field: &FieldDescriptor) -> Option<FillSource> {
        let (pool, options) = (field.parent_pool(), field.options());
        if let Some(Value::EnumNumber(number)) = extension(pool, &options, "fanfare.v1.fill") {
            return match super::Fill::try_from(number).ok()? {
                super::Fill::Unspecified => None,
                super::Fill::EventId => Some(FillSource::EventId),
                super::Fill::Time => Some(FillSource::Time),
                super::Fill::UserId => Some(FillSource::UserId),
                super::Fill::UserName => Some(FillSource::UserName),
                super::Fill::SessionId => Some(FillSource::SessionId),
                super::Fill::MemberId => Some(FillSource::MemberId),
                super::Fill::MemberName => Some(FillSource::MemberName),
                super::Fill::MemberOnline => Some(FillSource::MemberOnline),
                super::Fill::HistoryCursor => Some(FillSource::HistoryCursor),
                super::Fill::HistoryMore => Some(FillSource::HistoryMore),
            };
        }
        if let Some(Value::String(claim)) = extension(pool, &options, "fanfare.v1.fill_claim") {
            return Some(FillSource::Claim(claim));
        }
        match extension(pool, &options, "fanfare.v1.fill_text") {
            Some(Value::String(text)) => Some(FillSource::Text(text)),
            _ => None,
        }
    }

    pub(in crate::catalog) fn is_singular(field: &FieldDescriptor) -> bool {
        field.cardinality() != Cardinality::Repeated
    }
}

/// Checks that a field's type can hold the value that its `fill` option writes.
pub(super) fn check(field: &FieldDescriptor) -> Result<(), String> {
    let Some(source) = options::fill(field) else { return Ok(()) };
    let kind = field.kind();
    let is_text = matches!(kind, Kind::String);
    let (fits, wanted) = match &source {
        FillSource::EventId
        | FillSource::UserName
        | FillSource::SessionId
        | FillSource::MemberName
        | FillSource::HistoryCursor
        | FillSource::Text(_) => (is_text, "a string"),
        FillSource::UserId | FillSource::MemberId | FillSource::Claim(_) => {
            (is_text || is_integer(&kind), "a string or an integer")
        }
        FillSource::MemberOnline | FillSource::HistoryMore => (matches!(kind, Kind::Bool), "a bool"),
        FillSource::Time => (
            kind.as_message().is_some_and(|m| m.full_name() == "google.protobuf.Timestamp"),
            "a google.protobuf.Timestamp",
        ),
    };
    if fits && options::is_singular(field) {
        return Ok(());
    }
    Err(format!("field {} cannot take its fill: want {wanted}, not repeated", field.full_name()))
}

pub(super) const fn is_integer(kind: &Kind) -> bool {
    matches!(kind, Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64)
}

/// How `to` is created from a message of type `from` that a browser sent, or only from what the
/// server knows.
pub(super) fn plan(from: Option<&MessageDescriptor>, to: &MessageDescriptor) -> FillPlan {
    plan_within(from, to, &mut HashSet::new())
}

/// The same for a message from an upstream, which is trusted: stamped fields inside copied messages
/// stay as they are.
pub(super) fn plan_trusting(from: &MessageDescriptor, to: &MessageDescriptor) -> FillPlan {
    FillPlan { restamped: Vec::new(), ..plan(Some(from), to) }
}

fn plan_within(
    from: Option<&MessageDescriptor>,
    to: &MessageDescriptor,
    above: &mut HashSet<String>,
) -> FillPlan {
    let mut plan = FillPlan {
        descriptor: to.clone(),
        copies: Vec::new(),
        fills: Vec::new(),
        nested: Vec::new(),
        lists: Vec::new(),
        restamped: Vec::new(),
    };
    above.insert(to.full_name().to_owned());
    for field in to.fields() {
        if let Some(source) = options::fill(&field) {
            plan.fills.push((field, source));
            continue;
        }
        let same = from.and_then(|m| m.get_field_by_name(field.name()));
        if let Some(same) =
            same.filter(|s| s.kind() == field.kind() && s.cardinality() == field.cardinality())
        {
            if has_fills(&field, &mut HashSet::new()) {
                plan.restamped.push(field.clone());
            }
            plan.copies.push((same, field));
            continue;
        }
        let Kind::Message(inner) = field.kind() else { continue };
        if above.contains(inner.full_name()) {
            continue;
        }
        let nested = plan_within(None, &inner, above);
        if field.is_list() && nested.names_member() {
            plan.lists.push((field, nested));
        } else if options::is_singular(&field) && (!nested.fills.is_empty() || !nested.nested.is_empty()) {
            plan.nested.push((field, nested));
        }
    }
    above.remove(to.full_name());
    plan
}

/// A member of a room, as listed by a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The user's id.
    pub user_id: String,
    /// From the token; empty if the token has none.
    pub user_name: String,
    /// Whether the member currently has a session.
    pub online: bool,
}

/// The values for stamped fields.
#[derive(Debug, Clone)]
pub struct Stamp<'a> {
    /// The verified caller.
    pub caller: &'a Caller,
    /// The caller's claims.
    pub claims: &'a serde_json::Map<String, serde_json::Value>,
    /// The event's id.
    pub event_id: &'a str,
    /// The time.
    pub time: prost_types::Timestamp,
    /// The members of the queried room.
    pub members: &'a [Member],
    /// Where the next page of a history starts; empty: there is none.
    pub history_next: &'a str,
}

impl FillPlan {
    /// Creates the message from a message of the type that the plan was made for. Fields without a
    /// value stay unset.
    pub fn make(&self, from: Option<&DynamicMessage>, stamp: &Stamp<'_>) -> DynamicMessage {
        self.make_for(from, stamp, None)
    }

    fn make_for(
        &self,
        from: Option<&DynamicMessage>,
        stamp: &Stamp<'_>,
        member: Option<&Member>,
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(self.descriptor.clone());
        if let Some(from) = from {
            for (source, to) in &self.copies {
                if from.has_field(source) {
                    message.set_field(to, from.get_field(source).into_owned());
                }
            }
        }
        // Stamped fields inside a message that was copied whole are not trusted either.
        for field in &self.restamped {
            if message.has_field(field) {
                stamp.restamp(message.get_field_mut(field));
            }
        }
        for (field, source) in &self.fills {
            if let Some(value) = stamp.value(source, &field.kind(), member) {
                message.set_field(field, value);
            }
        }
        for (field, plan) in &self.nested {
            message.set_field(field, Value::Message(plan.make_for(None, stamp, member)));
        }
        for (field, plan) in &self.lists {
            let elements = stamp.members.iter();
            let elements = elements.map(|m| Value::Message(plan.make_for(None, stamp, Some(m))));
            message.set_field(field, Value::List(elements.collect()));
        }
        message
    }

    /// Whether it describes a member of a queried room.
    fn names_member(&self) -> bool {
        let of_member = |source: &FillSource| {
            matches!(source, FillSource::MemberId | FillSource::MemberName | FillSource::MemberOnline)
        };
        self.fills.iter().any(|(_, source)| of_member(source))
    }
}

impl Announcement {
    /// Creates the event, for `room` if it concerns rooms; `None` if `room` is of another kind.
    pub fn make(&self, room: Option<&Room>, stamp: &Stamp<'_>) -> Option<DynamicMessage> {
        let mut message = self.plan.make(None, stamp);
        if let Some((kind, field)) = &self.room {
            let id = room?.as_str().strip_prefix(kind)?.strip_prefix(':')?;
            message.set_field(field, typed(id, &field.kind())?);
        }
        Some(message)
    }
}

/// Whether messages in a field have stamped fields, at any depth.
fn has_fills(field: &FieldDescriptor, seen: &mut HashSet<String>) -> bool {
    let Kind::Message(inner) = field.kind() else { return false };
    seen.insert(inner.full_name().to_owned())
        && inner.fields().any(|field| options::fill(&field).is_some() || has_fills(&field, seen))
}

impl Stamp<'_> {
    /// Overwrites all stamped fields of the messages in a value.
    fn restamp(&self, value: &mut Value) {
        match value {
            Value::Message(message) => {
                for field in message.descriptor().fields() {
                    // Only one member of a oneof can be set.
                    let chosen = field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic());
                    let absent = chosen && !message.has_field(&field);
                    match options::fill(&field).filter(|_| !absent) {
                        Some(source) => match self.value(&source, &field.kind(), None) {
                            Some(stamped) => message.set_field(&field, stamped),
                            None => message.clear_field(&field),
                        },
                        None if message.has_field(&field) => self.restamp(message.get_field_mut(&field)),
                        None => {}
                    }
                }
            }
            Value::List(items) => items.iter_mut().for_each(|item| self.restamp(item)),
            Value::Map(entries) => entries.values_mut().for_each(|entry| self.restamp(entry)),
            _ => {}
        }
    }

    fn value(&self, source: &FillSource, kind: &Kind, member: Option<&Member>) -> Option<Value> {
        match source {
            FillSource::MemberId => typed(&member?.user_id, kind),
            FillSource::MemberName => typed(&member?.user_name, kind),
            FillSource::MemberOnline => Some(Value::Bool(member?.online)),
            FillSource::HistoryCursor => typed(self.history_next, kind),
            FillSource::HistoryMore => Some(Value::Bool(!self.history_next.is_empty())),
            FillSource::EventId => typed(self.event_id, kind),
            FillSource::UserId => typed(&self.caller.user_id, kind),
            FillSource::UserName => typed(&self.caller.user_name, kind),
            FillSource::SessionId => typed(&self.caller.session_id, kind),
            FillSource::Text(text) => typed(text, kind),
            FillSource::Time => {
                let mut time = DynamicMessage::new(kind.as_message()?.clone());
                time.transcode_from(&self.time).ok()?;
                Some(Value::Message(time))
            }
            FillSource::Claim(name) => match self.claims.get(name)? {
                serde_json::Value::String(text) => typed(text, kind),
                serde_json::Value::Number(number) => typed(&number.to_string(), kind),
                _ => None,
            },
        }
    }
}

/// The text as a value of the field's kind; `None` if it is empty or does not parse.
fn typed(text: &str, kind: &Kind) -> Option<Value> {
    if text.is_empty() {
        return None;
    }
    match kind {
        Kind::String => Some(Value::String(text.to_owned())),
        Kind::Int32 => text.parse().ok().map(Value::I32),
        Kind::Int64 => text.parse().ok().map(Value::I64),
        Kind::Uint32 => text.parse().ok().map(Value::U32),
        Kind::Uint64 => text.parse().ok().map(Value::U64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use crate::catalog::{Builtin, Catalogs, Stamp};

    const CATALOG: &str = r#"
        syntax = "proto3";
        package forged.v1;
        import "fanfare/v1/catalog.proto";
        message Post {
          option (fanfare.v1.event) = { name: "post" rooms: "org" };
          Author author = 1;
          repeated Author others = 2;
        }
        message Author {
          string id = 1 [(fanfare.v1.fill) = FILL_USER_ID];
          string mood = 2;
          optional string name = 3 [(fanfare.v1.fill) = FILL_USER_NAME];
          oneof more { string told = 4 [(fanfare.v1.fill) = FILL_USER_ID]; }
        }
        message Request { Author author = 1; repeated Author others = 2; }
        service Client {
          rpc Write(Request) returns (Request) {
            option (fanfare.v1.client) = { on: "write" publish: "forged.v1.Post" };
          }
        }
    "#;

    #[test]
    fn an_identity_inside_a_message_that_is_copied_whole_is_stamped_all_the_same() {
        let file = std::env::temp_dir().join(format!("fanfare-forged-{}.proto", std::process::id()));
        std::fs::write(&file, CATALOG).unwrap();
        let catalogs = Catalogs::load(Builtin::All, &[file]).unwrap();
        let method = catalogs.call("write", crate::v1::Transport::Socketio, "/forged").unwrap();
        let json = br#"{"author":{"id":"root","mood":"bad"},"others":[{"id":"root"},{}]}"#;
        let bytes = method.request.read_json(json).unwrap();
        let request =
            prost_reflect::DynamicMessage::decode(method.request_descriptor.clone(), bytes.as_slice())
                .unwrap();
        let caller = crate::v1::Caller { user_id: "7".into(), user_name: "Ada".into(), ..Default::default() };
        let claims = serde_json::Map::new();
        let time = prost_types::Timestamp::default();
        let stamp =
            Stamp { caller: &caller, claims: &claims, event_id: "", time, members: &[], history_next: "" };
        let publish = method.publish.as_ref().unwrap();
        let made = publish.plan.make(Some(&request), &stamp).encode_to_vec();
        let mut written = Vec::new();
        publish.event.shape.write_json(&made, &mut written).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            r#"{"author":{"id":"7","mood":"bad","name":"Ada"},"others":[{"id":"7","mood":"","name":"Ada"},{"id":"7","mood":"","name":"Ada"}]}"#
        );
    }
}
