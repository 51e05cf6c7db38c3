//! Ephemeral events of other servers that have arrived before the frame they belong to.

use std::collections::VecDeque;

use prost::Message as _;

use super::super::frame::{Passing, PassingEvent};

/// Frames whose ephemeral events are held. Those of a frame that was never written go first.
const FRAMES_MAX: usize = 64;
/// Bytes of ephemeral events that are held.
const BYTES_MAX: usize = 1 << 20;

/// Ephemeral events by frame, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Held {
    frames: VecDeque<(Passing, usize)>,
    bytes: usize,
}

impl Held {
    pub(super) fn insert(&mut self, passing: Passing) {
        let bytes = passing.encoded_len();
        self.bytes += bytes;
        self.frames.push_back((passing, bytes));
        while (self.frames.len() > FRAMES_MAX || self.bytes > BYTES_MAX)
            && let Some((_, bytes)) = self.frames.pop_front()
        {
            self.bytes -= bytes;
        }
    }

    /// The ephemeral events of a frame, which are not held any longer.
    pub(super) fn take(&mut self, frame: u64) -> Vec<PassingEvent> {
        let Some(at) = self.frames.iter().position(|(passing, _)| passing.frame == frame) else {
            return Vec::new();
        };
        let Some((passing, bytes)) = self.frames.remove(at) else { return Vec::new() };
        self.bytes -= bytes;
        passing.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(frame: u64, id_bytes: usize) -> Passing {
        let event = PassingEvent { id: "i".repeat(id_bytes), ..PassingEvent::default() };
        Passing { frame, events: vec![event], ..Passing::default() }
    }

    #[test]
    fn what_is_held_is_bounded_and_the_oldest_goes_first() {
        let mut held = Held::default();
        (1..=FRAMES_MAX as u64 + 1).for_each(|frame| held.insert(passing(frame, 8)));
        assert_eq!(held.take(1), []);
        assert_eq!(held.take(2).len(), 1);
        assert_eq!(held.take(2), []);
        held.insert(passing(100, BYTES_MAX - 100));
        held.insert(passing(101, 200));
        assert_eq!((held.take(100), held.take(101).len(), held.bytes), (Vec::new(), 1, 0));
    }
}
