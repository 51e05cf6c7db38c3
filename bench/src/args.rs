//! The command line.

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Parser, ValueEnum, value_parser};

use crate::{
    binaries::Given,
    measure,
    phase::{Layout, Length, Phase, Sizes, layouts},
    target::Kind,
};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// Deliveries to sessions, and idle sessions, beside the peers.
    Peers,
    /// Memory per session: idle over Socket.IO and /ws, and 60 s after a burst.
    Idle,
    /// CPU time per connect.
    Connect,
    /// The time until the last of many sessions has an event, by the number of shards.
    Shards,
    /// Acknowledged events per second, by engine, way and events in flight.
    Publish,
    /// Sessions that come back all at once.
    Storm,
}

/// Measures Fanfare and its peers side by side on this machine.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// What is measured.
    #[arg(long, value_enum, default_value = "peers")]
    pub(crate) subject: Subject,
    /// The phases of the subject `peers`.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "steady,burst,two-rooms,except,rooms,chat"
    )]
    pub(crate) phases: Vec<Phase>,
    /// The targets of the subjects `peers`, `idle` and `connect`.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "fanfare,node,socketioxide")]
    pub(crate) only: Vec<Kind>,
    /// Rounds that count; in `peers`, `publish` and `shards` something warms up before.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Measures this `fanfare` program, instead of one built from the workspace.
    #[arg(long)]
    pub(crate) fanfare: Option<PathBuf>,
    /// Compares with this `fanfare` program, as the target `before`.
    #[arg(long)]
    pub(crate) fanfare_before: Option<PathBuf>,
    /// WebSocket sessions in one room.
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(2..=100_000))]
    pub(crate) sessions: u32,
    /// How long each paced phase of a round takes, in seconds.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Events in a burst.
    #[arg(long, default_value_t = 500, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) burst: u32,
    /// Bursts in a round, taken as one measurement.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=100))]
    pub(crate) bursts: u32,
    /// Rooms of the phase `rooms`.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) rooms: u32,
    /// Sessions in each of them.
    #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) room_sessions: u32,
    /// Rooms of the phase `chat`, each with one session.
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) chats: u32,
    /// Sessions that idle while memory is measured; 0 leaves it out of the subject `peers`.
    #[arg(long, default_value_t = 8000)]
    pub(crate) idle_sessions: u32,
    /// Sessions that connect in the subject `connect`.
    #[arg(long, default_value_t = 5000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) connects: u32,
    /// Numbers of shards to compare.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    pub(crate) shards: Vec<u32>,
    /// Sessions that get each event in the subject `shards`.
    #[arg(long, default_value_t = 8000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) shard_sessions: u32,
    /// Events in a round of the subject `shards`.
    #[arg(long, default_value_t = 40, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) shard_events: u32,
    /// Sessions in a recovery storm.
    #[arg(long, default_value_t = 5000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) storm_sessions: u32,
    /// Events that each of them has missed.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) storm_missed: u32,
}

impl Args {
    /// The targets to measure: `before` is one of them once its program is given.
    pub(crate) fn targets(&self) -> Vec<Kind> {
        let mut targets = self.only.clone();
        if self.fanfare_before.is_some() && !targets.contains(&Kind::Before) {
            let after_fanfare = targets.iter().position(|kind| *kind == Kind::Fanfare).map_or(0, |at| at + 1);
            targets.insert(after_fanfare, Kind::Before);
        }
        targets
    }

    pub(crate) fn given(&self) -> Given {
        Given { fanfare: self.fanfare.clone(), before: self.fanfare_before.clone() }
    }

    pub(crate) fn length(&self) -> Length {
        Length { seconds: self.seconds, burst: self.burst, bursts: self.bursts }
    }

    pub(crate) fn layouts(&self) -> Vec<Layout> {
        let sizes = Sizes {
            sessions: self.sessions as usize,
            rooms: self.rooms,
            room_sessions: self.room_sessions as usize,
            chats: self.chats,
        };
        layouts(&self.phases, sizes)
    }

    pub(crate) fn conditions(&self) -> String {
        let Self { sessions, seconds, burst, bursts, rooms, room_sessions, chats, .. } = self;
        format!(
            "{sessions} sessions in one room: 20 events/s, and {bursts} bursts of {burst} events; {rooms} rooms of \
             {room_sessions} sessions: 500 events/s; {chats} rooms of one session: 2,000 events/s; {seconds} s per \
             paced phase; {} idle sessions; {} rounds",
            self.idle_sessions, self.rounds
        )
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !cfg!(debug_assertions),
            "a debug build measures nothing: cargo run --release -p fanfare-bench"
        );
        for (index, kind) in self.only.iter().enumerate() {
            ensure!(!self.only[..index].contains(kind), "--only names {} twice", kind.name());
        }
        ensure!(
            !self.only.contains(&Kind::Before) || self.fanfare_before.is_some(),
            "--only before needs --fanfare-before PATH"
        );
        ensure!(!self.shards.is_empty(), "--shards needs at least one number");
        measure::allow_sockets(self.sockets())
    }

    /// The most sockets that the clients or one server need.
    fn sockets(&self) -> usize {
        let needed = match self.subject {
            Subject::Peers => {
                let layouts = self.layouts().iter().map(|layout| layout.sessions).max().unwrap_or(0);
                return layouts.max(self.idle_sessions as usize);
            }
            Subject::Idle => self.idle_sessions,
            Subject::Connect => self.connects,
            Subject::Shards => {
                self.shard_sessions.saturating_mul(u32::try_from(self.shards.len()).unwrap_or(u32::MAX))
            }
            Subject::Publish => 0,
            // Those that are gone may not be closed yet.
            Subject::Storm => 2 * self.storm_sessions,
        };
        needed as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_build_is_measured_next_to_fanfare() {
        let args = ["bench", "--fanfare-before", "x", "--only", "node,fanfare,dev"];
        let args = Args::parse_from(args);
        assert_eq!(args.targets(), [Kind::Node, Kind::Fanfare, Kind::Before, Kind::Dev]);
    }

    #[test]
    fn phases_are_selectable() {
        let args = Args::parse_from(["bench", "--phases", "steady,two-rooms,chat"]);
        assert_eq!(args.phases, [Phase::Steady, Phase::TwoRooms, Phase::Chat]);
        assert_eq!(args.layouts().len(), 2);
    }
}
