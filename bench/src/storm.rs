//! A recovery storm: all sessions are cut off at once, miss some events, and come back at once, each with its secret.
//! How long until every one has everything it missed?

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    binaries::Binaries,
    client::{Socket, connect},
    event::Stamp,
    measure,
    target::{Kind, Run, Target},
};

/// Sessions that are connected at the same time, before the storm.
const CONNECTS_AT_ONCE: usize = 64;
/// How long the server may take to notice that they are gone, and the storm to be over.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause of a client whose connection was refused before it tries again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// When a session was back, and when it had everything.
struct Back {
    connected: Duration,
    complete: Duration,
    tries: u32,
}

/// Measures one storm after the other and prints the table.
#[allow(clippy::print_stdout, reason = "the report is what the program is for")]
pub(crate) async fn run(
    binaries: &Binaries,
    rounds: u32,
    sessions: usize,
    missed: u32,
) -> anyhow::Result<()> {
    println!(
        "{sessions} sessions are cut off at once, miss {missed} events each, and come back at once; on {}\n",
        measure::machine()
    );
    println!(
        "| round | all back after ms | complete p50 ms | all complete after ms | tries | CPU ms: server, bridge |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for round in 1..=rounds {
        let mut target = Target::start(Kind::Fanfare, binaries, missed).await?;
        let (mut backs, cpu) = storm(&mut target, sessions, missed).await?;
        target.stop().await?;
        let tries: u32 = backs.iter().map(|back| back.tries).sum();
        let last = backs.iter().map(|back| back.connected).max().unwrap_or_default();
        backs.sort_by_key(|back| back.complete);
        let (middle, all) = (backs[backs.len() / 2].complete, backs[backs.len() - 1].complete);
        println!(
            "| {round} | {} | {} | {} | {tries} | {} |",
            last.as_millis(),
            middle.as_millis(),
            all.as_millis(),
            cpu.iter().map(|time| time.as_millis().to_string()).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(())
}

async fn storm(
    target: &mut Target,
    sessions: usize,
    missed: u32,
) -> anyhow::Result<(Vec<Back>, Vec<Duration>)> {
    let address = target.address();
    let auths = (0..sessions).map(|session| target.auth(session)).collect::<Result<Vec<_>, _>>()?;
    let connecting = stream::iter(auths)
        .map(async |auth| {
            let (socket, answer) = connect(address, &auth).await?;
            let answer: Value = serde_json::from_str(&answer)?;
            let pid = answer["pid"].as_str().context("no pid in the answer to CONNECT")?;
            let mut auth: Value = serde_json::from_str(&auth)?;
            auth["pid"] = json!(pid);
            Ok::<_, anyhow::Error>((socket, auth.to_string()))
        })
        .buffer_unordered(CONNECTS_AT_ONCE);
    let connected: Vec<(Socket, String)> = connecting.try_collect().await?;
    // Cut off: no close frame, as when the network goes.
    let auths: Vec<String> = connected.into_iter().map(|(_, auth)| auth).collect();
    target.publish(Run::burst(0, missed)).await?;
    let before = target.cpu()?;
    let began = Instant::now();
    let mut coming = JoinSet::new();
    for auth in auths {
        coming.spawn(async move { timeout(PATIENCE, come_back(address, &auth, missed, began)).await? });
    }
    let (mut backs, mut sockets) = (Vec::with_capacity(sessions), Vec::with_capacity(sessions));
    while let Some(back) = coming.join_next().await {
        let (back, socket) = back??;
        backs.push(back);
        sockets.push(socket);
    }
    let after = target.cpu()?;
    let cpu =
        before.iter().zip(after).map(|((_, before), (_, after))| after.saturating_sub(*before)).collect();
    Ok((backs, cpu))
}

/// Comes back and reads what was missed: each event once and in order.
async fn come_back(
    address: SocketAddr,
    auth: &str,
    missed: u32,
    began: Instant,
) -> anyhow::Result<(Back, Socket)> {
    let mut tries = 1;
    let (mut socket, answer) = loop {
        match connect(address, auth).await {
            Ok(connected) => break connected,
            Err(_) if began.elapsed() < PATIENCE => {
                tries += 1;
                sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    };
    let connected = began.elapsed();
    let answer: Value = serde_json::from_str(&answer)?;
    let own: Value = serde_json::from_str(auth)?;
    ensure!(answer["pid"] == own["pid"], "a session was not recovered: {answer}");
    let mut next = 0;
    while next < missed {
        let frame = socket.next().await.context("the server closed the connection")??;
        let Message::Text(text) = frame else { continue };
        if text.as_str() == "2" {
            socket.send(Message::text("3")).await?;
        } else if let Some(stamp) = Stamp::read(&text) {
            if stamp.number != next {
                bail!("event {} came where {next} was due", stamp.number);
            }
            next += 1;
        }
    }
    Ok((Back { connected, complete: began.elapsed(), tries }, socket))
}
