//! What a session sends, over Engine.IO.

use std::{sync::Arc, time::Duration};

use engineioxide::{DisconnectReason, Str};
use tokio_util::task::TaskTracker;

use super::{EngineSocket, packet};
use crate::{
    delivery::Delivery,
    ending::Ending,
    session::{Outlet, Overflow},
};

/// How long a peer that was told to go may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// A session's connection.
pub(super) struct SocketOutlet {
    socket: EngineSocket,
    tasks: TaskTracker,
}

impl SocketOutlet {
    pub(super) const fn new(socket: EngineSocket, tasks: TaskTracker) -> Self {
        Self { socket, tasks }
    }
}

impl Outlet for SocketOutlet {
    fn deliver(&self, batch: &[Arc<Delivery>]) -> Result<(), Overflow> {
        for delivery in batch {
            self.socket.emit(delivery.socketio().clone()).map_err(|_| Overflow)?;
        }
        Ok(())
    }

    fn close(&self, ending: &Ending) {
        let socket = self.socket.clone();
        if ending.reason.is_retry() {
            // Stock clients connect again by themselves when the connection closes …
            socket.close(DisconnectReason::ClosingServer);
            return;
        }
        // … and do not when they are told to go.
        send(&socket, packet::failure(None, ending.reason, &ending.message, ""));
        send(&socket, packet::disconnect());
        self.tasks.spawn(async move {
            let _left = tokio::time::timeout(FAREWELL, socket.closed()).await;
            socket.close(DisconnectReason::ClosingServer);
        });
    }
}

/// Sends a packet; a connection whose queue is full is closed, never skipped.
pub(super) fn send(socket: &EngineSocket, packet: Str) {
    if socket.emit(packet).is_err() && !socket.is_closed() {
        socket.close(DisconnectReason::ClosingServer);
    }
}
