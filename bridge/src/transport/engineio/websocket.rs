//! A connection over WebSocket, from its start or after an upgrade from polling.

use std::{future::Future, sync::Arc};

use bytes::Bytes;

use super::{Application, connection::Connection};
use crate::{
    outbox::Outbox,
    refusal::Refusal,
    socket::Socket,
    transport::websocket::{
        decoder::{Decoder, Message},
        frame,
        socket::{self, Flow},
    },
};

const PROBE: &str = "2probe";
const PROBE_ANSWER: &[u8] = b"3probe";
const UPGRADE: &str = "5";

/// Serves a connection that begins as a WebSocket.
pub(super) fn serve<A: Application>(
    connection: Arc<Connection<A>>,
    socket: Socket,
    first: Bytes,
    compression: bool,
    greeting: &str,
) -> impl Future<Output = ()> + Send + use<A> {
    let socket = Arc::new(socket);
    let decoder = Decoder::new(connection.engine.sessions.config.payload_bytes_max, compression);
    connection.note_compression(compression);
    let is_open = connection.carry_by(socket.clone());
    connection.outbox.send_beyond_limit(frame::text(greeting.as_bytes()));
    async move {
        if is_open {
            carry(connection, socket, first, decoder).await;
        }
    }
}

/// Serves a connection that this socket carries.
async fn carry<A: Application>(
    connection: Arc<Connection<A>>,
    socket: Arc<Socket>,
    first: Bytes,
    mut decoder: Decoder,
) {
    let end = socket::serve(&socket, &first, &mut decoder, &connection.outbox, |message| {
        let pause = match message {
            Message::Text(packet) => match connection.receive(&packet) {
                Ok(pause) => pause,
                Err(_) => return Flow::End,
            },
            Message::Binary(bytes) => connection.receive_binary(bytes),
            Message::Ping(_) | Message::Pong | Message::Close(_) => None,
        };
        pause.map_or(Flow::Continue, Flow::Pause)
    })
    .await;
    drop(decoder);
    socket::answer(&end, &connection.outbox);
    connection.outbox.end(Refusal::gone(), None);
    connection.close();
    socket::close(&socket, &connection.outbox, &end).await;
}

/// Probes a WebSocket for a polled connection.
pub(super) async fn probe<A: Application>(
    connection: Arc<Connection<A>>,
    socket: Socket,
    first: Bytes,
    compression: bool,
) {
    let socket = Arc::new(socket);
    let config = &connection.engine.sessions.config;
    let mut decoder = Decoder::new(config.payload_bytes_max, compression);
    // Only for the probe: the connection's packets go to the polls until the probe has succeeded.
    let outbox = Outbox::new(&connection.engine.sessions.outbox_limits);
    outbox.attach(socket.clone());
    let (mut is_probed, mut is_upgraded) = (false, false);
    let probing = socket::serve(&socket, &first, &mut decoder, &outbox, |message| match message {
        Message::Text(packet) if packet == PROBE && !is_probed => {
            is_probed = true;
            outbox.send_beyond_limit(frame::text(PROBE_ANSWER));
            // The waiting poll is answered, so that the client can stop polling.
            connection.release_get();
            Flow::Continue
        }
        Message::Text(packet) if packet == UPGRADE && is_probed => {
            is_upgraded = true;
            Flow::End
        }
        _ => Flow::End,
    });
    // Half of the timeout, so that the client can still connect over polling.
    let probed = tokio::time::timeout(config.connect_timeout / 2, probing).await;
    if probed.is_ok() && is_upgraded && connection.carry_by(socket.clone()) {
        // The decoder holds whatever arrived in the same read.
        carry(connection, socket, Bytes::new(), decoder).await;
    } else {
        connection.abandon_probe();
    }
}
