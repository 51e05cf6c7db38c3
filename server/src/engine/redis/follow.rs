//! Following a tenant's log: one actor per followed tenant.
//!
//! The actor subscribes, reads up to the end of the log, and then accepts frames that continue its
//! position. If a frame does not fit, it reads the log.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fanfare_proto::{cursor::Cursor, room::Tenant};
use tokio::{sync::oneshot, time::Instant};

use super::{
    super::{Feed, FeedSender, feed},
    Shared,
    fault::Fault,
    frame::{Frame, Head},
    log::Part,
};
use crate::{error::Refusal, event::Event};

/// How long the channel may be silent before the position is compared with the log's end: messages
/// can be lost without any sign.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long a frame waits for its predecessors. Answers to this server's appends and messages about
/// other servers' appends arrive on different connections.
const DISORDER_MAX: Duration = Duration::from_millis(20);
/// Maximum number of frames that wait for their predecessors.
const AHEAD_MAX: usize = 1024;
/// Number of recent frames that are recognised when they arrive again.
const RECENT_MAX: usize = 1024;
/// Number of events per read.
const READ_MAX: usize = 4096;
/// How often the expiry of a followed log without events is extended.
const KEEP_INTERVAL: Duration = Duration::from_secs(3600);
/// The pause after a failed read of the log.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The followed tenants.
#[derive(Debug, Default)]
pub(super) struct Followers(Mutex<HashMap<Tenant, FeedSender<Command>>>);

/// A message from this process to an actor.
#[derive(Debug)]
pub(super) enum Command {
    /// A new follower.
    Join(oneshot::Sender<(Cursor, Feed<Arc<Event>>)>),
    /// This server has appended a frame.
    Own(Head, Vec<Arc<Event>>),
    /// A frame may have been appended; its outcome is unknown.
    Check,
}

/// The events of a frame that was not accepted yet.
#[derive(Debug)]
enum Content {
    Body(Bytes),
    Events(Vec<Arc<Event>>),
}

/// The actor.
struct Follower {
    shared: Arc<Shared>,
    tenant: Tenant,
    position: Cursor,
    /// The tags of accepted frames, newest last.
    recent: VecDeque<u64>,
    /// Frames that wait for their predecessors, by first seq and order of arrival.
    ahead: BTreeMap<(u64, u64), (Head, Content)>,
    arrivals: u64,
    feeds: Vec<FeedSender<Arc<Event>>>,
    must_check: bool,
    /// When the expiry of the log was last extended.
    kept_at: Option<Instant>,
}

/// The history has changed or cannot be read: followers start again.
struct Ended;

impl Followers {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Tenant, FeedSender<Command>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command to the tenant's actor, if there is one.
    pub(super) fn command(&self, tenant: &Tenant, command: Command) {
        let bytes = match &command {
            Command::Own(_, events) => events.iter().map(|event| event.cost_bytes()).sum(),
            Command::Join(_) | Command::Check => 0,
        };
        if let Some(actor) = self.lock().get(tenant) {
            // An actor that has lost its queue notices this, and its followers start again.
            let _lost = actor.send(command, bytes);
        }
    }
}

impl Shared {
    pub(super) async fn follow(
        self: &Arc<Self>,
        tenant: &Tenant,
    ) -> Result<(Cursor, Feed<Arc<Event>>), Refusal> {
        let deadline = Instant::now() + self.call_timeout;
        while !self.tasks.is_closed() {
            let (sender, joined) = oneshot::channel();
            self.join(tenant, sender);
            match tokio::time::timeout_at(deadline, joined).await {
                Ok(Ok(joined)) => return Ok(joined),
                // The actor ended meanwhile.
                Ok(Err(_)) if Instant::now() < deadline => {}
                _ => return Err(Refusal::Storage("read")),
            }
        }
        Err(Refusal::Shutdown)
    }

    fn join(self: &Arc<Self>, tenant: &Tenant, sender: oneshot::Sender<(Cursor, Feed<Arc<Event>>)>) {
        let mut actors = self.followers.lock();
        if let Some(actor) = actors.get(tenant).filter(|actor| !actor.is_closed()) {
            let _lost = actor.send(Command::Join(sender), 0);
            return;
        }
        let (actor, commands) = feed();
        let _lost = actor.send(Command::Join(sender), 0);
        actors.insert(tenant.clone(), actor);
        drop(actors);
        let (shared, tenant, stop) = (self.clone(), tenant.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = Follower::run(shared, tenant, commands) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

impl Follower {
    async fn run(shared: Arc<Shared>, tenant: Tenant, mut commands: Feed<Command>) {
        let channel = shared.keys.log(&tenant).channel;
        let mut follower: Option<Self> = None;
        loop {
            // The subscription has its own deadline, and so do the waiting joins.
            let Ok(messages) = shared.nodes.subscribe(&channel).await else {
                if follower.as_mut().is_none_or(|follower| follower.is_unused()) {
                    break;
                }
                continue;
            };
            let follower = match &mut follower {
                Some(follower) => {
                    follower.must_check = true;
                    follower
                }
                None => match shared.head(&tenant).await {
                    Ok(position) => follower.insert(Self::new(shared.clone(), tenant.clone(), position)),
                    Err(_) => break,
                },
            };
            match follower.run_subscribed(messages, &mut commands).await {
                Ok(()) => {}
                Err(Ended) => break,
            }
        }
        // Waiting joins are dropped with the queue, and retried.
        let _sender = shared.followers.lock().remove(&tenant);
    }

    fn new(shared: Arc<Shared>, tenant: Tenant, position: Cursor) -> Self {
        let (recent, ahead, feeds) = Default::default();
        Self { shared, tenant, position, recent, ahead, arrivals: 0, feeds, must_check: false, kept_at: None }
    }

    fn is_unused(&mut self) -> bool {
        self.feeds.retain(|feed| !feed.is_closed());
        self.feeds.is_empty()
    }

    /// Follows until the subscription ends.
    async fn run_subscribed(
        &mut self,
        mut messages: Feed<Bytes>,
        commands: &mut Feed<Command>,
    ) -> Result<(), Ended> {
        let mut checked_at = Instant::now();
        loop {
            if self.must_check {
                self.catch_up().await?;
                checked_at = Instant::now();
            }
            let wait = match (self.must_check, self.ahead.is_empty()) {
                (true, _) => RETRY_PAUSE,
                (false, false) => DISORDER_MAX,
                (false, true) => SILENCE_MAX,
            };
            tokio::select! {
                arrived = messages.next() => {
                    let Some(arrived) = arrived else { return Ok(()) };
                    for message in arrived {
                        self.message(&message)?;
                    }
                }
                told = commands.next() => {
                    // The queue was lost, and frames with it.
                    let Some(told) = told else { return Err(Ended) };
                    for command in told {
                        self.command(command)?;
                    }
                }
                () = tokio::time::sleep_until(checked_at + wait) => self.must_check = true,
            }
            // A steady stream of frames may hide an earlier gap.
            if self.ahead.is_empty() && !self.must_check {
                checked_at = Instant::now();
            }
            if self.is_unused() {
                return Err(Ended);
            }
        }
    }

    fn command(&mut self, command: Command) -> Result<(), Ended> {
        match command {
            Command::Join(joined) => {
                let (sender, feed) = feed();
                if joined.send((self.position, feed)).is_ok() {
                    self.feeds.push(sender);
                }
            }
            Command::Own(head, events) => self.take(head, Content::Events(events))?,
            Command::Check => self.must_check = true,
        }
        Ok(())
    }

    fn message(&mut self, message: &Bytes) -> Result<(), Ended> {
        let Some((Frame { head, body }, server)) = Frame::announced(message) else {
            tracing::error!(tenant = self.tenant.as_str(), "an announcement that is none");
            return Ok(());
        };
        let is_own = server == self.shared.server.as_str();
        // The answer to the append will deliver the frame without another read.
        if is_own && (head.count == 0 || self.shared.appends.is_in_flight(head.tag)) {
            return Ok(());
        }
        self.take(head, Content::Body(body))
    }

    /// Accepts a frame if it continues the position.
    fn take(&mut self, head: Head, content: Content) -> Result<(), Ended> {
        let next = self.position.seq + 1;
        if head.epoch != self.position.epoch {
            self.must_check = true;
        } else if head.first > next {
            self.wait(head, content);
        } else if head.first == next && head.previous == self.position.tag {
            self.deliver(head, content)?;
            self.take_ahead()?;
        } else if head.first == next || !self.recent.iter().rev().any(|tag| *tag == head.tag) {
            // Ephemeral events that arrive too late are lost; anything else may mean a changed
            // history.
            self.must_check |= head.count > 0 || head.first == next;
        }
        Ok(())
    }

    fn wait(&mut self, head: Head, content: Content) {
        if self.ahead.len() >= AHEAD_MAX {
            self.must_check = true;
            return;
        }
        self.arrivals += 1;
        // Ephemeral events come before the stored events that follow the same position.
        let order = if head.count == 0 { self.arrivals } else { u64::MAX };
        self.ahead.insert((head.first, order), (head, content));
    }

    /// Accepts waiting frames that fit now.
    fn take_ahead(&mut self) -> Result<(), Ended> {
        while let Some(entry) = self.ahead.first_entry() {
            let (head, content) = match entry.get() {
                (head, _) if head.first > self.position.seq + 1 => break,
                _ => entry.remove(),
            };
            if head.first == self.position.seq + 1
                && head.previous == self.position.tag
                && head.epoch == self.position.epoch
            {
                self.deliver(head, content)?;
            } else if head.first == self.position.seq + 1 {
                self.must_check = true;
            }
        }
        Ok(())
    }

    fn deliver(&mut self, head: Head, content: Content) -> Result<(), Ended> {
        let events = match content {
            Content::Events(events) => events,
            Content::Body(body) => {
                let events = Frame { head, body }.events(&self.tenant, &self.shared.catalogs);
                events.map_err(|fault| self.unreadable(&fault))?
            }
        };
        let after = self.position.seq;
        for event in events.iter().filter(|event| event.is_ephemeral() || event.seq > after) {
            let bytes = event.cost_bytes();
            self.feeds.retain(|feed| feed.send(event.clone(), bytes));
        }
        if head.count > 0 {
            self.position = head.end();
            self.recent.push_back(head.tag);
            if self.recent.len() > RECENT_MAX {
                self.recent.pop_front();
            }
        }
        Ok(())
    }

    fn unreadable(&self, fault: &Fault) -> Ended {
        tracing::error!(tenant = self.tenant.as_str(), %fault, "the log cannot be followed");
        Ended
    }

    /// Reads up to the end of the log.
    async fn catch_up(&mut self) -> Result<(), Ended> {
        loop {
            match self.shared.read_frames(&self.tenant, self.position, READ_MAX).await {
                Ok(Part::Frames { frames, head }) => {
                    for frame in frames {
                        self.deliver(frame.head, Content::Body(frame.body))?;
                    }
                    if self.position.seq >= head.seq {
                        break;
                    }
                }
                Ok(Part::Reset(_)) => return Err(Ended),
                Err(fault) if fault.is_transient() => {
                    tracing::warn!(tenant = self.tenant.as_str(), %fault, "the log cannot be read");
                    return Ok(());
                }
                Err(fault) => return Err(self.unreadable(&fault)),
            }
        }
        self.must_check = false;
        if self.kept_at.is_none_or(|at| at.elapsed() >= KEEP_INTERVAL) {
            self.kept_at = Some(Instant::now());
            // If this fails, it is retried long before the log expires.
            let kept = self.shared.keep(&self.tenant);
            let _kept = tokio::time::timeout(RETRY_PAUSE, kept).await;
        }
        self.take_ahead()?;
        // The remaining frames arrived before the log was read, and the log does not have them:
        // they were lost.
        self.ahead.clear();
        Ok(())
    }
}
