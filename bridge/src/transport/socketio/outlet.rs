//! What a session sends, over Engine.IO.

use std::{sync::Arc, time::Duration};

use engineioxide::{DisconnectReason, Str};
use fanfare_proto::v1;
use tokio_util::task::TaskTracker;

use super::{EngineSocket, packet};
use crate::{
    delivery::Delivery,
    ending::Ending,
    failure::Failure,
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

    fn reply(&self, event: v1::Delivery) {
        send(&self.socket, packet::event(&event));
    }

    fn acknowledge(&self, id: i64, json: &[u8]) {
        send(&self.socket, packet::ack(id, json));
    }

    fn fail(&self, ack: Option<i64>, failure: &Failure) {
        send(&self.socket, packet::failure(ack, failure));
    }

    fn close(&self, ending: &Ending) {
        let socket = self.socket.clone();
        if ending.reason.is_retry() {
            // Stock clients connect again by themselves when the connection closes …
            socket.close(DisconnectReason::ClosingServer);
            return;
        }
        // … and do not when they are told to go.
        send(&socket, packet::failure(None, &Failure::new(ending.reason, ending.message.as_str())));
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
