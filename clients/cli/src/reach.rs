//! Which rooms sessions can be in; used to warn about an event that no session can receive.

use std::collections::BTreeSet;

use fanfare_proto::{
    catalog::{Catalogs, EventType},
    json::closest,
    room::Room,
};

/// The kinds of rooms that sessions can be in, according to the loaded catalogs.
#[derive(Debug)]
pub(crate) struct Reach(BTreeSet<String>);

impl Reach {
    pub(crate) fn new(catalogs: &Catalogs) -> Self {
        // Every session is in these.
        let own = ["org".to_owned(), "user".to_owned()];
        let joined =
            catalogs.calls().filter_map(|call| call.join.as_ref()).map(|join| join.kind().to_owned());
        Self(own.into_iter().chain(joined).collect())
    }

    /// The warning for an event that no session can receive. `None`: a session can, or the server
    /// will refuse the event anyway.
    pub(crate) fn warning(&self, kind: &EventType, payload: &[u8], rooms: &[String]) -> Option<String> {
        let rooms: Vec<Room> = if rooms.is_empty() {
            kind.check(payload).ok()?.rooms().ok()?
        } else {
            rooms.iter().map(|room| Room::new(room)).collect::<Result<_, _>>().ok()?
        };
        let first = rooms.first()?;
        if rooms.iter().any(|room| self.0.contains(room.kind())) {
            return None;
        }
        let near = closest(first.kind(), self.0.iter().map(String::as_str));
        let hint = near.map(|near| format!(" (did you mean {near:?}?)")).unwrap_or_default();
        Some(format!(
            "no browser can be in the room {:?}: no loaded catalog declares \
             a call that joins {:?} rooms{hint}; \
             only gRPC subscribers get this event",
            first.as_str(),
            first.kind()
        ))
    }
}
