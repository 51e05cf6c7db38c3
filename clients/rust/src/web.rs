//! gRPC-Web requests, forwarded to a server as browsers send them.

use std::{convert::Infallible, error::Error as StdError, fmt};

use bytes::Bytes;
use http::{HeaderName, Request, Response, Version, header};
use http_body::Body as HttpBody;
use tonic::{Status, body::Body, transport::Channel};
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};

use crate::edge::EdgeClient;

/// The request headers that are forwarded: they identify the caller and the protocol. None are
/// added.
const PASSED: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::TE,
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("x-user-agent"),
];

type BoxError = Box<dyn StdError + Send + Sync>;

impl EdgeClient {
    /// Forwards a gRPC-Web request to the server, with the caller's token instead of this client's,
    /// and returns the response unbuffered, so that streams work. If the server cannot be reached,
    /// the response is UNAVAILABLE.
    pub async fn pass_on<B>(
        &self,
        request: Request<B>,
    ) -> Response<impl HttpBody<Data = Bytes, Error = impl Into<BoxError> + use<B>> + Send + use<B>>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError> + fmt::Display> + Send + 'static,
    {
        let channel = self.passing.clone();
        let server = service_fn(move |request: Request<Body>| {
            let channel = channel.clone();
            async move { Ok::<_, Infallible>(call(channel, request).await) }
        });
        let answered: Result<Response<Body>, Infallible> =
            GrpcWebLayer::new().layer(server).oneshot(request).await;
        let Ok(mut response) = answered;
        *response.version_mut() = Version::default();
        response
    }
}

async fn call(mut channel: Channel, mut request: Request<Body>) -> Response<Body> {
    let headers = std::mem::take(request.headers_mut());
    let passed = PASSED.into_iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
    request.headers_mut().extend(passed);
    *request.version_mut() = Version::HTTP_2;
    let answered = match channel.ready().await {
        Ok(ready) => ready.call(request).await,
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(|error| {
        tracing::debug!(%error, "a call could not be passed on");
        Status::unavailable("no server can be reached").into_http()
    })
}
