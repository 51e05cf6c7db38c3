//! How a connection leaves HTTP: its handler answers 101 and stores a continuation for the socket,
//! which runs in the same task once HTTP has released the socket.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use crate::socket::Socket;

/// Continues with a socket.
pub(crate) type Continuation = Pin<Box<dyn Future<Output = ()> + Send>>;
type Start = Box<dyn FnOnce(Socket, Bytes) -> Continuation + Send>;

/// Where a handler stores the continuation for the socket. Each connection has one slot, in the
/// extensions of its requests.
#[derive(Clone, Default)]
pub(crate) struct UpgradeSlot(Arc<Mutex<Option<Start>>>);

impl fmt::Debug for UpgradeSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradeSlot").finish_non_exhaustive()
    }
}

impl UpgradeSlot {
    /// Stores the continuation; it gets the socket and the bytes that the peer has already sent.
    pub(crate) fn put<F>(&self, start: impl FnOnce(Socket, Bytes) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let start: Start = Box::new(move |socket, first| Box::pin(start(socket, first)));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(start);
    }

    /// Starts the continuation, if a handler stored one.
    pub(crate) fn start(&self, socket: Socket, first: &[u8]) -> Option<Continuation> {
        let start = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Copied, because what HTTP has read is a slice that would hold its whole buffer.
        start.map(|start| start(socket, Bytes::copy_from_slice(first)))
    }
}
