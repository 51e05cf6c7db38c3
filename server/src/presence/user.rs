//! One user of a tenant: the user's sessions, and the rooms to which the user was announced. Every
//! decision of presence concerns one user, so this is the whole state machine. It is pure: callers
//! provide the time, and store the result with compare-and-set.
//!
//! A user is a member of a room from the first session that enters it until the last session
//! leaves. If the last session ends without leaving, the user stays a member for the grace period;
//! another session that joins within it causes no announcement.

use std::{sync::Arc, time::Duration};

use fanfare_proto::{
    room::Room,
    v1::{EndSession, Transport},
};
use prost_types::Timestamp;

use crate::{engine::ServerId, error::Refusal};

/// Maximum number of unpublished transitions of a user; beyond that, the oldest are dropped.
const PENDING_MAX: usize = 1024;
/// Maximum number of unreported orders to leave rooms, per session; beyond that, the oldest are
/// dropped.
const REMOVALS_MAX: usize = 64;

/// A user's record.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct User {
    pub(super) name: Arc<str>,
    /// Includes lost sessions. The connected ones have different ids.
    pub(super) sessions: Vec<Session>,
    /// The rooms to which the user was announced.
    pub(super) announced: Vec<Announced>,
    /// Unpublished transitions, oldest first.
    pub(super) pending: Vec<Transition>,
}

/// A session of a user.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Session {
    pub(super) id: Arc<str>,
    /// The secret with which the client can recover the session; empty if it cannot.
    pub(super) pid: Arc<str>,
    pub(super) transport: Transport,
    pub(super) since: Timestamp,
    pub(super) owner: Owner,
    pub(super) state: State,
    pub(super) rooms: Rooms,
    pub(super) began: Began,
    /// Whether recovery is forbidden.
    pub(super) is_forsaken: bool,
    /// A pending order to the bridge: end the session.
    pub(super) ending: Option<Box<EndSession>>,
    /// Pending orders to the bridge: leave these rooms. Each is stored until the bridge reports it.
    pub(super) removals: Vec<RemovedRoom>,
    /// Whether the client has requested the session over another bridge: the previous bridge must
    /// end it.
    pub(super) is_handed_over: bool,
}

/// An order to leave a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemovedRoom {
    pub(super) room: Room,
    /// Distinguishes it from an earlier order.
    pub(super) nonce: u64,
}

/// The current or last connection of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) server: ServerId,
    /// The number of the bridge's link to that server.
    pub(crate) link: u64,
    pub(super) bridge: Arc<str>,
    /// Identifies the bridge's process.
    pub(super) instance: Arc<str>,
}

/// The state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not ready yet: the session counts, but is not announced.
    Opening,
    Ready,
    /// The connection has been lost since this time; the client may recover the session. The
    /// owner's server tracks the recovery window.
    Lost(u64),
}

/// The rooms of a session, by name, each with the catalog whose call entered it; empty for rooms
/// that the session is in from the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rooms(Vec<(Room, Arc<str>)>);

/// The cursor at the end of the log when a session began, for clients that have received no event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Began {
    pub(super) cursor: Arc<str>,
    /// Whether the server saw the session begin. If not, it may have begun earlier.
    pub(super) is_certain: bool,
}

/// A room to which the user was announced.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Announced {
    pub(super) room: Room,
    /// The catalog whose call made the user enter.
    pub(super) catalog: Arc<str>,
    /// When the last session left it, and which server tracks the grace period.
    pub(super) gone: Option<(u64, ServerId)>,
}

/// A change to announce to a room.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Transition {
    /// Unique per user.
    pub(super) id: u64,
    pub(super) room: Room,
    /// The session that came or went; empty if no longer known.
    pub(super) session_id: Arc<str>,
    /// The catalog whose call made the user enter; empty for rooms that sessions are in from the
    /// start.
    pub(super) catalog: Arc<str>,
    pub(super) came: bool,
    /// In milliseconds.
    pub(super) at: u64,
}

/// A bridge's report of a session.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) session_id: Arc<str>,
    pub(super) user_name: Arc<str>,
    pub(super) pid: Arc<str>,
    pub(super) transport: Transport,
    pub(super) owner: Owner,
    /// The cursor at the end of the log.
    pub(super) head: Arc<str>,
    pub(super) rooms: Vec<Room>,
}

/// The parameters of a change.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// The server's steady clock, in milliseconds.
    pub(super) now: u64,
    pub(super) server: &'a ServerId,
    pub(super) grace: u64,
    /// How long a lost session can be recovered, in milliseconds; 0: not at all.
    pub(super) window: u64,
    pub(super) lost_max: usize,
    pub(super) sessions_max: usize,
    /// Random; identifies the transitions of this change.
    pub(super) nonce: u64,
    /// Whether any event announces such a transition to the room.
    pub(super) is_published: &'a (dyn Fn(&Room, &str, bool) -> bool + Sync),
}

/// The selected sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selection {
    All,
    Session(Arc<str>),
}

impl Rooms {
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&Room, &Arc<str>)> {
        self.0.iter().map(|(room, catalog)| (room, catalog))
    }

    pub(super) fn contains(&self, room: &Room) -> bool {
        self.position(room).is_ok()
    }

    fn position(&self, room: &Room) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(room))
    }

    fn catalog(&self, room: &Room) -> Option<&Arc<str>> {
        self.0.get(self.position(room).ok()?).map(|(_, catalog)| catalog)
    }

    fn insert(&mut self, room: Room, catalog: Arc<str>) {
        if let Err(at) = self.position(&room) {
            self.0.insert(at, (room, catalog));
        }
    }

    fn remove(&mut self, room: &Room) -> bool {
        self.position(room).map(|at| self.0.remove(at)).is_ok()
    }
}

impl FromIterator<(Room, Arc<str>)> for Rooms {
    fn from_iter<T: IntoIterator<Item = (Room, Arc<str>)>>(rooms: T) -> Self {
        let mut rooms: Vec<_> = rooms.into_iter().collect();
        rooms.sort_unstable();
        rooms.dedup_by(|a, b| a.0 == b.0);
        Self(rooms)
    }
}

impl Session {
    pub(super) const fn is_connected(&self) -> bool {
        !matches!(self.state, State::Lost(_))
    }

    pub(super) fn is_of(&self, server: &ServerId, link: u64) -> bool {
        self.owner.link == link && self.owner.server == *server
    }
}

impl Selection {
    fn has(&self, session: &Session) -> bool {
        match self {
            Self::All => true,
            Self::Session(id) => session.id == *id,
        }
    }
}

impl User {
    /// Whether the record can be removed.
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.announced.is_empty() && self.pending.is_empty()
    }

    /// The connected session with this id.
    pub(super) fn session(&self, id: &str) -> Option<&Session> {
        self.sessions.iter().find(|session| session.is_connected() && *session.id == *id)
    }

    pub(super) fn connected(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().filter(|session| session.is_connected())
    }

    /// The number of connected sessions in a room.
    pub(super) fn count_in(&self, room: &Room) -> usize {
        self.connected().filter(|session| session.rooms.contains(room)).count()
    }

    fn lost(&self, pid: &str) -> Option<&Session> {
        self.sessions.iter().find(|session| !session.is_connected() && *session.pid == *pid)
    }

    /// A session that its client may continue: either a lost one, or one whose loss the bridge has
    /// not noticed yet. The latter may not have been reported ready yet; its client knows the
    /// secret, so the session was ready for the client.
    pub(super) fn recoverable(&self, pid: &str) -> Option<&Session> {
        let live = || self.connected().find(|session| *session.pid == *pid);
        if pid.is_empty() { None } else { self.lost(pid).or_else(live) }
    }

    /// Opens a session in these rooms; it is not ready yet. If it is connected elsewhere, it is
    /// lost there.
    pub(super) fn open(&mut self, report: &Report, cx: Context<'_>) -> Result<(), Refusal> {
        let known = self.session(&report.session_id);
        if known.is_none() && self.connected().count() >= cx.sessions_max {
            return Err(Refusal::TooManySessions(cx.sessions_max));
        }
        if known.is_some_and(|session| session.state == State::Ready && !session.is_forsaken) {
            self.close(&report.session_id, cx);
        }
        self.admit(report, State::Opening, cx);
        Ok(())
    }

    /// Makes a session ready, and announces it to rooms in which it is the user's first.
    pub(super) fn ready(&mut self, report: &Report, cx: Context<'_>) {
        self.admit(report, State::Ready, cx);
        self.announce(&report.session_id, &report.rooms, cx);
    }

    fn admit(&mut self, report: &Report, state: State, cx: Context<'_>) {
        // The session may be on a link whose loss is not noticed yet. Rooms that it has left
        // meanwhile must not stay.
        let before = self.detach(&report.session_id, cx);
        let is_ready = state == State::Ready;
        let lost = if is_ready { self.take_lost(&report.pid) } else { None };
        let is_forsaken = before.as_ref().is_some_and(|session| session.is_forsaken);
        let since = before.as_ref().map_or_else(|| timestamp(cx.now), |session| session.since);
        // An order to end the session applies to this connection, or permanently.
        let is_ordered = |session: &Session| {
            let is_same = session.owner.instance == report.owner.instance;
            is_same || session.state == State::Opening || session.is_forsaken
        };
        let ending = before.as_ref().filter(|s| is_ordered(s)).and_then(|session| session.ending.clone());
        // The same applies to orders to leave rooms.
        let removals = before.as_ref().filter(|s| is_ordered(s)).map(|session| session.removals.clone());
        let removals = removals.unwrap_or_default();
        let is_removed = |room: &Room| removals.iter().any(|removal| removal.room == *room);
        let head = Began { cursor: report.head.clone(), is_certain: !is_ready };
        let (known, began) = lost
            .or(before)
            .map_or_else(|| (Rooms::default(), head), |session| (session.rooms, session.began));
        let catalog = |room: &Room| known.catalog(room).cloned().unwrap_or_default();
        let rooms = report.rooms.iter().filter(|room| !is_removed(room));
        let rooms = rooms.map(|room| (room.clone(), catalog(room))).collect();
        let is_recoverable = !is_forsaken && cx.window > 0;
        self.name = report.user_name.clone();
        self.sessions.push(Session {
            id: report.session_id.clone(),
            pid: if is_recoverable { report.pid.clone() } else { Arc::default() },
            transport: report.transport,
            since,
            owner: report.owner.clone(),
            state,
            rooms,
            began,
            is_forsaken,
            ending,
            removals,
            is_handed_over: false,
        });
        self.settle();
    }

    /// Lets a ready session enter rooms, by a call of `catalog`.
    pub(super) fn enter(&mut self, id: &str, rooms: &[Room], catalog: &Arc<str>, cx: Context<'_>) {
        let Some(session) = self.connected_mut(id) else { return };
        session.removals.retain(|removal| !rooms.contains(&removal.room));
        for room in rooms {
            session.rooms.insert(room.clone(), catalog.clone());
        }
        self.settle();
        self.announce(id, rooms, cx);
    }

    /// Announces the user to rooms of a session that were not notified yet.
    fn announce(&mut self, id: &str, rooms: &[Room], cx: Context<'_>) {
        for room in rooms {
            let Err(at) = self.place(room) else { continue };
            let catalog = self.session(id).and_then(|session| session.rooms.catalog(room)).cloned();
            let Some(catalog) = catalog else { continue };
            self.announced.insert(at, Announced { room: room.clone(), catalog: catalog.clone(), gone: None });
            self.tell(room, id, &catalog, true, cx.now, cx);
        }
    }

    /// Lets a session leave rooms deliberately. Rooms in which it was the user's last are notified
    /// at once.
    pub(super) fn leave(&mut self, id: &str, rooms: &[Room], cx: Context<'_>) {
        if let Some(session) = self.connected_mut(id) {
            session.removals.retain(|removal| !rooms.contains(&removal.room));
        }
        for room in rooms {
            let left = self.connected_mut(id).is_some_and(|session| session.rooms.remove(room));
            if left && self.count_in(room) == 0 {
                self.retract(room, id, cx.now, cx);
            }
        }
    }

    /// Closes a session, which its client may recover. Rooms in which it was the user's last are
    /// notified after the grace period.
    pub(super) fn close(&mut self, id: &str, cx: Context<'_>) {
        let Some(session) = self.detach(id, cx) else { return };
        if session.pid.is_empty() || session.state == State::Opening {
            return;
        }
        self.take_lost(&session.pid);
        let owner = Owner { server: cx.server.clone(), ..session.owner };
        self.sessions.push(Session { state: State::Lost(cx.now), owner, ..session });
        self.evict_lost(cx.lost_max);
    }

    /// Closes a session whose client may or may not know that it was ready: it may be recovered.
    pub(super) fn lose(&mut self, id: &str, cx: Context<'_>) {
        let Some(session) = self.session(id) else { return };
        let is_known = self.lost(&session.pid).is_some();
        if let Some(session) = self.connected_mut(id).filter(|_| !is_known) {
            session.state = State::Ready;
        }
        self.close(id, cx);
    }

    /// Ends a session on behalf of its client: it cannot be recovered, and rooms in which it was
    /// the user's last are notified at once. But if another session of the user was lost within the
    /// grace period, it may still return, and rooms are notified after that period.
    pub(super) fn end(&mut self, id: &str, cx: Context<'_>) {
        let Some(session) = self.session(id) else { return };
        let rooms: Vec<Room> = session.rooms.iter().map(|(room, _)| room.clone()).collect();
        let is_recent =
            |session: &Session| matches!(session.state, State::Lost(at) if cx.now < at + cx.grace);
        if !self.sessions.iter().any(is_recent) {
            self.leave(id, &rooms, cx);
        }
        if let Some(session) = self.detach(id, cx) {
            // The session may have been lost and about to continue.
            self.take_lost(&session.pid);
        }
    }

    /// Marks the sessions of a link as lost.
    pub(super) fn unlink(&mut self, server: &ServerId, link: u64, cx: Context<'_>) {
        let of_link = self.connected().filter(|session| session.is_of(server, link));
        let ids: Vec<Arc<str>> = of_link.map(|session| session.id.clone()).collect();
        ids.iter().for_each(|id| self.lose(id, cx));
    }

    /// Prepares a session to continue over the bridge `instance`, at the request of its client: it
    /// is lost on its old connection, and the recovery window starts again. False if it has ended.
    pub(super) fn hand_over(&mut self, pid: &str, id: &str, instance: &str, cx: Context<'_>) -> bool {
        let is_handed_over = self.session(id).is_some_and(|session| *session.owner.instance != *instance);
        self.lose(id, cx);
        let Some(session) = self.sessions.iter_mut().find(|s| !s.is_connected() && *s.pid == *pid) else {
            return false;
        };
        session.state = State::Lost(cx.now);
        session.owner.server = cx.server.clone();
        session.is_handed_over |= is_handed_over;
        true
    }

    /// Takes over the grace periods and recovery windows of another server that has gone. Its
    /// connected sessions are lost.
    pub(super) fn take_over(&mut self, from: &ServerId, cx: Context<'_>) {
        let connected = self.connected().filter(|session| session.owner.server == *from);
        let ids: Vec<Arc<str>> = connected.map(|session| session.id.clone()).collect();
        ids.iter().for_each(|id| self.lose(id, cx));
        for session in self.sessions.iter_mut().filter(|session| session.owner.server == *from) {
            session.owner.server = cx.server.clone();
            session.state = State::Lost(cx.now);
        }
        for announced in &mut self.announced {
            if let Some((at, server)) = announced.gone.as_mut().filter(|(_, server)| server == from) {
                (*at, *server) = (cx.now, cx.server.clone());
            }
        }
        if cx.window == 0 {
            self.sessions.retain(Session::is_connected);
        }
    }

    /// Ends the grace periods and recovery windows that this server tracks and that have expired.
    pub(super) fn expire(&mut self, cx: Context<'_>) {
        let is_over = |session: &Session| {
            let own = session.owner.server == *cx.server;
            matches!(session.state, State::Lost(at) if own && cx.now > at + cx.window)
        };
        self.sessions.retain(|session| !is_over(session));
        let over = self.announced.iter().filter_map(|announced| match &announced.gone {
            Some((at, server)) if server == cx.server && cx.now >= at + cx.grace => {
                Some((announced.room.clone(), *at))
            }
            _ => None,
        });
        for (room, at) in over.collect::<Vec<_>>() {
            self.retract(&room, "", at, cx);
        }
    }

    /// The time at which [`Self::expire`] must run next.
    pub(super) fn next_expiry(&self, server: &ServerId, grace: u64, window: u64) -> Option<u64> {
        let lost = self.sessions.iter().filter_map(|session| match session.state {
            State::Lost(at) if session.owner.server == *server => Some(at + window + 1),
            _ => None,
        });
        let gone = self.announced.iter().filter_map(|announced| match &announced.gone {
            Some((at, of)) if of == server => Some(at + grace),
            _ => None,
        });
        lost.chain(gone).min()
    }

    /// Orders the bridges of the selected sessions to end them. Returns the number of connected
    /// ones. Unless they `may_return`, they cannot be recovered, and lost ones are released.
    pub(super) fn disconnect(&mut self, selection: &Selection, may_return: bool, end: &EndSession) -> usize {
        if !may_return {
            self.sessions.retain(|session| session.is_connected() || !selection.has(session));
        }
        let mut count = 0;
        for session in self.sessions.iter_mut().filter(|session| session.is_connected()) {
            if !selection.has(session) {
                continue;
            }
            count += 1;
            let session_id = session.id.to_string();
            session.ending = Some(Box::new(EndSession { session_id, ..end.clone() }));
            if !may_return {
                session.is_forsaken = true;
                session.pid = Arc::default();
            }
        }
        count
    }

    /// Removes the user's sessions from a room, including lost ones, and orders their bridges to
    /// leave it. Returns the number of connected sessions that were in it.
    pub(super) fn remove_from(&mut self, room: &Room, cx: Context<'_>) -> usize {
        for session in self.sessions.iter_mut().filter(|session| !session.is_connected()) {
            session.rooms.remove(room);
        }
        // An opening session may be about to enter the room.
        let may_be_in = |s: &&Session| s.rooms.contains(room) || s.state == State::Opening;
        let ids: Vec<Arc<str>> = self.connected().filter(may_be_in).map(|s| s.id.clone()).collect();
        let mut count = 0;
        for id in ids {
            count += usize::from(self.session(&id).is_some_and(|session| session.rooms.contains(room)));
            self.leave(&id, std::slice::from_ref(room), cx);
            let Some(session) = self.connected_mut(&id) else { continue };
            if session.removals.len() >= REMOVALS_MAX {
                session.removals.remove(0);
            }
            session.removals.push(RemovedRoom { room: room.clone(), nonce: cx.nonce });
        }
        // The user may still be a member because of the grace period of a lost session.
        if self.count_in(room) == 0 {
            self.retract(room, "", cx.now, cx);
        }
        count
    }

    /// Releases a lost session.
    pub(super) fn release(&mut self, pid: &str) {
        self.take_lost(pid);
    }

    /// Removes published transitions.
    pub(super) fn published(&mut self, ids: &[u64]) {
        self.pending.retain(|transition| !ids.contains(&transition.id));
    }

    fn connected_mut(&mut self, id: &str) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.is_connected() && *session.id == *id)
    }

    fn take_lost(&mut self, pid: &str) -> Option<Session> {
        let at = self.sessions.iter().position(|s| !s.is_connected() && *s.pid == *pid)?;
        Some(self.sessions.remove(at))
    }

    /// Evicts the oldest lost sessions if there are more than `max`.
    fn evict_lost(&mut self, max: usize) {
        let lost = |user: &Self| user.sessions.iter().filter(|s| !s.is_connected()).count();
        while lost(self) > max {
            let Some(oldest) = self.sessions.iter().position(|s| !s.is_connected()) else { return };
            self.sessions.remove(oldest);
        }
    }

    /// Removes and returns a connected session. The grace period of rooms without another session
    /// of the user begins.
    fn detach(&mut self, id: &str, cx: Context<'_>) -> Option<Session> {
        let at = self.sessions.iter().position(|s| s.is_connected() && *s.id == *id)?;
        let session = self.sessions.remove(at);
        for (room, _) in session.rooms.iter() {
            if self.count_in(room) == 0
                && let Ok(at) = self.place(room)
            {
                self.announced[at].gone = Some((cx.now, cx.server.clone()));
            }
        }
        Some(session)
    }

    /// Cancels the grace periods of rooms that have a session again.
    fn settle(&mut self) {
        let Self { sessions, announced, .. } = self;
        for announced in announced.iter_mut().filter(|announced| announced.gone.is_some()) {
            let has = |session: &Session| session.is_connected() && session.rooms.contains(&announced.room);
            if sessions.iter().any(has) {
                announced.gone = None;
            }
        }
    }

    fn place(&self, room: &Room) -> Result<usize, usize> {
        self.announced.binary_search_by(|announced| announced.room.cmp(room))
    }

    /// Ends the user's membership of a room, and notifies the room if the user was announced to it.
    fn retract(&mut self, room: &Room, session_id: &str, at: u64, cx: Context<'_>) {
        if let Ok(place) = self.place(room) {
            let Announced { catalog, .. } = self.announced.remove(place);
            self.tell(room, session_id, &catalog, false, at, cx);
        }
    }

    fn tell(
        &mut self,
        room: &Room,
        session_id: &str,
        catalog: &Arc<str>,
        came: bool,
        at: u64,
        cx: Context<'_>,
    ) {
        if !(cx.is_published)(room, catalog, came) {
            return;
        }
        let count = self.pending.len() as u64;
        self.pending.push(Transition {
            id: cx.nonce.wrapping_add(count),
            room: room.clone(),
            session_id: session_id.into(),
            catalog: catalog.clone(),
            came,
            at,
        });
        if self.pending.len() > PENDING_MAX {
            tracing::error!("a user comes and goes faster than the log takes: a presence event is dropped");
            self.pending.remove(0);
        }
    }
}

/// Converts milliseconds since 1970 to a protobuf timestamp.
pub(super) fn timestamp(millis: u64) -> Timestamp {
    Timestamp::from(std::time::UNIX_EPOCH + Duration::from_millis(millis))
}
