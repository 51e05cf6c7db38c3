//! The send queue of a connection: bytes are written directly to the socket while it accepts data
//! and queued otherwise, up to a limit in bytes.
//!
//! Knows no protocol: it gets whole frames, or events for transports that pull them.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::sync::Notify;

use crate::{
    clock::{Alarm, Clock, Timed},
    event::{Event, Run},
    refusal::Refusal,
    socket::Socket,
};

/// What a queued entry costs in addition to its bytes.
const ENTRY_BYTES: usize = 64;
/// A queue with capacity for more entries is released once it is empty.
const ENTRIES_KEPT: usize = 4;
/// Maximum number of entries in one write.
const SLICES_MAX: usize = 64;

/// The queue is full.
#[derive(Debug)]
pub(crate) struct Overflow;

/// The limits of an outbox; one value is shared by all.
#[derive(Debug)]
pub(crate) struct OutboxLimits {
    /// Bytes that may be queued. An entry that is larger than the limit is accepted if the queue is
    /// empty.
    pub(crate) bytes_max: usize,
    /// How long a byte may wait for the socket.
    pub(crate) write_timeout: Duration,
    pub(crate) clock: Clock,
}

/// An entry that waits to be sent.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// Whole frames, or their remaining bytes.
    Bytes(Bytes),
    /// For transports that encode events themselves.
    Event(Arc<Event>),
}

/// A connection's queue and, if it has one, the socket that it is written to.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Notifies the one task that serves the connection: there is something to pull, a socket is
    /// full, or the outbox has ended.
    changed: Notify,
    /// Notifies a replay that there is room again.
    drained: Notify,
    limits: Arc<OutboxLimits>,
}

#[derive(Debug, Default)]
struct State {
    socket: Option<Arc<Socket>>,
    queue: VecDeque<Entry>,
    queued_bytes: usize,
    /// Bytes that have left the queue since the start.
    left_bytes: u64,
    ending: Option<Box<Refusal>>,
    has_farewell: bool,
    /// The socket is broken, or the peer does not read.
    is_broken: bool,
    /// Watches a full socket; with the value that `left_bytes` must reach before the alarm.
    stall: Option<Box<(Alarm, u64)>>,
}

impl Entry {
    fn cost(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Bytes(bytes) => bytes.len(),
                Self::Event(event) => event.len(),
            }
    }
}

impl Outbox {
    /// An outbox whose entries are pulled until a socket is attached.
    pub(crate) fn new(limits: &Arc<OutboxLimits>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Notify::new(),
            drained: Notify::new(),
            limits: limits.clone(),
        })
    }

    /// Held briefly; at most a non-blocking write happens under it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on everything is written to this socket, starting with the queue.
    pub(crate) fn attach(self: &Arc<Self>, socket: Arc<Socket>) {
        let mut state = self.lock();
        state.socket = Some(socket);
        self.write(&mut state);
    }

    /// Sends frames; they must fit within the limit.
    pub(crate) fn send(self: &Arc<Self>, bytes: &Bytes) -> Result<(), Overflow> {
        let mut state = self.lock();
        if !state.queue.is_empty() || state.socket.is_none() || state.ending.is_some() {
            return self.enqueue(&mut state, Entry::Bytes(bytes.clone()));
        }
        let written = state.try_write(bytes);
        if written == bytes.len() || state.is_broken {
            if state.is_broken {
                self.changed.notify_one();
            }
            return Ok(());
        }
        let pushed = self.push(&mut state, Entry::Bytes(bytes.slice(written..)));
        self.watch(&mut state);
        pushed
    }

    /// Queues frames without writing them. If it returns true, a [`Self::flush`] must follow.
    pub(crate) fn put(&self, bytes: &Bytes) -> Result<bool, Overflow> {
        let mut state = self.lock();
        let was_empty = state.queue.is_empty();
        self.push(&mut state, Entry::Bytes(bytes.clone()))?;
        Ok(was_empty)
    }

    /// Queues the events of a run for a transport that pulls them.
    pub(crate) fn put_events(&self, run: &Run) -> Result<(), Overflow> {
        run.events.iter().try_for_each(|event| self.put_event(event))
    }

    /// Queues an event for a transport that pulls it.
    pub(crate) fn put_event(&self, event: &Arc<Event>) -> Result<(), Overflow> {
        self.enqueue(&mut self.lock(), Entry::Event(event.clone()))
    }

    /// Sends frames regardless of the limit: the reason why a session ends, or a pong.
    pub(crate) fn send_beyond_limit(self: &Arc<Self>, bytes: Bytes) {
        let mut state = self.lock();
        if state.ending.is_none() {
            state.append(Entry::Bytes(bytes));
            self.write(&mut state);
        }
    }

    /// Sends frames, or ends the connection if they do not fit.
    pub(crate) fn send_or_end(self: &Arc<Self>, bytes: &Bytes) {
        if self.send(bytes).is_err() {
            self.end(Refusal::slow(), None);
        }
    }

    /// Writes queued entries, as far as the socket accepts them.
    pub(crate) fn flush(self: &Arc<Self>) {
        self.write(&mut self.lock());
    }

    /// Ends the connection, once; the farewell is the last entry that is sent.
    pub(crate) fn end(self: &Arc<Self>, why: Refusal, farewell: Option<Bytes>) {
        {
            let mut state = self.lock();
            if state.ending.is_some() {
                return;
            }
            if let Some(bytes) = farewell {
                state.has_farewell = true;
                state.append(Entry::Bytes(bytes));
            }
            state.ending = Some(Box::new(why));
            self.write(&mut state);
        }
        self.changed.notify_one();
        self.drained.notify_waiters();
    }

    /// Gives up on the peer: nothing more is written.
    pub(crate) fn abandon(&self) {
        self.lock().give_up();
        self.changed.notify_one();
        self.drained.notify_waiters();
    }

    fn enqueue(&self, state: &mut State, entry: Entry) -> Result<(), Overflow> {
        self.push(state, entry)?;
        if state.socket.is_none() {
            self.changed.notify_one();
        }
        Ok(())
    }

    fn push(&self, state: &mut State, entry: Entry) -> Result<(), Overflow> {
        if state.ending.is_some() || state.is_broken {
            // Nothing is sent after the end.
            return Ok(());
        }
        // An entry that is larger than the whole queue must still be sent.
        if state.queued_bytes + entry.cost() > self.limits.bytes_max && !state.queue.is_empty() {
            return Err(Overflow);
        }
        state.append(entry);
        Ok(())
    }

    fn write(self: &Arc<Self>, state: &mut State) {
        let was_broken = state.is_broken;
        state.write_queue();
        if state.socket.is_none() || state.is_broken != was_broken {
            self.changed.notify_one();
        }
        if state.queued_bytes <= self.limits.bytes_max / 2 {
            self.drained.notify_waiters();
        }
        self.watch(state);
    }

    /// Wakes the connection's task to wait for the socket, and monitors that the socket makes
    /// progress.
    fn watch(self: &Arc<Self>, state: &mut State) {
        if state.is_stalled() && state.stall.is_none() {
            let goal = state.left_bytes + state.queued_bytes as u64;
            let weak: std::sync::Weak<Self> = Arc::downgrade(self);
            let alarm = self.limits.clock.set(self.limits.write_timeout, weak);
            state.stall = Some(Box::new((alarm, goal)));
            self.changed.notify_one();
        }
    }

    /// Whether entries wait for the socket.
    pub(crate) fn is_stalled(&self) -> bool {
        self.lock().is_stalled()
    }

    /// Wakes the task that serves the connection.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Resolves when there may be something to pull, to flush or to end. For one task at a time.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Resolves when at most half of the limit is queued, or the outbox has ended.
    pub(crate) async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            {
                let state = self.lock();
                let has_room = state.queued_bytes <= self.limits.bytes_max / 2;
                if has_room || state.ending.is_some() || state.is_broken {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Takes all queued entries, for a transport that pulls; `None` if there are none.
    pub(crate) fn pull(&self) -> Option<VecDeque<Entry>> {
        let mut state = self.lock();
        if state.queue.is_empty() {
            return None;
        }
        state.left_bytes += state.queued_bytes as u64;
        state.queued_bytes = 0;
        self.drained.notify_waiters();
        Some(std::mem::take(&mut state.queue))
    }

    /// Returns entries that were pulled but not sent to the front of the queue.
    pub(crate) fn put_back(&self, entries: VecDeque<Entry>) {
        let mut state = self.lock();
        for entry in entries.into_iter().rev() {
            state.queued_bytes += entry.cost();
            state.queue.push_front(entry);
        }
    }

    /// Waits for entries; when none are left, returns the reason once the outbox has ended.
    /// Cancel-safe.
    pub(crate) async fn next(&self) -> Result<VecDeque<Entry>, Refusal> {
        loop {
            if let Some(entries) = self.pull() {
                return Ok(entries);
            }
            if let Some(why) = self.ending() {
                return Err(why);
            }
            self.changed().await;
        }
    }

    /// Why the connection ends, once it does.
    pub(crate) fn ending(&self) -> Option<Refusal> {
        self.lock().ending.as_deref().cloned()
    }

    /// Whether the peer receives a farewell, and may close first.
    pub(crate) fn has_farewell(&self) -> bool {
        self.lock().has_farewell
    }

    /// Whether nothing more will be written: the outbox has ended and everything is sent, or cannot
    /// be.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.lock();
        state.is_broken || (state.ending.is_some() && state.queue.is_empty())
    }

    /// Whether the peer can no longer be reached.
    pub(crate) fn is_broken(&self) -> bool {
        self.lock().is_broken
    }

    /// Number of queued bytes.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().queued_bytes
    }

    /// The limit of [`Self::queued_bytes`].
    pub(crate) fn bytes_max(&self) -> usize {
        self.limits.bytes_max
    }
}

impl State {
    fn append(&mut self, entry: Entry) {
        self.queued_bytes += entry.cost();
        self.queue.push_back(entry);
    }

    fn is_stalled(&self) -> bool {
        self.socket.is_some() && !self.queue.is_empty() && !self.is_broken
    }

    /// Writes until the socket refuses; returns the number of bytes that it accepted.
    fn try_write(&mut self, bytes: &[u8]) -> usize {
        let Some(socket) = &self.socket else { return 0 };
        let mut written = 0;
        while written < bytes.len() {
            match socket.try_write(&bytes[written..]) {
                Ok(count) if count > 0 => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => {
                    self.is_broken = true;
                    break;
                }
            }
        }
        written
    }

    fn write_queue(&mut self) {
        let Some(socket) = self.socket.clone() else { return };
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, entry) in slices.iter_mut().zip(&self.queue) {
                let Entry::Bytes(bytes) = entry else { break };
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            match socket.try_write_vectored(&slices[..count]) {
                Ok(written) if written > 0 => self.consume(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => return self.give_up(),
            }
        }
        self.stall = None;
        if self.queue.capacity() > ENTRIES_KEPT {
            self.queue = VecDeque::new();
        }
    }

    /// Removes the bytes that the socket accepted from the queue.
    fn consume(&mut self, mut written: usize) {
        while let Some(Entry::Bytes(front)) = self.queue.front_mut() {
            let taken = written.min(front.len());
            front.advance(taken);
            written -= taken;
            let rest = front.len();
            let cost = if rest == 0 { taken + ENTRY_BYTES } else { taken };
            self.left_bytes += cost as u64;
            self.queued_bytes -= cost;
            if rest > 0 {
                return;
            }
            self.queue.pop_front();
        }
    }

    /// The peer can no longer be reached.
    fn give_up(&mut self) {
        self.is_broken = true;
        self.queue = VecDeque::new();
        self.queued_bytes = 0;
    }
}

impl Timed for Outbox {
    /// Everything that was queued when the watch began must have left by now: a peer that accepts a
    /// few bytes now and then must not hold its connection.
    fn fire(self: Arc<Self>) -> Option<Duration> {
        let mut state = self.lock();
        let (alarm, goal) = *state.stall.take()?;
        if state.left_bytes >= goal {
            let goal = state.left_bytes + state.queued_bytes as u64;
            state.stall = Some(Box::new((alarm, goal)));
            return Some(self.limits.write_timeout);
        }
        state.give_up();
        drop(state);
        drop(alarm);
        tracing::debug!("a peer took nothing within the write timeout");
        self.changed.notify_one();
        self.drained.notify_waiters();
        None
    }
}

#[cfg(test)]
pub(crate) mod tests;
