//! The methods of catalog services, served from their descriptors.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use fanfare_proto::{
    catalog::{ClientMethod, EventType, NotifyMethod, SubscribeMethod},
    v1::{SubscribeRequest, Target},
};
use futures_util::FutureExt as _;
use http::Response;
use prost::{
    Message as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use tonic::{Request, Status, body::Body};
use tower::service_fn;

use super::{
    REQUEST_BYTES_MAX, Services,
    codec::{Frame, FrameCodec, RawCodec},
    status::malformed,
    subscribe::{self, Form},
};
use crate::auth;

pub(super) async fn notify(
    services: Arc<Services>,
    method: Arc<NotifyMethod>,
    request: http::Request<Body>,
) -> Response<Body> {
    let method = service_fn(move |request: Request<Bytes>| {
        let (services, method) = (services.clone(), method.clone());
        async move {
            let identity = services.identify(&request)?;
            let (target, kind, event) = split(request.into_inner(), &method)?;
            let response = services.ingest.publish(&identity, kind, &method.rooms, target, event).await?;
            Ok::<_, Status>(tonic::Response::new(Frame::message(&response)))
        }
        .boxed()
    });
    super::grpc(RawCodec, REQUEST_BYTES_MAX).unary(method, request).await
}

/// Serves a client method that a user calls without a session.
pub(super) async fn client(
    services: Arc<Services>,
    method: Arc<ClientMethod>,
    request: http::Request<Body>,
) -> Response<Body> {
    let method = service_fn(move |request: Request<Bytes>| {
        let (services, method) = (services.clone(), method.clone());
        async move {
            let identity = services.identify(&request)?;
            if method.needs_session() {
                let message = format!("{} needs a session: browsers emit {:?}", method.path, method.on);
                return Err(Status::failed_precondition(message));
            }
            let caller = auth::user(&identity)?;
            let response = services.calls.called(&method, &caller, request.into_inner()).await?;
            Ok::<_, Status>(tonic::Response::new(Frame::Whole(response.into())))
        }
        .boxed()
    });
    super::grpc(RawCodec, REQUEST_BYTES_MAX).unary(method, request).await
}

pub(super) async fn subscribe(
    services: Arc<Services>,
    method: Arc<SubscribeMethod>,
    request: http::Request<Body>,
) -> Response<Body> {
    let method = service_fn(move |request: Request<SubscribeRequest>| {
        let (services, method) = (services.clone(), method.clone());
        async move {
            let identity = services.identify(&request)?;
            let request = request.into_inner();
            let stream = subscribe::open(services.clone(), identity, request, Form::Typed(method)).await?;
            Ok::<_, Status>(tonic::Response::new(services.watched(stream)))
        }
        .boxed()
    });
    let codec = FrameCodec::<SubscribeRequest>::default();
    super::grpc(codec, REQUEST_BYTES_MAX).server_streaming(method, request).await
}

/// Splits a typed Notify request into its target, the type of its event, and the unchanged bytes of
/// the event. As protobuf requires, a message field that occurs several times is merged, that is,
/// its bytes are concatenated; if several members of a oneof are set, the last one counts.
fn split(mut request: Bytes, method: &NotifyMethod) -> Result<(Target, &Arc<EventType>, Bytes), Status> {
    let broken = |e: prost::DecodeError| malformed(format!("the request is not valid protobuf: {e}"));
    let mut target = Target::default();
    let mut event: Option<(u32, Bytes)> = None;
    while request.has_remaining() {
        let (number, wire_type) = decode_key(&mut request).map_err(broken)?;
        if number != method.target_field && !method.events.contains_key(&number) {
            skip_field(wire_type, number, &mut request, DecodeContext::default()).map_err(broken)?;
            continue;
        }
        if wire_type != WireType::LengthDelimited {
            return Err(malformed(format!("field {number} of the request is not a message")));
        }
        let length = decode_varint(&mut request).map_err(broken)?;
        let length = usize::try_from(length).ok().filter(|l| *l <= request.remaining());
        let length = length.ok_or_else(|| malformed(format!("field {number} of the request is cut off")))?;
        let bytes = request.split_to(length);
        if number == method.target_field {
            target.merge(bytes).map_err(broken)?;
            continue;
        }
        event = Some(match event {
            Some((same, first)) if same == number => (number, [first, bytes].concat().into()),
            _ => (number, bytes),
        });
    }
    let (number, bytes) = event.ok_or_else(|| {
        let mut wanted: Vec<_> =
            method.events.iter().map(|(n, e)| format!("{n} ({})", e.full_name)).collect();
        wanted.sort();
        malformed(format!("the request has no event: set field {}", wanted.join(" or ")))
    })?;
    let kind =
        method.events.get(&number).ok_or_else(|| Status::internal("the event's field is not known"))?;
    Ok((target, kind, bytes))
}
