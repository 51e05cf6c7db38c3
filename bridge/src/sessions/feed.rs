//! How the link drives the sessions.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    sync::PoisonError,
    sync::atomic::Ordering,
    time::Duration,
};

use fanfare_proto::{
    room::{Room, Tenant},
    token::TokenError,
    v1::{
        BridgeStats, EndSession, Inspect, Inspected, LeaveRooms, LinkWelcome, Revocation, SessionOpened,
        TransportSessions,
    },
};

use super::{MAIN_NAMESPACE, Sessions, opened};
use crate::{downstream::Downstream, event::Event, refusal::Refusal, session::Namespace, stats::Census};

/// How often the bridge reports its counters to the server.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Number of sessions that are counted before other tasks may run.
const SESSIONS_AT_ONCE: usize = 1024;

impl Downstream for Sessions {
    fn welcome(&self, welcome: &LinkWelcome) {
        self.can_recover.store(welcome.recovers, Ordering::Relaxed);
        let namespace = |name: &str, catalogs: Option<Vec<String>>| {
            (name.to_owned(), Arc::new(Namespace { name: name.into(), catalogs }))
        };
        let mut known: std::collections::HashMap<_, _> =
            welcome.namespaces.iter().map(|one| namespace(&one.name, Some(one.catalogs.clone()))).collect();
        if known.is_empty() {
            known.extend([namespace(MAIN_NAMESPACE, None)]);
        }
        *self.namespaces.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    fn deliver(&self, tenant: &Tenant, events: Vec<Arc<Event>>) {
        self.rooms.deliver(tenant, events, &self.stats);
    }

    fn settle(&self) -> impl Future<Output = ()> + Send {
        self.rooms.settle()
    }

    fn end_all(&self, tenant: &Tenant, why: &Refusal) {
        self.rooms.sessions(Some(tenant)).iter().for_each(|session| session.close(why));
    }

    fn end(&self, end: EndSession) {
        let tenant = Tenant::new(&end.tenant).ok();
        let session = tenant.and_then(|tenant| self.rooms.find(&tenant, &end.session_id));
        if let Some(session) = session {
            session.close(&Refusal::new(end.reason(), end.message));
        }
    }

    fn leave(&self, leave: LeaveRooms) {
        let tenant = Tenant::new(&leave.tenant).ok();
        let session = tenant.and_then(|tenant| self.rooms.find(&tenant, &leave.session_id));
        let Some(session) = session else { return };
        let rooms: Vec<Room> = leave.rooms.iter().filter_map(|room| Room::new(room).ok()).collect();
        let left = self.rooms.leave(&session, &rooms);
        self.link.release(&session.tenant, &left);
        // Rooms that the session was not in are reported too, because the server waits for them.
        session.note_report(self.link.moved(session.id(), &[], &rooms, ""));
    }

    fn revoke(&self, revocations: &[Revocation]) {
        {
            let mut known = self.revocations.write().unwrap_or_else(PoisonError::into_inner);
            revocations.iter().for_each(|revocation| known.add(revocation));
        }
        let why = Refusal::from(TokenError::Revoked);
        let tenants: BTreeSet<&str> = revocations.iter().map(|one| one.tenant.as_str()).collect();
        for tenant in tenants {
            let tenant = Tenant::new(tenant).ok();
            let sessions = self.rooms.sessions(tenant.as_ref());
            sessions.iter().filter(|one| self.is_revoked(one)).for_each(|session| session.close(&why));
        }
    }

    fn inspect(&self, question: Inspect) -> Inspected {
        let tenant = Tenant::new(&question.tenant).ok();
        let session = tenant.and_then(|tenant| self.rooms.find(&tenant, &question.session_id));
        Inspected {
            r#ref: question.r#ref,
            connection: session.as_ref().map(|session| session.connection()),
            claims_json: session.map(|session| session.caller.claims_json.clone()).unwrap_or_default(),
        }
    }

    fn ready_sessions(&self) -> Vec<(String, SessionOpened)> {
        let sessions = self.rooms.sessions(None);
        sessions
            .iter()
            .map(|session| (session.id().to_owned(), opened(session, true, &session.rooms())))
            .collect()
    }

    async fn report(&self) -> BridgeStats {
        tokio::time::sleep_until(self.stats.due().into()).await;
        self.stats.next_report(self.census().await, REPORT_INTERVAL)
    }
}

impl Sessions {
    /// Counts the sessions.
    pub(crate) async fn census(&self) -> Census {
        let (mut sessions, mut queued_bytes) = (BTreeMap::new(), 0);
        let (mut fullest_bytes, mut waiting) = (0, 0);
        let mut tenants: BTreeMap<Tenant, u64> = BTreeMap::new();
        for members in self.rooms.everybody(None) {
            if let Some(first) = members.first().filter(|_| self.config.metrics_tenants > 0) {
                *tenants.entry(first.tenant.clone()).or_default() += members.len() as u64;
            }
            for some in members.chunks(SESSIONS_AT_ONCE) {
                for session in some {
                    *sessions.entry(session.caller.transport).or_default() += 1;
                    let bytes = session.outbox.queued_bytes() as u64;
                    queued_bytes += bytes;
                    fullest_bytes = bytes.max(fullest_bytes);
                    waiting += u64::from(bytes > 0);
                }
                tokio::task::yield_now().await;
            }
        }
        let by_transport = sessions.into_iter();
        let sessions =
            by_transport.map(|(transport, count)| TransportSessions { transport, count }).collect();
        Census { sessions, queued_bytes, fullest_bytes, waiting, tenants }
    }
}
