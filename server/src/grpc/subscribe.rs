//! The response stream of every Subscribe method.
//!
//! The transport pulls it: while a client does not read, nothing is read from the log for it, and a
//! waiting client needs no task.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_proto::{
    catalog::SubscribeMethod,
    cursor::Cursor,
    room::{Room, Tenant},
    token::{Identity, Scope, TokenError},
    v1::{self, SubscribeRequest},
};
use futures_util::{FutureExt as _, Stream, stream};
use prost::Message as _;
use tokio::{sync::watch, time::Interval};
use tonic::Status;

use super::{Services, codec::Frame};
use crate::{
    access, auth,
    error::Refusal,
    event::Event,
    hub::{Batch, Inbox, Subscription},
    rules::Removals,
    snapshot::{PageToken, Snapshot},
    stats::Counted,
    subscribers::Place,
};

/// Subscribes to all rooms of the tenant.
const ALL_ROOMS: &str = "*";
/// The longest wait for an expiry. A later expiry is checked again after that.
const EXPIRY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Entries of the state per message.
const ENTRIES_MAX: usize = 128;

/// How events are encoded as response messages.
#[derive(Debug)]
pub(super) enum Form {
    /// `fanfare.v1.SubscribeResponse`.
    Generic,
    /// A catalog's response. Events that are not in its oneof are left out.
    Typed(Arc<SubscribeMethod>),
}

impl Form {
    fn event(&self, event: Arc<Event>) -> Option<Frame> {
        match self {
            Self::Generic => Some(Frame::Generic(event)),
            Self::Typed(method) => {
                let event_field = *method.event_fields.get(&event.draft.kind.full_name)?;
                Some(Frame::Typed { meta_field: method.meta_field, event_field, event })
            }
        }
    }

    /// The messages for a page of the state.
    fn state(&self, page: &Snapshot, rooms: &[Room], first: bool) -> Vec<Frame> {
        if matches!(self, Self::Typed(_)) {
            return page.once(rooms).filter_map(|entry| self.event(entry.event.clone())).collect();
        }
        let entries = page.entries.iter().map(|(room, entry)| entry.message(room)).collect();
        let kind = v1::subscribe_response::Kind::State(v1::StateSnapshot { entries, first });
        vec![Frame::message(&v1::SubscribeResponse { kind: Some(kind) })]
    }

    fn position(&self, cursor: Cursor) -> Frame {
        let cursor = cursor.to_string();
        match self {
            Self::Generic => {
                let kind = Some(v1::subscribe_response::Kind::Position(v1::Position { cursor }));
                Frame::message(&v1::SubscribeResponse { kind })
            }
            Self::Typed(method) => {
                let meta = v1::Event { id: cursor, ..v1::Event::default() }.encode_to_vec();
                let mut bytes = Vec::with_capacity(meta.len() + 8);
                prost::encoding::bytes::encode(method.meta_field, &meta, &mut bytes);
                Frame::Whole(bytes.into())
            }
        }
    }
}

struct Reader {
    services: Arc<Services>,
    counted: Counted,
    subscription: Subscription,
    inbox: Arc<Inbox>,
    form: Form,
    identity: Arc<Identity>,
    place: Place,
    pending: VecDeque<Frame>,
    /// The next page of the state. The events come after the last page.
    state: Option<PageToken>,
    more: bool,
    heartbeat: Interval,
    revocations: watch::Receiver<u64>,
    removals: Removals,
    rooms: Vec<Room>,
    ended: bool,
    since: Instant,
}

impl Drop for Reader {
    fn drop(&mut self) {
        access::unsubscribed(&self.identity, &self.subscription, self.since);
    }
}

/// Opens a subscription, if the identity allows it.
pub(super) async fn open(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: SubscribeRequest,
    form: Form,
) -> Result<impl Stream<Item = Result<Frame, Status>> + Send + 'static + use<>, Refusal> {
    let tenant = auth::tenant(&identity, &request.tenant)?;
    let is_everything = request.rooms == [ALL_ROOMS];
    if is_everything && request.with_state {
        let text = "with_state needs rooms by name: there is no state of all rooms";
        return Err(Refusal::Invalid(text.into()));
    }
    let rooms = if is_everything {
        auth::require(&identity, Scope::Subscribe)?;
        Vec::new()
    } else {
        super::rooms(&request.rooms, super::ROOMS_MAX)?
    };
    // Opened before the rules are checked, so that no removal is missed.
    let removals = services.rules.removals();
    services.rules.check_read(&identity, &rooms)?;
    let after = Cursor::after(&request.after)?;
    let place = services.subscribers.admit(&identity, rooms.len().max(1))?;
    let inbox = Arc::new(Inbox::default());
    let live =
        async |after| Subscription::open(&services.hub, &tenant, rooms.clone(), after, &inbox, 0).await;
    let opened = match after {
        None if request.with_state => None,
        after => match live(after).await {
            Err(Refusal::Reset(_)) if request.with_state => None,
            opened => Some(opened?),
        },
    };
    let (mut pending, mut state) = (VecDeque::new(), None);
    let mut subscription = if let Some(subscription) = opened {
        subscription
    } else {
        let first = PageToken::default();
        let page = state_page(&services, &place, &tenant, &rooms, first, ENTRIES_MAX).await?;
        pending.extend(form.state(&page, &rooms, true));
        state = page.next;
        live(Some(page.cursor)).await?
    };
    if state.is_none() {
        pending.push_back(form.position(subscription.cursor()));
    }
    if is_everything {
        subscription.add_everything();
    }
    let heartbeat = services.heartbeat();
    let counted = services.stats.subscribed();
    let revocations = services.revoked.changes();
    services.revoked.check(&identity)?;
    let reader = Reader {
        services,
        counted,
        subscription,
        inbox,
        form,
        identity,
        place,
        pending,
        state,
        more: false,
        heartbeat,
        revocations,
        removals,
        rooms,
        ended: false,
        since: Instant::now(),
    };
    Ok(stream::unfold(reader, Reader::step))
}

/// Reads a page of a snapshot when it is the caller's turn.
pub(super) async fn state_page(
    services: &Services,
    place: &Place,
    tenant: &Tenant,
    rooms: &[Room],
    token: PageToken,
    entries_max: usize,
) -> Result<Snapshot, Refusal> {
    // A closed semaphore does not stop the read.
    let _turn = place.scan().await;
    Snapshot::read(&*services.engine, tenant, rooms, token, entries_max).await
}

impl Reader {
    async fn step(mut self) -> Option<(Result<Frame, Status>, Self)> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(frame) = self.pending.pop_front() {
                return Some((Ok(frame), self));
            }
            if let Err(refusal) = self.fill().await {
                self.ended = true;
                return Some((Err(refusal.into()), self));
            }
        }
    }

    /// Takes the next page of the state. After the last page, the events begin.
    async fn take_state(&mut self, token: PageToken) -> Result<(), Refusal> {
        self.services.check_expiry(&self.identity)?;
        self.services.revoked.check(&self.identity)?;
        let tenant = self.subscription.tenant();
        let (services, place, rooms) = (&self.services, &self.place, &self.rooms);
        let page = state_page(services, place, tenant, rooms, token, ENTRIES_MAX).await?;
        self.pending.extend(self.form.state(&page, &self.rooms, false));
        self.state = page.next;
        if self.state.is_none() {
            self.pending.push_back(self.form.position(self.subscription.cursor()));
        }
        Ok(())
    }

    /// On shutdown: sends everything that was acknowledged, then ends the stream.
    async fn finish(&mut self) -> Result<(), Refusal> {
        self.services.ingest.finished().await;
        self.services.hub.catch_up().await;
        let batch = self.next().await?;
        if batch.events.is_empty() {
            return Err(Refusal::Shutdown);
        }
        self.more = batch.more;
        self.take(batch.events);
        Ok(())
    }

    /// The next events. A read of the log waits for the caller's turn.
    async fn next(&mut self) -> Result<Batch, Refusal> {
        let turn = if self.subscription.reads_log() { Some(self.place.scan().await) } else { None };
        let batch = self.subscription.next().await;
        drop(turn);
        batch
    }

    fn take(&mut self, events: Vec<Arc<Event>>) {
        let before = self.pending.len();
        self.pending.extend(events.into_iter().filter_map(|event| self.form.event(event)));
        self.counted.sent(self.pending.len() - before);
    }

    /// Waits for something to send.
    async fn fill(&mut self) -> Result<(), Refusal> {
        let mut beat = false;
        let tenant = self.subscription.tenant();
        // Checked here too, before more is read from the log.
        let removed = self.removals.removed(&self.identity, tenant, &self.rooms).now_or_never();
        if let Some(removed) = removed {
            return Err(removed);
        }
        if let Some(token) = self.state.take() {
            return self.take_state(token).await;
        }
        if !self.more {
            let remaining =
                self.services.auth.remaining(&self.identity).unwrap_or(EXPIRY_MAX).min(EXPIRY_MAX);
            tokio::select! {
                biased;
                () = self.services.closing.cancelled() => return self.finish().await,
                () = tokio::time::sleep(remaining) => {
                    let expired = self.services.auth.remaining(&self.identity) == Some(Duration::ZERO);
                    return if expired { Err(TokenError::Expired.into()) } else { Ok(()) };
                }
                _ = self.revocations.changed() => {
                    self.services.revoked.check(&self.identity)?;
                    return Ok(());
                }
                removed = self.removals.removed(&self.identity, self.subscription.tenant(), &self.rooms) => {
                    return Err(removed);
                }
                _ = self.inbox.ready() => {}
                _ = self.heartbeat.tick() => beat = true,
            }
        }
        let batch = self.next().await?;
        self.more = batch.more;
        self.take(batch.events);
        if self.pending.is_empty() && beat {
            self.pending.push_back(self.form.position(batch.cursor));
        }
        Ok(())
    }
}
