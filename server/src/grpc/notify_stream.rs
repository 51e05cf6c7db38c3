//! `fanfare.v1.Realtime/NotifyStream`: many events over one stream, appended in order.
//!
//! All requests that are ready form one batch per tenant and share the cost of writing. While one
//! batch is written, the transport collects the next one.

use std::{collections::VecDeque, sync::Arc};

use fanfare_proto::{
    token::Identity,
    v1::{NotifyRequest, NotifyResponse},
};
use futures_util::{FutureExt as _, stream};
use http::Response;
use prost::Message as _;
use tonic::{Request, Status, Streaming, body::Body};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::{REQUEST_BYTES_MAX, Services};
use crate::{error::Refusal, event::Draft, ingest};

/// Requests per batch.
const BATCH_MAX: usize = 1024;
/// Bytes per batch, unless a single request is larger.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// A producer's stream. The transport pulls it: while a producer does not read its answers, no
/// requests are read from it.
struct Producer {
    services: Arc<Services>,
    identity: Arc<Identity>,
    requests: Streaming<NotifyRequest>,
    /// Checked events that are not appended yet.
    drafts: VecDeque<Draft>,
    /// Answers that are not sent yet.
    answers: VecDeque<NotifyResponse>,
    /// How the stream ends once all accepted requests are answered.
    end: Option<Result<(), Status>>,
}

pub(super) async fn notify_stream(services: Arc<Services>, request: http::Request<Body>) -> Response<Body> {
    let method = service_fn(move |request: Request<Streaming<NotifyRequest>>| {
        let services = services.clone();
        async move {
            let identity = services.identify(&request)?;
            let (drafts, answers) = Default::default();
            let requests = request.into_inner();
            let producer =
                Producer { services: services.clone(), identity, requests, drafts, answers, end: None };
            let responses = stream::unfold(Some(producer), |producer| async { producer?.step().await });
            Ok::<_, Status>(tonic::Response::new(services.watched(responses)))
        }
        .boxed()
    });
    let codec = ProstCodec::<NotifyResponse, NotifyRequest>::default();
    super::grpc(codec, REQUEST_BYTES_MAX).streaming(method, request).await
}

/// Resolves when the token is revoked.
async fn revoked(services: &Services, identity: &Identity) -> Refusal {
    let mut revocations = services.revoked.changes();
    loop {
        if let Err(revoked) = services.revoked.check(identity) {
            return revoked.into();
        }
        // The sender lives as long as the server.
        let _open = revocations.changed().await;
    }
}

impl Producer {
    /// The next answer. Nothing is appended after a refused request.
    async fn step(mut self) -> Option<(Result<NotifyResponse, Status>, Option<Self>)> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Some((Ok(answer), Some(self)));
            }
            if !self.drafts.is_empty() {
                if let Err(refusal) = self.append().await {
                    return Some((Err(refusal.into()), None));
                }
                continue;
            }
            match self.end {
                Some(Ok(())) => return None,
                Some(Err(status)) => return Some((Err(status), None)),
                None => self.take().await,
            }
        }
    }

    /// Appends the first drafts of one tenant. A draft that changes the state is appended alone: if
    /// it is refused, no later event may be in the log.
    async fn append(&mut self) -> Result<(), Refusal> {
        let Some(tenant) = self.drafts.front().map(|draft| draft.tenant.clone()) else { return Ok(()) };
        let plain = self.drafts.iter().take_while(|draft| draft.tenant == tenant && draft.state.is_none());
        let count = plain.count().max(1);
        let batch = self.drafts.drain(..count).collect();
        let answers = self.services.ingest.append(&tenant, batch).await?;
        self.answers.extend(answers.iter().map(ingest::response));
        Ok(())
    }

    /// Waits for a request, then also takes the requests that are ready.
    async fn take(&mut self) {
        let services = self.services.clone();
        let first = tokio::select! {
            biased;
            () = services.closing.cancelled() => Err(Refusal::Shutdown.into()),
            revoked = revoked(&services, &self.identity) => Err(revoked.into()),
            first = self.requests.message() => first,
        };
        let mut bytes = self.check(first);
        while self.end.is_none() && self.drafts.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let Some(next) = self.requests.message().now_or_never() else { return };
            bytes += self.check(next);
        }
    }

    /// Checks a request and returns its size in bytes.
    fn check(&mut self, next: Result<Option<NotifyRequest>, Status>) -> usize {
        let request = match next {
            Ok(Some(request)) => request,
            end => {
                self.end = Some(end.map(drop));
                return 0;
            }
        };
        let bytes = request.encoded_len();
        let admitted = self.services.check_expiry(&self.identity);
        match admitted.and_then(|()| self.services.ingest.check(&self.identity, request)) {
            Ok(draft) => self.drafts.push_back(draft),
            Err(refusal) => self.end = Some(Err(refusal.into())),
        }
        bytes
    }
}
