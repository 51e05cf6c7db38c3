//! The Socket.IO client for pages that load it with a script element, embedded in the program.

use axum::{Router, http::header, response::IntoResponse as _, routing::get};
use rust_embed::RustEmbed;

/// What `clients/console` builds from the package `socket.io-client`.
#[derive(RustEmbed)]
#[folder = "client"]
struct Files;

/// Serves `socket.io.js` below Socket.IO's path.
pub(crate) fn router(path: &str) -> Router {
    Router::new().route(&format!("{path}socket.io.js"), get(file))
}

async fn file() -> axum::response::Response {
    let Some(file) = Files::get("socket.io.js") else {
        return axum::http::StatusCode::NOT_FOUND.into_response();
    };
    let headers =
        [(header::CONTENT_TYPE, "text/javascript; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, file.data.into_owned()).into_response()
}
