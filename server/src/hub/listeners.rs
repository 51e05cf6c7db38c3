//! The listeners of a room. Adding or removing one costs the same for any number of listeners, even
//! while publishers hold a copy of the list.

use std::{collections::HashMap, sync::Arc};

use super::channel::Listener;

/// Listeners per part of the list. A part that a publisher still holds is copied before it changes.
const PART: usize = 256;
/// Longer lists have an index.
const LONG: usize = 32;

/// A part of the list, shared with publishers.
pub(super) type Part = Arc<Vec<Arc<Listener>>>;

/// All listeners of a room, each once, in no particular order.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// All parts are full except the last one.
    parts: Vec<Part>,
    /// The place of each listener by its address. Empty unless the list is long.
    places: HashMap<usize, usize>,
}

fn address(listener: &Arc<Listener>) -> usize {
    Arc::as_ptr(listener).addr()
}

impl Listeners {
    pub(super) const fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The parts of the list, for a publisher to wake.
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn len(&self) -> usize {
        self.parts.last().map_or(0, |last| (self.parts.len() - 1) * PART + last.len())
    }

    pub(super) fn add(&mut self, listener: Arc<Listener>) {
        let at = self.len();
        // A list that became shorter keeps its index until it is much shorter.
        if at > LONG || !self.places.is_empty() {
            if self.places.is_empty() {
                let all = self.parts.iter().flat_map(|part| part.iter());
                self.places = all.enumerate().map(|(at, listener)| (address(listener), at)).collect();
            }
            self.places.insert(address(&listener), at);
        }
        if at.is_multiple_of(PART) {
            self.parts.push(Arc::default());
        }
        if let Some(last) = self.parts.last_mut() {
            Arc::make_mut(last).push(listener);
        }
    }

    /// The last listener takes the place of the removed one.
    pub(super) fn remove(&mut self, listener: &Arc<Listener>) {
        let Some(at) = self.find(listener) else { return };
        let Some(part) = self.parts.last_mut() else { return };
        let Some(last) = Arc::make_mut(part).pop() else { return };
        if part.is_empty() {
            self.parts.pop();
        }
        if !Arc::ptr_eq(&last, listener)
            && let Some(part) = self.parts.get_mut(at / PART)
        {
            if !self.places.is_empty() {
                self.places.insert(address(&last), at);
            }
            Arc::make_mut(part)[at % PART] = last;
        }
        if self.len() < LONG / 2 {
            self.places = HashMap::new();
        }
    }

    fn find(&mut self, listener: &Arc<Listener>) -> Option<usize> {
        if !self.places.is_empty() {
            return self.places.remove(&address(listener));
        }
        self.parts.iter().flat_map(|part| part.iter()).position(|other| Arc::ptr_eq(other, listener))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;

    fn listener(key: u64) -> Arc<Listener> {
        Arc::new(Listener { ready: AtomicBool::new(false), key, inbox: Arc::default() })
    }

    fn keys(listeners: &Listeners) -> Vec<u64> {
        let mut keys: Vec<u64> =
            listeners.parts().iter().flat_map(|part| part.iter()).map(|listener| listener.key).collect();
        keys.sort_unstable();
        keys
    }

    proptest! {
        #[test]
        fn who_came_and_did_not_go_is_there_once(steps in proptest::collection::vec(0..600_usize, 0..2000)) {
            let (mut listeners, mut here) = (Listeners::default(), Vec::<Arc<Listener>>::new());
            for (key, step) in steps.into_iter().enumerate() {
                if step < here.len() / 2 {
                    listeners.remove(&here.swap_remove(step));
                } else {
                    let new = listener(key as u64);
                    listeners.add(new.clone());
                    here.push(new);
                }
            }
            let mut expected: Vec<u64> = here.iter().map(|listener| listener.key).collect();
            expected.sort_unstable();
            prop_assert_eq!(keys(&listeners), expected);
            for listener in here {
                listeners.remove(&listener);
            }
            prop_assert!(listeners.is_empty() && listeners.places.is_empty());
        }
    }

    #[test]
    fn one_that_goes_copies_little_of_what_a_publisher_holds() {
        let mut listeners = Listeners::default();
        let all: Vec<_> = (0..10_000).map(listener).collect();
        all.iter().for_each(|listener| listeners.add(listener.clone()));
        let held = listeners.parts().to_vec();
        listeners.remove(&all[1000]);
        let copied = held.iter().zip(listeners.parts()).filter(|(held, now)| !Arc::ptr_eq(held, now)).count();
        assert!(copied <= 2, "{copied} of {} parts", held.len());
        assert_eq!(keys(&listeners).len(), 9_999);
    }
}
