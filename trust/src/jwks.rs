//! Keeps keys that are fetched from URLs up to date. Keys are fetched at the start, again before
//! they are too old, immediately when a token has an unknown key, and after a failure with
//! increasing pauses. Fetched keys are used until newer ones are available.

use std::{path::Path, sync::Arc, time::Duration};

use fanfare_proto::token::Verifier;
use rand::RngExt as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;

use crate::{
    TlsError,
    fetch::{client_config, fetch},
    files,
};

/// The maximum age of keys if their server does not specify one, and the bounds for a specified
/// one.
const AGE_DEFAULT: Duration = Duration::from_secs(300);
const AGE_MIN: Duration = Duration::from_secs(60);
const AGE_MAX: Duration = Duration::from_secs(3600);
/// The minimum time between two fetches that tokens cause.
const PAUSE_MIN: Duration = Duration::from_secs(10);
/// Pause after a failure.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How often it checks whether a token has requested newer keys.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Fetches keys for a verifier.
#[derive(Debug)]
pub struct Jwks {
    verifier: Arc<Verifier>,
    tls: Arc<ClientConfig>,
}

impl Jwks {
    /// `ca` is a file with the authorities for HTTPS servers, instead of the system's.
    pub fn new(verifier: Arc<Verifier>, ca: Option<&Path>) -> Result<Self, TlsError> {
        let roots = match ca {
            Some(path) => files::roots("jwt-jwks-ca", path)?,
            None => system_roots(&verifier),
        };
        let tls = client_config(roots).map_err(TlsError::Pair)?;
        Ok(Self { verifier, tls })
    }

    /// Fetches all keys and keeps them up to date, forever. Until they are available, tokens that
    /// need them are refused with a reason to retry.
    pub async fn run(self: Arc<Self>) {
        let mut tasks = tokio::task::JoinSet::new();
        for (number, url) in self.verifier.urls() {
            let (jwks, url) = (self.clone(), url.to_owned());
            tasks.spawn(async move { jwks.keep(number, &url).await });
        }
        // The tasks never end.
        while tasks.join_next().await.is_some() {}
    }

    async fn keep(&self, number: usize, url: &str) {
        let mut backoff = BACKOFF_MIN;
        let mut due = Instant::now();
        let mut asked_from = due;
        loop {
            self.wait(number, due, asked_from).await;
            let now = Instant::now();
            match self.refresh(number, url).await {
                Some(age) => {
                    backoff = BACKOFF_MIN;
                    due = now + age;
                    asked_from = now + PAUSE_MIN;
                }
                None => {
                    let pause = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
                    (due, asked_from) = (now + pause, now + pause);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Waits until keys are too old, or a token requests newer ones.
    async fn wait(&self, number: usize, due: Instant, asked_from: Instant) {
        loop {
            let now = Instant::now();
            if now >= asked_from {
                self.verifier.expect_newer(number);
            }
            if now >= due || (now >= asked_from && self.verifier.wants_newer(number)) {
                return;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Fetches keys; returns their maximum age, or `None` if that failed.
    async fn refresh(&self, number: usize, url: &str) -> Option<Duration> {
        let fetched = fetch(url, &self.tls).await;
        let set = fetched.and_then(|document| {
            let changed = self.verifier.set_keys(number, &document.body).map_err(|e| e.to_string())?;
            Ok((changed, document.age_max))
        });
        match set {
            Ok((changed, age_max)) => {
                if changed {
                    tracing::info!(url, "token keys fetched");
                }
                Some(age_max.unwrap_or(AGE_DEFAULT).clamp(AGE_MIN, AGE_MAX))
            }
            Err(problem) => {
                tracing::warn!(url, problem, "token keys cannot be fetched; those that are known stay");
                None
            }
        }
    }
}

/// The system's authorities, if any URL needs them.
fn system_roots(verifier: &Verifier) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    if verifier.urls().any(|(_, url)| url.starts_with("https:")) {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "authorities of the system cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
    }
    roots
}
