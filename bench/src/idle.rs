//! Memory of a freshly started server per session: that idles over Socket.IO or `/ws`, or idles again after a burst.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use crate::{
    client::Socket,
    phase::{Case, Layout, Length},
    target::Target,
    trial::Stage,
};

/// After a start, and after the last session connected, before memory is read.
const IDLE_SETTLE: Duration = Duration::from_secs(5);
/// After a burst.
const BURST_SETTLE: Duration = Duration::from_secs(60);
/// `/ws` sessions that are being connected at the same time.
const CONNECTS_AT_ONCE: usize = 64;
/// How long one of them may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Allocated for each session by the client: small, for thousands of them.
const READ_BUFFER_BYTES: usize = 1024;

/// Whose memory is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Idle {
    SocketIo,
    /// Fanfare only.
    WebSocket,
    /// Socket.IO sessions, [`BURST_SETTLE`] after a burst to all.
    AfterBurst,
}

impl Idle {
    pub(crate) const ALL: [Self; 3] = [Self::SocketIo, Self::WebSocket, Self::AfterBurst];

    /// As in the report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SocketIo => "idle KiB/session",
            Self::WebSocket => "idle /ws KiB/session",
            Self::AfterBurst => "60 s after burst KiB/session",
        }
    }
}

/// Resident KiB that each session costs a freshly started server.
pub(crate) async fn kib(target: Target, idle: Idle, sessions: usize, burst: u32) -> anyhow::Result<f64> {
    tokio::time::sleep(IDLE_SETTLE).await;
    let before = target.resident_kib()?;
    let (after, ended) = match idle {
        Idle::SocketIo | Idle::AfterBurst => {
            let layout = Layout { sessions, chats: 0, cases: Vec::new() };
            let mut stage = Stage::connect(target, &layout).await?;
            tokio::time::sleep(IDLE_SETTLE).await;
            if idle == Idle::AfterBurst {
                let pace = Case::Burst.pace(Length { seconds: 0, burst, bursts: 1 });
                let outcome = stage.measure(Case::Burst, pace).await?;
                ensure!(outcome.lost == 0, "{} deliveries of the burst were lost", outcome.lost);
                tokio::time::sleep(BURST_SETTLE).await;
            }
            (stage.resident_kib()?, stage.stop().await?)
        }
        Idle::WebSocket => {
            let tasks = connect_plain(&target, sessions).await?;
            tokio::time::sleep(IDLE_SETTLE).await;
            let after = target.resident_kib()?;
            let ended = sessions.saturating_sub(open(tasks));
            target.stop().await?;
            (after, u64::try_from(ended)?)
        }
    };
    ensure!(ended == 0, "{ended} idle sessions ended");
    Ok(after.saturating_sub(before) as f64 / sessions as f64)
}

/// Connects sessions of `/ws`, each with a task that reads, which answers pings.
async fn connect_plain(target: &Target, sessions: usize) -> anyhow::Result<JoinSet<()>> {
    let tokens = (0..sessions).map(|session| target.token(session)).collect::<Result<Vec<_>, _>>()?;
    let address = target.address();
    let connecting = stream::iter(tokens)
        .map(async |token| timeout(CONNECT_TIMEOUT, plain(address, &token)).await?)
        .buffer_unordered(CONNECTS_AT_ONCE);
    let mut connecting = std::pin::pin!(connecting);
    let mut tasks = JoinSet::new();
    while let Some(mut socket) = connecting.try_next().await? {
        tasks.spawn(async move { while let Some(Ok(_)) = socket.next().await {} });
    }
    Ok(tasks)
}

/// Opens a session of `/ws`. It is there when a call of it is answered.
async fn plain(address: SocketAddr, token: &str) -> anyhow::Result<Socket> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let url = format!("ws://{address}/ws?token={token}");
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
    let (mut socket, _) = client_async_with_config(url, stream, Some(config)).await?;
    socket.send(Message::text(r#"{"type":"ping","ref":1}"#)).await?;
    while let Some(frame) = socket.next().await {
        match frame? {
            Message::Text(text) if text.contains("\"error\"") => bail!("refused: {text}"),
            Message::Text(text) if text.contains("\"ref\":1") => return Ok(socket),
            _ => {}
        }
    }
    bail!("the server closed before the session was open")
}

/// How many of the sessions are still open.
fn open(mut tasks: JoinSet<()>) -> usize {
    while tasks.try_join_next().is_some() {}
    tasks.len()
}
