//! Sessions that were lost a moment ago, kept so that their clients can go on with them.

use std::{
    collections::{HashMap, VecDeque},
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

/// Lost sessions by their secret; the oldest go first.
#[derive(Debug)]
pub(super) struct Lost {
    by_pid: HashMap<Arc<str>, (Instant, LostSession)>,
    by_age: VecDeque<(Instant, Arc<str>)>,
    /// Secrets that were let go of and nobody has taken yet.
    gone: Vec<Arc<str>>,
    window: Duration,
    sessions_max: usize,
}

impl Lost {
    pub(super) fn new(window: Duration, sessions_max: usize) -> Self {
        Self { by_pid: HashMap::new(), by_age: VecDeque::new(), gone: Vec::new(), window, sessions_max }
    }

    /// Whether anything is kept at all.
    pub(super) const fn recovers(&self) -> bool {
        !self.window.is_zero()
    }

    pub(super) fn put(&mut self, pid: Arc<str>, session: LostSession, now: Instant) {
        if !self.recovers() {
            // A record of a process that had a window.
            self.gone.push(pid);
            return;
        }
        self.forget(now);
        self.by_pid.insert(pid.clone(), (now, session));
        self.by_age.push_back((now, pid));
        if self.by_age.len() > self.sessions_max {
            self.pop();
        }
    }

    pub(super) fn get(&self, pid: &str, now: Instant) -> Option<&LostSession> {
        let (since, session) = self.by_pid.get(pid)?;
        (now.saturating_duration_since(*since) <= self.window).then_some(session)
    }

    /// Begins the window anew.
    pub(super) fn renew(&mut self, pid: &str, now: Instant) {
        if let Some(session) = self.get(pid, now).cloned() {
            self.put(pid.into(), session, now);
        }
    }

    pub(super) fn take(&mut self, pid: &str) -> Option<LostSession> {
        self.by_pid.remove(pid).map(|(_, session)| session)
    }

    /// Lets go of the sessions that are meant.
    pub(super) fn drop_where(&mut self, meant: impl Fn(&LostSession) -> bool) {
        let gone = &mut self.gone;
        self.by_pid.retain(|pid, (_, session)| {
            let drop = meant(session);
            if drop {
                gone.push(pid.clone());
            }
            !drop
        });
    }

    /// Lets go of those whose window is over.
    pub(super) fn forget(&mut self, now: Instant) {
        while self
            .by_age
            .front()
            .is_some_and(|(since, _)| now.saturating_duration_since(*since) > self.window)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some((since, pid)) = self.by_age.pop_front() else { return };
        // One that was taken and lost again has a later entry.
        if self.by_pid.get(&pid).is_some_and(|(at, _)| *at == since) {
            self.by_pid.remove(&pid);
            self.gone.push(pid);
        }
    }

    /// The secrets that were let go of since the last call.
    pub(super) fn gone(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.gone)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_pid.is_empty()
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
}
