//! Messages made for a caller: what is copied from the request, what the server stamps.

use std::collections::HashSet;

use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::{FillPlan, FillSource};
use crate::v1::{Caller, Fill};

/// The options of the contract, read from descriptors.
pub(super) mod options {
    use super::{Cardinality, DynamicMessage, FieldDescriptor, FillSource, MessageDescriptor, Value};
    use prost_reflect::{DescriptorPool, MethodDescriptor};

    pub(in crate::catalog) const EVENT: u32 = 50201;
    pub(in crate::catalog) const CLIENT: u32 = 50201;
    pub(in crate::catalog) const NOTIFY: u32 = 50202;

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

/// Whether a field's type can hold what its `fill` option writes.
pub(super) fn check(field: &FieldDescriptor) -> Result<(), String> {
    let Some(source) = options::fill(field) else { return Ok(()) };
    let kind = field.kind();
    let is_text = matches!(kind, Kind::String);
    let (fits, wanted) = match &source {
        FillSource::EventId | FillSource::UserName | FillSource::SessionId | FillSource::Text(_) => {
            (is_text, "a string")
        }
        FillSource::UserId | FillSource::Claim(_) => (is_text || is_integer(&kind), "a string or an integer"),
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

const fn is_integer(kind: &Kind) -> bool {
    matches!(kind, Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64)
}

/// How `to` is made from a request of type `from`.
pub(super) fn plan(from: &MessageDescriptor, to: &MessageDescriptor) -> FillPlan {
    plan_within(Some(from), to, &mut HashSet::new())
}

fn plan_within(
    from: Option<&MessageDescriptor>,
    to: &MessageDescriptor,
    above: &mut HashSet<String>,
) -> FillPlan {
    let mut plan =
        FillPlan { descriptor: to.clone(), copies: Vec::new(), fills: Vec::new(), nested: Vec::new() };
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
            plan.copies.push((same, field));
            continue;
        }
        let Kind::Message(inner) = field.kind() else { continue };
        if options::is_singular(&field) && !above.contains(inner.full_name()) {
            let nested = plan_within(None, &inner, above);
            if !nested.fills.is_empty() || !nested.nested.is_empty() {
                plan.nested.push((field, nested));
            }
        }
    }
    above.remove(to.full_name());
    plan
}

/// What stamped fields are written from.
#[derive(Debug)]
pub struct Stamp<'a> {
    /// The verified caller.
    pub caller: &'a Caller,
    /// The caller's claims.
    pub claims: &'a serde_json::Map<String, serde_json::Value>,
    /// The event's id.
    pub event_id: &'a str,
    /// The time.
    pub time: prost_types::Timestamp,
}

impl FillPlan {
    /// Makes the message. Fields that nothing is known for stay unset.
    pub fn make(&self, request: Option<&DynamicMessage>, stamp: &Stamp<'_>) -> DynamicMessage {
        let mut message = DynamicMessage::new(self.descriptor.clone());
        if let Some(request) = request {
            for (from, to) in &self.copies {
                if request.has_field(from) {
                    message.set_field(to, request.get_field(from).into_owned());
                }
            }
        }
        for (field, source) in &self.fills {
            if let Some(value) = stamp.value(source, &field.kind()) {
                message.set_field(field, value);
            }
        }
        for (field, plan) in &self.nested {
            message.set_field(field, Value::Message(plan.make(None, stamp)));
        }
        message
    }
}

impl Stamp<'_> {
    fn value(&self, source: &FillSource, kind: &Kind) -> Option<Value> {
        match source {
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

/// The text as a value of the field's kind; `None` when it is empty or not one.
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
