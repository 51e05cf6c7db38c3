//! To whom a run of events goes, and which of its events a session therefore gets.
//!
//! Knows nothing of targets. The number of an event decides its room or the session it leaves out, so that the
//! publisher and the sessions agree without talking to each other.

use std::sync::Arc;

/// The room that every session is in from the start.
pub(crate) const ROOM: &str = "org";
/// The chat that is the second room of all sessions.
pub(crate) const SECOND_CHAT: u32 = 1;

/// To whom the events of a run go.
#[derive(Debug, Clone)]
pub(crate) enum Audience {
    /// To the room of all.
    All,
    /// To two rooms, each with all sessions: each session gets each event once.
    TwoRooms,
    /// To the room of all, without one session: event n leaves out session n modulo their number.
    AllButOne(Arc<[String]>),
    /// Each to one of so many chats: event n to chat 1 + n modulo their number.
    Chats(u32),
}

impl Audience {
    /// The rooms that an event is published to.
    pub(crate) fn rooms(&self, number: u32) -> Vec<String> {
        match self {
            Self::All | Self::AllButOne(_) => vec![ROOM.into()],
            Self::TwoRooms => vec![ROOM.into(), chat_room(SECOND_CHAT)],
            Self::Chats(count) => vec![chat_room(1 + number % count)],
        }
    }

    /// The session that an event leaves out.
    pub(crate) fn except(&self, number: u32) -> Option<&str> {
        let Self::AllButOne(sessions) = self else { return None };
        sessions.get(number as usize % sessions.len().max(1)).map(String::as_str)
    }

    /// What the session with this index gets. Sessions are in the chats in turn.
    pub(crate) fn share(&self, session: u32) -> Share {
        match self {
            Self::All | Self::TwoRooms => Share::Every,
            Self::AllButOne(sessions) => {
                Share::Without { of: u32::try_from(sessions.len()).unwrap_or(u32::MAX), at: session }
            }
            Self::Chats(count) => Share::Only { of: *count, at: session % count },
        }
    }
}

/// The chat that a session is in when there are so many.
pub(crate) fn chat_of(session: u32, chats: u32) -> u32 {
    1 + session % chats
}

fn chat_room(chat: u32) -> String {
    format!("chat:{chat}")
}

/// The events of a run that one session gets, by their numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Share {
    /// All.
    #[default]
    Every,
    /// Those whose number modulo `of` is `at`.
    Only { of: u32, at: u32 },
    /// All but those.
    Without { of: u32, at: u32 },
}

impl Share {
    fn contains(self, number: u32) -> bool {
        match self {
            Self::Every => true,
            Self::Only { of, at } => number % of == at,
            Self::Without { of, at } => number % of != at,
        }
    }

    /// The first event from `number` on that the session gets; of one session alone, `Without` has none.
    pub(crate) fn next(self, number: u32) -> u32 {
        match self {
            Self::Every => number,
            Self::Only { of, at } => number + (at + of - number % of) % of,
            Self::Without { .. } => number + u32::from(!self.contains(number)),
        }
    }

    /// How many of the `count` events from `first` on the session gets.
    pub(crate) fn count(self, first: u32, count: u32) -> u32 {
        let of_class = |of: u32, at: u32| (first..first + count).filter(|number| number % of == at).count();
        match self {
            Self::Every => count,
            Self::Only { of, at } => u32::try_from(of_class(of, at)).unwrap_or(count),
            Self::Without { of, at } => count - u32::try_from(of_class(of, at)).unwrap_or(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Audience; 4] {
        let sessions: Vec<String> = (0..7).map(|session| format!("s{session}")).collect();
        [Audience::All, Audience::TwoRooms, Audience::AllButOne(sessions.into()), Audience::Chats(3)]
    }

    /// What the session gets, from the rooms and exceptions of each event.
    fn delivered(audience: &Audience, session: u32, number: u32) -> bool {
        let chat = match audience {
            Audience::Chats(count) => chat_of(session, *count),
            _ => SECOND_CHAT,
        };
        let own = [ROOM.to_owned(), chat_room(chat)];
        audience.rooms(number).iter().any(|room| own.contains(room))
            && audience.except(number) != Some(&format!("s{session}"))
    }

    #[test]
    fn shares_agree_with_rooms_and_exceptions() {
        for audience in all() {
            for session in 0..7 {
                let share = audience.share(session);
                let got: Vec<u32> = (5..45).filter(|&n| delivered(&audience, session, n)).collect();
                assert_eq!(share.count(5, 40) as usize, got.len(), "{audience:?} {session}");
                let mut next = share.next(5);
                for number in got {
                    assert_eq!(next, number, "{audience:?} {session}");
                    next = share.next(number + 1);
                }
            }
        }
    }

    #[test]
    fn each_event_of_chats_goes_to_one_chat() {
        let audience = Audience::Chats(100);
        assert_eq!(audience.rooms(0), ["chat:1"]);
        assert_eq!(audience.rooms(199), ["chat:100"]);
        let total: u32 = (0..5000).map(|session| audience.share(session).count(1, 500)).sum();
        assert_eq!(total, 500 * 50);
    }
}
