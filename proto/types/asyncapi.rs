//! AsyncAPI 3.0: the server's side of the protocol, for tools that draw, mock and check it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::{
    codes,
    json_schema::{Place, describe, type_name},
    model::{Model, Scalar, Side},
};
use crate::{
    catalog::{Catalogs, ClientMethod, EventType},
    v1::Transport,
};

const ABOUT: &str = "A channel is the name of an event or a call. Over Socket.IO that is the event's name and the payload its first \
argument; over /ws, /events and /poll the name is the field `type` and the payload's fields stand beside it. A call's reply is \
its acknowledgement.";

/// The AsyncAPI document of the events and calls of some packages (none named: all): a channel per
/// name, an operation per event (the server sends) and per call (the server receives and replies).
pub fn asyncapi(catalogs: &Catalogs, packages: &[String]) -> Json {
    let model = Model::new(catalogs, packages);
    Writer { place: Place { prefix: "#/components/schemas/" }, model: &model }.document()
}

struct Writer<'m, 'c> {
    model: &'m Model<'c>,
    place: Place,
}

impl Writer<'_, '_> {
    fn document(&self) -> Json {
        let mut messages = Map::new();
        let mut channels: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let mut operations = Map::new();
        let ids = ids(self.model);
        for event in &self.model.events {
            messages.insert(event.full_name.clone(), self.event(event));
            channels.entry(&event.name).or_default().insert(event.full_name.clone());
            operations.insert(
                format!("send.{}", event.full_name),
                json!({
                    "action": "send",
                    "channel": { "$ref": format!("#/channels/{}", ids[event.name.as_str()]) },
                    "messages": [in_channel(&ids[event.name.as_str()], &event.full_name)],
                    "tags": tags(&event.package, event.transport()),
                }),
            );
        }
        for call in &self.model.calls {
            let names = [(call.request.index, Side::Browser), (call.response.index, Side::Server)];
            let [request, response] = names.map(|(index, side)| self.payload_name(index, side));
            let (asked, answered) = (format!("{request}-request"), format!("{response}-response"));
            messages.insert(asked.clone(), self.message(&request, call.request.index, Side::Browser));
            messages.insert(answered.clone(), self.message(&response, call.response.index, Side::Server));
            let channel = channels.entry(&call.on).or_default();
            channel.extend([asked.clone(), answered.clone(), REFUSED.to_owned()]);
            operations.insert(
                self.operation_name(call),
                self.operation(call, &ids[call.on.as_str()], &asked, &answered),
            );
        }
        messages.insert(
            REFUSED.into(),
            json!({ "name": REFUSED, "payload": { "$ref": "#/components/schemas/refused" } }),
        );
        let mut schemas = self.place.types(self.model);
        schemas.insert("refused".into(), self.refused());
        let channels: Map<String, Json> =
            channels.iter().map(|(name, messages)| (ids[name].clone(), channel(name, messages))).collect();
        json!({
            "asyncapi": "3.0.0",
            "info": { "title": self.model.packages.join(", "), "version": env!("CARGO_PKG_VERSION"), "description": ABOUT },
            "defaultContentType": "application/json",
            "channels": channels,
            "operations": operations,
            "components": { "messages": messages, "schemas": schemas },
        })
    }

    fn event(&self, event: &EventType) -> Json {
        let mut message = Map::new();
        message.insert("name".into(), event.name.clone().into());
        message.insert("title".into(), event.full_name.clone().into());
        describe(&mut message, &self.model.message_comment(event.shape.index));
        message.insert("payload".into(), self.payload(event.shape.index, Side::Server));
        let rooms: Vec<&str> = event.rooms.iter().map(|room| room.as_str()).collect();
        message.insert("x-rooms".into(), rooms.into());
        message.insert("x-ephemeral".into(), event.ephemeral.into());
        message.into()
    }

    fn message(&self, name: &str, index: usize, side: Side) -> Json {
        let mut message = Map::new();
        message.insert("name".into(), name.into());
        describe(&mut message, &self.model.message_comment(index));
        message.insert("payload".into(), self.payload(index, side));
        message.into()
    }

    fn operation(&self, call: &ClientMethod, channel: &str, asked: &str, answered: &str) -> Json {
        let mut operation = Map::new();
        operation.insert("action".into(), "receive".into());
        describe(&mut operation, &self.model.call_comment(call));
        operation.insert("channel".into(), json!({ "$ref": format!("#/channels/{channel}") }));
        operation.insert("messages".into(), json!([in_channel(channel, asked)]));
        operation.insert("tags".into(), tags(&call.package, call.transport));
        let reply = json!({
            "channel": { "$ref": format!("#/channels/{channel}") },
            "messages": [in_channel(channel, answered), in_channel(channel, REFUSED)],
        });
        operation.insert("reply".into(), reply);
        operation.into()
    }

    /// E.g. `receive.messenger.v1.MessengerClient.SubscribeChat`.
    fn operation_name(&self, call: &ClientMethod) -> String {
        format!("receive.{}", call.path.trim_start_matches('/').replace('/', "."))
    }

    fn payload_name(&self, index: usize, side: Side) -> String {
        match self.model.message_value(index, side) {
            Scalar::Message(key) => type_name(self.model, key),
            _ => self.model.message_name(index).to_owned(),
        }
    }

    fn payload(&self, index: usize, side: Side) -> Json {
        self.place.scalar(self.model, self.model.message_value(index, side))
    }

    fn refused(&self) -> Json {
        let codes = codes(self.model.catalogs, &self.model.comments).into_iter().map(|(code, _)| code);
        let error = json!({
            "type": "object",
            "properties": {
                "code": { "type": "string", "enum": codes.collect::<Vec<_>>() },
                "message": { "type": "string" },
                "path": { "type": "string" },
                "retryAfterMs": { "type": "integer", "minimum": 0 },
            },
            "required": ["code", "message"],
            "additionalProperties": false,
        });
        json!({
            "description": "Why a call was refused.",
            "type": "object",
            "properties": { "error": error },
            "required": ["error"],
            "additionalProperties": false,
        })
    }
}

const REFUSED: &str = "refused";

fn channel(address: &str, messages: &BTreeSet<String>) -> Json {
    let messages = messages.iter().map(|name| {
        let reference = json!({ "$ref": format!("#/components/messages/{name}") });
        (name.clone(), reference)
    });
    json!({ "address": address, "messages": messages.collect::<Map<_, _>>() })
}

fn in_channel(channel: &str, message: &str) -> Json {
    json!({ "$ref": format!("#/channels/{channel}/messages/{message}") })
}

fn tags(package: &str, transport: Transport) -> Json {
    let mut tags = vec![json!({ "name": package })];
    if transport != Transport::Unspecified {
        let name = transport.as_str_name().trim_start_matches("TRANSPORT_").to_ascii_lowercase();
        tags.push(json!({ "name": name }));
    }
    tags.into()
}

/// For each name of an event or call, a form that is valid in a reference: names may contain any
/// character.
fn ids<'m>(model: &'m Model<'_>) -> BTreeMap<&'m str, String> {
    let names = model.events.iter().map(|e| e.name.as_str()).chain(model.calls.iter().map(|c| c.on.as_str()));
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    let mut used = BTreeSet::new();
    let mut ids = BTreeMap::new();
    for name in names {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '_' };
        let mut id: String = name.chars().map(plain).collect();
        while !used.insert(id.clone()) {
            id.push('_');
        }
        ids.insert(name, id);
    }
    ids
}
