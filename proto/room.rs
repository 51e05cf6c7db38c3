//! Tenants and rooms: the addresses of events.
//!
//! Owns their grammar, so that every program refuses the same text with the same message.

use std::{borrow::Borrow, fmt, sync::Arc};

/// The longest tenant name, in bytes.
pub const TENANT_BYTES_MAX: usize = 128;
/// The longest kind of a room, in bytes.
pub const ROOM_KIND_BYTES_MAX: usize = 32;
/// The longest id of a room, in bytes.
pub const ROOM_ID_BYTES_MAX: usize = 128;

/// Why a text is not a tenant or a room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A tenant is empty, too long, `*`, or holds white space or control characters.
    #[error(
        "{0:?} is not a tenant: want 1 to {TENANT_BYTES_MAX} bytes without white space or control characters, and not \"*\""
    )]
    Tenant(String),
    /// The part before the colon is malformed.
    #[error(
        "{0:?} is not a room: its kind must be 1 to {ROOM_KIND_BYTES_MAX} bytes of a-z, 0-9, '_' or '-' and begin with a letter, as in \"org\" or \"chat:7\""
    )]
    Kind(String),
    /// The part after the colon is malformed.
    #[error(
        "{0:?} is not a room: its id must be 1 to {ROOM_ID_BYTES_MAX} bytes without white space or control characters, as in \"chat:7\""
    )]
    Id(String),
}

fn printable(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// Truncates text from a peer to a length that is suitable for a message or a log line.
pub fn shown(text: &str) -> String {
    text.chars().take(160).collect()
}

/// The isolation boundary: no data crosses it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// Checks a tenant's name.
    pub fn new(name: &str) -> Result<Self, AddressError> {
        let fits = (1..=TENANT_BYTES_MAX).contains(&name.len()) && name != "*" && printable(name);
        if fits { Ok(Self(name.into())) } else { Err(AddressError::Tenant(shown(name))) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An address inside a tenant: `kind` or `kind:id`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Room(Arc<str>);

impl Room {
    /// Checks a room's text, e.g. `org` or `chat:7`.
    pub fn new(text: &str) -> Result<Self, AddressError> {
        let (kind, id) = match text.split_once(':') {
            Some((kind, id)) => (kind, Some(id)),
            None => (text, None),
        };
        check_kind(kind).map_err(|()| AddressError::Kind(shown(text)))?;
        if id.is_some_and(|id| !(1..=ROOM_ID_BYTES_MAX).contains(&id.len()) || !printable(id)) {
            return Err(AddressError::Id(shown(text)));
        }
        Ok(Self(text.into()))
    }

    /// The room of all sessions in the tenant.
    pub fn org() -> Self {
        Self("org".into())
    }

    /// The room of one user's sessions.
    pub fn user(user_id: &str) -> Result<Self, AddressError> {
        Self::new(&format!("user:{user_id}"))
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the colon.
    pub fn kind(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(kind, _)| kind)
    }
}

/// Checks that `kind` may precede a room's colon.
#[allow(clippy::result_unit_err)]
pub fn check_kind(kind: &str) -> Result<(), ()> {
    let letters =
        kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    let begins = kind.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if letters && begins && kind.len() <= ROOM_KIND_BYTES_MAX { Ok(()) } else { Err(()) }
}

macro_rules! text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}
text!(Tenant, Room);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_have_a_kind_and_perhaps_an_id() {
        for good in ["org", "chat:7", "user:a:b", "dialog-2:ä"] {
            assert_eq!(Room::new(good).unwrap().as_str(), good);
        }
        assert_eq!(Room::new("chat:7").unwrap().kind(), "chat");
        for bad in ["", ":7", "Chat:7", "7:x", "chat:", "chat:a b", "chat:\u{7}", "chat 7"] {
            assert!(Room::new(bad).is_err(), "{bad:?} was taken");
        }
        assert!(Room::new(&format!("chat:{}", "x".repeat(ROOM_ID_BYTES_MAX + 1))).is_err());
    }

    #[test]
    fn tenants_are_printable_and_never_the_wildcard() {
        assert!(Tenant::new("1").is_ok());
        for bad in ["", "*", "a b", "a\0"] {
            assert!(Tenant::new(bad).is_err(), "{bad:?} was taken");
        }
    }
}
