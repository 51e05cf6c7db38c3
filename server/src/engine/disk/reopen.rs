//! What the writer does when the store cannot be written: it closes the store to everybody, and opens it anew until that
//! works. What is on the disk then is what has happened.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Place,
    log::Log,
    store::{Contents, Loaded, Opening, Store, unpanicked},
    writer::{Command, Outcome, Writer},
};
use crate::{
    engine::OldAppended,
    error::Refusal,
    event::{Event, ephemeral_id},
};

/// The pause between two tries to open a store that has failed.
const REOPEN_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 200 });
/// How long a request waits for its refusal meanwhile.
const REFUSAL_PAUSE: Duration = Duration::from_millis(5);

impl Writer {
    /// Nothing more will be written.
    pub(super) fn conclude(&self) {
        let Some(store) = self.shared.store() else { return };
        match unpanicked(|| store.conclude(self.clock.now())) {
            Some(Ok(())) => {}
            _ if self.lag.is_allowed() => tracing::error!(
                "the log was not concluded: clients read current state anew after the next start"
            ),
            _ => tracing::warn!("the log was not concluded: its events grow old somewhat later"),
        }
    }

    /// The store cannot be written.
    pub(super) fn fail(&mut self) {
        let store = self.shared.store.write().unwrap_or_else(PoisonError::into_inner).take();
        self.is_suspect |= store.is_some_and(|store| store.is_suspect());
        if self.lag.since.take().is_some() {
            tracing::error!(
                "what was answered is not on the disk and cannot be written; the log stays closed until the server starts again"
            );
            self.is_over = true;
        }
    }

    /// While the store is closed: opens it anew as soon as that works. Gives a command that comes before.
    pub(super) fn recover(&mut self, waiting: &mut mpsc::Receiver<Command>) -> Option<Command> {
        while !self.is_over && self.shared.store().is_none() {
            let rest = REOPEN_PAUSE.saturating_sub(self.tried_at.elapsed());
            if rest.is_zero() {
                self.reopen();
            } else if let Ok(command) = waiting.try_recv() {
                return Some(command);
            } else {
                std::thread::sleep(rest.min(REFUSAL_PAUSE));
            }
        }
        None
    }

    /// Answers a batch while the store is closed: only what is in no log passes through. Nothing is changed, so that
    /// the store can be opened as it was.
    pub(super) fn refuse(&self, batch: Vec<Command>) -> Option<oneshot::Sender<()>> {
        let mut closing = None;
        for command in batch {
            // The callers may be gone.
            match command {
                Command::Append(draft, answer) => {
                    let is_broken = draft.sequence.as_ref().is_some_and(|sequence| sequence.is_broken());
                    if draft.kind.ephemeral && draft.idempotency_key.is_empty() && !is_broken {
                        let event = Arc::new(Event::ephemeral(draft));
                        let appended = OldAppended::to(&event);
                        self.finish(Outcome::Publish(event, appended, answer), true);
                        continue;
                    }
                    draft.sequence.iter().for_each(|sequence| sequence.break_off());
                    let _gone = answer.send(Err(Refusal::Storage("written")));
                }
                Command::Keep(records, answer) => {
                    let kept = if records.is_empty() { Ok(()) } else { Err(Refusal::Storage("written")) };
                    let _gone = answer.send(kept);
                }
                Command::Sweep => {}
                Command::Close(answer) => closing = Some(answer),
            }
        }
        closing
    }

    /// What is in the store is what is true. `published` says how far the hub has a tenant's log.
    pub(super) fn take_over(&mut self, loaded: Vec<Loaded>, published: impl Fn(&Loaded) -> u64) {
        self.logs.clear();
        self.next_number = 0;
        self.bytes = 0;
        let now = self.clock.now();
        let mut places = HashMap::new();
        for log in loaded {
            let published = published(&log);
            self.next_number = self.next_number.max(log.number + 1);
            let own = Log {
                number: log.number,
                head: log.head,
                start: log.head - log.retained.len() as u64,
                noted: Some(log.head),
                removed: log.head - log.retained.len() as u64,
                used_at: now,
                bytes: log.retained.iter().map(|(_, cost)| cost).sum(),
                retained: log.retained.into(),
                key_ages: log.keys.iter().map(|(at, key, _)| (*at, key.clone())).collect(),
                keys: log.keys.into_iter().map(|(_, key, answer)| (key, answer)).collect(),
            };
            let place = Place::new(own.number, own.base(), own.head, published);
            places.insert(log.tenant.clone(), Arc::new(place));
            self.bytes += own.bytes;
            self.logs.insert(log.tenant, own);
        }
        *self.shared.places.write().unwrap_or_else(PoisonError::into_inner) = places;
    }

    fn reopen(&mut self) {
        self.tried_at = Instant::now();
        let opening = Opening {
            folder: &self.shared.folder.clone(),
            late: self.lag.is_allowed(),
            known: Some(self.shared.epoch),
            is_suspect: self.is_suspect,
        };
        match Store::open(opening) {
            Ok((store, Contents { logs, floor, .. })) => {
                self.is_suspect = false;
                self.shared.floor.fetch_max(floor, Ordering::AcqRel);
                let shared = self.shared.clone();
                let published = |log: &Loaded| {
                    shared.place(&log.tenant).map_or(0, |place| place.published.load(Ordering::Acquire))
                };
                self.take_over(logs, published);
                if self.catch_up(&store) {
                    tracing::warn!("the log is open again");
                    *self.shared.store.write().unwrap_or_else(PoisonError::into_inner) =
                        Some(Arc::new(store));
                }
            }
            Err(error) => tracing::error!(%error, "the log stays closed"),
        }
    }

    /// Hands to the hub what is in the store although the disk said that it failed: a request that is sent again is
    /// answered that it was there. False when it cannot be read.
    fn catch_up(&self, store: &Store) -> bool {
        self.logs.iter().all(|(tenant, log)| {
            let Some(place) = self.shared.place(tenant) else { return true };
            let after = place.published.load(Ordering::Acquire).max(place.base.load(Ordering::Acquire));
            if after >= log.head {
                return true;
            }
            let visited = unpanicked(|| {
                store.visit(log.number, after, |seq, stored| {
                    if let Some(event) = stored.and_then(|stored| self.shared.event(tenant, seq, stored)) {
                        self.shared.hub.publish(event, seq - 1).wake();
                    }
                    place.published.store(seq, Ordering::Release);
                    true
                })
            });
            matches!(visited, Some(Ok(())))
        })
    }
}
