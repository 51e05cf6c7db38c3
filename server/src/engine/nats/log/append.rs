//! How drafts get their places: all waiting drafts become one frame, which is written only if the
//! log still ends where this server expects. So two servers never assign the same place, and a
//! frame whose answer was lost is not written again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;

use super::{
    super::{
        frame::{Frame, FrameEvent, Head, Passing, PassingEvent, tag},
        shared::{Attempts, now_millis, receipt},
        store::{Extras, StoreError},
    },
    Command, Log, Waiting,
};
use crate::{
    engine::{Appended, Receipt, StoredEvent},
    error::Refusal,
    event::{Draft, Event, ephemeral_id},
};

/// Maximum size of a frame that combines batches; a single batch may be larger.
pub(in super::super) const FRAME_BYTES_MAX: usize = 256 << 10;
/// Maximum number of events in a frame that combines batches.
const FRAME_EVENTS_MAX: usize = 512;
/// If the last contact is older than this, an append first asks for the end of the log again. The
/// stream may have been restored from a copy meanwhile, whose places continue with the same
/// numbers.
const CONTACT_MAX: Duration = Duration::from_secs(1);
/// Idempotency keys of ephemeral events that are claimed concurrently.
const CLAIMS_AT_ONCE: usize = 32;
/// How long ephemeral events wait for space in the queue of the connection.
const PASSING_TIMEOUT: Duration = Duration::from_millis(20);

/// A frame that is being written, and the callers that wait for it.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) waiting: Vec<Waiting>,
    /// The batches that are refused if the frame is committed, by their index. A conflict may be
    /// with an earlier batch of the frame, so nothing is refused before.
    pub(super) refusals: BTreeMap<usize, Refusal>,
    /// One slot per draft of the other batches, in order.
    slots: Vec<Slot>,
    /// Has no events if there is nothing to write.
    frame: Frame,
    encoded: Bytes,
    /// The ephemeral events between the events of the frame, until they are published.
    passing: Vec<PassingEvent>,
    /// The ids of ephemeral events whose idempotency keys this attempt has claimed, by key.
    claimed: HashMap<String, String>,
    /// The end of the log when the frame was created.
    after: Option<Head>,
}

/// The result for a draft.
#[derive(Debug)]
enum Slot {
    /// The next event of the frame.
    Stored,
    /// Not logged; has this id.
    Ephemeral(String),
    /// Its key belongs to an event that was answered before.
    Known(Receipt),
    /// Its key belongs to an earlier draft of the frame.
    Repeated(usize),
}

impl Waiting {
    /// Whether the caller still waits.
    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }
}

impl Attempt {
    pub(super) fn tag(&self) -> u64 {
        self.frame.tag
    }
}

impl Log {
    /// Appends a batch, together with other waiting batches.
    pub(super) async fn append(&mut self, first: Waiting) {
        // Lets writers that were just answered run first, so that their next events share this
        // frame.
        tokio::task::yield_now().await;
        let mut waiting = self.collect(first);
        // Ephemeral events that a writer published earlier come before its current append.
        self.take_announced().await;
        waiting.retain(Waiting::is_wanted);
        if waiting.is_empty() {
            return;
        }
        let mut attempts = Attempts::within(self.shared.config.deadline);
        let Some(waiting) = self.forward(waiting).await else { return };
        if let Err(refusal) = self.prepare(waiting, &mut attempts).await {
            return self.fail_with(refusal);
        }
        while let Some(attempt) = &mut self.attempt {
            let expected = attempt.after.map_or(0, |head| head.place);
            if attempt.frame.events.is_empty() {
                return self.commit(expected);
            }
            let (subject, encoded, tag) = (self.name.subject.clone(), attempt.encoded.clone(), attempt.tag());
            // Published before the frame, so that other servers have them when the frame arrives.
            // They deliver them only then.
            let passing = std::mem::take(&mut attempt.passing);
            self.publish_passing(tag, passing).await;
            match self.shared.store.publish(subject, encoded, expected, Extras::default()).await {
                Ok(place) => return self.commit(place),
                Err(error) if error.is_passing() => {
                    self.is_sure = false;
                    let is_over = attempts.is_over();
                    self.is_contended |= error == StoreError::Conflict;
                    if is_over || (error != StoreError::Conflict && !attempts.pause().await) {
                        tracing::debug!(tenant = %self.tenant, %error, "a frame cannot be written");
                        return self.fail_with(error.refusal("written"));
                    }
                    if let Err(refusal) = self.retry(&mut attempts).await {
                        return self.fail_with(refusal);
                    }
                }
                Err(error) => {
                    self.is_sure = false;
                    tracing::warn!(tenant = %self.tenant, %error, "a frame is refused");
                    return self.fail_with(error.refusal("written"));
                }
            }
        }
    }

    /// Takes more waiting batches, as long as they fit into one frame.
    fn collect(&mut self, first: Waiting) -> Vec<Waiting> {
        let (mut bytes, mut events) = (first.bytes, first.drafts.len());
        let mut waiting = vec![first];
        while self.next.is_none()
            && let Ok(command) = self.commands.try_recv()
        {
            match command {
                Command::Append(more)
                    if bytes + more.bytes <= FRAME_BYTES_MAX
                        && events + more.drafts.len() <= FRAME_EVENTS_MAX =>
                {
                    bytes += more.bytes;
                    events += more.drafts.len();
                    waiting.push(more);
                }
                other => self.next = Some(other),
            }
        }
        waiting
    }

    /// Processes what other servers have announced so far.
    async fn take_announced(&mut self) {
        while let Some(message) = super::ready(&mut self.announced, &mut self.watch) {
            self.take(message).await;
        }
    }

    /// Builds the frame for waiting batches, at the end of the log.
    async fn prepare(&mut self, waiting: Vec<Waiting>, attempts: &mut Attempts) -> Result<(), Refusal> {
        let claimed = self.claim_keys(&waiting).await;
        self.attempt = Some(Attempt {
            waiting,
            refusals: BTreeMap::new(),
            slots: Vec::new(),
            frame: Frame::default(),
            encoded: Bytes::new(),
            passing: Vec::new(),
            claimed: HashMap::new(),
            after: None,
        });
        if let Some(attempt) = &mut self.attempt {
            attempt.claimed = claimed?;
        }
        if self.contact_at.elapsed() > CONTACT_MAX {
            self.is_sure = false;
        }
        self.rebase(attempts).await
    }

    /// Claims the idempotency keys of ephemeral events, which are in no log. Returns the ids of
    /// events whose keys were free; for taken keys, the first answers are added to the known keys.
    async fn claim_keys(&mut self, waiting: &[Waiting]) -> Result<HashMap<String, String>, Refusal> {
        use futures_util::{StreamExt as _, TryStreamExt as _};
        let drafts = waiting.iter().flat_map(|waiting| &waiting.drafts).filter(|draft| {
            let key = draft.idempotency_key.as_str();
            draft.kind.ephemeral && !key.is_empty() && self.keys.get(key).is_none()
        });
        let mut free: HashMap<&str, Receipt> = HashMap::new();
        for draft in drafts {
            let receipt = || Receipt { id: ephemeral_id(), seq: 0, time: draft.time };
            free.entry(&draft.idempotency_key).or_insert_with(receipt);
        }
        let claim = async |(key, receipt): (&str, Receipt)| {
            let first = self.shared.claim(&self.tenant, key, &receipt).await?;
            Ok::<_, Refusal>((key.to_owned(), receipt, first))
        };
        let claims = free.into_iter().map(claim).collect::<Vec<_>>();
        let claims: Vec<_> =
            futures_util::stream::iter(claims).buffered(CLAIMS_AT_ONCE).try_collect().await?;
        let mut claimed = HashMap::new();
        for (key, receipt, first) in claims {
            match first {
                Some(first) => self.keys.insert(now_millis(), &key, &first),
                None => _ = claimed.insert(key, receipt.id),
            }
        }
        Ok(claimed)
    }

    /// Finds out whether the frame is in the log. If not, it is built again if the log has grown,
    /// or else written again unchanged.
    async fn retry(&mut self, attempts: &mut Attempts) -> Result<(), Refusal> {
        if self.is_contended {
            self.subscribe().await;
        }
        let head = self.end(attempts, "written").await?;
        match &self.attempt {
            Some(attempt) if attempt.after != Some(head) => self.rebase(attempts).await,
            _ => Ok(()),
        }
    }

    async fn rebase(&mut self, attempts: &mut Attempts) -> Result<(), Refusal> {
        let head = self.end(attempts, "written").await?;
        let is_keyed = |draft: &Draft| !draft.idempotency_key.is_empty();
        let waiting = self.attempt.iter().flat_map(|attempt| &attempt.waiting);
        let mut drafts = waiting.flat_map(|waiting| &waiting.drafts);
        if !self.keys.is_complete && drafts.any(is_keyed) {
            self.load_keys(attempts).await?;
        }
        let head = self.judge_state(head, attempts).await?;
        let millis = now_millis();
        self.keys.trim(millis, &self.shared.limits);
        let Some(attempt) = &mut self.attempt else { return Ok(()) };
        let (mut events, mut passing, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bytes, mut state) = (head.bytes, head.state);
        let mut repeated = HashMap::new();
        let stays = |(place, _): &(usize, &Waiting)| !attempt.refusals.contains_key(place);
        let waiting = attempt.waiting.iter().enumerate().filter(stays);
        for draft in waiting.flat_map(|(_, waiting)| &waiting.drafts) {
            let key = draft.idempotency_key.as_str();
            if let Some(receipt) = self.keys.get(key) {
                slots.push(Slot::Known(receipt.clone()));
            } else if let Some(index) = repeated.get(key) {
                slots.push(Slot::Repeated(*index));
            } else {
                if !key.is_empty() {
                    repeated.insert(key, slots.len());
                }
                if draft.kind.ephemeral {
                    let id = attempt.claimed.get(key).cloned().unwrap_or_else(ephemeral_id);
                    let (event, after) = (StoredEvent::of(draft, millis, 0), index(events.len()));
                    passing.push(PassingEvent { id: id.clone(), event, after });
                    slots.push(Slot::Ephemeral(id));
                    continue;
                }
                slots.push(Slot::Stored);
                let cost = cost(draft);
                bytes += cost as u64;
                if draft.state.is_some() {
                    state = head.cursor.seq + 1 + events.len() as u64;
                }
                let event = StoredEvent::of(draft, millis, cost);
                events.push(FrameEvent { event, idempotency_key: key.to_owned() });
            }
        }
        let (epoch, first) = (head.cursor.epoch.number(), head.cursor.seq + 1);
        let (previous, server) = (head.cursor.tag, self.shared.server.as_str().to_owned());
        attempt.frame = Frame { epoch, first, tag: tag(), previous, millis, bytes, events, server, state };
        attempt.encoded = attempt.frame.encode_to_vec().into();
        attempt.passing = passing;
        attempt.slots = slots;
        attempt.after = Some(head);
        Ok(())
    }

    /// Handles a frame that is in the log at this place: hands its events to followers and answers
    /// the callers.
    pub(super) fn commit(&mut self, place: u64) {
        let Some(attempt) = self.attempt.take() else { return };
        let Attempt { waiting, mut refusals, slots, frame, passing, .. } = attempt;
        // Ephemeral events without a frame are published after local followers have them.
        self.passing.extend(passing);
        if !frame.events.is_empty() {
            self.advance(&frame, place);
            for (seq, entry) in (frame.first..).zip(&frame.events) {
                self.change_state(seq, &entry.event);
            }
        }
        let (mut seq, mut slots) = (frame.first, slots.into_iter());
        let mut receipts = Vec::with_capacity(slots.len());
        for (place, Waiting { drafts, answer, .. }) in waiting.into_iter().enumerate() {
            if let Some(refusal) = refusals.remove(&place) {
                let _ = answer.send(Err(refusal));
                continue;
            }
            let mut answers = Vec::with_capacity(drafts.len());
            for (draft, slot) in drafts.into_iter().zip(&mut slots) {
                let appended = match slot {
                    Slot::Stored => {
                        let event = Arc::new(Event::stored(frame.cursor(seq), draft));
                        seq += 1;
                        Appended::Event(event)
                    }
                    Slot::Ephemeral(id) => Appended::Event(Arc::new(Event::new(id, 0, 0, draft))),
                    Slot::Known(receipt) => Appended::Duplicate(receipt),
                    Slot::Repeated(index) => match receipts.get(index) {
                        Some(receipt) => Appended::Duplicate(Receipt::clone(receipt)),
                        None => continue,
                    },
                };
                match &appended {
                    Appended::Event(event) => {
                        let receipt = receipt(event);
                        self.keys.insert(frame.millis, &event.draft.idempotency_key, &receipt);
                        receipts.push(receipt);
                        self.send(event);
                    }
                    Appended::Duplicate(receipt) => receipts.push(receipt.clone()),
                }
                answers.push(appended);
            }
            let _ = answer.send(Ok(answers));
        }
    }

    /// Sends other servers the ephemeral events that belong to no frame.
    pub(super) async fn publish_rest(&mut self) {
        let passing = std::mem::take(&mut self.passing);
        self.publish_passing(0, passing).await;
    }

    /// Sends other servers ephemeral events, at most once.
    async fn publish_passing(&self, frame: u64, events: Vec<PassingEvent>) {
        if events.is_empty() {
            return;
        }
        let server = self.shared.server.as_str().to_owned();
        let seq = self.head.map_or(0, |head| head.cursor.seq);
        let passing = Passing { server, events, frame, seq };
        let (client, subject) = (&self.shared.store.client, self.name.feed.clone());
        let publish = client.publish(subject, passing.encode_to_vec().into());
        // While the connection is down, its queue fills up and the events are lost.
        if !matches!(tokio::time::timeout(PASSING_TIMEOUT, publish).await, Ok(Ok(()))) {
            tracing::debug!(tenant = %self.tenant, "ephemeral events are lost");
        }
    }

    /// Refuses waiting batches.
    pub(super) fn fail(&mut self, refusal: impl Fn() -> Refusal) {
        refuse(self.attempt.take().map(|attempt| attempt.waiting).unwrap_or_default(), refusal);
    }

    fn fail_with(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::TooManyTenants(max) => self.fail(|| Refusal::TooManyTenants(max)),
            Refusal::NewerCatalog(name) => self.fail(|| Refusal::NewerCatalog(name.clone())),
            Refusal::StoreFull => self.fail(|| Refusal::StoreFull),
            Refusal::Invalid(text) => self.fail(|| Refusal::Invalid(text.clone())),
            _ => self.fail(|| Refusal::Storage("written")),
        }
    }
}

/// Refuses these batches.
pub(super) fn refuse(waiting: Vec<Waiting>, refusal: impl Fn() -> Refusal) {
    for waiting in waiting {
        let _ = waiting.answer.send(Err(refusal()));
    }
}

fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// What a draft costs in the log, in bytes.
pub(in super::super) fn cost(draft: &Draft) -> usize {
    let rooms: usize = draft.rooms.iter().map(|room| room.as_str().len() + 2).sum();
    let except: usize = draft.except_sessions.iter().map(|session| session.len() + 2).sum();
    let names = draft.kind.full_name.len() + draft.sender.len() + draft.idempotency_key.len();
    64 + draft.payload.len() + rooms + except + names
}
