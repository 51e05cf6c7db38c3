//! The plain socketioxide server of the benchmark: every session is in the room `org`, and in the chats that it
//! joins. Each line on standard input makes it emit a run of events. Answers are lines on standard output.
//!
//! Knows nothing of who measures it. The control lines are those of `bench/peers/node/server.js`.

#![allow(clippy::print_stdout, reason = "standard output carries the answers to the harness")]

use std::{borrow::Cow, io::BufRead as _, thread, time::Duration};

use axum::serve::ListenerExt as _;
use chrono::{SecondsFormat, Utc};
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use socketioxide::{
    SocketIo,
    extract::{AckSender, Data, SocketRef},
};
use tokio::{net::TcpListener, sync::mpsc, time::Instant};

const ROOM: &str = "org";
const EVENT: &str = "message:new";
const CONTENT_BYTES: usize = 120;

#[derive(Debug, Parser)]
struct Args {
    /// Packets that may wait for a session; socketioxide drops what is beyond.
    #[arg(long, default_value_t = 1024)]
    max_buffer_size: usize,
}

/// A line of standard input: emit `count` events, the first with number `first`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    count: u64,
    first: u64,
    /// Between two events; 0: all at once.
    interval_micros: u64,
    /// How many chats take turns; 0: all go to the room of all.
    chats: u64,
}

impl Run {
    fn room(&self, number: u64) -> Cow<'static, str> {
        match self.chats {
            0 => ROOM.into(),
            chats => format!("chat:{}", 1 + number % chats).into(),
        }
    }
}

/// What a session says of the chat that it joins.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Chat {
    chat_id: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NewMessage {
    id: u64,
    chat_id: u64,
    content: String,
    from_me: bool,
    timestamp: String,
    channel: &'static str,
    sender_user_id: u64,
    sender_name: &'static str,
}

impl NewMessage {
    /// The content begins with the number and the time of the event (CLOCK_MONOTONIC, nanoseconds).
    fn new(number: u64) -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let nanos = now.tv_sec * 1_000_000_000 + now.tv_nsec;
        Self {
            id: number,
            chat_id: 1,
            content: format!("{:x<CONTENT_BYTES$}", format!("{number:010} {nanos:020} ")),
            from_me: false,
            timestamp: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            channel: "whatsapp",
            sender_user_id: 7,
            sender_name: "Ada",
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (layer, io) = SocketIo::builder().max_buffer_size(args.max_buffer_size).build_layer();
    io.ns("/", async |socket: SocketRef| {
        socket.join(ROOM);
        socket.on("subscribe:chat", subscribe);
    });

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", serde_json::json!({ "listening": listener.local_addr()?.port() }));
    let listener = listener.tap_io(|stream| {
        if let Err(e) = stream.set_nodelay(true) {
            eprintln!("TCP_NODELAY was refused: {e}");
        }
    });
    let app = axum::Router::new().layer(layer);

    tokio::select! {
        served = axum::serve(listener, app) => Ok(served?),
        ended = control(&io) => ended,
    }
}

/// A session joins a chat.
async fn subscribe(socket: SocketRef, Data(chat): Data<Chat>, acknowledge: AckSender) {
    socket.join(format!("chat:{}", chat.chat_id));
    if let Err(e) = acknowledge.send(&chat) {
        eprintln!("a join could not be acknowledged: {e}");
    }
}

/// Runs what standard input asks for, until it ends.
async fn control(io: &SocketIo) -> anyhow::Result<()> {
    let (runs, mut next) = mpsc::channel(1);
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if runs.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = next.recv().await {
        let run: Run = serde_json::from_str(&line)?;
        if run.interval_micros == 0 {
            // All are in hand before the first is emitted: the burst's latency counts from there.
            let events: Vec<_> = (run.first..run.first + run.count).map(NewMessage::new).collect();
            for event in &events {
                emit(io, run.room(event.id), event).await;
            }
        } else {
            let start = Instant::now();
            for index in 0..run.count {
                tokio::time::sleep_until(start + Duration::from_micros(run.interval_micros * index)).await;
                let number = run.first + index;
                emit(io, run.room(number), &NewMessage::new(number)).await;
            }
        }
        println!("{}", serde_json::json!({ "emitted": run.count }));
    }
    Ok(())
}

/// What a full session loses is reported here and counted by the harness.
async fn emit(io: &SocketIo, room: Cow<'static, str>, event: &NewMessage) {
    if let Err(e) = io.to(room).emit(EVENT, event).await {
        eprintln!("an event did not reach every session: {e}");
    }
}
