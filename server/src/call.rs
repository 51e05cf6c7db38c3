//! Calls of browsers, run as the catalogs declare them. Nothing here is specific to one product.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use fanfare_proto::{
    catalog::{Catalogs, ClientMethod, HistoryMethod, RoomTemplate, Stamp},
    json::closest,
    rate::KeyedLimiter,
    room::{Room, Tenant, shown},
    v1::{CallError, CallOk, CallRequest, Caller, Delivery, Reason},
};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use prost_types::Timestamp;

use crate::{
    engine::Receipt,
    error::Refusal,
    event::{Event, browser_forms, ephemeral_id},
    grpc::upstream::Upstreams,
    history::{self, History, HistoryPage, PageLimits},
    ingest::{self, Ingest},
    interest::Interest,
    page_size::page_size,
    presence::Presence,
    rules::Rules,
    stats::Stats,
};

/// Approximate size of a published event, in bytes, in addition to the fields of the request: its
/// stamps and envelope.
const EVENT_BYTES: usize = 256;
/// Bytes of history events per response, unless a single event is larger.
const PAGE_BYTES_MAX: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) catalogs: Arc<Catalogs>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) history: Arc<History>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) upstreams: Upstreams,
    pub(crate) stats: Arc<Stats>,
    /// Counts users' calls over gRPC. Bridges count what sessions emit.
    pub(crate) per_user: KeyedLimiter<(Tenant, String)>,
    /// Count the bytes that users publish, both over gRPC and through sessions.
    pub(crate) bytes_per_user: KeyedLimiter<(Tenant, String)>,
    pub(crate) bytes_per_tenant: KeyedLimiter<Tenant>,
}

/// The outcome of a call.
struct Outcome {
    /// The response message.
    response: Vec<u8>,
    /// The event that only the caller receives.
    reply: Option<Delivery>,
    join: Option<Room>,
    leave: Option<Room>,
}

impl From<&Refusal> for CallError {
    fn from(refusal: &Refusal) -> Self {
        let wait = refusal.retry_after().unwrap_or_default();
        // `path` names the field, so the message does not have to.
        let message = match refusal {
            Refusal::Payload { source, .. } => source.message.clone(),
            other => other.to_string(),
        };
        Self {
            reason: refusal.reason().into(),
            message,
            path: refusal.path().to_owned(),
            retry_after_millis: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Calls {
    /// Runs a call that a session emitted. The bridge has already verified the session's identity.
    pub(crate) async fn emitted(&self, request: &CallRequest) -> Result<CallOk, Refusal> {
        let since = Instant::now();
        let outcome = self.answer(request).await;
        self.stats.called(&outcome, since);
        outcome
    }

    async fn answer(&self, request: &CallRequest) -> Result<CallOk, Refusal> {
        let missing = || Refusal::Invalid("the call names no caller".into());
        let caller = request.caller.as_ref().ok_or_else(missing)?;
        let found = |name: &str| self.catalogs.call(name, caller.transport(), &caller.namespace);
        let method = found(&request.name).ok_or_else(|| self.unknown(&request.name, caller))?;
        let bytes = method.request.read_json(&request.json);
        let bytes = bytes.map_err(|source| payload(&method.request_descriptor, source))?;
        let outcome = self.run(method, caller, bytes.into()).await?;
        let (json, binary) = browser_forms(&method.response, method.binary, &outcome.response)
            .map_err(|source| payload(&method.response_plan.descriptor, source))?;
        let texts = |room: Option<Room>| room.iter().map(|r| r.as_str().to_owned()).collect();
        Ok(CallOk {
            json,
            join: texts(outcome.join),
            leave: texts(outcome.leave),
            replies: outcome.reply.into_iter().collect(),
            catalog: method.package.clone(),
            binary,
            state: method.state,
        })
    }

    /// Runs a method that needs no session, called by a user over gRPC.
    pub(crate) async fn called(
        &self,
        method: &ClientMethod,
        caller: &Caller,
        request: Bytes,
    ) -> Result<Vec<u8>, Refusal> {
        let since = Instant::now();
        let user = (Tenant::new(&caller.tenant)?, caller.user_id.clone());
        self.per_user.check(&user).map_err(Refusal::TooFast)?;
        let valid = method.request.validate(&request);
        valid.map_err(|source| payload(&method.request_descriptor, source))?;
        let response = self.run(method, caller, request).await?.response;
        // Refused calls are counted as refused requests.
        self.stats.called::<()>(&Ok(()), since);
        Ok(response)
    }

    async fn run(&self, method: &ClientMethod, caller: &Caller, request: Bytes) -> Result<Outcome, Refusal> {
        let tenant = Tenant::new(&caller.tenant)?;
        // Everything that can be refused is refused before the call takes effect.
        let room = |template: &Option<RoomTemplate>| room(template.as_ref(), &request);
        let (join, leave) = (room(&method.join)?, room(&method.leave)?);
        let queried = room(&method.query)?;
        join.iter().try_for_each(|room| self.rules.check_enter(caller, room))?;
        queried.iter().try_for_each(|room| self.rules.check_query(caller, room))?;
        if method.publish.is_some() {
            self.check_bytes(&tenant, &caller.user_id, request.len() + EVENT_BYTES)?;
        }
        let answered = match &method.upstream {
            Some(name) => Some(self.upstreams.call(name, &method.path, caller, request.clone()).await?),
            None => None,
        };
        let source = match &answered {
            Some(response) => {
                let descriptor = &method.response_plan.descriptor;
                method.response.validate(response).map_err(|source| payload(descriptor, source))?;
                decode(descriptor, response)?
            }
            None => decode(&method.request_descriptor, &request)?,
        };
        let members = match &queried {
            Some(room) => self.presence.members(&tenant, room).await?,
            None => Vec::new(),
        };
        let history = match &method.history {
            Some(declared) => {
                Some((declared, self.page(declared, &tenant, caller, &request, &source).await?))
            }
            None => None,
        };
        let history_next = history.as_ref().map(|(_, (_, next))| next.as_str()).unwrap_or_default();
        let claims = serde_json::from_slice(&caller.claims_json).unwrap_or_default();
        let (event_id, time) = ("", ingest::now());
        let mut stamp = Stamp { caller, claims: &claims, event_id, time, members: &members, history_next };
        let event_id = match self.publish(method, &tenant, &source, &stamp).await? {
            Some((id, time)) => {
                stamp.time = time;
                id
            }
            None => ephemeral_id(),
        };
        stamp.event_id = &event_id;
        let mut response = match answered {
            Some(response) => response.into(),
            None => method.response_plan.make(Some(&source), &stamp).encode_to_vec(),
        };
        if let Some((declared, (page, _))) = &history {
            append(declared, page, &stamp, &mut response);
        }
        Ok(Outcome { response, reply: reply(method, &source, &stamp)?, join, leave })
    }

    /// The page of stored events that a call requests, and the cursor of the next page.
    async fn page(
        &self,
        declared: &HistoryMethod,
        tenant: &Tenant,
        caller: &Caller,
        request: &[u8],
        source: &DynamicMessage,
    ) -> Result<(HistoryPage, String), Refusal> {
        let Some(room) = declared.room.render_sent(request)? else {
            return Err(Refusal::Invalid(format!("history: {:?} names no room", declared.room.as_str())));
        };
        self.rules.check_enter(caller, &room)?;
        let events_max =
            page_size("limit", declared.limit(source), declared.default_limit, HistoryMethod::EVENTS_MAX)?;
        let before = history::before(&declared.before(source))?;
        let limits = PageLimits { events_max, bytes_max: PAGE_BYTES_MAX, scan_max: PageLimits::SCAN_MAX };
        let (kinds, interest) = (declared.events(), Interest::of(room));
        let wants = |event: &Event| kinds.contains(event.draft.kind.full_name.as_str());
        let reader = (tenant.as_str().to_owned(), caller.user_id.clone());
        let (page, next) = self.history.page(reader, tenant, &interest, before, limits, wants).await?;
        Ok((page, next.map(|cursor| cursor.to_string()).unwrap_or_default()))
    }

    /// Checks the number of bytes that a user publishes. The log belongs to the tenant, so one user
    /// must not displace its other events.
    fn check_bytes(&self, tenant: &Tenant, user_id: &str, bytes: usize) -> Result<(), Refusal> {
        let user = (tenant.clone(), user_id.to_owned());
        let by_user = self.bytes_per_user.check_many(&user, bytes);
        by_user.map_err(|wait| Refusal::TooManyBytes {
            whose: "the user",
            setting: "publish-bytes-per-user",
            wait,
        })?;
        self.bytes_per_tenant.check_many(tenant, bytes).map_err(|wait| Refusal::TooManyBytes {
            whose: "the tenant",
            setting: "publish-bytes-per-tenant",
            wait,
        })
    }

    /// Removes the counters of users and tenants that have been idle for long. Called periodically.
    pub(crate) fn forget(&self) {
        self.per_user.forget();
        self.bytes_per_user.forget();
        self.bytes_per_tenant.forget();
    }

    /// Publishes the event that the method declares, if any. Returns its id and time.
    async fn publish(
        &self,
        method: &ClientMethod,
        tenant: &Tenant,
        source: &DynamicMessage,
        stamp: &Stamp<'_>,
    ) -> Result<Option<(String, Timestamp)>, Refusal> {
        let Some(publish) = &method.publish else { return Ok(None) };
        let payload = publish.plan.make(Some(source), stamp).encode_to_vec();
        for template in &publish.event.rooms {
            if let Some(room) = room(Some(template), &payload)? {
                self.rules.check_publish(stamp.caller, &room).await?;
            }
        }
        let session = &stamp.caller.session_id;
        let sender = format!("user:{}", stamp.caller.user_id);
        let mut draft = self.ingest.draft(tenant, &publish.event, payload.into(), sender, stamp.time)?;
        draft.except_sessions.extend((publish.except_caller && !session.is_empty()).then(|| session.clone()));
        let Receipt { id, time, .. } = self.ingest.append_one(draft).await?.receipt();
        Ok(Some((id, time)))
    }

    fn unknown(&self, name: &str, caller: &Caller) -> Refusal {
        let shown = shown(name);
        let is_known =
            |name: &&str| self.catalogs.call(name, caller.transport(), &caller.namespace).is_some();
        let near = closest(&shown, self.catalogs.call_names().filter(is_known));
        let hint = near.map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default();
        Refusal::Upstream {
            reason: Reason::UnknownEvent,
            message: format!("no catalog declares that browsers may emit {shown:?}{hint}"),
        }
    }
}

/// Appends the events of a page to a response.
fn append(declared: &HistoryMethod, page: &HistoryPage, stamp: &Stamp<'_>, response: &mut Vec<u8>) {
    for event in &page.events {
        let of_event = Stamp { event_id: &event.id, time: event.draft.time, ..stamp.clone() };
        declared.append(&event.draft.kind.full_name, &event.draft.payload, &of_event, response);
    }
}

fn payload(descriptor: &MessageDescriptor, source: fanfare_proto::json::PayloadError) -> Refusal {
    Refusal::Payload { type_name: descriptor.full_name().to_owned(), source }
}

fn decode(descriptor: &MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, Refusal> {
    DynamicMessage::decode(descriptor.clone(), bytes).map_err(|e| Refusal::Invalid(e.to_string()))
}

/// Renders the room of a template, if there is one.
fn room(template: Option<&RoomTemplate>, bytes: &[u8]) -> Result<Option<Room>, Refusal> {
    Ok(template.map(|template| template.render_sent(bytes)).transpose()?.flatten())
}

fn reply(
    method: &ClientMethod,
    source: &DynamicMessage,
    stamp: &Stamp<'_>,
) -> Result<Option<Delivery>, Refusal> {
    let Some((event, plan)) = &method.reply else { return Ok(None) };
    let bytes = plan.make(Some(source), stamp).encode_to_vec();
    let forms = browser_forms(&event.shape, event.binary, &bytes);
    let (json, binary) = forms.map_err(|e| payload(&event.descriptor, e))?;
    Ok(Some(Delivery {
        id: ephemeral_id(),
        name: event.name.clone(),
        json,
        binary,
        ephemeral: true,
        catalog: event.package.clone(),
        ..Delivery::default()
    }))
}
