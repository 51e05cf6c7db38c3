//! The access log and the audit log. Each refused request, each audited request and each ended
//! stream gets one line; other requests and events are logged only at `debug`. Tokens and event
//! contents are never logged.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use fanfare_proto::{
    room::shown,
    token::{Identity, TenantScope},
    v1::Reason,
};
use http::Uri;
use tonic::Status;

use crate::{engine::Appended, hub::Subscription};

/// Methods that act on other users or show their data. Each call is written to the audit log.
const AUDITED: [&str; 5] = [
    "/fanfare.v1.Realtime/Disconnect",
    "/fanfare.v1.Realtime/RemoveFromRoom",
    "/fanfare.v1.Admin/GetSession",
    "/fanfare.v1.Admin/SignToken",
    "/fanfare.v1.Admin/Tail",
];

/// A request, with the fields that are logged.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Uri,
    pub(crate) address: Option<IpAddr>,
    pub(crate) since: Instant,
}

/// The tenant and user of the caller.
fn who(identity: Option<&Identity>) -> (&str, &str) {
    let tenant = identity.map_or("", |identity| match &identity.tenant {
        TenantScope::One(tenant) => tenant.as_str(),
        TenantScope::Any => "*",
    });
    (tenant, identity.and_then(|identity| identity.user_id.as_deref()).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a refusal is about the caller's permissions.
const fn is_denial(reason: Reason) -> bool {
    matches!(reason, Reason::NoToken | Reason::InvalidToken | Reason::TokenExpired | Reason::Forbidden)
}

/// Writes a line to the audit log if the first argument is true, otherwise to the access log.
macro_rules! line {
    ($audited:expr, $($fields:tt)*) => {
        if $audited {
            tracing::info!(target: "audit", $($fields)*);
        } else {
            tracing::info!(target: "access", $($fields)*);
        }
    };
}

impl Asked {
    fn address(&self) -> String {
        self.address.map(|address| address.to_string()).unwrap_or_default()
    }

    /// Logs that the request was refused.
    pub(crate) fn refused(&self, identity: Option<&Identity>, reason: Reason, status: &Status) {
        let (tenant, user) = who(identity);
        line!(
            is_denial(reason) || AUDITED.contains(&self.method.path()),
            tenant,
            user.id = user,
            client.address = self.address(),
            method = shown(self.method.path()),
            reason = reason.code(),
            detail = status.message(),
            duration_ms = millis(self.since.elapsed()),
            "request refused"
        );
    }

    /// Logs that the request was answered or that its stream begins.
    pub(crate) fn answered(&self, identity: &Identity) {
        let (tenant, user) = who(Some(identity));
        if AUDITED.contains(&self.method.path()) {
            tracing::info!(
                target: "audit",
                tenant,
                user.id = user,
                client.address = self.address(),
                method = self.method.path(),
                duration_ms = millis(self.since.elapsed()),
                "administrator's request answered"
            );
            return;
        }
        tracing::debug!(
            target: "access",
            tenant,
            user.id = user,
            client.address = self.address(),
            method = self.method.path(),
            duration_ms = millis(self.since.elapsed()),
            "request answered"
        );
    }
}

/// Logs that an event was published.
pub(crate) fn published(tenant: &str, appended: &Appended) {
    match appended {
        Appended::Event(event) => tracing::debug!(
            target: "access",
            tenant,
            user.id = event.draft.sender,
            event = event.draft.kind.full_name,
            event.id = event.id,
            "event published"
        ),
        Appended::Duplicate(receipt) => tracing::debug!(
            target: "access",
            tenant,
            event.id = receipt.id,
            "event published before: its idempotency key is known"
        ),
    }
}

/// Logs that a Subscribe stream has ended.
pub(crate) fn unsubscribed(identity: &Identity, subscription: &Subscription, since: Instant) {
    let (_, user) = who(Some(identity));
    tracing::info!(
        target: "access",
        tenant = subscription.tenant().as_str(),
        user.id = user,
        duration_ms = millis(since.elapsed()),
        "subscription ended"
    );
}

/// Logs that a connection was refused because there are too many.
pub(crate) fn connection_refused(address: IpAddr) {
    tracing::info!(
        target: "access",
        reason = Reason::Limit.code(),
        client.address = address.to_string(),
        detail = "there are too many connections",
        "connection refused"
    );
}
