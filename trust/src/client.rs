//! TLS towards servers and upstreams: which authorities are trusted, and what is presented.

use std::path::PathBuf;

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

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

    /// The settings of gRPC connections. Reads and checks the files: called for each new connection,
    /// it takes a certificate that was replaced.
    pub fn grpc(&self) -> Result<ClientTlsConfig, TlsError> {
        let config = match &self.ca {
            Some(path) => {
                files::roots("server-ca", path)?;
                let pem = files::read("server-ca", path)?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        let Some((certificate, key)) = &self.identity else { return Ok(config) };
        files::certificates("server-cert", certificate)?;
        files::key("server-key", key)?;
        let pems = (files::read("server-cert", certificate)?, files::read("server-key", key)?);
        Ok(config.identity(Identity::from_pem(pems.0, pems.1)))
    }
}
