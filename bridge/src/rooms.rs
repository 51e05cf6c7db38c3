//! The registry of sessions and rooms, divided into shards.
//!
//! An event reaches each session in any of its rooms exactly once, in the order of the link.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use fanfare_proto::room::{Room, Tenant};

use crate::{
    event::{Event, Run},
    session::Session,
    shard::{Members, Shard},
    stats::Stats,
};

/// All sessions that are in rooms. A session belongs to one shard, chosen by its id.
#[derive(Debug)]
pub(crate) struct Rooms {
    pub(crate) shards: Vec<Arc<Shard>>,
    hasher: RandomState,
}

impl Rooms {
    /// A registry of at least one shard.
    pub(crate) fn new(shards: usize) -> Self {
        let shards = (0..shards.max(1)).map(|_| Arc::default()).collect();
        Self { shards, hasher: RandomState::new() }
    }

    fn shard(&self, session_id: &str) -> &Shard {
        let hash = usize::try_from(self.hasher.hash_one(session_id) >> 1).unwrap_or_default();
        &self.shards[hash % self.shards.len()]
    }

    /// Adds a session to rooms; returns the rooms that are new to it. What `first` sends precedes
    /// all events of these rooms, and everything delivered afterwards reaches the session.
    pub(crate) fn enter(&self, session: &Arc<Session>, rooms: &[Room], first: impl FnOnce()) -> Vec<Room> {
        self.shard(session.id()).enter(session, rooms, first)
    }

    /// Removes a session from rooms; returns those it was in.
    pub(crate) fn leave(&self, session: &Arc<Session>, rooms: &[Room]) -> Vec<Room> {
        self.shard(session.id()).leave(session, rooms)
    }

    /// Removes a session from all rooms and from the registry; returns the rooms it was in.
    pub(crate) fn remove(&self, session: &Arc<Session>) -> Vec<Room> {
        self.shard(session.id()).remove(session)
    }

    /// Finds a session of a tenant.
    pub(crate) fn find(&self, tenant: &Tenant, session_id: &str) -> Option<Arc<Session>> {
        self.shard(session_id).find(tenant, session_id)
    }

    /// All sessions, or those of one tenant.
    pub(crate) fn sessions(&self, tenant: Option<&Tenant>) -> Vec<Arc<Session>> {
        self.everybody(tenant).iter().flat_map(|members| members.iter().cloned()).collect()
    }

    /// All sessions, or those of one tenant, as several lists.
    pub(crate) fn everybody(&self, tenant: Option<&Tenant>) -> Vec<Members> {
        self.shards.iter().flat_map(|shard| shard.everybody(tenant)).collect()
    }

    /// Delivers a batch of one tenant's events. Never waits.
    pub(crate) fn deliver(&self, tenant: &Tenant, events: Vec<Arc<Event>>, stats: &Stats) {
        stats.tenants.add(tenant, events.len());
        let runs = Run::split(events, self.shards.len());
        stats.count_events(runs.iter().map(|run| run.events.len()).sum());
        self.shards.iter().for_each(|shard| shard.deliver(tenant, &runs, stats));
    }

    /// Resolves when every shard has little left to deliver.
    pub(crate) async fn settle(&self) {
        for shard in &self.shards {
            shard.settle().await;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
