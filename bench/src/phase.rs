//! What is published to which sessions: the phases of a run, and the cases that are measured in them.
//!
//! Knows nothing of targets and of the report.

use std::time::Duration;

use clap::ValueEnum;

/// The interval of steady events: 20 a second.
const STEADY_INTERVAL: Duration = Duration::from_millis(50);
/// Rooms: 500 events a second.
const ROOMS_INTERVAL: Duration = Duration::from_millis(2);
/// Chat: 2,000 events a second.
const CHAT_INTERVAL: Duration = Duration::from_micros(500);
/// Single calls of a producer that may be unanswered, where events come closer than an answer.
const CALLS_IN_FLIGHT: usize = 8;

/// What can be chosen to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Phase {
    /// All sessions in one room, 20 events a second.
    Steady,
    /// The same room, many events at once.
    Burst,
    /// Each event to two rooms that all sessions are in, steady and in bursts. Fanfare only.
    TwoRooms,
    /// Each event leaves out one session, steady and in bursts. Fanfare only.
    Except,
    /// 100 rooms of 50 sessions, 500 events a second.
    Rooms,
    /// 1,000 rooms of one session, 2,000 events a second.
    Chat,
}

/// One kind of measurement; the order is that of a round and of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Case {
    Steady,
    TwoRoomsSteady,
    ExceptSteady,
    Burst,
    TwoRoomsBurst,
    ExceptBurst,
    Rooms,
    Chat,
}

/// Whom the events of a case are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    All,
    TwoRooms,
    AllButOne,
    Chats,
}

/// How the events of a case come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) count: u32,
    /// Between two events; zero: all at once.
    pub(crate) interval: Duration,
    /// Calls of the producer that may be unanswered.
    pub(crate) in_flight: usize,
    /// How many such runs are taken as one measurement: the CPU clock ticks are 10 ms long.
    pub(crate) runs: u32,
}

/// How long a case goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length {
    pub(crate) seconds: u32,
    pub(crate) burst: u32,
    pub(crate) bursts: u32,
}

impl Case {
    const ALL: [Self; 8] = [
        Self::Steady,
        Self::TwoRoomsSteady,
        Self::ExceptSteady,
        Self::Burst,
        Self::TwoRoomsBurst,
        Self::ExceptBurst,
        Self::Rooms,
        Self::Chat,
    ];

    /// The phase that has to be chosen.
    pub(crate) const fn phase(self) -> Phase {
        match self {
            Self::Steady => Phase::Steady,
            Self::Burst => Phase::Burst,
            Self::TwoRoomsSteady | Self::TwoRoomsBurst => Phase::TwoRooms,
            Self::ExceptSteady | Self::ExceptBurst => Phase::Except,
            Self::Rooms => Phase::Rooms,
            Self::Chat => Phase::Chat,
        }
    }

    /// As in the report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::TwoRoomsSteady => "two rooms steady",
            Self::ExceptSteady => "except steady",
            Self::Burst => "burst",
            Self::TwoRoomsBurst => "two rooms burst",
            Self::ExceptBurst => "except burst",
            Self::Rooms => "rooms",
            Self::Chat => "chat",
        }
    }

    /// Whether only Fanfare can do it.
    pub(crate) const fn is_own(self) -> bool {
        matches!(self, Self::TwoRoomsSteady | Self::TwoRoomsBurst | Self::ExceptSteady | Self::ExceptBurst)
    }

    /// The case of one room whose cost this one is compared with.
    pub(crate) const fn baseline(self) -> Option<Self> {
        match self {
            Self::TwoRoomsSteady | Self::ExceptSteady => Some(Self::Steady),
            Self::TwoRoomsBurst | Self::ExceptBurst => Some(Self::Burst),
            Self::Steady | Self::Burst | Self::Rooms | Self::Chat => None,
        }
    }

    pub(crate) const fn to(self) -> To {
        match self {
            Self::Steady | Self::Burst => To::All,
            Self::TwoRoomsSteady | Self::TwoRoomsBurst => To::TwoRooms,
            Self::ExceptSteady | Self::ExceptBurst => To::AllButOne,
            Self::Rooms | Self::Chat => To::Chats,
        }
    }

    pub(crate) fn pace(self, length: Length) -> Pace {
        let every = |interval: Duration, in_flight| {
            let per_second = u32::try_from(Duration::from_secs(1).as_nanos() / interval.as_nanos());
            let count = length.seconds * per_second.unwrap_or(1);
            Pace { count, interval, in_flight, runs: 1 }
        };
        match self {
            Self::Steady | Self::TwoRoomsSteady | Self::ExceptSteady => every(STEADY_INTERVAL, 1),
            Self::Burst | Self::TwoRoomsBurst | Self::ExceptBurst => {
                let Length { burst, bursts, .. } = length;
                Pace { count: burst, interval: Duration::ZERO, in_flight: 1, runs: bursts }
            }
            Self::Rooms => every(ROOMS_INTERVAL, CALLS_IN_FLIGHT),
            Self::Chat => every(CHAT_INTERVAL, CALLS_IN_FLIGHT),
        }
    }
}

/// Sessions and the rooms they are in, with the cases that are measured on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) sessions: usize,
    /// Besides the room of all, each session is in one of so many chats; 0: in none.
    pub(crate) chats: u32,
    pub(crate) cases: Vec<Case>,
}

/// The numbers of sessions and rooms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// In one room.
    pub(crate) sessions: usize,
    pub(crate) rooms: u32,
    pub(crate) room_sessions: usize,
    /// Rooms of one session each.
    pub(crate) chats: u32,
}

/// The layouts that the chosen phases need.
pub(crate) fn layouts(phases: &[Phase], sizes: Sizes) -> Vec<Layout> {
    let cases = |of: &[Case]| -> Vec<Case> {
        Case::ALL.into_iter().filter(|case| of.contains(case) && phases.contains(&case.phase())).collect()
    };
    let one: Vec<Case> = Case::ALL.into_iter().filter(|case| case.to() != To::Chats).collect();
    let one = cases(&one);
    let second_room = u32::from(one.iter().any(|case| case.to() == To::TwoRooms));
    let rooms = usize::try_from(sizes.rooms).unwrap_or(usize::MAX);
    let chats = usize::try_from(sizes.chats).unwrap_or(usize::MAX);
    let all = [
        Layout { sessions: sizes.sessions, chats: second_room, cases: one },
        Layout {
            sessions: rooms.saturating_mul(sizes.room_sessions),
            chats: sizes.rooms,
            cases: cases(&[Case::Rooms]),
        },
        Layout { sessions: chats, chats: sizes.chats, cases: cases(&[Case::Chat]) },
    ];
    all.into_iter().filter(|layout| !layout.cases.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { sessions: 1000, rooms: 100, room_sessions: 50, chats: 1000 };

    #[test]
    fn only_the_layouts_of_the_chosen_phases_are_connected() {
        let found = layouts(&[Phase::Steady, Phase::Chat], SIZES);
        assert_eq!(
            found,
            [
                Layout { sessions: 1000, chats: 0, cases: vec![Case::Steady] },
                Layout { sessions: 1000, chats: 1000, cases: vec![Case::Chat] },
            ]
        );
        let found = layouts(&[Phase::Rooms, Phase::TwoRooms], SIZES);
        assert_eq!(found[0].chats, 1, "all sessions are in the second room");
        assert_eq!((found[1].sessions, found[1].chats), (5000, 100));
    }

    #[test]
    fn paces_are_those_of_the_phases() {
        let length = Length { seconds: 10, burst: 500, bursts: 3 };
        let counts = [Case::Steady, Case::Rooms, Case::Chat].map(|case| case.pace(length).count);
        assert_eq!(counts, [200, 5000, 20_000]);
        let burst = Case::ExceptBurst.pace(length);
        assert_eq!((burst.count, burst.runs, burst.interval), (500, 3, Duration::ZERO));
    }

    #[test]
    fn a_baseline_is_a_case_that_every_target_can_do() {
        for case in Case::ALL {
            assert_eq!(case.baseline().is_some(), case.is_own());
        }
    }
}
