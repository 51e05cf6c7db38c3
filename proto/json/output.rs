//! The outputs of browser JSON, and how `bytes` are written to them.

use std::io::{Result, Sink, Write};

use base64::Engine as _;
use bytes::Bytes;

/// Receives browser JSON. `bytes` values are passed separately from the text.
pub(super) trait Output: Write {
    /// Writes the value of a `bytes` field; by default as base64.
    fn write_bytes(&mut self, value: &[u8]) -> Result<()> {
        write!(self, "\"{}\"", base64::engine::general_purpose::STANDARD.encode(value))
    }

    /// Whether the output is for gRPC callers: enum values have their protobuf names, and internal
    /// fields are included.
    fn is_canonical(&self) -> bool {
        false
    }
}

impl Output for Vec<u8> {}

impl Output for Sink {
    fn write_bytes(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// JSON for gRPC callers.
pub(super) struct Canonical<'a>(pub(super) &'a mut Vec<u8>);

impl Write for Canonical<'_> {
    fn write(&mut self, text: &[u8]) -> Result<usize> {
        self.0.write(text)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Output for Canonical<'_> {
    fn is_canonical(&self) -> bool {
        true
    }
}

/// Browser JSON whose `bytes` fields are attachments, as Socket.IO writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attached {
    /// JSON in which each `bytes` field is `{"_placeholder":true,"num":N}`.
    pub json: Vec<u8>,
    /// Attachment N at index N, in the order of appearance.
    pub attachments: Vec<Bytes>,
}

/// Writes both forms in one pass.
pub(super) struct Both<'a> {
    pub(super) plain: &'a mut Vec<u8>,
    pub(super) attached: &'a mut Attached,
}

impl Write for Both<'_> {
    fn write(&mut self, text: &[u8]) -> Result<usize> {
        self.plain.extend_from_slice(text);
        self.attached.json.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Output for Both<'_> {
    fn write_bytes(&mut self, value: &[u8]) -> Result<()> {
        self.plain.write_bytes(value)?;
        let Attached { json, attachments } = &mut *self.attached;
        write!(json, "{{\"_placeholder\":true,\"num\":{}}}", attachments.len())?;
        attachments.push(Bytes::copy_from_slice(value));
        Ok(())
    }
}
