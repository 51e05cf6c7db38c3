//! The Rust client of Fanfare: publish and subscribe, and the link that bridges use.
//!
//! tonic's types stop here: the public interface speaks `fanfare_proto::v1` and [`Error`].

pub mod edge;
mod error;
mod publisher;
mod realtime;
mod tail;
mod web;

use std::{net::SocketAddr, time::Duration};

use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

pub use error::Error;
pub use realtime::{Client, Subscription};
pub use tail::{Tail, Tailed};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 flow control windows, in bytes.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// The largest message that is received, in bytes: a batch of events, or one event of the largest size.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A channel that connects when it is first used, and again when it was cut.
fn channel(url: &str) -> Result<Channel, Error> {
    channel_at(url, None)
}

/// The same to one address of the URL's host. Requests and certificates still go by the name.
fn channel_at(url: &str, address: Option<SocketAddr>) -> Result<Channel, Error> {
    let wrong = || Error::Url(url.to_owned());
    let mut endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| wrong())?;
    if let Some(address) = address {
        let named = endpoint.uri().clone();
        let scheme = named.scheme_str().ok_or_else(wrong)?;
        let numbered = format!("{scheme}://{address}");
        endpoint = Endpoint::from_shared(numbered).map_err(|_| wrong())?.origin(named);
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

/// The `authorization` header's value.
fn bearer(token: &str) -> Result<MetadataValue<Ascii>, Error> {
    format!("Bearer {token}").parse().map_err(|_| Error::TokenText)
}

fn authorized<T>(message: T, bearer: &MetadataValue<Ascii>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", bearer.clone());
    request
}
