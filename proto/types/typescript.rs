//! TypeScript: an interface per payload, and the maps and unions that assign names to them.

mod names;

use std::fmt::{self, Write as _};

use super::{
    codes,
    model::{Field, Key, Model, Scalar, Side, Value},
};
use crate::{
    catalog::{Catalogs, ClientMethod, EventType},
    v1::{Presence, Transport},
};
use names::Names;

/// Maximum number of members of a oneof that exclude each other in the type. In a larger oneof all
/// members are optional, because the type would repeat each member in each alternative.
const ONEOF_MEMBERS_MAX: usize = 16;

/// The types of the events and calls of some packages (none named: all).
///
/// `ServerToClientEvents` and `ClientToServerEvents` are for `Socket` of socket.io-client,
/// `WebSocketEvents` and `WebSocketCalls` for `/ws`, `/events` and `/poll`. A name that occurs
/// twice is prefixed with its package.
pub fn typescript(catalogs: &Catalogs, packages: &[String]) -> String {
    let mut model = Model::new(catalogs, packages);
    model.attach();
    let writer = Writer { names: Names::new(&model), model: &model };
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _always = writer.file(&mut out, !packages.is_empty());
    out
}

struct Writer<'m, 'c> {
    model: &'m Model<'c>,
    names: Names,
}

/// Whether a payload contains one of the message's own keys on `/ws`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clash {
    Never,
    Sometimes,
    Always,
}

impl Writer<'_, '_> {
    fn file(&self, out: &mut String, named: bool) -> fmt::Result {
        let packages = self.model.packages.iter().map(|package| format!(" --package {package}"));
        let command = format!("fanfare types{}", packages.filter(|_| named).collect::<String>());
        writeln!(out, "// Made by `{command}`. Do not edit: change the catalog and run it again.\n")?;
        self.server_to_client(out)?;
        self.client_to_server(out)?;
        self.websocket(out)?;
        self.answers(out)?;
        if self.model.free_json {
            out.push_str(FREE_JSON);
        }
        if self.model.has_attachments() {
            out.push_str(BINARY);
        }
        for (name, item) in self.names.sorted() {
            match item {
                names::Item::Message(key) => self.message(out, name, key)?,
                names::Item::Enum(index) => self.enumeration(out, name, index)?,
            }
        }
        // Each declaration ends with an empty line; the file does not.
        out.pop();
        Ok(())
    }

    fn server_to_client(&self, out: &mut String) -> fmt::Result {
        doc(
            out,
            "",
            "What the server sends over Socket.IO, for `Socket<ServerToClientEvents, ClientToServerEvents>`. Stored events have their cursor behind the payload.",
        );
        out.push_str("export interface ServerToClientEvents {\n");
        let mut events = self.model.events_over(&[Transport::Socketio]);
        events.entry("error").or_default();
        for (name, types) in events {
            let mut payloads = self.payloads(&types);
            let stored = types.iter().filter(|event| !event.ephemeral).count();
            // A reply is not stored, whatever its type declares.
            let replies = types.iter().any(|event| self.model.is_reply(event));
            let mut said = types.iter().map(|event| self.event_comment(event)).collect::<Vec<_>>();
            if name == "error" {
                payloads.push("Failure".into());
                said.push("A call failed that has no callback, or the session is ended for good.".into());
            }
            let cursor = match stored {
                0 => "",
                all if all == payloads.len() && !replies => ", cursor: string",
                // It depends on which event was received.
                _ => ", cursor?: string",
            };
            said.retain(|comment| !comment.is_empty());
            doc(out, "  ", &said.join("\n\n"));
            writeln!(out, "  {}: (event: {}{cursor}) => void;", key(name), payloads.join(" | "))?;
        }
        out.push_str("}\n\n");
        Ok(())
    }

    fn client_to_server(&self, out: &mut String) -> fmt::Result {
        doc(out, "", "What browsers may emit over Socket.IO.");
        out.push_str("export interface ClientToServerEvents {\n");
        for call in self.model.calls_over(Transport::Socketio) {
            doc(out, "  ", &self.model.call_comment(call));
            let (request, answer) = (self.request(call), self.response(call, side(call.binary)));
            let may_be_left_out = if self.is_free(call) { "?" } else { "" };
            writeln!(
                out,
                "  {}: (request{may_be_left_out}: {request}, acknowledge?: (answer: Answer<{answer}>) => void) => void;",
                key(&call.on)
            )?;
        }
        out.push_str("}\n\n");
        Ok(())
    }

    /// Messages are objects with a `type` next to the payload's fields.
    fn websocket(&self, out: &mut String) -> fmt::Result {
        let transports = [Transport::Websocket, Transport::Sse, Transport::Poll];
        let calls = self.model.calls_over(Transport::Websocket);
        doc(
            out,
            "",
            "What `/ws`, `/events` and `/poll` send: an event's name as `type`, and its payload beside it. With `after` in the query of `/ws`, stored events have a `cursor`.",
        );
        out.push_str("export type WebSocketEvents =\n");
        for (name, types) in self.model.events_over(&transports) {
            for event in types {
                self.websocket_event(out, name, event)?;
            }
        }
        if !calls.is_empty() {
            let mut answers: Vec<_> = calls.iter().map(|call| self.response(call, Side::Server)).collect();
            answers.sort_unstable();
            answers.dedup();
            writeln!(out, "  | {{ type: \"ack\"; ref: number; data: {} }}", answers.join(" | "))?;
        }
        out.push_str("  | { type: \"reset\"; cursor: string }\n");
        doc(
            out,
            "  ",
            "A stream of `/events` ends and `EventSource` comes back by itself: close it when the reason is final.",
        );
        out.push_str("  | ({ type: \"end\" } & Failure)\n");
        out.push_str("  | ({ type: \"error\"; ref?: number } & Failure);\n\n");

        doc(
            out,
            "",
            "What browsers may send over `/ws`. A call with a `ref` is answered by `ack` or `error` with the same `ref`.",
        );
        out.push_str("export type WebSocketCalls =\n");
        for call in calls {
            let empty = self.model.fields(self.model.key(call.request.index, Side::Browser)).is_empty();
            let payload = if empty { String::new() } else { format!(" & {}", self.request(call)) };
            doc(out, "  ", &self.model.call_comment(call));
            writeln!(out, "  | ({{ type: {}; ref?: number }}{payload})", text(&call.on))?;
        }
        out.push_str("  | { type: \"auth\"; token: string };\n\n");
        Ok(())
    }

    fn websocket_event(&self, out: &mut String, name: &str, event: &EventType) -> fmt::Result {
        let greets = event.announcement.as_ref().is_some_and(|a| a.on == Presence::Connected);
        let has_cursor = greets || !event.ephemeral;
        let fields = self.model.fields(self.model.key(event.shape.index, Side::Server));
        let (kind, payload) = (text(name), self.name(event.shape.index, Side::Server));
        let cursor = if has_cursor { "; cursor?: string" } else { "" };
        let apart = format!("{{ type: {kind}{cursor}; payload: {payload} }}");
        doc(out, "  ", &self.event_comment(event));
        if fields.is_empty() {
            return writeln!(out, "  | {{ type: {kind}{cursor} }}");
        }
        // As in the bridge: a payload that has such a key itself is nested.
        let (kinds, cursors) = (clash(&fields, "type"), clash(&fields, "cursor"));
        let cursors = if has_cursor { cursors } else { Clash::Never };
        if (kinds, cursors) != (Clash::Never, Clash::Never) {
            writeln!(out, "  | {apart}")?;
        }
        let cursor = if cursors == Clash::Never { cursor } else { "" };
        match kinds {
            Clash::Never => writeln!(out, "  | ({{ type: {kind}{cursor} }} & {payload})"),
            Clash::Sometimes => writeln!(out, "  | ({{ type: {kind}{cursor} }} & Omit<{payload}, \"type\">)"),
            Clash::Always => Ok(()),
        }
    }

    /// The parts that all calls and refusals share.
    fn answers(&self, out: &mut String) -> fmt::Result {
        out.push_str(ANSWERS);
        doc(
            out,
            "",
            "Why something was refused or ended: below 2000 in `fanfare.v1.Reason` it may be tried again.",
        );
        out.push_str("export type Code =\n");
        let codes = codes(self.model.catalogs, &self.model.comments);
        for (index, (code, comment)) in codes.iter().enumerate() {
            doc(out, "  ", comment);
            writeln!(out, "  | {}{}", text(code), if index + 1 == codes.len() { ";\n" } else { "" })?;
        }
        Ok(())
    }

    fn message(&self, out: &mut String, name: &str, key: Key) -> fmt::Result {
        let fields = self.model.fields(key);
        doc(out, "", &self.model.message_comment(key.0));
        if fields.is_empty() {
            // An empty interface would accept anything.
            return writeln!(out, "export type {name} = {{ [key: string]: never }};\n");
        }
        let mut oneofs: Vec<usize> = fields.iter().filter_map(|f| f.oneof).collect();
        oneofs.dedup();
        let members = |oneof: usize| fields.iter().filter(move |f| f.oneof == Some(oneof));
        oneofs.retain(|oneof| members(*oneof).count() <= ONEOF_MEMBERS_MAX);
        let is_apart = |field: &&Field<'_>| field.oneof.is_some_and(|oneof| oneofs.contains(&oneof));
        let opening = if oneofs.is_empty() {
            format!("export interface {name} {{")
        } else {
            format!("export type {name} = {{")
        };
        writeln!(out, "{opening}")?;
        for field in fields.iter().filter(|field| !is_apart(field)) {
            self.field(out, "  ", field)?;
        }
        out.push('}');
        for oneof in &oneofs {
            let members: Vec<_> = members(*oneof).collect();
            out.push_str(" & (\n");
            for chosen in &members {
                out.push_str("  | {\n");
                for member in &members {
                    if member.name == chosen.name {
                        doc(out, "      ", &chosen.comment);
                        writeln!(out, "      {}: {};", self::key(member.name), self.value(member.value))?;
                    } else {
                        writeln!(out, "      {}?: never;", self::key(member.name))?;
                    }
                }
                out.push_str("    }\n");
            }
            let none: Vec<_> = members.iter().map(|m| format!("{}?: never", self::key(m.name))).collect();
            write!(out, "  | {{ {} }}\n)", none.join("; "))?;
        }
        out.push_str(if oneofs.is_empty() { "\n\n" } else { ";\n\n" });
        Ok(())
    }

    fn field(&self, out: &mut String, indent: &str, field: &Field<'_>) -> fmt::Result {
        doc(out, indent, &field.comment);
        let optional = if field.optional { "?" } else { "" };
        writeln!(out, "{indent}{}{optional}: {};", key(field.name), self.value(field.value))
    }

    fn enumeration(&self, out: &mut String, name: &str, index: usize) -> fmt::Result {
        let enumeration = self.model.enumeration(index);
        let comment = enumeration.map(|e| self.model.comments.of(&e.parent_file(), e.path()));
        doc(out, "", &comment.unwrap_or_default());
        writeln!(out, "export type {name} =")?;
        let texts = self.model.texts(index, false);
        for (place, (value, comment)) in texts.iter().enumerate() {
            doc(out, "  ", comment);
            writeln!(out, "  | {}{}", text(value), if place + 1 == texts.len() { ";\n" } else { "" })?;
        }
        Ok(())
    }

    fn value(&self, value: Value) -> String {
        match value {
            Value::One(scalar) => self.scalar(scalar),
            Value::List(scalar) => {
                let item = self.scalar(scalar);
                if item.contains('|') { format!("({item})[]") } else { format!("{item}[]") }
            }
            Value::Map { value, .. } => format!("{{ [key: string]: {} }}", self.scalar(value)),
        }
    }

    fn scalar(&self, scalar: Scalar) -> String {
        let name = match scalar {
            Scalar::Text
            | Scalar::Base64
            | Scalar::IntegerText { .. }
            | Scalar::Timestamp
            | Scalar::Duration
            | Scalar::FieldMask => "string",
            Scalar::Attachment => "Binary",
            Scalar::Bool => "boolean",
            Scalar::Integer { .. } => "number",
            Scalar::Float => "number | \"NaN\" | \"Infinity\" | \"-Infinity\"",
            Scalar::Null => "null",
            Scalar::Nothing => "never",
            Scalar::Json => "JsonValue",
            Scalar::JsonObject => "JsonObject",
            Scalar::JsonList => "JsonValue[]",
            Scalar::Enum { index, zero } => {
                let name = self.names.of_enum(index);
                return match self.model.unset_text(index).filter(|_| zero) {
                    Some(unset) => format!("{name} | {}", text(unset)),
                    None => name.to_owned(),
                };
            }
            Scalar::Message(key) => self.names.of_message(key),
        };
        name.to_owned()
    }

    fn name(&self, index: usize, side: Side) -> String {
        self.scalar(self.model.message_value(index, side))
    }

    fn payloads(&self, events: &[&std::sync::Arc<EventType>]) -> Vec<String> {
        events.iter().map(|event| self.name(event.shape.index, side(event.binary))).collect()
    }

    fn request(&self, call: &ClientMethod) -> String {
        self.name(call.request.index, Side::Browser)
    }

    fn response(&self, call: &ClientMethod, side: Side) -> String {
        self.name(call.response.index, side)
    }

    /// Whether a call needs no payload.
    fn is_free(&self, call: &ClientMethod) -> bool {
        let fields = self.model.fields(self.model.key(call.request.index, Side::Browser));
        fields.iter().all(|field| field.optional)
    }

    fn event_comment(&self, event: &EventType) -> String {
        self.model.message_comment(event.shape.index)
    }
}

/// The form in which Socket.IO clients receive what the server sends.
const fn side(binary: bool) -> Side {
    if binary { Side::Attached } else { Side::Server }
}

/// Whether a payload has a field of this name.
fn clash(fields: &[Field<'_>], name: &str) -> Clash {
    match fields.iter().find(|field| field.name == name) {
        None => Clash::Never,
        Some(field) if field.optional => Clash::Sometimes,
        Some(_) => Clash::Always,
    }
}

/// A string literal.
fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// A property's name, quoted if it is not an identifier.
fn key(name: &str) -> String {
    let start = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$');
    let is_plain = name.starts_with(start) && name.chars().all(|c| start(c) || c.is_ascii_digit());
    if is_plain { name.to_owned() } else { text(name) }
}

/// A comment, if it is not empty.
fn doc(out: &mut String, indent: &str, comment: &str) {
    if comment.is_empty() {
        return;
    }
    let comment = comment.replace("*/", "*\\/");
    let lines: Vec<&str> = comment.lines().collect();
    if let [line] = lines[..] {
        out.push_str(&format!("{indent}/** {line} */\n"));
        return;
    }
    out.push_str(&format!("{indent}/**\n"));
    for line in lines {
        out.push_str(format!("{indent} * {line}").trim_end());
        out.push('\n');
    }
    out.push_str(&format!("{indent} */\n"));
}

const ANSWERS: &str = "\
/** What a call is answered: its response, or why it was refused. */
export type Answer<T> = T | Refused;

/** The acknowledgement of a call that was refused. */
export interface Refused {
  error: Failure;
}

/** Why something was refused or ended. */
export interface Failure {
  /** For programs. */
  code: Code;
  /** For people. */
  message: string;
  /** The field that it is about, e.g. \"chatId\". */
  path?: string;
  /** When the same may be tried again. */
  retryAfterMs?: number;
}

/**
 * Calls whose acknowledgement is not optional: the types of socket.io-client see it only then in `emitWithAck` and after
 * `timeout`. E.g. `const asking: Socket<ServerToClientEvents, Acknowledged<ClientToServerEvents>> = socket`.
 */
export type Acknowledged<Calls> = {
  [Name in keyof Calls]: Calls[Name] extends (...parameters: infer P) => void ? (...parameters: Required<P>) => void : never;
};

";

const BINARY: &str = "\
/** An attachment: an `ArrayBuffer` in browsers, a `Buffer` (which is a `Uint8Array`) in Node. */
export type Binary = ArrayBuffer | Uint8Array;

";

const FREE_JSON: &str = "\
/** Any JSON. */
export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;

/** Any JSON object. */
export interface JsonObject {
  [key: string]: JsonValue;
}

";
