use fanfare_proto::v1::Reason;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};

use super::*;

pub(crate) fn limits(bytes_max: usize, write_timeout: Duration) -> Arc<OutboxLimits> {
    Arc::new(OutboxLimits { bytes_max, write_timeout, clock: Clock::default() })
}

async fn pair() -> (Arc<Socket>, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (Arc::new(accepted.unwrap().0.into()), connected.unwrap())
}

/// Flushes until everything is written, then ends the stream.
pub(crate) async fn drain(outbox: &Arc<Outbox>, socket: &Socket) {
    while !outbox.is_finished() {
        socket.writable().await.unwrap();
        outbox.flush();
    }
    socket.shutdown_write().unwrap();
}

/// Sends frames of 64 KiB until the socket accepts no more; returns their number.
fn fill(outbox: &Arc<Outbox>) -> usize {
    let frame = Bytes::from(vec![7; 64 << 10]);
    let mut sent = 0;
    while !outbox.is_stalled() {
        outbox.send(&frame).unwrap();
        sent += 1;
    }
    sent
}

#[tokio::test]
async fn what_a_socket_refuses_waits_and_is_written_when_it_accepts_again() {
    let (socket, mut peer) = pair().await;
    let outbox = Outbox::new(&limits(1 << 20, Duration::from_secs(60)));
    outbox.attach(socket.clone());
    let sent = fill(&outbox);
    outbox.send(&Bytes::from_static(b"last")).unwrap();
    outbox.end(Refusal::gone(), Some(Bytes::from_static(b"bye")));
    outbox.send(&Bytes::from_static(b"too late")).unwrap();
    let mut read = Vec::new();
    let (_, count) = tokio::join!(drain(&outbox, &socket), peer.read_to_end(&mut read));
    assert_eq!(count.unwrap(), sent * (64 << 10) + 7);
    assert!(read.ends_with(b"lastbye"));
    assert_eq!(outbox.queued_bytes(), 0);
}

#[tokio::test]
async fn more_than_the_bound_is_refused() {
    let outbox = Outbox::new(&limits(200, Duration::from_secs(60)));
    let large = Bytes::from(vec![0; 1000]);
    assert!(outbox.send(&large).is_ok(), "larger than the bound passes when nothing waits");
    assert!(outbox.send(&Bytes::from_static(b"x")).is_err());
    assert_eq!(outbox.pull().map(|entries| entries.len()), Some(1));
    assert!(outbox.send(&Bytes::from_static(b"x")).is_ok());
}

#[tokio::test]
async fn a_peer_that_takes_a_little_now_and_then_is_given_up() {
    let (socket, mut peer) = pair().await;
    let timeout = Duration::from_millis(200);
    let limits = limits(8 << 20, timeout);
    let outbox = Outbox::new(&limits);
    outbox.attach(socket.clone());
    fill(&outbox);
    for _ in 0..8 {
        outbox.send(&Bytes::from(vec![7; 64 << 10])).unwrap();
    }
    let clock = limits.clock.clone();
    let trickle = async {
        let mut some = [0; 100];
        loop {
            peer.read_exact(&mut some).await.unwrap();
            outbox.flush();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let given_up = async {
        while !outbox.is_broken() {
            outbox.changed().await;
        }
    };
    tokio::select! {
        () = clock.run() => unreachable!("it runs for ever"),
        () = trickle => unreachable!("it reads for ever"),
        () = given_up => {}
    }
    assert_eq!(outbox.queued_bytes(), 0);
}

#[tokio::test]
async fn a_pull_waits_for_entries_and_then_for_the_end() {
    let outbox = Outbox::new(&limits(1000, Duration::from_secs(60)));
    let (entries, ()) = tokio::join!(outbox.next(), async {
        outbox.send(&Bytes::from_static(b"x")).unwrap();
    });
    assert_eq!(entries.unwrap().len(), 1);
    outbox.end(Refusal::slow(), None);
    assert_eq!(outbox.next().await.unwrap_err().reason, Reason::Slow);
}
