//! How a connection leaves HTTP: its handler answers 101 and leaves behind what goes on with the
//! socket, in the same task, once HTTP has let go of it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use crate::socket::Socket;

/// What goes on with a socket.
pub(crate) type Continuation = Pin<Box<dyn Future<Output = ()> + Send>>;
type Start = Box<dyn FnOnce(Socket, Bytes) -> Continuation + Send>;

/// Where a handler leaves what goes on with the socket. Each connection has one, in the extensions
/// of its requests.
#[derive(Clone, Default)]
pub(crate) struct UpgradeSlot(Arc<Mutex<Option<Start>>>);

impl fmt::Debug for UpgradeSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradeSlot").finish_non_exhaustive()
    }
}

impl UpgradeSlot {
    /// Leaves what goes on with the socket, and with bytes that the peer has sent already.
    pub(crate) fn put<F>(&self, start: impl FnOnce(Socket, Bytes) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let start: Start = Box::new(move |socket, first| Box::pin(start(socket, first)));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(start);
    }

    /// Goes on with the socket, if a handler wanted to.
    pub(crate) fn start(&self, socket: Socket, first: &[u8]) -> Option<Continuation> {
        let start = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A copy: what HTTP has read is a slice that would keep its whole buffer.
        start.map(|start| start(socket, Bytes::copy_from_slice(first)))
    }
}
