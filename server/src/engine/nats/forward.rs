//! Appends that one server performs for another. When several servers append to one tenant, each
//! write makes the writes of the others fail. So all of them choose the same server, and the others
//! send it their batches.

use std::sync::Arc;

use fanfare_proto::room::Tenant;
use futures_util::StreamExt as _;
use prost::Message;
use tokio::sync::Semaphore;

use super::{frame::FrameEvent, logs::append_here, shared::Shared};
use crate::{
    engine::{Appended, Receipt},
    event::Draft,
};

/// Batches of other servers that are appended concurrently.
const AT_ONCE: usize = 256;

/// A batch for another server to append.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Forward {
    #[prost(string, tag = "1")]
    pub(super) tenant: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) events: Vec<FrameEvent>,
}

/// The outcome of a [`Forward`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct Forwarded {
    #[prost(enumeration = "Outcome", tag = "1")]
    pub(super) outcome: i32,
    /// One answer per event, if the batch was appended.
    #[prost(message, repeated, tag = "2")]
    pub(super) answers: Vec<ForwardedAnswer>,
}

/// The answer for one event.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ForwardedAnswer {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(uint64, tag = "2")]
    pub(super) seq: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) time: Option<prost_types::Timestamp>,
    #[prost(bool, tag = "4")]
    pub(super) is_duplicate: bool,
}

/// Whether a batch was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
pub(super) enum Outcome {
    /// It may have been appended.
    Unknown = 0,
    Appended = 1,
    /// It was certainly not appended; the sender may append it.
    Refused = 2,
}

impl ForwardedAnswer {
    fn of(appended: &Appended) -> Self {
        let (receipt, is_duplicate) = match appended {
            Appended::Event(event) => (super::shared::receipt(event), false),
            Appended::Duplicate(receipt) => (receipt.clone(), true),
        };
        Self::of_receipt(receipt, is_duplicate)
    }

    pub(super) fn of_receipt(receipt: Receipt, is_duplicate: bool) -> Self {
        Self { id: receipt.id, seq: receipt.seq, time: Some(receipt.time), is_duplicate }
    }

    pub(super) fn receipt(self) -> Receipt {
        Receipt { id: self.id, seq: self.seq, time: self.time.unwrap_or_default() }
    }
}

/// Appends batches of other servers until the engine closes.
pub(super) async fn serve(shared: Arc<Shared>, mut requests: async_nats::Subscriber) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let request = tokio::select! {
            request = requests.next() => request,
            () = shared.cancel.cancelled() => return,
        };
        let Some(request) = request else { return };
        let Some(reply) = request.reply else { continue };
        let (shared, slots) = (shared.clone(), slots.clone());
        let Ok(slot) = slots.acquire_owned().await else { return };
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            let answer = answer(&shared, request.payload).await;
            let _ = shared.store.client.publish(reply, answer.encode_to_vec().into()).await;
            drop(slot);
        });
    }
}

async fn answer(shared: &Arc<Shared>, payload: bytes::Bytes) -> Forwarded {
    let without = |outcome: Outcome| Forwarded { outcome: outcome.into(), answers: Vec::new() };
    let Some((tenant, drafts)) = drafts(shared, payload) else { return without(Outcome::Refused) };
    let append = append_here(shared, &tenant, drafts, true);
    match tokio::time::timeout(shared.config.deadline, append).await {
        Ok(Ok(appended)) => {
            let answers = appended.iter().map(ForwardedAnswer::of).collect();
            Forwarded { outcome: Outcome::Appended.into(), answers }
        }
        Ok(Err(_)) | Err(_) => without(Outcome::Unknown),
    }
}

/// The batch to append; `None` if this server cannot read it.
fn drafts(shared: &Shared, payload: bytes::Bytes) -> Option<(Tenant, Vec<Draft>)> {
    let forward = Forward::decode(payload).ok()?;
    let tenant = Tenant::new(&forward.tenant).ok()?;
    let draft = |FrameEvent { event, idempotency_key }: FrameEvent| {
        let draft = event.draft(&tenant, &shared.catalogs).ok()?;
        Some(Draft { idempotency_key, ..draft })
    };
    let drafts = forward.events.into_iter().map(draft).collect::<Option<Vec<_>>>()?;
    Some((tenant, drafts))
}
