//! The console: a page for operators, embedded in the program, and the proxy for its calls to the
//! server.
//!
//! Its files contain no secrets. Its data comes over gRPC-Web from `fanfare.v1.Admin`, authorised
//! by the operator's own token. Only in development does this module issue a token to the page, and
//! only to clients on this machine.

use std::{
    collections::HashMap,
    io::Write as _,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::{any, get},
};
use fanfare_proto::{
    signer::Bearer,
    token::{Scope, TenantScope},
    v1::Reason,
};
use flate2::{Compression, write::GzEncoder};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, uri::Authority};
use http_body_util::{BodyStream, StreamBody};
use rust_embed::RustEmbed;
use serde_json::json;

use crate::{
    refusal::Refusal,
    sessions::Sessions,
    transport::request::{read_body, refuse},
};

/// Calls that may be forwarded at once; a stream counts for as long as it lasts.
const CALLS_MAX: usize = 1024;
/// The same, for the administrators of one tenant: slow ones must not lock out those of other
/// tenants.
const CALLS_PER_TENANT_MAX: usize = 256;
/// The same, for calls without a service's token, which the server refuses.
const STRANGERS_MAX: usize = 32;
/// The largest request, in bytes.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// How long a page's token is valid in development; the page fetches another before it expires.
const TOKEN_AGE: Duration = Duration::from_secs(15 * 60);
/// Files smaller than this are not worth compressing, in bytes.
const COMPRESSED_MIN: usize = 1024;
/// The page loads only its own files, calls only its own origin, and cannot be framed by another
/// page.
const POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; object-src 'none'";
const SAFETY: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The build output of `clients/console`.
#[derive(RustEmbed)]
#[folder = "console"]
struct Files;

/// The shared state of the console's routes.
#[derive(Debug)]
struct Console {
    files: HashMap<String, File>,
    sessions: Arc<Sessions>,
    places: Arc<Places>,
}

/// Calls in progress by tenant; those without a service's token under `None`.
#[derive(Debug, Default)]
struct Places(Mutex<HashMap<Option<String>, usize>>);

/// The place of a call, released on drop.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    key: Option<String>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<Option<String>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, key: Option<String>) -> Option<Place> {
        let max = if key.is_some() { CALLS_PER_TENANT_MAX } else { STRANGERS_MAX };
        let mut places = self.lock();
        let total: usize = places.values().sum();
        let used = places.entry(key.clone()).or_default();
        if *used >= max || total >= CALLS_MAX {
            return None;
        }
        *used += 1;
        drop(places);
        Some(Place { places: self.clone(), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.lock();
        if let Some(used) = places.get_mut(&self.key) {
            *used -= 1;
            if *used == 0 {
                places.remove(&self.key);
            }
        }
    }
}

/// A file of the page.
#[derive(Debug)]
struct File {
    kind: &'static str,
    bytes: Bytes,
    /// Compressed on first request; absent if compression is not worth it.
    compressed: OnceLock<Option<Bytes>>,
    /// The hash of the file's contents.
    tag: String,
    /// Whether the file's name changes with its contents.
    is_hashed: bool,
}

/// The console's routes. Any other path is looked up among the page's files.
pub(crate) fn router(sessions: &Arc<Sessions>) -> Router {
    let files = Files::iter().filter_map(|name| Some((name.to_string(), File::new(&name)?))).collect();
    let console = Arc::new(Console { files, sessions: sessions.clone(), places: Arc::default() });
    Router::new()
        .route("/console/config.json", get(config))
        .route("/fanfare.v1.Admin/{method}", any(pass_on))
        .route("/fanfare.v1.Realtime/Notify", any(pass_on))
        .route("/fanfare.v1.Realtime/Disconnect", any(pass_on))
        .fallback(file)
        .with_state(console)
}

/// What the page must know: whether it has to ask for a token.
async fn config(State(console): State<Arc<Console>>, headers: HeaderMap) -> Response {
    let Some(signer) = &console.sessions.config.development else {
        return private(json!({ "development": false, "socketioPath": console.sessions.config.path }));
    };
    // Any site can point its name to this address (DNS rebinding); its pages would then have this
    // origin.
    if is_foreign(&headers) {
        return foreign();
    }
    let scopes = [Scope::Admin.as_str()];
    let bearer = Bearer { tenant: "*", user_id: "console", scopes: &scopes, ..Bearer::default() };
    match signer.sign(bearer, TOKEN_AGE) {
        Ok((token, _)) => private(
            json!({ "development": true, "token": token, "socketioPath": console.sessions.config.path }),
        ),
        Err(error) => refuse(&Refusal::new(Reason::Internal, error.to_string())),
    }
}

fn foreign() -> Response {
    let message =
        "the console of fanfare dev is for this machine: open it as http://127.0.0.1 or http://localhost";
    refuse(&Refusal::new(Reason::Forbidden, message))
}

/// Whether a request may come from a page of another site.
fn is_foreign(headers: &HeaderMap) -> bool {
    !names_this_machine(headers) || from_elsewhere(headers)
}

fn private(value: serde_json::Value) -> Response {
    let mut response = Json(value).into_response();
    secure(response.headers_mut());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn secure(headers: &mut HeaderMap) {
    headers.extend(SAFETY.map(|(name, value)| (name, HeaderValue::from_static(value))));
}

/// Whether the request was sent to a name that only this machine has.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(authority) = host.and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    !authority.as_str().contains('@') && (is_loopback || name.eq_ignore_ascii_case("localhost"))
}

/// Whether a page of another origin sent the request, according to the browser's headers.
fn from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    site.is_some_and(|site| site != b"same-origin" && site != b"none")
}

impl Console {
    /// The tenant of a call with a service's token; the server decides what the call may do.
    fn tenant(&self, headers: &HeaderMap) -> Option<String> {
        let token = headers.get(header::AUTHORIZATION).and_then(|token| token.to_str().ok());
        let identity = token.and_then(|token| self.sessions.verifier.verify(token).ok())?;
        let is_service = identity.allows(Scope::Notify) || identity.allows(Scope::Admin);
        is_service.then(|| match identity.tenant {
            // Administrators of all tenants are counted separately.
            TenantScope::Any => format!("* {}", identity.user_id.unwrap_or_default()),
            TenantScope::One(tenant) => tenant.as_str().to_owned(),
        })
    }
}

/// Forwards a gRPC-Web call to the server unchanged.
async fn pass_on(State(console): State<Arc<Console>>, request: Request) -> Response {
    if console.sessions.config.development.is_some() && is_foreign(request.headers()) {
        return foreign();
    }
    let Some(place) = console.places.take(console.tenant(request.headers())) else {
        // A gRPC-Web response without a message: RESOURCE_EXHAUSTED.
        let headers = [
            ("content-type", "application/grpc-web+proto"),
            ("grpc-status", "8"),
            ("grpc-message", "too many calls pass through this bridge at once"),
        ];
        return headers.into_response();
    };
    let (parts, body) = request.into_parts();
    let request = match read_body(body, REQUEST_BYTES_MAX, console.sessions.config.request_timeout).await {
        Ok(body) => Request::from_parts(parts, Body::from(body)),
        Err(status) => return status.into_response(),
    };
    let draining = &console.sessions.draining;
    let passed = draining.run_until_cancelled(console.sessions.link.pass_on(request)).await;
    let Some(mut response) = passed else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    // The server's CORS headers do not apply to the bridge: no other origin may call it.
    let names: Vec<HeaderName> = response.headers().keys().cloned().collect();
    for name in names.iter().filter(|name| name.as_str().starts_with("access-control-")) {
        response.headers_mut().remove(name);
    }
    // The call holds its place until its response ends or the bridge drains.
    let drained = draining.clone().cancelled_owned();
    response.map(|body| {
        let frames = BodyStream::new(body).take_until(drained).map(move |frame| {
            let _ = &place;
            frame
        });
        Body::new(StreamBody::new(frames))
    })
}

async fn file(State(console): State<Arc<Console>>, request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let name = if path.is_empty() { "index.html" } else { path };
    match console.files.get(name) {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(_) if request.method() != Method::GET && request.method() != Method::HEAD => {
            StatusCode::METHOD_NOT_ALLOWED.into_response()
        }
        Some(file) => file.serve(request.headers()),
    }
}

impl File {
    fn new(name: &str) -> Option<Self> {
        let found = Files::get(name)?;
        let hash = found.metadata.sha256_hash();
        let bytes = match found.data {
            std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            std::borrow::Cow::Owned(bytes) => bytes.into(),
        };
        Some(Self {
            kind: kind(name),
            bytes,
            compressed: OnceLock::new(),
            tag: hash[..12].iter().map(|byte| format!("{byte:02x}")).collect(),
            is_hashed: name.starts_with("assets/"),
        })
    }

    fn serve(&self, asked: &HeaderMap) -> Response {
        let compressed = if takes_gzip(asked) { self.compressed() } else { None };
        // Caches must distinguish the compressed form.
        let tag = format!("\"{}{}\"", self.tag, if compressed.is_some() { "-gzip" } else { "" });
        let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
        let is_known =
            known.flat_map(|tags| tags.split(',')).any(|known| known.trim().trim_start_matches("W/") == tag);
        let cache = if self.is_hashed { "public, max-age=31536000, immutable" } else { "no-cache" };
        let headers = [
            (header::CONTENT_TYPE, self.kind),
            (header::CACHE_CONTROL, cache),
            (header::ETAG, tag.as_str()),
            (header::VARY, "accept-encoding"),
        ];
        let mut response = match (is_known, &compressed) {
            (true, _) => (StatusCode::NOT_MODIFIED, headers).into_response(),
            (false, Some(bytes)) => (headers, bytes.clone()).into_response(),
            (false, None) => (headers, self.bytes.clone()).into_response(),
        };
        if compressed.is_some() && !is_known {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        secure(response.headers_mut());
        response
    }

    fn compressed(&self) -> Option<Bytes> {
        let compress = || {
            let is_text = !matches!(self.kind, "image/png" | "font/woff2");
            if !is_text || self.bytes.len() < COMPRESSED_MIN {
                return None;
            }
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&self.bytes).ok()?;
            Some(encoder.finish().ok()?.into())
        };
        self.compressed.get_or_init(compress).clone()
    }
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().trim_start_matches("q=");
        name.trim().eq_ignore_ascii_case("gzip") && weight.parse::<f32>().unwrap_or(1.0) > 0.0
    })
}

/// The media type of a file by its name.
fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}
