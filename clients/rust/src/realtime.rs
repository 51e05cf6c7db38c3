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

/// The shortest and the longest pause between two attempts.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(100);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long publishing is retried while no server accepts it, by default.
const RETRY_FOR: Duration = Duration::from_secs(15);

/// A producer and consumer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) client: RealtimeClient<Channel>,
    pub(crate) bearer: Bearer,
    pub(crate) retry_for: Duration,
}

impl Client {
    /// Prepares a connection to e.g. `http://127.0.0.1:50051`, which is opened on first use.
    pub fn new(url: &str, token: &str) -> Result<Self, Error> {
        Self::with_tls(url, token, &ClientTls::default())
    }

    /// The same with authorities and a client certificate, for an `https` URL. An empty token means
    /// none: the certificate identifies the caller.
    pub fn with_tls(url: &str, token: &str, tls: &ClientTls) -> Result<Self, Error> {
        let client = RealtimeClient::new(channel(url, tls)?).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { client, bearer: bearer(token)?, retry_for: RETRY_FOR })
    }

    /// Sets how long publishing is retried while no server accepts it; 15 seconds by default.
    #[must_use]
    pub const fn retry_for(mut self, time: Duration) -> Self {
        self.retry_for = time;
        self
    }

    /// Publishes one event. While the server cannot be reached, it retries for [a limited
    /// time](Self::retry_for) under an idempotency key (created here if the request has none), so
    /// that the event is published once.
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

    /// Publishes a stream of events; answers come in the order of the requests. When the connection
    /// breaks, it reconnects and sends unanswered requests again under idempotency keys (created
    /// here for requests without one), so that each event is published once. At most 1,024 events
    /// are unanswered at a time. The stream ends at the first refusal that a retry cannot fix, or
    /// if no server accepts anything for [a limited time](Self::retry_for).
    pub fn notify_stream(
        &self,
        requests: impl Stream<Item = NotifyRequest> + Send + 'static,
    ) -> BoxStream<'static, Result<NotifyResponse, Error>> {
        Publisher::new(self.clone(), requests.boxed()).answers()
    }

    /// Subscribes to the events of some rooms, after `after` or from now on.
    pub fn subscribe(&self, request: SubscribeRequest) -> Subscription {
        Subscription { client: self.clone(), request, stream: None, pause: BACKOFF_MIN }
    }
}

/// A subscription that resumes automatically at the cursor it has reached.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    /// `after` advances with the subscription.
    request: SubscribeRequest,
    stream: Option<Streaming<SubscribeResponse>>,
    pause: Duration,
}

impl Subscription {
    /// The position that was reached: pass it as `after` to resume. Empty before the first
    /// response.
    pub fn cursor(&self) -> &str {
        &self.request.after
    }

    /// The next event. Connects and resumes as often as needed; fails only with an error that a
    /// retry cannot fix, such as [`Reason::Reset`](fanfare_proto::v1::Reason::Reset).
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
                // Ephemeral events are not stored in the log.
                if event.seq > 0 {
                    self.request.after.clone_from(&event.id);
                }
                Ok(Some(event))
            }
            Some(Kind::Position(position)) => {
                self.request.after = position.cursor;
                Ok(None)
            }
            // State is not requested.
            Some(Kind::State(_)) | None => Ok(None),
        }
    }
}
