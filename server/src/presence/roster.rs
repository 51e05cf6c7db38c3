//! Who is where: sessions, and the users that they make members of rooms. Plain state without a clock, a task or a
//! protocol: the caller says what time it is.
//!
//! A user is a member of a room from the first session in it to the last session out of it. A member whose last
//! session went without leaving stays for the grace period, in which another session of theirs takes its place
//! unnoticed.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_proto::{
    room::{Room, Tenant},
    v1::{Caller, EndSession, Transport},
};
use prost_types::Timestamp;

use super::lost::{Began, Lost, LostSession};

/// A moment, on the clock that cannot be set and on the one that people read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) time: Timestamp,
}

/// A session that is connected.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) tenant: Tenant,
    pub(super) user_id: Arc<str>,
    pub(super) user_name: Arc<str>,
    pub(super) transport: Transport,
    /// The link of the bridge that it is connected to.
    pub(super) link: u64,
    pub(super) since: Timestamp,
    /// With the catalog whose call entered each; empty for those that sessions are in from the start.
    pub(super) rooms: HashMap<Room, Arc<str>>,
    /// The secret by which its client can recover it; empty where it cannot be.
    pid: Arc<str>,
    began: Began,
    ready: bool,
    /// What its bridge shall be told again once it is ready: before, the bridge may not have it yet.
    ending: Option<Box<EndSession>>,
    /// It must not be recovered.
    forsaken: bool,
}

/// A session as its bridge tells of it.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) caller: &'a Caller,
    pub(super) tenant: Tenant,
    pub(super) pid: &'a str,
    pub(super) link: u64,
    /// Where the log is.
    pub(super) head: Arc<str>,
}

/// A user in a room.
#[derive(Debug, Default)]
struct Member {
    name: Arc<str>,
    sessions: Vec<Arc<str>>,
    /// The room has been told; by which catalog's call, where it was one.
    announced: Option<Arc<str>>,
    /// When the last session went, during the grace period.
    gone: Option<Now>,
}

/// A member whose last session has gone, until the end of the grace period.
#[derive(Debug)]
struct Leaving {
    end: Instant,
    tenant: Tenant,
    room: Room,
    user_id: Arc<str>,
    /// The session's secret, or nothing.
    pid: Arc<str>,
}

/// Something that a room is told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Transition {
    pub(super) tenant: Tenant,
    pub(super) room: Room,
    pub(super) user_id: Arc<str>,
    pub(super) user_name: Arc<str>,
    /// The session that came or went; empty when it is not known any more.
    pub(super) session_id: Arc<str>,
    /// The catalog whose call made the user enter; empty for rooms that sessions are in from the start.
    pub(super) catalog: Arc<str>,
    pub(super) came: bool,
    pub(super) time: Timestamp,
}

/// A member, as others see them.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) user_id: Arc<str>,
    pub(super) user_name: Arc<str>,
    pub(super) sessions: Vec<Arc<str>>,
}

type Members = BTreeMap<Arc<str>, Member>;

/// All sessions and members.
#[derive(Debug)]
pub(super) struct Roster {
    tenants: HashMap<Tenant, HashMap<Room, Members>>,
    sessions: HashMap<Arc<str>, Known>,
    /// The sessions' ids by their secrets.
    pids: HashMap<Arc<str>, Arc<str>>,
    lost: Lost,
    /// The secrets of sessions whose record has changed and nobody has taken yet.
    changed: HashSet<Arc<str>>,
    /// Members in their grace period, by time.
    leaving: VecDeque<Leaving>,
    grace: Duration,
    /// What has happened and nobody has taken yet.
    transitions: VecDeque<Transition>,
}

impl Roster {
    pub(super) fn new(grace: Duration, lost: Lost) -> Self {
        Self {
            tenants: HashMap::new(),
            sessions: HashMap::new(),
            pids: HashMap::new(),
            lost,
            changed: HashSet::new(),
            leaving: VecDeque::new(),
            grace,
            transitions: VecDeque::new(),
        }
    }

    /// Whether lost sessions can be recovered.
    pub(super) const fn recovers(&self) -> bool {
        self.lost.recovers()
    }

    pub(super) fn session(&self, id: &str) -> Option<&Known> {
        self.sessions.get(id)
    }

    /// Whether a link has the session.
    pub(super) fn is_of(&self, id: &str, link: u64) -> bool {
        self.sessions.get(id).is_some_and(|known| known.link == link)
    }

    pub(super) const fn transitions(&mut self) -> &mut VecDeque<Transition> {
        &mut self.transitions
    }

    /// A session is about to be ready. It is a member of these rooms, which are not told yet. If it is ready elsewhere, it is
    /// lost there.
    pub(super) fn open(&mut self, told: Told<'_>, rooms: &[Room], now: Now) {
        let id = &told.caller.session_id;
        if self.session(id).is_some_and(|known| known.ready && !known.forsaken) {
            self.close(id, now);
        }
        self.admit(told, rooms, false, now);
    }

    /// A session is ready: its rooms are told if it is the user's first in them.
    pub(super) fn ready(&mut self, told: Told<'_>, rooms: &[Room], now: Now) {
        let id = self.admit(told, rooms, true, now);
        let Some(known) = self.sessions.get(&id) else { return };
        for (room, catalog) in known.rooms.clone() {
            self.tell(&id, &room, &catalog, now);
        }
    }

    fn admit(&mut self, told: Told<'_>, rooms: &[Room], ready: bool, now: Now) -> Arc<str> {
        let id: Arc<str> = told.caller.session_id.as_str().into();
        // Perhaps of a link that is not seen to be lost yet: rooms it has left meanwhile must not stay.
        let before = self.detach(&id, now);
        let since = before.as_ref().map_or(now.time, |known| known.since);
        let forsaken = before.as_ref().is_some_and(|known| known.forsaken);
        let ending = before.as_ref().and_then(|known| known.ending.clone());
        let lost = if ready { self.lost.take(told.pid) } else { None };
        let kept = lost.map(|lost| (lost.rooms, lost.began));
        let kept = kept.or_else(|| before.map(|known| (known.rooms, known.began)));
        let head = Began { cursor: told.head, is_certain: !ready };
        let (catalogs, began) = kept.unwrap_or_else(|| (HashMap::new(), head));
        let known = Known {
            tenant: told.tenant,
            user_id: told.caller.user_id.as_str().into(),
            user_name: told.caller.user_name.as_str().into(),
            transport: told.caller.transport(),
            link: told.link,
            since,
            rooms: HashMap::new(),
            pid: if forsaken || !self.recovers() { "".into() } else { told.pid.into() },
            began,
            ready,
            ending,
            forsaken,
        };
        if !known.pid.is_empty() {
            self.pids.insert(known.pid.clone(), id.clone());
        }
        self.sessions.insert(id.clone(), known);
        for room in rooms {
            self.put(&id, room, catalogs.get(room).cloned().unwrap_or_default());
        }
        id
    }

    /// A session that is ready is in other rooms, by a call of `catalog`.
    pub(super) fn enter(&mut self, id: &Arc<str>, rooms: &[Room], catalog: &Arc<str>, now: Now) {
        for room in rooms {
            self.put(id, room, catalog.clone());
            self.tell(id, room, catalog, now);
        }
    }

    fn tell(&mut self, id: &Arc<str>, room: &Room, catalog: &Arc<str>, now: Now) {
        let Some(known) = self.sessions.get(id) else { return };
        let of_tenant = self.tenants.get_mut(&known.tenant);
        let member = of_tenant.and_then(|t| t.get_mut(room)?.get_mut(&known.user_id));
        let Some(member) = member.filter(|member| member.announced.is_none()) else { return };
        member.announced = Some(catalog.clone());
        self.transitions.push_back(Transition {
            tenant: known.tenant.clone(),
            room: room.clone(),
            user_id: known.user_id.clone(),
            user_name: known.user_name.clone(),
            session_id: id.clone(),
            catalog: catalog.clone(),
            came: true,
            time: now.time,
        });
    }

    fn put(&mut self, id: &Arc<str>, room: &Room, catalog: Arc<str>) {
        let Some(known) = self.sessions.get_mut(id) else { return };
        if known.rooms.contains_key(room) {
            return;
        }
        known.rooms.insert(room.clone(), catalog);
        if !known.pid.is_empty() {
            self.changed.insert(known.pid.clone());
        }
        let of_tenant = self.tenants.entry(known.tenant.clone()).or_default();
        let member = of_tenant.entry(room.clone()).or_default().entry(known.user_id.clone()).or_default();
        member.sessions.push(id.clone());
        member.name = known.user_name.clone();
        member.gone = None;
    }

    /// A session leaves rooms on purpose: if it is the user's last in them, they are told at once.
    pub(super) fn leave(&mut self, id: &str, rooms: &[Room], now: Now) {
        let pid = self.sessions.get(id).map(|known| known.pid.clone());
        self.changed.extend(pid.filter(|pid| !pid.is_empty()));
        for room in rooms {
            if let Some((known, true)) = self.take_out(id, room) {
                self.remove(&known.tenant, room, &known.user_id, id, now);
            }
        }
    }

    /// A session is gone. Rooms in which it was the user's last are told after the grace period; its client may recover it.
    pub(super) fn close(&mut self, id: &str, now: Now) {
        let Some(known) = self.detach(id, now) else { return };
        if known.pid.is_empty() || !known.ready {
            return;
        }
        let Known { tenant, user_id, user_name, rooms, pid, began, .. } = known;
        self.changed.insert(pid.clone());
        let session = LostSession { id: id.into(), tenant, user_id, user_name, rooms, began };
        self.lost.put(pid, session, now.instant);
    }

    /// A session was ended by its client: it cannot be recovered, and rooms in which it was the user's last are told at once.
    /// They are told after the grace period when another session of the user was lost within it, and may come back.
    pub(super) fn end(&mut self, id: &str, now: Now) {
        let Some(known) = self.sessions.get(id) else { return };
        if !self.lost.has_recent(&known.tenant, &known.user_id, now.instant, self.grace) {
            let rooms: Vec<Room> = known.rooms.keys().cloned().collect();
            self.leave(id, &rooms, now);
        }
        let Some(Known { pid, .. }) = self.detach(id, now) else { return };
        // It may have been lost, and was about to go on.
        self.lost.take(&pid);
        self.changed.extend((!pid.is_empty()).then_some(pid));
    }

    /// The client of a lost session has asked for it.
    pub(super) fn renew(&mut self, pid: &str, now: Now) {
        self.lost.renew(pid, now.instant);
    }

    /// A session is gone, and whether its client has been told that it was ready is not known: it may come back.
    pub(super) fn lose(&mut self, id: &str, now: Now) {
        let known = self.sessions.get_mut(id);
        if let Some(known) = known.filter(|known| self.lost.get(&known.pid, now.instant).is_none()) {
            known.ready = true;
        }
        self.close(id, now);
    }

    /// Takes a session out of all that it is in; gives what it was.
    fn detach(&mut self, id: &str, now: Now) -> Option<Known> {
        let rooms = self.sessions.get(id)?.rooms.clone();
        for room in rooms.keys() {
            let Some((known, true)) = self.take_out(id, room) else { continue };
            let of_tenant = self.tenants.get_mut(&known.tenant);
            let Some(member) = of_tenant.and_then(|t| t.get_mut(room)?.get_mut(&known.user_id)) else {
                continue;
            };
            if member.announced.is_none() {
                self.remove(&known.tenant, room, &known.user_id, id, now);
                continue;
            }
            member.gone = Some(now);
            let (end, pid) = (now.instant + self.grace, known.pid);
            let (tenant, user_id) = (known.tenant, known.user_id);
            self.leaving.push_back(Leaving { end, tenant, room: room.clone(), user_id, pid });
        }
        let known = self.sessions.remove(id)?;
        self.pids.remove(&known.pid);
        Some(Known { rooms, ..known })
    }

    /// The records of sessions that have changed, by secret; nothing for those that were let go of.
    pub(super) fn changed(&mut self, now: Now) -> Vec<(String, Option<Vec<u8>>)> {
        let mut pids = std::mem::take(&mut self.changed);
        pids.extend(self.lost.gone());
        let record = |pid: Arc<str>| {
            let record = match self.live(&pid) {
                Some((session, true)) => Some(session.to_record(true)),
                _ => self.lost.get(&pid, now.instant).map(|lost| lost.to_record(self.is_announced(lost))),
            };
            (pid.to_string(), record)
        };
        pids.into_iter().map(record).collect()
    }

    /// Sessions that the process before this one knew: they are lost now, and their clients may come back.
    pub(super) fn restore(&mut self, records: Vec<(String, Vec<u8>)>, now: Now) {
        let mut pids: HashMap<(Tenant, Arc<str>), Arc<str>> = HashMap::new();
        for (pid, record) in records {
            let Some((session, announced)) = LostSession::from_record(&record) else {
                tracing::warn!("the record of a lost session is not what was written");
                continue;
            };
            let pid: Arc<str> = pid.as_str().into();
            if announced {
                self.announced_before(&session);
                pids.insert((session.tenant.clone(), session.user_id.clone()), pid.clone());
            }
            self.lost.put(pid, session, now.instant);
        }
        for (tenant, rooms) in &mut self.tenants {
            for (room, members) in rooms {
                for (user_id, member) in members {
                    member.gone = Some(now);
                    self.leaving.push_back(Leaving {
                        end: now.instant + self.grace,
                        tenant: tenant.clone(),
                        room: room.clone(),
                        user_id: user_id.clone(),
                        pid: pids.get(&(tenant.clone(), user_id.clone())).cloned().unwrap_or_default(),
                    });
                }
            }
        }
    }

    /// Whether a room of a lost session still takes its user for there.
    fn is_announced(&self, lost: &LostSession) -> bool {
        let of_tenant = self.tenants.get(&lost.tenant);
        let member = |room| of_tenant?.get(room)?.get(&lost.user_id);
        lost.rooms.keys().any(|room| member(room).is_some_and(|member| member.announced.is_some()))
    }

    /// The rooms of a session have been told of its user.
    fn announced_before(&mut self, session: &LostSession) {
        let of_tenant = self.tenants.entry(session.tenant.clone()).or_default();
        for (room, catalog) in &session.rooms {
            let member =
                of_tenant.entry(room.clone()).or_default().entry(session.user_id.clone()).or_default();
            member.name = session.user_name.clone();
            member.announced = Some(catalog.clone());
        }
    }

    /// A session must not be recovered.
    pub(super) fn forsake(&mut self, tenant: &Tenant, id: &str) {
        let known = self.sessions.get_mut(id).filter(|known| known.tenant == *tenant);
        let Some(known) = known else { return };
        known.forsaken = true;
        let pid = std::mem::take(&mut known.pid);
        if !pid.is_empty() {
            self.pids.remove(&pid);
            self.changed.insert(pid);
        }
    }

    /// The lost sessions of a tenant that are meant must not be recovered.
    pub(super) fn forsake_lost(&mut self, tenant: &Tenant, meant: impl Fn(&LostSession) -> bool) {
        self.lost.drop_where(tenant, meant);
    }

    /// The bridge of a session that is about to be ready shall be told once it is.
    pub(super) fn end_when_ready(&mut self, id: &str, end: &EndSession) {
        if let Some(known) = self.sessions.get_mut(id).filter(|known| !known.ready) {
            known.ending = Some(Box::new(end.clone()));
        }
    }

    /// What the bridge of a session that is ready now shall be told.
    pub(super) fn take_ending(&mut self, id: &str) -> Option<Box<EndSession>> {
        self.sessions.get_mut(id)?.ending.take()
    }

    /// A session that its client may go on with: one that was lost, or one whose loss its bridge has not seen yet. That may be
    /// before the bridge has told that it is ready: its client would not know the secret if it were not.
    pub(super) fn recoverable(&self, pid: &str, now: Now) -> Option<LostSession> {
        self.lost.get(pid, now.instant).cloned().or_else(|| self.live(pid).map(|(session, _)| session))
    }

    /// What a connected session would be if it were lost now, and whether it is ready.
    fn live(&self, pid: &str) -> Option<(LostSession, bool)> {
        let id = self.pids.get(pid)?;
        let known = self.sessions.get(id)?;
        let session = LostSession {
            id: id.clone(),
            tenant: known.tenant.clone(),
            user_id: known.user_id.clone(),
            user_name: known.user_name.clone(),
            rooms: known.rooms.clone(),
            began: known.began.clone(),
        };
        Some((session, known.ready))
    }

    /// A link is gone, and with it its sessions.
    pub(super) fn unlink(&mut self, link: u64, now: Now) {
        let of_link = self.sessions.iter().filter(|(_, known)| known.link == link);
        let ids: Vec<Arc<str>> = of_link.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.lose(&id, now);
        }
    }

    /// When the next grace period ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.leaving.front().map(|leaving| leaving.end)
    }

    /// Ends the grace periods that are over.
    pub(super) fn expire(&mut self, now: Now) {
        self.lost.forget(now.instant);
        while self.leaving.front().is_some_and(|leaving| leaving.end <= now.instant) {
            let Some(leaving) = self.leaving.pop_front() else { return };
            let Leaving { end, tenant, room, user_id, pid } = leaving;
            let member = self.tenants.get(&tenant).and_then(|t| t.get(&room)?.get(&user_id));
            // Back since, or gone again since: then there is a later entry.
            let gone = member.and_then(|member| member.gone);
            if let Some(gone) = gone.filter(|gone| gone.instant + self.grace == end) {
                self.remove(&tenant, &room, &user_id, "", gone);
                // Its record need not say any more that the room is to be told.
                self.changed.extend((!pid.is_empty()).then_some(pid));
            }
        }
    }

    /// Takes a session out of a room; true beside it when it was the user's last there.
    fn take_out(&mut self, id: &str, room: &Room) -> Option<(Known, bool)> {
        let known = self.sessions.get_mut(id)?;
        known.rooms.remove(room)?;
        // Without its rooms: a session that goes is taken out of each of them.
        let rooms = std::mem::take(&mut known.rooms);
        let copy = known.clone();
        known.rooms = rooms;
        let known = copy;
        let member = self.tenants.get_mut(&known.tenant)?.get_mut(room)?.get_mut(&known.user_id)?;
        member.sessions.retain(|session| &**session != id);
        let last = member.sessions.is_empty();
        Some((known, last))
    }

    /// Removes a member, and tells the room if it knew of them.
    fn remove(&mut self, tenant: &Tenant, room: &Room, user_id: &Arc<str>, session_id: &str, gone: Now) {
        let Some(of_tenant) = self.tenants.get_mut(tenant) else { return };
        let Some(members) = of_tenant.get_mut(room) else { return };
        let Some(member) = members.remove(user_id) else { return };
        if members.is_empty() {
            of_tenant.remove(room);
        }
        if of_tenant.is_empty() {
            self.tenants.remove(tenant);
        }
        let Some(catalog) = member.announced else { return };
        self.transitions.push_back(Transition {
            tenant: tenant.clone(),
            room: room.clone(),
            user_id: user_id.clone(),
            user_name: member.name,
            session_id: session_id.into(),
            catalog,
            came: false,
            time: gone.time,
        });
    }

    fn members(&self, tenant: &Tenant, room: &Room) -> Option<&Members> {
        self.tenants.get(tenant)?.get(room)
    }

    /// The members of a room behind a user id, by user id.
    pub(super) fn list(&self, tenant: &Tenant, room: &Room, after: &str, limit: usize) -> Vec<Listed> {
        let Some(members) = self.members(tenant, room) else { return Vec::new() };
        let from = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        let listed = |(user_id, member): (&Arc<str>, &Member)| Listed {
            user_id: user_id.clone(),
            user_name: member.name.clone(),
            sessions: member.sessions.clone(),
        };
        members.range::<str, _>((from, Bound::Unbounded)).take(limit).map(listed).collect()
    }

    /// How many users and sessions are in a room.
    pub(super) fn count(&self, tenant: &Tenant, room: &Room) -> (usize, usize) {
        let members = self.members(tenant, room);
        let sessions = members.into_iter().flat_map(BTreeMap::values).map(|m| m.sessions.len()).sum();
        (members.map_or(0, BTreeMap::len), sessions)
    }

    /// The tenants that have members.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.keys()
    }

    /// The rooms of a tenant with at least one session.
    pub(super) fn rooms(&self, tenant: &Tenant) -> impl Iterator<Item = &Room> {
        let rooms = self.tenants.get(tenant).into_iter().flatten();
        rooms.filter(|(_, members)| members.values().any(|m| !m.sessions.is_empty())).map(|(room, _)| room)
    }

    /// How many users with a session are in a room, and how many sessions.
    pub(super) fn present(&self, tenant: &Tenant, room: &Room) -> (usize, usize) {
        let members = self.members(tenant, room).into_iter().flat_map(BTreeMap::values);
        members.filter(|m| !m.sessions.is_empty()).fold((0, 0), |(u, s), m| (u + 1, s + m.sessions.len()))
    }

    /// How many sessions there are.
    pub(super) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Whether nothing is held: for tests of what is left behind.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.tenants.is_empty()
            && self.sessions.is_empty()
            && self.leaving.is_empty()
            && self.pids.is_empty()
            && self.lost.is_empty()
    }
}
