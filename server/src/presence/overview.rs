//! Answers about present users. Every answer is bounded.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashSet},
    sync::{Arc, atomic::Ordering},
};

use fanfare_proto::{
    catalog::Member,
    room::{Room, Tenant},
    v1::{RoomInfo, RoomOrder, SessionInfo, SessionPresence, UserPresence},
};

use super::{
    Presence, SessionOwner,
    index::UserKey,
    user::{Session, User},
};
use crate::{config::PresenceConfig, engine::ServerId, error::Refusal};

/// Maximum number of users that a query lists.
const MEMBERS_MAX: usize = 1000;
/// Number of users that are examined under one lock.
const USERS_AT_ONCE: usize = 1024;

/// The users of a room, and their total number.
#[derive(Debug, Default)]
pub(crate) struct Members {
    pub(crate) users: Vec<UserPresence>,
    /// Whether there are more users.
    pub(crate) more: bool,
    pub(crate) user_count: usize,
    pub(crate) session_count: usize,
}

/// The numbers of a tenant.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Users with at least one session.
    pub(crate) users: usize,
    pub(crate) sessions: usize,
    /// Rooms with at least one session.
    pub(crate) rooms: usize,
}

/// The usage of presence, compared with its limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Lost sessions that can be recovered: in total, and of the tenant with the most.
    pub(crate) recoverable: usize,
    pub(crate) recoverable_of_tenant: usize,
    /// The number of changes that wait for the store, and the maximum.
    pub(crate) backlog: (usize, usize),
    /// Users with unpublished transitions.
    pub(crate) unpublished: usize,
    /// Whether the store currently refuses writes.
    pub(crate) is_failing: bool,
}

impl Presence {
    /// The current usage.
    pub(crate) fn usage(&self) -> Usage {
        let (recoverable, recoverable_of_tenant) = self.index().lost_counts();
        Usage {
            recoverable,
            recoverable_of_tenant,
            backlog: self.backlog.usage(),
            unpublished: self.unpublished.len(),
            is_failing: self.is_failing.load(Ordering::Relaxed),
        }
    }

    /// The limits for lost sessions.
    pub(crate) const fn config(&self) -> &PresenceConfig {
        &self.config
    }

    /// Whether a user's session is in a room.
    pub(crate) async fn is_in(
        self: &Arc<Self>,
        tenant: &Tenant,
        user_id: &str,
        session_id: &str,
        room: &Room,
    ) -> Result<bool, Refusal> {
        if session_id.is_empty() {
            return Ok(false);
        }
        self.follow(tenant).await?;
        let known = self.index().get(&UserKey { tenant: tenant.clone(), user_id: user_id.into() });
        let is_in = |session: &Session| session.is_connected() && session.rooms.contains(room);
        Ok(known.is_some_and(|known| known.user.session(session_id).is_some_and(is_in)))
    }

    /// The members of a room, for a query of a catalog.
    pub(crate) async fn members(
        self: &Arc<Self>,
        tenant: &Tenant,
        room: &Room,
    ) -> Result<Vec<Member>, Refusal> {
        self.follow(tenant).await?;
        let members = self.index().members(tenant, room, "", MEMBERS_MAX);
        let member = |(user_id, user): (Arc<str>, Arc<User>)| Member {
            user_id: user_id.to_string(),
            user_name: user.name.to_string(),
            online: user.count_in(room) > 0,
        };
        Ok(members.into_iter().map(member).collect())
    }

    /// Up to `limit` users of a room after a user id.
    pub(crate) async fn list(
        self: &Arc<Self>,
        tenant: &Tenant,
        room: &Room,
        after: &str,
        limit: usize,
    ) -> Result<Members, Refusal> {
        self.follow(tenant).await?;
        let (mut members, (user_count, session_count)) = {
            let index = self.index();
            (index.members(tenant, room, after, limit + 1), index.count(tenant, room))
        };
        let more = members.len() > limit;
        members.truncate(limit);
        let user = |(user_id, user): (Arc<str>, Arc<User>)| {
            let sessions = user.connected().filter(|session| session.rooms.contains(room));
            let sessions: Vec<SessionPresence> = sessions.map(session_presence).collect();
            UserPresence {
                user_id: user_id.to_string(),
                user_name: user.name.to_string(),
                online: !sessions.is_empty(),
                sessions,
            }
        };
        Ok(Members { users: members.into_iter().map(user).collect(), more, user_count, session_count })
    }

    /// The tenants of which any server has sessions, in no particular order.
    pub(crate) fn tenants(&self) -> HashSet<Tenant> {
        let mut tenants = self.group.tenants();
        tenants.extend(self.index().tenants().cloned());
        tenants
    }

    /// The servers of the group that are alive, as far as this one knows.
    pub(crate) fn servers(&self) -> Vec<ServerId> {
        self.group.servers()
    }

    /// The numbers of a tenant.
    pub(crate) async fn tally(self: &Arc<Self>, tenant: &Tenant) -> Result<Tally, Refusal> {
        self.follow(tenant).await?;
        let index = self.index();
        let (users, sessions) = index.present(tenant, &Room::org());
        Ok(Tally { users, sessions, rooms: index.rooms(tenant).count() })
    }

    /// The number of connected users, of the tenants that this server follows.
    pub(crate) fn user_count(&self) -> usize {
        let index = self.index();
        index.tenants().map(|tenant| index.present(tenant, &Room::org()).0).sum()
    }

    /// The number of sessions connected to bridges of this server.
    pub(crate) fn session_count(&self) -> usize {
        self.index().own_sessions()
    }

    /// The first rooms of a tenant whose name contains `search`, by name or by sessions, and the
    /// number of all such rooms.
    pub(crate) async fn find_rooms(
        self: &Arc<Self>,
        tenant: &Tenant,
        search: &str,
        limit: usize,
        order: RoomOrder,
    ) -> Result<(Vec<RoomInfo>, usize), Refusal> {
        self.follow(tenant).await?;
        let (mut first, mut total) = (BTreeSet::new(), 0);
        let index = self.index();
        for room in index.rooms(tenant).filter(|room| room.as_str().contains(search)) {
            total += 1;
            let rank = match order {
                RoomOrder::Unspecified => 0,
                RoomOrder::Sessions => index.present(tenant, room).1,
            };
            first.insert((Reverse(rank), room.clone()));
            if first.len() > limit {
                first.pop_last();
            }
        }
        let info = |(_, room): &(Reverse<usize>, Room)| {
            let (users, sessions) = index.present(tenant, room);
            let room = room.as_str().to_owned();
            RoomInfo { room, users: users as u64, sessions: sessions as u64 }
        };
        Ok((first.iter().map(info).collect(), total))
    }

    /// The first sessions in a room whose id, user id or user name contains `search`, by user id
    /// and session id, and the number of all such sessions.
    pub(crate) async fn find_sessions(
        self: &Arc<Self>,
        tenant: &Tenant,
        room: &Room,
        search: &str,
        limit: usize,
    ) -> Result<(Vec<SessionInfo>, usize), Refusal> {
        self.follow(tenant).await?;
        let (mut chosen, mut total): (Vec<SessionInfo>, usize) = (Vec::new(), 0);
        let lower = search.to_lowercase();
        let mut after: Arc<str> = "".into();
        loop {
            let users = self.index().members(tenant, room, &after, USERS_AT_ONCE);
            let Some((last, _)) = users.last() else { break };
            after = last.clone();
            for (user_id, user) in users {
                let all = user_id.contains(search) || user.name.to_lowercase().contains(&lower);
                let in_room = user.connected().filter(|session| session.rooms.contains(room));
                let mut sessions: Vec<&Session> =
                    in_room.filter(|session| all || session.id.contains(search)).collect();
                sessions.sort_unstable_by(|a, b| a.id.cmp(&b.id));
                total += sessions.len();
                let key = UserKey { tenant: tenant.clone(), user_id };
                let infos = sessions.into_iter().map(|session| info(&key, &user, session));
                chosen.extend(infos.take(limit - chosen.len()));
            }
        }
        Ok((chosen, total))
    }

    /// A session and its connection.
    pub(crate) async fn find_session(
        self: &Arc<Self>,
        tenant: &Tenant,
        id: &str,
    ) -> Result<Option<(SessionInfo, SessionOwner)>, Refusal> {
        self.follow(tenant).await?;
        let index = self.index();
        let found = index.session(id).filter(|(key, _)| key.tenant == *tenant);
        let Some((key, session)) = found else { return Ok(None) };
        let user = index.get(key).map(|known| known.user).unwrap_or_default();
        Ok(Some((info(key, &user, session), session.owner.clone())))
    }
}

fn session_presence(session: &Session) -> SessionPresence {
    SessionPresence {
        session_id: session.id.to_string(),
        transport: session.transport.into(),
        connected_at: Some(session.since),
        bridge: session.owner.bridge.to_string(),
        // Sorted by name, like the stored list.
        rooms: session.rooms.iter().map(|(room, _)| room.as_str().to_owned()).collect(),
    }
}

fn info(key: &UserKey, user: &User, session: &Session) -> SessionInfo {
    SessionInfo {
        tenant: key.tenant.as_str().to_owned(),
        user_id: key.user_id.to_string(),
        user_name: user.name.to_string(),
        session: Some(session_presence(session)),
    }
}
