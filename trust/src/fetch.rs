//! Fetches a small document over HTTP or HTTPS, with limits. Follows no redirects, so that keys
//! come from the configured place.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// How long a fetch may take in total.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest document, in bytes.
const BYTES_MAX: usize = 256 << 10;

/// Why a document was not fetched; for the log.
pub(crate) type Problem = String;

/// A document, and how long it may be cached, if its server specifies that.
pub(crate) struct Document {
    pub(crate) body: Bytes,
    pub(crate) age_max: Option<Duration>,
}

/// The configuration with which HTTPS servers are verified.
pub(crate) fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

pub(crate) async fn fetch(url: &str, tls: &Arc<ClientConfig>) -> Result<Document, Problem> {
    let late = |_| format!("no answer within {TIMEOUT:?}");
    tokio::time::timeout(TIMEOUT, fetch_now(url, tls)).await.map_err(late)?
}

async fn fetch_now(url: &str, tls: &Arc<ClientConfig>) -> Result<Document, Problem> {
    let uri: Uri = url.parse().map_err(|_| "it is no URL".to_owned())?;
    let host = uri.host().ok_or("it names no host")?.trim_matches(['[', ']']).to_owned();
    let is_secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let stream = TcpStream::connect((host.as_str(), port)).await;
    let stream = stream.map_err(|e| failed("cannot connect", &e))?;
    if !is_secure {
        return get(stream, &uri).await;
    }
    let name = ServerName::try_from(host).map_err(|e| failed("its host has no name", &e))?;
    let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
    get(stream.map_err(|e| failed("TLS failed", &e))?, &uri).await
}

async fn get<S>(stream: S, uri: &Uri) -> Result<Document, Problem>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::Builder::new().max_buf_size(64 << 10).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("the answer is {}", response.status()));
        }
        let age_max = age_max(response.headers());
        let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
        let body = body.map_err(|e| e.to_string())?.to_bytes();
        Ok(Document { body, age_max })
    };
    // The connection drives the response, which completes first.
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended.map_err(|e| e.to_string())?;
            answer.await
        }
    }
}

/// `max-age` of `Cache-Control` (RFC 9111, section 5.2.2.1).
fn age_max(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(str::trim);
    directives.find_map(|one| Some(Duration::from_secs(one.strip_prefix("max-age=")?.parse().ok()?)))
}
