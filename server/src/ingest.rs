//! Ingest: from a producer's request to a draft that is right in every respect.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use fanfare_proto::{
    catalog::{Catalogs, EventType, TYPE_URL_PREFIX},
    json::closest,
    room::{Room, Tenant, shown},
    token::{Identity, Scope},
    v1::{NotifyRequest, NotifyResponse, Target},
};
use prost_types::Timestamp;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use crate::{
    auth,
    engine::{OldAppended, OldEngine},
    error::Refusal,
    event::{Draft, Sequence},
    stats::Stats,
};

/// Rooms an event can be sent to.
const ROOMS_MAX: usize = 64;
/// Sessions an event can leave out.
const EXCEPT_SESSIONS_MAX: usize = 64;
/// The longest session id and idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 128;
/// How long streams that end wait for events on their way to the log. A producer that does not read its answers has some
/// for as long as it likes; subscribers do not wait for it longer than this.
const FINISH_MAX: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 3000 });

#[derive(Debug)]
pub(crate) struct Ingest {
    catalogs: Arc<Catalogs>,
    engine: Arc<dyn OldEngine>,
    event_bytes_max: usize,
    stats: Arc<Stats>,
    /// Closed when the server shuts down; then empty once everything that was taken has been answered.
    under_way: TaskTracker,
    closed_at: OnceLock<Instant>,
}

/// An event that was checked; the server does not end before it is in the log or dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    draft: Draft,
    since: Instant,
    under_way: TaskTrackerToken,
}

impl Taken {
    /// Behind the others of a sequence.
    pub(crate) fn within(mut self, sequence: &Arc<Sequence>) -> Self {
        self.draft.sequence = Some(sequence.clone());
        self
    }
}

/// An event that the server makes, for a browser's call or because users come and go.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) tenant: Tenant,
    pub(crate) kind: Arc<EventType>,
    /// Without the event's id, which the log gives.
    pub(crate) payload: Bytes,
    pub(crate) time: Timestamp,
    /// Whose doing it is.
    pub(crate) user_id: String,
    /// A session that does not get it.
    pub(crate) except_session: Option<String>,
}

impl Ingest {
    pub(crate) fn new(
        catalogs: Arc<Catalogs>,
        engine: Arc<dyn OldEngine>,
        event_bytes_max: usize,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            catalogs,
            engine,
            event_bytes_max,
            stats,
            under_way: TaskTracker::new(),
            closed_at: OnceLock::new(),
        }
    }

    /// Takes no more events.
    pub(crate) fn close(&self) {
        let _first = self.closed_at.set(Instant::now());
        self.under_way.close();
    }

    /// Resolves when no more events will come: it is closed and all that were taken are in the log. At the latest some
    /// time after the close: an event whose answer nobody reads counts as under way although it is in the log.
    pub(crate) async fn finished(&self) {
        let since = *self.closed_at.get_or_init(Instant::now);
        let end = tokio::time::Instant::from_std(since + FINISH_MAX);
        let _stalled = tokio::time::timeout_at(end, self.under_way.wait()).await;
    }

    /// Publishes an event given as `Any`.
    pub(crate) async fn notify(
        &self,
        identity: &Identity,
        request: NotifyRequest,
    ) -> Result<NotifyResponse, Refusal> {
        self.append(self.prepare(identity, request)?).await
    }

    /// Checks an event given as `Any`: everything that can be refused is refused here.
    pub(crate) fn prepare(&self, identity: &Identity, request: NotifyRequest) -> Result<Taken, Refusal> {
        self.take(identity, request).inspect_err(|_| self.stats.refused())
    }

    fn take(&self, identity: &Identity, request: NotifyRequest) -> Result<Taken, Refusal> {
        let event = request.event.ok_or_else(|| {
            Refusal::Invalid(
                "event is missing: give an event of a loaded catalog as google.protobuf.Any".into(),
            )
        })?;
        let kind = self.kind(&event.type_url)?.clone();
        let target = request.target.unwrap_or_default();
        self.check_in(identity, &kind, &[], target, event.value.into())
    }

    /// Publishes an event of a known type: to the target's rooms, else to `instead`, else where the type declares.
    pub(crate) async fn publish(
        &self,
        identity: &Identity,
        kind: &Arc<EventType>,
        instead: &[Room],
        target: Target,
        payload: Bytes,
    ) -> Result<NotifyResponse, Refusal> {
        let taken = self.check_in(identity, kind, instead, target, payload);
        self.append(taken.inspect_err(|_| self.stats.refused())?).await
    }

    fn check_in(
        &self,
        identity: &Identity,
        kind: &Arc<EventType>,
        instead: &[Room],
        target: Target,
        payload: Bytes,
    ) -> Result<Taken, Refusal> {
        // Before the question, so that whoever waits for the end waits for this one.
        let under_way = self.under_way.token();
        if self.under_way.is_closed() {
            return Err(Refusal::Shutdown);
        }
        auth::require(identity, Scope::Notify)?;
        let tenant = auth::tenant(identity, &target.tenant)?;
        self.check(kind, &payload)?;
        check_keys(&target)?;
        let draft = Draft {
            tenant,
            rooms: rooms(kind, instead, &target, &payload)?,
            time: now(),
            idempotency_key: own_key(&auth::sender(identity), &target.idempotency_key),
            sender: auth::sender(identity),
            kind: kind.clone(),
            payload,
            except_sessions: target.except_sessions,
            id_field: None,
            sequence: None,
        };
        Ok(Taken { draft, since: Instant::now(), under_way })
    }

    /// Appends what was checked.
    async fn append(&self, taken: Taken) -> Result<NotifyResponse, Refusal> {
        self.begin(taken).await?.await
    }

    /// Begins to append what was checked; gives what will be answered. Events that are begun one after the other are
    /// in the log in this order, in whatever order the answers are awaited.
    pub(crate) async fn begin(
        &self,
        taken: Taken,
    ) -> Result<impl Future<Output = Result<NotifyResponse, Refusal>> + use<>, Refusal> {
        let answer = self.hand_over(taken).await?;
        Ok(async move {
            let OldAppended { id, seq, time, duplicate } = answer.await?;
            Ok(NotifyResponse { id, seq, time: Some(time), duplicate })
        })
    }

    async fn hand_over(
        &self,
        taken: Taken,
    ) -> Result<impl Future<Output = Result<OldAppended, Refusal>> + use<>, Refusal> {
        let Taken { draft, since, under_way } = taken;
        let stats = self.stats.clone();
        let answer = self.engine.begin(draft).await.inspect_err(|_| stats.refused())?;
        Ok(async move {
            let appended = answer.await.inspect_err(|_| stats.refused())?;
            stats.appended(&appended, since);
            drop(under_way);
            Ok(appended)
        })
    }

    /// Publishes an event that the server has made, where its type declares.
    pub(crate) async fn publish_made(&self, made: Made) -> Result<OldAppended, Refusal> {
        self.begin_made(made, None).await?.await
    }

    /// The same in two steps: events that are begun one after the other are in the log in this order.
    pub(crate) async fn begin_made(
        &self,
        made: Made,
        sequence: Option<Arc<Sequence>>,
    ) -> Result<impl Future<Output = Result<OldAppended, Refusal>> + use<>, Refusal> {
        let under_way = self.under_way.token();
        if self.under_way.is_closed() {
            return Err(Refusal::Shutdown);
        }
        self.check(&made.kind, &made.payload)?;
        let draft = Draft {
            tenant: made.tenant,
            rooms: rooms(&made.kind, &[], &Target::default(), &made.payload)?,
            time: made.time,
            sender: format!("user:{}", made.user_id),
            id_field: made.kind.id_field,
            kind: made.kind,
            payload: made.payload,
            except_sessions: made.except_session.into_iter().collect(),
            idempotency_key: String::new(),
            sequence,
        };
        self.hand_over(Taken { draft, since: Instant::now(), under_way }).await
    }

    /// Refuses payloads that are too large or not valid for their type.
    fn check(&self, kind: &EventType, payload: &[u8]) -> Result<(), Refusal> {
        if payload.len() > self.event_bytes_max {
            return Err(Refusal::TooLarge { size: payload.len(), max: self.event_bytes_max });
        }
        let invalid = |source| Refusal::Payload { type_name: kind.full_name.clone(), source };
        kind.shape.validate(payload).map_err(invalid)
    }

    fn kind(&self, type_url: &str) -> Result<&Arc<EventType>, Refusal> {
        // As protobuf has it: what follows the last slash is the type's name.
        let name = type_url.rsplit('/').next().unwrap_or_default();
        if !type_url.contains('/') {
            let shown = shown(type_url);
            return Err(Refusal::Invalid(format!(
                "event.type_url {shown:?} is malformed: want {TYPE_URL_PREFIX:?} and the full name of an event, e.g. {TYPE_URL_PREFIX}messenger.v1.NewMessage"
            )));
        }
        self.catalogs.event(name).ok_or_else(|| {
            let shown = shown(name);
            let near = closest(&shown, self.catalogs.events().map(|e| e.full_name.as_str()));
            let hint = near.map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default();
            Refusal::UnknownEvent(format!("no loaded catalog declares the event {shown:?}{hint}"))
        })
    }
}

/// A producer's key, apart from those of others that publish to the tenant.
fn own_key(sender: &str, key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{sender}\0{key}") }
}

fn check_keys(target: &Target) -> Result<(), Refusal> {
    if target.idempotency_key.len() > KEY_BYTES_MAX {
        let size = target.idempotency_key.len();
        return Err(Refusal::Invalid(format!(
            "target.idempotency_key has {size} bytes; the limit is {KEY_BYTES_MAX}"
        )));
    }
    if target.except_sessions.len() > EXCEPT_SESSIONS_MAX {
        let count = target.except_sessions.len();
        return Err(Refusal::Invalid(format!(
            "target.except_sessions has {count} entries; the limit is {EXCEPT_SESSIONS_MAX}"
        )));
    }
    if target.except_sessions.iter().any(|s| s.len() > KEY_BYTES_MAX) {
        return Err(Refusal::Invalid(format!(
            "target.except_sessions has an entry over {KEY_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// The rooms of the target, or those instead, or those the event's type declares; each once.
fn rooms(kind: &EventType, instead: &[Room], target: &Target, payload: &[u8]) -> Result<Vec<Room>, Refusal> {
    if target.rooms.len() > ROOMS_MAX {
        return Err(Refusal::Invalid(format!(
            "target.rooms has {} rooms; the limit is {ROOMS_MAX}",
            target.rooms.len()
        )));
    }
    let mut rooms = Vec::with_capacity(target.rooms.len().max(kind.rooms.len()));
    for text in &target.rooms {
        rooms.push(Room::new(text)?);
    }
    if target.rooms.is_empty() {
        rooms.extend_from_slice(instead);
    }
    if rooms.is_empty() {
        for template in &kind.rooms {
            rooms.extend(template.render(payload)?);
        }
    }
    if rooms.is_empty() {
        let templates: Vec<_> = kind.rooms.iter().map(|t| format!("{:?}", t.as_str())).collect();
        let why = if templates.is_empty() {
            "declares no rooms".to_owned()
        } else {
            format!("leaves the fields of {} unset", templates.join(", "))
        };
        return Err(Refusal::Invalid(format!(
            "this {} {why}: name where it goes in target.rooms, e.g. \"org\" or \"user:42\"",
            kind.full_name
        )));
    }
    if rooms.len() > 1 {
        rooms.sort_unstable();
        rooms.dedup();
    }
    Ok(rooms)
}

/// The clock, as protobuf has it.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now().max(UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use fanfare_proto::v1::Caller;

    use super::*;
    use crate::{
        config::{Limits, Retention},
        engine::memory::MemoryEngine,
        hub::Hub,
    };

    fn made(ingest: &Ingest) -> Made {
        Made {
            tenant: Tenant::new("1").unwrap(),
            kind: ingest.catalogs.event("messenger.v1.UserOnline").unwrap().clone(),
            payload: Bytes::new(),
            time: now(),
            user_id: Caller::default().user_id,
            except_session: None,
        }
    }

    #[test]
    fn keys_are_a_producers_own() {
        assert_ne!(own_key("a", "1"), own_key("b", "1"));
        assert_ne!(own_key("a", "b\u{1}"), own_key("ab", "\u{1}"));
        assert_eq!(own_key("a", ""), "", "none stays none");
    }

    #[tokio::test]
    async fn the_end_waits_for_events_under_way_but_not_for_answers_that_nobody_reads() {
        let (limits, catalogs) = (Limits::default(), Arc::new(Catalogs::builtin().unwrap()));
        let hub = Arc::new(Hub::new(limits));
        let engine = Arc::new(MemoryEngine::new(Retention::default(), limits, hub));
        let ingest = Ingest::new(catalogs, engine, limits.event_bytes_max, Arc::default());
        let unread = ingest.begin_made(made(&ingest), None).await.unwrap();
        ingest.close();
        assert!(matches!(ingest.begin_made(made(&ingest), None).await.map(drop), Err(Refusal::Shutdown)));
        tokio::time::timeout(Duration::from_secs(10), ingest.finished()).await.unwrap();
        drop(unread);
    }
}
