//! Decodes what a client sends: a state machine without sockets. Holds memory only while a message
//! is incomplete.

use std::io::Cursor;

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

use super::deflate;

/// The longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// A message, or a control frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    /// The code that the peer gave, if any.
    Close(Option<u16>),
}

/// Why a connection cannot continue, as a close code (RFC 6455, section 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// The bytes violate the protocol.
    Protocol(&'static str),
    /// Text is not UTF-8.
    Utf8,
    /// The message is larger than allowed.
    TooLarge,
}

impl Violation {
    /// The close code and reason.
    pub(crate) const fn close(self) -> (u16, &'static str) {
        match self {
            Self::Protocol(what) => (1002, what),
            Self::Utf8 => (1007, "text is not UTF-8"),
            Self::TooLarge => (1009, "the message is too large"),
        }
    }
}

/// The reading side of one connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Bytes that are not decoded yet.
    input: Vec<u8>,
    /// A message whose last frame has not arrived.
    partial: Option<Box<Partial>>,
    bytes_max: usize,
    /// Compression was negotiated.
    compression: bool,
}

#[derive(Debug)]
struct Partial {
    is_text: bool,
    is_compressed: bool,
    payload: Vec<u8>,
}

impl Decoder {
    /// A decoder of messages of at most `bytes_max` bytes.
    pub(crate) const fn new(bytes_max: usize, compression: bool) -> Self {
        Self { input: Vec::new(), partial: None, bytes_max, compression }
    }

    /// Adds bytes, and passes every complete message to `take` until it returns false or the bytes
    /// violate the protocol.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Message) -> bool,
    ) -> Result<(), Violation> {
        self.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut self.input);
        let mut read = 0;
        let outcome = loop {
            match self.next(&mut input, &mut read) {
                Ok(Some(message)) => {
                    if !take(message) {
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(violation) => break Err(violation),
            }
        };
        if read < input.len() && outcome.is_ok() {
            input.drain(..read);
            self.input = input;
        }
        outcome
    }

    /// The next message in `input` from `read` on; advances `read` past what is done.
    fn next(&mut self, input: &mut [u8], read: &mut usize) -> Result<Option<Message>, Violation> {
        loop {
            let mut cursor = Cursor::new(&input[*read..]);
            let header = FrameHeader::parse(&mut cursor);
            let header = header.map_err(|_| Violation::Protocol("a reserved opcode"))?;
            let Some((header, length)) = header else { return Ok(None) };
            self.check(&header, length)?;
            let begin = *read + usize::try_from(cursor.position()).unwrap_or(usize::MAX);
            let length = usize::try_from(length).map_err(|_| Violation::TooLarge)?;
            let Some(payload) = input.get_mut(begin..begin.saturating_add(length)) else { return Ok(None) };
            *read = begin + length;
            if let Some(mask) = header.mask {
                unmask(payload, mask);
            }
            match header.opcode {
                OpCode::Control(control) => return control_message(control, payload).map(Some),
                OpCode::Data(data) => {
                    if let Some(message) = self.take_data(data, &header, payload)? {
                        return Ok(Some(message));
                    }
                }
            }
        }
    }

    /// Checks what the frame's header alone reveals.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<(), Violation> {
        if header.mask.is_none() {
            return Err(Violation::Protocol("clients must mask their frames"));
        }
        let is_first = matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
        if header.rsv2 || header.rsv3 || (header.rsv1 && !(self.compression && is_first)) {
            return Err(Violation::Protocol("a reserved bit is set"));
        }
        match header.opcode {
            OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => {
                Err(Violation::Protocol("a reserved opcode"))
            }
            OpCode::Control(_) if !header.is_final => Err(Violation::Protocol("a control frame in pieces")),
            OpCode::Control(_) if length > CONTROL_BYTES_MAX => {
                Err(Violation::Protocol("a control frame of more than 125 bytes"))
            }
            OpCode::Control(_) => Ok(()),
            OpCode::Data(data) => {
                match (data, self.partial.is_some()) {
                    (Data::Continue, false) => return Err(Violation::Protocol("a continuation of nothing")),
                    (Data::Text | Data::Binary, true) => {
                        return Err(Violation::Protocol("a new message within another"));
                    }
                    _ => {}
                }
                let before = self.partial.as_ref().map_or(0, |partial| partial.payload.len());
                if length.saturating_add(before as u64) > self.bytes_max as u64 {
                    return Err(Violation::TooLarge);
                }
                Ok(())
            }
        }
    }

    fn take_data(
        &mut self,
        data: Data,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Option<Message>, Violation> {
        let mut partial = self.partial.take().unwrap_or_else(|| {
            let (is_text, is_compressed) = (matches!(data, Data::Text), header.rsv1);
            Box::new(Partial { is_text, is_compressed, payload: Vec::new() })
        });
        partial.payload.extend_from_slice(payload);
        if header.is_final {
            return self.complete(*partial).map(Some);
        }
        self.partial = Some(partial);
        Ok(None)
    }

    fn complete(&self, message: Partial) -> Result<Message, Violation> {
        let payload = if message.is_compressed {
            deflate::decompress(&message.payload, self.bytes_max).map_err(|fault| match fault {
                deflate::Fault::Invalid => {
                    Violation::Protocol("a message that is not compressed as it claims")
                }
                deflate::Fault::TooLarge => Violation::TooLarge,
            })?
        } else {
            message.payload
        };
        if message.is_text {
            return String::from_utf8(payload).map(Message::Text).map_err(|_| Violation::Utf8);
        }
        Ok(Message::Binary(payload))
    }
}

fn control_message(control: Control, payload: &[u8]) -> Result<Message, Violation> {
    match control {
        Control::Ping => Ok(Message::Ping(payload.to_vec())),
        Control::Pong => Ok(Message::Pong),
        Control::Close | Control::Reserved(_) => match payload {
            [] => Ok(Message::Close(None)),
            [_] => Err(Violation::Protocol("a close frame of one byte")),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !CloseCode::from(code).is_allowed() {
                    return Err(Violation::Protocol("a close code that is not for the wire"));
                }
                std::str::from_utf8(reason).map_err(|_| Violation::Utf8)?;
                Ok(Message::Close(Some(code)))
            }
        },
    }
}

/// XORs a payload with its mask (RFC 6455, section 5.3), eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests;
