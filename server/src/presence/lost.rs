//! Sessions that were lost a moment ago, kept so that their clients can go on with them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_proto::room::{Room, Tenant};
use prost::Message;

/// What is needed to go on with a session.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LostSession {
    pub(super) id: Arc<str>,
    pub(super) tenant: Tenant,
    pub(super) user_id: Arc<str>,
    pub(super) user_name: Arc<str>,
    /// With the catalog whose call entered each.
    pub(super) rooms: HashMap<Room, Arc<str>>,
    pub(super) began: Began,
}

/// Where the log was when a session began, as a cursor, for clients that have had no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Began {
    pub(super) cursor: Arc<str>,
    /// The server saw it begin. Otherwise it may have begun earlier.
    pub(super) is_certain: bool,
}

/// The same as it is kept by an engine.
#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    tenant: String,
    #[prost(string, tag = "3")]
    user_id: String,
    #[prost(map = "string, string", tag = "4")]
    rooms: HashMap<String, String>,
    #[prost(string, tag = "5")]
    began: String,
    #[prost(string, tag = "6")]
    user_name: String,
    /// Rooms took its user for there when the record was made.
    #[prost(bool, tag = "7")]
    announced: bool,
    #[prost(bool, tag = "8")]
    began_is_certain: bool,
}

impl LostSession {
    pub(super) fn to_record(&self, announced: bool) -> Vec<u8> {
        let text = |(room, catalog): (&Room, &Arc<str>)| (room.as_str().to_owned(), catalog.to_string());
        let kept = Kept {
            id: self.id.to_string(),
            tenant: self.tenant.as_str().to_owned(),
            user_id: self.user_id.to_string(),
            rooms: self.rooms.iter().map(text).collect(),
            began: self.began.cursor.to_string(),
            began_is_certain: self.began.is_certain,
            user_name: self.user_name.to_string(),
            announced,
        };
        kept.encode_to_vec()
    }

    /// Reads a record and whether rooms took its user for there; `None` when it is none.
    pub(super) fn from_record(record: &[u8]) -> Option<(Self, bool)> {
        let kept = Kept::decode(record).ok()?;
        let rooms =
            kept.rooms.iter().map(|(room, catalog)| Some((Room::new(room).ok()?, catalog.as_str().into())));
        let session = Self {
            id: kept.id.as_str().into(),
            tenant: Tenant::new(&kept.tenant).ok()?,
            user_id: kept.user_id.as_str().into(),
            rooms: rooms.collect::<Option<_>>()?,
            began: Began { cursor: kept.began.as_str().into(), is_certain: kept.began_is_certain },
            user_name: kept.user_name.as_str().into(),
        };
        Some((session, kept.announced))
    }
}

/// How many lost sessions are kept. What exceeds a bound costs the oldest of the same user or
/// tenant, never those of others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) window: Duration,
    pub(super) sessions_max: usize,
    pub(super) per_tenant_max: usize,
    pub(super) per_user_max: usize,
}

/// Lost sessions by their secret; the oldest go first.
#[derive(Debug)]
pub(super) struct Lost {
    by_pid: HashMap<Arc<str>, Entry>,
    /// The secrets by age: serial numbers are given in the order of time.
    by_age: BTreeMap<u64, Arc<str>>,
    of_tenant: HashMap<Tenant, OfTenant>,
    next_serial: u64,
    /// Secrets that were evicted or have expired, and nobody has taken yet.
    gone: Vec<Arc<str>>,
    bounds: Bounds,
}

#[derive(Debug)]
struct Entry {
    serial: u64,
    since: Instant,
    session: LostSession,
}

/// The serial numbers of a tenant's sessions, and of each of its users'.
#[derive(Debug, Default)]
struct OfTenant {
    all: BTreeSet<u64>,
    of_user: HashMap<Arc<str>, BTreeSet<u64>>,
}

impl Lost {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            by_pid: HashMap::new(),
            by_age: BTreeMap::new(),
            of_tenant: HashMap::new(),
            next_serial: 0,
            gone: Vec::new(),
            bounds,
        }
    }

    /// Whether a session of a user was lost within this time.
    pub(super) fn has_recent(&self, tenant: &Tenant, user_id: &str, now: Instant, within: Duration) -> bool {
        let of_user = self.of_tenant.get(tenant).and_then(|of_tenant| of_tenant.of_user.get(user_id));
        let newest = of_user.and_then(|serials| serials.last()).and_then(|serial| self.by_age.get(serial));
        let entry = newest.and_then(|pid| self.by_pid.get(pid));
        entry.is_some_and(|entry| now.duration_since(entry.since) < within)
    }

    /// Whether anything is kept at all.
    pub(super) const fn recovers(&self) -> bool {
        !self.bounds.window.is_zero()
    }

    pub(super) fn put(&mut self, pid: Arc<str>, session: LostSession, now: Instant) {
        if !self.recovers() {
            // A record of a process that had a window.
            self.gone.push(pid);
            return;
        }
        self.forget(now);
        self.take(&pid);
        let serial = self.next_serial;
        self.next_serial += 1;
        let (tenant, user_id) = (session.tenant.clone(), session.user_id.clone());
        let of_tenant = self.of_tenant.entry(tenant).or_default();
        let of_user = of_tenant.of_user.entry(user_id).or_default();
        of_tenant.all.insert(serial);
        of_user.insert(serial);
        let Bounds { sessions_max, per_tenant_max, per_user_max, .. } = self.bounds;
        let evicted = if of_user.len() > per_user_max {
            of_user.first()
        } else if of_tenant.all.len() > per_tenant_max || self.by_age.len() >= sessions_max {
            of_tenant.all.first()
        } else {
            None
        };
        let evicted = evicted.copied();
        self.by_age.insert(serial, pid.clone());
        self.by_pid.insert(pid, Entry { serial, since: now, session });
        if let Some(serial) = evicted {
            self.evict(serial);
        }
    }

    pub(super) fn get(&self, pid: &str, now: Instant) -> Option<&LostSession> {
        let Entry { since, session, .. } = self.by_pid.get(pid)?;
        (now.saturating_duration_since(*since) <= self.bounds.window).then_some(session)
    }

    /// Begins the window anew.
    pub(super) fn renew(&mut self, pid: &str, now: Instant) {
        if let Some(session) = self.get(pid, now).cloned() {
            self.put(pid.into(), session, now);
        }
    }

    pub(super) fn take(&mut self, pid: &str) -> Option<LostSession> {
        let Entry { serial, session, .. } = self.by_pid.remove(pid)?;
        self.by_age.remove(&serial);
        if let Some(of_tenant) = self.of_tenant.get_mut(&session.tenant) {
            of_tenant.all.remove(&serial);
            if let Some(of_user) = of_tenant.of_user.get_mut(&session.user_id) {
                of_user.remove(&serial);
                if of_user.is_empty() {
                    of_tenant.of_user.remove(&session.user_id);
                }
            }
            if of_tenant.all.is_empty() {
                self.of_tenant.remove(&session.tenant);
            }
        }
        Some(session)
    }

    /// Releases the sessions that are meant.
    pub(super) fn drop_where(&mut self, tenant: &Tenant, meant: impl Fn(&LostSession) -> bool) {
        let Some(of_tenant) = self.of_tenant.get(tenant) else { return };
        let (by_age, by_pid) = (&self.by_age, &self.by_pid);
        let is_meant = |serial: &&u64| {
            let pid = by_age.get(serial);
            pid.and_then(|pid| by_pid.get(pid)).is_some_and(|entry| meant(&entry.session))
        };
        let serials: Vec<u64> = of_tenant.all.iter().filter(is_meant).copied().collect();
        serials.into_iter().for_each(|serial| self.evict(serial));
    }

    /// Releases those whose window is over.
    pub(super) fn forget(&mut self, now: Instant) {
        while let Some((serial, pid)) = self.by_age.first_key_value() {
            let since = self.by_pid.get(pid).map_or(now, |entry| entry.since);
            if now.saturating_duration_since(since) <= self.bounds.window {
                return;
            }
            self.evict(*serial);
        }
    }

    fn evict(&mut self, serial: u64) {
        let Some(pid) = self.by_age.get(&serial).cloned() else { return };
        self.take(&pid);
        self.gone.push(pid);
    }

    /// The secrets that were released since the last call.
    pub(super) fn gone(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.gone)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_pid.is_empty() && self.by_age.is_empty() && self.of_tenant.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(
            texts in proptest::array::uniform4("[a-z0-9-]{1,12}"),
            rooms in proptest::collection::hash_map("chat:[a-z0-9]{1,6}", "[a-z.]{0,8}", 0..4),
            announced in any::<bool>(),
            is_certain in any::<bool>(),
        ) {
            let [id, tenant, user_id, began] = texts;
            let session = LostSession {
                id: id.into(),
                tenant: Tenant::new(&tenant).unwrap(),
                user_name: user_id.to_uppercase().into(),
                user_id: user_id.into(),
                rooms: rooms.into_iter().map(|(room, catalog)| (Room::new(&room).unwrap(), catalog.into())).collect(),
                began: Began { cursor: began.into(), is_certain },
            };
            prop_assert_eq!(LostSession::from_record(&session.to_record(announced)), Some((session, announced)));
        }

        #[test]
        fn no_bytes_make_the_reader_of_records_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _any = LostSession::from_record(&bytes);
        }
    }

    const WINDOW: Duration = Duration::from_secs(60);

    fn session(tenant: &str, user: usize) -> LostSession {
        LostSession {
            id: "s".into(),
            tenant: Tenant::new(tenant).unwrap(),
            user_id: user.to_string().into(),
            user_name: Arc::default(),
            rooms: HashMap::new(),
            began: Began { cursor: Arc::default(), is_certain: true },
        }
    }

    /// Of the secrets from `a0` on, those that are kept.
    fn kept(lost: &Lost, prefix: &str, count: usize, now: Instant) -> Vec<usize> {
        (0..count).filter(|at| lost.get(&format!("{prefix}{at}"), now).is_some()).collect()
    }

    #[test]
    fn what_is_too_much_costs_the_oldest_of_the_same_user_or_tenant() {
        let now = Instant::now();
        let bounds = Bounds { window: WINDOW, sessions_max: 10, per_tenant_max: 6, per_user_max: 3 };
        let mut lost = Lost::new(bounds);
        lost.put("x0".into(), session("x", 0), now);
        lost.put("b0".into(), session("a", 9), now);
        // One user of tenant a: only its own sessions go.
        (0..50).for_each(|at| lost.put(format!("a{at}").into(), session("a", 0), now));
        assert_eq!(kept(&lost, "a", 50, now), [47, 48, 49]);
        // Many users of tenant a: the tenant's oldest go.
        (0..50).for_each(|at| lost.put(format!("u{at}").into(), session("a", 100 + at), now));
        assert_eq!(kept(&lost, "u", 50, now), [44, 45, 46, 47, 48, 49]);
        assert!(kept(&lost, "b", 1, now).is_empty() && kept(&lost, "a", 50, now).is_empty());
        // The total: tenant y pays with its own, x keeps what it has.
        (0..50).for_each(|at| lost.put(format!("y{at}").into(), session("y", at), now));
        assert_eq!(kept(&lost, "y", 50, now), [47, 48, 49]);
        assert_eq!((kept(&lost, "x", 1, now).len(), kept(&lost, "u", 50, now).len()), (1, 6));
        assert_eq!(lost.by_pid.len(), 10);
        assert_eq!(lost.gone().len(), 1 + 50 + 44 + 47, "the engine learns of each that was evicted");
        // One that is lost again and again is one.
        (0..50).for_each(|_| lost.renew("x0", now));
        assert_eq!((lost.by_age.len(), lost.gone().len()), (10, 0));
        lost.drop_where(&Tenant::new("a").unwrap(), |session| *session.user_id != *"149");
        assert_eq!(kept(&lost, "u", 50, now), [49]);
        lost.forget(now + WINDOW);
        assert_eq!(lost.by_pid.len(), 5);
        lost.forget(now + WINDOW + Duration::from_millis(1));
        assert!(lost.is_empty());
    }
}
