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

/// The longest name of a call that is looked at, in bytes; catalogs allow shorter ones only.
const NAME_BYTES_MAX: usize = 256;

/// How a transport writes to a session what is not an event for many. None of it waits.
pub(crate) trait Writer: Send + Sync {
    /// Sends an event for this session alone.
    fn reply(&self, outbox: &Arc<Outbox>, event: v1::Delivery);
    /// Acknowledges a call.
    fn acknowledge(&self, outbox: &Arc<Outbox>, id: i64, answer: &v1::CallOk);
    /// Says that a call failed: as its acknowledgement or, without one, as an error.
    fn fail(&self, outbox: &Arc<Outbox>, id: Option<i64>, refusal: &Refusal);
    /// Ends the session and, where nothing else lives on it, the connection.
    fn end(&self, outbox: &Arc<Outbox>, why: &Refusal);
    /// What carries the connection now, where that can change; else empty.
    fn carrier(&self) -> &'static str {
        ""
    }
}

/// Something that a browser emitted.
#[derive(Debug)]
pub(crate) struct Emission {
    pub(crate) name: String,
    /// The argument as JSON; empty when there was none.
    pub(crate) json: Vec<u8>,
    /// The number under which the acknowledgement is wanted.
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

/// What a session may be sent, and may emit.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// "/", or e.g. "/messenger".
    pub(crate) name: Arc<str>,
    /// The packages of its catalogs; `None`: all.
    pub(crate) catalogs: Option<Vec<String>>,
}

impl Namespace {
    fn admits(&self, catalog: &str) -> bool {
        self.catalogs.as_ref().is_none_or(|catalogs| catalogs.iter().any(|one| one == catalog))
    }
}

/// What a session is made of.
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
    /// It gets what it missed first; live events and calls wait until then.
    pub(crate) replays: bool,
    /// The client's address, where it is known, and what the client says of itself.
    pub(crate) address: Option<IpAddr>,
    pub(crate) user_agent: Arc<str>,
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The bridge ended it.
    Closed(Reason),
    /// Its client ended it.
    Left,
    /// Its connection was lost.
    Lost,
}

/// A session.
pub(crate) struct Session {
    pub(crate) tenant: Tenant,
    /// Who it is, as the server gets it with each call.
    pub(crate) caller: Caller,
    /// The secret by which its client can recover it; empty where it cannot be.
    pub(crate) pid: String,
    /// When its token expires, in Unix seconds (leeway not included).
    pub(crate) expires_at: Option<u64>,
    /// What its token is known by when it is revoked.
    pub(crate) token: TokenStamp,
    pub(crate) limits: SessionLimits,
    pub(crate) outbox: Arc<Outbox>,
    user_agent: Arc<str>,
    namespace: Arc<Namespace>,
    /// `None`: the transport pulls events.
    form: Option<Form>,
    writer: Box<dyn Writer>,
    gate: Mutex<Gate>,
    /// The gate is open for good.
    is_live: AtomicBool,
    /// Its rooms in order, with its place among the members of each; the registry's.
    pub(crate) rooms: Mutex<Vec<(Room, u32)>>,
    calls: Mutex<Calls>,
    expiry: Mutex<Option<Alarm>>,
    _place: Place,
    pub(crate) address: Option<IpAddr>,
    pub(crate) opened_at: Instant,
    /// The number of the reason for which the bridge ended it; 0: it did not.
    closed_for: AtomicI32,
    /// The number of the last change that the server was told of.
    report: AtomicU64,
    /// The last run that it was part of.
    stamp: AtomicU64,
    delivered: AtomicU64,
    emitted: AtomicU64,
    is_closed: AtomicBool,
    has_departed: AtomicBool,
    has_left: AtomicBool,
}

/// Joins what was read from the log with what is live.
#[derive(Debug)]
enum Gate {
    Open,
    /// The log or the state is read; what came meanwhile, its bytes, and what was read before.
    Closed(Vec<Arc<Event>>, usize, Vec<Read>),
    /// Everything up to these places was read.
    After(Vec<Read>),
}

/// What a session has got otherwise than live.
#[derive(Debug)]
struct Read {
    /// Everything up to here.
    upto: String,
    /// Except the events of these rooms, which it was in already.
    live: Vec<Room>,
}

impl Read {
    /// Whether an event is among it.
    fn has(&self, event: &Event) -> bool {
        let is_live = |room: &String| self.live.iter().any(|live| live.as_str() == room);
        !event.is_after(&self.upto) && !event.delivery.rooms.iter().any(is_live)
    }
}

/// Calls run one after the other, in the order they were sent.
#[derive(Debug, Default)]
struct Calls {
    waiting: VecDeque<Emission>,
    running: bool,
}

/// What became of a call that was handed in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EnqueueOutcome {
    /// The caller must run the queue.
    Run,
    /// The queue is being run.
    Wait,
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

    /// Random; known to the client, never the transport's own id.
    pub(crate) fn id(&self) -> &str {
        &self.caller.session_id
    }

    /// Notes that the server was told of the session by the change of this number.
    pub(crate) fn note_report(&self, number: u64) {
        self.report.fetch_max(number, Ordering::AcqRel);
    }

    /// The last change that the server was told of.
    pub(crate) fn last_report(&self) -> u64 {
        self.report.load(Ordering::Acquire)
    }

    /// Marks the session as part of a run; false when it was already. For one shard at a time.
    pub(crate) fn mark(&self, stamp: u64) -> bool {
        let is_new = self.stamp.load(Ordering::Relaxed) != stamp;
        self.stamp.store(stamp, Ordering::Relaxed);
        is_new
    }

    /// Sends a run and writes it to the socket at once.
    pub(crate) fn send(&self, run: &Run) -> Result<usize, Overflow> {
        self.hand_over(run, |form| self.outbox.send(run.bytes(form)))
    }

    /// Queues a run. The second value says that the outbox must be flushed afterwards.
    pub(crate) fn put(&self, run: &Run) -> Result<(usize, bool), Overflow> {
        let mut must_flush = false;
        let events = self.hand_over(run, |form| {
            must_flush = self.outbox.put(run.bytes(form))?;
            Ok(())
        })?;
        Ok((events, must_flush))
    }

    /// Returns the number of events that the session got.
    fn hand_over(
        &self,
        run: &Run,
        write: impl FnOnce(&Form) -> Result<(), Overflow>,
    ) -> Result<usize, Overflow> {
        // A session that was ended may linger until its peer closes: it gets nothing more.
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

    /// Takes live events over while the log is read; false when the gate has opened meanwhile.
    fn hold(&self, events: &[Arc<Event>]) -> Result<bool, Overflow> {
        match &mut *self.gate() {
            Gate::Open => return Ok(false),
            Gate::Closed(held, bytes, _) => {
                *bytes += events.iter().map(|event| event.len() + size_of::<Event>()).sum::<usize>();
                // What is larger than the whole bound must get through all the same.
                if *bytes > self.outbox.bytes_max() && !held.is_empty() {
                    return Err(Overflow);
                }
                held.extend_from_slice(events);
            }
            Gate::After(read) => self.pass(read, events)?,
        }
        Ok(true)
    }

    /// Live events wait from here on, until the gate is opened.
    pub(crate) fn close_gate(&self) {
        let mut gate = self.gate();
        *gate = match std::mem::replace(&mut *gate, Gate::Open) {
            Gate::Open => Gate::Closed(Vec::new(), 0, Vec::new()),
            Gate::After(read) => Gate::Closed(Vec::new(), 0, read),
            closed @ Gate::Closed(..) => closed,
        };
        self.is_live.store(false, Ordering::Release);
    }

    /// Of what waits at the gate, only the events of these rooms stay.
    pub(crate) fn discard_held(&self, live: &[Room]) {
        if let Gate::Closed(held, ..) = &mut *self.gate() {
            let is_live = |room: &String| live.iter().any(|live| live.as_str() == room);
            held.retain(|event| event.delivery.rooms.iter().any(is_live));
        }
    }

    /// The session has everything up to a cursor: opens the gate behind it.
    pub(crate) fn open_gate(&self, upto: &str) -> Result<(), Overflow> {
        self.open_gate_behind(Some(Read { upto: upto.to_owned(), live: Vec::new() }))
    }

    /// The session has everything up to a cursor of the rooms that it was not in: opens the gate behind
    /// it. `live` are the rooms that it was in.
    pub(crate) fn open_gate_of_rooms(&self, upto: &str, live: Vec<Room>) -> Result<(), Overflow> {
        self.open_gate_behind(Some(Read { upto: upto.to_owned(), live }))
    }

    /// Nothing was read: opens the gate as it was.
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

    /// Sends what was not read already. A stored event that is later than what was read ends the
    /// question, because events come in log order.
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
        // Not before: what finds it set must not overtake what is sent here.
        if asks && read.is_empty() {
            self.is_live.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Sends one event, past the gate.
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

    /// Says that a call failed.
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

    /// How it ended, once it has.
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

    /// The client itself ended the session: it does not want it back.
    pub(crate) fn note_left(&self) {
        self.has_left.store(true, Ordering::Release);
    }

    pub(crate) fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Acquire)
    }

    /// Marks the session as gone without telling the peer, who knows; false when it was already.
    pub(crate) fn mark_departed(&self) -> bool {
        self.is_closed.store(true, Ordering::Release);
        *self.expiry.lock().unwrap_or_else(PoisonError::into_inner) = None;
        !self.has_departed.swap(true, Ordering::AcqRel)
    }

    /// The session ends at this alarm.
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

    /// What administrators see of the connection.
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

    /// Hands a call in; it waits for those before it.
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
