//! Drives one WebSocket: reads what the client sends, writes what its outbox has queued, and ends
//! it. One task per connection; what the outbox can write immediately does not wake it.

use std::{cell::RefCell, io, pin::Pin, sync::Arc, time::Duration};

use tokio::{io::Interest, time::Sleep};

use super::{
    decoder::{Decoder, Message, Violation},
    frame,
};
use crate::{outbox::Outbox, refusal::Refusal, socket::Socket};

/// Number of bytes that are read at once. All connections of a thread share the buffer.
const READ_BYTES: usize = 16 << 10;
/// The longest time for which reads from a peer pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// More pings than this in one read count as a flood.
const PINGS_AT_ONCE: usize = 32;
/// How long a peer that received a farewell may take to close.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long a peer without a farewell may take to close.
const CUT: Duration = Duration::from_millis(500);
/// Pause between reads from a peer whose data is discarded.
const DISCARD_PAUSE: Duration = Duration::from_millis(5);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// How to continue after a message.
#[derive(Debug)]
pub(crate) enum Flow {
    /// Continue reading.
    Continue,
    /// Continue reading after a pause.
    Pause(Duration),
    /// The connection ends.
    End,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer has disconnected, or `receive` ended the connection.
    Gone,
    /// The peer sent a close frame.
    Closed(Option<u16>),
    /// The peer violated the protocol.
    Violated(Violation),
    /// The outbox has ended.
    Ended,
}

/// Serves a socket until either side ends it. `first` was already read.
pub(crate) async fn serve(
    socket: &Socket,
    first: &[u8],
    decoder: &mut Decoder,
    outbox: &Arc<Outbox>,
    mut receive: impl FnMut(Message) -> Flow,
) -> End {
    let mut pause: Option<Pin<Box<Sleep>>> = None;
    let mut step = read(decoder, first, outbox, &mut receive);
    loop {
        match step {
            Step::Continue => {}
            Step::Pause(time) => pause = Some(Box::pin(tokio::time::sleep(time))),
            Step::End(end) => return end,
        }
        if outbox.is_finished() {
            return End::Ended;
        }
        let interest = match (pause.is_none(), outbox.is_stalled()) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        step = tokio::select! {
            ready = socket.ready(interest.unwrap_or(Interest::READABLE)), if interest.is_some() => match ready {
                Ok(ready) => {
                    if ready.is_writable() {
                        outbox.flush();
                    }
                    if ready.is_readable() && pause.is_none() {
                        read_socket(socket, decoder, outbox, &mut receive)
                    } else {
                        Step::Continue
                    }
                }
                Err(_) => Step::End(End::Gone),
            },
            () = outbox.changed() => Step::Continue,
            () = elapse(&mut pause), if pause.is_some() => {
                pause = None;
                Step::Continue
            }
        };
    }
}

async fn elapse(pause: &mut Option<Pin<Box<Sleep>>>) {
    if let Some(pause) = pause {
        pause.await;
    }
}

enum Step {
    Continue,
    Pause(Duration),
    End(End),
}

fn read_socket(
    socket: &Socket,
    decoder: &mut Decoder,
    outbox: &Arc<Outbox>,
    receive: &mut impl FnMut(Message) -> Flow,
) -> Step {
    BUFFER.with_borrow_mut(|buffer| match socket.try_read(buffer) {
        Ok(0) => Step::End(End::Gone),
        Ok(count) => read(decoder, &buffer[..count], outbox, receive),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Step::Continue,
        Err(_) => Step::End(End::Gone),
    })
}

fn read(
    decoder: &mut Decoder,
    bytes: &[u8],
    outbox: &Arc<Outbox>,
    receive: &mut impl FnMut(Message) -> Flow,
) -> Step {
    let (mut pause, mut end, mut pings) = (Duration::ZERO, None, 0);
    let outcome = decoder.read(bytes, |message| {
        match message {
            Message::Ping(payload) => {
                pings += 1;
                // Pongs for a peer that does not read must not pile up.
                if !outbox.is_stalled() {
                    outbox.send_beyond_limit(frame::pong(&payload));
                }
            }
            Message::Close(code) => end = Some(End::Closed(code)),
            other => match receive(other) {
                Flow::Continue => {}
                Flow::Pause(time) => pause += time,
                Flow::End => end = Some(End::Gone),
            },
        }
        end.is_none()
    });
    if pings > PINGS_AT_ONCE {
        pause += PAUSE_MAX;
    }
    match (outcome, end) {
        (Err(violation), _) => Step::End(End::Violated(violation)),
        (Ok(()), Some(end)) => Step::End(end),
        (Ok(()), None) if pause.is_zero() => Step::Continue,
        (Ok(()), None) => Step::Pause(pause.min(PAUSE_MAX)),
    }
}

/// Answers a close frame with one, or closes with the code of a violation.
pub(crate) fn answer(end: &End, outbox: &Arc<Outbox>) {
    let frame = match end {
        End::Closed(code) => frame::close(*code, ""),
        End::Violated(violation) => {
            let (code, reason) = violation.close();
            frame::close(Some(code), reason)
        }
        End::Gone | End::Ended => return,
    };
    outbox.end(Refusal::gone(), Some(frame));
}

/// Closes a connection. Sends what its ended outbox still holds, as far as the peer accepts it, and
/// discards what the peer sends, so that the system does not drop what was sent last. If the peer
/// received a farewell, waits for it to close first.
pub(crate) async fn close(socket: &Socket, outbox: &Arc<Outbox>, end: &End) {
    let cut = !outbox.has_farewell() || matches!(end, End::Closed(_) | End::Gone | End::Violated(_));
    while !outbox.is_finished() {
        tokio::select! {
            _ready = socket.writable(), if outbox.is_stalled() => outbox.flush(),
            () = outbox.changed() => {}
        }
    }
    if outbox.is_broken() {
        return;
    }
    if !cut {
        let _late = tokio::time::timeout(FAREWELL, discard(socket)).await;
    }
    if socket.shutdown_write().is_ok() && cut {
        let _late = tokio::time::timeout(CUT, discard(socket)).await;
    }
}

/// Reads until the peer closes.
async fn discard(socket: &Socket) {
    while socket.readable().await.is_ok() {
        let count = BUFFER.with_borrow_mut(|buffer| socket.try_read(buffer));
        match count {
            Ok(0) => return,
            Ok(_) => tokio::time::sleep(DISCARD_PAUSE).await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
