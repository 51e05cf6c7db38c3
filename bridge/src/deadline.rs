//! A connection under HTTP that fails if the peer reads too slowly.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::socket::Socket;

/// A peer that accepts this many bytes within the timeout is given another timeout.
const PROGRESS_BYTES: usize = 64 << 10;

/// A connection whose writes fail if the peer does not accept all offered bytes, or at least
/// [`PROGRESS_BYTES`] of them, within `timeout`. Otherwise a peer that stalls, or accepts a byte
/// now and then, would hold its connection and everything queued for it forever.
#[derive(Debug)]
pub(crate) struct DeadlineStream {
    stream: Socket,
    timeout: Duration,
    /// Runs while offered bytes are not accepted, with the number of bytes accepted since.
    stalled: Option<(Pin<Box<Sleep>>, usize)>,
    /// The connection was given up: reads fail too, so that a pending read is notified.
    has_failed: bool,
    reader: Option<Waker>,
}

impl DeadlineStream {
    pub(crate) const fn new(stream: Socket, timeout: Duration) -> Self {
        Self { stream, timeout, stalled: None, has_failed: false, reader: None }
    }

    /// The underlying stream.
    pub(crate) fn into_inner(self) -> Socket {
        self.stream
    }

    fn judge(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        offered: usize,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            match &mut self.stalled {
                Some((_, taken)) if count < offered => {
                    *taken += count;
                    if *taken >= PROGRESS_BYTES {
                        self.stalled = None;
                    }
                }
                _ => self.stalled = None,
            }
            return written;
        }
        if written.is_ready() {
            return written;
        }
        let timeout = self.timeout;
        let (timer, _) = self.stalled.get_or_insert_with(|| (Box::pin(sleep(timeout)), 0));
        ready!(timer.as_mut().poll(cx));
        self.has_failed = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Err(timed_out()))
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")
}

impl AsyncRead for DeadlineStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_failed {
            return Poll::Ready(Err(timed_out()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() && !self.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            self.reader = Some(cx.waker().clone());
        }
        read
    }
}

impl AsyncWrite for DeadlineStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, written, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, written, bufs.iter().map(|buf| buf.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
