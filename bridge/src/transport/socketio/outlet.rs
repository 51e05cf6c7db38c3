//! What a session sends, over Engine.IO.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use engineioxide::{DisconnectReason, Str};
use fanfare_proto::v1::{self, Reason};
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
/// The same for one that floods us meanwhile.
const FAREWELL_TO_ABUSE: Duration = Duration::from_millis(100);

/// How often a full queue is looked at again while a session recovers.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// A session's connection.
pub(super) struct SocketOutlet {
    socket: EngineSocket,
    tasks: TaskTracker,
    /// While the session gets what it has missed.
    held: Option<Arc<Held>>,
}

impl SocketOutlet {
    pub(super) const fn new(socket: EngineSocket, tasks: TaskTracker, held: Option<Arc<Held>>) -> Self {
        Self { socket, tasks, held }
    }
}

/// The live events of a session that recovers: they wait until it has got what it missed from the log, and of those that
/// come late, over a link that is behind the log, none is sent twice.
#[derive(Debug)]
pub(super) struct Held {
    joining: Mutex<Joining>,
    events_max: usize,
    /// There is nothing to look at any more.
    live: AtomicBool,
}

#[derive(Debug)]
enum Joining {
    /// The log is read.
    Waiting(Vec<Arc<Delivery>>),
    /// Everything up to this cursor was read from the log.
    Upto(String),
}

impl Held {
    pub(super) const fn new(events_max: usize) -> Self {
        let joining = Mutex::new(Joining::Waiting(Vec::new()));
        Self { joining, events_max, live: AtomicBool::new(false) }
    }

    /// Takes live events over; false when that is not necessary any more.
    fn take(&self, socket: &EngineSocket, batch: &[Arc<Delivery>]) -> Result<bool, Overflow> {
        if self.live.load(Ordering::Acquire) {
            return Ok(false);
        }
        match &mut *self.joining.lock().unwrap_or_else(PoisonError::into_inner) {
            Joining::Waiting(events) if events.len() + batch.len() > self.events_max => return Err(Overflow),
            Joining::Waiting(events) => events.extend_from_slice(batch),
            Joining::Upto(upto) => self.send(socket, upto, batch)?,
        }
        Ok(true)
    }

    /// The session has got everything up to a cursor.
    pub(super) fn release(&self, socket: &EngineSocket, upto: &str) -> Result<(), Overflow> {
        let mut joining = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *joining, Joining::Upto(upto.to_owned())) {
            Joining::Waiting(events) => self.send(socket, upto, &events),
            Joining::Upto(_) => Ok(()),
        }
    }

    /// Sends what is later than a cursor. The first stored event that is ends the question, because events come in log order.
    fn send(&self, socket: &EngineSocket, upto: &str, events: &[Arc<Delivery>]) -> Result<(), Overflow> {
        for delivery in events.iter().filter(|delivery| delivery.is_after(upto)) {
            socket.emit(delivery.socketio().clone()).map_err(|_| Overflow)?;
            if delivery.cursor().is_some() {
                self.live.store(true, Ordering::Release);
            }
        }
        Ok(())
    }
}

/// Sends a packet as soon as the queue has room; false when the connection has gone.
pub(super) async fn send_when_free(socket: &EngineSocket, packet: Str) -> bool {
    loop {
        match socket.reserve() {
            Ok(permit) => {
                permit.emit(packet);
                return true;
            }
            Err(_) if socket.is_closed() => return false,
            Err(_) => tokio::time::sleep(FULL_PAUSE).await,
        }
    }
}

impl Outlet for SocketOutlet {
    fn deliver(&self, batch: &[Arc<Delivery>]) -> Result<(), Overflow> {
        if let Some(held) = &self.held
            && held.take(&self.socket, batch)?
        {
            return Ok(());
        }
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
        let farewell = if ending.reason == Reason::Abuse { FAREWELL_TO_ABUSE } else { FAREWELL };
        self.tasks.spawn(async move {
            let _left = tokio::time::timeout(farewell, socket.closed()).await;
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
