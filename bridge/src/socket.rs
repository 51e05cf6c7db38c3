//! One connection's bytes, plain or over TLS.
//!
//! Reads and writes do not block and need no exclusive access, because an outbox writes from other
//! tasks than the one that reads. A write succeeds only when the system has accepted all of its
//! ciphertext. Until then it is refused, and the caller must retry with the same bytes first.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use rustix::net::Shutdown;
use rustls::ServerConnection;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// Maximum number of ciphertext reads for one read of plain bytes; if they yield none, the rest
/// waits for the next turn.
const READS_MAX: usize = 16;

/// A connection.
#[derive(Debug)]
pub(crate) struct Socket {
    tcp: TcpStream,
    tls: Option<Box<Mutex<Tls>>>,
}

#[derive(Debug)]
struct Tls {
    session: ServerConnection,
    /// Number of plain bytes already encrypted for a write that was refused because the system did
    /// not accept all of its ciphertext.
    accepted: usize,
}

/// The ciphertext side.
struct Wire<'a>(&'a TcpStream);

impl io::Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl io::Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }
}

impl From<TlsStream<TcpStream>> for Socket {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        let (tcp, session) = stream.into_inner();
        Self { tcp, tls: Some(Box::new(Mutex::new(Tls { session, accepted: 0 }))) }
    }
}

impl Socket {
    /// Held briefly: nothing under it blocks.
    fn tls(&self) -> Option<MutexGuard<'_, Tls>> {
        Some(self.tls.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the available bytes.
    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self.tls() {
            None => self.tcp.try_read(buf),
            Some(mut tls) => tls.read(&self.tcp, buf),
        }
    }

    /// Writes as much as the system accepts now.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(bytes)])
    }

    /// The same, from several buffers.
    pub(crate) fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.tls() {
            None => self.tcp.try_write_vectored(bufs),
            Some(mut tls) => tls.write(&self.tcp, bufs),
        }
    }

    /// Resolves when it is readable or writable, as `interest` asks.
    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        if interest.is_readable() && self.tls().is_some_and(|mut tls| tls.holds_plain()) {
            return Ok(Ready::READABLE);
        }
        self.tcp.ready(interest).await
    }

    /// Resolves when it is readable.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.ready(Interest::READABLE).await.map(|_| ())
    }

    /// Resolves when it is writable.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }

    /// Signals to the peer that no more data follows.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        if let Some(mut tls) = self.tls() {
            tls.session.send_close_notify();
            // A peer that does not read sees only the end of the connection.
            let _late = tls.flush(&self.tcp);
        }
        Ok(rustix::net::shutdown(&self.tcp, Shutdown::Write)?)
    }

    fn poll_blocked<T>(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
            let polled = if interest.is_readable() {
                self.tcp.poll_read_ready(cx)
            } else {
                self.tcp.poll_write_ready(cx)
            };
            ready!(polled)?;
        }
    }
}

impl Tls {
    /// Writes pending ciphertext; `WouldBlock` if not all of it is accepted.
    fn flush(&mut self, tcp: &TcpStream) -> io::Result<()> {
        while self.session.wants_write() {
            if self.session.write_tls(&mut Wire(tcp))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    fn write(&mut self, tcp: &TcpStream, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(tcp)?;
        if self.accepted == 0 {
            self.accepted = self.session.writer().write_vectored(bufs)?;
            self.flush(tcp)?;
        }
        Ok(std::mem::take(&mut self.accepted))
    }

    fn read(&mut self, tcp: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        for _ in 0..READS_MAX {
            match self.session.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            self.session.read_tls(&mut Wire(tcp))?;
            let processed = self.session.process_new_packets();
            // A protocol response, or an alert that describes the error.
            let _later = self.flush(tcp);
            processed.map_err(io::Error::other)?;
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Whether the last read left plain bytes, which the system does not report as readable.
    fn holds_plain(&mut self) -> bool {
        self.session.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.tls.is_none() {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
        }
        let read = self.poll_blocked(cx, Interest::READABLE, || self.try_read(buf.initialize_unfilled()));
        buf.advance(ready!(read)?);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_blocked(cx, Interest::WRITABLE, || self.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_blocked(cx, Interest::WRITABLE, || self.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_blocked(cx, Interest::WRITABLE, || {
            self.tls().map_or(Ok(()), |mut tls| tls.flush(&self.tcp))
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}

#[cfg(test)]
mod tests;
