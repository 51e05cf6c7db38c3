//! The protobuf wire format, read without copying.

use super::PayloadError;

/// A field's value on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) enum WireValue<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// Reads values one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

fn cut_off() -> PayloadError {
    PayloadError::new("not valid protobuf: the bytes end in the middle of a field")
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) const fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn varint(&mut self) -> Result<u64, PayloadError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or_else(cut_off)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(PayloadError::new("not valid protobuf: a varint is longer than 64 bits"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], PayloadError> {
        let end = self.at.checked_add(length).ok_or_else(cut_off)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(cut_off)?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn fixed64(&mut self) -> Result<u64, PayloadError> {
        self.take(8)?.try_into().map(u64::from_le_bytes).map_err(|_| cut_off())
    }

    pub(super) fn fixed32(&mut self) -> Result<u32, PayloadError> {
        self.take(4)?.try_into().map(u32::from_le_bytes).map_err(|_| cut_off())
    }

    /// The next field's number and value.
    pub(super) fn field(&mut self) -> Result<(u32, WireValue<'a>), PayloadError> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|n| (1..1 << 29).contains(n));
        let number =
            number.ok_or_else(|| PayloadError::new("not valid protobuf: a field has no valid number"))?;
        let value = match key & 7 {
            0 => WireValue::Varint(self.varint()?),
            1 => WireValue::Fixed64(self.fixed64()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| cut_off())?;
                WireValue::Bytes(self.take(length)?)
            }
            5 => WireValue::Fixed32(self.fixed32()?),
            other => {
                return Err(PayloadError::new(format!(
                    "not valid protobuf: field {number} has wire type {other}"
                )));
            }
        };
        Ok((number, value))
    }

    pub(super) const fn offset(&self) -> usize {
        self.at
    }
}
