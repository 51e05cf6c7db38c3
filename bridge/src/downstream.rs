//! What the link drives: whoever has the sessions.

use std::{future::Future, sync::Arc};

use fanfare_proto::{
    room::Tenant,
    v1::{BridgeStats, EndSession, Inspect, Inspected, LeaveRooms, LinkWelcome, Revocation, SessionOpened},
};

use crate::{event::Event, refusal::Refusal};

/// The side of the bridge that the link feeds. Nothing here waits but [`Self::settle`].
pub(crate) trait Downstream: Send + Sync {
    /// A server answered: its namespaces and features count from now on.
    fn welcome(&self, welcome: &LinkWelcome);
    /// Delivers consecutive events of a tenant.
    fn deliver(&self, tenant: &Tenant, events: Vec<Arc<Event>>);
    /// Resolves when most of what was delivered has been written or queued.
    fn settle(&self) -> impl Future<Output = ()> + Send;
    /// Ends all sessions of a tenant.
    fn end_all(&self, tenant: &Tenant, why: &Refusal);
    /// Ends one session, as the server asks.
    fn end(&self, end: EndSession);
    /// Takes one session out of rooms, as the server asks.
    fn leave(&self, leave: LeaveRooms);
    /// Accepts tokens no more, and ends their sessions.
    fn revoke(&self, revocations: &[Revocation]);
    /// Answers a question about a session.
    fn inspect(&self, question: Inspect) -> Inspected;
    /// All sessions that are ready, by id.
    fn ready_sessions(&self) -> Vec<(String, SessionOpened)>;
    /// Resolves about once a second, with the bridge's counters.
    fn report(&self) -> impl Future<Output = BridgeStats> + Send;
}
