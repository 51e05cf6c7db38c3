use fanfare_proto::v1::BinaryPayload;
use proptest::prelude::*;

use super::*;

fn decode_text(text: &str) -> Result<Decoded, PacketFault> {
    decode(text.to_owned(), 1000)
}

fn emission_of(text: &str) -> (String, Emission) {
    match decode_text(text) {
        Ok(Decoded::Whole(Packet::Event { namespace, emission })) => (namespace, emission),
        other => panic!("not an event: {other:?}"),
    }
}

/// The text and attachments of a packet.
fn read(bytes: &Bytes) -> Vec<String> {
    frame::frames(bytes).map(|frame| String::from_utf8_lossy(frame.payload).into_owned()).collect()
}

#[test]
fn events_carry_name_argument_and_ack() {
    let (namespace, emission) = emission_of(r#"217["subscribe:chat",{"chatId":7}]"#);
    assert_eq!((namespace.as_str(), emission.name.as_str(), emission.ack), ("/", "subscribe:chat", Some(17)));
    assert_eq!(emission.json, br#"{"chatId":7}"#);
    let (namespace, emission) = emission_of(r#"2/messenger,["join",null]"#);
    assert_eq!((namespace.as_str(), emission.json.len(), emission.ack), ("/messenger", 0, None));
}

#[test]
fn malformed_packets_and_events_are_told_apart() {
    for text in ["", "9", "x", "5", "5x-[]", "3[]", "31{}", "2", "2{}", "2[]", "2[null]", "2[{}]", "2[\"a\""]
    {
        assert_eq!(decode_text(text).err(), Some(PacketFault::Malformed), "{text:?}");
    }
    for text in ["2[1]", "2[\"\"]", r#"2["a\u0001b"]"#, r#"2["a",{},{}]"#] {
        assert!(matches!(decode_text(text), Err(PacketFault::Event { .. })), "{text:?}");
    }
}

#[test]
fn reserved_names_are_refused() {
    let refused = decode_text(r#"27["disconnect"]"#);
    assert!(matches!(refused, Err(PacketFault::Event { ack: Some(7), .. })));
}

#[test]
fn attachments_stand_as_base64_in_the_payload() {
    let text = r#"52-12["a",{"x":{"_placeholder":true,"num":1},"y":[{"_placeholder":true,"num":0}]}]"#;
    let Ok(Decoded::Partial(mut attachments)) = decode_text(text) else { panic!("not partial") };
    attachments.push(vec![1, 2]).unwrap();
    assert!(!attachments.are_complete());
    attachments.push(vec![3]).unwrap();
    assert!(attachments.are_complete());
    let Ok(Packet::Event { emission, .. }) = attachments.finish() else { panic!("not an event") };
    assert_eq!(
        (emission.ack, emission.json),
        (Some(12), br#"{"x":{"$bytes":"Aw=="},"y":[{"$bytes":"AQI="}]}"#.to_vec())
    );
}

#[test]
fn attachments_are_bounded_and_placeholders_must_name_one() {
    let text = r#"51-["a",{"_placeholder":true,"num":1}]"#;
    let partial = || match decode_text(text) {
        Ok(Decoded::Partial(attachments)) => attachments,
        other => panic!("not partial: {other:?}"),
    };
    assert!(partial().push(vec![0; 1001]).is_err());
    let mut attachments = partial();
    attachments.push(vec![0]).unwrap();
    assert!(matches!(attachments.finish(), Err(PacketFault::Event { .. })));
    assert_eq!(decode_text(r#"565-["a"]"#).err(), Some(PacketFault::Malformed));
}

#[test]
fn events_go_out_with_namespace_cursor_and_attachments() {
    let binary = BinaryPayload {
        json: r#"{"x":{"_placeholder":true,"num":0}}"#.into(),
        attachments: vec![Bytes::from_static(b"raw")],
    };
    let plain = Delivery { id: "c-1".into(), name: "a:b".into(), json: "{}".into(), ..Delivery::default() };
    assert_eq!(read(&event(&plain, "/", true, false)), [r#"42["a:b",{},"c-1"]"#]);
    assert_eq!(read(&event(&plain, "/chat", false, false)), [r#"42/chat,["a:b",{}]"#]);
    let with_binary = Delivery { binary: Some(binary), ..plain };
    let wanted = [r#"451-/chat,["a:b",{"x":{"_placeholder":true,"num":0}},"c-1"]"#, "raw"];
    assert_eq!(read(&event(&with_binary, "/chat", true, false)), wanted);
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
