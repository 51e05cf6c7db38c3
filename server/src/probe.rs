//! The probe behind `/readyz`: an event of its own passes through the engine and must be delivered
//! by the hub.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fanfare_proto::{
    catalog::{Catalogs, EventType},
    room::{Room, Tenant},
};
use tokio::sync::Mutex;

use crate::{
    engine::{Engine, OWN_TENANT},
    event::Draft,
    hub::{Hub, Inbox, Subscription},
    ingest,
};

/// How long the event may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a result is valid. In this time the log gets at most one event, for any number of
/// callers.
const AGE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Probe {
    tenant: Option<Tenant>,
    kind: Option<Arc<EventType>>,
    hub: Arc<Hub>,
    engine: Arc<dyn Engine>,
    /// The last result. Locked during a probe, so that only one probe runs at a time.
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Probe {
    /// The tenant of the probe's events.
    pub(crate) fn tenant() -> Option<Tenant> {
        Tenant::new(OWN_TENANT).ok()
    }

    pub(crate) fn new(
        tenant: Option<Tenant>,
        catalogs: &Catalogs,
        hub: Arc<Hub>,
        engine: Arc<dyn Engine>,
    ) -> Self {
        let kind = catalogs.events().find(|e| !e.ephemeral).cloned();
        Self { tenant, kind, hub, engine, last: Mutex::default() }
    }

    /// Sends an event through the engine and the hub, unless the last result is still valid. The
    /// error says what failed.
    pub(crate) async fn run(&self) -> Result<(), String> {
        let (Some(tenant), Some(kind)) = (&self.tenant, &self.kind) else { return Ok(()) };
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < AGE_MAX
        {
            return answer.clone();
        }
        let delivered = tokio::time::timeout(TIMEOUT, self.deliver(tenant, kind)).await;
        let late = |_| Err(format!("the probe did not arrive within {TIMEOUT:?}"));
        let answer = delivered.unwrap_or_else(late);
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn deliver(&self, tenant: &Tenant, kind: &Arc<EventType>) -> Result<(), String> {
        let inbox = Arc::new(Inbox::default());
        let rooms = vec![Room::org()];
        let open = Subscription::open(&self.hub, tenant, rooms.clone(), None, &inbox, 0);
        let mut subscription = open.await.map_err(|e| e.to_string())?;
        let draft = Draft {
            tenant: tenant.clone(),
            rooms,
            time: ingest::now(),
            sender: "probe".into(),
            kind: kind.clone(),
            payload: Bytes::new(),
            except_sessions: Vec::new(),
            idempotency_key: String::new(),
            id_field: None,
            state: None,
        };
        let sent = self.engine.append(tenant, vec![draft]).await.map_err(|e| e.to_string())?;
        let sent: Vec<String> = sent.iter().map(|sent| sent.receipt().id).collect();
        loop {
            let batch = subscription.next().await.map_err(|e| e.to_string())?;
            if batch.events.iter().any(|event| sent.contains(&event.id)) {
                return Ok(());
            }
            inbox.ready().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Limits, Retention},
        engine::memory::MemoryEngine,
    };

    #[tokio::test]
    async fn however_many_ask_the_log_gets_one_event_and_no_tenant_of_the_limit() {
        let (limits, catalogs) =
            (Limits { tenants_max: 1, ..Limits::default() }, Catalogs::builtin().unwrap());
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new(Retention::default(), limits));
        let hub = Arc::new(Hub::new(limits, engine.clone()));
        engine.head(&Tenant::new("1").unwrap()).await.unwrap();
        let own = Probe::tenant().unwrap();
        let probe = Probe::new(Probe::tenant(), &catalogs, hub, engine.clone());
        for _ in 0..20 {
            probe.run().await.unwrap();
        }
        let events = engine.head(&own).await.unwrap().seq;
        assert!(events <= 2, "{events} events for 20 questions");
        assert!(engine.head(&Tenant::new("2").unwrap()).await.is_err());
    }
}
