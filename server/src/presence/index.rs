//! The users of this server's tenants, indexed by room and by session. The index reflects the
//! records in the store, and every query is answered from it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use fanfare_proto::{
    room::{Room, Tenant},
    v1::{EndSession, LeaveRooms, Reason},
};

use super::{
    links::Order,
    user::{RemovedRoom, Session, State, User},
};
use crate::engine::ServerId;

/// The user that a record belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct UserKey {
    pub(super) tenant: Tenant,
    pub(super) user_id: Arc<str>,
}

/// Known users.
#[derive(Debug)]
pub(super) struct Index {
    server: ServerId,
    tenants: HashMap<Tenant, OfTenant>,
    /// The user of each connected session, by session id.
    owners: HashMap<Arc<str>, UserKey>,
    /// The number of this server's connected sessions.
    own_sessions: usize,
    /// Lost sessions whose recovery window this server tracks, oldest first.
    lost: BTreeSet<LostKey>,
    lost_of_tenant: HashMap<Tenant, BTreeSet<LostKey>>,
}

/// When a session was lost, its user, and its secret.
type LostKey = (u64, UserKey, Arc<str>);

#[derive(Debug, Default)]
struct OfTenant {
    users: BTreeMap<Arc<str>, Known>,
    /// The users of each room: those with a session in it, and those announced to it.
    rooms: HashMap<Room, BTreeSet<Arc<str>>>,
    /// Removed records, until the feed confirms the removal.
    removed: HashMap<Arc<str>, u64>,
}

/// A user's record and its revision.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) user: Arc<User>,
    pub(super) revision: u64,
}

impl Index {
    pub(super) fn new(server: ServerId) -> Self {
        let (tenants, owners, own_sessions, lost, lost_of_tenant) = Default::default();
        Self { server, tenants, owners, own_sessions, lost, lost_of_tenant }
    }

    /// The number of lost sessions that this server tracks: in total, and of the tenant with the
    /// most.
    pub(super) fn lost_counts(&self) -> (usize, usize) {
        let of_tenant = self.lost_of_tenant.values().map(BTreeSet::len).max();
        (self.lost.len(), of_tenant.unwrap_or_default())
    }

    /// A user, if known.
    pub(super) fn get(&self, key: &UserKey) -> Option<Known> {
        self.tenants.get(&key.tenant)?.users.get(&key.user_id).cloned()
    }

    /// The newest known revision of a user's record, including that of a removal.
    pub(super) fn revision(&self, key: &UserKey) -> u64 {
        let Some(of_tenant) = self.tenants.get(&key.tenant) else { return 0 };
        let known = of_tenant.users.get(&key.user_id).map(|known| known.revision);
        known.max(of_tenant.removed.get(&key.user_id).copied()).unwrap_or_default()
    }

    /// The revisions of all known users of a tenant.
    pub(super) fn revisions(&self, tenant: &Tenant) -> Vec<(Arc<str>, u64)> {
        self.users(tenant).map(|(user_id, known)| (user_id.clone(), known.revision)).collect()
    }

    /// Whether this server has a connected session of a user.
    pub(super) fn has_own(&self, key: &UserKey) -> bool {
        let is_own = |session: &Session| session.owner.server == self.server;
        self.get(key).is_some_and(|known| known.user.connected().any(is_own))
    }

    /// The user of the connected session with this id.
    pub(super) fn owner(&self, session_id: &str) -> Option<&UserKey> {
        self.owners.get(session_id)
    }

    /// The connected session with this id, and its user.
    pub(super) fn session(&self, session_id: &str) -> Option<(&UserKey, &Session)> {
        let key = self.owners.get(session_id)?;
        let known = self.tenants.get(&key.tenant)?.users.get(&key.user_id)?;
        Some((key, known.user.session(session_id)?))
    }

    /// Takes over a record, unless a newer one is known. `is_feed`: the record comes from the feed,
    /// so that no older one can follow. Returns orders for links of this server.
    pub(super) fn put(
        &mut self,
        key: &UserKey,
        user: Option<Arc<User>>,
        revision: u64,
        is_feed: bool,
    ) -> Vec<(u64, Order)> {
        let of_tenant = self.tenants.entry(key.tenant.clone()).or_default();
        let removed = of_tenant.removed.get(&key.user_id).copied().unwrap_or_default();
        let known = of_tenant.users.get(&key.user_id).cloned();
        if is_feed && revision >= removed {
            of_tenant.removed.remove(&key.user_id);
        }
        if revision <= removed.max(known.as_ref().map_or(0, |known| known.revision)) {
            return Vec::new();
        }
        let before = known.map(|known| known.user).unwrap_or_default();
        let after = user.clone().unwrap_or_default();
        match user {
            Some(user) => _ = of_tenant.users.insert(key.user_id.clone(), Known { user, revision }),
            None => {
                of_tenant.users.remove(&key.user_id);
                if !is_feed {
                    of_tenant.removed.insert(key.user_id.clone(), revision);
                }
            }
        }
        of_tenant.move_rooms(&key.user_id, &before, &after);
        self.move_sessions(key, &before, &after);
        self.free(&key.tenant);
        let mut orders = ends(&self.server, key, &before, &after);
        orders.extend(leaves(&self.server, key, &before, &after));
        orders
    }

    fn move_sessions(&mut self, key: &UserKey, before: &User, after: &User) {
        for session in before.connected().filter(|session| after.session(&session.id).is_none()) {
            self.owners.remove(&session.id);
        }
        for session in after.connected().filter(|session| before.session(&session.id).is_none()) {
            self.owners.insert(session.id.clone(), key.clone());
        }
        let own = |user: &User| user.connected().filter(|s| s.owner.server == self.server).count();
        self.own_sessions = self.own_sessions + own(after) - own(before);
        let lost = |user: &User| -> Vec<LostKey> {
            let own = user.sessions.iter().filter(|session| session.owner.server == self.server);
            own.filter_map(|session| match session.state {
                State::Lost(at) => Some((at, key.clone(), session.pid.clone())),
                _ => None,
            })
            .collect()
        };
        let (before, after) = (lost(before), lost(after));
        if before.is_empty() && after.is_empty() {
            return;
        }
        let of_tenant = self.lost_of_tenant.entry(key.tenant.clone()).or_default();
        for lost in &before {
            self.lost.remove(lost);
            of_tenant.remove(lost);
        }
        for lost in after {
            self.lost.insert(lost.clone());
            of_tenant.insert(lost);
        }
        if of_tenant.is_empty() {
            self.lost_of_tenant.remove(&key.tenant);
        }
    }

    /// The oldest lost session of a tenant, if the tenant or all tenants together exceed their
    /// limit.
    pub(super) fn excess(
        &self,
        tenant: &Tenant,
        per_tenant: usize,
        all: usize,
    ) -> Option<(UserKey, Arc<str>)> {
        let of_tenant = self.lost_of_tenant.get(tenant)?;
        let is_full = of_tenant.len() > per_tenant || self.lost.len() > all;
        let (_, key, pid) = of_tenant.first().filter(|_| is_full)?;
        Some((key.clone(), pid.clone()))
    }

    /// Removes a tenant from the index.
    pub(super) fn forget(&mut self, tenant: &Tenant) {
        let users: Option<Vec<Arc<str>>> =
            self.tenants.get(tenant).map(|of_tenant| of_tenant.users.keys().cloned().collect());
        for user_id in users.unwrap_or_default() {
            let key = UserKey { tenant: tenant.clone(), user_id };
            self.put(&key, None, u64::MAX, true);
        }
        self.tenants.remove(tenant);
    }

    fn free(&mut self, tenant: &Tenant) {
        let is_empty = |t: &OfTenant| t.users.is_empty() && t.removed.is_empty();
        if self.tenants.get(tenant).is_some_and(is_empty) {
            self.tenants.remove(tenant);
        }
    }

    /// The tenants with known users.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.iter().filter(|(_, of_tenant)| !of_tenant.users.is_empty()).map(|(tenant, _)| tenant)
    }

    /// Whether this server has sessions or pending work of a tenant's users.
    pub(super) fn is_occupied(&self, tenant: &Tenant) -> bool {
        let own = |known: &Known| {
            let waits = || known.user.announced.iter().filter_map(|announced| announced.gone.as_ref());
            known.user.sessions.iter().any(|session| session.owner.server == self.server)
                || waits().any(|(_, server)| *server == self.server)
                || !known.user.pending.is_empty()
        };
        self.tenants.get(tenant).is_some_and(|of_tenant| of_tenant.users.values().any(own))
    }

    /// The known users of a tenant.
    pub(super) fn users(&self, tenant: &Tenant) -> impl Iterator<Item = (&Arc<str>, &Known)> {
        self.tenants.get(tenant).into_iter().flat_map(|of_tenant| &of_tenant.users)
    }

    /// The members of a room after a user id, by user id.
    pub(super) fn members(
        &self,
        tenant: &Tenant,
        room: &Room,
        after: &str,
        limit: usize,
    ) -> Vec<(Arc<str>, Arc<User>)> {
        let Some(of_tenant) = self.tenants.get(tenant) else { return Vec::new() };
        let Some(members) = of_tenant.rooms.get(room) else { return Vec::new() };
        let from = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        let after = members.range::<str, _>((from, Bound::Unbounded)).take(limit);
        let known = |id: &Arc<str>| Some((id.clone(), of_tenant.users.get(id)?.user.clone()));
        after.filter_map(known).collect()
    }

    /// The number of users and sessions in a room; users in their grace period count.
    pub(super) fn count(&self, tenant: &Tenant, room: &Room) -> (usize, usize) {
        let Some(of_tenant) = self.tenants.get(tenant) else { return (0, 0) };
        let Some(members) = of_tenant.rooms.get(room) else { return (0, 0) };
        (members.len(), of_tenant.sessions_in(room, members).sum())
    }

    /// The number of users with a session in a room, and the number of sessions.
    pub(super) fn present(&self, tenant: &Tenant, room: &Room) -> (usize, usize) {
        let Some(of_tenant) = self.tenants.get(tenant) else { return (0, 0) };
        let Some(members) = of_tenant.rooms.get(room) else { return (0, 0) };
        let counts = of_tenant.sessions_in(room, members).filter(|count| *count > 0);
        counts.fold((0, 0), |(users, sessions), count| (users + 1, sessions + count))
    }

    /// The rooms of a tenant with at least one session.
    pub(super) fn rooms(&self, tenant: &Tenant) -> impl Iterator<Item = &Room> {
        self.tenants.get(tenant).into_iter().flat_map(|of_tenant| {
            let has_session = |(room, members): &(&Room, &BTreeSet<Arc<str>>)| {
                of_tenant.sessions_in(room, members).any(|count| count > 0)
            };
            of_tenant.rooms.iter().filter(has_session).map(|(room, _)| room)
        })
    }

    /// The number of this server's connected sessions.
    pub(super) const fn own_sessions(&self) -> usize {
        self.own_sessions
    }

    /// The users of the connected sessions of a link of this server.
    pub(super) fn of_link(&self, link: u64) -> BTreeSet<UserKey> {
        let of_link = |(id, key): &(&Arc<str>, &UserKey)| {
            self.get(key).is_some_and(|known| {
                known.user.session(id).is_some_and(|session| session.is_of(&self.server, link))
            })
        };
        self.owners.iter().filter(of_link).map(|(_, key)| key.clone()).collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.tenants.is_empty()
            && self.owners.is_empty()
            && self.lost.is_empty()
            && self.lost_of_tenant.is_empty()
    }
}

impl OfTenant {
    fn move_rooms(&mut self, user_id: &Arc<str>, before: &User, after: &User) {
        for room in rooms(before).filter(|room| !is_member(after, room)) {
            if let Some(members) = self.rooms.get_mut(room) {
                members.remove(user_id);
                if members.is_empty() {
                    self.rooms.remove(room);
                }
            }
        }
        for room in rooms(after).filter(|room| !is_member(before, room)) {
            if let Some(members) = self.rooms.get_mut(room) {
                members.insert(user_id.clone());
            } else {
                self.rooms.insert(room.clone(), BTreeSet::from([user_id.clone()]));
            }
        }
    }

    fn sessions_in<'a>(
        &'a self,
        room: &'a Room,
        members: &'a BTreeSet<Arc<str>>,
    ) -> impl Iterator<Item = usize> {
        members.iter().filter_map(|id| self.users.get(id)).map(|known| known.user.count_in(room))
    }
}

fn rooms(user: &User) -> impl Iterator<Item = &Room> {
    let of_sessions = user.connected().flat_map(|session| session.rooms.iter().map(|(room, _)| room));
    of_sessions.chain(user.announced.iter().map(|announced| &announced.room))
}

fn is_member(user: &User, room: &Room) -> bool {
    user.connected().any(|session| session.rooms.contains(room))
        || user.announced.binary_search_by(|announced| announced.room.cmp(room)).is_ok()
}

/// Sessions of this server's links that must end, because the record says so or because they
/// continue over another connection.
fn ends(server: &ServerId, key: &UserKey, before: &User, after: &User) -> Vec<(u64, Order)> {
    let mut ends = Vec::new();
    for session in after.connected().filter(|session| session.owner.server == *server) {
        let Some(end) = &session.ending else { continue };
        let was_told = before.session(&session.id).is_some_and(|old| {
            old.owner == session.owner && old.state == session.state && old.ending == session.ending
        });
        if !was_told {
            ends.push((session.owner.link, Order::End((**end).clone())));
        }
    }
    for old in before.connected().filter(|session| session.owner.server == *server) {
        let has_moved = |new: &Session| new.owner.instance != old.owner.instance;
        let is_handed_over = |new: &Session| {
            let was = before.sessions.iter().any(|s| s.id == old.id && s.is_handed_over);
            new.id == old.id && new.is_handed_over && !was
        };
        if after.session(&old.id).is_some_and(has_moved) || after.sessions.iter().any(is_handed_over) {
            ends.push((old.owner.link, Order::End(goes_on_elsewhere(key, &old.id))));
        }
    }
    ends
}

/// Sessions of this server's links that must leave rooms, because the record says so.
fn leaves(server: &ServerId, key: &UserKey, before: &User, after: &User) -> Vec<(u64, Order)> {
    let mut leaves = Vec::new();
    for session in after.connected().filter(|session| session.owner.server == *server) {
        let old = before.session(&session.id);
        let old = old.filter(|old| old.owner == session.owner && old.state == session.state);
        let was_told = |removal: &&RemovedRoom| old.is_some_and(|old| old.removals.contains(removal));
        let new = session.removals.iter().filter(|removal| !was_told(removal));
        let rooms: Vec<String> = new.map(|removal| removal.room.as_str().to_owned()).collect();
        if !rooms.is_empty() {
            let (tenant, session_id) = (key.tenant.as_str().to_owned(), session.id.to_string());
            leaves.push((session.owner.link, Order::Leave(LeaveRooms { tenant, session_id, rooms })));
        }
    }
    leaves
}

/// The order to end a session that another connection has taken over.
pub(super) fn goes_on_elsewhere(key: &UserKey, session_id: &str) -> EndSession {
    EndSession {
        tenant: key.tenant.as_str().to_owned(),
        user_id: key.user_id.to_string(),
        session_id: session_id.to_owned(),
        reason: Reason::Reconnect.into(),
        message: "the session goes on over another connection".into(),
    }
}
