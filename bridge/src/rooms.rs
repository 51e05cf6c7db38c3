//! Who is in which room, and the way of events to them.
//!
//! An event reaches each session in any of its rooms exactly once, in the order of the link. Sessions get all they
//! get of a batch in one go, so that each connection is written to once. No lock is held meanwhile.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_proto::room::{Room, Tenant};

use crate::{delivery::Delivery, ending::Ending, session::Session};

/// The members of a room; copied on write while somebody delivers to them.
pub(crate) type Members = Arc<Vec<Arc<Session>>>;
type TenantRooms = HashMap<Room, Members>;

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Handed {
    /// Events that sessions got, each counted once a session.
    pub(crate) deliveries: usize,
    /// Sessions that were closed because it did not fit.
    pub(crate) overflows: usize,
}

/// The registry of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    tenants: Mutex<HashMap<Tenant, TenantRooms>>,
}

impl Rooms {
    fn lock(&self) -> MutexGuard<'_, HashMap<Tenant, TenantRooms>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a session into rooms, and gives those it was not in. What `first` sends, it sends before any event of
    /// these rooms, and everything delivered after it reaches the session.
    pub(crate) fn enter(&self, session: &Arc<Session>, rooms: &[Room], first: impl FnOnce()) -> Vec<Room> {
        let mut tenants = self.lock();
        let of_tenant = tenants.entry(session.tenant.clone()).or_default();
        let entered = session.note_entered(rooms);
        for room in &entered {
            Arc::make_mut(of_tenant.entry(room.clone()).or_default()).push(session.clone());
        }
        first();
        entered
    }

    /// Takes a session out of rooms, and gives those it was in.
    pub(crate) fn leave(&self, session: &Arc<Session>, rooms: &[Room]) -> Vec<Room> {
        let mut tenants = self.lock();
        let left = session.note_left(rooms);
        let Some(of_tenant) = tenants.get_mut(&session.tenant) else { return left };
        for room in &left {
            let Some(members) = of_tenant.get_mut(room) else { continue };
            let list = Arc::make_mut(members);
            if let Some(at) = list.iter().position(|s| Arc::ptr_eq(s, session)) {
                list.swap_remove(at);
            }
            if list.is_empty() {
                of_tenant.remove(room);
            }
        }
        if of_tenant.is_empty() {
            tenants.remove(&session.tenant);
        }
        left
    }

    /// All sessions, or those of one tenant. Everybody is in `org`.
    pub(crate) fn sessions(&self, tenant: Option<&Tenant>) -> Vec<Arc<Session>> {
        let tenants = self.lock();
        let chosen = tenants.iter().filter(|(t, _)| tenant.is_none_or(|wanted| wanted == *t));
        chosen.filter_map(|(_, rooms)| rooms.get("org")).flat_map(|members| members.iter().cloned()).collect()
    }

    /// All sessions, in one list a tenant.
    pub(crate) fn everybody(&self) -> Vec<Members> {
        self.lock().values().filter_map(|rooms| rooms.get("org").cloned()).collect()
    }

    /// A user's session.
    pub(crate) fn find(&self, tenant: &Tenant, own_room: &Room, session_id: &str) -> Option<Arc<Session>> {
        let tenants = self.lock();
        tenants.get(tenant)?.get(own_room)?.iter().find(|session| session.id() == session_id).cloned()
    }

    /// Delivers a batch of one tenant's events.
    pub(crate) fn deliver(&self, tenant: &Tenant, batch: &[Arc<Delivery>]) -> Handed {
        let mut handed = Handed::default();
        let lists: Vec<Vec<Members>> = {
            let tenants = self.lock();
            let Some(of_tenant) = tenants.get(tenant) else { return handed };
            let members = |d: &Arc<Delivery>| {
                d.event.rooms.iter().filter_map(|r| of_tenant.get(r.as_str()).cloned()).collect()
            };
            batch.iter().map(members).collect()
        };
        match common(batch, &lists) {
            Some(members) => members.iter().for_each(|session| send(session, batch, &mut handed)),
            None => deliver_apart(batch, &lists, &mut handed),
        }
        handed
    }
}

/// The one list of members that gets all of the batch, if it is so simple.
fn common<'l>(batch: &[Arc<Delivery>], lists: &'l [Vec<Members>]) -> Option<&'l Members> {
    let [first] = lists.first()?.as_slice() else { return None };
    let same = lists.iter().all(|l| matches!(l.as_slice(), [one] if Arc::ptr_eq(one, first)));
    let open = batch.iter().all(|d| d.event.except_sessions.is_empty());
    (same && open).then_some(first)
}

/// Collects what each session gets, then sends it.
fn deliver_apart(batch: &[Arc<Delivery>], lists: &[Vec<Members>], handed: &mut Handed) {
    let mut places: HashMap<*const Session, usize> = HashMap::new();
    let mut shares: Vec<(&Arc<Session>, Vec<Arc<Delivery>>)> = Vec::new();
    for (delivery, members) in batch.iter().zip(lists) {
        for session in members.iter().flat_map(|m| m.iter()) {
            if delivery.event.except_sessions.iter().any(|id| id == session.id()) {
                continue;
            }
            let place = *places.entry(Arc::as_ptr(session)).or_insert_with(|| {
                shares.push((session, Vec::new()));
                shares.len() - 1
            });
            let share = &mut shares[place].1;
            // In several of the event's rooms: once.
            if !share.last().is_some_and(|last| Arc::ptr_eq(last, delivery)) {
                share.push(delivery.clone());
            }
        }
    }
    for (session, share) in shares {
        send(session, &share, handed);
    }
}

fn send(session: &Arc<Session>, batch: &[Arc<Delivery>], handed: &mut Handed) {
    // One that was told to go, e.g. for an expired token, may linger until its peer closes: it gets nothing more.
    if session.is_closed() {
        return;
    }
    if session.outlet.deliver(batch).is_ok() {
        session.note_delivered(batch.len());
        handed.deliveries += batch.len();
    } else {
        session.close(&Ending::slow());
        handed.overflows += 1;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use fanfare_proto::{
        token::TokenConfig,
        v1::{self, Caller, Reason},
    };

    use super::*;
    use crate::{
        config::Config,
        failure::Failure,
        limits::SessionLimits,
        session::{Outlet, Overflow},
    };

    #[derive(Clone)]
    pub(crate) struct Heard {
        names: Arc<Mutex<Vec<String>>>,
        endings: Arc<Mutex<Vec<Reason>>>,
        room_for: usize,
    }

    impl Outlet for Heard {
        fn deliver(&self, batch: &[Arc<Delivery>]) -> Result<(), Overflow> {
            let mut names = self.names.lock().unwrap();
            for delivery in batch {
                if names.len() == self.room_for {
                    return Err(Overflow);
                }
                names.push(delivery.event.name.clone());
            }
            Ok(())
        }

        fn reply(&self, _: v1::Delivery) {}

        fn acknowledge(&self, _: i64, _: &[u8]) {}

        fn fail(&self, _: Option<i64>, _: &Failure) {}

        fn close(&self, ending: &Ending) {
            self.endings.lock().unwrap().push(ending.reason);
        }

        fn queued_bytes(&self) -> (usize, usize) {
            (0, 0)
        }
    }

    impl Heard {
        /// Why it was told to go, each time.
        pub(crate) fn endings(&self) -> Vec<Reason> {
            self.endings.lock().unwrap().clone()
        }
    }

    /// A session that hears so many events.
    pub(crate) fn session(id: &str, room_for: usize) -> (Arc<Session>, Heard) {
        made(id, room_for, None)
    }

    /// A session whose token ends, in Unix seconds.
    pub(crate) fn session_until(id: &str, expires_at: Option<u64>) -> (Arc<Session>, Heard) {
        made(id, usize::MAX, expires_at)
    }

    fn made(id: &str, room_for: usize, expires_at: Option<u64>) -> (Arc<Session>, Heard) {
        let heard = Heard { names: Arc::default(), endings: Arc::default(), room_for };
        let tenant = Tenant::new("1").unwrap();
        let caller = Caller { session_id: id.to_owned(), ..Caller::default() };
        let config =
            Config::new(([127, 0, 0, 1], 0).into(), Vec::new(), String::new(), TokenConfig::default());
        let limits = SessionLimits::new(&config);
        let outlet = Box::new(heard.clone());
        (Arc::new(Session::new(caller, tenant, String::new(), expires_at, limits, outlet)), heard)
    }

    fn delivery(name: &str, rooms: &[&str], except: &[&str]) -> Arc<Delivery> {
        let texts = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect();
        let event = v1::Delivery {
            name: name.to_owned(),
            rooms: texts(rooms),
            except_sessions: texts(except),
            ..v1::Delivery::default()
        };
        Arc::new(Delivery::new(event))
    }

    fn rooms(texts: &[&str]) -> Vec<Room> {
        texts.iter().map(|t| Room::new(t).unwrap()).collect()
    }

    #[test]
    fn each_event_reaches_a_session_once_and_in_order() {
        let registry = Rooms::default();
        let (a, heard_a) = session("a", 99);
        let (b, heard_b) = session("b", 99);
        registry.enter(&a, &rooms(&["org", "chat:7"]), || {});
        registry.enter(&b, &rooms(&["org"]), || {});
        let tenant = Tenant::new("1").unwrap();
        let batch = [
            delivery("1", &["org", "chat:7"], &[]),
            delivery("2", &["chat:7"], &[]),
            delivery("3", &["org"], &["a"]),
            delivery("4", &["chat:8"], &[]),
            delivery("5", &["org"], &[]),
        ];
        registry.deliver(&tenant, &batch);
        registry.deliver(&Tenant::new("2").unwrap(), &batch);
        assert_eq!(*heard_a.names.lock().unwrap(), ["1", "2", "5"]);
        assert_eq!(*heard_b.names.lock().unwrap(), ["1", "3", "5"]);
        registry.leave(&a, &rooms(&["org", "chat:7"]));
        registry.leave(&b, &rooms(&["org"]));
        assert!(registry.lock().is_empty(), "empty rooms cost nothing");
    }

    #[test]
    fn a_full_session_is_closed_and_hears_nothing_more() {
        let registry = Rooms::default();
        let (slow, heard) = session("a", 2);
        let (good, heard_good) = session("b", 99);
        registry.enter(&slow, &rooms(&["org"]), || {});
        registry.enter(&good, &rooms(&["org"]), || {});
        let tenant = Tenant::new("1").unwrap();
        let batch: Vec<_> = ["1", "2", "3"].iter().map(|name| delivery(name, &["org"], &[])).collect();
        registry.deliver(&tenant, &batch);
        heard.names.lock().unwrap().clear();
        registry.deliver(&tenant, &batch);
        assert_eq!(heard.endings(), [Reason::Slow]);
        assert!(heard.names.lock().unwrap().is_empty());
        assert_eq!(heard_good.names.lock().unwrap().len(), 6);
    }
}
