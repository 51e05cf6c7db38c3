//! Why certificates or keys cannot be used.

/// Why TLS cannot be set up. Each variant names the setting that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{setting}: cannot read {path}")]
    Read {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file is not PEM, or lacks the required content.
    #[error("{setting}: {path} has no {wanted} in PEM form: {problem}")]
    Pem {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: String,
        /// The required content.
        wanted: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A certificate that is configured as an authority is not one.
    #[error("{setting}: a certificate in {path} cannot be trusted")]
    Root {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// Certificate and key do not match, or cannot be used.
    #[error("tls-cert and tls-key: the certificate cannot be used with the key")]
    Pair(#[source] rustls::Error),
    /// The verification of client certificates cannot be set up.
    #[error("tls-client-ca: client certificates cannot be verified: {0}")]
    Verifier(String),
    /// A certificate without its key, or a key without its certificate.
    #[error("{given} is given without {missing}: give both")]
    Half {
        /// The setting that is given.
        given: &'static str,
        /// The setting that is missing.
        missing: &'static str,
    },
}
