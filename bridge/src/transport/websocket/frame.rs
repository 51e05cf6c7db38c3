//! Frames as a server encodes them: whole, unmasked, contiguous with their payload.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::deflate;

/// The opcode of a text frame (RFC 6455, section 5.2).
pub(crate) const TEXT: u8 = 0x1;
/// The opcode of a binary frame.
pub(crate) const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FIN: u8 = 0x80;
/// Marks a compressed message (RFC 7692, section 6).
const RSV1: u8 = 0x40;
/// The longest header.
const HEADER_BYTES_MAX: usize = 10;
/// The longest reason of a close frame (RFC 6455, section 5.5).
const CLOSE_REASON_BYTES_MAX: usize = 123;
/// Payloads shorter than this, in bytes, are not worth compressing.
const COMPRESSED_MIN: usize = 128;

fn write_header(out: &mut BytesMut, first: u8, len: usize) {
    out.put_u8(first);
    match len {
        0..=125 => out.put_u8(u8::try_from(len).unwrap_or_default()),
        126..=0xFFFF => {
            out.put_u8(126);
            out.put_u16(u16::try_from(len).unwrap_or_default());
        }
        _ => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
}

fn write(out: &mut BytesMut, first: u8, payload: &[u8]) {
    out.reserve(HEADER_BYTES_MAX + payload.len());
    write_header(out, first, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a text frame, compressed if requested and worthwhile.
pub(crate) fn write_text(out: &mut BytesMut, payload: &[u8], compress: bool) {
    let compressed =
        (compress && payload.len() >= COMPRESSED_MIN).then(|| deflate::compress(payload)).flatten();
    match compressed.filter(|compressed| compressed.len() < payload.len()) {
        Some(compressed) => write(out, FIN | RSV1 | TEXT, &compressed),
        None => write(out, FIN | TEXT, payload),
    }
}

/// Appends a binary frame.
pub(crate) fn write_binary(out: &mut BytesMut, payload: &[u8]) {
    write(out, FIN | BINARY, payload);
}

/// A text frame.
pub(crate) fn text(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    write_text(&mut out, payload, false);
    out.freeze()
}

/// A ping.
pub(crate) fn ping() -> Bytes {
    Bytes::from_static(&[FIN | PING, 0])
}

/// The answer to a ping.
pub(crate) fn pong(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    write(&mut out, FIN | PONG, payload);
    out.freeze()
}

/// A close frame; the reason is truncated to fit.
pub(crate) fn close(code: Option<u16>, reason: &str) -> Bytes {
    let mut payload = BytesMut::new();
    if let Some(code) = code {
        let ends = reason.char_indices().map(|(at, c)| at + c.len_utf8());
        let end = ends.take_while(|end| *end <= CLOSE_REASON_BYTES_MAX).last().unwrap_or_default();
        payload.put_u16(code);
        payload.extend_from_slice(&reason.as_bytes()[..end]);
    }
    let mut out = BytesMut::new();
    write(&mut out, FIN | CLOSE, &payload);
    out.freeze()
}

/// A frame that this module wrote without compression.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
    /// Where it ends.
    pub(crate) end: usize,
}

/// Reads frames that this module wrote without compression.
pub(crate) fn frames(bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut begin = 0;
    std::iter::from_fn(move || {
        let rest = &bytes[begin..];
        let (opcode, len) = (rest.first()? & 0x0F, *rest.get(1)?);
        let (header, len) = match len {
            126 => (4, usize::from(u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(rest.get(2..10)?.try_into().ok()?)).ok()?),
            len => (2, usize::from(len)),
        };
        let payload = rest.get(header..header + len)?;
        begin += header + len;
        Some(Frame { opcode, payload, end: begin })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_back_at_every_length_of_the_header() {
        let texts: Vec<String> = [0, 1, 125, 126, 65_535, 65_536].map(|len| "x".repeat(len)).into();
        let mut out = BytesMut::new();
        for text in &texts {
            write_text(&mut out, text.as_bytes(), false);
        }
        write_binary(&mut out, &[1, 2]);
        let read: Vec<_> = frames(&out).map(|frame| (frame.opcode, frame.payload)).collect();
        let wanted = texts.iter().map(|text| (TEXT, text.as_bytes())).chain([(BINARY, &[1, 2][..])]);
        assert_eq!(read, wanted.collect::<Vec<_>>());
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        let frame = close(Some(1000), &"ä".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
    }
}
