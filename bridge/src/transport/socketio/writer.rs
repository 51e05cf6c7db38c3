//! How sessions write over Socket.IO, and the encoded forms of events.

use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use fanfare_proto::v1::{CallOk, Delivery};

use super::{Connection, packet};
use crate::{event::Form, outbox::Outbox, refusal::Refusal, session::Writer, transport::places};

fn plain(event: &Delivery, namespace: &str) -> Bytes {
    packet::event(event, namespace, false, false)
}

fn with_cursor(event: &Delivery, namespace: &str) -> Bytes {
    packet::event(event, namespace, true, false)
}

fn compressed(event: &Delivery, namespace: &str) -> Bytes {
    packet::event(event, namespace, false, true)
}

fn compressed_with_cursor(event: &Delivery, namespace: &str) -> Bytes {
    packet::event(event, namespace, true, true)
}

/// The form of events in a namespace. An event belongs to one catalog, and a catalog to one
/// namespace in addition to the main one, so two forms per encoding are enough.
pub(super) fn form(namespace: &Arc<str>, has_cursor: bool, is_compressed: bool) -> Form {
    let is_main = &**namespace == "/";
    let place = usize::from(has_cursor) + 2 * usize::from(is_compressed) + 4 * usize::from(!is_main);
    let encode = match (has_cursor, is_compressed) {
        (false, false) => plain,
        (true, false) => with_cursor,
        (false, true) => compressed,
        (true, true) => compressed_with_cursor,
    };
    Form { place: places::SOCKETIO + place, encode, namespace: namespace.clone() }
}

/// Writes for the session of one of a connection's namespaces.
pub(super) struct PacketWriter {
    pub(super) namespace: Arc<str>,
    pub(super) connection: Weak<Connection>,
}

impl Writer for PacketWriter {
    fn reply(&self, outbox: &Arc<Outbox>, event: Delivery) {
        outbox.send_or_end(&packet::event(&event, &self.namespace, true, false));
    }

    fn acknowledge(&self, outbox: &Arc<Outbox>, id: i64, answer: &CallOk) {
        outbox.send_or_end(&packet::ack(&self.namespace, id, answer));
    }

    fn fail(&self, outbox: &Arc<Outbox>, id: Option<i64>, refusal: &Refusal) {
        outbox.send_or_end(&packet::failure(&self.namespace, id, refusal));
    }

    fn carrier(&self) -> &'static str {
        self.connection.upgrade().map_or("", |connection| connection.carrier_name())
    }

    fn end(&self, _: &Arc<Outbox>, why: &Refusal) {
        let Some(connection) = self.connection.upgrade() else { return };
        if why.reason.is_retry() {
            // Stock clients reconnect by themselves after the connection breaks, …
            return connection.cut(why.clone());
        }
        // … but not after a disconnect packet.
        let mut farewell = BytesMut::new();
        farewell.extend_from_slice(&packet::failure(&self.namespace, None, why));
        farewell.extend_from_slice(&packet::disconnect(&self.namespace));
        connection.leave_for(&self.namespace, why, farewell.freeze());
    }
}
