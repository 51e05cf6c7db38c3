//! Unary methods over plain HTTP: the Connect protocol (connectrpc.com, "Protocol", version 1), in
//! JSON and binary.
//!
//! A request is converted to the equivalent gRPC request and goes to the same method; only the
//! answer is encoded differently. Nothing of a body is read before the caller is identified.

use std::{io::Read as _, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::{BufMut as _, Bytes, BytesMut};
use fanfare_proto::{catalog::Catalogs, json::Shape, room::shown};
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Status, body::Body, codegen::BoxFuture};
use tonic_types::StatusExt as _;

use super::{
    REQUEST_BYTES_MAX, Services,
    message::{self, Budget, PREFIX, Rules},
    status::malformed,
};
use crate::error::Refusal;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROTO: HeaderValue = HeaderValue::from_static("application/proto");
const VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
/// Maximum number of digits of a timeout in milliseconds ("Timeout-Milliseconds").
const TIMEOUT_DIGITS_MAX: usize = 10;

/// How a message is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Binary,
}

/// A unary method.
struct Method {
    request: Arc<Shape>,
    response: Arc<Shape>,
}

/// Whether this module serves the request: a POST that is not gRPC of any kind.
pub(super) fn is_connect<B>(request: &Request<B>) -> bool {
    request.method() == http::Method::POST && !content_type(request.headers()).starts_with("application/grpc")
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default()
}

fn form(headers: &HeaderMap) -> Option<Form> {
    let kind = content_type(headers).split(';').next().unwrap_or_default().trim();
    match () {
        () if kind.eq_ignore_ascii_case("application/json") => Some(Form::Json),
        () if kind.eq_ignore_ascii_case("application/proto") => Some(Form::Binary),
        () => None,
    }
}

pub(super) async fn answer<B>(services: Arc<Services>, request: Request<B>, budget: Budget) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let Some(form) = form(&head.headers) else { return unsupported(&head.headers) };
    let timeout = timeout(&head.headers);
    let answered = call(services, head, body, form, budget);
    let answered = match timeout {
        None => answered.await,
        Some(timeout) => tokio::time::timeout(timeout, answered)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the call's deadline has passed"))),
    };
    answered.unwrap_or_else(|status| refused(&status))
}

async fn call<B>(
    services: Arc<Services>,
    head: Parts,
    body: B,
    form: Form,
    budget: Budget,
) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let admitted = super::admit(&services, &head.uri, &head.headers, &head.extensions, &budget)?;
    if head.headers.get(VERSION).is_some_and(|version| version != "1") {
        return Err(malformed("connect-protocol-version is not known: want 1"));
    }
    let method = find(&services.catalogs, head.uri.path())?;
    let is_compressed = is_compressed(&head.headers)?;
    let rules = Rules { bytes_max: REQUEST_BYTES_MAX, timeout: services.request_timeout, is_awaited: true };
    let mut bytes = message::whole_body(body, rules, budget).await?;
    if is_compressed {
        bytes = inflate(&bytes)?;
    }
    if form == Form::Json {
        let read = method.request.read_canonical(&bytes);
        let type_name = || method.request.full_name().to_owned();
        bytes = read.map_err(|source| Refusal::Payload { type_name: type_name(), source })?.into();
    }
    // Boxed, because otherwise the futures of all methods would be part of this one.
    let called: BoxFuture<_, _> =
        Box::pin(
            async move { Ok::<_, Status>(super::serve(services, admitted, framed(head, &bytes)).await) },
        );
    let message = unframed(called.await?).await?;
    let (kind, message) = match form {
        Form::Binary => (PROTO, message),
        Form::Json => {
            let written = method.response.write_canonical(&message);
            (JSON, written.map_err(|error| Status::internal(error.to_string()))?.into())
        }
    };
    Ok(response(StatusCode::OK, kind, message))
}

/// The unary method of a path.
fn find(catalogs: &Catalogs, path: &str) -> Result<Method, Status> {
    let unknown = || Status::unimplemented(format!("no loaded service has the method {}", shown(path)));
    let (service, name) = path.trim_start_matches('/').split_once('/').ok_or_else(unknown)?;
    let service = catalogs.pool().get_service_by_name(service).ok_or_else(unknown)?;
    let method = service.methods().find(|method| method.name() == name).ok_or_else(unknown)?;
    if method.is_client_streaming() || method.is_server_streaming() {
        let message = format!("{} is a stream: call it over gRPC or gRPC-Web", shown(path));
        return Err(Status::unimplemented(message));
    }
    let shape = |name: &str| catalogs.shape(name).ok_or_else(unknown);
    let (request, response) = (shape(method.input().full_name())?, shape(method.output().full_name())?);
    Ok(Method { request, response })
}

fn is_compressed(headers: &HeaderMap) -> Result<bool, Status> {
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(false),
        Some(b"gzip") => Ok(true),
        Some(_) => Err(Status::unimplemented("content-encoding is not known: want gzip or identity")),
    }
}

fn inflate(bytes: &[u8]) -> Result<Bytes, Status> {
    let mut inflated = Vec::new();
    let limit = REQUEST_BYTES_MAX as u64;
    GzDecoder::new(bytes)
        .take(limit + 1)
        .read_to_end(&mut inflated)
        .map_err(|error| malformed(format!("the request is not valid gzip: {error}")))?;
    if inflated.len() > REQUEST_BYTES_MAX {
        return Err(message::too_large("more than the limit", REQUEST_BYTES_MAX));
    }
    Ok(inflated.into())
}

/// The gRPC request with this message.
fn framed(mut head: Parts, message: &[u8]) -> Request<Body> {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    // Never longer than REQUEST_BYTES_MAX.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::CONTENT_ENCODING);
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Request::from_parts(head, Body::new(Full::new(frame.freeze())))
}

/// Extracts the message of a gRPC response.
async fn unframed(response: Response<Body>) -> Result<Bytes, Status> {
    let ended = |headers: &HeaderMap| {
        Status::from_header_map(headers).filter(|status| status.code() != Code::Ok).map_or(Ok(()), Err)
    };
    ended(response.headers())?;
    let body = response.into_body().collect().await?;
    if let Some(trailers) = body.trailers() {
        ended(trailers)?;
    }
    let mut frame = body.to_bytes();
    if frame.len() < PREFIX {
        return Err(Status::internal("the method gave no message"));
    }
    Ok(frame.split_off(PREFIX))
}

fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok().filter(|text| text.len() <= TIMEOUT_DIGITS_MAX)?;
    Some(Duration::from_millis(text.parse().ok()?))
}

fn response(status: StatusCode, kind: HeaderValue, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn unsupported(headers: &HeaderMap) -> Response<Body> {
    let got = shown(content_type(headers));
    let message = format!("content-type is {got:?}: want application/json or application/proto");
    let body = json!({ "code": name(Code::InvalidArgument), "message": message }).to_string();
    let mut response = response(StatusCode::UNSUPPORTED_MEDIA_TYPE, JSON, body.into());
    let accepted = HeaderValue::from_static("application/json, application/proto");
    response.headers_mut().insert(ACCEPT_POST, accepted);
    response
}

/// A refusal. It is always JSON, even if the request is binary.
fn refused(status: &Status) -> Response<Body> {
    let details = tonic_types::Status::decode(status.details()).unwrap_or_default().details;
    let debug = status
        .get_details_error_info()
        .map(|info| json!({ "reason": info.reason, "domain": info.domain, "metadata": info.metadata }));
    let details = details.iter().map(|any| {
        let kind = any.type_url.rsplit('/').next().unwrap_or_default();
        let mut detail = json!({ "type": kind, "value": STANDARD_NO_PAD.encode(&any.value) });
        if let Some(debug) = debug.as_ref().filter(|_| kind == "google.rpc.ErrorInfo") {
            detail["debug"] = debug.clone();
        }
        detail
    });
    let details: Value = details.collect();
    let error = json!({ "code": name(status.code()), "message": status.message(), "details": details });
    response(http_status(status.code()), JSON, error.to_string().into())
}

/// The name of a code ("Error Codes").
const fn name(code: Code) -> &'static str {
    match code {
        // An error never has the code `Ok`.
        Code::Ok | Code::Unknown => "unknown",
        Code::Cancelled => "canceled",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The HTTP status of a code ("Error Codes").
fn http_status(code: Code) -> StatusCode {
    let number = match code {
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => 500,
    };
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
