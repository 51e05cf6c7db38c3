//! Where NATS is, and how the engine uses it.

use std::{path::PathBuf, time::Duration};

use super::super::userinfo;

/// The settings of the engine.
#[derive(Debug, Clone)]
pub struct NatsConfig {
    /// URLs of servers of one cluster, e.g. `nats://user:password@10.0.0.7:4222` or `tls://…`. The
    /// client connects to any server that answers, and gets the other addresses from it.
    pub servers: Vec<String>,
    /// A file with a user's JWT and seed, which determine the account.
    pub credentials: Option<PathBuf>,
    /// Root certificates to trust for servers, in addition to those of the system.
    pub root_certificates: Option<PathBuf>,
    /// The client certificate and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Refuses connections without TLS.
    pub require_tls: bool,
    /// The JetStream domain, if there are several.
    pub domain: Option<String>,
    /// The first token of every subject, and in capitals of every stream name: 1 to 32 characters
    /// of a-z, 0-9 and `-`.
    pub prefix: String,
    /// Copies of each stream. An acknowledgement means that more than half have the event.
    pub replicas: usize,
    /// Number of streams over which tenants are spread. Cannot be changed later.
    pub partitions: u32,
    /// Maximum size of one partition's stream in bytes; further appends are refused. Absent: only
    /// the account and the disk set a limit.
    pub partition_bytes_max: Option<u64>,
    /// Maximum total time of an append, read or replacement.
    pub deadline: Duration,
    /// How long one request may take before the engine checks its outcome.
    pub request_timeout: Duration,
}

impl NatsConfig {
    /// Settings for these servers, with defaults for all else.
    pub fn new(servers: Vec<String>) -> Self {
        Self {
            servers,
            credentials: None,
            root_certificates: None,
            client_certificate: None,
            require_tls: false,
            domain: None,
            prefix: "ff".into(),
            replicas: 3,
            partitions: 16,
            partition_bytes_max: None,
            deadline: Duration::from_secs(5),
            request_timeout: Duration::from_secs(2),
        }
    }

    /// The URLs without user and password.
    pub(super) fn addresses(&self) -> Vec<String> {
        let address = |url: &String| match split(url) {
            (scheme, Some(_), host) => format!("{scheme}{host}"),
            _ => url.clone(),
        };
        self.servers.iter().map(address).collect()
    }

    /// The user and the password of the first URL that has them; they apply to all servers.
    pub(super) fn user(&self) -> Result<Option<(String, String)>, String> {
        let Some(text) = self.servers.iter().find_map(|url| split(url).1) else { return Ok(None) };
        let wrong = || "user and password of a URL have a wrong escape: want e.g. %40 for \"@\"".to_owned();
        let (user, password) = userinfo::parse(text).ok_or_else(wrong)?;
        Ok(Some((user.unwrap_or_default(), password.unwrap_or_default())))
    }

    /// Checks the settings. The error says what is wrong and what would be right.
    pub(super) fn check(&self) -> Result<(), String> {
        let is_token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=32).contains(&self.prefix.len()) || !self.prefix.bytes().all(is_token) {
            return Err(format!("{:?} is no prefix: want 1 to 32 of a-z, 0-9 and \"-\"", self.prefix));
        }
        if ![1, 3, 5].contains(&self.replicas) {
            return Err(format!("there cannot be {} replicas: want 1, 3 or 5", self.replicas));
        }
        if !(1..=1024).contains(&self.partitions) {
            return Err(format!("there cannot be {} partitions: want 1 to 1024", self.partitions));
        }
        self.user()?;
        if self.servers.is_empty() {
            return Err("no server is given: want e.g. nats://127.0.0.1:4222".into());
        }
        Ok(())
    }
}

/// Splits a URL into its scheme, its user and password if present, and the rest.
fn split(url: &str) -> (&str, Option<&str>, &str) {
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
    match rest.rsplit_once('@') {
        Some((user, host)) => (scheme, Some(user), host),
        None => (scheme, None, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_are_those_of_a_url_and_no_part_of_an_address() {
        let urls = ["nats://a:4222", "tls://u%40x:p%3Aq@b:4222"].map(str::to_owned).to_vec();
        let config = NatsConfig::new(urls);
        assert_eq!(config.addresses(), ["nats://a:4222", "tls://b:4222"]);
        assert_eq!(config.user(), Ok(Some(("u@x".to_owned(), "p:q".to_owned()))));
        assert_eq!(NatsConfig::new(vec!["nats://a".into()]).user(), Ok(None));
        assert!(NatsConfig::new(vec!["nats://%zz@a".into()]).check().is_err());
    }
}
