//! The limits of one caller's Subscribe streams together: streams, rooms, and scans of the log.
//!
//! Knows no logs and no protocol. Dropping a place releases it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_proto::token::{Identity, TenantScope};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::{config::Limits, error::Refusal};

/// Concurrent log reads per caller. Further subscriptions wait for their turn, so that many reads
/// from the beginning of a long log leave processor time for others.
const SCANS_PER_CALLER_MAX: usize = 2;

/// The caller that the limits apply to: a user, or a service by its name, of one tenant or of all
/// (`None`).
type Caller = (Option<String>, String, bool);

/// The open streams by caller.
#[derive(Debug)]
pub(crate) struct Subscribers {
    by_caller: Mutex<HashMap<Caller, Usage>>,
    limits: Limits,
}

#[derive(Debug)]
struct Usage {
    subscriptions: usize,
    rooms: usize,
    scans: Arc<Semaphore>,
}

/// The place of one stream within the limits.
#[derive(Debug)]
pub(crate) struct Place {
    subscribers: Arc<Subscribers>,
    caller: Caller,
    rooms: usize,
    scans: Arc<Semaphore>,
}

impl Subscribers {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { by_caller: Mutex::default(), limits }
    }

    /// Admits a stream with a number of rooms, or refuses with the limit that it would exceed.
    pub(crate) fn admit(self: &Arc<Self>, identity: &Identity, rooms: usize) -> Result<Place, Refusal> {
        let is_user = identity.scopes.is_empty();
        let (kind, setting, max) = if is_user {
            ("user", "subscriptions-per-user-max", self.limits.subscriptions_per_user_max)
        } else {
            ("service", "subscriptions-per-service-max", self.limits.subscriptions_per_service_max)
        };
        let tenant = match &identity.tenant {
            TenantScope::One(tenant) => Some(tenant.as_str().to_owned()),
            TenantScope::Any => None,
        };
        let caller = (tenant, identity.user_id.clone().unwrap_or_default(), is_user);
        let mut by_caller = self.lock();
        let (subscriptions, rooms_before) =
            by_caller.get(&caller).map_or((0, 0), |usage| (usage.subscriptions, usage.rooms));
        if subscriptions >= max {
            return Err(Refusal::TooManySubscriptions { kind, max, setting });
        }
        let rooms_max = self.limits.rooms_per_user_max;
        if rooms_before + rooms > rooms_max {
            return Err(Refusal::TooManyRooms { kind, max: rooms_max });
        }
        let usage = by_caller.entry(caller.clone()).or_insert_with(|| Usage {
            subscriptions: 0,
            rooms: 0,
            scans: Arc::new(Semaphore::new(SCANS_PER_CALLER_MAX)),
        });
        usage.subscriptions += 1;
        usage.rooms += rooms;
        let scans = usage.scans.clone();
        drop(by_caller);
        Ok(Place { subscribers: self.clone(), caller, rooms, scans })
    }

    /// The highest numbers of subscriptions and of rooms: of any user, and of any service.
    pub(crate) fn fullest(&self) -> [(usize, usize); 2] {
        let by_caller = self.lock();
        [true, false].map(|is_user| {
            let of_kind = by_caller.iter().filter(|((_, _, user), _)| *user == is_user);
            of_kind.fold((0, 0), |(streams, rooms), (_, usage)| {
                (usage.subscriptions.max(streams), usage.rooms.max(rooms))
            })
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Caller, Usage>> {
        self.by_caller.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until the caller may start another read of the log.
    pub(crate) async fn scan(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.scans.clone().acquire_owned().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_caller = self.subscribers.lock();
        let Some(usage) = by_caller.get_mut(&self.caller) else { return };
        usage.subscriptions -= 1;
        usage.rooms -= self.rooms;
        if usage.subscriptions == 0 {
            by_caller.remove(&self.caller);
            // Otherwise, after a peak, the table would keep the memory for all former callers.
            if by_caller.capacity() > by_caller.len() * 4 + 64 {
                by_caller.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_proto::{room::Tenant, token::Scope};
    use futures_util::FutureExt as _;

    use super::*;

    fn identity(user: &str, scopes: &[Scope]) -> Identity {
        Identity {
            user_id: Some(user.to_owned()),
            tenant: TenantScope::One(Tenant::new("1").unwrap()),
            scopes: scopes.to_vec(),
            user_name: None,
            rooms: None,
            expires_at: None,
            claims: serde_json::Map::default(),
        }
    }

    fn subscribers() -> Arc<Subscribers> {
        Arc::new(Subscribers::new(Limits {
            subscriptions_per_user_max: 2,
            subscriptions_per_service_max: 3,
            rooms_per_user_max: 10,
            ..Limits::default()
        }))
    }

    #[test]
    fn streams_and_rooms_are_limited_per_caller_and_freed_with_the_place() {
        let subscribers = subscribers();
        let user = identity("a", &[]);
        let first = subscribers.admit(&user, 1).unwrap();
        let second = subscribers.admit(&user, 9).unwrap();
        let refused = subscribers.admit(&user, 0);
        assert!(matches!(refused, Err(Refusal::TooManySubscriptions { kind: "user", max: 2, .. })));
        drop(first);
        assert!(matches!(subscribers.admit(&user, 2), Err(Refusal::TooManyRooms { max: 10, .. })));
        let third = subscribers.admit(&user, 1).unwrap();
        let _other = subscribers.admit(&identity("b", &[]), 10).unwrap();
        // A service with the same name is a different caller.
        let service = identity("a", &[Scope::Subscribe]);
        let places: Vec<_> = (0..3).map(|_| subscribers.admit(&service, 1).unwrap()).collect();
        let refused = subscribers.admit(&service, 1);
        assert!(matches!(refused, Err(Refusal::TooManySubscriptions { kind: "service", max: 3, .. })));
        drop((second, third, places));
        assert_eq!(subscribers.lock().len(), 1, "callers without streams take nothing");
    }

    #[tokio::test]
    async fn scans_of_one_caller_wait_for_each_other() {
        let subscribers = subscribers();
        let place = subscribers.admit(&identity("a", &[]), 1).unwrap();
        let other = subscribers.admit(&identity("b", &[]), 1).unwrap();
        let mut scans = Vec::new();
        for _ in 0..SCANS_PER_CALLER_MAX {
            scans.push(place.scan().await.unwrap());
        }
        assert!(place.scan().now_or_never().is_none());
        let _other = other.scan().await.unwrap();
        scans.pop();
        assert!(place.scan().now_or_never().is_some());
    }
}
