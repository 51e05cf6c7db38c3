//! The idempotency keys of ephemeral events. These events are in no log, so their keys have a
//! stream of their own. The server that claims a key publishes the event, at most once: if the
//! server ends in between, the event is lost.

use fanfare_proto::room::Tenant;
use prost::Message as _;

use super::{forward::ForwardedAnswer, shared::Shared};
use crate::{
    engine::{Receipt, Replaced, Replacement},
    error::Refusal,
};

impl Shared {
    /// Claims a key for an event. If the key is taken, returns the first answer for it.
    pub(super) async fn claim(
        &self,
        tenant: &Tenant,
        key: &str,
        receipt: &Receipt,
    ) -> Result<Option<Receipt>, Refusal> {
        let (stream, subject) = (self.store.names.keys_stream(), self.store.names.key(tenant, key));
        let value = ForwardedAnswer::of_receipt(receipt.clone(), false).encode_to_vec();
        let claim = Replacement {
            value: Some(value.into()),
            expected: 0,
            ttl: Some(self.limits.idempotency_age_max),
        };
        if let Replaced::Revision(_) = self.replace_at(&stream, subject.clone(), claim).await? {
            return Ok(None);
        }
        let taken = self.store.last(&stream, &subject).await.map_err(|error| error.refusal("read"))?;
        // A taken key without an entry has just expired.
        let taken = taken.filter(|entry| !entry.is_removal).ok_or(Refusal::Storage("written"))?;
        let first = ForwardedAnswer::decode(taken.payload).map_err(|_| Refusal::Storage("read"))?;
        Ok(Some(first.receipt()))
    }
}
