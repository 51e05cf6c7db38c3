//! A shard: some of the bridge's sessions, the rooms they are in, and the fan-out to them.
//!
//! Events are resolved to lists of members when they are delivered to the shard, and written
//! afterwards without any lock. Events for few sessions are written immediately; others are left to
//! the shard's own task, which yields so that heartbeats and other tenants make progress.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fanfare_proto::room::{Room, Tenant};
use tokio::sync::Notify;

use crate::{event::Run, refusal::Refusal, session::Session, stats::Stats};

/// Up to this number of recipients the link writes events itself: waking another task costs as
/// much.
const INLINE_RECIPIENTS_MAX: usize = 64;
/// Number of recipients between two checks of the clock.
const CHUNK: usize = 32;
/// How long a fan-out runs before it yields to other tasks.
const TURN: Duration = Duration::from_millis(2);
/// Number of jobs that may be queued for a shard before the link waits too.
const JOBS_MAX: usize = 8;

/// The members of a room; copied on write while a fan-out reads the list.
pub(crate) type Members = Arc<Vec<Arc<Session>>>;

/// Some of the sessions.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    index: Mutex<Index>,
    queue: Mutex<Queue>,
    /// Notifies the task that there are jobs.
    wake: Notify,
    /// Notifies that a job is done.
    done: Notify,
    /// Distinguishes runs, see [`Session::mark`].
    stamp: AtomicU64,
}

#[derive(Debug, Default)]
struct Index {
    tenants: HashMap<Tenant, HashMap<Room, Members>>,
    sessions: HashSet<ById>,
}

/// A session by its id.
#[derive(Debug)]
struct ById(Arc<Session>);

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Whether a task is running jobs.
    is_busy: bool,
}

/// Runs and their recipients.
#[derive(Debug, Default)]
struct Job {
    parts: Vec<Part>,
    recipients: usize,
}

#[derive(Debug)]
struct Part {
    run: Arc<Run>,
    lists: Vec<Members>,
    except: Vec<Arc<Session>>,
}

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        self.0.id()
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for ById {}

impl Shard {
    /// The lock is held briefly: only a session's greeting is written under it.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session to rooms; returns the rooms that are new to it. What `first` sends precedes
    /// all events of these rooms, and everything delivered afterwards reaches the session.
    pub(crate) fn enter(&self, session: &Arc<Session>, rooms: &[Room], first: impl FnOnce()) -> Vec<Room> {
        let mut index = self.index();
        index.sessions.replace(ById(session.clone()));
        let of_tenant = index.tenants.entry(session.tenant.clone()).or_default();
        let mut own = session.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entered = Vec::new();
        own.reserve_exact(rooms.len());
        for room in rooms {
            let Err(at) = own.binary_search_by(|(known, _)| known.cmp(room)) else { continue };
            // All members share the key that is already stored.
            let (room, members) = match of_tenant.entry(room.clone()) {
                Entry::Occupied(entry) => (entry.key().clone(), Arc::make_mut(entry.into_mut())),
                Entry::Vacant(entry) => {
                    (entry.key().clone(), Arc::make_mut(entry.insert(Arc::new(Vec::with_capacity(1)))))
                }
            };
            let place = u32::try_from(members.len()).unwrap_or(u32::MAX);
            members.push(session.clone());
            own.insert(at, (room.clone(), place));
            entered.push(room);
        }
        drop(own);
        first();
        entered
    }

    /// Removes a session from rooms; returns those it was in.
    pub(crate) fn leave(&self, session: &Arc<Session>, rooms: &[Room]) -> Vec<Room> {
        let mut index = self.index();
        rooms.iter().filter(|room| index.leave(session, room)).cloned().collect()
    }

    /// Removes a session from all rooms and from the shard; returns the rooms it was in.
    pub(crate) fn remove(&self, session: &Arc<Session>) -> Vec<Room> {
        let mut index = self.index();
        let rooms = session.rooms();
        rooms.iter().for_each(|room| _ = index.leave(session, room));
        let is_own = index.sessions.get(session.id()).is_some_and(|known| Arc::ptr_eq(&known.0, session));
        if is_own {
            index.sessions.remove(session.id());
        }
        rooms
    }

    /// A session by its id.
    pub(crate) fn find(&self, tenant: &Tenant, session_id: &str) -> Option<Arc<Session>> {
        let index = self.index();
        let found = index.sessions.get(session_id).map(|known| known.0.clone());
        found.filter(|session| session.tenant == *tenant)
    }

    /// All sessions, or those of one tenant: one list per tenant. Every session is in `org`.
    pub(crate) fn everybody(&self, tenant: Option<&Tenant>) -> Vec<Members> {
        let index = self.index();
        let chosen = index.tenants.iter().filter(|(t, _)| tenant.is_none_or(|wanted| wanted == *t));
        chosen.filter_map(|(_, rooms)| rooms.get("org").cloned()).collect()
    }

    /// Delivers runs of one tenant, in order. Never waits.
    pub(crate) fn deliver(&self, tenant: &Tenant, runs: &[Arc<Run>], stats: &Stats) {
        let job = self.index().resolve(tenant, runs);
        if job.recipients == 0 {
            runs.iter().for_each(|run| finish(run, stats));
            return;
        }
        {
            let mut queue = self.queue();
            if queue.is_busy || job.recipients > INLINE_RECIPIENTS_MAX {
                queue.jobs.push_back(job);
                if !std::mem::replace(&mut queue.is_busy, true) {
                    self.wake.notify_one();
                }
                return;
            }
            queue.is_busy = true;
        }
        let mut fan_out = FanOut::new(job);
        fan_out.step(self, None);
        fan_out.count(stats);
        let mut queue = self.queue();
        queue.is_busy = !queue.jobs.is_empty();
        if queue.is_busy {
            self.wake.notify_one();
        }
    }

    /// Number of queued jobs, and how many there may be before the link waits too.
    pub(crate) fn usage(&self) -> (usize, usize) {
        (self.queue().jobs.len(), JOBS_MAX)
    }

    /// Resolves when few jobs are queued.
    pub(crate) async fn settle(&self) {
        loop {
            let done = self.done.notified();
            if self.queue().jobs.len() <= JOBS_MAX {
                return;
            }
            done.await;
        }
    }

    /// Runs the jobs that are left to the shard's task, forever.
    pub(crate) async fn run(&self, stats: &Stats) {
        loop {
            self.wake.notified().await;
            while let Some(job) = self.next_job() {
                let mut fan_out = FanOut::new(job);
                while !fan_out.step(self, Some(Instant::now() + TURN)) {
                    tokio::task::yield_now().await;
                }
                fan_out.count(stats);
                self.done.notify_one();
                tokio::task::yield_now().await;
            }
        }
    }

    fn next_job(&self) -> Option<Job> {
        let mut queue = self.queue();
        let next = queue.jobs.pop_front();
        queue.is_busy = next.is_some();
        next
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let index = self.index();
        index.tenants.is_empty() && index.sessions.is_empty()
    }
}

impl Index {
    /// Removes a session from a room; false if it was not in it. The cost does not depend on the
    /// size of the room.
    fn leave(&mut self, session: &Arc<Session>, room: &Room) -> bool {
        let mut own = session.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(at) = own.binary_search_by(|(known, _)| known.cmp(room)) else { return false };
        let (_, place) = own.remove(at);
        drop(own);
        let Some(of_tenant) = self.tenants.get_mut(&session.tenant) else { return true };
        let Some(members) = of_tenant.get_mut(room) else { return true };
        let list = Arc::make_mut(members);
        list.swap_remove(place as usize);
        if let Some(moved) = list.get(place as usize) {
            let mut rooms = moved.rooms.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(at) = rooms.binary_search_by(|(known, _)| known.cmp(room)) {
                rooms[at].1 = place;
            }
        }
        if list.is_empty() {
            of_tenant.remove(room);
            if of_tenant.is_empty() {
                self.tenants.remove(&session.tenant);
            }
        } else if list.len() < list.capacity() / 4 {
            list.shrink_to(list.len() * 2);
        }
        true
    }

    fn resolve(&self, tenant: &Tenant, runs: &[Arc<Run>]) -> Job {
        let mut job = Job::default();
        let Some(of_tenant) = self.tenants.get(tenant) else { return job };
        for run in runs {
            let address = run.address();
            // Every session is in `org`: other rooms add no recipients.
            let lists: Vec<Members> = if address.rooms.iter().any(|room| room == "org") {
                of_tenant.get("org").cloned().into_iter().collect()
            } else {
                address.rooms.iter().filter_map(|room| of_tenant.get(room.as_str()).cloned()).collect()
            };
            let except = address.except_sessions.iter().filter_map(|id| self.sessions.get(id.as_str()));
            let except = except.map(|known| known.0.clone()).collect();
            job.recipients += lists.iter().map(|members| members.len()).sum::<usize>();
            job.parts.push(Part { run: run.clone(), lists, except });
        }
        job
    }
}

/// A job in progress.
struct FanOut {
    job: Job,
    /// The current position: index of the part, of its list, and of the member.
    part: usize,
    list: usize,
    member: usize,
    stamp: u64,
    /// Sessions that received several runs and are flushed at the end, once each.
    unflushed: Vec<Arc<Session>>,
    deliveries: usize,
    overflows: usize,
}

impl FanOut {
    fn new(job: Job) -> Self {
        let (part, list, member) = (0, 0, 0);
        let (unflushed, deliveries, overflows) = (Vec::new(), 0, 0);
        Self { job, part, list, member, stamp: 0, unflushed, deliveries, overflows }
    }

    /// Continues until the job is done and returns true, or until a deadline.
    fn step(&mut self, shard: &Shard, until: Option<Instant>) -> bool {
        let is_over = || until.is_some_and(|until| Instant::now() >= until);
        while self.part < self.job.parts.len() {
            while self.step_part(shard) {
                if is_over() {
                    return false;
                }
            }
            self.part += 1;
            self.list = 0;
        }
        while !self.unflushed.is_empty() {
            let rest = self.unflushed.len().saturating_sub(CHUNK);
            for session in self.unflushed.drain(rest..) {
                session.outbox.flush();
            }
            if is_over() {
                return self.unflushed.is_empty();
            }
        }
        true
    }

    /// Delivers the part to the next members; false if none are left.
    fn step_part(&mut self, shard: &Shard) -> bool {
        let part = &self.job.parts[self.part];
        let may_repeat = part.lists.len() > 1 || !part.except.is_empty();
        if may_repeat && self.list == 0 && self.member == 0 {
            self.stamp = shard.stamp.fetch_add(1, Ordering::Relaxed) + 1;
            part.except.iter().for_each(|session| _ = session.mark(self.stamp));
        }
        let Some(members) = part.lists.get(self.list) else { return false };
        let end = members.len().min(self.member + CHUNK);
        for session in &members[self.member..end] {
            if may_repeat && !session.mark(self.stamp) {
                continue;
            }
            let sent = if self.job.parts.len() == 1 {
                session.send(&part.run)
            } else {
                session.put(&part.run).map(|(events, must_flush)| {
                    if must_flush {
                        self.unflushed.push(session.clone());
                    }
                    events
                })
            };
            if let Ok(events) = sent {
                self.deliveries += events;
            } else {
                session.close(&Refusal::slow());
                self.overflows += 1;
            }
        }
        self.member = end;
        if end == members.len() {
            (self.list, self.member) = (self.list + 1, 0);
        }
        true
    }

    fn count(&self, stats: &Stats) {
        stats.count_deliveries(self.deliveries, self.overflows);
        self.job.parts.iter().for_each(|part| finish(&part.run, stats));
    }
}

/// The shard has finished a run.
fn finish(run: &Run, stats: &Stats) {
    if run.finish() {
        stats.record(&run.events);
    }
}
