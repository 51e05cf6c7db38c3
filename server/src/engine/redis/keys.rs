//! The names of keys and channels. All keys of one tenant, and all keys of one space, are in one
//! slot.

use fanfare_proto::room::Tenant;

use super::super::{ServerId, Space};

/// Builds the names.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
}

/// The keys of a tenant's log.
#[derive(Debug)]
pub(super) struct LogKeys {
    base: String,
    /// HASH: epoch, head, tag of the last frame, cost of all frames, cost of the state.
    pub(super) meta: String,
    /// STREAM of frames.
    pub(super) log: String,
    pub(super) channel: String,
    /// HASH of the entries of the state: seq, tag, expiry, cost and event.
    pub(super) state: String,
    /// ZSET of the entries by room and key.
    pub(super) state_index: String,
    /// ZSET of the entries that expire, by expiry.
    pub(super) state_ends: String,
}

/// The keys of a space of records.
#[derive(Debug)]
pub(super) struct SpaceKeys {
    /// HASH of records: revision, expiry, value.
    pub(super) records: String,
    /// ZSET of the records that expire, by expiry.
    pub(super) expiries: String,
    /// The newest revision.
    pub(super) revision: String,
    pub(super) channel: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub(super) fn log(&self, tenant: &Tenant) -> LogKeys {
        let base = format!("{}:{{{}}}", self.prefix, escaped(tenant.as_str()));
        LogKeys {
            meta: format!("{base}:m"),
            log: format!("{base}:l"),
            channel: format!("{base}:w"),
            state: format!("{base}:s"),
            state_index: format!("{base}:i"),
            state_ends: format!("{base}:e"),
            base,
        }
    }

    pub(super) fn space(&self, space: &Space) -> SpaceKeys {
        // An escaped tenant name has no "~", so no tenant has these tags.
        let tag = match space {
            Space::Leases => "~leases".to_owned(),
            Space::Occupancy => "~occupancy".to_owned(),
            Space::Revocations => "~revocations".to_owned(),
            Space::Users(tenant) => escaped(tenant.as_str()),
        };
        let base = format!("{}:{{{tag}}}", self.prefix);
        SpaceKeys {
            records: format!("{base}:r"),
            expiries: format!("{base}:x"),
            revision: format!("{base}:v"),
            channel: format!("{base}:c"),
        }
    }

    /// The SET of tenants that have a log.
    pub(super) fn index(&self) -> String {
        format!("{}:{{~tenants}}", self.prefix)
    }

    /// The channel of the signals to a server, or to all.
    pub(super) fn signals(&self, to: Option<&ServerId>) -> String {
        let to = to.map_or("", ServerId::as_str);
        format!("{}:{{~signals:{to}}}", self.prefix)
    }
}

impl LogKeys {
    /// The number of the last batch of a server, and its answer.
    pub(super) fn batch(&self, server: &ServerId) -> String {
        format!("{}:b:{}", self.base, server.as_str())
    }

    /// The first answer to an idempotency key.
    pub(super) fn idempotency(&self, key: &str) -> String {
        format!("{}:k:{key}", self.base)
    }

    /// The key that a connection writes before it waits for replicas.
    pub(super) fn mark(&self) -> String {
        format!("{}:z", self.base)
    }
}

impl SpaceKeys {
    pub(super) fn all(&self) -> [&str; 4] {
        [&self.records, &self.expiries, &self.revision, &self.channel]
    }

    pub(super) fn mark(&self) -> String {
        format!("{}:z", self.records)
    }
}

/// Escapes characters of a name that have a meaning in keys.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '{' | '}' | '%' | '~') || c.is_control() || c == ' ' {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                text.push_str(&format!("%{byte:02X}"));
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// The slot of a key in a cluster: CRC16 (XMODEM) of its hash tag.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc = hashed.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_is_that_of_the_hash_tag() {
        assert_eq!(slot("123456789"), 12_739);
        assert_eq!(slot("a:{123456789}:b"), 12_739);
        assert_eq!(slot("{}"), slot("{}"));
    }

    #[test]
    fn names_that_look_like_tags_or_servers_keys_are_escaped() {
        assert_eq!(escaped("a{b}~%ü"), "a%7Bb%7D%7E%25ü");
    }
}
