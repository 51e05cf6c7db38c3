//! Ingest: turns a producer's request into a draft that is completely checked.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use fanfare_proto::{
    catalog::{Catalogs, EventType, TYPE_URL_PREFIX, ValidPayload},
    json::closest,
    room::{Room, Tenant, shown},
    token::{Identity, Scope},
    v1::{NotifyRequest, NotifyResponse, Target},
};
use prost_types::Timestamp;
use tokio_util::task::TaskTracker;

use crate::{
    access, auth,
    engine::{Appended, Engine, Receipt, StateChange, now_millis},
    error::Refusal,
    event::Draft,
    hub::Hub,
    stats::Stats,
};

/// Maximum number of rooms per event.
const ROOMS_MAX: usize = 64;
/// Maximum number of sessions that an event excludes.
const EXCEPT_SESSIONS_MAX: usize = 64;
/// The longest session id and idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 128;
/// How long a shutdown waits for unanswered appends.
const FINISH_MAX: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 3000 });

#[derive(Debug)]
pub(crate) struct Ingest {
    catalogs: Arc<Catalogs>,
    engine: Arc<dyn Engine>,
    event_bytes_max: usize,
    stats: Arc<Stats>,
    hub: Arc<Hub>,
    /// Tracks running appends. Closed on shutdown, and empty once every append is answered.
    under_way: TaskTracker,
    closed_at: OnceLock<Instant>,
}

impl Ingest {
    pub(crate) fn new(
        catalogs: Arc<Catalogs>,
        hub: &Arc<Hub>,
        engine: Arc<dyn Engine>,
        event_bytes_max: usize,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            catalogs,
            engine,
            event_bytes_max,
            stats,
            hub: hub.clone(),
            under_way: TaskTracker::new(),
            closed_at: OnceLock::new(),
        }
    }

    /// Stops the intake of events.
    pub(crate) fn close(&self) {
        let _first = self.closed_at.set(Instant::now());
        self.under_way.close();
    }

    /// The number of unanswered appends.
    pub(crate) fn appends_under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Resolves when the intake is closed and every append is answered, at most [`FINISH_MAX`]
    /// after the close.
    pub(crate) async fn finished(&self) {
        let since = *self.closed_at.get_or_init(Instant::now);
        let end = tokio::time::Instant::from_std(since + FINISH_MAX);
        let _stalled = tokio::time::timeout_at(end, self.under_way.wait()).await;
    }

    /// Publishes an event that is given as `Any`.
    pub(crate) async fn notify(
        &self,
        identity: &Identity,
        request: NotifyRequest,
    ) -> Result<NotifyResponse, Refusal> {
        let draft = self.check(identity, request)?;
        Ok(response(&self.append_one(draft).await?))
    }

    /// Checks an event that is given as `Any`. Everything that can be refused is refused here.
    pub(crate) fn check(&self, identity: &Identity, request: NotifyRequest) -> Result<Draft, Refusal> {
        let target = request.target.unwrap_or_default();
        let checked = match request.event {
            None => Err(Refusal::Invalid(
                "event is missing: give an event of a loaded catalog as google.protobuf.Any".into(),
            )),
            Some(event) => self
                .kind(&event.type_url)
                .and_then(|kind| self.check_event(identity, kind, &[], target, event.value.into())),
        };
        checked.inspect_err(|_| self.stats.refused(1))
    }

    /// Publishes an event of a known type to the rooms of the target, otherwise to `instead`,
    /// otherwise to the rooms that the type declares.
    pub(crate) async fn publish(
        &self,
        identity: &Identity,
        kind: &Arc<EventType>,
        instead: &[Room],
        target: Target,
        payload: Bytes,
    ) -> Result<NotifyResponse, Refusal> {
        let draft = self.check_event(identity, kind, instead, target, payload);
        let draft = draft.inspect_err(|_| self.stats.refused(1))?;
        Ok(response(&self.append_one(draft).await?))
    }

    fn check_event(
        &self,
        identity: &Identity,
        kind: &Arc<EventType>,
        instead: &[Room],
        target: Target,
        payload: Bytes,
    ) -> Result<Draft, Refusal> {
        auth::require(identity, Scope::Notify)?;
        let tenant = auth::tenant(identity, &target.tenant)?;
        let valid = self.check_payload(kind, &payload)?;
        check_keys(&target)?;
        let sender = auth::sender(identity);
        let time = now();
        Ok(Draft {
            tenant,
            rooms: rooms(kind, instead, &target, &valid)?,
            time,
            state: change(kind, &payload, target.expected_revision)?,
            idempotency_key: own_key(&sender, &target.idempotency_key),
            sender,
            kind: kind.clone(),
            payload,
            except_sessions: target.except_sessions,
            id_field: None,
        })
    }

    /// Creates a draft for an event that the server itself publishes, for a browser's call or a
    /// presence change. Its type declares the rooms. `payload` lacks the event's id, which is
    /// assigned by the log.
    pub(crate) fn draft(
        &self,
        tenant: &Tenant,
        kind: &Arc<EventType>,
        payload: Bytes,
        sender: String,
        time: Timestamp,
    ) -> Result<Draft, Refusal> {
        let valid = self.check_payload(kind, &payload)?;
        Ok(Draft {
            tenant: tenant.clone(),
            rooms: rooms(kind, &[], &Target::default(), &valid)?,
            time,
            state: change(kind, &payload, None)?,
            sender,
            id_field: kind.id_field,
            kind: kind.clone(),
            payload,
            except_sessions: Vec::new(),
            idempotency_key: String::new(),
        })
    }

    pub(crate) async fn append_one(&self, draft: Draft) -> Result<Appended, Refusal> {
        let tenant = draft.tenant.clone();
        let answers = self.append(&tenant, vec![draft]).await?;
        answers.into_iter().next().ok_or(Refusal::Storage("written"))
    }

    /// Appends drafts of one tenant in order, either all or none. There is one answer per draft.
    pub(crate) async fn append(&self, tenant: &Tenant, batch: Vec<Draft>) -> Result<Vec<Appended>, Refusal> {
        let (count, since) = (batch.len(), Instant::now());
        // Taken before the check, so that a shutdown also waits for this append.
        let _under_way = self.under_way.token();
        if self.under_way.is_closed() {
            return Err(Refusal::Shutdown);
        }
        self.hub.announce(tenant).await;
        let answers = self.engine.append(tenant, batch).await;
        let answers = answers.inspect_err(|_| self.stats.refused(count))?;
        self.stats.tenants.add(tenant, answers.len());
        for answer in &answers {
            self.stats.appended(answer, since);
            access::published(tenant.as_str(), answer);
        }
        Ok(answers)
    }

    /// Refuses payloads that are too large or not valid for their type.
    fn check_payload<'a>(&self, kind: &'a EventType, payload: &'a [u8]) -> Result<ValidPayload<'a>, Refusal> {
        if payload.len() > self.event_bytes_max {
            return Err(Refusal::TooLarge { size: payload.len(), max: self.event_bytes_max });
        }
        let invalid = |source| Refusal::Payload { type_name: kind.full_name.clone(), source };
        kind.check(payload).map_err(invalid)
    }

    fn kind(&self, type_url: &str) -> Result<&Arc<EventType>, Refusal> {
        // As in protobuf, the type name follows the last slash.
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

/// The answer to a producer.
pub(crate) fn response(appended: &Appended) -> NotifyResponse {
    let Receipt { id, seq, time } = appended.receipt();
    NotifyResponse { id, seq, time: Some(time), duplicate: appended.is_duplicate() }
}

/// A producer's idempotency key, distinct from the keys of other producers of the tenant.
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

/// The rooms of the target, otherwise `instead`, otherwise the rooms that the event's type
/// declares. Contains no duplicates.
fn rooms(
    kind: &EventType,
    instead: &[Room],
    target: &Target,
    payload: &ValidPayload<'_>,
) -> Result<Vec<Room>, Refusal> {
    if target.rooms.len() > ROOMS_MAX {
        return Err(Refusal::Invalid(format!(
            "target.rooms has {} rooms; the limit is {ROOMS_MAX}",
            target.rooms.len()
        )));
    }
    let mut rooms = Vec::with_capacity(target.rooms.len());
    for text in &target.rooms {
        rooms.push(Room::new(text)?);
    }
    if target.rooms.is_empty() {
        rooms.extend_from_slice(instead);
    }
    if rooms.is_empty() {
        rooms = payload.rooms()?;
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

/// The change of the current state that an event makes in its rooms.
fn change(kind: &EventType, payload: &[u8], expected: Option<u64>) -> Result<Option<StateChange>, Refusal> {
    let Some(state) = &kind.state else {
        return match expected {
            None => Ok(None),
            Some(_) => Err(Refusal::Invalid(format!(
                "target.expected_revision is for events whose type declares `state`; {} does not",
                kind.full_name
            ))),
        };
    };
    let ttl = state.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    Ok(Some(StateChange {
        key: format!("{} {}", kind.package, state.key(payload)?),
        is_removal: state.is_removal,
        expires_at: ttl.map(|ttl| now_millis().saturating_add(ttl)),
        expected,
    }))
}

/// The current time as a protobuf timestamp.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now().max(UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Limits, Retention},
        engine::memory::MemoryEngine,
    };

    #[test]
    fn keys_are_a_producers_own() {
        assert_ne!(own_key("a", "1"), own_key("b", "1"));
        assert_ne!(own_key("a", "b\u{1}"), own_key("ab", "\u{1}"));
        assert_eq!(own_key("a", ""), "", "none stays none");
    }

    #[tokio::test]
    async fn a_closed_ingest_takes_nothing_and_is_finished() {
        let (limits, catalogs) = (Limits::default(), Arc::new(Catalogs::builtin().unwrap()));
        let engine = Arc::new(MemoryEngine::new(Retention::default(), limits));
        let hub = Arc::new(Hub::new(limits, engine.clone()));
        let ingest = Ingest::new(
            catalogs.clone(),
            &hub,
            engine,
            limits.event_bytes_max,
            Arc::new(Stats::new(&catalogs, 0)),
        );
        let kind = catalogs.event("messenger.v1.UserOnline").unwrap();
        let draft = || {
            let tenant = Tenant::new("1").unwrap();
            ingest.draft(&tenant, kind, Bytes::new(), String::new(), now()).unwrap()
        };
        ingest.append_one(draft()).await.unwrap();
        ingest.close();
        assert!(matches!(ingest.append_one(draft()).await, Err(Refusal::Shutdown)));
        tokio::time::timeout(Duration::from_secs(10), ingest.finished()).await.unwrap();
    }
}
