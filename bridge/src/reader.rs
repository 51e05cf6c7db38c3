//! A session that reads by cursor: what it missed comes from the log, then it is live, without a gap or a repeat.
//!
//! The session enters its rooms first, and only then asks for the log's end: what was published before comes from the log,
//! what was published after is in its mailbox, and what is in both is told apart by its cursor.

use std::{collections::VecDeque, sync::Arc};

use fanfare_client::Error;
use fanfare_proto::{
    cursor::Cursor,
    v1::{self, Reason, ReplayRequest, Transport},
};

use crate::{
    delivery::Delivery,
    ending::Ending,
    failure::Failure,
    mailbox::{Item, Mailbox},
    session::Session,
    sessions::{Entrant, Sessions},
};

/// A session that departs when it is dropped.
#[derive(Debug)]
pub(crate) struct Attendance {
    sessions: Arc<Sessions>,
    pub(crate) session: Arc<Session>,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.sessions.depart(&self.session);
    }
}

/// What a reader comes to next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Events and messages, in order.
    Items(VecDeque<Item>),
    /// The log does not reach back to where it was: it goes on from this cursor, with nothing of what is between.
    Reset(String),
    Ended(Ending),
}

/// A session, its mailbox and its place in the log.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) attendance: Attendance,
    mailbox: Arc<Mailbox>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Reads the log, after this cursor.
    Log(String),
    /// Live: of what is in the mailbox, what comes later in the log than this.
    Joining(String),
    Live,
}

impl Reader {
    /// Opens a session that reads from now on, or after a cursor. Gives also what greets it.
    pub(crate) async fn open(
        sessions: &Arc<Sessions>,
        entrant: Entrant,
        transport: Transport,
        after: Option<&str>,
    ) -> Result<(Self, Vec<v1::Delivery>), Failure> {
        if let Some(after) = after {
            let wrong = |e: fanfare_proto::cursor::InvalidCursor| Failure {
                path: "after".into(),
                ..Failure::new(Reason::InvalidArgument, e.to_string())
            };
            Cursor::after(after).map_err(wrong)?;
        }
        let mailbox = Arc::new(Mailbox::new(sessions.config.queue_bytes_max));
        let outlet = Box::new(mailbox.clone());
        let mut greetings = Vec::new();
        let start = |_: &Session, events| greetings = events;
        // Rooms are joined once the log has been read, or what is written to them meanwhile would fall between the two.
        let replays = after.is_some_and(|after| !after.is_empty());
        let accept = |session: &Arc<Session>| {
            if replays {
                session.hold_calls();
            }
            true
        };
        let session = sessions.open(entrant, transport, outlet, accept, start).await?;
        let attendance = Attendance { sessions: sessions.clone(), session };
        let mut reader = Self { attendance, mailbox, place: Place::Live };
        match after {
            None => {}
            Some("") => {
                let page = reader.page(String::new()).await.map_err(|_| Failure::unavailable())?;
                reader.place = Place::Joining(page.cursor);
            }
            Some(after) => reader.place = Place::Log(after.to_owned()),
        }
        Ok((reader, greetings))
    }

    /// Where it is, as long as it has not come to an event that says so.
    pub(crate) fn cursor(&self) -> Option<String> {
        match &self.place {
            Place::Log(after) => Some(after.clone()),
            Place::Joining(cursor) => Some(cursor.clone()),
            Place::Live => None,
        }
    }

    async fn page(&self, after: String) -> Result<v1::ReplayResponse, Error> {
        let session = &self.attendance.session;
        let rooms = session.rooms().iter().map(|r| r.as_str().to_owned()).collect();
        let request = ReplayRequest { tenant: session.tenant.as_str().to_owned(), rooms, after };
        self.attendance.sessions.link.replay(request).await
    }

    /// The log is read: calls that waited for it run.
    fn run_calls(&self) {
        let (sessions, session) = (self.attendance.sessions.clone(), self.attendance.session.clone());
        self.attendance.sessions.spawn(async move { sessions.run_calls(&session).await });
    }

    /// What comes next. May be dropped while waiting.
    pub(crate) async fn next(&mut self) -> Next {
        loop {
            if let Place::Log(after) = &self.place {
                let page = match self.page(after.clone()).await {
                    Ok(page) => page,
                    Err(Error::Refused { reason: Reason::Reset, cursor: Some(cursor), .. }) => {
                        self.place = Place::Joining(cursor.clone());
                        self.run_calls();
                        return Next::Reset(cursor);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a replay failed");
                        return Next::Ended(Ending::new(Reason::Unavailable, Failure::unavailable().message));
                    }
                };
                self.place = if page.more { Place::Log(page.cursor) } else { Place::Joining(page.cursor) };
                if matches!(self.place, Place::Joining(_)) {
                    self.run_calls();
                }
                if !page.events.is_empty() {
                    let item = |event| Item::Event(Arc::new(Delivery::new(event)));
                    return Next::Items(page.events.into_iter().map(item).collect());
                }
                continue;
            }
            let mut items = match self.mailbox.take().await {
                Ok(items) => items,
                Err(ending) => return Next::Ended(ending),
            };
            if let Place::Joining(upto) = &self.place {
                let stored = |item: &Item| matches!(item, Item::Event(event) if event.cursor().is_some());
                items.retain(|item| !matches!(item, Item::Event(event) if !event.is_after(upto)));
                // The mailbox is in log order: the first stored event that is later ends the question.
                if items.iter().any(stored) {
                    self.place = Place::Live;
                }
            }
            if !items.is_empty() {
                return Next::Items(items);
            }
        }
    }
}
