//! Joining rooms with their current state: first each entry, then every later event, without gaps
//! or duplicates.
//!
//! Live events wait at the session's gate while the state is read. Afterwards, events of the rooms
//! that are new to the session are dropped up to the state's cursor; the others are sent.

use std::sync::Arc;

use fanfare_proto::{
    room::Room,
    v1::{Delivery, StateRequest, StateResponse},
};

use super::Sessions;
use crate::{event::Event, outbox::Overflow, refusal::Refusal, session::Session};

impl Sessions {
    /// Adds the session to rooms and sends it the state of those that are new to it. Returns these.
    pub(super) async fn join_with_state(
        &self,
        session: &Arc<Session>,
        rooms: &[Room],
    ) -> Result<Vec<Room>, Refusal> {
        let live = session.rooms();
        let new: Vec<Room> = rooms.iter().filter(|room| !live.contains(room)).cloned().collect();
        if new.is_empty() {
            return self.join(session, rooms).await;
        }
        session.close_gate();
        let entered = match self.join(session, rooms).await {
            Ok(entered) => entered,
            Err(refusal) => {
                self.in_bounds(session, session.reopen_gate())?;
                return Err(refusal);
            }
        };
        match self.send_state(session, &new).await {
            Ok(cursor) => self.in_bounds(session, session.open_gate_of_rooms(&cursor, live))?,
            Err(refusal) => {
                let left = self.rooms.leave(session, &entered);
                self.link.release(&session.tenant, &left);
                session.discard_held(&live);
                self.in_bounds(session, session.reopen_gate())?;
                return Err(refusal);
            }
        }
        Ok(entered)
    }

    /// Sends the state as fast as the peer reads; returns the cursor that the state is consistent
    /// with.
    async fn send_state(&self, session: &Arc<Session>, rooms: &[Room]) -> Result<String, Refusal> {
        let mut page_token = String::new();
        loop {
            let page = self.read_state(session, rooms, page_token).await?;
            for entry in page.entries {
                self.send_entry(session, entry).await?;
            }
            if page.next_page_token.is_empty() {
                return Ok(page.cursor);
            }
            page_token = page.next_page_token;
            session.outbox.drained().await;
            if session.is_closed() {
                return Err(Refusal::gone());
            }
        }
    }

    async fn read_state(
        &self,
        session: &Session,
        rooms: &[Room],
        page_token: String,
    ) -> Result<StateResponse, Refusal> {
        let tenant = session.tenant.as_str().to_owned();
        let rooms = rooms.iter().map(|room| room.as_str().to_owned()).collect();
        let page = self.link.state(StateRequest { tenant, rooms, page_token }).await;
        page.map_err(|error| {
            tracing::debug!(%error, "the state cannot be read");
            Refusal::unavailable()
        })
    }

    async fn send_entry(&self, session: &Session, entry: Delivery) -> Result<(), Refusal> {
        let event = Arc::new(Event::new(entry));
        if session.send_event(&event).is_err() {
            session.outbox.drained().await;
            self.in_bounds(session, session.send_event(&event))?;
        }
        Ok(())
    }

    /// Ends a session that does not read fast enough.
    fn in_bounds(&self, session: &Session, sent: Result<(), Overflow>) -> Result<(), Refusal> {
        sent.map_err(|_| {
            self.stats.count_overflows(1);
            session.close(&Refusal::slow());
            Refusal::slow()
        })
    }
}
