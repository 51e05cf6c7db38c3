//! Alarms: one task serves all timeouts, so that sessions need no timers of their own.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use slab::Slab;
use tokio::{sync::Notify, time::Instant};

/// Alarms that are due within this time fire together.
const SLACK: Duration = Duration::from_millis(10);
/// Number of alarms that fire before other tasks may run.
const FIRED_AT_ONCE: usize = 256;
/// Number of cancelled alarms that the heap may hold in addition to the number of live ones.
const CANCELLED_MAX: usize = 64;

/// Something that acts at a given time.
pub(crate) trait Timed: Send + Sync {
    /// The alarm is due. Returns the delay until it fires again; `None`: never.
    fn fire(self: Arc<Self>) -> Option<Duration>;
}

/// All alarms. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notifies the task that the earliest alarm has changed.
    earlier: Notify,
}

#[derive(Default)]
struct State {
    alarms: Slab<Entry>,
    /// Ordered by due time; with the place and the serial number of the entry.
    heap: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    serial: u64,
}

/// An alarm that is due: its place and serial number, and what to fire.
type Due = (usize, u64, Weak<dyn Timed>);

struct Entry {
    timed: Weak<dyn Timed>,
    /// Distinguishes the entry from earlier ones at the same place.
    serial: u64,
}

/// An alarm. Dropping it cancels it.
pub(crate) struct Alarm {
    place: usize,
    clock: Clock,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").finish_non_exhaustive()
    }
}

impl Clock {
    /// The lock is held briefly: nothing fires under it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets an alarm.
    pub(crate) fn set(&self, after: Duration, timed: Weak<dyn Timed>) -> Alarm {
        let mut state = self.lock();
        state.serial += 1;
        let serial = state.serial;
        let place = state.alarms.insert(Entry { timed, serial });
        let is_earliest = state.schedule(Instant::now() + after, place, serial);
        drop(state);
        if is_earliest {
            self.0.earlier.notify_one();
        }
        Alarm { place, clock: self.clone() }
    }

    /// Fires alarms forever.
    pub(crate) async fn run(&self) {
        loop {
            let (due, next) = self.lock().pop_due(Instant::now() + SLACK);
            if due.is_empty() {
                let earlier = self.0.earlier.notified();
                match next {
                    Some(at) => _ = tokio::time::timeout_at(at, earlier).await,
                    None => earlier.await,
                }
                continue;
            }
            for (place, serial, timed) in due {
                let again = timed.upgrade().and_then(Timed::fire);
                let mut state = self.lock();
                // It may have been cancelled in the meantime, and its place reused.
                let is_live = state.alarms.get(place).is_some_and(|entry| entry.serial == serial);
                if let Some(after) = again.filter(|_| is_live) {
                    state.schedule(Instant::now() + after, place, serial);
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

impl State {
    /// Schedules an entry; returns true if it is now the earliest.
    fn schedule(&mut self, at: Instant, place: usize, serial: u64) -> bool {
        if self.heap.len() > 2 * self.alarms.len() + CANCELLED_MAX {
            let alarms = &self.alarms;
            self.heap.retain(|Reverse((_, place, serial))| {
                alarms.get(*place).is_some_and(|entry| entry.serial == *serial)
            });
            self.heap.shrink_to_fit();
        }
        let is_earliest = self.heap.peek().is_none_or(|Reverse((earliest, ..))| at < *earliest);
        self.heap.push(Reverse((at, place, serial)));
        is_earliest
    }

    /// Removes a limited number of alarms that are due by `now`; also returns when the next one is
    /// due.
    fn pop_due(&mut self, now: Instant) -> (Vec<Due>, Option<Instant>) {
        let mut due = Vec::new();
        while let Some(&Reverse((at, place, serial))) = self.heap.peek() {
            if at > now || due.len() == FIRED_AT_ONCE {
                return (due, Some(at));
            }
            self.heap.pop();
            if let Some(entry) = self.alarms.get(place).filter(|entry| entry.serial == serial) {
                due.push((place, serial, entry.timed.clone()));
            }
        }
        (due, None)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.clock.lock().alarms.try_remove(self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Timed for Bell {
        fn fire(self: Arc<Self>) -> Option<Duration> {
            (self.0.fetch_add(1, Ordering::Relaxed) < 2).then_some(Duration::from_secs(1))
        }
    }

    fn weak(bell: &Arc<Bell>) -> Weak<dyn Timed> {
        let weak: Weak<Bell> = Arc::downgrade(bell);
        weak
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_fires_as_often_as_it_asks_to_and_never_after_it_is_cancelled() {
        let clock = Clock::default();
        let (kept, cancelled) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let _alarm = clock.set(Duration::from_secs(1), weak(&kept));
        drop(clock.set(Duration::from_millis(1), weak(&cancelled)));
        let _for_ever = tokio::time::timeout(Duration::from_secs(60), clock.run()).await;
        assert_eq!((kept.0.load(Ordering::Relaxed), cancelled.0.load(Ordering::Relaxed)), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_alarm_does_not_wait_for_a_later_one() {
        let clock = Clock::default();
        let (late, early) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let _late = clock.set(Duration::from_secs(3600), weak(&late));
        let set = async {
            tokio::task::yield_now().await;
            clock.set(Duration::from_secs(1), weak(&early))
        };
        let run = tokio::time::timeout(Duration::from_secs(10), clock.run());
        let (_alarm, _for_ever) = tokio::join!(set, run);
        assert_eq!((late.0.load(Ordering::Relaxed), early.0.load(Ordering::Relaxed)), (0, 3));
    }
}
