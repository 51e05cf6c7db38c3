//! The sessions of one link: what its bridge reports of them, and their end with it.

use std::{collections::VecDeque, sync::Arc};

use fanfare_proto::{
    room::Room,
    token::Identity,
    v1::{
        Delivery, Greeting, SessionChange, SessionChanges, SessionOpened, SessionsApplied, SessionsKept,
        session_change,
    },
};
use tokio_util::sync::CancellationToken;

use super::{super::Services, link::parse};
use crate::{auth, engine::OldEngine, error::Refusal, presence};

/// A link's reports that are not on the disk yet and are answered one by one.
const KEEPING_MAX: usize = 1024;

/// The link's part in presence, which ends with it.
pub(super) struct Sessions {
    presence: Arc<presence::Presence>,
    engine: Arc<dyn OldEngine>,
    pub(super) link: Arc<presence::Link>,
    closing: CancellationToken,
}

/// The reports of a bridge that are not durable yet: their numbers for
/// [`presence::Presence::kept`], and the bridge's own.
#[derive(Debug, Default)]
pub(super) struct Reports(VecDeque<(u64, u64)>);

impl Drop for Sessions {
    fn drop(&mut self) {
        // When the server goes, its sessions do not: they will be told of to the next one.
        if !self.closing.is_cancelled() {
            self.presence.unlink(&self.link);
        }
    }
}

impl Sessions {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            presence: services.presence.clone(),
            engine: services.engine.clone(),
            link: services.presence.link(),
            closing: services.closing.clone(),
        }
    }

    /// Takes over what happened to the bridge's sessions.
    pub(super) async fn apply(
        &self,
        identity: &Identity,
        changes: SessionChanges,
        reports: &mut Reports,
    ) -> Result<SessionsApplied, Refusal> {
        let mut greetings = Vec::new();
        for change in changes.changes {
            self.closing.run_until_cancelled(self.presence.caught_up()).await;
            greetings.extend(self.change(identity, change).await?);
        }
        reports.push(self.presence.reported(), changes.r#ref);
        Ok(SessionsApplied { r#ref: changes.r#ref, greetings })
    }

    async fn change(&self, identity: &Identity, change: SessionChange) -> Result<Option<Greeting>, Refusal> {
        let session_id = change.session_id;
        match change.kind {
            Some(session_change::Kind::Opened(opened)) => {
                let (events, refused) = match self.open(identity, &session_id, opened).await {
                    Ok(events) if events.is_empty() => return Ok(None),
                    Ok(events) => (events, None),
                    Err(refusal) => (Vec::new(), Some((&refusal).into())),
                };
                return Ok(Some(Greeting { session_id, events, refused }));
            }
            Some(session_change::Kind::Rooms(change)) => {
                let (entered, left) = (parse(&change.entered)?, parse(&change.left)?);
                self.presence.rooms(&self.link, &session_id, &entered, &left, &change.catalog);
            }
            Some(session_change::Kind::Closed(closed)) => {
                self.presence.close(&self.link, &session_id, closed.left);
            }
            None => {}
        }
        Ok(None)
    }

    /// Takes a session over; gives the events that greet it.
    async fn open(
        &self,
        identity: &Identity,
        session_id: &str,
        opened: SessionOpened,
    ) -> Result<Vec<Delivery>, Refusal> {
        let caller = opened.caller.unwrap_or_default();
        let tenant = auth::tenant(identity, &caller.tenant)?;
        if session_id.is_empty() || caller.session_id != session_id {
            return Err(Refusal::Invalid("a session is opened under another id than its caller's".into()));
        }
        let head = self.engine.head(&tenant).await.map(|head| head.to_string());
        if opened.ready {
            // It is ready, whatever the engine says; without a place in the log it cannot be recovered, that is all.
            let (head, rooms): (_, Vec<Room>) = (head.unwrap_or_default(), parse(&opened.rooms)?);
            self.presence.ready(&self.link, &caller, &opened.pid, &head, &rooms)?;
            return Ok(Vec::new());
        }
        self.presence.open(&self.link, &caller, &opened.pid, &head?)?;
        Ok(self.presence.greet(&caller))
    }
}

impl Reports {
    fn push(&mut self, number: u64, r#ref: u64) {
        if self.0.len() >= KEEPING_MAX {
            // It is said with the next one.
            self.0.pop_back();
        }
        self.0.push_back((number, r#ref));
    }

    /// Resolves when the first of these reports is kept; gives the number up to which all are.
    pub(super) async fn kept(&self, presence: &presence::Presence) -> u64 {
        match self.0.front() {
            Some((number, _)) => presence.kept(*number).await,
            None => std::future::pending().await,
        }
    }

    /// The answer for the reports up to this number.
    pub(super) fn take(&mut self, upto: u64) -> Option<SessionsKept> {
        let count = self.0.partition_point(|(number, _)| *number <= upto);
        let (_, r#ref) = self.0.drain(..count).next_back()?;
        Some(SessionsKept { r#ref })
    }
}
