//! TLS of a listener. Its certificate, key and authorities are reloaded when their files change;
//! open connections keep the configuration that they started with.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use fanfare_proto::chain::chain;
use rustls::{ServerConfig, crypto::ring, server::WebPkiClientVerifier};
use tokio::time::MissedTickBehavior;

use crate::{
    TlsError,
    files::{self, Stamp},
};

/// How often the files are checked.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The files of a listener, all PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, followed by intermediate ones.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of client certificates; `None`: no client certificates are required.
    pub client_ca: Option<PathBuf>,
}

/// The listener's current TLS configuration.
#[derive(Debug)]
pub struct ServerTls {
    files: TlsFiles,
    protocols: Vec<Vec<u8>>,
    current: RwLock<Arc<ServerConfig>>,
    /// The versions of the files that were read last, even if they could not be used.
    seen: Mutex<Vec<Stamp>>,
}

impl ServerTls {
    /// Reads the files. `protocols` are the ALPN protocols, the preferred one first.
    pub fn load(files: TlsFiles, protocols: &[&str]) -> Result<Self, TlsError> {
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let seen = Mutex::new(files.stamps());
        let current = RwLock::new(files.config(&protocols)?);
        Ok(Self { files, protocols, current, seen })
    }

    /// The configuration for new connections.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reloads the files if they have changed. If they cannot be used, that is logged and the
    /// previous configuration remains.
    fn refresh(&self) {
        let stamps = self.files.stamps();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == stamps {
                return;
            }
            *seen = stamps;
        }
        let certificate = self.files.certificate.display();
        match self.files.config(&self.protocols) {
            Ok(config) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
                tracing::info!(%certificate, "TLS certificate reloaded");
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(%certificate, error, "the new TLS certificate cannot be used; the old one stays");
            }
        }
    }

    /// Watches the files, forever.
    pub async fn watch(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let tls = self.clone();
            // Files may be on a slow disk.
            if tokio::task::spawn_blocking(move || tls.refresh()).await.is_err() {
                return;
            }
        }
    }
}

impl TlsFiles {
    fn stamps(&self) -> Vec<Stamp> {
        let paths = [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()];
        paths.into_iter().flatten().map(|path| files::stamp(path)).collect()
    }

    fn config(&self, protocols: &[Vec<u8>]) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(files::roots("tls-client-ca", path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|e| TlsError::Verifier(e.to_string()))?)
            }
        };
        let certificates = files::certificates("tls-cert", &self.certificate)?;
        let key = files::key("tls-key", &self.key)?;
        let mut config = builder.with_single_cert(certificates, key).map_err(TlsError::Pair)?;
        config.alpn_protocols = protocols.to_vec();
        Ok(Arc::new(config))
    }
}
