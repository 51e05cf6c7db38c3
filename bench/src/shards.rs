//! One event to very many sessions: the time until the last of them has it, by the number of the bridge's shards.
//!
//! The clients must not take the cores from the bridge meanwhile. So nothing reads: the kernel notes which sockets have
//! become readable, one thread asks it every 200 µs, and only afterwards the sockets are read and checked.

use std::{
    io::{ErrorKind, Read as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    fd::OwnedFd,
};

use crate::{
    audience::Audience,
    client::connect,
    event::{PACKET_START, Stamp, now_nanos},
    measure,
    report::Spread,
    target::{Run, Target, fanfare},
};

/// How often it is asked which sessions have the event.
const LOOK_INTERVAL: Duration = Duration::from_micros(200);
/// Until the last session has it.
const PATIENCE: Duration = Duration::from_secs(20);
/// After an event, before the next.
const PAUSE: Duration = Duration::from_millis(50);
const CONNECTS_AT_ONCE: usize = 64;
/// Events of a round that do not count.
const WARM_UP: u32 = 3;
/// No heartbeat comes between: nobody would answer it.
const QUIET: [&str; 4] = ["--ping-interval", "1h", "--ping-timeout", "1h"];
/// More than a frame of the event.
const FRAME_BYTES_MAX: usize = 4096;
const ONE_EVENT: Duration = Duration::from_millis(1);

/// A bridge with so many shards, and its sessions.
#[derive(Debug)]
struct Case {
    label: String,
    target: Target,
    watch: Option<Watch>,
    next: u32,
    millis: Vec<f64>,
}

/// Measures the bridge with each number of shards, in turns, and prints the table.
pub(crate) async fn run(
    program: &Path,
    shards: &[u32],
    rounds: u32,
    sessions: usize,
    events: u32,
) -> anyhow::Result<()> {
    let mut cases = Vec::new();
    if fanfare::has_setting(program, "--shards")? {
        for count in shards {
            let count = count.to_string();
            cases.push(Case::start(program, &count, &["--shards", &count], sessions).await?);
        }
    } else {
        eprintln!("this build has no --shards: it is measured as it is");
        cases.push(Case::start(program, "none", &[], sessions).await?);
    }
    for round in 1..=rounds {
        for case in &mut cases {
            case.measure(events).await?;
            let last = Spread::of(case.millis.clone());
            eprintln!("round {round} of {rounds}: {} shards, {} ms", case.label, Spread::cell(last));
        }
    }
    print(&cases, rounds, sessions, events);
    for case in cases {
        case.target.stop().await?;
    }
    Ok(())
}

impl Case {
    async fn start(program: &Path, label: &str, settings: &[&str], sessions: usize) -> anyhow::Result<Self> {
        let settings: Vec<&str> = settings.iter().copied().chain(QUIET).collect();
        let target = Target::start_with(program, &settings).await?;
        eprintln!("connecting {sessions} sessions to the bridge with {label} shards");
        let auths = (0..sessions).map(|session| target.auth(session)).collect::<Result<Vec<_>, _>>()?;
        let address = target.address();
        let connecting = stream::iter(auths).map(async |auth| open(address, &auth).await);
        let sockets: Vec<TcpStream> = connecting.buffer_unordered(CONNECTS_AT_ONCE).try_collect().await?;
        let watch = Some(Watch::over(sockets)?);
        Ok(Self { label: label.to_owned(), target, watch, next: 1, millis: Vec::new() })
    }

    async fn measure(&mut self, events: u32) -> anyhow::Result<()> {
        for index in 0..WARM_UP + events {
            let millis = self.publish().await?;
            if index >= WARM_UP {
                self.millis.push(millis);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Publishes one event; gives how long it took until the last session had it.
    async fn publish(&mut self) -> anyhow::Result<f64> {
        let mut watch = self.watch.take().context("an earlier event failed")?;
        watch.drain(None)?;
        let watching = tokio::task::spawn_blocking(move || (watch.wait(), watch));
        let number = self.next;
        self.next += 1;
        let run = Run { count: 1, first: number, interval: ONE_EVENT, in_flight: 1, audience: Audience::All };
        self.target.publish(run).await?;
        let (complete, mut watch) = watching.await?;
        let complete = complete?;
        let stamp = watch.drain(Some(number))?.context("the event has no stamp")?;
        self.watch = Some(watch);
        Ok(complete.saturating_sub(stamp.nanos) as f64 / 1e6)
    }
}

/// Opens a session whose socket is then left alone.
async fn open(address: SocketAddr, auth: &str) -> anyhow::Result<TcpStream> {
    let (socket, _) = connect(address, auth).await?;
    let socket = socket.into_inner().into_std()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Sockets of which the kernel notes the readable ones.
#[derive(Debug)]
struct Watch {
    sockets: Vec<TcpStream>,
    epoll: OwnedFd,
}

impl Watch {
    fn over(sockets: Vec<TcpStream>) -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, socket) in (0..).zip(&sockets) {
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&epoll, socket, epoll::EventData::new_u64(index), flags)?;
        }
        Ok(Self { sockets, epoll })
    }

    /// Waits until every socket has become readable; gives the time of the clock that all processes share.
    fn wait(&mut self) -> anyhow::Result<u64> {
        let mut readable = vec![false; self.sockets.len()];
        let (mut missing, began) = (readable.len(), Instant::now());
        let mut found = Vec::with_capacity(readable.len().max(1));
        while missing > 0 {
            ensure!(began.elapsed() < PATIENCE, "{missing} sessions did not get the event");
            std::thread::sleep(LOOK_INTERVAL);
            found.clear();
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            epoll::wait(&self.epoll, spare_capacity(&mut found), Some(&now))?;
            for event in &found {
                let seen = usize::try_from(event.data.u64()).ok().and_then(|index| readable.get_mut(index));
                if let Some(seen) = seen.filter(|seen| !**seen) {
                    *seen = true;
                    missing -= 1;
                }
            }
        }
        Ok(now_nanos())
    }

    /// Reads what is there. With a number, every socket must have that event.
    fn drain(&mut self, number: Option<u32>) -> anyhow::Result<Option<Stamp>> {
        let (mut bytes, mut last) = ([0; FRAME_BYTES_MAX], None);
        for socket in &mut self.sockets {
            let mut text = String::new();
            loop {
                match socket.read(&mut bytes) {
                    Ok(0) => bail!("the server closed a connection"),
                    Ok(count) => text += &String::from_utf8_lossy(&bytes[..count]),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e.into()),
                }
            }
            let Some(number) = number else { continue };
            let stamp = text.find(PACKET_START).and_then(|start| Stamp::read(&text[start..]));
            ensure!(stamp.is_some_and(|stamp| stamp.number == number), "event {number} is not in {text:?}");
            last = stamp;
        }
        // What became readable before is no news any more.
        let mut found = Vec::with_capacity(self.sockets.len().max(1));
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&self.epoll, spare_capacity(&mut found), Some(&now))?;
        Ok(last)
    }
}

#[allow(clippy::print_stdout, reason = "the report is what the program is for")]
fn print(cases: &[Case], rounds: u32, sessions: usize, events: u32) {
    println!(
        "One event to {sessions} sessions, {rounds} rounds of {events} events, median (least–greatest), on {}\n",
        measure::machine()
    );
    println!("| shards | last session has it after ms | speed |");
    println!("| --- | --- | --- |");
    let median = |case: &Case| Spread::of(case.millis.clone()).map(Spread::median);
    let first = cases.first().and_then(median);
    for case in cases {
        let speed = first.zip(median(case)).map(|(first, own)| format!("{:.2}", first / own));
        let cell = Spread::cell(Spread::of(case.millis.clone()));
        println!("| {} | {cell} | {} |", case.label, speed.as_deref().unwrap_or("–"));
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener};

    use super::*;

    #[test]
    fn a_watch_ends_when_the_last_socket_is_readable() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let mut servers = Vec::new();
        let sockets = (0..3)
            .map(|_| {
                let socket = TcpStream::connect(address).expect("a connection");
                socket.set_nonblocking(true).expect("a socket");
                servers.push(listener.accept().expect("its other end").0);
                socket
            })
            .collect();
        let mut watch = Watch::over(sockets).expect("a watch");
        let content = format!("{:010} {:020} ", 7, 123);
        for server in &mut servers {
            write!(server, "\u{81}{PACKET_START}{{\"content\":\"{content}\"}}]").expect("sent");
        }
        watch.wait().expect("all are readable");
        assert!(watch.drain(Some(7)).expect("the event is there").is_some());
        assert!(watch.drain(Some(7)).is_err(), "an event is there only once");
    }
}
