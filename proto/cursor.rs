//! Cursors: positions in a tenant's log, opaque outside the server.

use std::{fmt, str::FromStr};

/// Identifies the lifetime of a log that a `seq` belongs to. Changes when history was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    const BITS: u32 = 48;

    /// The number of the epoch, for storage.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The epoch with a stored number.
    pub const fn kept(number: u64) -> Self {
        Self(number & (u64::MAX >> (64 - Self::BITS)))
    }

    /// A fresh, random epoch.
    pub fn random() -> Self {
        Self(rand::random::<u64>() >> (64 - Self::BITS))
    }
}

/// A position in a tenant's log: directly after the event `seq` of `epoch`; 0 is before the first
/// event. Its text is the epoch in 12 hexadecimal digits, a dash, and the seq in decimal; if there
/// is a tag, a dash and the tag in 16 hexadecimal digits follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The lifetime of the log.
    pub epoch: Epoch,
    /// The last event before this position.
    pub seq: u64,
    /// The tag of the frame that contains this event. It distinguishes two events that got the same
    /// seq because a replicated store lost the first one. 0 in logs that lose nothing within an
    /// epoch.
    pub tag: u64,
}

/// The text is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: give back the id of an event or the cursor of a position, unchanged")]
pub struct InvalidCursor;

impl Cursor {
    /// A position in a log without tags.
    pub const fn new(epoch: Epoch, seq: u64) -> Self {
        Self { epoch, seq, tag: 0 }
    }

    /// Parses a request's `after`; empty: from now on.
    pub fn after(text: &str) -> Result<Option<Self>, InvalidCursor> {
        if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}-{}", self.epoch.0, self.seq)?;
        if self.tag == 0 { Ok(()) } else { write!(f, "-{:016x}", self.tag) }
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (epoch, rest) = text.split_once('-').ok_or(InvalidCursor)?;
        let (seq, tag) = match rest.split_once('-') {
            Some((seq, tag)) => (seq, Some(hex(tag, 16).filter(|tag| *tag != 0).ok_or(InvalidCursor)?)),
            None => (rest, None),
        };
        let epoch = hex(epoch, 12).ok_or(InvalidCursor)?;
        let decimal = !seq.is_empty()
            && seq.bytes().all(|b| b.is_ascii_digit())
            && (seq == "0" || !seq.starts_with('0'));
        if !decimal {
            return Err(InvalidCursor);
        }
        let seq = seq.parse().map_err(|_| InvalidCursor)?;
        Ok(Self { epoch: Epoch(epoch), seq, tag: tag.unwrap_or_default() })
    }
}

/// A number of exactly `digits` lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u64> {
    let is_hex = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_is_read_back(seq: u64, tag: u64) {
            let cursor = Cursor { epoch: Epoch::random(), seq, tag };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn any_text_is_read_back_or_refused(text: String) {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn near_misses_are_refused() {
        for bad in [
            "",
            "-",
            "0-1",
            "00000000000g-1",
            "000000000000-",
            "000000000000-01",
            "000000000000-99999999999999999999",
            "00000000000A-1",
            "000000000000-1-",
            "000000000000-1-0000000000000000",
            "000000000000-1-00000000000000A1",
            "000000000000-1-1",
        ] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad:?} was taken");
        }
    }
}
