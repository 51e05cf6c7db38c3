//! Decodes and encodes packets.

use std::{collections::HashSet, sync::PoisonError};

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use fanfare_proto::{
    catalog::RESERVED_NAMES,
    json::ATTACHMENT_KEY,
    v1::{CallOk, Delivery},
};
use serde_json::{Value as Json, json, value::RawValue};
use socketioxide_core::{
    Str, Value,
    packet::PacketData,
    parser::{Parse as _, ParseConfig, ParseError, ParserState},
};
use socketioxide_parser_common::CommonParser;

use crate::{refusal::Refusal, session::Emission, transport::websocket::frame};

/// Maximum number of attachments of a packet.
const ATTACHMENTS_MAX: usize = 64;
/// Engine.IO's packet type of a message.
const MESSAGE: char = '4';
/// The namespace of packets that name none.
const MAIN: &str = "/";

/// What a client sent.
#[derive(Debug)]
pub(super) enum Packet {
    Connect { namespace: String, auth: Option<String> },
    Disconnect { namespace: String },
    Event { namespace: String, emission: Emission },
    Ack { namespace: String },
}

/// Why a packet is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PacketFault {
    /// Not a Socket.IO packet.
    Malformed,
    /// A packet with an invalid event.
    Event { namespace: String, ack: Option<i64>, message: String },
}

/// The result of decoding a text packet.
#[derive(Debug)]
pub(super) enum Decoded {
    Whole(Packet),
    /// Attachments follow.
    Partial(Attachments),
}

/// A packet that still lacks attachments.
#[derive(Debug)]
pub(super) struct Attachments {
    namespace: String,
    /// `None`: an acknowledgement.
    event: Option<(String, Option<i64>)>,
    wanted: usize,
    parts: Vec<Vec<u8>>,
    bytes: usize,
    bytes_max: usize,
}

/// Decodes a packet whose attachments have at most `bytes_max` bytes together.
pub(super) fn decode(text: String, bytes_max: usize) -> Result<Decoded, PacketFault> {
    // One packet at a time: attachments are collected here, where they are bounded.
    let config = ParseConfig { max_incoming_binary_buf_size: bytes_max, ..ParseConfig::default() };
    let state = ParserState::default();
    let packet = match CommonParser.decode_str(&config, &state, Str::from(text)) {
        Ok(packet) => packet,
        Err(ParseError::NeedsMoreBinaryData) => {
            let wanted = state.incoming_binary_cnt.into_inner();
            let partial = state.partial_bin_packet.into_inner().unwrap_or_else(PoisonError::into_inner);
            let packet = partial.map(|partial| partial.packet).ok_or(PacketFault::Malformed)?;
            let namespace = packet.ns.as_str().to_owned();
            let event = match packet.inner {
                PacketData::BinaryEvent(data, ack) => Some((text_of(data).unwrap_or_default(), ack)),
                _ => None,
            };
            if wanted > ATTACHMENTS_MAX {
                return Err(PacketFault::Malformed);
            }
            let parts = Vec::new();
            return Ok(Decoded::Partial(Attachments {
                namespace,
                event,
                wanted,
                parts,
                bytes: 0,
                bytes_max,
            }));
        }
        Err(_) => return Err(PacketFault::Malformed),
    };
    let namespace = packet.ns.as_str().to_owned();
    Ok(Decoded::Whole(match packet.inner {
        PacketData::Connect(auth) => Packet::Connect { namespace, auth: auth.and_then(text_of) },
        PacketData::Disconnect => Packet::Disconnect { namespace },
        PacketData::Event(data, ack) | PacketData::BinaryEvent(data, ack) => {
            event_packet(namespace, &text_of(data).unwrap_or_default(), ack, &[])?
        }
        PacketData::EventAck(data, _) | PacketData::BinaryAck(data, _) => {
            let text = text_of(data).unwrap_or_default();
            serde_json::from_str::<Vec<&RawValue>>(&text).map_err(|_| PacketFault::Malformed)?;
            Packet::Ack { namespace }
        }
        // Only servers send this packet.
        PacketData::ConnectError(_) => return Err(PacketFault::Malformed),
    }))
}

impl Attachments {
    /// Adds the next attachment.
    pub(super) fn push(&mut self, bytes: Vec<u8>) -> Result<(), PacketFault> {
        self.bytes += bytes.len();
        self.parts.push(bytes);
        if self.bytes > self.bytes_max { Err(PacketFault::Malformed) } else { Ok(()) }
    }

    /// The namespace of the packet.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) const fn are_complete(&self) -> bool {
        self.parts.len() >= self.wanted
    }

    /// Returns the packet, with attachments as base64 in its JSON, see [`ATTACHMENT_KEY`].
    pub(super) fn finish(self) -> Result<Packet, PacketFault> {
        match self.event {
            Some((text, ack)) => event_packet(self.namespace, &text, ack, &self.parts),
            None => Ok(Packet::Ack { namespace: self.namespace }),
        }
    }
}

fn text_of(value: Value) -> Option<String> {
    match value {
        Value::Str(text, _) => Some(text.as_str().to_owned()),
        Value::Bytes(_) => None,
    }
}

fn event_packet(
    namespace: String,
    text: &str,
    ack: Option<i64>,
    attachments: &[Vec<u8>],
) -> Result<Packet, PacketFault> {
    // An event is an array of its name and arguments (Socket.IO protocol, "Packet encoding").
    let arguments: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| PacketFault::Malformed)?;
    // The name is a string. A number is refused as a name; anything else is not an event at all.
    let is_event =
        |first: &&RawValue| first.get().starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit());
    if !arguments.first().is_some_and(is_event) {
        return Err(PacketFault::Malformed);
    }
    match emission(&arguments, ack, attachments) {
        Ok(emission) => Ok(Packet::Event { namespace, emission }),
        Err(message) => Err(PacketFault::Event { namespace, ack, message }),
    }
}

fn emission(arguments: &[&RawValue], ack: Option<i64>, attachments: &[Vec<u8>]) -> Result<Emission, String> {
    let name = arguments.first().and_then(|name| serde_json::from_str::<String>(name.get()).ok());
    let name = name.ok_or("the event's first element must be its name, a string")?;
    if RESERVED_NAMES.contains(&name.as_str()) {
        return Err(format!("{name:?} is reserved by Socket.IO; choose another name"));
    }
    if arguments.len() > 2 {
        let count = arguments.len() - 1;
        return Err(format!("the event has {count} arguments; it takes one, besides the acknowledgement"));
    }
    let json = arguments.get(1).map(|argument| argument.get()).filter(|argument| *argument != "null");
    let json = match json {
        json if !attachments.is_empty() => inline(json.unwrap_or("null"), attachments)?.into_bytes(),
        json => json.unwrap_or_default().as_bytes().to_vec(),
    };
    Emission::new(name, json, ack).map_err(|refusal| refusal.message)
}

/// Replaces placeholders with their attachments, marked as such: only `bytes` fields accept them.
fn inline(json: &str, attachments: &[Vec<u8>]) -> Result<String, String> {
    fn replace(value: &mut Json, attachments: &[Vec<u8>], used: &mut HashSet<usize>) -> Result<(), String> {
        if value.get("_placeholder").and_then(Json::as_bool) == Some(true) {
            let number = value.get("num").and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok());
            let found = number.and_then(|number| Some((number, attachments.get(number)?)));
            let (number, bytes) = found.ok_or("a placeholder names no attachment")?;
            used.insert(number);
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            *value = json!({ ATTACHMENT_KEY: text });
            return Ok(());
        }
        match value {
            Json::Array(items) => items.iter_mut().try_for_each(|item| replace(item, attachments, used)),
            Json::Object(fields) => {
                fields.values_mut().try_for_each(|field| replace(field, attachments, used))
            }
            _ => Ok(()),
        }
    }
    let mut value: Json = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let mut used = HashSet::new();
    replace(&mut value, attachments, &mut used)?;
    if used.len() < attachments.len() {
        return Err("an attachment has no placeholder".into());
    }
    Ok(value.to_string())
}

/// Encodes a packet as frames: its text, then its attachments.
fn write(kind: char, namespace: &str, rest: &str, attachments: &[Bytes], compress: bool) -> Bytes {
    let mut text = String::with_capacity(rest.len() + namespace.len() + 8);
    text.push(MESSAGE);
    text.push(kind);
    if !attachments.is_empty() {
        text.push_str(&attachments.len().to_string());
        text.push('-');
    }
    if namespace != MAIN {
        text.push_str(namespace);
        text.push(',');
    }
    text.push_str(rest);
    let mut out = BytesMut::new();
    frame::write_text(&mut out, text.as_bytes(), compress);
    attachments.iter().for_each(|bytes| frame::write_binary(&mut out, bytes));
    out.freeze()
}

/// The answer to CONNECT; with the `pid` a client can recover the session (socket.io-client,
/// `lib/socket.ts`).
pub(super) fn connected(namespace: &str, session_id: &str, pid: &str) -> Bytes {
    let text = |id: &str| Json::from(id).to_string();
    let pid = if pid.is_empty() { String::new() } else { format!(",\"pid\":{}", text(pid)) };
    write('0', namespace, &format!("{{\"sid\":{}{pid}}}", text(session_id)), &[], false)
}

/// The refusal of a CONNECT; `data` contains the stable code.
pub(super) fn connect_error(namespace: &str, refusal: &Refusal) -> Bytes {
    let mut data = refusal.json();
    let message = data.as_object_mut().and_then(|data| data.remove("message"));
    write('4', namespace, &json!({ "message": message, "data": data }).to_string(), &[], false)
}

/// The refusal of an unknown namespace, in the words of the protocol's reference server.
pub(super) fn invalid_namespace(namespace: &str) -> Bytes {
    write('4', namespace, &json!({ "message": "Invalid namespace" }).to_string(), &[], false)
}

/// Ends the session for good.
pub(super) fn disconnect(namespace: &str) -> Bytes {
    write('1', namespace, "", &[], false)
}

/// An event. With `cursor`, stored events carry it as the last argument, which clients store as
/// their position.
pub(super) fn event(event: &Delivery, namespace: &str, cursor: bool, compress: bool) -> Bytes {
    let (json, attachments) = match &event.binary {
        Some(binary) => (&binary.json, binary.attachments.as_slice()),
        None => (&event.json, &[][..]),
    };
    let mut rest = String::with_capacity(event.name.len() + json.len() + event.id.len() + 8);
    rest.push('[');
    rest.push_str(&Json::from(event.name.as_str()).to_string());
    rest.push(',');
    rest.push_str(&String::from_utf8_lossy(json));
    if cursor && !event.ephemeral {
        rest.push(',');
        rest.push_str(&Json::from(event.id.as_str()).to_string());
    }
    rest.push(']');
    let kind = if attachments.is_empty() { '2' } else { '5' };
    write(kind, namespace, &rest, attachments, compress)
}

/// The acknowledgement of a call.
pub(super) fn ack(namespace: &str, id: i64, answer: &CallOk) -> Bytes {
    let (kind, json, attachments) = match &answer.binary {
        Some(binary) if !binary.attachments.is_empty() => ('6', &binary.json, binary.attachments.as_slice()),
        _ => ('3', &answer.json, &[][..]),
    };
    write(kind, namespace, &format!("{id}[{}]", String::from_utf8_lossy(json)), attachments, false)
}

/// Reports that a call failed, in its acknowledgement or as the event `error`.
pub(super) fn failure(namespace: &str, ack: Option<i64>, refusal: &Refusal) -> Bytes {
    match ack {
        Some(id) => {
            let rest = format!("{id}{}", json!([{ "error": refusal.json() }]));
            write('3', namespace, &rest, &[], false)
        }
        None => write('2', namespace, &json!(["error", refusal.json()]).to_string(), &[], false),
    }
}

#[cfg(test)]
mod tests;
