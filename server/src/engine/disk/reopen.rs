//! How the writer reacts when the store cannot be written: it closes the store to all callers, and
//! tries to open it again until that succeeds. The contents of the disk are then authoritative.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    log::Log,
    store::{Contents, Opening, Store, unpanicked},
    writer::{Command, Writer},
};
use crate::{
    engine::Appended,
    error::Refusal,
    event::{Draft, Event},
};

/// The pause between two attempts to open a store that has failed.
const REOPEN_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 200 });
/// How long a request waits for its refusal while the store is closed.
const REFUSAL_PAUSE: Duration = Duration::from_millis(5);

impl Writer {
    /// Concludes the store; nothing is written after this.
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

    /// Closes a store that cannot be written.
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

    /// While the store is closed, tries to open it again. Returns a command that arrives before
    /// that succeeds.
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

    /// Answers a batch while the store is closed: only events and records that are never stored are
    /// accepted. Nothing in the logs changes, so the store can be reopened in its last state.
    pub(super) fn refuse(&self, batch: Vec<Command>) -> Option<oneshot::Sender<()>> {
        let mut closing = None;
        for command in batch {
            // Callers may have gone.
            match command {
                Command::Append(tenant, drafts, answer) => {
                    let passes = |draft: &Draft| draft.kind.ephemeral && draft.idempotency_key.is_empty();
                    let appended = if drafts.iter().all(passes) {
                        let events = drafts.into_iter().map(|draft| Arc::new(Event::ephemeral(draft)));
                        let events: Vec<_> = events.collect();
                        self.shared.places.publish(&tenant, None, &events);
                        Ok(events.into_iter().map(Appended::Event).collect())
                    } else {
                        Err(Refusal::Storage("written"))
                    };
                    let _gone = answer.send(appended);
                }
                Command::Replace(space, key, replacement, answer) => {
                    // A record that expires is only in memory, unless it replaces one that is on
                    // the disk.
                    let passes = replacement.ttl.is_some() && self.shared.records.expires(&space, &key);
                    let replaced = if passes {
                        Ok(self.shared.records.replace(&space, &key, &replacement))
                    } else {
                        Err(Refusal::Storage("written"))
                    };
                    let _gone = answer.send(replaced);
                }
                Command::Sweep(answer) => _ = answer.send(Ok(())),
                Command::Close(answer) => closing = Some(answer),
            }
        }
        closing
    }

    /// Replaces the state of the writer with the contents of the store.
    pub(super) fn take_over(&mut self, contents: Contents) {
        self.logs.clear();
        self.next_number = 0;
        self.bytes = 0;
        let now = self.clock.now();
        self.shared.places.take_over(&contents.logs, contents.floor);
        self.shared.records.restore(contents.records, contents.revision);
        for log in contents.logs {
            self.next_number = self.next_number.max(log.number + 1);
            let own = Log {
                number: log.number,
                head: log.head,
                noted: Some(log.head),
                removed: log.head - log.retained.len() as u64,
                used_at: now,
                bytes: log.retained.iter().map(|(_, cost)| cost).sum(),
                retained: log.retained.into(),
                key_ages: log.keys.iter().map(|(at, key, _)| (*at, key.clone())).collect(),
                state: log.state,
                keys: log.keys.into_iter().map(|(_, key, answer)| (key, answer)).collect(),
            };
            self.bytes += own.bytes;
            self.logs.insert(log.tenant, own);
        }
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
            Ok((store, contents)) => {
                self.is_suspect = false;
                // First, so that followers whose feeds end find the store open.
                *self.shared.store.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(store));
                self.take_over(contents);
                tracing::warn!("the log is open again");
            }
            Err(error) => tracing::error!(%error, "the log stays closed"),
        }
    }
}
