//! The Rust client of Fanfare: publish and subscribe, and the link that bridges use.
//!
//! Hides tonic's types: the public interface uses `fanfare_proto::v1` and [`Error`].

pub mod edge;
mod error;
mod publisher;
mod realtime;
mod tail;
mod web;

use std::{net::SocketAddr, time::Duration};

use fanfare_proto::chain::chain;
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

pub use error::Error;
pub use fanfare_trust::ClientTls;
pub use realtime::{Client, Subscription};
pub use tail::{Tail, Tailed};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 flow control windows, in bytes.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// The largest message that is accepted, in bytes: a batch of events, or one event of the maximum
/// size.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A channel that connects on first use and reconnects after a loss.
fn channel(url: &str, tls: &ClientTls) -> Result<Channel, Error> {
    channel_at(url, tls, None)
}

/// The same to one address of the URL's host. Requests and certificates still use the name.
fn channel_at(url: &str, tls: &ClientTls, address: Option<SocketAddr>) -> Result<Channel, Error> {
    let wrong = || Error::Url(url.to_owned());
    let mut endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| wrong())?;
    let secure = endpoint.uri().scheme_str() == Some("https");
    let host = endpoint.uri().host().map(|host| host.trim_matches(['[', ']']).to_owned());
    if let Some(address) = address {
        let named = endpoint.uri().clone();
        let scheme = named.scheme_str().ok_or_else(wrong)?;
        let numbered = format!("{scheme}://{address}");
        endpoint = Endpoint::from_shared(numbered).map_err(|_| wrong())?.origin(named);
    }
    if let (true, Some(host)) = (secure, host) {
        let config = tls.grpc().map_err(|error| Error::Tls(chain(&error)))?.domain_name(host);
        endpoint = endpoint.tls_config(config).map_err(|e| Error::Tls(e.to_string()))?;
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_lazy())
}

/// The `authorization` header's value. Absent without a token: then a client certificate identifies
/// the caller.
type Bearer = Option<MetadataValue<Ascii>>;

fn bearer(token: &str) -> Result<Bearer, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    format!("Bearer {token}").parse().map(Some).map_err(|_| Error::TokenText)
}

fn authorized<T>(message: T, bearer: &Bearer) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(bearer) = bearer {
        request.metadata_mut().insert("authorization", bearer.clone());
    }
    request
}
