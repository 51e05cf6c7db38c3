//! Who may use a room: the only module that decides this, for every entry point.
//!
//! Services with a scope may use all rooms of their tenant. Users may use `org`, their own `user:`
//! room, and rooms of other kinds as the catalogs' rules allow. Knows no protocol.

use std::sync::Arc;

use fanfare_proto::{
    catalog::{Catalogs, RoomRule},
    room::{Room, Tenant},
    token::{Identity, Scope},
    v1::Caller,
};
use tokio::sync::broadcast;

use crate::{error::Refusal, peers::Removal, presence::Presence};

/// Decides according to the catalogs' rules.
#[derive(Debug)]
pub(crate) struct Rules {
    catalogs: Arc<Catalogs>,
    presence: Arc<Presence>,
    removals: broadcast::Sender<Arc<Removal>>,
}

/// Number of removals that a subscription may lag behind. Beyond that, it ends and must be
/// reopened.
const REMOVALS_KEPT: usize = 256;

/// The removals that one subscription receives.
#[derive(Debug)]
pub(crate) struct Removals(broadcast::Receiver<Arc<Removal>>);

impl Removals {
    /// Resolves when the holder of a token is removed from one of these rooms, or when removals
    /// were missed. Returns the refusal that ends the subscription. Services are in no rooms.
    pub(crate) async fn removed(&mut self, identity: &Identity, tenant: &Tenant, rooms: &[Room]) -> Refusal {
        loop {
            match self.0.recv().await {
                Ok(removal) => {
                    let is_user = identity.scopes.is_empty()
                        && identity.user_id.as_ref() == Some(&removal.user_id)
                        && tenant.as_str() == removal.tenant;
                    if is_user && rooms.iter().any(|room| room.as_str() == removal.room) {
                        return Refusal::RoomRemoved(removal.room.clone());
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => return Refusal::Storage("followed"),
                Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
            }
        }
    }
}

/// What a token says about a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    /// The token has no `rooms` claim.
    NoClaim,
    Listed,
    Unlisted,
}

impl Listing {
    fn of_caller(caller: &Caller, room: &Room) -> Self {
        let is_listed = || caller.rooms.iter().any(|listed| listed == room.as_str());
        match caller.rooms_restricted {
            false => Self::NoClaim,
            true if is_listed() => Self::Listed,
            true => Self::Unlisted,
        }
    }

    fn of_identity(identity: &Identity, room: &Room) -> Self {
        match &identity.rooms {
            None => Self::NoClaim,
            Some(rooms) if rooms.contains(room) => Self::Listed,
            Some(_) => Self::Unlisted,
        }
    }

    fn check(self, room: &Room, needs_claim: bool) -> Result<(), Refusal> {
        match self {
            Self::Unlisted => Err(Refusal::RoomUnlisted(room.as_str().to_owned())),
            Self::NoClaim if needs_claim => Err(Refusal::RoomUnclaimed(room.as_str().to_owned())),
            Self::NoClaim | Self::Listed => Ok(()),
        }
    }
}

impl Rules {
    pub(crate) fn new(catalogs: Arc<Catalogs>, presence: Arc<Presence>) -> Self {
        let (removals, _) = broadcast::channel(REMOVALS_KEPT);
        Self { catalogs, presence, removals }
    }

    /// A user was removed from a room: notifies the subscriptions that read it for the user.
    pub(crate) fn removed(&self, removal: Removal) {
        // Sending fails if there is no subscription.
        let _nobody = self.removals.send(Arc::new(removal));
    }

    /// The removals from now on.
    pub(crate) fn removals(&self) -> Removals {
        Removals(self.removals.subscribe())
    }

    fn of(&self, room: &Room) -> RoomRule {
        self.catalogs.room_rule(room.kind()).unwrap_or_default()
    }

    /// Refuses rooms that the holder of a token may not read.
    pub(crate) fn check_read(&self, identity: &Identity, rooms: &[Room]) -> Result<(), Refusal> {
        if identity.allows(Scope::Subscribe) {
            return Ok(());
        }
        let Some(user_id) = identity.user_id.as_ref().filter(|_| identity.scopes.is_empty()) else {
            return Err(Refusal::Scope(Scope::Subscribe.as_str()));
        };
        let check = |room| self.check(room, user_id, Listing::of_identity(identity, room));
        rooms.iter().try_for_each(check)
    }

    /// Refuses a room that a user may neither join nor read.
    pub(crate) fn check_enter(&self, caller: &Caller, room: &Room) -> Result<(), Refusal> {
        self.check(room, &caller.user_id, Listing::of_caller(caller, room))
    }

    fn check(&self, room: &Room, user_id: &str, listing: Listing) -> Result<(), Refusal> {
        let is_own = match room.kind() {
            "org" => room.as_str() == "org",
            "user" => room.as_str().strip_prefix("user:") == Some(user_id),
            _ => return listing.check(room, self.of(room).needs_claim),
        };
        if is_own { Ok(()) } else { Err(Refusal::RoomForbidden(room.as_str().to_owned())) }
    }

    /// Refuses a room whose members a user may not list. For `org` and `user:` rooms, the catalogs'
    /// declarations decide.
    pub(crate) fn check_query(&self, caller: &Caller, room: &Room) -> Result<(), Refusal> {
        if RoomRule::FIXED.contains(&room.kind()) { Ok(()) } else { self.check_enter(caller, room) }
    }

    /// Refuses a room that a user may not publish to. For `org` and `user:` rooms, the catalogs'
    /// declarations decide.
    pub(crate) async fn check_publish(&self, caller: &Caller, room: &Room) -> Result<(), Refusal> {
        if RoomRule::FIXED.contains(&room.kind()) {
            return Ok(());
        }
        let rule = self.of(room);
        Listing::of_caller(caller, room).check(room, rule.publish_needs_claim)?;
        if !rule.publish_needs_member {
            return Ok(());
        }
        let tenant = Tenant::new(&caller.tenant)?;
        let (user_id, session_id) = (&caller.user_id, &caller.session_id);
        if self.presence.is_in(&tenant, user_id, session_id, room).await? {
            return Ok(());
        }
        Err(Refusal::RoomNotJoined(room.as_str().to_owned()))
    }
}

#[cfg(test)]
mod tests;
