//! Records in this process's memory, for engines whose store belongs to one process.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Feed, FeedSender, Record, Replaced, Replacement, Space, feed};

/// All spaces. The lock is held only briefly.
#[derive(Debug, Default)]
pub(crate) struct Records(Mutex<Spaces>);

#[derive(Debug, Default)]
struct Spaces {
    spaces: HashMap<Space, SpaceRecords>,
    /// The newest revision of any record.
    revision: u64,
}

#[derive(Debug, Default)]
struct SpaceRecords {
    records: HashMap<Arc<str>, Held>,
    followers: Vec<FeedSender<Record>>,
}

#[derive(Debug)]
struct Held {
    value: Bytes,
    revision: u64,
    expires_at: Option<Instant>,
}

impl Records {
    fn lock(&self) -> MutexGuard<'_, Spaces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record, if there is one.
    pub(crate) fn get(&self, space: &Space, key: &str) -> Option<Record> {
        let spaces = self.lock();
        let (key, held) = spaces.spaces.get(space)?.records.get_key_value(key)?;
        held.is_valid(Instant::now()).then(|| held.record(key))
    }

    /// Replaces a record if it is as expected.
    pub(crate) fn replace(&self, space: &Space, key: &str, replacement: &Replacement) -> Replaced {
        let mut spaces = self.lock();
        if spaces.revision_of(space, key) != replacement.expected {
            return Replaced::Conflict;
        }
        spaces.revision += 1;
        let revision = spaces.revision;
        spaces.put(space, key, revision, replacement.value.clone(), replacement.ttl);
        Replaced::Revision(revision)
    }

    /// The revision of a record; 0 if there is none.
    pub(crate) fn revision_of(&self, space: &Space, key: &str) -> u64 {
        self.lock().revision_of(space, key)
    }

    /// Whether a record expires or does not exist.
    pub(crate) fn expires(&self, space: &Space, key: &str) -> bool {
        let spaces = self.lock();
        let held = spaces.spaces.get(space).and_then(|of_space| of_space.records.get(key));
        held.is_none_or(|held| held.expires_at.is_some())
    }

    /// A revision that no record has had.
    pub(crate) fn next_revision(&self) -> u64 {
        let mut spaces = self.lock();
        spaces.revision += 1;
        spaces.revision
    }

    /// Makes a change whose revision was assigned before.
    pub(crate) fn put(
        &self,
        space: &Space,
        key: &str,
        revision: u64,
        value: Option<Bytes>,
        ttl: Option<Duration>,
    ) {
        self.lock().put(space, key, revision, value, ttl);
    }

    /// Replaces all records that do not expire; later revisions are higher than `revision`.
    pub(crate) fn restore(&self, stored: Vec<(Space, Record)>, revision: u64) {
        let mut spaces = self.lock();
        spaces.revision = spaces.revision.max(revision);
        let known: HashSet<(&Space, &str)> =
            stored.iter().map(|(space, record)| (space, &*record.key)).collect();
        let mut gone = Vec::new();
        for (space, of_space) in &spaces.spaces {
            let lasting = of_space.records.iter().filter(|(_, held)| held.expires_at.is_none());
            let missing = lasting.filter(|(key, _)| !known.contains(&(space, &***key)));
            gone.extend(missing.map(|(key, _)| (space.clone(), key.clone())));
        }
        for (space, key) in gone {
            spaces.revision += 1;
            let revision = spaces.revision;
            spaces.put(&space, &key, revision, None, None);
        }
        for (space, Record { key, value, revision }) in stored {
            if spaces.revision_of(&space, &key) != revision {
                spaces.put(&space, &key, revision, value, None);
            }
        }
    }

    /// All records of a space, and a feed of every later change.
    pub(crate) fn follow(&self, space: &Space) -> (Vec<Record>, Feed<Record>) {
        let (now, (sender, feed)) = (Instant::now(), feed());
        let mut spaces = self.lock();
        let of_space = spaces.spaces.entry(space.clone()).or_default();
        of_space.followers.push(sender);
        let valid = of_space.records.iter().filter(|(_, held)| held.is_valid(now));
        (valid.map(|(key, held)| held.record(key)).collect(), feed)
    }

    /// Removes expired records, and followers that have gone.
    pub(crate) fn sweep(&self) {
        let (now, mut spaces) = (Instant::now(), self.lock());
        let spaces = &mut *spaces;
        spaces.spaces.retain(|_, of_space| {
            let expired = of_space.records.iter().filter(|(_, held)| !held.is_valid(now));
            let expired: Vec<Arc<str>> = expired.map(|(key, _)| key.clone()).collect();
            for key in expired {
                spaces.revision += 1;
                of_space.records.remove(&key);
                of_space.announce(&Record { key, value: None, revision: spaces.revision });
            }
            of_space.followers.retain(|follower| !follower.is_closed());
            !of_space.is_empty()
        });
    }
}

impl Spaces {
    fn revision_of(&self, space: &Space, key: &str) -> u64 {
        let held = self.spaces.get(space).and_then(|of_space| of_space.records.get(key));
        held.filter(|held| held.is_valid(Instant::now())).map_or(0, |held| held.revision)
    }

    fn put(&mut self, space: &Space, key: &str, revision: u64, value: Option<Bytes>, ttl: Option<Duration>) {
        let of_space = self.spaces.entry(space.clone()).or_default();
        let key: Arc<str> = key.into();
        of_space.announce(&Record { key: key.clone(), value: value.clone(), revision });
        match value {
            Some(value) => {
                let expires_at = ttl.and_then(|ttl| Instant::now().checked_add(ttl));
                of_space.records.insert(key, Held { value, revision, expires_at });
            }
            None => _ = of_space.records.remove(&key),
        }
        self.free(space);
    }

    fn free(&mut self, space: &Space) {
        if self.spaces.get(space).is_some_and(SpaceRecords::is_empty) {
            self.spaces.remove(space);
        }
    }
}

impl SpaceRecords {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.followers.is_empty()
    }

    fn announce(&mut self, record: &Record) {
        let bytes = record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
        self.followers.retain(|follower| follower.send(record.clone(), bytes));
    }
}

impl Held {
    fn is_valid(&self, now: Instant) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    fn record(&self, key: &Arc<str>) -> Record {
        Record { key: key.clone(), value: Some(self.value.clone()), revision: self.revision }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replacement(value: Option<&'static str>, expected: u64) -> Replacement {
        Replacement { value: value.map(|text| Bytes::from_static(text.as_bytes())), expected, ttl: None }
    }

    #[tokio::test]
    async fn a_record_changes_only_if_it_is_as_expected_and_followers_see_each_change() {
        let (records, space) = (Records::default(), Space::Leases);
        let Replaced::Revision(first) = records.replace(&space, "a", &replacement(Some("1"), 0)) else {
            panic!("there was none");
        };
        let (snapshot, mut feed) = records.follow(&space);
        assert_eq!(snapshot, [records.get(&space, "a").unwrap()]);
        assert_eq!(records.replace(&space, "a", &replacement(Some("2"), 0)), Replaced::Conflict);
        let Replaced::Revision(second) = records.replace(&space, "a", &replacement(Some("2"), first)) else {
            panic!("nobody else has changed it");
        };
        assert!(second > first);
        assert!(matches!(records.replace(&space, "a", &replacement(None, second)), Replaced::Revision(_)));
        assert_eq!(records.replace(&space, "a", &replacement(None, second)), Replaced::Conflict);
        let seen: Vec<_> = feed.next().await.unwrap().into_iter().map(|change| change.value).collect();
        assert_eq!(seen, [Some(Bytes::from_static(b"2")), None]);
        drop(feed);
        records.sweep();
        assert!(records.lock().spaces.is_empty(), "a space without records and followers is freed");
    }

    #[tokio::test]
    async fn a_record_expires_and_followers_see_it() {
        let (records, space) = (Records::default(), Space::Leases);
        let (_, mut feed) = records.follow(&space);
        let short = Replacement { ttl: Some(Duration::ZERO), ..replacement(Some("1"), 0) };
        records.replace(&space, "a", &short);
        assert_eq!(records.get(&space, "a"), None);
        records.sweep();
        let changes = feed.next().await.unwrap();
        assert!(changes[0].value.is_some() && changes[1].value.is_none());
        assert!(changes[1].revision > changes[0].revision);
        assert!(matches!(records.replace(&space, "a", &replacement(Some("2"), 0)), Replaced::Revision(_)));
    }
}
