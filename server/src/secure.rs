//! TLS in front of a connection: the handshake within its limits, and the identity that the
//! client's certificate stands for. Knows nothing of HTTP.

use std::{sync::Arc, time::Duration};

use fanfare_proto::token::Identity;
use fanfare_trust::{ServerTls, Workloads};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::accept::{Bounds, Place, Places};

/// Concurrent handshakes, in total and per address. Further ones are refused, because each
/// handshake costs a signature.
const HANDSHAKES: Bounds = Bounds { connections_max: 4096, per_address_max: 1024 };

/// Performs TLS handshakes.
#[derive(Debug)]
pub(crate) struct Secure {
    pub(crate) tls: Arc<ServerTls>,
    workloads: Workloads,
    handshakes: Arc<Places>,
    timeout: Duration,
}

/// A connection, and the identity of its client certificate, if any.
pub(crate) type Secured = (Box<TlsStream<TcpStream>>, Option<Arc<Identity>>);

impl Secure {
    /// `timeout` is how long a handshake may take.
    pub(crate) fn new(tls: ServerTls, workloads: Workloads, timeout: Duration) -> Self {
        Self { tls: Arc::new(tls), workloads, handshakes: Places::new(HANDSHAKES), timeout }
    }

    /// Performs the handshake; `None` if it fails or takes too long.
    pub(crate) async fn handshake(&self, stream: TcpStream, place: &Place) -> Option<Secured> {
        let Some(_shaking) = self.handshakes.take(place.address()) else {
            tracing::debug!("a TLS handshake was refused: there are too many");
            return None;
        };
        let acceptor = TlsAcceptor::from(self.tls.config());
        let stream = match tokio::time::timeout(self.timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                return None;
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                return None;
            }
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity = certificate.and_then(|certificate| self.workloads.identify(certificate));
        Some((Box::new(stream), identity))
    }
}
