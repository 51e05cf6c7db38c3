//! The opening handshake (RFC 6455, section 4).

use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use sha1::{Digest as _, Sha1};

/// Appended to the client's key before hashing (RFC 6455, section 1.3).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const COMPRESSION: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The negotiated options.
#[derive(Debug)]
pub(crate) struct Handshake {
    accept: HeaderValue,
    /// Messages may be compressed.
    pub(crate) compression: bool,
}

fn has_token(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(wanted))
}

/// Whether a request asks for a WebSocket.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, header::UPGRADE, "websocket")
}

/// Reads a handshake; if it is invalid, returns what is wrong.
pub(crate) fn read(
    method: &Method,
    headers: &HeaderMap,
    compression: bool,
) -> Result<Handshake, &'static str> {
    if method != Method::GET {
        return Err("a WebSocket handshake is a GET request");
    }
    if !is_upgrade(headers) || !has_token(headers, header::CONNECTION, "upgrade") {
        return Err("a WebSocket handshake has the headers Connection: Upgrade and Upgrade: websocket");
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err("a WebSocket handshake has the header Sec-WebSocket-Version: 13");
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let engine = base64::engine::general_purpose::STANDARD;
    let is_key = |key: &&HeaderValue| engine.decode(key).is_ok_and(|bytes| bytes.len() == 16);
    let Some(key) = key.filter(is_key) else {
        return Err("a WebSocket handshake has a Sec-WebSocket-Key of 16 bytes in base64");
    };
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(KEY_SUFFIX);
    let accept = HeaderValue::try_from(engine.encode(hash.finalize()));
    let accept = accept.map_err(|_| "the key cannot be answered")?;
    Ok(Handshake { accept, compression: compression && offers_compression(headers) })
}

/// Whether the client can decompress the bridge's messages: windows of 32 KiB, without context
/// takeover.
fn offers_compression(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).into_iter();
    let offers = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    offers.map(|offer| offer.split(';').map(str::trim)).any(|mut parts| {
        parts.next() == Some("permessage-deflate")
            && parts.all(|part| {
                let name = part.split('=').next().unwrap_or_default().trim();
                matches!(
                    name,
                    "client_max_window_bits" | "server_no_context_takeover" | "client_no_context_takeover"
                )
            })
    })
}

impl Handshake {
    /// The response.
    pub(crate) fn response(&self) -> Response {
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        if self.compression {
            headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(COMPRESSION));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_example_of_the_specification_is_answered_as_there() {
        let headers = headers(&[
            (header::UPGRADE, "websocket"),
            (header::CONNECTION, "keep-alive, Upgrade"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ]);
        let handshake = read(&Method::GET, &headers, true).unwrap();
        assert_eq!(handshake.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!handshake.compression, "it was not offered");
    }

    #[test]
    fn compression_is_agreed_on_only_as_we_do_it() {
        let offers = |value| offers_compression(&headers(&[(header::SEC_WEBSOCKET_EXTENSIONS, value)]));
        assert!(offers("permessage-deflate; client_max_window_bits"));
        assert!(offers("x-other, permessage-deflate; server_no_context_takeover"));
        assert!(offers("permessage-deflate; server_max_window_bits=10, permessage-deflate"));
        assert!(!offers("permessage-deflate; server_max_window_bits=10"));
        assert!(!offers("x-other"));
    }
}
