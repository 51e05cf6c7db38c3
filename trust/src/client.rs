//! TLS to servers and upstreams: trusted authorities, and the client's certificate.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::{TlsError, fetch::client_config, files};

/// The files of a client, all PEM. Without any files, the system's authorities are trusted and no
/// certificate is presented.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// The authorities that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// The client's own certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ClientTls {
    /// The files of three settings; the names of the last two are for the error.
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

    /// The settings of gRPC connections. Reads and checks the files. It is called for each new
    /// connection, so a replaced certificate is used from then on.
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

/// The settings of TLS connections to a database: the authorities in a file, or the system's.
/// `setting` names the file's setting in errors.
pub fn database_tls(setting: &'static str, ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match ca {
        Some(path) => files::roots(setting, path)?,
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    client_config(roots).map_err(TlsError::Pair)
}
