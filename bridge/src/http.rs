//! HTTP around the transports: health pages, who may come, and what of a request is kept.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{any, get},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::{
    console,
    error::Error,
    link::Link,
    sessions::Sessions,
    transport::{
        poll,
        socketio::{self, SocketIo},
        sse, websocket,
    },
};

/// Headers that the transports need. Engine.IO keeps a handshake's headers as long as the connection lives, so
/// all others are dropped.
const KEPT_HEADERS: [HeaderName; 3] =
    [header::AUTHORIZATION, header::SEC_WEBSOCKET_KEY, header::CONTENT_TYPE];

/// Which origins may connect.
#[derive(Debug, Clone)]
enum Origins {
    Any,
    Listed(Arc<Vec<HeaderValue>>),
}

/// All routes of the bridge.
pub(crate) fn router(sessions: &Arc<Sessions>) -> Result<Router, Error> {
    let path = sessions.config.path.clone();
    let valid =
        path.len() > 2 && path.starts_with('/') && path.ends_with('/') && !path.contains(['{', '}', '?']);
    if !valid {
        return Err(Error::Path(path));
    }
    let origins = origins(&sessions.config.cors_origins)?;
    let engine = socketio::service(Arc::new(SocketIo { sessions: sessions.clone() }));
    let sockets = Router::new()
        .route_service(&path, engine.clone())
        .route_service(path.trim_end_matches('/'), engine)
        .layer(middleware::from_fn(strip))
        .route("/ws", any(websocket::upgrade))
        .route("/events", get(sse::events))
        .route("/poll", get(poll::poll))
        .with_state(sessions.clone())
        .layer(middleware::from_fn_with_state(origins.clone(), admit))
        .layer(cors(&origins));
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(sessions.link.clone())
        .merge(sockets);
    Ok(if sessions.config.console { router.merge(console::router(sessions)) } else { router })
}

/// Ready is who can deliver: a server is linked.
async fn readyz(State(link): State<Arc<Link>>) -> (StatusCode, &'static str) {
    if link.is_up() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no server is linked\n")
    }
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
        // Cookies of a balancer may come along.
        Origins::Listed(list) => {
            layer.allow_origin(AllowOrigin::list(list.iter().cloned())).allow_credentials(true)
        }
    }
}

/// Refuses what cannot work, with a reason that a person can act on.
async fn admit(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let refused = |status: StatusCode, code: u8, message: String| {
        (status, axum::Json(json!({ "code": code, "message": message }))).into_response()
    };
    // Browsers do not apply CORS to WebSockets, so the server must (RFC 6455, section 10.2).
    // Without a list everybody may, as with Socket.IO on Node: who a caller is says the token, never a cookie.
    if let (Origins::Listed(list), Some(origin)) = (&origins, request.headers().get(header::ORIGIN))
        && !list.is_empty()
    {
        let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
        let same = origin.as_bytes().splitn(3, |b| *b == b'/').nth(2) == host && host.is_some();
        if !same && !list.contains(origin) {
            // 4 is Engine.IO's "Forbidden".
            return refused(
                StatusCode::FORBIDDEN,
                4,
                "this origin is not allowed (setting cors-origin)".into(),
            );
        }
    }
    let query = request.uri().query().unwrap_or_default();
    let version = query.split('&').find_map(|pair| pair.strip_prefix("EIO="));
    if let Some(version) = version.filter(|v| *v != "4") {
        let version: String = version.chars().take(8).collect();
        let message = format!(
            "Unsupported protocol version: this server speaks Engine.IO 4 (socket.io-client 3.x and 4.x), not {version}"
        );
        return refused(StatusCode::BAD_REQUEST, 5, message);
    }
    next.run(request).await
}

async fn strip(mut request: Request, next: Next) -> Response {
    // Copies: what hyper parsed are slices that would keep its whole read buffer.
    if let Ok(uri) = request.uri().to_string().parse() {
        *request.uri_mut() = uri;
    }
    let headers = std::mem::take(request.headers_mut());
    for name in KEPT_HEADERS {
        if let Some(value) = headers.get(&name).and_then(|v| HeaderValue::from_bytes(v.as_bytes()).ok()) {
            request.headers_mut().insert(name, value);
        }
    }
    next.run(request).await
}
