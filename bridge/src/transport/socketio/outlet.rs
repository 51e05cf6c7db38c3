//! What a session sends, over Engine.IO.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use engineioxide::{DisconnectReason, Str};
use fanfare_proto::v1::{self, Reason};
use tokio_util::task::TaskTracker;

use super::{EngineSocket, packet};
use crate::{
    config::Config,
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

/// So many marks stand in a full queue.
const MARKED_SHARE: usize = 8;
/// What a waiting packet costs besides its text, in bytes.
const PACKET_BYTES: usize = 64;

/// A session's connection and what waits for it.
pub(super) struct SocketOutlet {
    queue: Arc<Queue>,
    tasks: TaskTracker,
    /// While the session gets what it has missed.
    held: Option<Arc<Held>>,
}

impl SocketOutlet {
    pub(super) const fn new(queue: Arc<Queue>, tasks: TaskTracker, held: Option<Arc<Held>>) -> Self {
        Self { queue, tasks, held }
    }
}

/// A connection's queue, bounded in packets by the library and in bytes here. The library does not say what waits: so, now and
/// then, a packet's text is this session's own copy, of which a second handle is kept. When that is the only one left, the packet has been taken
/// out, and with it everything before it.
pub(super) struct Queue {
    socket: EngineSocket,
    waiting: Mutex<Waiting>,
    bytes_max: usize,
}

/// What waits, as far as it is known: at most [`MARKED_SHARE`] of the bound less than is said.
#[derive(Debug, Default)]
struct Waiting {
    /// Marked packets, and the bytes from the one before, this one included; oldest first.
    marked: VecDeque<(Bytes, usize)>,
    marked_bytes: usize,
    /// Behind the last mark.
    rest_bytes: usize,
}

impl Waiting {
    const fn total(&self) -> usize {
        self.marked_bytes + self.rest_bytes
    }

    /// Lets go of what has been taken out.
    fn settle(&mut self) {
        while let Some((_, bytes)) = self.marked.front().filter(|(mark, _)| mark.is_unique()) {
            self.marked_bytes -= bytes;
            self.marked.pop_front();
        }
    }

    /// Puts a mark on a packet: gives the text to send.
    fn mark(&mut self, packet: &str) -> Str {
        let own = Str::copy_from_slice(packet);
        let bytes = std::mem::take(&mut self.rest_bytes);
        self.marked_bytes += bytes;
        self.marked.push_back((own.clone().into(), bytes));
        own
    }
}

impl Queue {
    pub(super) fn new(socket: EngineSocket, config: &Config) -> Self {
        Self { socket, waiting: Mutex::default(), bytes_max: config.queue_bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, packet: Str) -> Result<(), Overflow> {
        self.put_all(std::iter::once(packet))
    }

    /// Puts packets in, in order; an overflow leaves those in that fitted.
    fn put_all(&self, packets: impl Iterator<Item = Str>) -> Result<(), Overflow> {
        let mut waiting = self.lock();
        for packet in packets {
            let cost = packet.len() + PACKET_BYTES;
            if waiting.total() + cost > self.bytes_max {
                waiting.settle();
                // One that is larger than the whole queue must get through all the same: behind what is not known to wait.
                if !waiting.marked.is_empty() && waiting.total() + cost > self.bytes_max {
                    return Err(Overflow);
                }
            }
            waiting.rest_bytes += cost;
            let marks = waiting.rest_bytes > self.bytes_max / MARKED_SHARE;
            let packet = if marks { waiting.mark(&packet) } else { packet };
            if self.socket.emit(packet).is_err() {
                // A mark that did not go in is the only handle, and settled next time.
                waiting.rest_bytes = waiting.rest_bytes.saturating_sub(if marks { 0 } else { cost });
                // One that has gone is no slow one.
                if !self.socket.is_closed() {
                    return Err(Overflow);
                }
            }
        }
        Ok(())
    }

    /// What waits; little counts as nothing.
    fn waiting_bytes(&self) -> usize {
        let mut waiting = self.lock();
        waiting.settle();
        waiting.marked_bytes
    }

    /// Puts a packet in; a connection whose queue is full is closed, never skipped.
    pub(super) fn send(&self, packet: Str) {
        if self.put(packet).is_err() && !self.socket.is_closed() {
            self.socket.close(DisconnectReason::ClosingServer);
        }
    }

    /// Puts a packet in as soon as the queue has room; false when the connection has gone.
    pub(super) async fn send_when_free(&self, packet: Str) -> bool {
        while self.put(packet.clone()).is_err() {
            if self.socket.is_closed() {
                return false;
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
        true
    }
}

/// The live events of a session that recovers: they wait until it has got what it missed from the log, and of those that
/// come late, over a link that is behind the log, none is sent twice.
#[derive(Debug)]
pub(super) struct Held {
    joining: Mutex<Joining>,
    events_max: usize,
    bytes_max: usize,
    /// There is nothing to look at any more.
    live: AtomicBool,
}

#[derive(Debug)]
enum Joining {
    /// The log is read; what came meanwhile, and its bytes.
    Waiting(Vec<Arc<Delivery>>, usize),
    /// Everything up to this cursor was read from the log.
    Upto(String),
}

impl Held {
    pub(super) const fn new(config: &Config) -> Self {
        let joining = Mutex::new(Joining::Waiting(Vec::new(), 0));
        let (events_max, bytes_max) = (config.queue_packets_max, config.queue_bytes_max);
        Self { joining, events_max, bytes_max, live: AtomicBool::new(false) }
    }

    /// Takes live events over; false when that is not necessary any more.
    fn take(&self, queue: &Queue, batch: &[Arc<Delivery>]) -> Result<bool, Overflow> {
        if self.live.load(Ordering::Acquire) {
            return Ok(false);
        }
        match &mut *self.joining.lock().unwrap_or_else(PoisonError::into_inner) {
            Joining::Waiting(events, bytes) => {
                *bytes +=
                    batch.iter().map(|delivery| delivery.event.json.len() + PACKET_BYTES).sum::<usize>();
                // What is larger than the whole bound must get through all the same.
                let full = events.len() + batch.len() > self.events_max || *bytes > self.bytes_max;
                if full && !events.is_empty() {
                    return Err(Overflow);
                }
                events.extend_from_slice(batch);
            }
            Joining::Upto(upto) => self.send(queue, upto, batch)?,
        }
        Ok(true)
    }

    /// The session has got everything up to a cursor.
    pub(super) fn release(&self, queue: &Queue, upto: &str) -> Result<(), Overflow> {
        let mut joining = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *joining, Joining::Upto(upto.to_owned())) {
            Joining::Waiting(events, _) => self.send(queue, upto, &events),
            Joining::Upto(_) => Ok(()),
        }
    }

    /// Sends what is later than a cursor. The first stored event that is ends the question, because events come in log order.
    fn send(&self, queue: &Queue, upto: &str, events: &[Arc<Delivery>]) -> Result<(), Overflow> {
        let later = || events.iter().filter(|delivery| delivery.is_after(upto));
        queue.put_all(later().map(|delivery| delivery.socketio().clone()))?;
        // Not before: who finds it set does not wait for those that are sent here.
        if later().any(|delivery| delivery.cursor().is_some()) {
            self.live.store(true, Ordering::Release);
        }
        Ok(())
    }
}

impl Outlet for SocketOutlet {
    fn deliver(&self, batch: &[Arc<Delivery>]) -> Result<(), Overflow> {
        if let Some(held) = &self.held
            && held.take(&self.queue, batch)?
        {
            return Ok(());
        }
        self.queue.put_all(batch.iter().map(|delivery| delivery.socketio().clone()))
    }

    fn reply(&self, event: v1::Delivery) {
        self.queue.send(packet::event(&event));
    }

    fn acknowledge(&self, id: i64, json: &[u8]) {
        self.queue.send(packet::ack(id, json));
    }

    fn fail(&self, ack: Option<i64>, failure: &Failure) {
        self.queue.send(packet::failure(ack, failure));
    }

    fn close(&self, ending: &Ending) {
        let socket = self.queue.socket.clone();
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

    fn queued_bytes(&self) -> (usize, usize) {
        (self.queue.waiting_bytes(), self.queue.bytes_max)
    }
}

/// Sends a packet whatever waits, to who has no session or is told to go; where not even the library has room, the connection is closed.
pub(super) fn send(socket: &EngineSocket, packet: Str) {
    if socket.emit(packet).is_err() && !socket.is_closed() {
        socket.close(DisconnectReason::ClosingServer);
    }
}
