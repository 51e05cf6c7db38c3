//! Times and sizes with a unit.

use std::{fmt, str::FromStr, time::Duration};

/// A number of bytes, written as `4096`, `64KiB` or `8MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

/// Splits a text into its number and unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

/// Parses `500ms`, `10s`, `5m`, `1h` or `30d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = split(text).and_then(|(number, unit)| {
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        number.checked_mul(factor).map(Duration::from_millis)
    });
    parsed.ok_or_else(|| "want a number and a unit: 500ms, 10s, 5m, 1h or 30d".to_owned())
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = split(text).and_then(|(number, unit)| {
            let factor = match unit {
                "" | "B" => 1,
                "KiB" => 1 << 10,
                "MiB" => 1 << 20,
                "GiB" => 1 << 30,
                _ => return None,
            };
            number.checked_mul(factor).and_then(|bytes| usize::try_from(bytes).ok())
        });
        parsed.map(Self).ok_or_else(|| "want a number of bytes: 4096, 64KiB, 8MiB or 1GiB".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
