//! One connection: its packets, its heartbeat, and whether polling or a WebSocket carries it.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use fanfare_proto::v1::Reason;
use tokio::time::Instant;

use super::{Application, Engine};
use crate::{
    clock::{Alarm, Timed},
    limits::Place,
    outbox::Outbox,
    refusal::Refusal,
    sessions::calls::Pause,
    socket::Socket,
    transport::websocket::frame,
};

/// What a client sent.
#[derive(Debug)]
pub(crate) enum Incoming {
    Text(String),
    Binary(Vec<u8>),
}

/// The packet is malformed.
#[derive(Debug)]
pub(super) struct Malformed;

/// Where a connection comes from.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) token: Option<String>,
    pub(super) address: Option<IpAddr>,
    pub(super) user_agent: Arc<str>,
    pub(super) place: Place,
    /// When the client arrived; its time to connect starts here.
    pub(super) begin: Instant,
}

/// One client's connection.
pub(crate) struct Connection<A: Application> {
    pub(crate) engine: Arc<Engine<A>>,
    /// Authorises polling; never shown to other clients.
    pub(super) sid: String,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) client: A::Client,
    /// From the handshake's query or header.
    pub(crate) token: Option<String>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) user_agent: Arc<str>,
    state: Mutex<State>,
}

/// What carries the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Polling,
    /// Still polling, while a WebSocket is probed.
    Probing,
    WebSocket,
    Closed,
}

#[derive(Debug)]
struct State {
    carrier: Carrier,
    /// Whether a GET is waiting for packets, and whether a POST is in progress.
    is_polled: bool,
    is_posted: bool,
    must_release: bool,
    /// The final packet for a waiting GET, instead of an error.
    last_packet: Option<&'static str>,
    next_ping: Instant,
    pong_due: Option<Instant>,
    /// The deadline for a session; `None`: there is one.
    connect_due: Option<Instant>,
    /// The place among handshakes, held until there is a session.
    place: Option<Place>,
    alarm: Option<Alarm>,
    /// Whether events are sent compressed.
    compression: bool,
}

impl<A: Application> std::fmt::Debug for Connection<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl<A: Application> Connection<A> {
    pub(super) fn open(
        engine: &Arc<Engine<A>>,
        sid: String,
        outbox: Arc<Outbox>,
        origin: Origin,
    ) -> Arc<Self> {
        let config = &engine.sessions.config;
        let now = Instant::now();
        let state = State {
            carrier: Carrier::Polling,
            is_polled: false,
            is_posted: false,
            must_release: false,
            last_packet: None,
            next_ping: now + config.ping_interval,
            pong_due: None,
            connect_due: Some(origin.begin + config.connect_timeout),
            place: Some(origin.place),
            alarm: None,
            compression: false,
        };
        let connection = Arc::new(Self {
            engine: engine.clone(),
            sid,
            outbox,
            client: A::Client::default(),
            token: origin.token,
            address: origin.address,
            user_agent: origin.user_agent,
            state: Mutex::new(state),
        });
        connection.set_alarm(&mut connection.state());
        connection
    }

    /// What currently carries the connection; empty if nothing does.
    pub(crate) fn carrier_name(&self) -> &'static str {
        match self.state().carrier {
            Carrier::Polling | Carrier::Probing => "polling",
            Carrier::WebSocket => "websocket",
            Carrier::Closed => "",
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a session: the connect timeout no longer applies.
    pub(crate) fn note_connected(&self) {
        let mut state = self.state();
        state.connect_due = None;
        state.place = None;
        if state.carrier == Carrier::WebSocket {
            drop(state);
            self.engine.forget(&self.sid);
        }
    }

    /// Whether there is a session.
    pub(super) fn is_connected(&self) -> bool {
        self.state().connect_due.is_none()
    }

    /// There is no session any more: another one must open in time.
    pub(crate) fn note_disconnected(self: &Arc<Self>) {
        let timeout = self.engine.sessions.config.connect_timeout;
        let mut state = self.state();
        if state.carrier == Carrier::Closed {
            return;
        }
        state.connect_due = Some(Instant::now() + timeout);
        self.set_alarm(&mut state);
    }

    /// Sets the alarm to the next deadline.
    fn set_alarm(self: &Arc<Self>, state: &mut State) {
        let weak: Weak<Self> = Arc::downgrade(self);
        state.alarm = Some(self.engine.sessions.clock.set(state.until_due(), weak));
    }

    /// Whether events are sent compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        self.state().compression
    }

    pub(super) fn note_compression(&self, compression: bool) {
        self.state().compression = compression;
    }

    /// Handles a packet.
    pub(super) fn receive(self: &Arc<Self>, packet: &str) -> Result<Pause, Malformed> {
        match packet.as_bytes().first() {
            Some(b'4') => Ok(self.engine.application.receive(self, Incoming::Text(packet[1..].to_owned()))),
            Some(b'3') => {
                let mut state = self.state();
                if state.pong_due.take().is_some() {
                    state.next_ping = Instant::now() + self.engine.sessions.config.ping_interval;
                }
                Ok(None)
            }
            Some(b'1') => {
                self.end(Some("6"));
                Ok(None)
            }
            Some(b'6') => Ok(None),
            _ => Err(Malformed),
        }
    }

    /// Handles a binary message.
    pub(super) fn receive_binary(self: &Arc<Self>, bytes: Vec<u8>) -> Pause {
        self.engine.application.receive(self, Incoming::Binary(bytes))
    }

    /// Ends the connection without a farewell: clients reconnect.
    pub(crate) fn cut(self: &Arc<Self>, why: Refusal) {
        self.outbox.end(why, None);
        self.close();
    }

    /// Ends the connection after a farewell: clients do not reconnect.
    pub(crate) fn dismiss(self: &Arc<Self>, why: Refusal, farewell: bytes::Bytes) {
        self.outbox.end(why, Some(farewell));
        // A polling client fetches the farewell with its next request, within a time limit.
        let mut state = self.state();
        if matches!(state.carrier, Carrier::Polling | Carrier::Probing) {
            state.connect_due = Some(Instant::now() + FAREWELL);
            self.set_alarm(&mut state);
        }
    }

    /// Ends the connection; a waiting GET is answered with this packet.
    pub(super) fn end(self: &Arc<Self>, last_packet: Option<&'static str>) {
        self.state().last_packet = last_packet;
        self.cut(Refusal::gone());
    }

    /// Removes the connection, once.
    pub(super) fn close(self: &Arc<Self>) {
        let alarm = {
            let mut state = self.state();
            if state.carrier == Carrier::Closed {
                return;
            }
            state.carrier = Carrier::Closed;
            state.place = None;
            state.alarm.take()
        };
        drop(alarm);
        self.engine.forget(&self.sid);
        self.engine.application.close(self);
    }

    pub(super) fn last_packet(&self) -> Option<&'static str> {
        self.state().last_packet
    }

    pub(super) fn carrier(&self) -> Carrier {
        self.state().carrier
    }

    /// A GET begins to wait; false if another is waiting.
    pub(super) fn begin_get(&self) -> bool {
        !std::mem::replace(&mut self.state().is_polled, true)
    }

    pub(super) fn end_get(&self) {
        self.state().is_polled = false;
    }

    /// A POST begins; false if another is in progress.
    pub(super) fn begin_post(&self) -> bool {
        !std::mem::replace(&mut self.state().is_posted, true)
    }

    pub(super) fn end_post(&self) {
        self.state().is_posted = false;
    }

    /// The waiting GET, or the next one, is answered with a noop.
    pub(super) fn release_get(&self) {
        self.state().must_release = true;
        self.outbox.wake();
    }

    /// Whether this GET must be answered with a noop.
    pub(super) fn take_release(&self) -> bool {
        std::mem::take(&mut self.state().must_release)
    }

    /// Begins to probe a WebSocket; false if that is not possible.
    pub(super) fn begin_probe(&self) -> bool {
        let mut state = self.state();
        let can = state.carrier == Carrier::Polling;
        if can {
            state.carrier = Carrier::Probing;
        }
        can
    }

    /// The probed WebSocket is not used.
    pub(super) fn abandon_probe(&self) {
        let mut state = self.state();
        if state.carrier == Carrier::Probing {
            state.carrier = Carrier::Polling;
        }
    }

    /// From now on the WebSocket carries the connection; false if it has ended in the meantime.
    pub(super) fn carry_by(self: &Arc<Self>, socket: Arc<Socket>) -> bool {
        {
            let mut state = self.state();
            if state.carrier == Carrier::Closed {
                return false;
            }
            state.carrier = Carrier::WebSocket;
        }
        if self.is_connected() {
            self.engine.forget(&self.sid);
        }
        // A waiting GET is answered with a noop.
        self.outbox.wake();
        self.outbox.attach(socket);
        true
    }
}

/// How long a polling client may take to fetch the farewell.
const FAREWELL: Duration = Duration::from_secs(3);

impl State {
    /// When the next action is due.
    fn due(&self) -> Instant {
        let times = [Some(self.next_ping), self.pong_due, self.connect_due];
        times.into_iter().flatten().min().unwrap_or(self.next_ping)
    }

    fn until_due(&self) -> Duration {
        self.due().saturating_duration_since(Instant::now())
    }
}

impl<A: Application> Timed for Connection<A> {
    /// Pings the client, and ends the connection if the client does not answer or does not connect.
    fn fire(self: Arc<Self>) -> Option<Duration> {
        let config = &self.engine.sessions.config;
        let mut state = self.state();
        let now = Instant::now();
        // The clock fires slightly early.
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now + Duration::from_millis(15));
        if is_due(state.pong_due) || is_due(state.connect_due) {
            drop(state);
            self.cut(Refusal::new(Reason::Timeout, "the client did not answer in time"));
            return None;
        }
        let mut must_ping = false;
        if is_due(Some(state.next_ping)) {
            state.next_ping = now + config.ping_interval;
            must_ping = state.pong_due.is_none();
            if must_ping {
                state.pong_due = Some(now + config.ping_timeout);
            }
        }
        let after = state.until_due();
        drop(state);
        if must_ping {
            self.outbox.send_beyond_limit(frame::text(b"2"));
        }
        Some(after)
    }
}
