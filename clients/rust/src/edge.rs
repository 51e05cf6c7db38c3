//! The bridge's side of `fanfare.v1.Edge`.

use fanfare_proto::v1::{
    CallRequest, CallResponse, LinkRequest, LinkResponse, RecoverRequest, RecoverResponse, ReplayRequest,
    ReplayResponse, edge_client,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use crate::{Error, MESSAGE_BYTES_MAX, authorized, bearer, channel};

/// Requests that wait for the network, at most.
const REQUESTS_WAITING_MAX: usize = 64;

/// A connection to one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EdgeClient {
    client: edge_client::EdgeClient<Channel>,
    pub(crate) channel: Channel,
    bearer: MetadataValue<Ascii>,
}

/// The two directions of a link.
#[derive(Debug)]
pub struct Link {
    /// Requests to the server.
    pub requests: mpsc::Sender<LinkRequest>,
    responses: Streaming<LinkResponse>,
}

impl EdgeClient {
    /// Prepares a connection; it is made when it is first used.
    pub fn new(url: &str, token: &str) -> Result<Self, Error> {
        let channel = channel(url)?;
        let client = edge_client::EdgeClient::new(channel.clone());
        let client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { client, channel, bearer: bearer(token)? })
    }

    /// Opens a link.
    pub async fn link(&self) -> Result<Link, Error> {
        let (requests, outgoing) = mpsc::channel(REQUESTS_WAITING_MAX);
        let request = authorized(ReceiverStream::new(outgoing), &self.bearer);
        let responses = self.client.clone().link(request).await?.into_inner();
        Ok(Link { requests, responses })
    }

    /// Finds a session that was lost.
    pub async fn recover(&self, request: RecoverRequest) -> Result<RecoverResponse, Error> {
        Ok(self.client.clone().recover(authorized(request, &self.bearer)).await?.into_inner())
    }

    /// One page of a tenant's log.
    pub async fn replay(&self, request: ReplayRequest) -> Result<ReplayResponse, Error> {
        Ok(self.client.clone().replay(authorized(request, &self.bearer)).await?.into_inner())
    }

    /// Runs what a browser emitted.
    pub async fn call(&self, request: CallRequest) -> Result<CallResponse, Error> {
        Ok(self.client.clone().call(authorized(request, &self.bearer)).await?.into_inner())
    }
}

impl Link {
    /// The next response; `None` when the server ended the link. May be dropped while waiting.
    pub async fn next(&mut self) -> Result<Option<LinkResponse>, Error> {
        Ok(self.responses.message().await?)
    }
}
