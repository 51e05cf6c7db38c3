//! The bridge's side of `fanfare.v1.Edge`.

use std::net::SocketAddr;

use fanfare_proto::v1::{
    CallRequest, CallResponse, LinkRequest, LinkResponse, RecoverRequest, RecoverResponse, ReplayRequest,
    ReplayResponse, StateRequest, StateResponse, edge_client,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{Bearer, ClientTls, Error, MESSAGE_BYTES_MAX, authorized, bearer, channel, channel_at};

/// Requests that may wait for the network.
const REQUESTS_WAITING_MAX: usize = 64;

/// A connection to one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EdgeClient {
    url: String,
    tls: ClientTls,
    client: edge_client::EdgeClient<Channel>,
    /// For forwarded calls, separate from the client's own: a caller that does not read its
    /// responses must not delay the client's calls.
    pub(crate) passing: Channel,
    bearer: Bearer,
}

/// The two directions of a link.
#[derive(Debug)]
pub struct Link {
    /// Requests to the server.
    pub requests: mpsc::Sender<LinkRequest>,
    responses: Streaming<LinkResponse>,
}

fn over(channel: Channel) -> edge_client::EdgeClient<Channel> {
    edge_client::EdgeClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

impl EdgeClient {
    /// Prepares a connection, which is opened on first use.
    pub fn new(url: &str, token: &str, tls: ClientTls) -> Result<Self, Error> {
        let (client, passing) = (over(channel(url, &tls)?), channel(url, &tls)?);
        Ok(Self { url: url.to_owned(), tls, client, passing, bearer: bearer(token)? })
    }

    /// The same over new connections, to this address of the host if one is given: a dead
    /// connection may not be detected for a long time.
    pub fn at(&self, address: Option<SocketAddr>) -> Result<Self, Error> {
        let client = over(channel_at(&self.url, &self.tls, address)?);
        Ok(Self { client, passing: channel_at(&self.url, &self.tls, address)?, ..self.clone() })
    }

    /// Host and port of the URL, to look up the host's addresses.
    pub fn host_and_port(&self) -> Option<(String, u16)> {
        let uri: http::Uri = self.url.parse().ok()?;
        let port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        // An IPv6 address is in brackets in a URL.
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        Some((host.to_owned(), uri.port_u16().unwrap_or(port)))
    }

    /// Opens a link.
    pub async fn link(&self) -> Result<Link, Error> {
        let (requests, outgoing) = mpsc::channel(REQUESTS_WAITING_MAX);
        let request = authorized(ReceiverStream::new(outgoing), &self.bearer);
        let responses = self.client.clone().link(request).await?.into_inner();
        Ok(Link { requests, responses })
    }

    /// Finds a lost session.
    pub async fn recover(&self, request: RecoverRequest) -> Result<RecoverResponse, Error> {
        Ok(self.client.clone().recover(authorized(request, &self.bearer)).await?.into_inner())
    }

    /// One page of a tenant's log.
    pub async fn replay(&self, request: ReplayRequest) -> Result<ReplayResponse, Error> {
        Ok(self.client.clone().replay(authorized(request, &self.bearer)).await?.into_inner())
    }

    /// One page of the current state of rooms.
    pub async fn state(&self, request: StateRequest) -> Result<StateResponse, Error> {
        Ok(self.client.clone().state(authorized(request, &self.bearer)).await?.into_inner())
    }

    /// Runs a browser's call.
    pub async fn call(&self, request: CallRequest) -> Result<CallResponse, Error> {
        Ok(self.client.clone().call(authorized(request, &self.bearer)).await?.into_inner())
    }
}

impl Link {
    /// The next response; `None` if the server ended the link. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<LinkResponse>, Error> {
        Ok(self.responses.message().await?)
    }
}
