//! A session: one browser's connection, with a verified identity and rooms. Knows no protocol.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use fanfare_proto::{
    room::{Room, Tenant},
    token::Identity,
    v1::Caller,
};

use crate::{delivery::Delivery, ending::Ending};

/// The queue towards the peer is full.
#[derive(Debug)]
pub(crate) struct Overflow;

/// What a transport does for a session. None of it waits.
pub(crate) trait Outlet: Send + Sync {
    /// Sends events, in order.
    fn deliver(&self, batch: &[Arc<Delivery>]) -> Result<(), Overflow>;
    /// Ends the connection, saying why as far as the protocol can.
    fn close(&self, ending: &Ending);
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

/// One browser's connection.
pub(crate) struct Session {
    /// Random; known to the client, never the transport's own id.
    pub(crate) id: String,
    pub(crate) tenant: Tenant,
    pub(crate) identity: Identity,
    /// The identity as the server gets it with each call.
    pub(crate) caller: Caller,
    pub(crate) outlet: Box<dyn Outlet>,
    rooms: Mutex<HashSet<Room>>,
    calls: Mutex<Calls>,
    closed: AtomicBool,
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
    /// There were too many; the call is given back.
    Full,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(id: String, tenant: Tenant, identity: Identity, outlet: Box<dyn Outlet>) -> Self {
        let rooms = identity.rooms.as_deref().unwrap_or_default();
        let caller = Caller {
            tenant: tenant.as_str().to_owned(),
            user_id: identity.user_id.clone().unwrap_or_default(),
            user_name: identity.user_name.clone().unwrap_or_default(),
            session_id: id.clone(),
            claims_json: serde_json::to_vec(&identity.claims).unwrap_or_default().into(),
            rooms: rooms.iter().map(|r| r.as_str().to_owned()).collect(),
            rooms_restricted: identity.rooms.is_some(),
        };
        let (rooms, calls) = (Mutex::default(), Mutex::default());
        Self { id, tenant, identity, caller, outlet, rooms, calls, closed: AtomicBool::new(false) }
    }

    /// Ends the session, once; later calls do nothing.
    pub(crate) fn close(&self, ending: &Ending) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            tracing::debug!(session = self.id, reason = ending.reason.as_str_name(), "session closed");
            self.outlet.close(ending);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Marks the session as gone without telling the peer, who knows.
    pub(crate) fn mark_closed(&self) {
        self.closed.store(true, Ordering::Release);
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
    pub(crate) fn queue_call(&self, call: Emitted, waiting_max: usize) -> (Queued, Option<Emitted>) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.waiting.len() >= waiting_max {
            return (Queued::Full, Some(call));
        }
        calls.waiting.push_back(call);
        let queued = if calls.running { Queued::Waits } else { Queued::Run };
        calls.running = true;
        (queued, None)
    }

    /// The next call to run; `None` ends the run.
    pub(crate) fn next_call(&self) -> Option<Emitted> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let next = calls.waiting.pop_front();
        calls.running = next.is_some();
        next
    }
}
