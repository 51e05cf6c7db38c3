//! Cursors: places in a tenant's log, opaque text outside the server.

use std::{fmt, str::FromStr};

/// Which life of a log a `seq` belongs to. Changes when history was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    const BITS: u32 = 48;

    /// The number of the epoch, to be kept.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The epoch of a number that was kept.
    pub const fn kept(number: u64) -> Self {
        Self(number & (u64::MAX >> (64 - Self::BITS)))
    }

    /// A fresh, random epoch.
    pub fn random() -> Self {
        Self(rand::random::<u64>() >> (64 - Self::BITS))
    }
}

/// A place in a tenant's log: just after the event `seq` of `epoch`; 0 is before the first.
/// Its text is the epoch in 12 hexadecimal digits, a dash, and the seq in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The life of the log.
    pub epoch: Epoch,
    /// The last event before this place.
    pub seq: u64,
}

/// The text is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: give back the id of an event or the cursor of a position, unchanged")]
pub struct InvalidCursor;

impl Cursor {
    /// Reads a request's `after`: empty means from now on.
    pub fn after(text: &str) -> Result<Option<Self>, InvalidCursor> {
        if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}-{}", self.epoch.0, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (epoch, seq) = text.split_once('-').ok_or(InvalidCursor)?;
        let hex = epoch.len() == 12 && epoch.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let decimal = !seq.is_empty()
            && seq.bytes().all(|b| b.is_ascii_digit())
            && (seq == "0" || !seq.starts_with('0'));
        if !hex || !decimal {
            return Err(InvalidCursor);
        }
        let epoch = u64::from_str_radix(epoch, 16).map_err(|_| InvalidCursor)?;
        let seq = seq.parse().map_err(|_| InvalidCursor)?;
        Ok(Self { epoch: Epoch(epoch), seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_is_read_back(seq: u64) {
            let cursor = Cursor { epoch: Epoch::random(), seq };
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
        ] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad:?} was taken");
        }
    }
}
