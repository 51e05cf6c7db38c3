//! JSON Schema of browser JSON. Inside it, only keywords with the same meaning in draft 7 and draft
//! 2020-12 are used, because AsyncAPI is based on draft 7.

use serde_json::{Map, Value as Json, json};

use super::model::{Key, Model, Scalar, Side, Value, is_input};
use crate::{catalog::Catalogs, json::FieldKind};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Years 1 to 9999, three fractional digits.
const TIME: &str = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$";
const DURATION: &str = r"^-?\d+(\.(\d{3}|\d{6}|\d{9}))?s$";
const SIGNED: &str = "^(0|-?[1-9][0-9]*)$";
const UNSIGNED: &str = "^(0|[1-9][0-9]*)$";

/// The schema (draft 2020-12) of the JSON that browsers receive for a message, by its full name;
/// `None` if there is no such message.
pub fn json_schema(catalogs: &Catalogs, full_name: &str) -> Option<Json> {
    let (model, index) = Model::of_message(catalogs, full_name)?;
    let place = Place { prefix: "#/$defs/" };
    let mut schema = Map::new();
    schema.insert("$schema".into(), DIALECT.into());
    schema.insert("title".into(), full_name.into());
    merge(&mut schema, place.scalar(&model, model.message_value(index, Side::Server)));
    let types = place.types(&model);
    if !types.is_empty() {
        schema.insert("$defs".into(), types.into());
    }
    Some(schema.into())
}

/// One document with the schemas of all events, requests and responses of some packages (none
/// named: all). Each is in `$defs` under its message's full name; requests that differ from what
/// the server sends have the suffix `-input`.
pub fn json_schemas(catalogs: &Catalogs, packages: &[String]) -> Json {
    let model = Model::new(catalogs, packages);
    let place = Place { prefix: "#/$defs/" };
    json!({ "$schema": DIALECT, "$defs": place.types(&model) })
}

/// Where the types are in a document.
pub(super) struct Place {
    pub(super) prefix: &'static str,
}

impl Place {
    /// The schemas of all messages and enums in use.
    pub(super) fn types(&self, model: &Model<'_>) -> Map<String, Json> {
        let mut types = Map::new();
        for key in &model.messages {
            types.insert(type_name(model, *key), self.message(model, *key));
        }
        types
    }

    fn reference(&self, model: &Model<'_>, key: Key) -> Json {
        json!({ "$ref": format!("{}{}", self.prefix, type_name(model, key)) })
    }

    fn message(&self, model: &Model<'_>, key: Key) -> Json {
        let fields = model.fields(key);
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for field in &fields {
            let mut schema = Map::new();
            describe(&mut schema, &field.comment);
            merge(&mut schema, self.value(model, field.value));
            properties.insert(field.name.to_owned(), schema.into());
            if !field.optional {
                required.push(field.name);
            }
        }
        let mut schema = Map::new();
        describe(&mut schema, &model.message_comment(key.0));
        merge(
            &mut schema,
            json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false }),
        );
        let mut oneofs: Vec<usize> = fields.iter().filter_map(|f| f.oneof).collect();
        oneofs.dedup();
        let choices = oneofs.iter().map(|oneof| {
            let members = fields.iter().filter(|f| f.oneof == Some(*oneof));
            let mut choices: Vec<Json> = members.map(|f| json!({ "required": [f.name] })).collect();
            let none = json!({ "not": { "anyOf": choices.clone() } });
            choices.push(none);
            json!({ "oneOf": choices })
        });
        let choices: Vec<Json> = choices.collect();
        if !choices.is_empty() {
            schema.insert("allOf".into(), choices.into());
        }
        schema.into()
    }

    fn value(&self, model: &Model<'_>, value: Value) -> Json {
        match value {
            Value::One(scalar) => self.scalar(model, scalar),
            Value::List(scalar) => json!({ "type": "array", "items": self.scalar(model, scalar) }),
            Value::Map { key, value } => {
                let mut schema =
                    json!({ "type": "object", "additionalProperties": self.scalar(model, value) });
                if let Some(names) = map_keys(key) {
                    schema["propertyNames"] = names;
                }
                schema
            }
        }
    }

    pub(super) fn scalar(&self, model: &Model<'_>, scalar: Scalar) -> Json {
        match scalar {
            Scalar::Text | Scalar::FieldMask => json!({ "type": "string" }),
            // The schema describes the JSON without attachments.
            Scalar::Base64 | Scalar::Attachment => json!({ "type": "string", "contentEncoding": "base64" }),
            Scalar::Bool => json!({ "type": "boolean" }),
            Scalar::Float => {
                json!({ "anyOf": [{ "type": "number" }, { "enum": ["NaN", "Infinity", "-Infinity"] }] })
            }
            Scalar::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
            Scalar::IntegerText { signed } => {
                json!({ "type": "string", "pattern": if signed { SIGNED } else { UNSIGNED } })
            }
            Scalar::Enum { index, zero } => {
                let texts: Vec<&str> = model.texts(index, zero).into_iter().map(|(text, _)| text).collect();
                json!({ "type": "string", "enum": texts })
            }
            Scalar::Null => json!({ "type": "null" }),
            Scalar::Timestamp => json!({ "type": "string", "format": "date-time", "pattern": TIME }),
            Scalar::Duration => json!({ "type": "string", "pattern": DURATION }),
            Scalar::Nothing => json!({ "not": {} }),
            Scalar::Json => json!({}),
            Scalar::JsonObject => json!({ "type": "object" }),
            Scalar::JsonList => json!({ "type": "array" }),
            Scalar::Message(key) => self.reference(model, key),
        }
    }
}

/// E.g. `messenger.v1.NewMessage`; no message's name has a `-`.
pub(super) fn type_name(model: &Model<'_>, (index, side): Key) -> String {
    let input = if is_input(model, index, side) { "-input" } else { "" };
    format!("{}{input}", model.message_name(index))
}

fn map_keys(kind: FieldKind) -> Option<Json> {
    let pattern = match kind {
        FieldKind::Bool => return Some(json!({ "enum": ["true", "false"] })),
        FieldKind::Int32
        | FieldKind::Sint32
        | FieldKind::Sfixed32
        | FieldKind::Int64 { .. }
        | FieldKind::Sint64 { .. }
        | FieldKind::Sfixed64 { .. } => SIGNED,
        FieldKind::Uint32 | FieldKind::Fixed32 | FieldKind::Uint64 { .. } | FieldKind::Fixed64 { .. } => {
            UNSIGNED
        }
        FieldKind::Double
        | FieldKind::Float
        | FieldKind::String
        | FieldKind::Bytes
        | FieldKind::Enum(_)
        | FieldKind::Message(_) => return None,
    };
    Some(json!({ "pattern": pattern }))
}

pub(super) fn describe(schema: &mut Map<String, Json>, comment: &str) {
    if !comment.is_empty() {
        schema.insert("description".into(), comment.into());
    }
}

fn merge(schema: &mut Map<String, Json>, more: Json) {
    if let Json::Object(more) = more {
        schema.extend(more);
    }
}
