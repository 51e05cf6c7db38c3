//! Names of subjects and streams. Text from callers becomes a single token, so that no tenant or
//! key can reach the subjects of another.

use std::fmt::Write as _;

use fanfare_proto::room::Tenant;

use crate::engine::{ServerId, Space};

/// The names below one prefix.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
    partitions: u32,
    /// The subject prefix of the JetStream API.
    api: String,
}

/// The names of a tenant's log.
#[derive(Debug, Clone)]
pub(super) struct LogName {
    pub(super) stream: String,
    /// The subject on which frames are published.
    pub(super) subject: String,
    /// The subject on which frames are announced and ephemeral events are published.
    pub(super) feed: String,
}

impl Names {
    pub(super) fn new(prefix: &str, partitions: u32, domain: Option<&str>) -> Self {
        let api = domain.map_or_else(|| "$JS.API".to_owned(), |domain| format!("$JS.{domain}.API"));
        Self { prefix: prefix.to_owned(), partitions, api }
    }

    fn stream(&self, name: &str) -> String {
        format!("{}_{name}", self.prefix.to_uppercase())
    }

    pub(super) fn log_stream(&self, partition: u32) -> String {
        self.stream(&format!("LOG_{partition}"))
    }

    pub(super) fn log_subjects(&self, partition: u32) -> String {
        format!("{}.l.{partition}.*", self.prefix)
    }

    pub(super) fn feed_template(&self, partition: u32) -> String {
        format!("{}.w.{partition}.{{{{wildcard(1)}}}}", self.prefix)
    }

    pub(super) fn partitions(&self) -> std::ops::Range<u32> {
        0..self.partitions
    }

    pub(super) fn log(&self, tenant: &Tenant) -> LogName {
        let partition = crc32fast::hash(tenant.as_str().as_bytes()) % self.partitions;
        let (prefix, token) = (&self.prefix, token(tenant.as_str()));
        LogName {
            stream: self.log_stream(partition),
            subject: format!("{prefix}.l.{partition}.{token}"),
            feed: format!("{prefix}.w.{partition}.{token}"),
        }
    }

    /// The tenant of a log's subject.
    pub(super) fn tenant(subject: &str) -> Option<Tenant> {
        Tenant::new(&text(subject.rsplit('.').next()?)?).ok()
    }

    /// The stream of records that outlive servers.
    pub(super) fn records_stream(&self) -> String {
        self.stream("RECORDS")
    }

    /// The stream of records in memory.
    pub(super) fn leases_stream(&self) -> String {
        self.stream("LEASES")
    }

    pub(super) fn records_subjects(&self) -> String {
        format!("{}.r.>", self.prefix)
    }

    /// The stream of the idempotency keys of ephemeral events.
    pub(super) fn keys_stream(&self) -> String {
        self.stream("KEYS")
    }

    pub(super) fn keys_subjects(&self) -> String {
        format!("{}.k.>", self.prefix)
    }

    /// The subject of an idempotency key of an ephemeral event.
    pub(super) fn key(&self, tenant: &Tenant, key: &str) -> String {
        format!("{}.k.{}.{}", self.prefix, token(tenant.as_str()), token(key))
    }

    pub(super) fn leases_subjects(&self) -> String {
        format!("{}.t.>", self.prefix)
    }

    /// The stream of a space, and the prefix of its subjects.
    pub(super) fn space(&self, space: &Space) -> (String, String) {
        let prefix = &self.prefix;
        match space {
            Space::Leases => (self.leases_stream(), format!("{prefix}.t.")),
            Space::Occupancy => (self.records_stream(), format!("{prefix}.r.o.")),
            Space::Revocations => (self.records_stream(), format!("{prefix}.r.v.")),
            Space::Users(tenant) => {
                (self.records_stream(), format!("{prefix}.r.u.{}.", token(tenant.as_str())))
            }
        }
    }

    /// The prefix of the subjects of a room's state entries.
    pub(super) fn state_of_room(&self, tenant: &Tenant, room: &str) -> String {
        format!("{}.r.s.{}.{}.", self.prefix, token(tenant.as_str()), token(room))
    }

    /// The subjects of all state entries of a tenant.
    pub(super) fn state_of_tenant(&self, tenant: &Tenant) -> String {
        format!("{}.r.s.{}.>", self.prefix, token(tenant.as_str()))
    }

    /// The subject of the place up to which a tenant's state entries are current.
    pub(super) fn state_reached(&self, tenant: &Tenant) -> String {
        format!("{}.r.w.{}", self.prefix, token(tenant.as_str()))
    }

    /// The subject of signals to one server, or to all.
    pub(super) fn signals(&self, to: Option<&ServerId>) -> String {
        match to {
            Some(server) => format!("{}.s.{}", self.prefix, token(server.as_str())),
            None => format!("{}.a", self.prefix),
        }
    }

    /// The subject on which a server receives appends of other servers.
    pub(super) fn forwards(&self, server: &ServerId) -> String {
        format!("{}.f.{}", self.prefix, token(server.as_str()))
    }

    pub(super) fn api(&self, call: &str) -> String {
        format!("{}.{call}", self.api)
    }
}

/// Encodes text as one token of a subject. Empty text becomes `=`.
pub(super) fn token(text: &str) -> String {
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            token.push(char::from(byte));
        } else {
            let _ = write!(token, "={byte:02X}");
        }
    }
    if token.is_empty() { "=".into() } else { token }
}

/// The text of a token; `None` if the token encodes no text.
pub(super) fn text(token: &str) -> Option<String> {
    if token == "=" {
        return Some(String::new());
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(token.len()), token.bytes());
    while let Some(byte) = rest.next() {
        if byte == b'=' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(rest.next())? * 16 + digit(rest.next())?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_one_token_and_is_read_back(given: String) {
            let token = token(&given);
            prop_assert!(!token.is_empty());
            prop_assert!(!token.contains(|c: char| c == '.' || c == '*' || c == '>' || c.is_whitespace()));
            prop_assert_eq!(text(&token), Some(given));
        }
    }
}
