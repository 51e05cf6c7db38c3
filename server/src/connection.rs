//! One connection: HTTP/2 or HTTP/1.1, with a deadline for everything that a peer can delay.

mod requests;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use requests::{Driver, Requests};

/// How often an idle HTTP/2 connection is pinged, and how long the answer may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// HTTP/2 flow control windows, in bytes: enough for pipelined producers on a fast network.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The largest request head. A token has at most 8 KiB.
const HEAD_BYTES_MAX: u32 = 16 << 10;
const HTTP1_BUFFER_BYTES: usize = 32 << 10;

/// The limits that apply to every connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) streams_max: u32,
    /// From the start of a connection to its first request, and for the head of an HTTP/1.1
    /// request.
    pub(crate) request_timeout: Duration,
    /// How long a connection without requests stays open.
    pub(crate) idle_timeout: Duration,
}

/// The unanswered requests of a connection.
#[derive(Debug)]
struct Activity {
    open: AtomicUsize,
    /// There was at least one request.
    has_begun: AtomicBool,
    /// When the connection is closed unless a request is open.
    deadline: Mutex<Instant>,
    idle_timeout: Duration,
}

/// A request whose answer is not complete yet.
#[derive(Debug)]
struct Open(Arc<Activity>);

/// An answer. Its request counts as open until the answer is dropped.
struct Answer {
    body: Body,
    _open: Open,
}

impl Activity {
    fn begin(self: &Arc<Self>) -> Open {
        self.has_begun.store(true, Ordering::Release);
        self.open.fetch_add(1, Ordering::AcqRel);
        Open(self.clone())
    }

    /// When the connection will have been idle for too long, unless there is another request.
    fn deadline(&self) -> Instant {
        if self.open.load(Ordering::Acquire) > 0 {
            return Instant::now() + self.idle_timeout;
        }
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn postpone(&self, by: Duration) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + by;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.postpone(self.0.idle_timeout);
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl http_body::Body for Answer {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves a connection until the peer closes it, its deadline passes, or the server closes. In the
/// last case, open requests are still answered.
pub(crate) async fn serve<S, F, A>(stream: S, rules: Rules, closing: CancellationToken, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let activity = Arc::new(Activity {
        open: AtomicUsize::new(0),
        has_begun: AtomicBool::new(false),
        deadline: Mutex::new(Instant::now() + rules.request_timeout),
        idle_timeout: rules.idle_timeout,
    });
    let service = service_fn(|request: Request<Incoming>| {
        let (open, answered) = (activity.begin(), answer(request));
        async move { Ok::<_, Infallible>(answered.await.map(|body| Answer { body, _open: open })) }
    });
    let requests = Requests::default();
    let builder = builder(rules, requests.clone());
    let mut driver = Driver::new(requests);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let (mut closes, mut is_idle) = (false, false);
    loop {
        tokio::select! {
            biased;
            ended = poll_fn(|cx| driver.poll(connection.as_mut(), cx)) => {
                if let Err(error) = ended {
                    tracing::debug!(error, "a connection ended");
                }
                return;
            }
            () = closing.cancelled(), if !closes => {
                closes = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(activity.deadline()) => {
                if activity.deadline() > Instant::now() {
                    continue;
                }
                // A client that has sent no request gets no notice, because it may not even speak
                // HTTP.
                if !activity.has_begun.load(Ordering::Acquire) || std::mem::replace(&mut is_idle, true) {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                activity.postpone(rules.request_timeout);
            }
        }
    }
}

fn builder(rules: Rules, requests: Requests) -> auto::Builder<Requests> {
    let mut builder = auto::Builder::new(requests);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(rules.request_timeout)
        .max_buf_size(HTTP1_BUFFER_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_concurrent_streams(rules.streams_max);
    builder
}
