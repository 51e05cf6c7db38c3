//! Stored events for operators: newest first, one part of the log per call.

use std::sync::Arc;

use fanfare_proto::{
    token::{Identity, Scope},
    v1::{ListEventsRequest, ListEventsResponse},
};

use super::{
    super::Services,
    streams::{along, wanted},
};
use crate::{auth, error::Refusal, history::PageLimits, interest::Interest, page_size::page_size};

/// Events per answer.
const LISTED_DEFAULT: usize = 50;
const LISTED_MAX: usize = 200;
/// Bytes of events per answer, unless a single event is larger.
const LISTED_BYTES_MAX: usize = 1 << 20;
/// Events that one call searches.
const SCAN_MAX: usize = 1000;

pub(in crate::grpc) async fn list_events(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: ListEventsRequest,
) -> Result<ListEventsResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let tenant = auth::tenant(&identity, &request.tenant)?;
    let limit = page_size("limit", request.limit.into(), LISTED_DEFAULT, LISTED_MAX)?;
    let wanted = wanted(&services, Some(tenant.clone()), request.rooms, request.names)?;
    let head = services.engine.head(&tenant).await?.seq;
    let until = if request.until == 0 { head } else { request.until.min(head) };
    let limits = PageLimits { events_max: limit, bytes_max: LISTED_BYTES_MAX, scan_max: SCAN_MAX };
    let (history, everything) = (&services.history, Interest::everything());
    let page = history.read(&tenant, &everything, until, limits, |event| wanted.wants(event)).await?;
    let events = page.events.iter().map(|event| along(event)).collect();
    Ok(ListEventsResponse { events, next: page.next })
}
