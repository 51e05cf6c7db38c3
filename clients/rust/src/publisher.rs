//! A stream of events that survives the loss of its connection.

use std::{collections::VecDeque, time::Duration};

use fanfare_proto::v1::{NotifyRequest, NotifyResponse};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    Client, Error, authorized,
    realtime::{BACKOFF_MAX, BACKOFF_MIN},
};

/// How long a server may take to answer; after that the connection is closed, whatever its state.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Maximum number of events that were sent but not answered.
const UNANSWERED_MAX: usize = 1024;

/// Adds an idempotency key to a request without one.
pub(crate) fn set_key(request: &mut NotifyRequest) {
    let target = request.target.get_or_insert_default();
    if target.idempotency_key.is_empty() {
        target.idempotency_key = format!("{:032x}", rand::random::<u128>());
    }
}

pub(crate) struct Publisher {
    client: Client,
    /// The requests to publish; absent once they have ended.
    source: Option<BoxStream<'static, NotifyRequest>>,
    /// Sent, or to be sent again, and not answered yet.
    unanswered: VecDeque<NotifyRequest>,
    connection: Option<Connection>,
    pause: Duration,
    /// Since when attempts have failed without any answer.
    failing: Option<Instant>,
}

struct Connection {
    /// Large enough for all unanswered requests, so that sending never waits; absent once all are
    /// sent.
    requests: Option<mpsc::Sender<NotifyRequest>>,
    answers: Streaming<NotifyResponse>,
    /// Since when the current answer has been awaited.
    since: Instant,
}

/// The result of a step.
enum Step {
    Answer(NotifyResponse),
    Again,
    Done,
}

impl Publisher {
    pub(crate) fn new(client: Client, source: BoxStream<'static, NotifyRequest>) -> Self {
        let unanswered = VecDeque::new();
        Self { client, source: Some(source), unanswered, connection: None, pause: BACKOFF_MIN, failing: None }
    }

    pub(crate) fn answers(self) -> BoxStream<'static, Result<NotifyResponse, Error>> {
        stream::unfold(Some(self), |publisher| async {
            let mut publisher = publisher?;
            loop {
                match publisher.step().await {
                    Ok(Step::Answer(answer)) => return Some((Ok(answer), Some(publisher))),
                    Ok(Step::Again) => {}
                    Ok(Step::Done) => return None,
                    Err(error) if error.is_retry() && publisher.is_patient() => publisher.wait(&error).await,
                    Err(error) => return Some((Err(error), None)),
                }
            }
        })
        .boxed()
    }

    /// Whether there is time left for a retry.
    fn is_patient(&mut self) -> bool {
        let since = *self.failing.get_or_insert_with(Instant::now);
        since.elapsed() + self.pause < self.client.retry_for
    }

    async fn wait(&mut self, error: &Error) {
        tracing::debug!(%error, pause = ?self.pause, "the stream broke, publishing goes on");
        self.connection = None;
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(BACKOFF_MAX);
    }

    async fn step(&mut self) -> Result<Step, Error> {
        if self.source.is_none() && self.unanswered.is_empty() {
            return Ok(Step::Done);
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.client, &self.unanswered, self.source.is_none()).await?),
        };
        let room = self.unanswered.len() < UNANSWERED_MAX;
        let source = &mut self.source;
        if self.unanswered.is_empty() {
            connection.since = Instant::now();
        }
        let late = connection.since + ANSWER_MAX;
        let next = async {
            match source {
                Some(source) if room => source.next().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = connection.answers.message() => match answer? {
                Some(answer) => {
                    connection.since = Instant::now();
                    self.pause = BACKOFF_MIN;
                    self.failing = None;
                    self.unanswered.pop_front();
                    Ok(Step::Answer(answer))
                }
                None => Err(Error::Unreachable("the server ended the stream".into())),
            },
            () = tokio::time::sleep_until(late), if !self.unanswered.is_empty() => {
                Err(Error::Unreachable(format!("no answer within {ANSWER_MAX:?}")))
            }
            next = next => {
                match next {
                    Some(mut request) => {
                        set_key(&mut request);
                        self.unanswered.push_back(request.clone());
                        if let Some(requests) = &connection.requests {
                            // A lost connection is detected at the next answer.
                            let _gone = requests.try_send(request).is_err();
                        }
                    }
                    None => {
                        self.source = None;
                        connection.requests = None;
                    }
                }
                Ok(Step::Again)
            }
        }
    }
}

/// Opens a stream that begins with the unanswered requests.
async fn connect(
    client: &Client,
    unanswered: &VecDeque<NotifyRequest>,
    all_sent: bool,
) -> Result<Connection, Error> {
    let (requests, outgoing) = mpsc::channel(UNANSWERED_MAX + 1);
    for request in unanswered {
        let _fits = requests.try_send(request.clone()).is_ok();
    }
    let request = authorized(ReceiverStream::new(outgoing), &client.bearer);
    let mut server = client.client.clone();
    let opened = tokio::time::timeout(ANSWER_MAX, server.notify_stream(request)).await;
    let late = |_| Error::Unreachable(format!("no answer within {ANSWER_MAX:?}"));
    let answers = opened.map_err(late)??.into_inner();
    Ok(Connection { requests: (!all_sent).then_some(requests), answers, since: Instant::now() })
}
