//! TLS towards servers and upstreams: which authorities are trusted, and what is presented.

use std::path::PathBuf;

use crate::{TlsError, files};

/// The files of a client, all PEM. Without any, the authorities of the system are trusted and nothing
/// is presented.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// The authorities that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// The client's own certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What the files hold.
#[derive(Debug, Clone, Default)]
pub struct ClientPem {
    /// The authorities.
    pub ca: Option<Vec<u8>>,
    /// Certificate and private key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl ClientTls {
    /// The files of three settings, the names of the last two for the error.
    pub fn new(
        ca: Option<PathBuf>,
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        names: [&'static str; 2],
    ) -> Result<Self, TlsError> {
        let [cert_name, key_name] = names;
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(TlsError::Half { given: cert_name, missing: key_name }),
            (None, Some(_)) => return Err(TlsError::Half { given: key_name, missing: cert_name }),
        };
        Ok(Self { ca, identity })
    }

    /// Reads and checks the files. They are read for each new connection, so that a certificate that was
    /// replaced is taken.
    pub fn read(&self) -> Result<ClientPem, TlsError> {
        let ca = self.ca.as_ref().map(|path| {
            files::roots("server-ca", path)?;
            files::read("server-ca", path)
        });
        let identity = self.identity.as_ref().map(|(certificate, key)| {
            files::certificates("server-cert", certificate)?;
            files::key("server-key", key)?;
            Ok((files::read("server-cert", certificate)?, files::read("server-key", key)?))
        });
        Ok(ClientPem { ca: ca.transpose()?, identity: identity.transpose()? })
    }
}
