//! The idempotency keys of ephemeral events. These are in no log, so their keys have a stream of
//! their own. Whoever claims a key publishes the event, at most once: one that ends in between has
//! lost it.

use fanfare_proto::room::Tenant;
use prost::Message as _;

use super::{forward::ForwardedAnswer, shared::Shared};
use crate::{
    engine::{Receipt, Replaced, Replacement},
    error::Refusal,
};

impl Shared {
    /// Claims a key for an event. If it is taken, gives the first answer to it.
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
        // It has just expired, if it is not there.
        let taken = taken.filter(|entry| !entry.is_removal).ok_or(Refusal::Storage("written"))?;
        let first = ForwardedAnswer::decode(taken.payload).map_err(|_| Refusal::Storage("read"))?;
        Ok(Some(first.receipt()))
    }
}
