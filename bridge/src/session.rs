//! A session: one browser in one tenant, with a verified identity and rooms. Knows no protocol.

use std::{
    collections::VecDeque,
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fanfare_proto::{
    revocation::TokenStamp,
    room::{Room, Tenant},
    v1::{self, Caller, Connection, Reason},
};
use prost_types::Timestamp;

use crate::{
    clock::{Alarm, Timed},
    event::{Event, Form, Run},
    limits::{Place, SessionLimits},
    outbox::{Outbox, Overflow},
    refusal::Refusal,
};

/// The longest call name that is processed, in bytes; catalogs allow shorter ones only.
const NAME_BYTES_MAX: usize = 256;

/// How a transport writes everything to a session except fan-out events. No method waits.
pub(crate) trait Writer: Send + Sync {
    /// Sends an event for this session alone.
    fn reply(&self, outbox: &Arc<Outbox>, event: v1::Delivery);
    /// Acknowledges a call.
    fn acknowledge(&self, outbox: &Arc<Outbox>, id: i64, answer: &v1::CallOk);
    /// Reports that a call failed: in its acknowledgement or, without one, as an error.
    fn fail(&self, outbox: &Arc<Outbox>, id: Option<i64>, refusal: &Refusal);
    /// Ends the session, and the connection too if no other session uses it.
    fn end(&self, outbox: &Arc<Outbox>, why: &Refusal);
    /// What currently carries the connection, if that can change; else empty.
    fn carrier(&self) -> &'static str {
        ""
    }
}

/// A call that a browser emitted.
#[derive(Debug)]
pub(crate) struct Emission {
    pub(crate) name: String,
    /// The argument as JSON; empty if there was none.
    pub(crate) json: Vec<u8>,
    /// The number that the acknowledgement must carry; `None`: none is wanted.
    pub(crate) ack: Option<i64>,
}

impl Emission {
    /// Checks the name: 1 to 256 bytes without control characters.
    pub(crate) fn new(name: String, json: Vec<u8>, ack: Option<i64>) -> Result<Self, Refusal> {
        if (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control) {
            return Ok(Self { name, json, ack });
        }
        let message =
            format!("the event's name must be 1 to {NAME_BYTES_MAX} bytes without control characters");
        Err(Refusal::new(Reason::InvalidArgument, message))
    }
}

/// What a session may be sent, and what it may emit.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// "/", or e.g. "/messenger".
    pub(crate) name: Arc<str>,
    /// The packages of its catalogs; `None`: all packages.
    pub(crate) catalogs: Option<Vec<String>>,
}

impl Namespace {
    fn admits(&self, catalog: &str) -> bool {
        self.catalogs.as_ref().is_none_or(|catalogs| catalogs.iter().any(|one| one == catalog))
    }
}

/// The parts from which a session is created.
pub(crate) struct SessionParts {
    pub(crate) tenant: Tenant,
    pub(crate) caller: Caller,
    pub(crate) pid: String,
    pub(crate) expires_at: Option<u64>,
    pub(crate) token: TokenStamp,
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) form: Option<Form>,
    pub(crate) writer: Box<dyn Writer>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) limits: SessionLimits,
    pub(crate) place: Place,
    /// The session first gets missed events; live events and calls wait until then.
    pub(crate) replays: bool,
    /// The client's address, if known, and the user agent that it reports.
    pub(crate) address: Option<IpAddr>,
    pub(crate) user_agent: Arc<str>,
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The bridge ended the session.
    Closed(Reason),
    /// Its client ended the session.
    Left,
    /// Its connection was lost.
    Lost,
}

/// A session.
pub(crate) struct Session {
    pub(crate) tenant: Tenant,
    /// The caller, as sent to the server with each call.
    pub(crate) caller: Caller,
    /// The secret with which its client can recover the session; empty if it cannot be recovered.
    pub(crate) pid: String,
    /// When its token expires, in Unix seconds (leeway not included).
    pub(crate) expires_at: Option<u64>,
    /// Identifies its token when tokens are revoked.
    pub(crate) token: TokenStamp,
    pub(crate) limits: SessionLimits,
    pub(crate) outbox: Arc<Outbox>,
    user_agent: Arc<str>,
    namespace: Arc<Namespace>,
    /// `None`: the transport pulls events.
    form: Option<Form>,
    writer: Box<dyn Writer>,
    gate: Mutex<Gate>,
    /// Whether the gate is open permanently.
    is_live: AtomicBool,
    /// Its rooms in order, each with the session's index in the member list; used by the registry.
    pub(crate) rooms: Mutex<Vec<(Room, u32)>>,
    calls: Mutex<Calls>,
    expiry: Mutex<Option<Alarm>>,
    _place: Place,
    pub(crate) address: Option<IpAddr>,
    pub(crate) opened_at: Instant,
    /// The number of the reason for which the bridge ended the session; 0: it did not.
    closed_for: AtomicI32,
    /// The number of the last change that was reported to the server.
    report: AtomicU64,
    /// The last run that included the session.
    stamp: AtomicU64,
    delivered: AtomicU64,
    emitted: AtomicU64,
    is_closed: AtomicBool,
    has_departed: AtomicBool,
    has_left: AtomicBool,
}

/// Joins events that were read from the log with live ones.
#[derive(Debug)]
enum Gate {
    Open,
    /// The log or the state is being read. Holds the live events since then, their size in bytes,
    /// and what was read before.
    Closed(Vec<Arc<Event>>, usize, Vec<Read>),
    /// Everything up to these positions was read.
    After(Vec<Read>),
}

/// Events that a session got by reading, not live.
#[derive(Debug)]
struct Read {
    /// Everything up to this cursor.
    upto: String,
    /// Except events of these rooms, in which the session already was.
    live: Vec<Room>,
}

impl Read {
    /// Whether an event is included.
    fn has(&self, event: &Event) -> bool {
        let is_live = |room: &String| self.live.iter().any(|live| live.as_str() == room);
        !event.is_after(&self.upto) && !event.delivery.rooms.iter().any(is_live)
    }
}

/// Calls run one after another, in the order they were sent.
#[derive(Debug, Default)]
struct Calls {
    waiting: VecDeque<Emission>,
    running: bool,
}

/// The result of enqueuing a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EnqueueOutcome {
    /// The caller must run the queue.
    Run,
    /// The queue is already being run.
    Wait,
    /// There were too many calls; this one is not run.
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
    pub(crate) fn new(parts: SessionParts) -> Self {
        let gate = if parts.replays { Gate::Closed(Vec::new(), 0, Vec::new()) } else { Gate::Open };
        Self {
            tenant: parts.tenant,
            caller: parts.caller,
            pid: parts.pid,
            expires_at: parts.expires_at,
            token: parts.token,
            limits: parts.limits,
            outbox: parts.outbox,
            user_agent: parts.user_agent,
            namespace: parts.namespace,
            form: parts.form,
            writer: parts.writer,
            gate: Mutex::new(gate),
            is_live: AtomicBool::new(!parts.replays),
            rooms: Mutex::default(),
            calls: Mutex::new(Calls { waiting: VecDeque::new(), running: parts.replays }),
            expiry: Mutex::default(),
            _place: parts.place,
            address: parts.address,
            opened_at: Instant::now(),
            closed_for: AtomicI32::new(0),
            report: AtomicU64::new(0),
            stamp: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            emitted: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            has_departed: AtomicBool::new(false),
            has_left: AtomicBool::new(false),
        }
    }

    /// Random; known to the client, and never the transport's own id.
    pub(crate) fn id(&self) -> &str {
        &self.caller.session_id
    }

    /// Records that the change with this number reported the session to the server.
    pub(crate) fn note_report(&self, number: u64) {
        self.report.fetch_max(number, Ordering::AcqRel);
    }

    /// The number of the last change that was reported to the server.
    pub(crate) fn last_report(&self) -> u64 {
        self.report.load(Ordering::Acquire)
    }

    /// Marks the session as included in a run; false if it already was. For one shard at a time.
    pub(crate) fn mark(&self, stamp: u64) -> bool {
        let is_new = self.stamp.load(Ordering::Relaxed) != stamp;
        self.stamp.store(stamp, Ordering::Relaxed);
        is_new
    }

    /// Sends a run and writes it to the socket immediately.
    pub(crate) fn send(&self, run: &Run) -> Result<usize, Overflow> {
        self.hand_over(run, |form| self.outbox.send(run.bytes(form)))
    }

    /// Queues a run. If the second value is true, the outbox must be flushed afterwards.
    pub(crate) fn put(&self, run: &Run) -> Result<(usize, bool), Overflow> {
        let mut must_flush = false;
        let events = self.hand_over(run, |form| {
            must_flush = self.outbox.put(run.bytes(form))?;
            Ok(())
        })?;
        Ok((events, must_flush))
    }

    /// Returns the number of events that the session received.
    fn hand_over(
        &self,
        run: &Run,
        write: impl FnOnce(&Form) -> Result<(), Overflow>,
    ) -> Result<usize, Overflow> {
        // A session that was ended may linger until its peer closes; it gets no more events.
        if self.is_closed() || !self.namespace.admits(&run.address().catalog) {
            return Ok(0);
        }
        if !self.is_live.load(Ordering::Acquire) && self.hold(&run.events)? {
            return Ok(run.events.len());
        }
        match &self.form {
            Some(form) => write(form)?,
            None => self.outbox.put_events(run)?,
        }
        self.delivered.fetch_add(run.events.len() as u64, Ordering::Relaxed);
        Ok(run.events.len())
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds live events while the log is read; false if the gate has opened in the meantime.
    fn hold(&self, events: &[Arc<Event>]) -> Result<bool, Overflow> {
        match &mut *self.gate() {
            Gate::Open => return Ok(false),
            Gate::Closed(held, bytes, _) => {
                *bytes += events.iter().map(|event| event.len() + size_of::<Event>()).sum::<usize>();
                // A batch that is larger than the whole limit must still be accepted.
                if *bytes > self.outbox.bytes_max() && !held.is_empty() {
                    return Err(Overflow);
                }
                held.extend_from_slice(events);
            }
            Gate::After(read) => self.pass(read, events)?,
        }
        Ok(true)
    }

    /// From now on live events wait until the gate is opened.
    pub(crate) fn close_gate(&self) {
        let mut gate = self.gate();
        *gate = match std::mem::replace(&mut *gate, Gate::Open) {
            Gate::Open => Gate::Closed(Vec::new(), 0, Vec::new()),
            Gate::After(read) => Gate::Closed(Vec::new(), 0, read),
            closed @ Gate::Closed(..) => closed,
        };
        self.is_live.store(false, Ordering::Release);
    }

    /// Discards held events, except those of these rooms.
    pub(crate) fn discard_held(&self, live: &[Room]) {
        if let Gate::Closed(held, ..) = &mut *self.gate() {
            let is_live = |room: &String| live.iter().any(|live| live.as_str() == room);
            held.retain(|event| event.delivery.rooms.iter().any(is_live));
        }
    }

    /// The session has everything up to a cursor: opens the gate after it.
    pub(crate) fn open_gate(&self, upto: &str) -> Result<(), Overflow> {
        self.open_gate_behind(Some(Read { upto: upto.to_owned(), live: Vec::new() }))
    }

    /// The session has everything up to a cursor for the rooms that are new to it: opens the gate
    /// after it. `live` are the rooms in which it already was.
    pub(crate) fn open_gate_of_rooms(&self, upto: &str, live: Vec<Room>) -> Result<(), Overflow> {
        self.open_gate_behind(Some(Read { upto: upto.to_owned(), live }))
    }

    /// Nothing was read: reopens the gate without a position.
    pub(crate) fn reopen_gate(&self) -> Result<(), Overflow> {
        self.open_gate_behind(None)
    }

    fn open_gate_behind(&self, read: Option<Read>) -> Result<(), Overflow> {
        let mut gate = self.gate();
        let (held, mut all) = match std::mem::replace(&mut *gate, Gate::Open) {
            Gate::Closed(held, _, before) => (held, before),
            other => {
                *gate = other;
                return Ok(());
            }
        };
        all.extend(read);
        let passed = self.pass(&mut all, &held);
        if all.is_empty() {
            self.is_live.store(true, Ordering::Release);
        } else {
            *gate = Gate::After(all);
        }
        passed
    }

    /// Sends the events that were not read already. Events come in log order, so a stored event
    /// beyond a read position means that no later event can have been read.
    fn pass(&self, read: &mut Vec<Read>, events: &[Arc<Event>]) -> Result<(), Overflow> {
        let asks = !read.is_empty();
        for event in events {
            if !read.iter().any(|read| read.has(event)) {
                self.send_event(event)?;
            }
            if event.cursor().is_some() {
                read.retain(|read| !event.is_after(&read.upto));
            }
        }
        // Set only now: a thread that sees it set must not overtake the events sent above.
        if asks && read.is_empty() {
            self.is_live.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Sends one event, bypassing the gate.
    pub(crate) fn send_event(&self, event: &Arc<Event>) -> Result<(), Overflow> {
        if self.is_closed() || !self.namespace.admits(&event.delivery.catalog) {
            return Ok(());
        }
        self.delivered.fetch_add(1, Ordering::Relaxed);
        match &self.form {
            Some(form) => self.outbox.send(event.bytes(form)),
            None => self.outbox.put_event(event),
        }
    }

    /// Sends an event for this session alone.
    pub(crate) fn reply(&self, event: v1::Delivery) {
        self.writer.reply(&self.outbox, event);
    }

    /// Acknowledges a call.
    pub(crate) fn acknowledge(&self, id: i64, answer: &v1::CallOk) {
        self.writer.acknowledge(&self.outbox, id, answer);
    }

    /// Reports that a call failed.
    pub(crate) fn fail(&self, id: Option<i64>, refusal: &Refusal) {
        if !self.is_closed() {
            self.writer.fail(&self.outbox, id, refusal);
        }
    }

    /// Ends the session, once; later calls do nothing.
    pub(crate) fn close(&self, why: &Refusal) {
        if !self.is_closed.swap(true, Ordering::AcqRel) {
            self.closed_for.store(why.reason.into(), Ordering::Release);
            self.writer.end(&self.outbox, why);
        }
    }

    /// How the session ended, once it has.
    pub(crate) fn ending(&self) -> Ending {
        match Reason::try_from(self.closed_for.load(Ordering::Acquire)) {
            Ok(reason) if reason != Reason::Unspecified => Ending::Closed(reason),
            _ if self.has_left() => Ending::Left,
            _ => Ending::Lost,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Records that the client itself ended the session and will not recover it.
    pub(crate) fn note_left(&self) {
        self.has_left.store(true, Ordering::Release);
    }

    pub(crate) fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Acquire)
    }

    /// Marks the session as departed without notifying the peer, which knows; false if it already
    /// was.
    pub(crate) fn mark_departed(&self) -> bool {
        self.is_closed.store(true, Ordering::Release);
        *self.expiry.lock().unwrap_or_else(PoisonError::into_inner) = None;
        !self.has_departed.swap(true, Ordering::AcqRel)
    }

    /// The session ends when this alarm fires.
    pub(crate) fn set_expiry(&self, alarm: Alarm) {
        let mut expiry = self.expiry.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_departed.load(Ordering::Acquire) {
            *expiry = Some(alarm);
        }
    }

    pub(crate) fn rooms(&self) -> Vec<Room> {
        let rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.iter().map(|(room, _)| room.clone()).collect()
    }

    /// The connection as administrators see it.
    pub(crate) fn connection(&self) -> Connection {
        let seconds = self.expires_at.and_then(|end| i64::try_from(end).ok());
        Connection {
            queued_bytes: self.outbox.queued_bytes() as u64,
            queue_bytes_max: self.outbox.bytes_max() as u64,
            events_delivered: self.delivered.load(Ordering::Relaxed),
            calls: self.emitted.load(Ordering::Relaxed),
            expires_at: seconds.map(|seconds| Timestamp { seconds, nanos: 0 }),
            address: self.address.map(|address| address.to_canonical().to_string()).unwrap_or_default(),
            user_agent: self.user_agent.to_string(),
            carrier: self.writer.carrier().to_owned(),
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enqueues a call; it waits for the calls before it.
    pub(crate) fn enqueue_call(&self, call: Emission, waiting_max: usize) -> EnqueueOutcome {
        let mut calls = self.calls();
        if calls.waiting.len() >= waiting_max {
            return EnqueueOutcome::Full;
        }
        calls.waiting.push_back(call);
        self.emitted.fetch_add(1, Ordering::Relaxed);
        if std::mem::replace(&mut calls.running, true) { EnqueueOutcome::Wait } else { EnqueueOutcome::Run }
    }

    /// The next call to run; `None` ends the run.
    pub(crate) fn next_call(&self) -> Option<Emission> {
        let mut calls = self.calls();
        let next = calls.waiting.pop_front();
        calls.running = next.is_some();
        if next.is_none() {
            calls.waiting = VecDeque::new();
        }
        next
    }
}

impl Timed for Session {
    fn fire(self: Arc<Self>) -> Option<Duration> {
        self.close(&Refusal::new(Reason::TokenExpired, "Authentication failed: Token expired"));
        None
    }
}

#[cfg(test)]
mod tests;
