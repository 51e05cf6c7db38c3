use proptest::prelude::*;

use super::*;
use crate::transport::websocket::deflate::compress;

const MASK: [u8; 4] = [1, 2, 3, 4];

/// A frame as a client encodes it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | u8::try_from(len).unwrap()),
        len @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    let mut masked = payload.to_vec();
    unmask(&mut masked, MASK);
    out.extend(masked);
    out
}

fn decode_with(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Message>, Violation> {
    let mut messages = Vec::new();
    decoder.read(bytes, |message| {
        messages.push(message);
        true
    })?;
    Ok(messages)
}

fn decode(bytes: &[u8]) -> Result<Vec<Message>, Violation> {
    decode_with(&mut Decoder::new(1000, false), bytes)
}

fn text(text: &str) -> Message {
    Message::Text(text.to_owned())
}

#[test]
fn control_frames_may_come_within_a_message() {
    let bytes = [frame(0x01, b"a"), frame(0x89, b"p"), frame(0x00, b"b"), frame(0x80, b"c")].concat();
    assert_eq!(decode(&bytes), Ok(vec![Message::Ping(b"p".to_vec()), text("abc")]));
}

#[test]
fn what_breaks_the_protocol_is_refused_with_its_code() {
    let unmasked = [0x81, 0x01, b'a'];
    let cases: [(&[u8], u16); 13] = [
        (&unmasked, 1002),
        (&frame(0xC1, b"a"), 1002),
        (&frame(0xA1, b"a"), 1002),
        (&frame(0x83, b"a"), 1002),
        (&frame(0x8B, b"a"), 1002),
        (&frame(0x09, b"a"), 1002),
        (&frame(0x89, &[0; 126]), 1002),
        (&frame(0x80, b"a"), 1002),
        (&[frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
        (&frame(0x88, &[3]), 1002),
        (&frame(0x88, &1005u16.to_be_bytes()), 1002),
        (&frame(0x81, &[0xFF]), 1007),
        (&frame(0x82, &[0; 1001]), 1009),
    ];
    for (bytes, code) in cases {
        let violation = decode(bytes).expect_err("it was taken");
        assert_eq!(violation.close().0, code, "{bytes:?}");
    }
}

#[test]
fn pieces_of_a_message_are_bounded_together() {
    let bytes = [frame(0x02, &[0; 600]), frame(0x80, &[0; 600])].concat();
    assert_eq!(decode(&bytes), Err(Violation::TooLarge));
}

#[test]
fn compressed_messages_are_read_where_that_was_agreed_on() {
    let long = "abc".repeat(100);
    let compressed = compress(long.as_bytes()).unwrap();
    let (head, tail) = compressed.split_at(5);
    let bytes = [frame(0x41, head), frame(0x80, tail)].concat();
    assert_eq!(decode_with(&mut Decoder::new(1000, true), &bytes), Ok(vec![text(&long)]));
    let bomb = frame(0xC1, &compress(&[0; 2000]).unwrap());
    assert_eq!(decode_with(&mut Decoder::new(1000, true), &bomb), Err(Violation::TooLarge));
}

#[test]
fn nothing_is_held_between_messages() {
    let mut decoder = Decoder::new(1000, false);
    let bytes = frame(0x81, b"hello");
    assert_eq!(decode_with(&mut decoder, &bytes[..7]), Ok(Vec::new()));
    assert_eq!(decode_with(&mut decoder, &bytes[7..]), Ok(vec![text("hello")]));
    assert_eq!(decoder.input.capacity(), 0);
}

proptest! {
    #[test]
    fn messages_are_the_same_however_the_bytes_arrive(
        texts in proptest::collection::vec(".{0,200}", 1..6),
        cuts in proptest::collection::vec(1usize..50, 1..20),
    ) {
        let bytes: Vec<u8> = texts.iter().flat_map(|text| frame(0x81, text.as_bytes())).collect();
        let (mut decoder, mut read, mut rest) = (Decoder::new(1000, false), Vec::new(), bytes.as_slice());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at(rest.len().min(*cut));
            read.extend(decode_with(&mut decoder, head).unwrap());
            rest = tail;
        }
        prop_assert_eq!(read, texts.into_iter().map(Message::Text).collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), deflate: bool) {
        let _any = decode_with(&mut Decoder::new(100, deflate), &bytes);
    }
}
