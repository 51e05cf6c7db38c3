//! The interface through which the link drives the sessions.

use std::{future::Future, sync::Arc};

use fanfare_proto::{
    room::Tenant,
    v1::{BridgeStats, EndSession, Inspect, Inspected, LeaveRooms, LinkWelcome, Revocation, SessionOpened},
};

use crate::{event::Event, refusal::Refusal};

/// The part of the bridge that the link feeds. Only [`Self::settle`] waits.
pub(crate) trait Downstream: Send + Sync {
    /// A server accepted the link: its namespaces and features apply from now on.
    fn welcome(&self, welcome: &LinkWelcome);
    /// Delivers consecutive events of a tenant.
    fn deliver(&self, tenant: &Tenant, events: Vec<Arc<Event>>);
    /// Resolves when most of the delivered events are written or queued.
    fn settle(&self) -> impl Future<Output = ()> + Send;
    /// Ends all sessions of a tenant.
    fn end_all(&self, tenant: &Tenant, why: &Refusal);
    /// Ends one session at the server's request.
    fn end(&self, end: EndSession);
    /// Removes one session from rooms at the server's request.
    fn leave(&self, leave: LeaveRooms);
    /// Stops accepting the revoked tokens, and ends their sessions.
    fn revoke(&self, revocations: &[Revocation]);
    /// Answers a question about a session.
    fn inspect(&self, question: Inspect) -> Inspected;
    /// All ready sessions, by id.
    fn ready_sessions(&self) -> Vec<(String, SessionOpened)>;
    /// Resolves about once a second, with the bridge's counters.
    fn report(&self) -> impl Future<Output = BridgeStats> + Send;
}
