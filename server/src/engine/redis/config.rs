//! How to reach Redis, as plain values.

use std::{fmt, path::PathBuf, time::Duration};

use super::{super::ServerId, credentials::Credentials};
use crate::error::Error;

/// The port of Redis if the URL has none.
const PORT: u16 = 6379;
/// The port of a sentinel if the URL has none.
const SENTINEL_PORT: u16 = 26_379;

/// The settings of the engine.
#[derive(Clone)]
pub struct RedisConfig {
    pub(crate) layout: Layout,
    /// Connections use TLS.
    pub(crate) tls: bool,
    /// A file with certificates (PEM) that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The user and password for Redis.
    pub credentials: Credentials,
    /// The user and password for sentinels; empty if they require none.
    pub sentinel_credentials: Credentials,
    /// The number of the database. Clusters have only 0.
    pub(crate) database: i64,
    /// The prefix of all keys and channels.
    pub prefix: String,
    /// When an append is acknowledged.
    pub ack: Ack,
    /// From the beginning of a connection to its first answer.
    pub(crate) connect_timeout: Duration,
    /// From a command to its answer.
    pub(crate) command_timeout: Duration,
    /// From a call of the engine to its answer, including attempts and pauses.
    pub(crate) call_timeout: Duration,
}

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// When the primary has the append in memory.
    Memory,
    /// When a replica also has the append.
    Replica,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// How Redis is deployed.
#[derive(Debug, Clone)]
pub(crate) enum Layout {
    /// One node.
    Single(Address),
    /// Sentinels, which know the primary of this name.
    Sentinel { sentinels: Vec<Address>, primary: String },
    /// A cluster, and the nodes that are asked for its layout.
    Cluster(Vec<Address>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("layout", &self.layout)
            .field("tls", &self.tls)
            .field("credentials", &self.credentials)
            .field("sentinel_credentials", &self.sentinel_credentials)
            .field("prefix", &self.prefix)
            .field("ack", &self.ack)
            .finish_non_exhaustive()
    }
}

impl RedisConfig {
    /// Reads a URL, e.g. `redis://10.0.0.7:6379/0`, `rediss+cluster://a:6379,b:6379`, or
    /// `redis+sentinel://a:26379,b:26379/primary-name`. `user:password@` may precede the hosts;
    /// characters such as `@`, `/` and `%` are written as `%XX` there.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let wrong = |problem: &str| Error::Redis { problem: format!("{}: {problem}", shown(url)) };
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| wrong("want e.g. redis://127.0.0.1:6379"))?;
        let (tls, kind) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis", kind) => (false, kind),
            ("rediss", kind) => (true, kind),
            _ => return Err(wrong("want redis, rediss, redis+sentinel or redis+cluster before ://")),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        let credentials = Credentials::parse(user).ok_or_else(|| {
            wrong("want UTF-8 in the user and the password, with %XX for special characters")
        })?;
        let port = if kind == "sentinel" { SENTINEL_PORT } else { PORT };
        let addresses = hosts.split(',').map(|host| Address::parse(host, port)).collect::<Option<Vec<_>>>();
        let mut addresses = addresses.ok_or_else(|| wrong("want host:port, several with commas between"))?;
        let mut database = 0;
        let layout = match kind {
            "" if addresses.len() == 1 => {
                if !path.is_empty() {
                    database =
                        path.parse().map_err(|_| wrong("want the number of a database after the /"))?;
                }
                Layout::Single(addresses.swap_remove(0))
            }
            "" => return Err(wrong("want one host, or redis+sentinel:// or redis+cluster://")),
            "sentinel" if path.is_empty() => {
                return Err(wrong("want the name of the primary after the hosts, e.g. /mymaster"));
            }
            "sentinel" => Layout::Sentinel { sentinels: addresses, primary: path.to_owned() },
            "cluster" if matches!(path, "" | "0") => Layout::Cluster(addresses),
            "cluster" => return Err(wrong("a cluster has only the database 0")),
            _ => return Err(wrong("want redis, rediss, redis+sentinel or redis+cluster before ://")),
        };
        Ok(Self {
            layout,
            tls,
            ca_file: None,
            credentials,
            sentinel_credentials: Credentials::default(),
            database,
            prefix: "ff".to_owned(),
            ack: Ack::Memory,
            connect_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_secs(5),
        })
    }

    /// Checks the settings that do not come from the URL.
    pub(super) fn check(&self, server: &ServerId) -> Result<(), Error> {
        let is_plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"{}".contains(&b))
        };
        if !is_plain(&self.prefix) || !is_plain(server.as_str()) {
            let problem = format!("the key prefix {:?}: want ASCII without spaces and braces", self.prefix);
            return Err(Error::Redis { problem });
        }
        Ok(())
    }
}

impl Address {
    /// Reads `host`, `host:port` or `[address]:port`.
    pub(super) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                (host, rest.strip_prefix(':'))
            }
            None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Some(default_port), |port| port.parse().ok())?;
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }
}

/// A URL without its password.
fn shown(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, hosts))) => format!("{scheme}://…@{hosts}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_every_kind_are_read() {
        let config = RedisConfig::parse("redis://u:p@h/3").unwrap();
        assert!(matches!(&config.layout, Layout::Single(a) if a.to_string() == "h:6379"));
        assert_eq!((config.database, config.credentials.password.as_deref()), (3, Some("p")));
        let config = RedisConfig::parse("rediss+sentinel://a,[::1]:7/main").unwrap();
        let Layout::Sentinel { sentinels, primary } = config.layout else { panic!("not sentinels") };
        assert_eq!(
            (sentinels[0].port, sentinels[1].to_string(), config.tls),
            (26_379, "[::1]:7".into(), true)
        );
        assert_eq!(primary, "main");
        assert!(matches!(RedisConfig::parse("redis+cluster://a:1,b:2").unwrap().layout, Layout::Cluster(_)));
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        for url in [
            "h:1",
            "http://h",
            "redis://",
            "redis://a,b",
            "redis+sentinel://u:secret@a",
            "redis://u:secret@h/x",
            "redis://u:secret%@h",
        ] {
            let error = RedisConfig::parse(url).unwrap_err().to_string();
            assert!(error.contains("want") && !error.contains("secret"), "{error}");
        }
    }
}
