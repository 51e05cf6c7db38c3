//! `fanfare.v1.Realtime`.

use std::{pin::Pin, sync::Arc};

use fanfare_proto::v1::{NotifyRequest, NotifyResponse, SubscribeRequest};
use futures_util::{FutureExt as _, Stream, stream};
use http::Response;
use tonic::{Request, Status, Streaming, body::Body, server::Grpc};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::{
    REQUEST_BYTES_MAX, Services,
    codec::{Frame, FrameCodec},
    subscribe::{self, Form},
};
use crate::error::Refusal;

/// A boxed response stream.
pub(super) type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) async fn notify(services: Arc<Services>, request: http::Request<Body>) -> Response<Body> {
    let method = service_fn(move |request: Request<NotifyRequest>| {
        let services = services.clone();
        async move {
            let identity = services.identify(request.metadata())?;
            let response = services.ingest.notify(&identity, request.into_inner()).await?;
            Ok::<_, Status>(tonic::Response::new(response))
        }
        .boxed()
    });
    let codec = ProstCodec::<NotifyResponse, NotifyRequest>::default();
    Grpc::new(codec).max_decoding_message_size(REQUEST_BYTES_MAX).unary(method, request).await
}

pub(super) async fn notify_stream(services: Arc<Services>, request: http::Request<Body>) -> Response<Body> {
    let method = service_fn(move |request: Request<Streaming<NotifyRequest>>| {
        let services = services.clone();
        async move {
            let identity = services.identify(request.metadata())?;
            let requests = request.into_inner();
            let responses = stream::try_unfold(
                (services, identity, requests),
                |(services, identity, mut requests)| async move {
                    let next = tokio::select! {
                        biased;
                        () = services.closing.cancelled() => return Err(Refusal::Shutdown.into()),
                        next = requests.message() => next?,
                    };
                    let Some(request) = next else { return Ok(None) };
                    services.check_expiry(&identity)?;
                    let response = services.ingest.notify(&identity, request).await?;
                    Ok(Some((response, (services, identity, requests))))
                },
            );
            let responses: ResponseStream<NotifyResponse> = Box::pin(responses);
            Ok::<_, Status>(tonic::Response::new(responses))
        }
        .boxed()
    });
    let codec = ProstCodec::<NotifyResponse, NotifyRequest>::default();
    Grpc::new(codec).max_decoding_message_size(REQUEST_BYTES_MAX).streaming(method, request).await
}

pub(super) async fn subscribe(services: Arc<Services>, request: http::Request<Body>) -> Response<Body> {
    let method = service_fn(move |request: Request<SubscribeRequest>| {
        let services = services.clone();
        async move {
            let identity = services.identify(request.metadata())?;
            let stream = subscribe::open(services, identity, request.into_inner(), Form::Generic).await?;
            let stream: ResponseStream<Frame> = Box::pin(stream);
            Ok::<_, Status>(tonic::Response::new(stream))
        }
        .boxed()
    });
    let codec = FrameCodec::<SubscribeRequest>::default();
    Grpc::new(codec).max_decoding_message_size(REQUEST_BYTES_MAX).server_streaming(method, request).await
}
