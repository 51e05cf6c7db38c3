//! A tenant's log as this server uses it: one task per tenant that appends events and feeds the
//! tenant's followers. It applies frames strictly in order, no matter which server wrote them. When
//! it cannot determine the next frame, it asks the leader.

mod append;
mod catch_up;
mod held;
mod owner;
mod state;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_nats::{Message, Subscriber};
use fanfare_proto::{cursor::Cursor, room::Tenant};
use futures_util::{FutureExt as _, StreamExt as _};
use prost::Message as _;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};

pub(super) use self::append::{FRAME_BYTES_MAX, cost};
use self::{append::Attempt, held::Held, owner::Writers};
use super::{
    frame::{Frame, Head, Passing, PassingEvent},
    keys::Keys,
    names::LogName,
    shared::{Attempts, Shared},
    store::Entry,
};
use crate::{
    engine::{Appended, Feed, FeedSender, entries::StateIndex, feed},
    error::Refusal,
    event::{Draft, Event},
};

/// How long a task without followers lives after the last append.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// When the end of the log is compared with the leader's: soon after subscribing, because the
/// subscription may not have reached every server yet; and later, when nothing arrives.
const CHECK_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Announced frames that wait while the task asks the leader. The task still knows their tags then.
const ANNOUNCED_MAX: usize = TAGS_MAX / 2;
/// How long a task waits for the announcement of events that another server appended for it.
const ANNOUNCED_AFTER: Duration = Duration::from_millis(50);
/// Tags of own and applied frames whose announcements may still arrive.
const TAGS_MAX: usize = 64;

/// A request to a task.
#[derive(Debug)]
pub(super) enum Command {
    Append(Waiting),
    Follow(oneshot::Sender<Followed>),
}

/// The cursor at which a feed begins, and the feed.
pub(super) type Followed = Result<(Cursor, Feed<Arc<Event>>), Refusal>;

/// Drafts that wait to be appended.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) drafts: Vec<Draft>,
    pub(super) answer: oneshot::Sender<Result<Vec<Appended>, Refusal>>,
    /// Their share of the engine's queue.
    pub(super) _share: Option<OwnedSemaphorePermit>,
    pub(super) bytes: usize,
    /// Whether another server sent them.
    pub(super) is_forwarded: bool,
}

/// The task of one tenant.
#[derive(Debug)]
pub(super) struct Log {
    shared: Arc<Shared>,
    tenant: Tenant,
    name: LogName,
    commands: mpsc::Receiver<Command>,
    /// The command that did not fit into the previous frame.
    next: Option<Command>,
    /// The end of the log, if known.
    head: Option<Head>,
    /// False once something has made the known end doubtful.
    is_sure: bool,
    /// When the log last confirmed its end.
    contact_at: Instant,
    keys: Keys,
    /// The state at the known end of the log, once loaded.
    state: Option<StateIndex<()>>,
    /// The frame that is being written.
    attempt: Option<Attempt>,
    followers: Vec<FeedSender<Arc<Event>>>,
    watch: Option<Subscriber>,
    /// Whether other servers append to this log as well.
    is_contended: bool,
    writers: Writers,
    recent_tags: VecDeque<u64>,
    /// Ephemeral events to send to other servers.
    passing: Vec<PassingEvent>,
    /// Ephemeral events of other servers whose frame has not arrived yet.
    held: Held,
    /// Announced frames that have arrived and were not processed yet.
    announced: VecDeque<Message>,
    used_at: Instant,
    check_after: Duration,
    check_at: Instant,
}

/// The next step of the task.
enum Next {
    Command(Option<Command>),
    Message(Option<Message>),
    Check,
    Loss,
    End,
}

impl Log {
    pub(super) fn new(shared: Arc<Shared>, tenant: Tenant, commands: mpsc::Receiver<Command>) -> Self {
        let name = shared.store.names.log(&tenant);
        let now = Instant::now();
        Self {
            shared,
            tenant,
            name,
            commands,
            next: None,
            head: None,
            is_sure: false,
            contact_at: now,
            keys: Keys::default(),
            state: None,
            attempt: None,
            followers: Vec::new(),
            watch: None,
            is_contended: false,
            writers: Writers::default(),
            recent_tags: VecDeque::new(),
            passing: Vec::new(),
            held: Held::default(),
            announced: VecDeque::new(),
            used_at: now,
            check_after: CHECK_AFTER.1,
            check_at: now + CHECK_AFTER.1,
        }
    }

    /// Runs until it is idle or the engine closes; waiting commands are served first.
    pub(super) async fn run(mut self) {
        let mut losses = self.shared.losses.clone();
        losses.mark_unchanged();
        let cancel = self.shared.cancel.clone();
        loop {
            let next = if let Some(command) = self.next.take() {
                Next::Command(Some(command))
            } else {
                tokio::select! {
                    biased;
                    command = self.commands.recv() => Next::Command(command),
                    message = receive(&mut self.announced, &mut self.watch) => Next::Message(message),
                    changed = losses.changed() => if changed.is_ok() { Next::Loss } else { Next::End },
                    () = tokio::time::sleep_until(self.check_at) => Next::Check,
                    () = cancel.cancelled() => Next::End,
                }
            };
            match next {
                Next::Command(Some(command)) => self.serve(command).await,
                Next::Message(Some(message)) => self.take(message).await,
                Next::Message(None) => {
                    self.watch = None;
                    self.is_sure = false;
                    self.check_soon();
                }
                Next::Loss => {
                    self.is_sure = false;
                    self.check_soon();
                }
                Next::Check => {
                    if self.check().await {
                        self.commands.close();
                    }
                }
                Next::End => self.commands.close(),
                Next::Command(None) => return,
            }
        }
    }

    async fn serve(&mut self, command: Command) {
        self.used_at = Instant::now();
        match command {
            Command::Append(waiting) => {
                self.append(waiting).await;
                self.publish_rest().await;
            }
            Command::Follow(answer) => {
                let followed = self.follow().await;
                let _ = answer.send(followed);
            }
        }
    }

    async fn follow(&mut self) -> Followed {
        let mut attempts = Attempts::within(self.shared.config.deadline);
        self.subscribe().await;
        let head = self.end(&mut attempts, "read").await?;
        let (sender, feed) = feed();
        self.followers.push(sender);
        Ok((head.cursor, feed))
    }

    /// The end of the log; asks the leader unless the known end is certain.
    async fn end(&mut self, attempts: &mut Attempts, what: &'static str) -> Result<Head, Refusal> {
        loop {
            match self.head {
                Some(head) if self.is_sure => return Ok(head),
                _ => self.catch_up(attempts, what).await?,
            }
        }
    }

    /// Subscribes to the announcements of frames, unless already subscribed.
    async fn subscribe(&mut self) {
        if self.watch.is_some() {
            return;
        }
        match self.shared.store.client.subscribe(self.name.feed.clone()).await {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => tracing::warn!(subject = self.name.feed, %error, "cannot subscribe"),
        }
        self.is_sure = false;
        self.check_soon();
    }

    fn check_soon(&mut self) {
        self.check_after = CHECK_AFTER.0;
        self.check_at = self.check_at.min(Instant::now() + CHECK_AFTER.0);
    }

    /// Compares the end of the log with the leader's; true if the task is no longer needed.
    async fn check(&mut self) -> bool {
        self.followers.retain(|follower| !follower.is_closed());
        if self.followers.is_empty() && !self.is_contended {
            self.watch = None;
        }
        if self.followers.is_empty() {
            self.check_at = Instant::now() + CHECK_AFTER.1;
            return self.used_at.elapsed() >= IDLE_MAX;
        }
        self.subscribe().await;
        self.is_sure = false;
        let mut attempts = Attempts::within(self.shared.config.request_timeout);
        if self.end(&mut attempts, "read").await.is_ok() {
            self.check_after = (self.check_after * 2).min(CHECK_AFTER.1);
        }
        self.check_at = Instant::now() + self.check_after.mul_f64(rand::random_range(0.8..1.2));
        false
    }

    /// Processes an announcement: a frame, or ephemeral events of another server.
    async fn take(&mut self, message: Message) {
        if message.headers.is_none() {
            return self.take_ephemeral(message.payload);
        }
        let Some(Entry { place, payload, .. }) = Entry::of_message(message) else { return };
        match Frame::read(payload) {
            Ok(frame) => self.take_frame(frame, place).await,
            Err(error) => tracing::error!(subject = self.name.feed, %error, "an announced frame"),
        }
    }

    async fn take_frame(&mut self, frame: Frame, place: u64) {
        if self.recent_tags.contains(&frame.tag) {
            return;
        }
        self.check_at = Instant::now() + self.check_after;
        let Some(head) = self.head.filter(|_| self.is_sure) else {
            self.is_sure = false;
            return self.recover().await;
        };
        if frame.follows(head.cursor) && place > head.place {
            self.apply(&frame, place);
        } else {
            self.is_sure = false;
            self.recover().await;
        }
    }

    /// Processes announcements until an event of the log is known here, so that followers also see
    /// later appends after it.
    async fn reach(&mut self, seq: u64) {
        let until = Instant::now() + ANNOUNCED_AFTER;
        let is_behind = |log: &Self| log.head.is_none_or(|head| head.cursor.seq < seq);
        while is_behind(self) {
            let message = receive(&mut self.announced, &mut self.watch);
            let Ok(Some(message)) = tokio::time::timeout_at(until, message).await else { break };
            self.take(message).await;
        }
        if is_behind(self) {
            self.is_sure = false;
            self.recover().await;
        }
    }

    /// Reads missed frames from the leader.
    async fn recover(&mut self) {
        let mut attempts = Attempts::within(self.shared.config.request_timeout);
        if self.end(&mut attempts, "read").await.is_err() {
            self.check_soon();
        }
    }

    /// Forwards ephemeral events of another server to followers.
    fn pass_on(&mut self, passing: Passing) {
        if passing.server == self.shared.server.as_str() || self.followers.is_empty() {
            return;
        }
        let is_known = |seq| self.head.is_some_and(|head| head.cursor.seq >= seq);
        let is_due = if passing.frame == 0 {
            passing.seq == 0 || is_known(passing.seq)
        } else {
            self.recent_tags.contains(&passing.frame)
        };
        if is_due {
            passing.events.into_iter().for_each(|event| self.send_passing(event));
        } else {
            self.held.insert(passing);
        }
    }

    fn send_passing(&mut self, event: PassingEvent) {
        match event.event.draft(&self.tenant, &self.shared.catalogs) {
            Ok(draft) => self.send(&Arc::new(Event::new(event.id, 0, 0, draft))),
            Err(problem) => tracing::debug!(?problem, "an ephemeral event is left out"),
        }
    }

    /// Takes the ephemeral events that have been announced so far. Announced frames after `place`
    /// stay in the queue; earlier ones will be read from the log.
    fn take_passing(&mut self, place: u64) {
        let is_later =
            |message: &Message| Entry::of_message(message.clone()).is_some_and(|e| e.place > place);
        self.announced.retain(is_later);
        while self.announced.len() < ANNOUNCED_MAX
            && let Some(message) = ready(&mut VecDeque::new(), &mut self.watch)
        {
            if message.headers.is_none() {
                self.take_ephemeral(message.payload);
            } else if is_later(&message) {
                self.announced.push_back(message);
            }
        }
    }

    fn take_ephemeral(&mut self, payload: bytes::Bytes) {
        match Passing::decode(payload) {
            Ok(passing) => self.pass_on(passing),
            Err(error) => tracing::debug!(subject = self.name.feed, %error, "an announcement"),
        }
    }

    fn send(&mut self, event: &Arc<Event>) {
        let bytes = event.cost_bytes();
        self.followers.retain(|follower| follower.send(event.clone(), bytes));
    }

    /// Moves the end of the log past a frame.
    fn advance(&mut self, frame: &Frame, place: u64) {
        if !frame.server.is_empty() && frame.server != self.shared.server.as_str() {
            self.writers.note(&frame.server);
        }
        self.head = Some(self.shared.note(&self.tenant, frame, place));
        self.contact_at = Instant::now();
        if self.recent_tags.len() >= TAGS_MAX {
            self.recent_tags.pop_front();
        }
        self.recent_tags.push_back(frame.tag);
    }
}

/// The next message; pending forever if there is no subscription.
async fn receive(announced: &mut VecDeque<Message>, watch: &mut Option<Subscriber>) -> Option<Message> {
    if let Some(message) = announced.pop_front() {
        return Some(message);
    }
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// A message that has arrived. Also checks if the task has used up its scheduling budget.
fn ready(announced: &mut VecDeque<Message>, watch: &mut Option<Subscriber>) -> Option<Message> {
    tokio::task::unconstrained(receive(announced, watch)).now_or_never().flatten()
}
