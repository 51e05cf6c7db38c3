//! Sessions that were lost a moment ago, kept so that their clients can go on with them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_proto::room::{Room, Tenant};

/// What is needed to go on with a session.
#[derive(Debug, Clone)]
pub(super) struct LostSession {
    pub(super) id: Arc<str>,
    pub(super) tenant: Tenant,
    pub(super) user_id: Arc<str>,
    /// With the catalog whose call entered each.
    pub(super) rooms: HashMap<Room, Arc<str>>,
    /// Where the log was when it began, for clients that have had no event.
    pub(super) began: Arc<str>,
}

/// Lost sessions by their secret; the oldest go first.
#[derive(Debug)]
pub(super) struct Lost {
    by_pid: HashMap<Arc<str>, (Instant, LostSession)>,
    by_age: VecDeque<(Instant, Arc<str>)>,
    window: Duration,
    sessions_max: usize,
}

impl Lost {
    pub(super) fn new(window: Duration, sessions_max: usize) -> Self {
        Self { by_pid: HashMap::new(), by_age: VecDeque::new(), window, sessions_max }
    }

    pub(super) fn put(&mut self, pid: Arc<str>, session: LostSession, now: Instant) {
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

    pub(super) fn take(&mut self, pid: &str) -> Option<LostSession> {
        self.by_pid.remove(pid).map(|(_, session)| session)
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
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_pid.is_empty()
    }
}
