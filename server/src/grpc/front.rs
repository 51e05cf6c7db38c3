//! The entry point: plain gRPC goes directly to its method; requests of browsers, health checks and
//! tools pass through the layers that they need. Nothing of a body is read before the caller is
//! identified.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use prost_reflect::DescriptorPool;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Status, body::Body, service::Routes};
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::cors::CorsLayer;

use super::{
    CONTRACT_SERVICES, Services, connect,
    message::{self, Budget, Messages},
    status,
};
use crate::error::Error;

/// The largest request of a caller without a token, in bytes.
const ANONYMOUS_BYTES_MAX: usize = 64 << 10;
/// Maximum number of Health/Watch streams in total, because they need no token.
pub(crate) const WATCHES_MAX: usize = 256;
/// Files that reflection shows only to callers with a token.
const INTERNAL_FILES: [&str; 2] = ["fanfare/v1/edge.proto", "fanfare/v1/admin.proto"];

/// Answers requests.
#[derive(Debug)]
pub(crate) struct Front {
    services: Arc<Services>,
    /// Everything but plain gRPC.
    others: Router,
}

impl Front {
    /// `pages` serves plain HTTP.
    pub(crate) async fn new(services: Arc<Services>, pages: Router, cors: CorsLayer) -> Result<Self, Error> {
        let (web, all) = (web(&services).await?, services.clone());
        let split = service_fn(move |mut request: Request<axum::body::Body>| {
            let (services, web) = (all.clone(), web.clone());
            async move {
                if !connect::is_connect(&request) {
                    return web.oneshot(request).await;
                }
                let budget = request.extensions_mut().remove().unwrap_or_else(Budget::new);
                Ok(connect::answer(services, request, budget).await.map(axum::body::Body::new))
            }
        });
        let others = Router::new().fallback_service(cors.layer(pages.fallback_service(split)));
        Ok(Self { services, others })
    }

    pub(crate) async fn answer(&self, mut request: Request<Incoming>, budget: Budget) -> Response<Body> {
        let timeout = timeout(request.headers());
        let answered = async {
            if is_plain(&request) {
                return super::dispatch(self.services.clone(), request, budget).await;
            }
            request.extensions_mut().insert(budget);
            let Ok(response) = self.others.clone().oneshot(request).await;
            response.map(Body::new)
        };
        match timeout {
            None => answered.await,
            Some(timeout) => tokio::time::timeout(timeout, answered)
                .await
                .unwrap_or_else(|_| Status::deadline_exceeded("the call's deadline has passed").into_http()),
        }
    }
}

/// Whether a request is gRPC that can go directly to its method.
fn is_plain(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let rest = kind.strip_prefix(b"application/grpc");
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
        && !request.headers().contains_key(header::ORIGIN)
        && !request.uri().path().starts_with("/grpc.")
}

/// The header `grpc-timeout` (gRPC over HTTP/2, "Timeout").
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = if number.len() <= 8 { number.parse().ok()? } else { return None };
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// All methods over gRPC-Web, and the health and reflection services.
async fn web(services: &Arc<Services>) -> Result<Router, Error> {
    let catalogs = &services.catalogs;
    let names = [&CONTRACT_SERVICES.map(str::to_owned)[..], &catalogs.services()].concat();
    let (reporter, health) = tonic_health::server::health_reporter();
    for name in names {
        reporter.set_service_status(name, tonic_health::ServingStatus::Serving).await;
    }
    let pool = catalogs.pool();
    let (all, public) = (reflection(&encoded(pool, |_| true))?, reflection(&encoded(pool, is_public))?);
    let (health, watches) = (Routes::new(health).into_axum_router(), services.watches.clone());
    let services = services.clone();
    let methods = service_fn(move |mut request: Request<axum::body::Body>| {
        let (services, watches) = (services.clone(), watches.clone());
        let (health, all, public) = (health.clone(), all.clone(), public.clone());
        async move {
            let budget = request.extensions_mut().remove().unwrap_or_else(Budget::new);
            let path = request.uri().path();
            if !path.starts_with("/grpc.") {
                let response = super::dispatch(services, request, budget).await;
                return Ok::<_, Infallible>(response.map(axum::body::Body::new));
            }
            let watch = (path == "/grpc.health.v1.Health/Watch").then(|| watches.try_acquire_owned());
            let service = match () {
                () if !path.starts_with("/grpc.reflection.") => health,
                () if services.identify_head(&request).is_ok() => all,
                () => public,
            };
            let Ok(permit) = watch.transpose() else {
                return Ok(status::limit("too many Health/Watch streams are open").into_http());
            };
            let timeout = services.request_timeout;
            let rules = message::Rules { bytes_max: ANONYMOUS_BYTES_MAX, timeout, is_awaited: true };
            let request = request.map(|body| axum::body::Body::new(Messages::new(body, rules, budget)));
            let Ok(response) = service.oneshot(request).await;
            Ok(response.map(|body| axum::body::Body::new(Watched { body, _permit: permit })))
        }
    });
    let web = GrpcWebLayer::new().layer(Routes::from(Router::new().fallback_service(methods)));
    let web = web.map_request(|request: Request<axum::body::Body>| request.map(Body::new));
    Ok(Router::new().fallback_service(web))
}

/// A response that holds a Health/Watch permit if it needs one.
struct Watched {
    body: axum::body::Body,
    _permit: Option<OwnedSemaphorePermit>,
}

impl http_body::Body for Watched {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn reflection(descriptors: &[u8]) -> Result<Router, Error> {
    let build = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::new(build().build_v1()?).add_service(build().build_v1alpha()?).into_axum_router())
}

fn is_public(name: &str) -> bool {
    !INTERNAL_FILES.contains(&name)
}

/// The wanted files of a pool and their imports, as a `FileDescriptorSet`.
fn encoded(pool: &DescriptorPool, is_wanted: impl Fn(&str) -> bool) -> Vec<u8> {
    let imported = |name: &str| {
        let wanted = pool.files().filter(|file| is_wanted(file.name()));
        wanted.flat_map(|file| file.dependencies().collect::<Vec<_>>()).any(|file| file.name() == name)
    };
    let mut set = Vec::new();
    for file in pool.files().filter(|file| is_wanted(file.name()) || imported(file.name())) {
        // FileDescriptorSet.file = 1.
        prost::encoding::bytes::encode(1, &file.encode_to_vec(), &mut set);
    }
    set
}
