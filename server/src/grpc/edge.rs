//! `fanfare.v1.Edge`: the stream and the calls of bridges.

mod link;
mod sessions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use fanfare_proto::{
    cursor::Cursor,
    token::{Identity, Scope},
    v1::{
        CallRequest, CallResponse, LinkRequest, RecoverRequest, RecoverResponse, Recovered, ReplayRequest,
        StateRequest, call_response,
    },
};
use futures_util::{FutureExt as _, stream};
use http::Response;
use tonic::{Request, Status, Streaming, body::Body};
use tower::service_fn;

use super::{
    REQUEST_BYTES_MAX, Services,
    codec::{Frame, FrameCodec},
};
use crate::{
    auth,
    engine::ReadLimits,
    error::Refusal,
    hub::{Inbox, Subscription},
    interest::Interest,
    snapshot::Snapshot,
};
use link::Link;

/// Maximum number of rooms in a replay, which covers the rooms of one session.
const REPLAY_ROOMS_MAX: usize = 10_000;
/// Entries of the state per page.
const ENTRIES_MAX: usize = 256;
/// The largest request, in bytes: enough for a million rooms with names of ordinary length.
pub(super) const LINK_REQUEST_BYTES_MAX: usize = 64 << 20;

pub(super) async fn call(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: CallRequest,
) -> Result<CallResponse, Refusal> {
    auth::require(&identity, Scope::Bridge)?;
    let tenant = request.caller.as_ref().map(|c| c.tenant.as_str()).unwrap_or_default();
    auth::tenant(&identity, tenant)?;
    let result = match services.calls.emitted(&request).await {
        Ok(ok) => call_response::Result::Ok(ok),
        Err(refusal) => call_response::Result::Error((&refusal).into()),
    };
    Ok(CallResponse { result: Some(result) })
}

pub(super) async fn replay(services: Arc<Services>, request: http::Request<Body>) -> Response<Body> {
    let method = service_fn(move |request: Request<ReplayRequest>| {
        let services = services.clone();
        async move {
            let identity = services.identify(&request)?;
            auth::require(&identity, Scope::Bridge)?;
            let page = page(&services, &identity, request.into_inner()).await?;
            Ok::<_, Status>(tonic::Response::new(page))
        }
        .boxed()
    });
    let codec = FrameCodec::<ReplayRequest>::default();
    super::grpc(codec, REQUEST_BYTES_MAX).unary(method, request).await
}

pub(super) async fn recover(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: RecoverRequest,
) -> Result<RecoverResponse, Refusal> {
    auth::require(&identity, Scope::Bridge)?;
    let caller = request.caller.unwrap_or_default();
    let tenant = auth::tenant(&identity, &caller.tenant)?;
    let found = services.presence.recoverable(&caller, &request.pid, &request.after).await?;
    let Some(found) = found else {
        return Ok(RecoverResponse { recovered: None });
    };
    // A session is not recovered if the log cannot return every event that it missed.
    match services.engine.read(&tenant, &Interest::default(), found.after, ReadLimits::CHECK).await {
        Ok(_) => {}
        Err(Refusal::Reset(_)) => return Ok(RecoverResponse { recovered: None }),
        Err(other) => return Err(other),
    }
    let (session_id, mut rooms, after) = (found.session_id, found.rooms, found.after);
    // The token or the rules may allow fewer rooms than before.
    rooms.retain(|room| services.rules.check_enter(&caller, room).is_ok());
    if !services.presence.hand_over(&caller, &request.pid, &session_id, &request.instance).await? {
        return Ok(RecoverResponse { recovered: None });
    }
    let rooms = rooms.iter().map(|room| room.as_str().to_owned()).collect();
    Ok(RecoverResponse { recovered: Some(Recovered { session_id, rooms, after: after.to_string() }) })
}

pub(super) async fn state(services: Arc<Services>, request: http::Request<Body>) -> Response<Body> {
    let method = service_fn(move |request: Request<StateRequest>| {
        let services = services.clone();
        async move {
            let identity = services.identify(&request)?;
            auth::require(&identity, Scope::Bridge)?;
            let request = request.into_inner();
            let tenant = auth::tenant(&identity, &request.tenant)?;
            let rooms = super::rooms(&request.rooms, super::ROOMS_MAX)?;
            let token = request.page_token.parse()?;
            let page = Snapshot::read(&*services.engine, &tenant, &rooms, token, ENTRIES_MAX).await?;
            let events = page.once(&rooms).map(|entry| entry.event.clone()).collect();
            let next = page.next.map(|next| next.text()).unwrap_or_default();
            Ok::<_, Status>(tonic::Response::new(Frame::State {
                events,
                cursor: page.cursor.to_string(),
                next,
            }))
        }
        .boxed()
    });
    let codec = FrameCodec::<StateRequest>::default();
    super::grpc(codec, REQUEST_BYTES_MAX).unary(method, request).await
}

/// One page of a tenant's log.
async fn page(services: &Services, identity: &Identity, request: ReplayRequest) -> Result<Frame, Refusal> {
    let tenant = auth::tenant(identity, &request.tenant)?;
    let rooms = super::rooms(&request.rooms, REPLAY_ROOMS_MAX)?;
    let Some(after) = Cursor::after(&request.after)? else {
        let cursor = services.engine.head(&tenant).await?.to_string();
        return Ok(Frame::Replay { events: Vec::new(), cursor, more: false });
    };
    // Reads like a temporary subscription: recent events come from the window, the rest from the
    // log. The last page must reach the end of the log. A session receives live events only from
    // the end of the log at the time when it joined its rooms, and must not miss events that the
    // window does not have yet.
    let inbox = Arc::new(Inbox::default());
    let open = Subscription::open(&services.hub, &tenant, rooms, Some(after), &inbox, 0);
    let batch = open.await?.next_of_log().await?;
    let events = batch.events.into_iter().filter(|event| !event.is_ephemeral()).collect();
    Ok(Frame::Replay { events, cursor: batch.cursor.to_string(), more: batch.more })
}

pub(super) async fn link(services: Arc<Services>, request: http::Request<Body>) -> Response<Body> {
    let method = service_fn(move |request: Request<Streaming<LinkRequest>>| {
        let services = services.clone();
        async move {
            let identity = services.identify(&request)?;
            auth::require(&identity, Scope::Bridge)?;
            let link = Link::new(services.clone(), identity, request.into_inner());
            Ok::<_, Status>(tonic::Response::new(services.watched(stream::unfold(link, Link::step))))
        }
        .boxed()
    });
    let codec = FrameCodec::<LinkRequest>::default();
    super::grpc(codec, LINK_REQUEST_BYTES_MAX).streaming(method, request).await
}
