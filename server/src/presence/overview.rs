//! What those who administer see of presence. Every answer is bounded; the looking through is done under the one lock, so it is short.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use fanfare_proto::{
    room::{Room, Tenant},
    v1::{RoomInfo, SessionInfo},
};

use super::{Known, Link, Presence, session_presence};

/// Users that are looked at under one lock.
const USERS_AT_ONCE: usize = 1024;

/// What a tenant has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// With at least one session.
    pub(crate) users: usize,
    pub(crate) sessions: usize,
    /// With at least one session.
    pub(crate) rooms: usize,
}

impl Presence {
    /// The tenants that have sessions, in no particular order.
    pub(crate) fn tenants(&self) -> Vec<Tenant> {
        self.lock().tenants().cloned().collect()
    }

    /// What a tenant has.
    pub(crate) fn tally(&self, tenant: &Tenant) -> Tally {
        let roster = self.lock();
        let (users, sessions) = roster.present(tenant, &Room::org());
        Tally { users, sessions, rooms: roster.rooms(tenant).count() }
    }

    /// How many users of a tenant are connected.
    pub(crate) fn user_count(&self, tenant: &Tenant) -> usize {
        self.lock().present(tenant, &Room::org()).0
    }

    /// How many sessions there are.
    pub(crate) fn session_count(&self) -> usize {
        self.lock().session_count()
    }

    /// The first rooms of a tenant, by name, of those whose name contains a text; and how many those are.
    pub(crate) fn find_rooms(&self, tenant: &Tenant, search: &str, limit: usize) -> (Vec<RoomInfo>, usize) {
        let (mut first, mut total) = (BTreeSet::new(), 0);
        let roster = self.lock();
        for room in roster.rooms(tenant).filter(|room| room.as_str().contains(search)) {
            total += 1;
            first.insert(room.clone());
            if first.len() > limit {
                first.pop_last();
            }
        }
        let info = |room: &Room| {
            let (users, sessions) = roster.present(tenant, room);
            let room = room.as_str().to_owned();
            RoomInfo { room, users: users as u64, sessions: sessions as u64 }
        };
        (first.iter().map(info).collect(), total)
    }

    /// The first sessions in a room, by user id and session id, of those whose id, user id or user name contains a text; and how
    /// many those are.
    pub(crate) fn find_sessions(
        &self,
        tenant: &Tenant,
        room: &Room,
        search: &str,
        limit: usize,
    ) -> (Vec<SessionInfo>, usize) {
        let (mut chosen, mut total): (Vec<Arc<str>>, usize) = (Vec::new(), 0);
        let lower = search.to_lowercase();
        let mut after: Arc<str> = "".into();
        loop {
            let users = self.lock().list(tenant, room, &after, USERS_AT_ONCE);
            let Some(last) = users.last() else { break };
            after = last.user_id.clone();
            for user in users {
                let all = user.user_id.contains(search) || user.user_name.to_lowercase().contains(&lower);
                let mut sessions = user.sessions;
                sessions.retain(|id| all || id.contains(search));
                sessions.sort_unstable();
                total += sessions.len();
                chosen.extend(sessions.into_iter().take(limit - chosen.len()));
            }
        }
        let roster = self.lock();
        let links = self.links();
        let info = |id: Arc<str>| Some(info(&id, roster.session(&id)?, &links));
        (chosen.into_iter().filter_map(info).collect(), total)
    }

    /// A session, and the number of its bridge's link.
    pub(crate) fn find_session(&self, tenant: &Tenant, id: &str) -> Option<(SessionInfo, u64)> {
        let roster = self.lock();
        let known = roster.session(id).filter(|known| known.tenant == *tenant)?;
        Some((info(id, known, &self.links()), known.link))
    }
}

fn info(id: &str, known: &Known, links: &HashMap<u64, Arc<Link>>) -> SessionInfo {
    SessionInfo {
        tenant: known.tenant.as_str().to_owned(),
        user_id: known.user_id.to_string(),
        user_name: known.user_name.to_string(),
        session: Some(session_presence(id, known, links)),
    }
}
