//! The range of each tenant's log that readers see, and the log's followers. A log's lock is held
//! while a commit is announced, so feeds have the order of the log.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use fanfare_proto::room::Tenant;

use super::{log::Log, store::Loaded};
use crate::{
    engine::{Feed, Followers, OWN_TENANT},
    event::Event,
};

/// The places of all tenants that have a log or a follower. The locks are held only briefly.
#[derive(Debug)]
pub(super) struct Places(RwLock<State>);

#[derive(Debug)]
struct State {
    places: HashMap<Tenant, Arc<Mutex<Place>>>,
    /// The seq at which new logs begin: after every freed log, so that no place is assigned twice.
    floor: u64,
}

#[derive(Debug)]
struct Place {
    ends: Ends,
    followers: Followers,
}

/// The ends of a log as readers see them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// The log's number in the store; absent if the tenant has no log.
    pub(super) number: Option<u32>,
    /// The seq before the oldest event.
    pub(super) base: u64,
    /// The newest seq.
    pub(super) head: u64,
}

fn locked(place: &Mutex<Place>) -> MutexGuard<'_, Place> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn place(&mut self, tenant: &Tenant) -> &Arc<Mutex<Place>> {
        let ends = Ends { number: None, base: self.floor, head: self.floor };
        let new = || Arc::new(Mutex::new(Place { ends, followers: Followers::default() }));
        self.places.entry(tenant.clone()).or_insert_with(new)
    }
}

impl Places {
    pub(super) fn new(floor: u64) -> Self {
        Self(RwLock::new(State { places: HashMap::new(), floor }))
    }

    pub(super) fn ends(&self, tenant: &Tenant) -> Ends {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let nothing = Ends { number: None, base: state.floor, head: state.floor };
        state.places.get(tenant).map_or(nothing, |place| locked(place).ends)
    }

    /// Tenants that have a log.
    pub(super) fn tenants(&self, limit: usize) -> Vec<Tenant> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let logs = state.places.iter().filter(|(_, place)| locked(place).ends.number.is_some());
        logs.take(limit).map(|(tenant, _)| tenant.clone()).collect()
    }

    /// Follows a tenant from its head; absent if there are too many tenants.
    pub(super) fn follow(&self, tenant: &Tenant, tenants_max: usize) -> Option<(u64, Feed<Arc<Event>>)> {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_known = state.places.contains_key(tenant) || tenant.as_str() == OWN_TENANT;
        if !is_known && state.places.len() > tenants_max {
            return None;
        }
        let mut place = locked(state.place(tenant));
        Some((place.ends.head, place.followers.add()))
    }

    /// Publishes a commit: readers see the new ends of the log, and followers get its events.
    pub(super) fn publish(&self, tenant: &Tenant, log: Option<&Log>, events: &[Arc<Event>]) {
        let place = self.0.write().unwrap_or_else(PoisonError::into_inner).place(tenant).clone();
        let mut place = locked(&place);
        if let Some(log) = log {
            place.ends = Ends { number: Some(log.number), base: log.base(), head: log.head };
        }
        if !events.is_empty() {
            place.followers.send(events.iter());
        }
    }

    /// Frees a log. Its followers continue at its end.
    pub(super) fn free(&self, tenant: &Tenant, head: u64) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.floor = state.floor.max(head);
        let Some(place) = state.places.get(tenant).cloned() else { return };
        let mut place = locked(&place);
        place.ends = Ends { number: None, base: head, head };
        if place.followers.is_empty() {
            state.places.remove(tenant);
        }
    }

    /// Removes places that have neither a log nor a follower.
    pub(super) fn sweep(&self) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let State { places, floor } = &mut *state;
        places.retain(|_, place| {
            let mut place = locked(place);
            let is_used = place.ends.number.is_some() || !place.followers.is_empty();
            if !is_used {
                *floor = (*floor).max(place.ends.head);
            }
            is_used
        });
    }

    /// Takes over the logs of a newly opened store. Where these differ from what followers have
    /// seen, the feeds end: the followers read the log and follow again.
    pub(super) fn take_over(&self, loaded: &[Loaded], floor: u64) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.floor = state.floor.max(floor);
        let known: HashMap<&Tenant, &Loaded> = loaded.iter().map(|log| (&log.tenant, log)).collect();
        for (tenant, place) in &state.places {
            let mut place = locked(place);
            match known.get(tenant) {
                Some(log) if log.head == place.ends.head => {}
                Some(_) => place.followers.cut(),
                None if place.ends.number.is_some() => {
                    let head = place.ends.head;
                    place.ends = Ends { number: None, base: head, head };
                }
                None => {}
            }
        }
        for log in loaded {
            let base = log.head - log.retained.len() as u64;
            locked(state.place(&log.tenant)).ends = Ends { number: Some(log.number), base, head: log.head };
        }
    }
}
