//! Selects the server that appends to a log that several servers use, and forwards batches to it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::{Request, client::RequestErrorKind};
use prost::Message as _;
use tokio::time::Instant;

use super::{
    super::{
        forward::{Forward, Forwarded, Outcome},
        frame::FrameEvent,
        shared::now_millis,
    },
    Log, Waiting,
    append::cost,
};
use crate::{
    engine::{Appended, ServerId, StoredEvent},
    error::Refusal,
    event::{Draft, Event},
};

/// How long after its last frame a server counts as a writer.
const WRITES_FOR: Duration = Duration::from_secs(10);
/// Maximum number of servers to remember.
const WRITERS_MAX: usize = 64;

/// Other servers that append, and the time of their last frame.
#[derive(Debug, Default)]
pub(super) struct Writers(HashMap<ServerId, Instant>);

impl Writers {
    /// Notes that a server has written a frame.
    pub(super) fn note(&mut self, server: &str) {
        if self.0.len() >= WRITERS_MAX {
            self.0.clear();
        }
        self.0.insert(server.into(), Instant::now());
    }

    fn forget(&mut self, server: &ServerId) {
        self.0.remove(server);
    }

    /// The server that should append for all, if it is not this one. All servers choose the same.
    fn owner(&mut self, own: &ServerId, tenant: &str) -> Option<ServerId> {
        self.0.retain(|_, at| at.elapsed() < WRITES_FOR);
        let weight = |server: &ServerId| {
            let mut hash = crc32fast::Hasher::new();
            hash.update(tenant.as_bytes());
            hash.update(server.as_str().as_bytes());
            (hash.finalize(), server.clone())
        };
        let other = self.0.keys().max_by_key(|server| weight(server))?;
        (weight(other) > weight(own)).then(|| other.clone())
    }
}

impl Log {
    /// Sends waiting batches to the server that appends for all. Returns them if they must be
    /// appended here.
    pub(super) async fn forward(&mut self, waiting: Vec<Waiting>) -> Option<Vec<Waiting>> {
        if !self.is_contended || waiting.iter().any(|one| one.is_forwarded) {
            return Some(waiting);
        }
        let owner = self.writers.owner(&self.shared.server, self.tenant.as_str());
        let Some(owner) = owner else { return Some(waiting) };
        let millis = now_millis();
        // A conflict with the state must refuse one batch, not all that are sent together.
        if waiting.iter().flat_map(|one| &one.drafts).any(|draft| draft.state.is_some()) {
            return Some(waiting);
        }
        let drafts = || waiting.iter().flat_map(|one| &one.drafts);
        if drafts().all(|draft| draft.kind.ephemeral) {
            return Some(waiting);
        }
        let event = |draft: &Draft| FrameEvent {
            event: StoredEvent::of(draft, millis, cost(draft)),
            idempotency_key: draft.idempotency_key.clone(),
        };
        let events: Vec<_> = drafts().map(event).collect();
        let (tenant, count) = (self.tenant.as_str().to_owned(), events.len());
        let payload = Forward { tenant, events }.encode_to_vec();
        let request =
            Request::new().payload(payload.into()).timeout(Some(self.shared.config.request_timeout));
        let subject = self.shared.store.names.forwards(&owner);
        let forwarded = match self.shared.store.client.send_request(subject, request).await {
            Ok(answer) => Forwarded::decode(answer.payload).unwrap_or_default(),
            // The server has gone and did not receive the request.
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                Forwarded { outcome: Outcome::Refused.into(), answers: Vec::new() }
            }
            Err(_) => Forwarded::default(),
        };
        match forwarded.outcome() {
            Outcome::Appended if forwarded.answers.len() == count => {
                let last = forwarded.answers.iter().filter(|answer| !answer.is_duplicate);
                if let Some(seq) = last.map(|answer| answer.seq).max() {
                    self.reach(seq).await;
                }
                answer_forwarded(waiting, forwarded);
                None
            }
            Outcome::Refused => {
                self.writers.forget(&owner);
                Some(waiting)
            }
            Outcome::Appended | Outcome::Unknown => {
                self.writers.forget(&owner);
                super::append::refuse(waiting, || Refusal::Storage("written"));
                None
            }
        }
    }
}

/// Answers the callers. Followers get the events like those of any other server.
fn answer_forwarded(waiting: Vec<Waiting>, forwarded: Forwarded) {
    let mut answers = forwarded.answers.into_iter();
    for Waiting { drafts, answer, .. } in waiting {
        let mut appended = Vec::with_capacity(drafts.len());
        for (draft, one) in drafts.into_iter().zip(&mut answers) {
            appended.push(match one.id.parse() {
                _ if one.is_duplicate => Appended::Duplicate(one.receipt()),
                Ok(cursor) => Appended::Event(Arc::new(Event::stored(cursor, draft))),
                Err(_) => Appended::Event(Arc::new(Event::new(one.id, 0, 0, draft))),
            });
        }
        let _ = answer.send(Ok(appended));
    }
}
