//! The plan of a message type: everything that the mapping needs, looked up once at load.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use prost_reflect::{
    DescriptorPool, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
};

use super::{
    Attached, FieldPath, PathError, PayloadError,
    output::{Both, Canonical},
    plan::{self, MessagePlan, Selection, Values},
    read::{self, Audience},
    write,
};

/// All shapes of a descriptor pool.
#[derive(Debug)]
pub struct Shapes {
    pub(crate) table: Arc<Table>,
}

/// The plan of one message type. Cheap to clone.
#[derive(Clone)]
pub struct Shape {
    pub(crate) table: Arc<Table>,
    pub(crate) index: usize,
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shape({})", self.table.messages[self.index].full_name)
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) messages: Vec<MessageShape>,
    pub(crate) enums: Vec<EnumShape>,
    /// By message: whether it contains a `bytes` field that browsers see, at any depth.
    pub(crate) with_bytes: Vec<bool>,
    /// By message: how its bytes are checked.
    pub(super) plans: Vec<MessagePlan>,
    pub(super) by_name: HashMap<String, usize>,
}

#[derive(Debug)]
pub(crate) struct MessageShape {
    pub(crate) full_name: String,
    pub(crate) special: Special,
    /// In the order of the `.proto`.
    pub(crate) fields: Vec<FieldShape>,
    /// Field number → index in `fields`, sorted.
    by_number: Vec<(u32, usize)>,
    /// JSON name and protobuf name → index in `fields`.
    pub(crate) by_name: HashMap<String, usize>,
    pub(crate) oneofs: usize,
    /// An entry of a map: key and value.
    pub(super) is_entry: bool,
}

/// Messages with a special JSON form (protobuf.dev, "ProtoJSON Format").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    None,
    Timestamp,
    Duration,
    /// The JSON of the only field: Struct, ListValue and the wrappers.
    Transparent,
    Value,
    FieldMask,
    Any,
}

#[derive(Debug)]
pub(crate) struct FieldShape {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) json_name: String,
    /// The JSON name as a key, with quotes and colon.
    pub(crate) json_key: String,
    pub(crate) kind: FieldKind,
    pub(crate) repetition: Repetition,
    pub(crate) oneof: Option<usize>,
    pub(crate) internal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repetition {
    /// `presence`: unset can be distinguished from the default.
    Singular {
        presence: bool,
    },
    Repeated,
    /// The kind is the entry message: key 1, value 2.
    Map,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldKind {
    Double,
    Float,
    Int32,
    Int64 { js_number: bool },
    Uint32,
    Uint64 { js_number: bool },
    Sint32,
    Sint64 { js_number: bool },
    Fixed32,
    Fixed64 { js_number: bool },
    Sfixed32,
    Sfixed64 { js_number: bool },
    Bool,
    String,
    Bytes,
    Enum(usize),
    Message(usize),
}

#[derive(Debug)]
pub(crate) struct EnumShape {
    pub(crate) full_name: String,
    /// Number → its text, without quotes.
    pub(crate) texts: BTreeMap<i32, String>,
    /// Number → its protobuf name.
    pub(super) names: BTreeMap<i32, String>,
    /// Text or protobuf name → number.
    pub(crate) numbers: HashMap<String, i32>,
    /// The zero value means "unset": it has no text, but other values have.
    pub(crate) zero_is_unset: bool,
    /// google.protobuf.NullValue.
    pub(crate) is_null: bool,
}

impl Shapes {
    /// Makes the shapes of all messages of the pool.
    pub fn new(pool: &DescriptorPool) -> Self {
        let text = pool.get_extension_by_name("fanfare.v1.text");
        let internal = pool.get_extension_by_name("fanfare.v1.internal");
        let messages: Vec<MessageDescriptor> = pool.all_messages().collect();
        let enums: Vec<EnumDescriptor> = pool.all_enums().collect();
        let names = Names {
            messages: messages.iter().enumerate().map(|(i, m)| (m.full_name().to_owned(), i)).collect(),
            enums: enums.iter().enumerate().map(|(i, e)| (e.full_name().to_owned(), i)).collect(),
        };
        let messages: Vec<MessageShape> =
            messages.iter().map(|m| message_shape(m, &names, internal.as_ref())).collect();
        let enums: Vec<EnumShape> = enums.iter().map(|e| enum_shape(e, text.as_ref())).collect();
        let table = Table {
            with_bytes: with_bytes(&messages),
            plans: messages.iter().map(|m| MessagePlan::new(m, &enums)).collect(),
            messages,
            enums,
            by_name: names.messages,
        };
        Self { table: Arc::new(table) }
    }

    /// The shape of a message by its full name.
    pub fn get(&self, full_name: &str) -> Option<Arc<Shape>> {
        let index = *self.table.by_name.get(full_name)?;
        Some(Arc::new(Shape { table: self.table.clone(), index }))
    }
}

impl Shape {
    /// The message's full name.
    pub fn full_name(&self) -> &str {
        &self.table.messages[self.index].full_name
    }

    /// Checks bytes received from a producer: valid protobuf, and every value has browser JSON.
    /// Unknown fields are no error; they stay in the bytes and do not appear in JSON.
    pub fn validate(&self, bytes: &[u8]) -> Result<(), PayloadError> {
        self.check(bytes, &Selection::default()).map(drop)
    }

    /// The same, and records the values of selected fields in the same pass. `None`: the bytes are
    /// valid but unusual (e.g. a field occurs twice), and the values must be read from them.
    pub(crate) fn check<'a>(
        &self,
        bytes: &'a [u8],
        selection: &Selection,
    ) -> Result<Option<Values<'a>>, PayloadError> {
        let values = plan::accept(&self.table, self.index, bytes, selection);
        if values.is_none() {
            self.walk(bytes)?;
        }
        Ok(values)
    }

    /// Checks bytes with the JSON writer, whose answer is authoritative.
    pub(super) fn walk(&self, bytes: &[u8]) -> Result<(), PayloadError> {
        write::message(&self.table, self.index, bytes, &mut std::io::sink(), 0)
    }

    /// Appends the browser JSON of the bytes. Every error is one that [`Shape::validate`] returns
    /// too; after an error `out` may contain partial output.
    pub fn write_json(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PayloadError> {
        write::message(&self.table, self.index, bytes, out, 0)
    }

    /// The same, and also returns the form in which `bytes` fields are attachments.
    pub fn write_both(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Attached, PayloadError> {
        let mut attached = Attached::default();
        let mut both = Both { plain: out, attached: &mut attached };
        write::message(&self.table, self.index, bytes, &mut both, 0)?;
        Ok(attached)
    }

    /// Whether the message contains a `bytes` field that browsers see, at any depth.
    pub fn has_bytes(&self) -> bool {
        self.table.with_bytes[self.index]
    }

    /// Converts browser JSON to protobuf bytes. Refuses unknown and repeated keys, wrong types,
    /// values out of range and several members of a oneof. `null` means unset, and empty input is
    /// the empty message.
    pub fn read_json(&self, json: &[u8]) -> Result<Vec<u8>, PayloadError> {
        read::message(&self.table, self.index, json, Audience::Browsers)
    }

    /// Reads the JSON of clients that may also call over gRPC. It may set internal fields, and a
    /// `google.protobuf.Any` is an object with its type's URL as `@type`.
    pub fn read_canonical(&self, json: &[u8]) -> Result<Vec<u8>, PayloadError> {
        read::message(&self.table, self.index, json, Audience::Callers)
    }

    /// The JSON of the bytes for clients that may also call over gRPC. It includes internal fields,
    /// and enum values have their protobuf names, so that generated code can read it.
    pub fn write_canonical(&self, bytes: &[u8]) -> Result<Vec<u8>, PayloadError> {
        let mut out = Vec::new();
        write::message(&self.table, self.index, bytes, &mut Canonical(&mut out), 0)?;
        Ok(out)
    }

    /// Resolves a path of field names such as `chat_id` or `message.chat_id`, ending at a string,
    /// integer or enum field.
    pub fn path(&self, path: &str) -> Result<FieldPath, PathError> {
        FieldPath::resolve(self, path)
    }
}

impl MessageShape {
    pub(super) fn by_number(&self, number: u32) -> Option<usize> {
        // Most messages number their fields 1, 2, 3 and so on.
        let guess = number as usize - 1;
        if let Some((found, index)) = self.by_number.get(guess).filter(|(n, _)| *n == number) {
            debug_assert_eq!(*found, number);
            return Some(*index);
        }
        self.by_number.binary_search_by_key(&number, |(n, _)| *n).ok().map(|at| self.by_number[at].1)
    }
}

/// By message: whether it contains a `bytes` field that browsers see, at any depth.
fn with_bytes(messages: &[MessageShape]) -> Vec<bool> {
    let mut found = vec![false; messages.len()];
    loop {
        let before = found.clone();
        for (index, message) in messages.iter().enumerate() {
            let is_bytes = |field: &FieldShape| match field.kind {
                FieldKind::Bytes => true,
                FieldKind::Message(inner) => before[inner],
                _ => false,
            };
            found[index] = message.fields.iter().any(|field| !field.internal && is_bytes(field));
        }
        if found == before {
            return found;
        }
    }
}

struct Names {
    messages: HashMap<String, usize>,
    enums: HashMap<String, usize>,
}

fn message_shape(
    message: &MessageDescriptor,
    names: &Names,
    internal: Option<&ExtensionDescriptor>,
) -> MessageShape {
    // `optional` creates a oneof with one member, which excludes nothing.
    let oneofs: Vec<String> =
        message.oneofs().filter(|o| !o.is_synthetic()).map(|o| o.name().to_owned()).collect();
    let mut descriptors: Vec<FieldDescriptor> = message.fields().collect();
    descriptors.sort_by(|a, b| a.path().cmp(b.path()));
    let fields: Vec<FieldShape> =
        descriptors.iter().map(|f| field_shape(f, names, &oneofs, internal)).collect();
    let mut by_number: Vec<_> = fields.iter().enumerate().map(|(i, f)| (f.number, i)).collect();
    by_number.sort_unstable();
    let mut by_name = HashMap::new();
    for (index, field) in fields.iter().enumerate() {
        by_name.insert(field.name.clone(), index);
    }
    for (index, field) in fields.iter().enumerate() {
        by_name.insert(field.json_name.clone(), index);
    }
    MessageShape {
        full_name: message.full_name().to_owned(),
        special: special(message.full_name()),
        oneofs: oneofs.len(),
        is_entry: message.is_map_entry(),
        fields,
        by_number,
        by_name,
    }
}

fn special(full_name: &str) -> Special {
    match full_name {
        "google.protobuf.Timestamp" => Special::Timestamp,
        "google.protobuf.Duration" => Special::Duration,
        "google.protobuf.Value" => Special::Value,
        "google.protobuf.FieldMask" => Special::FieldMask,
        "google.protobuf.Any" => Special::Any,
        "google.protobuf.Struct"
        | "google.protobuf.ListValue"
        | "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue"
        | "google.protobuf.Int64Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.BoolValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue" => Special::Transparent,
        _ => Special::None,
    }
}

fn field_shape(
    field: &FieldDescriptor,
    names: &Names,
    oneofs: &[String],
    internal: Option<&ExtensionDescriptor>,
) -> FieldShape {
    let options = field.options();
    // FieldOptions.jstype: JS_NORMAL 0, JS_STRING 1, JS_NUMBER 2.
    let js_number = options.get_field_by_name("jstype").is_some_and(|v| v.as_enum_number() == Some(2));
    let internal = internal.is_some_and(|e| options.get_extension(e).as_bool() == Some(true));
    let repetition = if field.is_map() {
        Repetition::Map
    } else if field.is_list() {
        Repetition::Repeated
    } else {
        Repetition::Singular { presence: field.supports_presence() }
    };
    let json_name = field.json_name().to_owned();
    FieldShape {
        number: field.number(),
        name: field.name().to_owned(),
        json_key: format!("{}:", serde_json::Value::from(json_name.as_str())),
        json_name,
        kind: kind(&field.kind(), js_number, names),
        repetition,
        oneof: field.containing_oneof().and_then(|o| oneofs.iter().position(|n| n == o.name())),
        internal,
    }
}

fn kind(kind: &Kind, js_number: bool, names: &Names) -> FieldKind {
    match kind {
        Kind::Double => FieldKind::Double,
        Kind::Float => FieldKind::Float,
        Kind::Int32 => FieldKind::Int32,
        Kind::Int64 => FieldKind::Int64 { js_number },
        Kind::Uint32 => FieldKind::Uint32,
        Kind::Uint64 => FieldKind::Uint64 { js_number },
        Kind::Sint32 => FieldKind::Sint32,
        Kind::Sint64 => FieldKind::Sint64 { js_number },
        Kind::Fixed32 => FieldKind::Fixed32,
        Kind::Fixed64 => FieldKind::Fixed64 { js_number },
        Kind::Sfixed32 => FieldKind::Sfixed32,
        Kind::Sfixed64 => FieldKind::Sfixed64 { js_number },
        Kind::Bool => FieldKind::Bool,
        Kind::String => FieldKind::String,
        Kind::Bytes => FieldKind::Bytes,
        // The pool contains every type that its fields name.
        Kind::Message(m) => {
            FieldKind::Message(names.messages.get(m.full_name()).copied().unwrap_or_default())
        }
        Kind::Enum(e) => FieldKind::Enum(names.enums.get(e.full_name()).copied().unwrap_or_default()),
    }
}

fn enum_shape(descriptor: &EnumDescriptor, text: Option<&ExtensionDescriptor>) -> EnumShape {
    let (mut texts, mut names, mut numbers) = (BTreeMap::new(), BTreeMap::new(), HashMap::new());
    let mut with_text = Vec::new();
    // If several names have the same number, the first declared one is written, as in protobuf.
    let mut values: Vec<_> = descriptor.values().collect();
    values.sort_by(|a, b| a.path().cmp(b.path()));
    for value in values {
        numbers.entry(value.name().to_owned()).or_insert(value.number());
        names.entry(value.number()).or_insert_with(|| value.name().to_owned());
        let own = text.filter(|e| value.options().has_extension(e));
        let own = own.and_then(|e| value.options().get_extension(e).as_str().map(str::to_owned));
        if let Some(own) = &own {
            with_text.push(value.number());
            numbers.insert(own.clone(), value.number());
        }
        texts.entry(value.number()).or_insert_with(|| own.unwrap_or_else(|| value.name().to_owned()));
    }
    EnumShape {
        full_name: descriptor.full_name().to_owned(),
        zero_is_unset: !with_text.is_empty() && !with_text.contains(&0),
        is_null: descriptor.full_name() == "google.protobuf.NullValue",
        texts,
        names,
        numbers,
    }
}

impl EnumShape {
    /// The texts that are valid in JSON, for error messages.
    pub(super) fn choices(&self) -> String {
        let choices = self.texts.iter().filter(|(n, _)| !(self.zero_is_unset && **n == 0));
        choices.map(|(_, t)| format!("{t:?}")).collect::<Vec<_>>().join(", ")
    }
}
