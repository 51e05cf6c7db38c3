//! A session: one browser's connection, with a verified identity and rooms. Knows no protocol.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use fanfare_proto::{
    room::{Room, Tenant},
    v1::{self, Caller, Connection, Reason},
};
use prost_types::Timestamp;

use crate::{delivery::Delivery, ending::Ending, failure::Failure, limits::SessionLimits};

/// The queue towards the peer is full.
#[derive(Debug)]
pub(crate) struct Overflow;

/// What a transport does for a session. None of it waits.
pub(crate) trait Outlet: Send + Sync {
    /// Sends events, in order.
    fn deliver(&self, batch: &[Arc<Delivery>]) -> Result<(), Overflow>;
    /// Sends an event for this session alone.
    fn reply(&self, event: v1::Delivery);
    /// Answers a call.
    fn acknowledge(&self, id: i64, json: &[u8]);
    /// Says that a call failed, as its answer or, where none is wanted, as an error.
    fn fail(&self, ack: Option<i64>, failure: &Failure);
    /// Ends the connection, saying why as far as the protocol can.
    fn close(&self, ending: &Ending);
    /// Bytes that wait for the peer, and their bound; little may count as nothing.
    fn queued_bytes(&self) -> (usize, usize);
}

/// What a browser emitted.
#[derive(Debug)]
pub(crate) struct Emitted {
    pub(crate) name: String,
    /// The first argument; empty when there was none.
    pub(crate) json: Vec<u8>,
    /// The number under which the acknowledgement is wanted.
    pub(crate) ack: Option<i64>,
}

/// The longest name that is looked at, in bytes; catalogs allow shorter ones only.
const NAME_BYTES_MAX: usize = 256;

impl Emitted {
    /// Checks the name: 1 to 256 bytes without control characters.
    pub(crate) fn new(name: String, json: Vec<u8>, ack: Option<i64>) -> Result<Self, Failure> {
        if (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control) {
            return Ok(Self { name, json, ack });
        }
        let message =
            format!("the event's name must be 1 to {NAME_BYTES_MAX} bytes without control characters");
        Err(Failure::new(Reason::InvalidArgument, message))
    }
}

/// One browser's connection.
pub(crate) struct Session {
    pub(crate) tenant: Tenant,
    /// Who it is, as the server gets it with each call.
    pub(crate) caller: Caller,
    /// When its token ends, in Unix seconds (leeway not included).
    pub(crate) expires_at: Option<u64>,
    /// The secret by which its client can recover it; empty where it cannot be.
    pub(crate) pid: String,
    pub(crate) limits: SessionLimits,
    pub(crate) outlet: Box<dyn Outlet>,
    /// The number of the last change that the server was told of.
    pub(crate) report: AtomicU64,
    rooms: Mutex<HashSet<Room>>,
    calls: Mutex<Calls>,
    delivered: AtomicU64,
    emitted: AtomicU64,
    closed: AtomicBool,
    departed: AtomicBool,
}

/// Calls run one after the other, in the order they were sent.
#[derive(Debug, Default)]
struct Calls {
    waiting: VecDeque<Emitted>,
    running: bool,
}

/// What became of a call that was handed in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Queued {
    /// The caller must run the queue.
    Run,
    /// Somebody runs the queue already.
    Waits,
    /// There were too many; the call is not run.
    Full,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id())
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(
        caller: Caller,
        tenant: Tenant,
        pid: String,
        expires_at: Option<u64>,
        limits: SessionLimits,
        outlet: Box<dyn Outlet>,
    ) -> Self {
        Self {
            tenant,
            caller,
            pid,
            expires_at,
            limits,
            outlet,
            report: AtomicU64::new(0),
            rooms: Mutex::default(),
            calls: Mutex::default(),
            delivered: AtomicU64::new(0),
            emitted: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            departed: AtomicBool::new(false),
        }
    }

    /// Random; known to the client, never the transport's own id.
    pub(crate) fn id(&self) -> &str {
        &self.caller.session_id
    }

    /// The server was told of the session, by the change of this number.
    pub(crate) fn reported(&self, number: u64) {
        self.report.fetch_max(number, Ordering::AcqRel);
    }

    /// The session was handed so many events.
    pub(crate) fn note_delivered(&self, events: usize) {
        self.delivered.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// What those who administer see of the connection.
    pub(crate) fn connection(&self) -> Connection {
        let (queued, max) = self.outlet.queued_bytes();
        let seconds = self.expires_at.and_then(|end| i64::try_from(end).ok());
        Connection {
            queued_bytes: queued as u64,
            queue_bytes_max: max as u64,
            events_delivered: self.delivered.load(Ordering::Relaxed),
            calls: self.emitted.load(Ordering::Relaxed),
            expires_at: seconds.map(|seconds| Timestamp { seconds, nanos: 0 }),
        }
    }

    /// Ends the session, once; later calls do nothing.
    pub(crate) fn close(&self, ending: &Ending) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            tracing::debug!(session = self.id(), reason = ending.reason.as_str_name(), "session closed");
            self.outlet.close(ending);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Marks the session as gone without telling the peer, who knows; false when it was already.
    pub(crate) fn mark_departed(&self) -> bool {
        self.closed.store(true, Ordering::Release);
        !self.departed.swap(true, Ordering::AcqRel)
    }

    /// Calls wait from now on, until somebody runs the queue.
    pub(crate) fn hold_calls(&self) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).running = true;
    }

    /// Remembers rooms and gives those that are new. Only `rooms` (the registry) calls it, under its lock.
    pub(crate) fn note_entered(&self, rooms: &[Room]) -> Vec<Room> {
        let mut own = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.iter().filter(|room| own.insert((*room).clone())).cloned().collect()
    }

    /// Forgets rooms and gives those it was in. Only `rooms` (the registry) calls it, under its lock.
    pub(crate) fn note_left(&self, rooms: &[Room]) -> Vec<Room> {
        let mut own = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.iter().filter(|room| own.remove(*room)).cloned().collect()
    }

    pub(crate) fn rooms(&self) -> Vec<Room> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Hands a call in; it waits for those before it.
    pub(crate) fn queue_call(&self, call: Emitted, waiting_max: usize) -> Queued {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.waiting.len() >= waiting_max {
            return Queued::Full;
        }
        calls.waiting.push_back(call);
        self.emitted.fetch_add(1, Ordering::Relaxed);
        if std::mem::replace(&mut calls.running, true) { Queued::Waits } else { Queued::Run }
    }

    /// The next call to run; `None` ends the run.
    pub(crate) fn next_call(&self) -> Option<Emitted> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let next = calls.waiting.pop_front();
        calls.running = next.is_some();
        next
    }
}
