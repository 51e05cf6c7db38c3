//! Publishing and subscribing.

use std::time::Duration;

use fanfare_proto::v1::{
    Event, NotifyRequest, NotifyResponse, SubscribeRequest, SubscribeResponse,
    realtime_client::RealtimeClient, subscribe_response::Kind,
};
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use tokio::time::Instant;
use tonic::{Streaming, transport::Channel};

use crate::{
    Bearer, ClientTls, Error, MESSAGE_BYTES_MAX, authorized, bearer, channel,
    publisher::{Publisher, set_key},
};

/// The first and the longest pause between two tries.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(100);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long publishing is tried while no server takes it, unless told otherwise.
const RETRY_FOR: Duration = Duration::from_secs(15);

/// A producer and consumer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) client: RealtimeClient<Channel>,
    pub(crate) bearer: Bearer,
    pub(crate) retry_for: Duration,
}

impl Client {
    /// Prepares a connection to e.g. `http://127.0.0.1:50051`; it is made when it is first used.
    pub fn new(url: &str, token: &str) -> Result<Self, Error> {
        Self::with_tls(url, token, &ClientTls::default())
    }

    /// The same with authorities and a certificate of its own, for an `https` URL. An empty token is
    /// none: the certificate says who calls.
    pub fn with_tls(url: &str, token: &str, tls: &ClientTls) -> Result<Self, Error> {
        let client = RealtimeClient::new(channel(url, tls)?).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { client, bearer: bearer(token)?, retry_for: RETRY_FOR })
    }

    /// How long publishing is tried while no server takes it; 15 seconds unless told otherwise.
    #[must_use]
    pub const fn retry_for(mut self, time: Duration) -> Self {
        self.retry_for = time;
        self
    }

    /// Publishes one event. While the server cannot be reached it is tried again, for [a while](Self::retry_for), under an idempotency
    /// key (made here when the request has none), so that the event is published once.
    pub async fn notify(&self, mut request: NotifyRequest) -> Result<NotifyResponse, Error> {
        set_key(&mut request);
        let deadline = Instant::now() + self.retry_for;
        let mut pause = BACKOFF_MIN;
        loop {
            let answer = self.client.clone().notify(authorized(request.clone(), &self.bearer)).await;
            let error = match answer {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => Error::from(status),
            };
            if !error.is_retry() || Instant::now() + pause > deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    /// Publishes a stream of events; answers come in the order of the requests. When the connection breaks, it is made again and
    /// what was not answered is sent again, under idempotency keys (made here for requests that have none), so that each event is
    /// published once. At most 1,024 events are unanswered. The first refusal that trying again does not mend ends the stream, and
    /// so does a server that takes nothing for [a while](Self::retry_for).
    pub fn notify_stream(
        &self,
        requests: impl Stream<Item = NotifyRequest> + Send + 'static,
    ) -> BoxStream<'static, Result<NotifyResponse, Error>> {
        Publisher::new(self.clone(), requests.boxed()).answers()
    }

    /// The events of some rooms, after `after` or from now on.
    pub fn subscribe(&self, request: SubscribeRequest) -> Subscription {
        Subscription { client: self.clone(), request, stream: None, pause: BACKOFF_MIN }
    }
}

/// A subscription that resumes by itself with the cursor it has reached.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    /// `after` moves along.
    request: SubscribeRequest,
    stream: Option<Streaming<SubscribeResponse>>,
    pause: Duration,
}

impl Subscription {
    /// The place reached: resumes there when given as `after`. Empty before the first answer.
    pub fn cursor(&self) -> &str {
        &self.request.after
    }

    /// The next event. Connects and resumes as often as needed; ends only with an error that trying again does not
    /// mend, such as [`Reason::Reset`](fanfare_proto::v1::Reason::Reset).
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            match self.step().await {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(error) if error.is_retry() => {
                    tracing::debug!(%error, pause = ?self.pause, "subscription broke, resuming");
                    self.stream = None;
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(BACKOFF_MAX);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Event>, Error> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let request = authorized(self.request.clone(), &self.client.bearer);
                none.insert(self.client.client.clone().subscribe(request).await?.into_inner())
            }
        };
        let Some(response) = stream.message().await? else {
            return Err(Error::Unreachable("the server ended the stream".into()));
        };
        self.pause = BACKOFF_MIN;
        match response.kind {
            Some(Kind::Event(event)) => {
                // Ephemeral events are no places in the log.
                if event.seq > 0 {
                    self.request.after.clone_from(&event.id);
                }
                Ok(Some(event))
            }
            Some(Kind::Position(position)) => {
                self.request.after = position.cursor;
                Ok(None)
            }
            // It is not asked for.
            Some(Kind::State(_)) | None => Ok(None),
        }
    }
}
