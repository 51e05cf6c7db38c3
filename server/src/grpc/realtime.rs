//! The methods of `fanfare.v1.Realtime`.

use std::{pin::Pin, sync::Arc};

use fanfare_proto::{
    catalog::{HistoryMethod, RoomRule},
    room::Room,
    token::{Identity, Scope},
    v1::{
        DisconnectRequest, DisconnectResponse, GetHistoryRequest, GetHistoryResponse, GetPresenceRequest,
        GetPresenceResponse, GetStateRequest, GetStateResponse, NotifyRequest, NotifyResponse, Reason,
        RemoveFromRoomRequest, RemoveFromRoomResponse, SubscribeRequest, disconnect_request::Whom as Named,
    },
};
use futures_util::{FutureExt as _, Stream};
use http::Response;
use tonic::{Request, Status, body::Body};
use tower::service_fn;

use super::{
    REQUEST_BYTES_MAX, Services,
    codec::FrameCodec,
    subscribe::{self, Form},
};
use crate::{
    auth,
    error::Refusal,
    history::{self, PageLimits},
    interest::Interest,
    page_size::page_size,
    peers::{Question, Removal},
    presence::Whom,
};

/// Users per GetPresence answer.
const USERS_DEFAULT: usize = 100;
const USERS_MAX: usize = 1000;
/// Events per GetHistory answer.
const EVENTS_DEFAULT: usize = 50;
/// Entries per GetState answer.
const ENTRIES_DEFAULT: usize = 100;
const ENTRIES_MAX: usize = 1000;
/// The longest message to disconnected sessions, in bytes.
const MESSAGE_BYTES_MAX: usize = 256;

/// A boxed response stream.
pub(super) type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) async fn notify(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: NotifyRequest,
) -> Result<NotifyResponse, Refusal> {
    services.ingest.notify(&identity, request).await
}

pub(super) async fn get_presence(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: GetPresenceRequest,
) -> Result<GetPresenceResponse, Refusal> {
    let tenant = auth::tenant(&identity, &request.tenant)?;
    let room = if request.room.is_empty() { Room::org() } else { Room::new(&request.room)? };
    services.rules.check_read(&identity, std::slice::from_ref(&room))?;
    let limit = page_size("limit", request.limit.into(), USERS_DEFAULT, USERS_MAX)?;
    let mut members = services.presence.list(&tenant, &room, &request.after_user_id, limit).await?;
    if !identity.allows(Scope::Subscribe) {
        members.users.iter_mut().for_each(|user| user.sessions.clear());
    }
    Ok(GetPresenceResponse {
        users: members.users,
        user_count: members.user_count as u64,
        session_count: members.session_count as u64,
        more: members.more,
    })
}

pub(super) async fn get_history(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: GetHistoryRequest,
) -> Result<GetHistoryResponse, Refusal> {
    let tenant = auth::tenant(&identity, &request.tenant)?;
    let room = Room::new(&request.room)?;
    services.rules.check_read(&identity, std::slice::from_ref(&room))?;
    let events_max = page_size("limit", request.limit.into(), EVENTS_DEFAULT, HistoryMethod::EVENTS_MAX)?;
    let before = history::before(&request.before)?;
    let limits = PageLimits { events_max, bytes_max: PageLimits::BYTES_MAX, scan_max: PageLimits::SCAN_MAX };
    let reader = (tenant.as_str().to_owned(), auth::sender(&identity));
    let (page, next) =
        services.history.page(reader, &tenant, &Interest::of(room), before, limits, |_| true).await?;
    Ok(GetHistoryResponse {
        events: page.events.iter().map(|event| event.whole()).collect(),
        more: next.is_some(),
        next: next.map(|cursor| cursor.to_string()).unwrap_or_default(),
    })
}

pub(super) async fn get_state(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: GetStateRequest,
) -> Result<GetStateResponse, Refusal> {
    let tenant = auth::tenant(&identity, &request.tenant)?;
    let rooms = super::rooms(&request.rooms, super::ROOMS_MAX)?;
    services.rules.check_read(&identity, &rooms)?;
    let size = page_size("page_size", request.page_size.into(), ENTRIES_DEFAULT, ENTRIES_MAX)?;
    let token = request.page_token.parse()?;
    let place = services.subscribers.admit(&identity, rooms.len())?;
    let page = subscribe::state_page(&services, &place, &tenant, &rooms, token, size).await?;
    Ok(GetStateResponse {
        entries: page.entries.iter().map(|(room, entry)| entry.message(room)).collect(),
        cursor: page.cursor.to_string(),
        next_page_token: page.next.map(|next| next.text()).unwrap_or_default(),
    })
}

pub(super) async fn disconnect(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: DisconnectRequest,
) -> Result<DisconnectResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let tenant = auth::tenant(&identity, &request.tenant)?;
    if request.message.len() > MESSAGE_BYTES_MAX {
        return Err(Refusal::Invalid(format!(
            "message has {} bytes; the limit is {MESSAGE_BYTES_MAX}",
            request.message.len()
        )));
    }
    let whom = match request.whom {
        Some(Named::UserId(id)) => Whom::User(Room::user(&id)?),
        Some(Named::SessionId(id)) if !id.is_empty() => Whom::Session(id),
        Some(Named::Everybody(true)) => Whom::Everybody,
        _ => {
            return Err(Refusal::Invalid(
                "nobody is named: give user_id, session_id, or everybody = true".into(),
            ));
        }
    };
    let (reason, text) = if request.reconnect {
        (Reason::Reconnect, "an administrator asks the session to connect again")
    } else {
        (Reason::Disconnected, "an administrator ended the session")
    };
    let message = if request.message.is_empty() { text } else { &request.message };
    let told = services.presence.disconnect(&tenant, &whom, reason, message).await?;
    tracing::info!(
        target: "audit",
        tenant = tenant.as_str(),
        ?whom,
        told,
        user.id = auth::sender(&identity),
        "sessions disconnected"
    );
    Ok(DisconnectResponse { sessions: u32::try_from(told).unwrap_or(u32::MAX) })
}

pub(super) async fn remove_from_room(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: RemoveFromRoomRequest,
) -> Result<RemoveFromRoomResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let tenant = auth::tenant(&identity, &request.tenant)?;
    Room::user(&request.user_id)?;
    let room = Room::new(&request.room)?;
    if RoomRule::FIXED.contains(&room.kind()) {
        return Err(Refusal::Invalid(format!(
            "sessions cannot leave {:?}: name a room of another kind, e.g. \"chat:7\", or use Disconnect",
            room.as_str()
        )));
    }
    let removal = Removal {
        tenant: tenant.as_str().to_owned(),
        user_id: request.user_id.clone(),
        room: room.as_str().to_owned(),
    };
    let sessions = services.presence.remove_from_room(&tenant, &request.user_id, &room).await?;
    services.rules.removed(removal.clone());
    let silent = services.peers.tell(services.presence.servers(), Question::Remove(removal)).await;
    tracing::info!(
        target: "audit",
        tenant = tenant.as_str(),
        removed.user.id = request.user_id,
        room = room.as_str(),
        sessions,
        user.id = auth::sender(&identity),
        "user taken out of a room"
    );
    if silent.is_empty() {
        Ok(RemoveFromRoomResponse { sessions: u32::try_from(sessions).unwrap_or(u32::MAX) })
    } else {
        Err(Refusal::Unconfirmed(silent.len()))
    }
}

pub(super) async fn subscribe(services: Arc<Services>, request: http::Request<Body>) -> Response<Body> {
    let method = service_fn(move |request: Request<SubscribeRequest>| {
        let services = services.clone();
        async move {
            let identity = services.identify(&request)?;
            let request = request.into_inner();
            let stream = subscribe::open(services.clone(), identity, request, Form::Generic).await?;
            Ok::<_, Status>(tonic::Response::new(services.watched(stream)))
        }
        .boxed()
    });
    let codec = FrameCodec::<SubscribeRequest>::default();
    super::grpc(codec, REQUEST_BYTES_MAX).server_streaming(method, request).await
}
