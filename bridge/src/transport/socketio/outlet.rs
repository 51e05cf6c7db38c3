//! What a session sends, over Engine.IO.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

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

/// What a waiting packet costs besides its text, in bytes.
const PACKET_BYTES: usize = 64;
/// So few waiting packets count as none to those who administer.
const PACKETS_NOT_SEEN: usize = 8;

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

/// A connection's queue, bounded in packets by the library and in bytes here. The library does not say what waits, only
/// whether so many places are free: so packets are counted in two generations, and when the places of all that came before the
/// younger one are free again, the older one has been sent.
pub(super) struct Queue {
    socket: EngineSocket,
    waiting: Mutex<Waiting>,
    packets_max: usize,
    bytes_max: usize,
}

/// What may wait at most: a bound, not a measure.
#[derive(Debug, Default)]
struct Waiting {
    /// Put in since the last look at the queue.
    packets: usize,
    bytes: usize,
    /// What may have waited then.
    older_bytes: usize,
}

impl Queue {
    pub(super) fn new(socket: EngineSocket, config: &Config) -> Self {
        let (packets_max, bytes_max) = (config.queue_packets_max, config.queue_bytes_max);
        Self { socket, waiting: Mutex::default(), packets_max, bytes_max }
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
            if waiting.bytes + cost > self.bytes_max / 2 {
                self.look(&mut waiting);
            }
            if waiting.total() + cost > self.bytes_max {
                self.look(&mut waiting);
            }
            // One that is larger than the whole queue must get through all the same.
            if waiting.total() > 0 && waiting.total() + cost > self.bytes_max {
                return Err(Overflow);
            }
            self.socket.emit(packet).map_err(|_| Overflow)?;
            waiting.packets += 1;
            waiting.bytes += cost;
        }
        Ok(())
    }

    /// Learns whether the older generation has been sent, and begins another one.
    fn look(&self, waiting: &mut Waiting) {
        let wanted = self.packets_max.saturating_sub(waiting.packets);
        let free: Vec<_> = (0..wanted).map_while(|_| self.socket.reserve().ok()).collect();
        let kept = if free.len() == wanted { 0 } else { waiting.older_bytes };
        *waiting = Waiting { older_bytes: kept + waiting.bytes, ..Waiting::default() };
    }

    /// What may wait, at most. It is nothing when nearly all places are free; one is always left for a ping.
    fn waiting_bytes(&self) -> usize {
        let waiting = self.lock();
        let wanted = self.packets_max.saturating_sub(PACKETS_NOT_SEEN);
        let free: Vec<_> = (0..wanted).map_while(|_| self.socket.reserve().ok()).collect();
        if free.len() == wanted { 0 } else { waiting.total() }
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

impl Waiting {
    const fn total(&self) -> usize {
        self.older_bytes + self.bytes
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
                if events.len() + batch.len() > self.events_max || *bytes > self.bytes_max {
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
        for delivery in events.iter().filter(|delivery| delivery.is_after(upto)) {
            queue.put(delivery.socketio().clone())?;
            if delivery.cursor().is_some() {
                self.live.store(true, Ordering::Release);
            }
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
        self.fail(None, &Failure::new(ending.reason, ending.message.as_str()));
        self.queue.send(packet::disconnect());
        let farewell = if ending.reason == Reason::Abuse { FAREWELL_TO_ABUSE } else { FAREWELL };
        self.tasks.spawn(async move {
            let _left = tokio::time::timeout(farewell, socket.closed()).await;
            socket.close(DisconnectReason::ClosingServer);
        });
    }

    fn queued_bytes(&self) -> usize {
        0
    }

    fn look(&self) -> (usize, usize) {
        (self.queue.waiting_bytes(), self.queue.bytes_max)
    }
}

/// Sends a packet to who has no session.
pub(super) fn send(socket: &EngineSocket, packet: Str) {
    if socket.emit(packet).is_err() && !socket.is_closed() {
        socket.close(DisconnectReason::ClosingServer);
    }
}
