//! The load: Socket.IO sessions over WebSocket that answer pings, join a chat where they are to, and count and time
//! the events they get.
//!
//! Knows the wire (Engine.IO 4, Socket.IO 5) and nothing of the servers behind it.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use tokio::{net::TcpStream, task::JoinSet, time::Instant};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use crate::{
    audience::{Audience, Share},
    event::{Stamp, now_nanos},
};

/// Sessions that are being connected at the same time.
const CONNECTS_AT_ONCE: usize = 64;
/// A join that is not acknowledged for so long is sent again.
const JOIN_RETRY: Duration = Duration::from_secs(1);
/// How long one session may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Allocated for each session: small, for thousands of them.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// How often it is looked whether all events have come.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Without any event for so long, what is missing is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection whose session is open.
pub(crate) type Socket = WebSocketStream<TcpStream>;

/// What one session has got of the run of events under way.
#[derive(Debug, Default)]
struct Seen {
    /// Those that it is to get.
    share: Share,
    /// The number of the event that should come next.
    next: u32,
    events: u64,
    /// Events that were not the next one.
    misplaced: u64,
    latencies_micros: Vec<u32>,
    frame_bytes: usize,
}

/// What all sessions together got of a run of events.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) events: u64,
    pub(crate) lost: u64,
    /// Out of order or repeated.
    pub(crate) misplaced: u64,
    pub(crate) latencies_micros: Vec<u32>,
    /// The length of the last event's frame.
    pub(crate) frame_bytes: usize,
}

/// How a session comes in.
#[derive(Debug, Clone)]
pub(crate) struct Entrance {
    /// The payload of its CONNECT packet.
    pub(crate) auth: String,
    /// The chat that it joins.
    pub(crate) chat: Option<u32>,
}

#[derive(Debug)]
struct Session {
    /// Which of the entrances was its own.
    index: u32,
    /// Its Socket.IO id.
    id: String,
    seen: Arc<Mutex<Seen>>,
}

/// Sessions of one server.
#[derive(Debug)]
pub(crate) struct Load {
    sessions: Vec<Session>,
    events: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Load {
    /// Connects one session for each entrance.
    pub(crate) async fn connect(address: SocketAddr, entrances: Vec<Entrance>) -> anyhow::Result<Self> {
        let (events, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut sessions = Vec::with_capacity(entrances.len());
        let mut tasks = JoinSet::new();
        let connecting = futures_util::stream::iter((0..).zip(entrances))
            .map(async |(index, entrance): (u32, Entrance)| {
                let connected = tokio::time::timeout(CONNECT_TIMEOUT, enter(address, &entrance)).await;
                let connected = connected
                    .with_context(|| format!("a session had not connected after {CONNECT_TIMEOUT:?}"))??;
                Ok::<_, anyhow::Error>((index, connected))
            })
            .buffer_unordered(CONNECTS_AT_ONCE);
        let mut connecting = pin!(connecting);
        // Each answers pings as soon as it is connected.
        while let Some((index, (socket, id))) = connecting.try_next().await? {
            let seen = Arc::new(Mutex::new(Seen::default()));
            sessions.push(Session { index, id, seen: Arc::clone(&seen) });
            let (events, ended) = (Arc::clone(&events), Arc::clone(&ended));
            tasks.spawn(async move {
                if let Err(e) = receive(socket, &seen, &events).await
                    && ended.fetch_add(1, Ordering::Relaxed) == 0
                {
                    eprintln!("the first session ended: {e:#}");
                }
            });
        }
        sessions.sort_by_key(|session| session.index);
        Ok(Self { sessions, events, ended, _tasks: tasks })
    }

    /// The Socket.IO ids of the sessions, in the order of their entrances.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.sessions.iter().map(|session| session.id.clone()).collect()
    }

    /// Sessions that ended though nobody asked them to.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Prepares for a run of `count` events, the first with number `first`; gives how many deliveries are due.
    pub(crate) fn begin(&self, first: u32, count: u32, audience: &Audience) -> u64 {
        self.events.store(0, Ordering::Relaxed);
        let mut due = 0;
        for session in &self.sessions {
            let share = audience.share(session.index);
            let own = share.count(first, count);
            due += u64::from(own);
            let latencies_micros = Vec::with_capacity(own as usize);
            let next = share.next(first);
            *lock(&session.seen) = Seen { share, next, latencies_micros, ..Seen::default() };
        }
        due
    }

    /// Waits until the sessions have the `due` deliveries, or none came for [`PATIENCE`].
    pub(crate) async fn finish(&self, due: u64) -> Received {
        let (mut events, mut progress) = (0, Instant::now());
        while events < due && progress.elapsed() < PATIENCE {
            tokio::time::sleep(POLL_INTERVAL).await;
            let now = self.events.load(Ordering::Relaxed);
            if now != events {
                (events, progress) = (now, Instant::now());
            }
        }
        let mut received = Received::default();
        for session in &self.sessions {
            let seen = std::mem::take(&mut *lock(&session.seen));
            received.events += seen.events;
            received.misplaced += seen.misplaced;
            received.latencies_micros.extend(seen.latencies_micros);
            received.frame_bytes = received.frame_bytes.max(seen.frame_bytes);
        }
        // What came twice or to the wrong session is misplaced.
        received.lost = due.saturating_sub(received.events.saturating_sub(received.misplaced));
        received
    }
}

/// Never poisoned in practice: nothing below the lock panics.
fn lock(session: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the transport and the session: Engine.IO's open packet, then Socket.IO's CONNECT and its answer, which it gives too.
pub(crate) async fn connect(address: SocketAddr, auth: &str) -> anyhow::Result<(Socket, String)> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
    let (mut socket, _) = client_async_with_config(url, stream, Some(config)).await?;
    loop {
        let frame = socket.next().await.context("the server closed before the session was open")??;
        let Message::Text(text) = frame else { continue };
        match text.as_bytes() {
            [b'0', ..] => socket.send(Message::text(format!("40{auth}"))).await?,
            [b'4', b'0', ..] => return Ok((socket, text[2..].to_owned())),
            [b'2'] => socket.send(Message::text("3")).await?,
            [b'4', b'2', ..] => {}
            _ => bail!("refused: {text}"),
        }
    }
}

/// Opens a session and lets it join its chat; gives its Socket.IO id too.
async fn enter(address: SocketAddr, entrance: &Entrance) -> anyhow::Result<(Socket, String)> {
    let (mut socket, answer) = connect(address, &entrance.auth).await?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    let id = answer["sid"].as_str().with_context(|| format!("no sid in {answer}"))?.to_owned();
    if let Some(chat) = entrance.chat {
        join(&mut socket, chat).await.with_context(|| format!("a session could not join chat {chat}"))?;
    }
    Ok((socket, id))
}

/// Joins a chat and waits until that is acknowledged. Some servers drop what comes before they have got ready for the
/// new session: then it is asked for again.
async fn join(socket: &mut Socket, chat: u32) -> anyhow::Result<()> {
    loop {
        socket.send(Message::text(format!("420[\"subscribe:chat\",{{\"chatId\":{chat}}}]"))).await?;
        match tokio::time::timeout(JOIN_RETRY, acknowledgement(socket)).await {
            Ok(answered) => return answered,
            Err(_elapsed) => {}
        }
    }
}

/// Waits for the acknowledgement of a join.
async fn acknowledgement(socket: &mut Socket) -> anyhow::Result<()> {
    loop {
        let frame = socket.next().await.context("the server closed the connection")??;
        let Message::Text(text) = frame else { continue };
        match text.as_bytes() {
            [b'2'] => socket.send(Message::text("3")).await?,
            [b'4', b'3', b'0', b'[', ..] if !text.contains("\"error\"") => return Ok(()),
            [b'4', b'3' | b'4', ..] => bail!("refused: {text}"),
            _ => {}
        }
    }
}

/// Answers pings and records events until the connection ends.
async fn receive(mut socket: Socket, seen: &Mutex<Seen>, events: &AtomicU64) -> anyhow::Result<()> {
    while let Some(frame) = socket.next().await {
        let Message::Text(text) = frame? else { continue };
        if text.as_str() == "2" {
            socket.send(Message::text("3")).await?;
        } else if let Some(stamp) = Stamp::read(&text) {
            record(&mut lock(seen), stamp, text.len());
            events.fetch_add(1, Ordering::Relaxed);
        }
    }
    bail!("the server closed the connection")
}

fn record(seen: &mut Seen, stamp: Stamp, frame_bytes: usize) {
    let micros = now_nanos().saturating_sub(stamp.nanos) / 1000;
    seen.misplaced += u64::from(stamp.number != seen.next);
    seen.next = seen.share.next(stamp.number + 1);
    seen.events += 1;
    seen.frame_bytes = frame_bytes;
    seen.latencies_micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_and_repeats_are_misplaced() {
        let mut seen = Seen { next: 5, ..Seen::default() };
        for number in [5, 6, 8, 8, 9] {
            record(&mut seen, Stamp { number, nanos: now_nanos() }, 300);
        }
        assert_eq!((seen.events, seen.misplaced), (5, 2));
    }

    #[test]
    fn events_of_another_room_are_misplaced() {
        let mut seen = Seen { share: Share::Only { of: 10, at: 3 }, next: 3, ..Seen::default() };
        for number in [3, 13, 14, 23, 33] {
            record(&mut seen, Stamp { number, nanos: now_nanos() }, 300);
        }
        assert_eq!((seen.events, seen.misplaced), (5, 1));
    }
}
