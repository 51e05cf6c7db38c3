//! The events with which catalogs announce sessions and users: greetings for new sessions, and
//! notifications of rooms.

use std::sync::Arc;

use fanfare_proto::{
    catalog::{Catalogs, DEFAULT_NAMESPACE, EventType, Namespace, Stamp},
    room::Room,
    v1::{self, Caller, Delivery, Transport},
};
use prost::Message as _;

use super::{
    index::UserKey,
    user::{Transition, User, timestamp},
};
use crate::{
    config::PresenceConfig,
    error::Error,
    event::{browser_forms, ephemeral_id},
    ingest,
};

/// The event types that catalogs declare for presence.
#[derive(Debug)]
pub(super) struct Announcements {
    types: Vec<Arc<EventType>>,
    namespaces: Vec<Namespace>,
}

/// An event that announces a transition to a room.
#[derive(Debug)]
pub(super) struct Announcement {
    pub(super) kind: Arc<EventType>,
    pub(super) payload: bytes::Bytes,
    /// Unique to this event, so that it is published once even if publishing is retried.
    pub(super) idempotency_key: String,
}

impl Announcements {
    pub(super) fn new(catalogs: &Catalogs, config: &PresenceConfig) -> Result<Self, Error> {
        if let Some(unknown) = config.catalogs.iter().find(|name| !catalogs.packages().contains(name)) {
            return Err(Error::PresenceCatalog {
                name: unknown.clone(),
                loaded: catalogs.packages().join(", "),
            });
        }
        let is_chosen =
            |e: &&Arc<EventType>| config.catalogs.is_empty() || config.catalogs.contains(&e.package);
        let mut types: Vec<_> =
            catalogs.events().filter(|e| e.announcement.is_some()).filter(is_chosen).cloned().collect();
        types.sort_by(|a, b| a.full_name.cmp(&b.full_name));
        Ok(Self { types, namespaces: catalogs.namespaces().to_vec() })
    }

    pub(super) fn namespace(&self, name: &str) -> Option<&Namespace> {
        let name = if name.is_empty() { DEFAULT_NAMESPACE } else { name };
        self.namespaces.iter().find(|namespace| namespace.name == name)
    }

    /// The event types that announce a transition to a room.
    fn concerned<'a>(
        &'a self,
        room: &Room,
        catalog: &'a str,
        came: bool,
    ) -> impl Iterator<Item = &'a Arc<EventType>> {
        let of_org = room.as_str() == "org";
        let on = match (of_org, came) {
            (true, true) => v1::Presence::Online,
            (true, false) => v1::Presence::Offline,
            (false, true) => v1::Presence::Joined,
            (false, false) => v1::Presence::Left,
        };
        self.types.iter().filter(move |kind| {
            let is = kind.announcement.as_ref().is_some_and(|a| a.on == on);
            is && (of_org || *kind.package == *catalog)
        })
    }

    /// Whether any event announces such a transition to the room.
    pub(super) fn is_published(&self, room: &Room, catalog: &str, came: bool) -> bool {
        self.concerned(room, catalog, came).next().is_some()
    }

    /// The events that announce a transition.
    pub(super) fn of(&self, key: &UserKey, user: &User, transition: &Transition) -> Vec<Announcement> {
        let caller = Caller {
            tenant: key.tenant.as_str().to_owned(),
            user_id: key.user_id.to_string(),
            user_name: user.name.to_string(),
            session_id: transition.session_id.to_string(),
            ..Caller::default()
        };
        let (claims, time) = (serde_json::Map::new(), timestamp(transition.at));
        let stamp =
            Stamp { caller: &caller, claims: &claims, event_id: "", time, members: &[], history_next: "" };
        let announcement = |kind: &Arc<EventType>| {
            let message = kind.announcement.as_ref()?.make(Some(&transition.room), &stamp)?;
            Some(Announcement {
                kind: kind.clone(),
                payload: message.encode_to_vec().into(),
                // No producer's key looks like this, because those begin with the producer's name.
                idempotency_key: format!(
                    "\0presence\0{}\0{:016x}\0{}",
                    key.user_id, transition.id, kind.full_name
                ),
            })
        };
        self.concerned(&transition.room, &transition.catalog, transition.came)
            .filter_map(announcement)
            .collect()
    }

    /// The events that greet a new session.
    pub(super) fn greet(&self, caller: &Caller) -> Vec<Delivery> {
        let (transport, namespace) = (caller.transport(), self.namespace(&caller.namespace));
        let greeting = |kind: &&Arc<EventType>| {
            let announcement = kind.announcement.as_ref();
            let is_served = namespace.is_some_and(|namespace| namespace.serves(&kind.package));
            is_served
                && announcement.is_some_and(|a| {
                    a.on == v1::Presence::Connected
                        && (a.transport == Transport::Unspecified || a.transport == transport)
                })
        };
        let kinds: Vec<&Arc<EventType>> = self.types.iter().filter(greeting).collect();
        if kinds.is_empty() {
            return Vec::new();
        }
        let claims = serde_json::from_slice(&caller.claims_json).unwrap_or_default();
        // If several have the same name, the one for this specific transport.
        let specific =
            |kind: &EventType| kind.announcement.as_ref().is_some_and(|a| a.transport == transport);
        let shadowed = |kind: &EventType| {
            !specific(kind) && kinds.iter().any(|other| other.name == kind.name && specific(other))
        };
        let greetings = kinds.iter().filter(|kind| !shadowed(kind)).filter_map(|kind| {
            let id = ephemeral_id();
            let stamp = Stamp {
                caller,
                claims: &claims,
                event_id: &id,
                time: ingest::now(),
                members: &[],
                history_next: "",
            };
            let message = kind.announcement.as_ref()?.make(None, &stamp)?;
            let (json, binary) = browser_forms(&kind.shape, kind.binary, &message.encode_to_vec()).ok()?;
            Some(Delivery {
                id,
                name: kind.name.clone(),
                json,
                binary,
                ephemeral: true,
                catalog: kind.package.clone(),
                ..Delivery::default()
            })
        });
        greetings.collect()
    }
}
