//! Packets in and out.

use std::sync::PoisonError;

use engineioxide::Str;
use fanfare_proto::{catalog::RESERVED_NAMES, v1::Delivery};
use serde_json::{json, value::RawValue};
use socketioxide_core::{
    Value,
    packet::PacketData,
    parser::{Parse as _, ParseConfig, ParseError, ParserState},
};
use socketioxide_parser_common::CommonParser;

use crate::{failure::Failure, session::Emitted};

/// What a browser sent.
#[derive(Debug)]
pub(super) enum Incoming {
    Connect {
        namespace: String,
        auth: Option<String>,
    },
    Disconnect {
        namespace: String,
    },
    Event {
        namespace: String,
        emitted: Emitted,
    },
    /// An acknowledgement; we never ask for one.
    Ack,
}

/// Why a packet was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Not a Socket.IO packet.
    Packet,
    /// A packet whose event is not one.
    Event { ack: Option<i64>, message: String },
}

/// Reads a packet.
pub(super) fn decode(text: Str) -> Result<Incoming, Refused> {
    // Each packet for itself: events with attachments are refused, so nothing is ever put together.
    let (config, state) = (ParseConfig::default(), ParserState::default());
    let packet = match CommonParser.decode_str(&config, &state, text) {
        Ok(packet) => packet,
        Err(ParseError::NeedsMoreBinaryData) => {
            let partial = state.partial_bin_packet.into_inner().unwrap_or_else(PoisonError::into_inner);
            return match partial.map(|partial| partial.packet.inner) {
                Some(PacketData::BinaryEvent(_, ack)) => Err(binary(ack)),
                // The acknowledgement of something we never asked for.
                _ => Ok(Incoming::Ack),
            };
        }
        Err(_) => return Err(Refused::Packet),
    };
    let namespace = packet.ns.as_str().to_owned();
    match packet.inner {
        PacketData::Connect(auth) => Ok(Incoming::Connect { namespace, auth: auth.and_then(text_of) }),
        PacketData::Disconnect => Ok(Incoming::Disconnect { namespace }),
        PacketData::Event(data, ack) => Ok(Incoming::Event { namespace, emitted: emitted(data, ack)? }),
        PacketData::EventAck(..) | PacketData::BinaryAck(..) => Ok(Incoming::Ack),
        PacketData::BinaryEvent(_, ack) => Err(binary(ack)),
        // Only servers send it.
        PacketData::ConnectError(_) => Err(Refused::Packet),
    }
}

fn binary(ack: Option<i64>) -> Refused {
    Refused::Event {
        ack,
        message: "binary payloads are not accepted; send JSON (bytes as base64 text)".into(),
    }
}

fn text_of(value: Value) -> Option<String> {
    match value {
        Value::Str(text, _) => Some(text.as_str().to_owned()),
        Value::Bytes(_) => None,
    }
}

fn emitted(data: Value, ack: Option<i64>) -> Result<Emitted, Refused> {
    let refuse = |message: &str| Refused::Event { ack, message: message.to_owned() };
    let text = text_of(data).unwrap_or_default();
    let arguments: Vec<&RawValue> = serde_json::from_str(&text)
        .map_err(|e| refuse(&format!("the event is not a JSON array such as [\"name\", {{…}}]: {e}")))?;
    let name = arguments.first().and_then(|name| serde_json::from_str::<String>(name.get()).ok());
    let name = name.ok_or_else(|| refuse("the event's first element must be its name, a string"))?;
    if RESERVED_NAMES.contains(&name.as_str()) {
        return Err(refuse(&format!("{name:?} is reserved by Socket.IO; choose another name")));
    }
    let json = arguments.get(1).map(|argument| argument.get()).filter(|argument| *argument != "null");
    Emitted::new(name, json.unwrap_or_default().as_bytes().to_vec(), ack)
        .map_err(|failure| refuse(&failure.message))
}

/// The answer to CONNECT; with the `pid` a client can recover the session (socket.io-client, `lib/socket.ts`).
pub(super) fn connected(session_id: &str, pid: &str) -> Str {
    format!("0{}", json!({ "sid": session_id, "pid": pid })).into()
}

/// The refusal of a CONNECT: `data` has the stable code.
pub(super) fn connect_error(namespace: &str, failure: &Failure) -> Str {
    let namespace = if namespace == "/" { String::new() } else { format!("{namespace},") };
    let mut data = failure.json();
    let message = data.as_object_mut().and_then(|data| data.remove("message"));
    format!("4{namespace}{}", json!({ "message": message, "data": data })).into()
}

/// Ends the session for good.
pub(super) fn disconnect() -> Str {
    "1".to_owned().into()
}

/// An event. Stored ones carry their cursor as last argument, which clients keep as the place they have come to.
pub(crate) fn event(event: &Delivery) -> Str {
    let mut packet = String::with_capacity(event.name.len() + event.json.len() + event.id.len() + 8);
    packet.push_str("2[");
    packet.push_str(&serde_json::Value::from(event.name.as_str()).to_string());
    packet.push(',');
    packet.push_str(&String::from_utf8_lossy(&event.json));
    if !event.ephemeral {
        packet.push(',');
        packet.push_str(&serde_json::Value::from(event.id.as_str()).to_string());
    }
    packet.push(']');
    packet.into()
}

/// The answer to a call.
pub(super) fn ack(id: i64, json: &[u8]) -> Str {
    format!("3{id}[{}]", String::from_utf8_lossy(json)).into()
}

/// Says that a call failed, as its acknowledgement or as the event `error`.
pub(super) fn failure(ack: Option<i64>, failure: &Failure) -> Str {
    match ack {
        Some(id) => format!("3{id}{}", json!([{ "error": failure.json() }])).into(),
        None => format!("2{}", json!(["error", failure.json()])).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_text(text: &str) -> Result<Incoming, Refused> {
        decode(Str::from(text.to_owned()))
    }

    #[test]
    fn events_carry_name_first_argument_and_ack() {
        let Ok(Incoming::Event { emitted, namespace }) =
            decode_text(r#"217["subscribe:chat",{"chatId":7},"x"]"#)
        else {
            panic!("not an event");
        };
        assert_eq!(
            (namespace.as_str(), emitted.name.as_str(), emitted.ack),
            ("/", "subscribe:chat", Some(17))
        );
        assert_eq!(emitted.json, br#"{"chatId":7}"#);
        let Ok(Incoming::Event { emitted, .. }) = decode_text(r#"2["join",null]"#) else {
            panic!("not an event")
        };
        assert_eq!((emitted.json.len(), emitted.ack), (0, None));
    }

    #[test]
    fn malformed_packets_and_events_are_told_apart() {
        for text in ["", "9", "x", "5", "5x-[]", "3[]"] {
            assert_eq!(decode_text(text).err(), Some(Refused::Packet), "{text:?}");
        }
        for text in [
            "2",
            "2{}",
            "2[]",
            "2[1]",
            "2[\"\"]",
            "2[\"a\u{1}b\"]",
            "2[\"a\"",
            r#"51-["a",{"_placeholder":true,"num":0}]"#,
        ] {
            assert!(matches!(decode_text(text), Err(Refused::Event { .. })), "{text:?}");
        }
    }

    #[test]
    fn binary_events_are_refused_under_their_ack() {
        for text in [r#"51-12["a",{"_placeholder":true,"num":0}]"#, r#"50-12["a"]"#] {
            assert!(matches!(decode_text(text), Err(Refused::Event { ack: Some(12), .. })), "{text:?}");
        }
        let acknowledgement = r#"61-12[{"_placeholder":true,"num":0}]"#;
        assert!(matches!(decode_text(acknowledgement), Ok(Incoming::Ack)));
    }

    #[test]
    fn reserved_names_are_refused() {
        assert!(matches!(decode_text(r#"27["disconnect"]"#), Err(Refused::Event { ack: Some(7), .. })));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(text in ".{0,64}") {
            let _any = decode_text(&text);
        }

        #[test]
        fn no_packet_like_text_makes_the_decoder_panic(text in "[0-6][0-9]{0,22}-?(/[a-z,]{0,4})?[0-9]{0,22}[\\[\\]{}\",:a-z0-9ä]{0,24}") {
            let _any = decode_text(&text);
        }
    }
}
