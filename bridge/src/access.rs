//! The access log: one line for each session that opens, ends or is refused, and one per call. It
//! never contains a token, nor the contents of an event or a call.

use std::{net::IpAddr, time::Duration};

use fanfare_proto::{
    room::{Tenant, shown},
    v1::{Reason, Transport},
};

use crate::{
    metrics::transport_name,
    refusal::Refusal,
    session::{Ending, Session},
};

/// An address as a field; empty if it is not known.
fn text(address: Option<IpAddr>) -> String {
    address.map(|address| address.to_string()).unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes a line at `info`, or at `debug` for a poll, because each poll is a session of its own.
macro_rules! line {
    ($session:expr, $($fields:tt)*) => {
        if $session.caller.transport() == Transport::Poll {
            tracing::debug!(target: "access", $($fields)*);
        } else {
            tracing::info!(target: "access", $($fields)*);
        }
    };
}

/// A session has opened.
pub(crate) fn opened(session: &Session, is_recovered: bool) {
    line!(
        session,
        tenant = session.tenant.as_str(),
        user.id = session.caller.user_id,
        session.id = session.id(),
        client.address = text(session.address),
        transport = transport_name(session.caller.transport),
        recovered = is_recovered,
        "session opened"
    );
}

/// A session has ended.
pub(crate) fn ended(session: &Session) {
    let reason = || match session.ending() {
        Ending::Closed(reason) => reason.code(),
        Ending::Left => "left".to_owned(),
        Ending::Lost => "lost".to_owned(),
    };
    line!(
        session,
        tenant = session.tenant.as_str(),
        user.id = session.caller.user_id,
        session.id = session.id(),
        client.address = text(session.address),
        reason = reason(),
        duration_ms = millis(session.opened_at.elapsed()),
        "session closed"
    );
}

/// A connection or a session was refused. `user` is the user it belongs to, if known.
pub(crate) fn connect_refused(refusal: &Refusal, address: Option<IpAddr>, user: Option<(&Tenant, &str)>) {
    let (tenant, user_id) = user.map(|(tenant, user_id)| (tenant.as_str(), user_id)).unwrap_or_default();
    macro_rules! refused {
        ($target:literal) => {
            tracing::info!(
                target: $target,
                tenant,
                user.id = user_id,
                client.address = text(address),
                reason = refusal.reason.code(),
                detail = refusal.message,
                "connection refused"
            )
        };
    }
    match refusal.reason {
        // Refusals that concern permissions belong in the audit log.
        Reason::NoToken | Reason::InvalidToken | Reason::TokenExpired | Reason::Forbidden => {
            refused!("audit");
        }
        _ => refused!("access"),
    }
}

/// A call was answered.
pub(crate) fn called(session: &Session, name: &str, took: Duration) {
    tracing::debug!(
        target: "access",
        tenant = session.tenant.as_str(),
        user.id = session.caller.user_id,
        session.id = session.id(),
        call = name,
        duration_ms = millis(took),
        "call answered"
    );
}

/// A call was refused; `name` is absent if the call was refused before its name was read.
pub(crate) fn call_refused(session: &Session, name: Option<&str>, refusal: &Refusal) {
    tracing::info!(
        target: "access",
        tenant = session.tenant.as_str(),
        user.id = session.caller.user_id,
        session.id = session.id(),
        client.address = text(session.address),
        call = name.map(shown),
        reason = refusal.reason.code(),
        detail = refusal.message,
        "call refused"
    );
}
