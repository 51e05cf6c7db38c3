//! An event for browsers: what the server made, and the bytes that transports encode it to.
//!
//! Each form is encoded once per event, however many sessions receive it. Transports supply the
//! encoders; this module knows none of them.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use bytes::{Bytes, BytesMut};
use fanfare_proto::{
    cursor::Cursor,
    v1::{self, Delivery},
};

/// Number of forms that an event can have.
pub(crate) const FORMS: usize = 13;

/// The form in which the sessions of one transport read events.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    /// The index of the encoded bytes, below [`FORMS`]. Two sessions with the same index read the
    /// same bytes of the same event.
    pub(crate) place: usize,
    /// Encodes an event as it is sent.
    pub(crate) encode: fn(&Delivery, namespace: &str) -> Bytes,
    /// The Socket.IO namespace that the bytes name; empty: none.
    pub(crate) namespace: Arc<str>,
}

/// An event, shared by all its recipients.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) delivery: Delivery,
    forms: [OnceLock<Bytes>; FORMS],
}

impl Event {
    pub(crate) fn new(delivery: Delivery) -> Self {
        Self { delivery, forms: [const { OnceLock::new() }; FORMS] }
    }

    /// The event's bytes in a form.
    pub(crate) fn bytes(&self, form: &Form) -> &Bytes {
        self.forms[form.place].get_or_init(|| (form.encode)(&self.delivery, &form.namespace))
    }

    /// The position after the event in the log; `None` for events that are not stored.
    pub(crate) fn cursor(&self) -> Option<&str> {
        (!self.delivery.ephemeral).then_some(self.delivery.id.as_str())
    }

    /// Whether the event is later in the log than a cursor. True for events outside the log.
    pub(crate) fn is_after(&self, upto: &str) -> bool {
        let own = self.cursor().and_then(|cursor| cursor.parse::<Cursor>().ok());
        let (Some(own), Ok(upto)) = (own, upto.parse::<Cursor>()) else { return true };
        own.epoch != upto.epoch || own.seq > upto.seq
    }

    /// Whether a session is excluded.
    pub(crate) fn excepts(&self, session_id: &str) -> bool {
        self.delivery.except_sessions.iter().any(|id| id == session_id)
    }

    /// Size of the payload in bytes.
    pub(crate) fn len(&self) -> usize {
        let binary = self.delivery.binary.as_ref();
        let attachments = |binary: &v1::BinaryPayload| binary.attachments.iter().map(Bytes::len).sum();
        self.delivery.json.len() + binary.map_or(0usize, attachments)
    }
}

/// Consecutive events with the same recipients: the same rooms, exceptions and catalog.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) events: Vec<Arc<Event>>,
    /// The concatenated bytes of all events, by form.
    joined: [OnceLock<Bytes>; FORMS],
    /// Number of shards that have not finished the run.
    unfinished: AtomicUsize,
}

impl Run {
    /// Splits a batch of one tenant into runs, in order. `shards` is the number of shards that
    /// deliver each run.
    pub(crate) fn split(events: Vec<Arc<Event>>, shards: usize) -> Vec<Arc<Self>> {
        let mut runs: Vec<Vec<Arc<Event>>> = Vec::new();
        for event in events {
            match runs.last_mut() {
                Some(run) if are_alike(&run[0].delivery, &event.delivery) => run.push(event),
                _ => runs.push(vec![event]),
            }
        }
        let run = |events| {
            let (joined, unfinished) = ([const { OnceLock::new() }; FORMS], AtomicUsize::new(shards));
            Arc::new(Self { events, joined, unfinished })
        };
        runs.into_iter().map(run).collect()
    }

    /// A shard has delivered the run to its sessions; returns true for the last shard.
    pub(crate) fn finish(&self) -> bool {
        self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// The address that all events of the run share.
    pub(crate) fn address(&self) -> &Delivery {
        &self.events[0].delivery
    }

    /// The bytes of all events in a form.
    pub(crate) fn bytes(&self, form: &Form) -> &Bytes {
        if let [event] = self.events.as_slice() {
            return event.bytes(form);
        }
        self.joined[form.place].get_or_init(|| {
            let parts = self.events.iter().map(|event| event.bytes(form));
            let mut joined = BytesMut::with_capacity(parts.clone().map(Bytes::len).sum());
            parts.for_each(|part| joined.extend_from_slice(part));
            joined.freeze()
        })
    }
}

fn are_alike(one: &Delivery, other: &Delivery) -> bool {
    one.rooms == other.rooms && one.except_sessions == other.except_sessions && one.catalog == other.catalog
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, rooms: &[&str]) -> Arc<Event> {
        let rooms = rooms.iter().map(|&room| room.to_owned()).collect();
        Arc::new(Event::new(Delivery { name: name.into(), rooms, ..Delivery::default() }))
    }

    fn encode(delivery: &Delivery, namespace: &str) -> Bytes {
        format!("{namespace}{}.", delivery.name).into()
    }

    #[test]
    fn a_run_holds_consecutive_events_with_the_same_recipients() {
        let events = vec![event("a", &["org"]), event("b", &["org"]), event("c", &["chat:7"])];
        let runs = Run::split(events, 1);
        let form = Form { place: 0, encode, namespace: "".into() };
        let texts: Vec<_> = runs.iter().map(|run| run.bytes(&form).clone()).collect();
        assert_eq!(texts, ["a.b.", "c."]);
    }

    #[test]
    fn each_form_is_encoded_once() {
        let event = event("a", &[]);
        let form = Form { place: 1, encode, namespace: "".into() };
        assert_eq!(event.bytes(&form).as_ptr(), event.bytes(&form).as_ptr());
    }
}
