//! `--metrics-listen`: the process's metrics on a separate address.

use std::{future::Future, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use fanfare_telemetry::{Health, Metrics, MetricsListener, Source};
use futures_util::future::Either;
use tracing::info;

/// Serves scrapes, if configured.
#[derive(Debug)]
pub(crate) struct Scrapes(Option<(MetricsListener, Arc<Metrics>)>);

impl Scrapes {
    /// Binds the configured address.
    pub(crate) async fn bind(
        address: Option<SocketAddr>,
        sources: Vec<Arc<dyn Source>>,
    ) -> anyhow::Result<Self> {
        Self::serve(address, Metrics::new(sources)).await
    }

    /// The same, with `/healthz` and `/readyz`.
    pub(crate) async fn bind_with_health(
        address: Option<SocketAddr>,
        sources: Vec<Arc<dyn Source>>,
        health: Arc<dyn Health>,
    ) -> anyhow::Result<Self> {
        Self::serve(address, Metrics::with_health(sources, health)).await
    }

    async fn serve(address: Option<SocketAddr>, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let Some(address) = address else { return Ok(Self(None)) };
        let listener = MetricsListener::bind(address).await;
        let listener = listener.with_context(|| format!("metrics-listen: cannot listen on {address}"))?;
        info!(address = %listener.local_addr(), "metrics listening");
        Ok(Self(Some((listener, metrics))))
    }

    /// Serves scrapes until `work` is done.
    pub(crate) async fn serve_during<T>(self, work: impl Future<Output = T>) -> T {
        let Some((listener, metrics)) = self.0 else { return work.await };
        let (serving, work) = (listener.run(metrics), std::pin::pin!(work));
        match futures_util::future::select(work, std::pin::pin!(serving)).await {
            Either::Left((done, _)) => done,
            Either::Right(((), work)) => work.await,
        }
    }
}
