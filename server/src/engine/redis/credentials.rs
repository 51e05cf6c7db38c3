//! The user and password for Redis, from a URL or from files.

use std::{fmt, path::PathBuf};

use redis::RedisConnectionInfo;

use super::super::userinfo;
use crate::error::Error;

/// Maximum size of a file with a name or a password.
const FILE_BYTES_MAX: usize = 4096;

/// A user and a password. Files take precedence over the URL.
#[derive(Clone, Default)]
pub struct Credentials {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    /// A file that contains only the user's name.
    pub username_file: Option<PathBuf>,
    /// A file that contains only the password.
    pub password_file: Option<PathBuf>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("username_file", &self.username_file)
            .field("password_file", &self.password_file)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the part of a URL before the `@`, `user:password`, where `%` begins an escape.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (username, password) = userinfo::parse(text)?;
        Some(Self { username, password, ..Self::default() })
    }

    /// The credentials, including the contents of the files.
    pub(super) async fn read(&self) -> Result<Self, Error> {
        let mut read = self.clone();
        if let Some(file) = &self.username_file {
            read.username = Some(line(file).await?);
        }
        if let Some(file) = &self.password_file {
            read.password = Some(line(file).await?);
        }
        Ok(read)
    }

    /// The settings of a connection with these credentials.
    pub(super) fn apply(&self, mut settings: RedisConnectionInfo) -> RedisConnectionInfo {
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        settings
    }
}

/// The only line of a file.
async fn line(file: &PathBuf) -> Result<String, Error> {
    let wrong = |problem: String| Error::Redis { problem: format!("the file {}: {problem}", file.display()) };
    let bytes = tokio::fs::read(file).await.map_err(|error| wrong(format!("it cannot be read: {error}")))?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim_end_matches(['\r', '\n']);
    if text.is_empty() || text.len() > FILE_BYTES_MAX || text.contains('\n') {
        return Err(wrong(format!("want one line of UTF-8 with 1 to {FILE_BYTES_MAX} bytes")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let credentials = Credentials::parse("user:pa55word").unwrap();
        assert_eq!(credentials.username.as_deref(), Some("user"));
        assert!(!format!("{credentials:?}").contains("pa55word"));
    }

    #[tokio::test]
    async fn a_file_counts_more_than_a_url() {
        let file = std::env::temp_dir().join(format!("fanfare-redis-password-{}", std::process::id()));
        std::fs::write(&file, "secret\n").unwrap();
        let mut credentials = Credentials::parse("u:other").unwrap();
        credentials.password_file = Some(file.clone());
        let read = credentials.read().await.unwrap();
        assert_eq!((read.username.as_deref(), read.password.as_deref()), (Some("u"), Some("secret")));
        std::fs::write(&file, "two\nlines\n").unwrap();
        assert!(credentials.read().await.unwrap_err().to_string().contains("want one line"));
        std::fs::remove_file(&file).unwrap();
        assert!(credentials.read().await.unwrap_err().to_string().contains("cannot be read"));
    }
}
