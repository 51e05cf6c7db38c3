//! How an event changes the current state of its rooms.

use std::time::Duration;

use super::{RenderError, RoomTemplate};
use crate::{json::Shape, room::Room};

/// The maximum time to live of an entry.
const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Turns a key template into a room template, so that both have the same grammar.
const KIND: &str = "key";

/// How an event changes the current state of its rooms.
#[derive(Debug)]
pub struct StateType {
    /// The key, as the id of a room.
    template: RoomTemplate,
    /// Whether the event removes the entry.
    pub is_removal: bool,
    /// How long the entry lives.
    pub ttl: Option<Duration>,
}

impl StateType {
    /// Checks a declaration. The error describes what is wrong.
    pub(super) fn parse(
        key: &str,
        is_removal: bool,
        ttl_seconds: u64,
        shape: &Shape,
    ) -> Result<Self, String> {
        let text = if key.is_empty() { KIND.to_owned() } else { format!("{KIND}:{key}") };
        let template = RoomTemplate::parse(&text, shape).map_err(|problem| {
            let problem = problem.split("; write a kind").next().unwrap_or_default();
            problem.replace(&format!("room template \"{KIND}:"), "state key \"")
        })?;
        let ttl = Some(Duration::from_secs(ttl_seconds)).filter(|ttl| !ttl.is_zero());
        if ttl.is_some() && is_removal {
            return Err("state has `delete` and `ttl_seconds`; a removed entry has no end, remove one".into());
        }
        if ttl.is_some_and(|ttl| ttl > TTL_MAX) {
            return Err(format!("state ttl_seconds is {ttl_seconds}; want at most {}", TTL_MAX.as_secs()));
        }
        Ok(Self { template, is_removal, ttl })
    }

    /// The key of an event's entry.
    pub fn key(&self, message: &[u8]) -> Result<String, RenderError> {
        let text = self.template.as_str();
        let template = || text.split_once(':').map_or("", |(_, key)| key).to_owned();
        let room = match self.template.render(message) {
            Ok(Some(room)) => room,
            Ok(None) => return Err(RenderError::KeyUnset { template: template() }),
            Err(RenderError::Empty { field, path, .. }) => {
                return Err(RenderError::KeyEmpty { field, path, template: template() });
            }
            Err(RenderError::Address { .. }) => return Err(RenderError::Key { template: template() }),
            Err(other) => return Err(other),
        };
        Ok(id(&room).to_owned())
    }
}

fn id(room: &Room) -> &str {
    room.as_str().split_once(':').map_or("", |(_, id)| id)
}
