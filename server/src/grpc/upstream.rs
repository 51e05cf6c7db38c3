//! Passes browsers' calls to internal gRPC services, with their typed messages unchanged.

use std::{collections::HashMap, error::Error as _, time::Duration};

use bytes::Bytes;
use fanfare_proto::{
    catalog::{Catalogs, Method},
    v1::{Caller, Reason},
};
use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    metadata::{AsciiMetadataValue, BinaryMetadataValue},
    transport::{Channel, Endpoint},
};

use super::{
    codec::{Frame, RawCodec},
    status,
};
use crate::{
    config,
    error::{Error, Refusal},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// The longest upstream error message that browsers receive, in characters.
const MESSAGE_CHARS_MAX: usize = 256;

/// All configured upstreams.
#[derive(Debug)]
pub(crate) struct Upstreams {
    channels: HashMap<String, Channel>,
    timeout: Duration,
}

impl Upstreams {
    /// Prepares the connections, which are opened on first use. Every upstream that a catalog names
    /// must be configured, except optional ones.
    pub(crate) fn new(config: &config::Upstreams, catalogs: &Catalogs) -> Result<Self, Error> {
        let mut channels = HashMap::new();
        // The files are read once: connections to upstreams are long-lived, and each new connection
        // verifies the certificate again.
        let tls = config.tls.grpc()?;
        for (name, url) in &config.urls {
            let wrong = || Error::UpstreamUrl { name: name.clone(), url: url.clone() };
            let endpoint = Endpoint::from_shared(url.clone()).map_err(|_| wrong())?;
            if endpoint.uri().host().is_none()
                || !matches!(endpoint.uri().scheme_str(), Some("http" | "https"))
            {
                return Err(wrong());
            }
            let endpoint = match endpoint.uri().scheme_str() {
                Some("https") => endpoint.tls_config(tls.clone()).map_err(|_| wrong())?,
                _ => endpoint,
            };
            let endpoint = endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEPALIVE_INTERVAL);
            channels.insert(name.clone(), endpoint.connect_lazy());
        }
        for method in catalogs.methods() {
            let Method::Client(method) = method else { continue };
            let missing = method.upstream.as_ref().filter(|name| !channels.contains_key(*name));
            if let Some(name) = missing.filter(|_| !method.upstream_optional) {
                return Err(Error::UpstreamMissing { method: method.path.clone(), name: name.clone() });
            }
        }
        Ok(Self { channels, timeout: config.timeout })
    }

    /// Calls a method of an upstream on behalf of a user and returns the response message.
    pub(crate) async fn call(
        &self,
        name: &str,
        path: &str,
        caller: &Caller,
        request: Bytes,
    ) -> Result<Bytes, Refusal> {
        let channel =
            self.channels.get(name).ok_or_else(|| Refusal::UpstreamNotConfigured(name.to_owned()))?;
        let path = PathAndQuery::try_from(path).map_err(|e| Refusal::Invalid(e.to_string()))?;
        let mut request = Request::new(Frame::Whole(request));
        identify(&mut request, caller);
        request.set_timeout(self.timeout);
        let mut client = Grpc::new(channel.clone());
        let answer = async {
            client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            client.unary(request, path, RawCodec).await
        };
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refused(name, &status)),
            Err(_) => Err(self.late(name)),
        }
    }

    fn late(&self, name: &str) -> Refusal {
        tracing::warn!(upstream = name, timeout = ?self.timeout, "an upstream did not answer in time");
        Refusal::UpstreamTimeout { upstream: name.to_owned(), timeout: self.timeout }
    }

    fn refused(&self, name: &str, status: &Status) -> Refusal {
        match status::reason(status.code()) {
            Reason::Timeout => self.late(name),
            // A status with a source was created in this process: the connection failed before an
            // answer arrived.
            reason if reason == Reason::Unavailable || status.source().is_some() => {
                tracing::warn!(upstream = name, %status, "an upstream cannot be reached");
                Refusal::UpstreamUnreachable(name.to_owned())
            }
            reason @ Reason::Internal => {
                // Its text is for operators, not for browsers.
                tracing::warn!(upstream = name, %status, "an upstream failed");
                Refusal::Upstream { reason, message: format!("the upstream {name:?} failed") }
            }
            reason => {
                let text: String = status.message().chars().take(MESSAGE_CHARS_MAX).collect();
                let message = if text.is_empty() { code_text(status.code()) } else { text };
                Refusal::Upstream { reason, message }
            }
        }
    }
}

fn code_text(code: Code) -> String {
    code.description().to_owned()
}

/// Adds the caller's identity: as a complete message, and those fields that are ASCII also as text,
/// for services that need no more.
fn identify(request: &mut Request<Frame>, caller: &Caller) {
    let metadata = request.metadata_mut();
    metadata.insert_bin("fanfare-caller-bin", BinaryMetadataValue::from_bytes(&caller.encode_to_vec()));
    let texts = [
        ("fanfare-tenant", &caller.tenant),
        ("fanfare-user-id", &caller.user_id),
        ("fanfare-session-id", &caller.session_id),
    ];
    for (key, text) in texts {
        if let Ok(value) = AsciiMetadataValue::try_from(text.as_str()) {
            metadata.insert(key, value);
        }
    }
}
