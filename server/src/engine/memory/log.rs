//! A tenant's log in memory.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_proto::{
    cursor::{Cursor, Epoch},
    room::Room,
};

use crate::{
    config::{Limits, Retention},
    engine::{
        Appended, Feed, Followers, Page, ReadLimits, Receipt, StateEntry, StateLimits, StatePage,
        entries::{EntryKey, PageBuilder, StateIndex},
        now_millis,
    },
    error::Refusal,
    event::{Draft, Event},
    interest::Interest,
};

#[derive(Debug)]
pub(super) struct Log {
    epoch: Epoch,
    /// The seq of the newest event.
    head: u64,
    /// The time of the last append, or of creation.
    used_at: Instant,
    /// The seqs `head - entries.len() + 1 ..= head`.
    entries: VecDeque<(Instant, Arc<Event>)>,
    bytes: usize,
    keys: HashMap<String, Receipt>,
    /// Keys by age. Each of them is in `keys`.
    key_ages: VecDeque<(Instant, String)>,
    followers: Followers,
    state: StateIndex<Arc<Event>>,
}

impl Log {
    pub(super) fn new(epoch: Epoch, head: u64) -> Self {
        let (entries, bytes, keys, key_ages, followers, state) = Default::default();
        Self { epoch, head, used_at: Instant::now(), entries, bytes, keys, key_ages, followers, state }
    }

    pub(super) const fn head(&self) -> u64 {
        self.head
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn cursor(&self) -> Cursor {
        Cursor::new(self.epoch, self.head)
    }

    /// The cursor at a seq, or at the nearest seq in the log.
    pub(super) fn cursor_at(&self, seq: u64) -> Cursor {
        Cursor::new(self.epoch, seq.clamp(self.base(), self.head))
    }

    /// The seq before the oldest event.
    fn base(&self) -> u64 {
        self.head - self.entries.len() as u64
    }

    pub(super) fn append(
        &mut self,
        batch: Vec<Draft>,
        retention: &Retention,
        limits: &Limits,
    ) -> Result<Vec<Appended>, Refusal> {
        let now = Instant::now();
        self.used_at = now;
        self.forget_keys(now, limits);
        if batch.iter().any(|draft| draft.state.is_some()) {
            self.end_entries();
            let mut seen = HashSet::new();
            let is_new = |draft: &&Draft| {
                let key = draft.idempotency_key.as_str();
                key.is_empty() || (!self.keys.contains_key(key) && seen.insert(key.to_owned()))
            };
            self.state.trial(self.head + 1).add(batch.iter().filter(is_new), limits)?;
        }
        let answers: Vec<Appended> = batch.into_iter().map(|draft| self.admit(draft, now)).collect();
        self.trim(now, retention);
        self.announce(&answers);
        Ok(answers)
    }

    /// Removes entries of the state that have expired.
    pub(super) fn end_entries(&mut self) {
        self.state.end(now_millis());
    }

    /// Applies the state change of an event.
    fn change(&mut self, event: &Arc<Event>) {
        let Some(change) = &event.draft.state else { return };
        for room in event.rooms() {
            let place = EntryKey::new(room.as_str(), &change.key);
            if change.is_removal {
                self.state.remove(&place);
            } else {
                let payload = event.draft.payload.len();
                self.state.put(place, event.seq, payload, change.expires_at, event.clone());
            }
        }
    }

    pub(super) fn state_entries(&self, room: &Room, after: Option<&str>, limits: StateLimits) -> StatePage {
        let (mut page, mut more) = (PageBuilder::new(limits), false);
        for (key, entry) in self.state.room(room, after, now_millis()) {
            more = !page.fits(entry.value.draft.payload.len());
            if more {
                break;
            }
            let (event, expires_at) = (entry.value.clone(), entry.expires_at);
            page.push(StateEntry { event, key: key.to_owned(), expires_at });
        }
        page.finish(self.cursor(), more)
    }

    fn admit(&mut self, draft: Draft, now: Instant) -> Appended {
        if let Some(first) = self.keys.get(&draft.idempotency_key) {
            return Appended::Duplicate(first.clone());
        }
        let key = draft.idempotency_key.clone();
        let event = if draft.kind.ephemeral {
            Arc::new(Event::ephemeral(draft))
        } else {
            self.head += 1;
            let event = Arc::new(Event::stored(self.cursor(), draft));
            self.bytes += event.cost_bytes();
            self.entries.push_back((now, event.clone()));
            self.change(&event);
            event
        };
        if !key.is_empty() {
            self.keys.insert(key.clone(), event.receipt());
            self.key_ages.push_back((now, key));
        }
        Appended::Event(event)
    }

    fn announce(&mut self, answers: &[Appended]) {
        self.followers.send(answers.iter().filter_map(|answer| match answer {
            Appended::Event(event) => Some(event),
            Appended::Duplicate(_) => None,
        }));
    }

    pub(super) fn follow(&mut self) -> (Cursor, Feed<Arc<Event>>) {
        (self.cursor(), self.followers.add())
    }

    /// Whether the log has been unused for `age_max` and has no followers.
    pub(super) fn is_idle(&mut self, now: Instant, age_max: Duration) -> bool {
        let is_empty = self.entries.is_empty()
            && self.keys.is_empty()
            && self.followers.is_empty()
            && self.state.is_empty();
        is_empty && now.saturating_duration_since(self.used_at) >= age_max
    }

    pub(super) fn trim(&mut self, now: Instant, retention: &Retention) {
        while let Some((time, event)) = self.entries.front() {
            let old = now.saturating_duration_since(*time) > retention.age_max;
            if !old && self.entries.len() <= retention.events_max && self.bytes <= retention.bytes_max {
                break;
            }
            self.bytes -= event.cost_bytes();
            self.entries.pop_front();
        }
    }

    pub(super) fn forget_keys(&mut self, now: Instant, limits: &Limits) {
        while let Some((time, key)) = self.key_ages.front() {
            let is_young = now.saturating_duration_since(*time) <= limits.idempotency_age_max;
            if is_young && self.key_ages.len() <= limits.idempotency_keys_max {
                break;
            }
            self.keys.remove(key);
            self.key_ages.pop_front();
        }
    }

    pub(super) fn read(
        &self,
        interest: &Interest,
        after: Cursor,
        limits: ReadLimits,
    ) -> Result<Page, Refusal> {
        let base = self.base();
        if after.epoch != self.epoch || after.tag != 0 || !(base..=self.head).contains(&after.seq) {
            return Err(Refusal::Reset(self.cursor()));
        }
        if interest.is_empty() {
            return Ok(Page { events: Vec::new(), cursor: after, more: false });
        }
        let skip = usize::try_from(after.seq - base).unwrap_or(usize::MAX);
        let (mut events, mut cursor) = (Vec::new(), after);
        for (_, event) in self.entries.range(skip..).take(limits.scan_max) {
            cursor.seq = event.seq;
            if interest.wants_logged(event) {
                events.push(event.clone());
                if events.len() == limits.events_max {
                    break;
                }
            }
        }
        Ok(Page { events, cursor, more: cursor.seq < self.head })
    }
}
