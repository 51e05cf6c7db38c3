//! The protobuf wire format, read without copying.

use super::PayloadError;

/// A field's value on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WireValue<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// A wire type that has values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireType {
    Varint,
    Fixed64,
    Fixed32,
    Bytes,
}

impl WireValue<'_> {
    pub(super) const fn wire_type(&self) -> WireType {
        match self {
            Self::Varint(_) => WireType::Varint,
            Self::Fixed64(_) => WireType::Fixed64,
            Self::Fixed32(_) => WireType::Fixed32,
            Self::Bytes(_) => WireType::Bytes,
        }
    }
}

/// Reads values in sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Why bytes are not protobuf. Small; the text is created when the error is returned.
#[derive(Debug, Clone, Copy)]
pub(super) enum WireError {
    CutOff,
    LongVarint,
    NoNumber,
    WireType { number: u32, wire_type: u8 },
}

impl From<WireError> for PayloadError {
    fn from(error: WireError) -> Self {
        let text = match error {
            WireError::CutOff => "the bytes end in the middle of a field",
            WireError::LongVarint => "a varint is longer than 64 bits",
            WireError::NoNumber => "a field has no valid number",
            WireError::WireType { number, wire_type } => {
                return Self::new(format!("not valid protobuf: field {number} has wire type {wire_type}"));
            }
        };
        Self::new(format!("not valid protobuf: {text}"))
    }
}

type Result<T> = std::result::Result<T, WireError>;

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) const fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64> {
        match self.bytes.get(self.at) {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(WireError::CutOff)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::LongVarint)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or(WireError::CutOff)?;
        let taken = self.bytes.get(self.at..end).ok_or(WireError::CutOff)?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn fixed64(&mut self) -> Result<u64> {
        self.take(8)?.try_into().map(u64::from_le_bytes).map_err(|_| WireError::CutOff)
    }

    pub(super) fn fixed32(&mut self) -> Result<u32> {
        self.take(4)?.try_into().map(u32::from_le_bytes).map_err(|_| WireError::CutOff)
    }

    /// The next field's number and value.
    #[inline]
    pub(super) fn field(&mut self) -> Result<(u32, WireValue<'a>)> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or(WireError::NoNumber)?;
        let value = match key & 7 {
            0 => WireValue::Varint(self.varint()?),
            1 => WireValue::Fixed64(self.fixed64()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::CutOff)?;
                WireValue::Bytes(self.take(length)?)
            }
            5 => WireValue::Fixed32(self.fixed32()?),
            other => return Err(WireError::WireType { number, wire_type: (other & 7) as u8 }),
        };
        Ok((number, value))
    }

    pub(super) const fn offset(&self) -> usize {
        self.at
    }
}
