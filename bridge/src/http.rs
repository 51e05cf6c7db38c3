//! HTTP around the transports: health pages, origins, and the routes.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use fanfare_telemetry::{Exposition, Metrics};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::{
    bundle, console,
    error::Error,
    metrics::BridgeMetrics,
    refusal::Refusal,
    sessions::Sessions,
    transport::{
        engineio::{self, Engine},
        poll, raw,
        request::{refuse, unavailable},
        socketio::SocketIo,
        sse,
    },
};

/// Which origins may connect.
#[derive(Debug, Clone)]
enum Origins {
    Any,
    Listed(Arc<Vec<HeaderValue>>),
}

/// All routes of the bridge.
pub(crate) fn router(sessions: &Arc<Sessions>, engine: &Arc<Engine<SocketIo>>) -> Result<Router, Error> {
    let path = sessions.config.path.clone();
    let valid =
        path.len() > 2 && path.starts_with('/') && path.ends_with('/') && !path.contains(['{', '}', '?']);
    if !valid {
        return Err(Error::Path(path));
    }
    let origins = origins(&sessions.config.cors_origins)?;
    let socketio = any(engineio::handle::<SocketIo>).with_state(engine.clone());
    let sockets = Router::new()
        .route(&path, socketio.clone())
        .route(path.trim_end_matches('/'), socketio)
        .route("/ws", any(raw::upgrade))
        .route("/events", get(sse::events))
        .route("/poll", get(poll::poll))
        .with_state(sessions.clone())
        .layer(middleware::from_fn_with_state(origins.clone(), check_origin))
        .layer(cors(&origins));
    let mut router = health(sessions).merge(sockets);
    if sessions.config.client_bundle {
        router = router.merge(bundle::router(&path));
    }
    Ok(if sessions.config.console { router.merge(console::router(sessions)) } else { router })
}

/// The routes for connections beyond the limits: health pages; every other request is refused.
pub(crate) fn reserve_router(sessions: &Arc<Sessions>) -> Router {
    health(sessions).fallback(|Extension(refusal): Extension<Refusal>| async move { unavailable(&refusal) })
}

fn health(sessions: &Arc<Sessions>) -> Router {
    let source = BridgeMetrics { sessions: sessions.clone(), listener: None };
    let metrics = Metrics::new(vec![Arc::new(source)]);
    let scraped = get(scrape).with_state((sessions.clone(), metrics));
    Router::new()
        .route("/metrics", scraped)
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(sessions.clone())
}

/// Ready means that events can be delivered: a server is linked.
async fn readyz(State(sessions): State<Arc<Sessions>>) -> (StatusCode, &'static str) {
    if sessions.draining.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
    } else if sessions.link.is_up() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no server is linked\n")
    }
}

/// The metrics, for clients with an administrator's token for all tenants.
async fn scrape(
    State((sessions, metrics)): State<(Arc<Sessions>, Arc<Metrics>)>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Response> {
    sessions.check_operator(&headers).map_err(|refusal| refuse(&refusal))?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let Exposition { content_type, text } = metrics.expose(accept).await;
    Ok(([(header::CONTENT_TYPE, content_type)], text))
}

fn origins(origins: &[String]) -> Result<Origins, Error> {
    if origins.iter().any(|o| o == "*") {
        return Ok(Origins::Any);
    }
    let listed = origins.iter().map(|o| o.parse().map_err(|_| Error::Origin(o.clone())));
    Ok(Origins::Listed(Arc::new(listed.collect::<Result<_, _>>()?)))
}

fn cors(origins: &Origins) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::OPTIONS])
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(Duration::from_secs(7200));
    match origins {
        Origins::Any => layer.allow_origin(AllowOrigin::any()),
        // With credentials, so that a load balancer's cookies are sent.
        Origins::Listed(list) => {
            layer.allow_origin(AllowOrigin::list(list.iter().cloned())).allow_credentials(true)
        }
    }
}

/// Browsers do not apply CORS to WebSockets, so the server must check the origin (RFC 6455, section
/// 10.2). Without a list every origin may connect, as with Socket.IO on Node: a token identifies
/// the caller, never a cookie.
async fn check_origin(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    if let (Origins::Listed(list), Some(origin)) = (&origins, request.headers().get(header::ORIGIN))
        && !list.is_empty()
    {
        let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
        let same = origin.as_bytes().splitn(3, |b| *b == b'/').nth(2) == host && host.is_some();
        if !same && !list.contains(origin) {
            // 4 is Engine.IO's "Forbidden".
            let message = "this origin is not allowed (setting cors-origin)";
            let body = axum::Json(json!({ "code": 4, "message": message }));
            return (StatusCode::FORBIDDEN, body).into_response();
        }
    }
    next.run(request).await
}
