//! The probe behind `/readyz`: an event of its own goes through the engine and must come out of the hub.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_proto::{
    catalog::{Catalogs, EventType},
    room::{Room, Tenant},
};
use tokio::sync::Mutex;

use crate::{
    engine::Engine,
    event::Draft,
    hub::{Hub, Inbox, Subscription},
    ingest,
};

/// How long the event may take.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Probe {
    /// A tenant that no token can name, because nobody knows it.
    tenant: Option<Tenant>,
    kind: Option<Arc<EventType>>,
    hub: Arc<Hub>,
    engine: Arc<dyn Engine>,
    /// One probe at a time, however many ask.
    turn: Mutex<()>,
}

impl Probe {
    /// A tenant for a probe.
    pub(crate) fn tenant() -> Option<Tenant> {
        Tenant::new(&format!("probe-{:032x}", rand::random::<u128>())).ok()
    }

    pub(crate) fn new(
        tenant: Option<Tenant>,
        catalogs: &Catalogs,
        hub: Arc<Hub>,
        engine: Arc<dyn Engine>,
    ) -> Self {
        let kind = catalogs.events().find(|e| !e.ephemeral).cloned();
        Self { tenant, kind, hub, engine, turn: Mutex::new(()) }
    }

    /// Sends one event through; the error says what did not work.
    pub(crate) async fn run(&self) -> Result<(), String> {
        let (Some(tenant), Some(kind)) = (&self.tenant, &self.kind) else { return Ok(()) };
        let _turn = self.turn.lock().await;
        let delivered = tokio::time::timeout(TIMEOUT, self.deliver(tenant, kind)).await;
        delivered.map_err(|_| format!("the probe did not arrive within {TIMEOUT:?}"))?
    }

    async fn deliver(&self, tenant: &Tenant, kind: &Arc<EventType>) -> Result<(), String> {
        let inbox = Arc::new(Inbox::default());
        let rooms = vec![Room::org()];
        let engine = self.engine.clone();
        let mut subscription = Subscription::open(&self.hub, engine, tenant, rooms.clone(), None, &inbox, 0)
            .await
            .map_err(|e| e.to_string())?;
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
            sequence: None,
        };
        let sent = self.engine.append(draft).await.map_err(|e| e.to_string())?;
        loop {
            let batch = subscription.next().await.map_err(|e| e.to_string())?;
            if batch.events.iter().any(|e| e.id == sent.id) {
                return Ok(());
            }
            inbox.ready().await;
        }
    }
}
