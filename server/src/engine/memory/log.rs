//! A tenant's log in memory.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_proto::cursor::{Cursor, Epoch};

use crate::{
    config::{Limits, Retention},
    engine::{Appended, Feed, Followers, Page, ReadLimits, Receipt},
    error::Refusal,
    event::{Draft, Event},
    interest::Interest,
};

#[derive(Debug)]
pub(super) struct Log {
    epoch: Epoch,
    /// The seq of the newest event.
    head: u64,
    /// When it was last appended to, or made.
    used_at: Instant,
    /// The seqs `head - entries.len() + 1 ..= head`.
    entries: VecDeque<(Instant, Arc<Event>)>,
    bytes: usize,
    keys: HashMap<String, Receipt>,
    /// Keys by age; each is in `keys`.
    key_ages: VecDeque<(Instant, String)>,
    followers: Followers,
}

impl Log {
    pub(super) fn new(epoch: Epoch, head: u64) -> Self {
        let (entries, bytes, keys, key_ages, followers) = Default::default();
        Self { epoch, head, used_at: Instant::now(), entries, bytes, keys, key_ages, followers }
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

    /// The cursor at a seq, or the nearest to it.
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
    ) -> Vec<Appended> {
        let now = Instant::now();
        self.used_at = now;
        self.forget_keys(now, limits);
        let answers: Vec<Appended> = batch.into_iter().map(|draft| self.admit(draft, now)).collect();
        self.trim(now, retention);
        self.announce(&answers);
        answers
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

    /// Whether nobody needs it, and that for so long.
    pub(super) fn is_idle(&mut self, now: Instant, age_max: Duration) -> bool {
        let is_empty = self.entries.is_empty() && self.keys.is_empty() && self.followers.is_empty();
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
