//! Ephemeral events of other servers that have arrived before their frame, or before the stored
//! event that they follow.

use std::collections::VecDeque;

use prost::Message as _;

use super::super::frame::{Frame, Passing, PassingEvent};

/// Maximum number of held messages. The oldest are dropped first: their frame may never have been
/// written.
const FRAMES_MAX: usize = 64;
/// Maximum size of held ephemeral events in bytes.
const BYTES_MAX: usize = 1 << 20;

/// Messages with ephemeral events, oldest first.
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

    /// Removes and returns the ephemeral events of a frame, then those that follow it.
    pub(super) fn take(&mut self, frame: &Frame) -> Vec<PassingEvent> {
        let is_rest = |passing: &Passing| passing.frame == 0 && passing.seq <= frame.last();
        let (mut of_frame, mut rest) = (Vec::new(), Vec::new());
        for (passing, bytes) in std::mem::take(&mut self.frames) {
            if passing.frame == frame.tag {
                self.bytes -= bytes;
                of_frame.extend(passing.events);
            } else if is_rest(&passing) {
                self.bytes -= bytes;
                let events = passing.events.into_iter();
                rest.extend(events.map(|event| PassingEvent { after: u32::MAX, ..event }));
            } else {
                self.frames.push_back((passing, bytes));
            }
        }
        of_frame.append(&mut rest);
        of_frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(frame: u64, id_bytes: usize) -> Passing {
        let event = PassingEvent { id: "i".repeat(id_bytes), ..PassingEvent::default() };
        Passing { frame, events: vec![event], ..Passing::default() }
    }

    fn frame(tag: u64) -> Frame {
        Frame { tag, first: 5, ..Frame::default() }
    }

    #[test]
    fn what_belongs_to_no_frame_comes_after_the_frame_that_reaches_its_seq() {
        let mut held = Held::default();
        held.insert(Passing { seq: 5, ..passing(0, 1) });
        held.insert(Passing { seq: 4, ..passing(0, 2) });
        held.insert(passing(1, 3));
        let lengths: Vec<usize> = held.take(&frame(1)).iter().map(|event| event.id.len()).collect();
        assert_eq!((lengths, held.frames.len()), (vec![3, 2], 1));
    }

    #[test]
    fn what_is_held_is_bounded_and_the_oldest_goes_first() {
        let mut held = Held::default();
        (1..=FRAMES_MAX as u64 + 1).for_each(|frame| held.insert(passing(frame, 8)));
        assert_eq!(held.take(&frame(1)), []);
        assert_eq!(held.take(&frame(2)).len(), 1);
        assert_eq!(held.take(&frame(2)), []);
        held.insert(passing(100, BYTES_MAX - 100));
        held.insert(passing(101, 200));
        assert_eq!((held.take(&frame(100)), held.take(&frame(101)).len()), (Vec::new(), 1));
    }
}
