//! Splits request bodies into messages: a message is passed on once it is complete. Until then,
//! only the bytes that have arrived are stored, within bounds and for a limited time.
//!
//! The decoder after this module reserves the whole length of a message as soon as it reads the
//! prefix. Therefore it must not receive the prefix alone.

use std::{
    error::Error,
    future::poll_fn,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// The prefix of a message: a flag and the length (gRPC over HTTP/2, "Length-Prefixed-Message").
pub(super) const PREFIX: usize = 5;
/// Bytes of unfinished messages per connection.
const CONNECTION_BYTES_MAX: usize = 16 << 20;
/// Bytes of unfinished messages of all connections. Beyond this limit, only connections with at
/// most [`LITTLE_BYTES`] may continue.
const ALL_BYTES_MAX: usize = 256 << 20;
/// Bytes that a connection may always hold.
const LITTLE_BYTES: usize = 64 << 10;

/// Counts the bytes of unfinished messages.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    connection: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
    bytes_max: usize,
    /// The address of the client.
    address: Option<IpAddr>,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self {
            connection: Arc::default(),
            all: Arc::default(),
            bytes_max: CONNECTION_BYTES_MAX,
            address: None,
        }
    }

    /// The budget of a trusted connection.
    pub(crate) fn boundless() -> Self {
        Self { bytes_max: usize::MAX, ..Self::new() }
    }

    /// Bytes of unfinished messages of all connections, and their limit.
    pub(crate) fn usage(&self) -> (usize, usize) {
        (self.all.load(Ordering::Relaxed), ALL_BYTES_MAX)
    }

    /// The budget of a new connection from an address. It counts towards the same total.
    pub(crate) fn of_connection(&self, address: IpAddr) -> Self {
        Self { connection: Arc::default(), address: Some(address), ..self.clone() }
    }

    /// The address of the client, if known.
    pub(crate) const fn address(&self) -> Option<IpAddr> {
        self.address
    }
}

/// The part of a budget that one unfinished message uses.
#[derive(Debug)]
struct Held {
    budget: Budget,
    bytes: usize,
}

impl Held {
    fn set(&mut self, bytes: usize) -> Result<(), Status> {
        let (before, budget) = (std::mem::replace(&mut self.bytes, bytes), &self.budget);
        if bytes <= before {
            budget.connection.fetch_sub(before - bytes, Ordering::Relaxed);
            budget.all.fetch_sub(before - bytes, Ordering::Relaxed);
            return Ok(());
        }
        let connection = budget.connection.fetch_add(bytes - before, Ordering::Relaxed) + bytes - before;
        let all = budget.all.fetch_add(bytes - before, Ordering::Relaxed) + bytes - before;
        if connection > budget.bytes_max || (all > ALL_BYTES_MAX && connection > LITTLE_BYTES) {
            return Err(super::status::limit("too many bytes of unfinished messages; send fewer at once"));
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _less = self.set(0);
    }
}

/// The bounds of a request's messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) bytes_max: usize,
    /// How long a message may take from its first byte to its last.
    pub(crate) timeout: Duration,
    /// The first message must arrive within that time too.
    pub(crate) is_awaited: bool,
}

/// A request body.
#[derive(Debug)]
pub(crate) struct Messages<B> {
    body: B,
    rules: Rules,
    unfinished: BytesMut,
    held: Held,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<B> Messages<B> {
    pub(crate) fn new(body: B, rules: Rules, budget: Budget) -> Self {
        let deadline = rules.is_awaited.then(|| Box::pin(sleep(rules.timeout)));
        let held = Held { budget, bytes: 0 };
        Self { body, rules, unfinished: BytesMut::new(), held, deadline }
    }

    /// Takes data that has arrived and returns the complete messages.
    fn take(&mut self, mut data: Bytes) -> Result<Bytes, Status> {
        if self.unfinished.is_empty() {
            let whole = whole(&data, self.rules.bytes_max)?;
            let messages = data.split_to(whole);
            self.hold(&data)?;
            return Ok(messages);
        }
        self.hold(&data)?;
        let whole = whole(&self.unfinished, self.rules.bytes_max)?;
        if whole == 0 {
            return Ok(Bytes::new());
        }
        let rest = self.unfinished.split_off(whole);
        let messages = std::mem::replace(&mut self.unfinished, BytesMut::new()).freeze();
        self.deadline = None;
        self.hold(&rest)?;
        Ok(messages)
    }

    /// Stores the beginning of a message, which grows with each part that arrives.
    fn hold(&mut self, data: &[u8]) -> Result<(), Status> {
        self.held.set(self.unfinished.len() + data.len())?;
        self.unfinished.extend_from_slice(data);
        if self.unfinished.is_empty() {
            self.deadline = None;
        } else if self.deadline.is_none() {
            self.deadline = Some(Box::pin(sleep(self.rules.timeout)));
        }
        Ok(())
    }
}

/// A status for a message that exceeds the limit.
pub(super) fn too_large(size: &str, bytes_max: usize) -> Status {
    Status::out_of_range(format!("the message has {size}; the limit is {bytes_max}"))
}

/// Reads a body that is one message without a prefix.
pub(super) async fn whole_body<B>(mut body: B, rules: Rules, budget: Budget) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let announced = body.size_hint().lower();
    if announced > rules.bytes_max as u64 {
        return Err(too_large(&format!("{announced} bytes"), rules.bytes_max));
    }
    let (mut held, mut message) = (Held { budget, bytes: 0 }, BytesMut::new());
    let read = async {
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| Status::from_error(error.into()))?;
            let Ok(data) = frame.into_data() else { continue };
            let size = message.len() + data.len();
            if size > rules.bytes_max {
                return Err(too_large("more than the limit", rules.bytes_max));
            }
            held.set(size)?;
            message.extend_from_slice(&data);
        }
        Ok(message.freeze())
    };
    tokio::time::timeout(rules.timeout, read).await.unwrap_or_else(|_| Err(late(rules.timeout)))
}

fn late(timeout: Duration) -> Status {
    Status::deadline_exceeded(format!("the message did not come within {timeout:?}"))
}

/// The number of bytes at the beginning that are complete messages.
fn whole(data: &[u8], bytes_max: usize) -> Result<usize, Status> {
    let mut at = 0;
    while let Some(&[_, a, b, c, d]) = data.get(at..at + PREFIX) {
        let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if size > bytes_max {
            return Err(too_large(&format!("{size} bytes"), bytes_max));
        }
        if data.len() - at - PREFIX < size {
            break;
        }
        at += PREFIX + size;
    }
    Ok(at)
}

impl<B> Body for Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                if let Some(deadline) = &mut self.deadline {
                    ready!(deadline.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(late(self.rules.timeout))));
                }
                return Poll::Pending;
            };
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let messages = self.take(data)?;
                        if !messages.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(messages))));
                        }
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
                None if self.unfinished.is_empty() => return Poll::Ready(None),
                None => {
                    self.unfinished.clear();
                    let message = "the request ends in the middle of a message";
                    return Poll::Ready(Some(Err(super::status::malformed(message))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.unfinished.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;

    /// A body that arrives in these parts and then stays silent.
    struct Parts(VecDeque<Bytes>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.0.pop_front() {
                Some(part) => Poll::Ready(Some(Ok(Frame::data(part)))),
                None => Poll::Pending,
            }
        }
    }

    const RULES: Rules = Rules { bytes_max: 1000, timeout: Duration::from_millis(20), is_awaited: false };

    fn message(size: usize) -> Vec<u8> {
        let prefix = u32::try_from(size).unwrap().to_be_bytes();
        [&[0][..], &prefix, &vec![7; size]].concat()
    }

    fn messages(parts: Vec<Vec<u8>>, rules: Rules, budget: &Budget) -> Messages<Parts> {
        Messages::new(Parts(parts.into_iter().map(Bytes::from).collect()), rules, budget.clone())
    }

    proptest! {
        #[test]
        fn messages_come_whole_however_they_are_cut(
            sizes in proptest::collection::vec(0..300_usize, 0..6),
            cuts in proptest::collection::vec(1..200_usize, 0..20),
            rest in 0..5_usize,
        ) {
            let mut sent: Vec<u8> = sizes.iter().flat_map(|size| message(*size)).collect();
            let all = sent.clone();
            sent.extend(&message(100)[..rest]);
            let mut parts = Vec::new();
            for cut in cuts {
                let tail = sent.split_off(cut.min(sent.len()));
                parts.push(std::mem::replace(&mut sent, tail));
            }
            parts.push(sent);
            let budget = Budget::new();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _guard = runtime.enter();
            let mut body = messages(parts, RULES, &budget);
            let mut got = Vec::new();
            while let Some(Some(Ok(frame))) = body.frame().now_or_never() {
                let data = frame.into_data().unwrap();
                prop_assert_eq!(whole(&data, RULES.bytes_max).unwrap(), data.len());
                got.extend_from_slice(&data);
            }
            prop_assert_eq!(got, all);
            prop_assert_eq!(budget.all.load(Ordering::Relaxed), rest);
            drop(body);
            prop_assert_eq!(budget.all.load(Ordering::Relaxed), 0);
        }
    }

    #[tokio::test]
    async fn a_message_that_does_not_come_to_its_end_is_late() {
        let budget = Budget::new();
        let begun = message(10)[..7].to_vec();
        let late = messages(vec![begun], RULES, &budget).frame().await.unwrap().unwrap_err();
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
        let silent = Rules { is_awaited: true, ..RULES };
        assert!(messages(Vec::new(), silent, &budget).frame().await.unwrap().is_err());
        // A stream may be silent between its messages.
        let mut stream = messages(vec![message(3)], silent, &budget);
        assert!(stream.frame().await.unwrap().is_ok());
        assert!(tokio::time::timeout(RULES.timeout * 3, stream.frame()).await.is_err());
    }

    #[tokio::test]
    async fn a_message_without_a_prefix_has_the_same_bounds() {
        let budget = Budget::new();
        let body = |size: usize| Parts([vec![7; size]].map(Bytes::from).into());
        let code = async |body, budget: &Budget| {
            whole_body(body, RULES, budget.clone()).await.map(|whole| whole.len()).map_err(|e| e.code())
        };
        assert_eq!(code(body(1001), &budget).await, Err(tonic::Code::OutOfRange));
        assert_eq!(code(body(1000), &budget).await, Err(tonic::Code::DeadlineExceeded), "it has no end");
        let little = Budget { bytes_max: 999, ..Budget::new() };
        assert_eq!(code(body(1000), &little).await, Err(tonic::Code::ResourceExhausted));
        for budget in [budget, little] {
            assert_eq!(budget.connection.load(Ordering::Relaxed), 0, "what is refused holds nothing");
        }
    }

    #[tokio::test]
    async fn a_prefix_alone_holds_its_own_bytes_and_all_unfinished_ones_are_bounded() {
        let budget = Budget::new();
        let rules = Rules { bytes_max: 4 << 20, timeout: Duration::from_secs(60), is_awaited: false };
        let prefix = message(4 << 20)[..PREFIX].to_vec();
        let mut one = messages(vec![prefix], rules, &budget);
        assert!(one.frame().now_or_never().is_none());
        assert_eq!((one.unfinished.capacity() < 100, budget.all.load(Ordering::Relaxed)), (true, PREFIX));
        let begun = message(4 << 20)[..4 << 20].to_vec();
        let mut all: Vec<_> = (0..5).map(|_| messages(vec![begun.clone()], rules, &budget)).collect();
        let refused = all.iter_mut().filter_map(|body| body.frame().now_or_never()).flatten();
        let codes: Vec<_> = refused.map(|frame| frame.unwrap_err().code()).collect();
        assert_eq!(codes, [tonic::Code::ResourceExhausted; 2], "16 MiB hold three of them");
        let mut other = messages(vec![begun], rules, &budget.of_connection([127, 0, 0, 1].into()));
        assert!(other.frame().now_or_never().is_none(), "another connection has its own");
        let too_large = message(5 << 20)[..9].to_vec();
        let refusal = messages(vec![too_large], rules, &budget).frame().await.unwrap().unwrap_err();
        assert_eq!(refusal.code(), tonic::Code::OutOfRange);
    }
}
