//! Replay: a session first gets the events it missed from the log, then live events, without gaps
//! or duplicates.
//!
//! The session first enters its rooms with its gate closed, and only then reads the log. Events
//! published before that come from the log, later ones wait at the gate, and the cursor identifies
//! events that are in both. Sessions in the same rooms share the pages they read, so that many
//! sessions that reconnect at once cost little more than one.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_client::Error;
use fanfare_proto::{
    cursor::Cursor,
    room::{Room, Tenant},
    v1::{Reason, ReplayRequest},
};
use tokio::sync::oneshot;

use crate::{event::Event, refusal::Refusal, session::Session, sessions::Sessions};

/// Number of pages of one group that are read at the same time.
const READERS_MAX: usize = 2;
/// Maximum number of rooms in one page request.
const ROOMS_MAX: usize = 4096;

/// Replays in progress, by group.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    groups: Mutex<HashMap<GroupKey, Group>>,
}

/// Identifies sessions of a tenant that are in the same rooms, apart from the rooms of their users.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GroupKey {
    tenant: Tenant,
    rooms: Vec<Room>,
}

#[derive(Debug, Default)]
struct Group {
    waiting: VecDeque<Waiting>,
    readers: usize,
}

/// A session that waits for a page.
#[derive(Debug)]
struct Waiting {
    after: Cursor,
    own_rooms: Vec<Room>,
    answer: oneshot::Sender<Result<Arc<SharedPage>, Error>>,
}

/// A page of the log, read for several sessions.
#[derive(Debug)]
struct SharedPage {
    events: Vec<Arc<Event>>,
    cursor: String,
    more: bool,
}

/// One session's progress through the log.
#[derive(Debug)]
pub(crate) struct Replay {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
    after: String,
}

/// The next step of a replay.
#[derive(Debug)]
pub(crate) enum Page {
    /// Events that the session missed, in order. The last page reaches the end of the log.
    Events { events: Vec<Arc<Event>>, is_last: bool },
    /// The log no longer contains the session's position. The session continues at this cursor,
    /// without the events in between.
    Reset(String),
}

impl Replay {
    /// A replay after a cursor; empty: starts at the end of the log.
    pub(crate) fn new(sessions: &Arc<Sessions>, session: &Arc<Session>, after: &str) -> Self {
        Self { sessions: sessions.clone(), session: session.clone(), after: after.to_owned() }
    }

    /// The current position.
    pub(crate) fn cursor(&self) -> &str {
        &self.after
    }

    /// Returns the next page. After the last one, and after a reset, the session's gate must be
    /// opened.
    pub(crate) async fn next(&mut self) -> Result<Page, Refusal> {
        match self.read().await {
            Ok(page) => {
                let events = self.select(&page);
                self.after.clone_from(&page.cursor);
                Ok(Page::Events { events, is_last: !page.more })
            }
            Err(Error::Refused { reason: Reason::Reset, cursor: Some(cursor), .. }) => {
                self.after.clone_from(&cursor);
                Ok(Page::Reset(cursor))
            }
            Err(error) => {
                tracing::debug!(%error, "a replay failed");
                Err(Refusal::unavailable())
            }
        }
    }

    /// Opens the gate at the position that was reached: the session is live, and its calls run.
    pub(crate) fn finish(&self) -> Result<(), Refusal> {
        if self.session.open_gate(&self.after).is_err() {
            self.sessions.stats.count_overflows(1);
            return Err(Refusal::slow());
        }
        let (sessions, session) = (self.sessions.clone(), self.session.clone());
        self.sessions.spawn(async move { sessions.run_calls(&session).await });
        Ok(())
    }

    /// Sends all missed events, as fast as the peer reads; `reset` notifies the session of a gap.
    pub(crate) async fn run(mut self, reset: impl FnOnce(&str)) -> Result<(), Refusal> {
        loop {
            match self.next().await? {
                Page::Events { events, is_last } => {
                    for event in &events {
                        if self.session.send_event(event).is_err() {
                            self.session.outbox.drained().await;
                            self.session.send_event(event).map_err(|_| Refusal::slow())?;
                        }
                    }
                    if is_last {
                        return self.finish();
                    }
                }
                Page::Reset(cursor) => {
                    reset(&cursor);
                    return self.finish();
                }
            }
            self.session.outbox.drained().await;
            if self.session.is_closed() {
                return Err(Refusal::gone());
            }
        }
    }

    async fn read(&self) -> Result<Arc<SharedPage>, Error> {
        let rooms = self.session.rooms();
        let Ok(after) = self.after.parse::<Cursor>() else {
            // Without a cursor, only the position of the log's end is needed.
            return read_page(&self.sessions, &self.session.tenant, &rooms, String::new()).await;
        };
        let (own_rooms, shared): (Vec<_>, Vec<_>) = rooms.into_iter().partition(|room| room.kind() == "user");
        let key = GroupKey { tenant: self.session.tenant.clone(), rooms: shared };
        self.sessions.read_shared(key, after, own_rooms).await
    }

    /// Selects the events of a shared page that are for this session.
    fn select(&self, page: &SharedPage) -> Vec<Arc<Event>> {
        let rooms = self.session.rooms();
        let is_in = |room: &String| rooms.iter().any(|own| own.as_str() == room);
        let mine = |event: &&Arc<Event>| {
            event.is_after(&self.after)
                && event.delivery.rooms.iter().any(is_in)
                && !event.excepts(self.session.id())
        };
        page.events.iter().filter(mine).cloned().collect()
    }
}

async fn read_page(
    sessions: &Sessions,
    tenant: &Tenant,
    rooms: &[Room],
    after: String,
) -> Result<Arc<SharedPage>, Error> {
    let rooms = rooms.iter().map(|room| room.as_str().to_owned()).collect();
    let request = ReplayRequest { tenant: tenant.as_str().to_owned(), rooms, after };
    let page = sessions.link.replay(request).await?;
    let events = page.events.into_iter().map(|event| Arc::new(Event::new(event))).collect();
    Ok(Arc::new(SharedPage { events, cursor: page.cursor, more: page.more }))
}

impl Replays {
    fn lock(&self) -> MutexGuard<'_, HashMap<GroupKey, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session to its group; returns true if the caller must read for the group.
    fn join(&self, key: &GroupKey, waiting: Waiting) -> bool {
        let mut groups = self.lock();
        let group = groups.entry(key.clone()).or_default();
        group.waiting.push_back(waiting);
        let must_read = group.readers < READERS_MAX;
        group.readers += usize::from(must_read);
        must_read
    }

    /// The sessions that share the next page: the one that has waited longest, and all that are
    /// further ahead in the same log. `None` ends a reader.
    fn next_round(&self, key: &GroupKey) -> Option<Vec<Waiting>> {
        let mut groups = self.lock();
        let group = groups.get_mut(key)?;
        group.waiting.retain(|waiting| !waiting.answer.is_closed());
        let Some(first) = group.waiting.pop_front() else {
            group.readers -= 1;
            if group.readers == 0 {
                groups.remove(key);
            }
            return None;
        };
        let start = first.after;
        let mut rooms = key.rooms.len() + first.own_rooms.len();
        let mut round = vec![first];
        let mut later = VecDeque::new();
        for waiting in group.waiting.drain(..) {
            let is_ahead = waiting.after.epoch == start.epoch && waiting.after.seq >= start.seq;
            if is_ahead && rooms + waiting.own_rooms.len() <= ROOMS_MAX {
                rooms += waiting.own_rooms.len();
                round.push(waiting);
            } else {
                later.push_back(waiting);
            }
        }
        group.waiting = later;
        Some(round)
    }

    /// Sessions that are ahead of the end of the page wait again, before all others.
    fn put_back(&self, key: &GroupKey, ahead: Vec<Waiting>) {
        if let Some(group) = self.lock().get_mut(key) {
            ahead.into_iter().rev().for_each(|waiting| group.waiting.push_front(waiting));
        }
    }
}

impl Sessions {
    async fn read_shared(
        self: &Arc<Self>,
        key: GroupKey,
        after: Cursor,
        own_rooms: Vec<Room>,
    ) -> Result<Arc<SharedPage>, Error> {
        let (answer, answered) = oneshot::channel();
        if self.replays.join(&key, Waiting { after, own_rooms, answer }) {
            let sessions = self.clone();
            self.spawn(async move { sessions.read_for(&key).await });
        }
        answered.await.unwrap_or_else(|_| Err(Error::Unreachable("the bridge stops".into())))
    }

    /// Reads pages for a group until none of its sessions is waiting.
    async fn read_for(&self, key: &GroupKey) {
        while let Some(round) = self.replays.next_round(key) {
            let mut rooms = key.rooms.clone();
            rooms.extend(round.iter().flat_map(|waiting| waiting.own_rooms.iter().cloned()));
            rooms.sort_unstable();
            rooms.dedup();
            let page = read_page(self, &key.tenant, &rooms, round[0].after.to_string()).await;
            let reached = page.as_ref().ok().and_then(|page| page.cursor.parse::<Cursor>().ok());
            let (mut ahead, mut is_first) = (Vec::new(), true);
            for waiting in round {
                // An error, or a page that ends before a session's position, is only for the first
                // session.
                let is_served = is_first || reached.is_some_and(|reached| reached.seq >= waiting.after.seq);
                is_first = false;
                if is_served {
                    // The receiver may have been dropped.
                    let _gone = waiting.answer.send(page.clone());
                } else {
                    ahead.push(waiting);
                }
            }
            self.replays.put_back(key, ahead);
        }
    }
}
