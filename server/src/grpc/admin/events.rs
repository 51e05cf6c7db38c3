//! Stored events, for operators: the newest first, a part of the log at a time.

use std::{collections::VecDeque, sync::Arc};

use fanfare_proto::{
    room::Tenant,
    token::{Identity, Scope},
    v1::{ListEventsRequest, ListEventsResponse},
};

use super::{
    super::Services,
    streams::{along, wanted},
};
use crate::{auth, engine::ReadLimits, error::Refusal, event::Event, hub::Wanted, interest::Interest};

/// Events in one answer.
const LISTED_DEFAULT: usize = 50;
const LISTED_MAX: usize = 200;
/// Bytes of events in one answer, unless a single one is larger.
const LISTED_BYTES_MAX: usize = 1 << 20;
/// Events that one call looks at.
const SCAN_MAX: usize = 1000;

pub(in crate::grpc) async fn list_events(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: ListEventsRequest,
) -> Result<ListEventsResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let tenant = auth::tenant(&identity, &request.tenant)?;
    let limit = match usize::try_from(request.limit).unwrap_or(usize::MAX) {
        0 => LISTED_DEFAULT,
        limit @ 1..=LISTED_MAX => limit,
        limit => return Err(Refusal::Invalid(format!("limit is {limit}: want 1 to {LISTED_MAX}"))),
    };
    let wanted = wanted(&services, Some(tenant.clone()), request.rooms, request.names)?;
    let head = services.engine.head(&tenant).await?.seq;
    let until = if request.until == 0 { head } else { request.until.min(head) };
    let mut found = Found { wanted, limit, events: VecDeque::new(), bytes: 0, next: 0 };
    scan(&services, &tenant, until, &mut found).await?;
    let events = found.events.iter().rev().map(|event| along(event)).collect();
    Ok(ListEventsResponse { events, next: found.next })
}

/// The newest events that are wanted.
struct Found {
    wanted: Wanted,
    limit: usize,
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The newest seq that older events have.
    next: u64,
}

impl Found {
    fn take(&mut self, event: Arc<Event>) {
        if !self.wanted.wants(&event) {
            return;
        }
        self.bytes += event.cost_bytes();
        self.events.push_back(event);
        while self.events.len() > self.limit || (self.bytes > LISTED_BYTES_MAX && self.events.len() > 1) {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes = self.bytes.saturating_sub(oldest.cost_bytes());
                self.next = oldest.seq;
            }
        }
    }
}

/// Looks at the part of the log that ends with a seq.
async fn scan(services: &Services, tenant: &Tenant, until: u64, found: &mut Found) -> Result<(), Refusal> {
    let from = until.saturating_sub(SCAN_MAX as u64);
    let mut cursor = services.engine.cursor_at(tenant, from).await?;
    // What is before the oldest event cannot be read.
    found.next = if cursor.seq == from { from } else { 0 };
    let everything = Interest::everything();
    while cursor.seq < until {
        let limits = ReadLimits { events_max: SCAN_MAX, scan_max: SCAN_MAX };
        let page = services.engine.read(tenant, &everything, cursor, limits).await?;
        page.events.into_iter().filter(|event| event.seq <= until).for_each(|event| found.take(event));
        if page.cursor == cursor || !page.more {
            break;
        }
        cursor = page.cursor;
    }
    Ok(())
}
