//! The sessions of one link: reported by its bridge, and ended with the link.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use fanfare_proto::{
    room::Room,
    token::Identity,
    v1::{
        Delivery, Greeting, SessionChange, SessionChanges, SessionOpened, SessionsApplied, SessionsKept,
        session_change::Kind,
    },
};
use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::{super::Services, link::parse};
use crate::{auth, engine::Engine, error::Refusal, presence, rules::Rules};

/// Reports of a link that are not stored yet and are answered one by one. Beyond that, one answer
/// covers several reports.
const KEEPING_MAX: usize = 1024;
/// Sessions of one report that are changed concurrently.
const CONCURRENCY: usize = 64;

/// The link's sessions in presence. Dropping this value unlinks them.
pub(super) struct Sessions {
    presence: Arc<presence::Presence>,
    engine: Arc<dyn Engine>,
    rules: Arc<Rules>,
    pub(super) link: Arc<presence::Link>,
    closing: CancellationToken,
}

/// The reports of a bridge that are not stored yet: for each, the number for
/// [`presence::Presence::stored`] and the bridge's own number.
#[derive(Debug, Default)]
pub(super) struct Reports(VecDeque<(u64, u64)>);

impl Drop for Sessions {
    fn drop(&mut self) {
        // When the server shuts down, the sessions continue: bridges report them to the next
        // server.
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
            rules: services.rules.clone(),
            link: services.presence.link(),
            closing: services.closing.clone(),
        }
    }

    /// Applies the changes of the bridge's sessions: in order per session, and concurrently for
    /// different sessions.
    pub(super) async fn apply(
        self: Arc<Self>,
        identity: Arc<Identity>,
        changes: SessionChanges,
    ) -> Result<SessionsApplied, Refusal> {
        let mut by_session: HashMap<String, Vec<Kind>> = HashMap::new();
        for SessionChange { session_id, kind } in changes.changes {
            by_session.entry(session_id).or_default().extend(kind);
        }
        let changed = stream::iter(by_session).map(|(session_id, kinds)| {
            let (sessions, identity) = (&self, &identity);
            async move {
                let mut greetings = Vec::new();
                for kind in kinds {
                    greetings.extend(sessions.change(identity, &session_id, kind).await?);
                }
                Ok::<_, Refusal>(greetings)
            }
        });
        let mut changed = changed.buffer_unordered(CONCURRENCY);
        let mut greetings = Vec::new();
        while let Some(of_session) = changed.next().await {
            greetings.extend(of_session?);
        }
        Ok(SessionsApplied { r#ref: changes.r#ref, greetings })
    }

    async fn change(
        &self,
        identity: &Identity,
        session_id: &str,
        kind: Kind,
    ) -> Result<Option<Greeting>, Refusal> {
        match kind {
            Kind::Opened(opened) => {
                let (events, refused) = match self.open(identity, session_id, opened).await {
                    Ok(events) if events.is_empty() => return Ok(None),
                    Ok(events) => (events, None),
                    Err(refusal) => (Vec::new(), Some((&refusal).into())),
                };
                return Ok(Some(Greeting { session_id: session_id.to_owned(), events, refused }));
            }
            Kind::Rooms(change) => {
                let (entered, left) = (parse(&change.entered)?, parse(&change.left)?);
                self.presence.rooms(&self.link, session_id, entered, left, &change.catalog).await;
            }
            Kind::Closed(closed) => self.presence.close(&self.link, session_id, closed.left).await,
        }
        Ok(None)
    }

    /// Opens a session. Returns the events that greet it.
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
            // The session is ready even if the engine does not answer. Without a place in the log,
            // only its recovery is impossible.
            let (head, rooms): (_, Vec<Room>) = (head.unwrap_or_default(), parse(&opened.rooms)?);
            self.presence.ready(&self.link, &caller, &opened.pid, &head, &rooms).await?;
            return Ok(Vec::new());
        }
        let rooms: Vec<Room> = parse(&opened.rooms)?;
        rooms.iter().try_for_each(|room| self.rules.check_enter(&caller, room))?;
        self.presence.open(&self.link, &caller, &opened.pid, &head?).await
    }
}

impl Reports {
    /// Adds a report that was applied. It is stored once everything up to `number` is stored.
    pub(super) fn push(&mut self, number: u64, r#ref: u64) {
        if self.0.len() >= KEEPING_MAX {
            // The answer to the newer report covers the removed one.
            self.0.pop_back();
        }
        self.0.push_back((number, r#ref));
    }

    /// Resolves when the oldest report is stored. Returns the number up to which reports are
    /// stored.
    pub(super) async fn stored(&self, presence: &presence::Presence) -> u64 {
        match self.0.front() {
            Some((number, _)) => {
                presence.stored(*number).await;
                *number
            }
            None => std::future::pending().await,
        }
    }

    /// Removes the reports up to this number and returns their answer.
    pub(super) fn take(&mut self, upto: u64) -> Option<SessionsKept> {
        let count = self.0.partition_point(|(number, _)| *number <= upto);
        let (_, r#ref) = self.0.drain(..count).next_back()?;
        Some(SessionsKept { r#ref })
    }
}
