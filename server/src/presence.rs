//! Presence: which sessions and users are there, told by the bridges, and what the catalogs' events say about it.
//!
//! The [`Roster`] knows who is where; this module gives it a clock, publishes what it notices, in order, and reaches the
//! sessions' bridges. Knows no protocol.

mod lost;
mod overview;
mod roster;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fanfare_proto::{
    catalog::{Catalogs, DEFAULT_NAMESPACE, EventType, Member, Namespace, Stamp},
    cursor::Cursor,
    room::{Room, Tenant, shown},
    v1::{self, Caller, Delivery, EndSession, Reason, SessionPresence, Transport, UserPresence},
};
use futures_util::future::join_all;
use prost::Message as _;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    config::PresenceConfig,
    engine::{OldEngine, OldRecord},
    error::{Error, Refusal},
    event::{Sequence, browser_forms, ephemeral_id},
    ingest::{self, Ingest, Made},
};
use lost::{Bounds, Lost};
use roster::{Known, Now, Roster, Told, Transition};

/// Users that a query lists at most.
const MEMBERS_MAX: usize = 1000;
/// What has happened and is not published yet; links that bring more wait.
const TRANSITIONS_MAX: usize = 8192;
/// Events that are published together.
const ROUND_MAX: usize = 256;
/// The pause before the engine is asked again for what it could not write.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// All sessions, and who wants to know about them.
#[derive(Debug)]
pub(crate) struct Presence {
    roster: Mutex<Roster>,
    links: Mutex<HashMap<u64, Arc<Link>>>,
    next_link: AtomicU64,
    /// There is something to publish, or an end to wait for.
    changed: Notify,
    /// Something was published.
    published: Notify,
    /// How often bridges have reported changes, and up to which of these times everything is kept.
    reports: AtomicU64,
    kept: watch::Sender<u64>,
    /// The engine cannot write at the moment.
    failing: AtomicBool,
    announced: Vec<Arc<EventType>>,
    namespaces: Vec<Namespace>,
    sessions_per_user_max: usize,
}

/// A bridge's link, as far as its sessions are concerned.
#[derive(Debug, Default)]
pub(crate) struct Link {
    number: u64,
    /// The bridge's name, and what tells its process from others.
    bridge: Mutex<(Arc<str>, Arc<str>)>,
    /// Bounded by the number of its sessions.
    ends: Mutex<HashMap<String, EndSession>>,
    notify: Notify,
}

/// A session that can go on.
#[derive(Debug)]
pub(crate) struct Recoverable {
    pub(crate) session_id: String,
    pub(crate) rooms: Vec<Room>,
    /// What its client has missed is later than this.
    pub(crate) after: Cursor,
}

/// Whose sessions to end.
#[derive(Debug)]
pub(crate) enum Whom {
    User(Room),
    Session(String),
    Everybody,
}

fn session_presence(id: &str, known: &Known, links: &HashMap<u64, Arc<Link>>) -> SessionPresence {
    let bridge = links.get(&known.link).map(|link| link.bridge().0.to_string());
    let mut rooms: Vec<String> = known.rooms.keys().map(|r| r.as_str().to_owned()).collect();
    rooms.sort_unstable();
    SessionPresence {
        session_id: id.to_owned(),
        transport: known.transport.into(),
        connected_at: Some(known.since),
        bridge: bridge.unwrap_or_default(),
        rooms,
    }
}

fn now() -> Now {
    Now { instant: Instant::now(), time: ingest::now() }
}

impl Presence {
    pub(crate) fn new(catalogs: &Catalogs, config: &PresenceConfig) -> Result<Self, Error> {
        if let Some(unknown) = config.catalogs.iter().find(|name| !catalogs.packages().contains(name)) {
            return Err(Error::PresenceCatalog {
                name: unknown.clone(),
                loaded: catalogs.packages().join(", "),
            });
        }
        let chosen = |e: &&Arc<EventType>| config.catalogs.is_empty() || config.catalogs.contains(&e.package);
        let mut announced: Vec<_> =
            catalogs.events().filter(|e| e.announcement.is_some()).filter(chosen).cloned().collect();
        announced.sort_by(|a, b| a.full_name.cmp(&b.full_name));
        let bounds = Bounds {
            window: config.recovery_window,
            sessions_max: config.recoverable_max,
            per_tenant_max: config.recoverable_per_tenant_max,
            per_user_max: config.recoverable_per_user_max,
        };
        Ok(Self {
            roster: Mutex::new(Roster::new(config.grace, Lost::new(bounds))),
            links: Mutex::default(),
            next_link: AtomicU64::new(1),
            changed: Notify::new(),
            published: Notify::new(),
            reports: AtomicU64::new(0),
            kept: watch::Sender::new(0),
            failing: AtomicBool::new(false),
            announced,
            namespaces: catalogs.namespaces().to_vec(),
            sessions_per_user_max: config.sessions_per_user_max,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<u64, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether lost sessions can be recovered.
    pub(crate) fn recovers(&self) -> bool {
        self.lock().recovers()
    }

    /// A bridge links.
    pub(crate) fn link(&self) -> Arc<Link> {
        let number = self.next_link.fetch_add(1, Ordering::Relaxed);
        let link = Arc::new(Link { number, ..Link::default() });
        self.links().insert(number, link.clone());
        link
    }

    /// A link is lost: its sessions are gone, unless another one opens them again.
    pub(crate) fn unlink(&self, link: &Link) {
        self.links().remove(&link.number);
        self.lock().unlink(link.number, now());
        self.changed.notify_one();
    }

    /// Resolves when there is room for more changes. While the engine refuses, the oldest make room: a link must not wait for a disk.
    pub(crate) async fn caught_up(&self) {
        loop {
            let published = self.published.notified();
            {
                let mut roster = self.lock();
                let waiting = roster.transitions();
                if waiting.len() < TRANSITIONS_MAX {
                    return;
                }
                if self.failing.load(Ordering::Acquire) {
                    waiting.drain(..TRANSITIONS_MAX / 2);
                    tracing::error!("the log has been refusing for too long: some presence events are lost");
                    return;
                }
            }
            published.await;
        }
    }

    /// A session is about to be ready. It counts, but nobody is told yet. Another bridge that still has it lets go of it.
    /// `head` is the end of its tenant's log.
    pub(crate) fn open(&self, link: &Link, caller: &Caller, pid: &str, head: &str) -> Result<(), Refusal> {
        let (tenant, own) = (Tenant::new(&caller.tenant)?, Room::user(&caller.user_id)?);
        if self.namespace(&caller.namespace).is_none() {
            return Err(Refusal::Namespace(shown(&caller.namespace)));
        }
        let mut roster = self.lock();
        own_id(&roster, caller)?;
        let known = roster.session(&caller.session_id).is_some();
        if !known && roster.count(&tenant, &own).1 >= self.sessions_per_user_max {
            return Err(Refusal::TooManySessions(self.sessions_per_user_max));
        }
        if let Some(holder) = self.holder(&roster, &caller.session_id, &link.bridge().1) {
            holder.end(goes_on_elsewhere(caller));
        }
        let told = Told { caller, tenant, pid, link: link.number, head: head.into() };
        roster.open(told, &[Room::org(), own], now());
        Ok(())
    }

    /// A session is ready, in these rooms, which are told. When another bridge has it, its client has gone there while this
    /// one could not say so, e.g. because it was cut off: then this one lets go of it.
    pub(crate) fn ready(
        &self,
        link: &Link,
        caller: &Caller,
        pid: &str,
        head: &str,
        rooms: &[Room],
    ) -> Result<(), Refusal> {
        let (tenant, now) = (Tenant::new(&caller.tenant)?, now());
        let mut roster = self.lock();
        own_id(&roster, caller)?;
        if self.holder(&roster, &caller.session_id, &link.bridge().1).is_some() {
            link.end(goes_on_elsewhere(caller));
            return Ok(());
        }
        let told = Told { caller, tenant, pid, link: link.number, head: head.into() };
        roster.ready(told, rooms, now);
        let ending = roster.take_ending(&caller.session_id);
        drop(roster);
        if let Some(end) = ending {
            link.end(*end);
        }
        self.changed.notify_one();
        Ok(())
    }

    /// A session that its own user comes back to, with the cursor of the last event that its client has had, or nothing.
    pub(crate) fn recoverable(&self, caller: &Caller, pid: &str, after: &str) -> Option<Recoverable> {
        let found = self.lock().recoverable(pid, now())?;
        let own = found.tenant.as_str() == caller.tenant && *found.user_id == *caller.user_id;
        let place = |cursor: &str| cursor.parse::<Cursor>().ok();
        let began = place(&found.began.cursor);
        let after = if after.is_empty() { began } else { place(after) };
        // A stock client that has had no event yet still says the last one of the session before.
        let of_before = |began: &Cursor| {
            found.began.is_certain && after.is_some_and(|a| a.epoch == began.epoch && a.seq < began.seq)
        };
        own.then_some(Recoverable {
            session_id: found.id.to_string(),
            rooms: found.rooms.into_keys().collect(),
            after: began.filter(of_before).or(after)?,
        })
    }

    /// Whoever has the session still lets go of it: its client has come back, to the bridge `instance`.
    pub(crate) fn let_go(&self, caller: &Caller, pid: &str, session_id: &str, instance: &str) {
        let mut roster = self.lock();
        roster.renew(pid, now());
        if let Some(holder) = self.holder(&roster, session_id, instance) {
            holder.end(goes_on_elsewhere(&Caller { session_id: session_id.to_owned(), ..caller.clone() }));
        }
        roster.lose(session_id, now());
    }

    /// The link that has a session, when it is another bridge's than `instance`.
    fn holder(&self, roster: &Roster, session_id: &str, instance: &str) -> Option<Arc<Link>> {
        let known = roster.session(session_id)?;
        self.links().get(&known.link).filter(|link| *link.bridge().1 != *instance).cloned()
    }

    /// A session that is ready has entered rooms by a call of `catalog`, or has left some.
    pub(crate) fn rooms(
        &self,
        link: &Link,
        session_id: &str,
        entered: &[Room],
        left: &[Room],
        catalog: &str,
    ) {
        let now = now();
        let mut roster = self.lock();
        if !roster.is_of(session_id, link.number) {
            return;
        }
        roster.leave(session_id, left, now);
        roster.enter(&session_id.into(), entered, &catalog.into(), now);
        drop(roster);
        self.changed.notify_one();
    }

    /// A session is gone; `left`: its client ended it.
    pub(crate) fn close(&self, link: &Link, session_id: &str, left: bool) {
        let mut roster = self.lock();
        // It may have gone on over another bridge.
        if roster.is_of(session_id, link.number) {
            if left {
                roster.end(session_id, now());
            } else {
                roster.close(session_id, now());
            }
            drop(roster);
            self.changed.notify_one();
        }
    }

    fn namespace(&self, name: &str) -> Option<&Namespace> {
        let name = if name.is_empty() { DEFAULT_NAMESPACE } else { name };
        self.namespaces.iter().find(|namespace| namespace.name == name)
    }

    /// The events that greet a new session.
    pub(crate) fn greet(&self, caller: &Caller) -> Vec<Delivery> {
        let (transport, namespace) = (caller.transport(), self.namespace(&caller.namespace));
        let greeting = |kind: &&Arc<EventType>| {
            let announcement = kind.announcement.as_ref();
            let is_served = namespace.is_some_and(|namespace| namespace.serves(&kind.package));
            is_served
                && announcement.is_some_and(|a| {
                    a.on == v1::Presence::Connected
                        && (a.transport == Transport::Unspecified || a.transport == transport)
                })
        };
        let kinds: Vec<&Arc<EventType>> = self.announced.iter().filter(greeting).collect();
        if kinds.is_empty() {
            return Vec::new();
        }
        let claims = serde_json::from_slice(&caller.claims_json).unwrap_or_default();
        // Of several of one name, the one for just this transport.
        let specific =
            |kind: &EventType| kind.announcement.as_ref().is_some_and(|a| a.transport == transport);
        let shadowed = |kind: &EventType| {
            !specific(kind) && kinds.iter().any(|other| other.name == kind.name && specific(other))
        };
        let greetings = kinds.iter().filter(|kind| !shadowed(kind)).filter_map(|kind| {
            let id = ephemeral_id();
            let stamp = Stamp { caller, claims: &claims, event_id: &id, time: ingest::now(), members: &[] };
            let message = kind.announcement.as_ref()?.make(None, &stamp)?;
            let (json, binary) = browser_forms(&kind.shape, kind.binary, &message.encode_to_vec()).ok()?;
            Some(Delivery {
                id,
                name: kind.name.clone(),
                json,
                binary,
                ephemeral: true,
                catalog: kind.package.clone(),
                ..Delivery::default()
            })
        });
        greetings.collect()
    }

    /// The members of a room, for a query.
    pub(crate) fn members(&self, tenant: &Tenant, room: &Room) -> Vec<Member> {
        let listed = self.lock().list(tenant, room, "", MEMBERS_MAX);
        let member = |listed: roster::Listed| Member {
            user_id: listed.user_id.to_string(),
            user_name: listed.user_name.to_string(),
            online: !listed.sessions.is_empty(),
        };
        listed.into_iter().map(member).collect()
    }

    /// Users of a room and whether there are more; users and sessions in all.
    pub(crate) fn list(
        &self,
        tenant: &Tenant,
        room: &Room,
        after: &str,
        limit: usize,
    ) -> (Vec<UserPresence>, bool, (usize, usize)) {
        let roster = self.lock();
        let mut listed = roster.list(tenant, room, after, limit + 1);
        let more = listed.len() > limit;
        listed.truncate(limit);
        let links = self.links();
        let session = |id: &Arc<str>| Some(session_presence(id, roster.session(id)?, &links));
        let user = |listed: &roster::Listed| UserPresence {
            user_id: listed.user_id.to_string(),
            user_name: listed.user_name.to_string(),
            online: !listed.sessions.is_empty(),
            sessions: listed.sessions.iter().filter_map(session).collect(),
        };
        (listed.iter().map(user).collect(), more, roster.count(tenant, room))
    }

    /// Has the bridges end sessions; gives how many.
    pub(crate) fn disconnect(&self, tenant: &Tenant, whom: &Whom, reason: Reason, message: &str) -> usize {
        let mut roster = self.lock();
        let ids: Vec<Arc<str>> = match whom {
            Whom::Session(id) => vec![id.as_str().into()],
            Whom::User(own) => {
                roster.list(tenant, own, "", usize::MAX).into_iter().flat_map(|l| l.sessions).collect()
            }
            Whom::Everybody => roster
                .list(tenant, &Room::org(), "", usize::MAX)
                .into_iter()
                .flat_map(|l| l.sessions)
                .collect(),
        };
        if !reason.is_retry() {
            // For good: nobody comes back to a session that was ended.
            ids.iter().for_each(|id| roster.forsake(tenant, id));
            match whom {
                Whom::User(own) => {
                    let user_id = own.as_str().strip_prefix("user:").unwrap_or_default();
                    roster.forsake_lost(tenant, |lost| *lost.user_id == *user_id);
                }
                Whom::Session(id) => roster.forsake_lost(tenant, |lost| *lost.id == **id),
                Whom::Everybody => roster.forsake_lost(tenant, |_| true),
            }
        }
        let links = self.links();
        let mut told = 0;
        for id in ids {
            let Some(known) = roster.session(&id).filter(|known| known.tenant == *tenant) else { continue };
            let Some(link) = links.get(&known.link) else { continue };
            let end = EndSession {
                tenant: tenant.as_str().to_owned(),
                user_id: known.user_id.to_string(),
                session_id: id.to_string(),
                reason: reason.into(),
                message: message.to_owned(),
            };
            roster.end_when_ready(&id, &end);
            link.end(end);
            told += 1;
        }
        told
    }

    /// Takes over the sessions that the process before this one knew.
    pub(crate) fn restore(&self, records: Vec<(String, Vec<u8>)>) {
        self.lock().restore(records, now());
    }

    /// Lets go of what is too old. Called now and then.
    pub(crate) fn sweep(&self) {
        self.changed.notify_one();
    }

    /// A bridge has reported changes, which were taken over; gives the number for [`Self::kept`].
    pub(crate) fn reported(&self) -> u64 {
        let number = self.reports.fetch_add(1, Ordering::AcqRel) + 1;
        self.changed.notify_one();
        number
    }

    /// Resolves when everything that was reported up to this number is there after a crash; gives up to which one it is.
    pub(crate) async fn kept(&self, number: u64) -> u64 {
        let mut reached = self.kept.subscribe();
        // The sender lives as long as this.
        reached.wait_for(|kept| *kept >= number).await.map_or(number, |kept| *kept)
    }

    /// Publishes what happens, in the order in which it happens, and has the engine keep what sessions need to go on, until
    /// the server closes.
    pub(crate) async fn run(&self, ingest: &Ingest, engine: &dyn OldEngine, closing: &CancellationToken) {
        loop {
            let (round, records, next_end, reports) = {
                let (mut roster, now) = (self.lock(), now());
                roster.expire(now);
                let round: Vec<Transition> = roster.transitions().drain(..).collect();
                (round, roster.changed(now), roster.next_end(), self.reports.load(Ordering::Acquire))
            };
            self.published.notify_waiters();
            let idle = round.is_empty() && records.is_empty();
            if !idle {
                let made = round.iter().flat_map(|transition| self.events(transition)).collect();
                if !self.record(ingest, engine, made, records.into(), closing).await {
                    return;
                }
            }
            self.kept.send_replace(reports);
            if idle {
                if closing.is_cancelled() {
                    return;
                }
                let pause =
                    next_end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
                // A timeout is an end that has come.
                let changed = tokio::time::timeout(pause, self.changed.notified());
                let _closing = closing.run_until_cancelled(changed).await;
            }
        }
    }

    /// Has events published and, behind them, records kept. What the engine cannot write is tried again in its order; false
    /// when the server closes before that works.
    async fn record(
        &self,
        ingest: &Ingest,
        engine: &dyn OldEngine,
        mut made: Vec<Made>,
        records: Arc<[OldRecord]>,
        closing: &CancellationToken,
    ) -> bool {
        loop {
            let rest = made.split_off(made.len().min(ROUND_MAX));
            // Begun one after the other, which makes their order the log's; awaited together.
            let (sequence, mut begun) = (Arc::new(Sequence::default()), Vec::with_capacity(made.len()));
            for one in &made {
                match ingest.begin_made(one.clone(), Some(sequence.clone())).await {
                    // What nobody is told of must not be kept as if they had been.
                    Err(Refusal::Shutdown) => return false,
                    other => begun.push(other),
                }
            }
            let published = join_all(begun.into_iter().map(async |begun| begun?.await));
            let is_last = rest.is_empty() && !records.is_empty();
            let keep = async { if is_last { engine.keep(records.clone()).await } else { Ok(()) } };
            let (published, kept) = tokio::join!(published, keep);
            let mut left = Vec::new();
            for (one, published) in made.into_iter().zip(published) {
                match published {
                    Ok(_) => {}
                    Err(Refusal::Storage(_)) => left.push(one),
                    Err(error) => tracing::warn!(%error, "a presence event was not published"),
                }
            }
            let failed = !left.is_empty() || kept.is_err();
            left.extend(rest);
            made = left;
            if self.failing.swap(failed, Ordering::AcqRel) != failed {
                if failed {
                    tracing::warn!("who comes and goes cannot be written; it is tried again");
                } else {
                    tracing::warn!("who comes and goes can be written again");
                }
            }
            if failed {
                self.published.notify_waiters();
                if closing.run_until_cancelled(tokio::time::sleep(RETRY_PAUSE)).await.is_none() {
                    return false;
                }
            } else if made.is_empty() {
                return true;
            }
        }
    }

    /// The events that tell of a transition.
    fn events(&self, transition: &Transition) -> Vec<Made> {
        let of_org = transition.room.as_str() == "org";
        let on = match (of_org, transition.came) {
            (true, true) => v1::Presence::Online,
            (true, false) => v1::Presence::Offline,
            (false, true) => v1::Presence::Joined,
            (false, false) => v1::Presence::Left,
        };
        let concerned = self.announced.iter().filter(|kind| {
            let is = kind.announcement.as_ref().is_some_and(|a| a.on == on);
            is && (of_org || kind.package == *transition.catalog)
        });
        concerned.filter_map(|kind| made(kind, transition)).collect()
    }
}

/// What a bridge is told of a session that another one has.
fn goes_on_elsewhere(caller: &Caller) -> EndSession {
    EndSession {
        tenant: caller.tenant.clone(),
        user_id: caller.user_id.clone(),
        session_id: caller.session_id.clone(),
        reason: Reason::Reconnect.into(),
        message: "the session goes on over another connection".into(),
    }
}

/// Refuses a session whose id is another user's.
fn own_id(roster: &Roster, caller: &Caller) -> Result<(), Refusal> {
    match roster.session(&caller.session_id) {
        Some(known) if known.tenant.as_str() != caller.tenant || *known.user_id != *caller.user_id => {
            Err(Refusal::Invalid("this session id is another user's".into()))
        }
        _ => Ok(()),
    }
}

/// The event that tells of a transition; `None` when it is not about such a room.
fn made(kind: &Arc<EventType>, transition: &Transition) -> Option<Made> {
    let caller = Caller {
        tenant: transition.tenant.as_str().to_owned(),
        user_id: transition.user_id.to_string(),
        user_name: transition.user_name.to_string(),
        session_id: transition.session_id.to_string(),
        ..Caller::default()
    };
    let (claims, time) = (serde_json::Map::new(), transition.time);
    let stamp = Stamp { caller: &caller, claims: &claims, event_id: "", time, members: &[] };
    let message = kind.announcement.as_ref()?.make(Some(&transition.room), &stamp)?;
    Some(Made {
        tenant: transition.tenant.clone(),
        kind: kind.clone(),
        payload: message.encode_to_vec().into(),
        time: ingest::now(),
        user_id: caller.user_id,
        except_session: None,
    })
}

impl Link {
    /// Tells this link from all others; later ones are higher.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn name(&self, bridge: &str, instance: &str) {
        *self.bridge.lock().unwrap_or_else(PoisonError::into_inner) = (bridge.into(), instance.into());
    }

    fn bridge(&self) -> (Arc<str>, Arc<str>) {
        self.bridge.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn end(&self, end: EndSession) {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).insert(end.session_id.clone(), end);
        self.notify.notify_one();
    }

    /// The sessions that the bridge shall end; resolves when there are some.
    pub(crate) async fn ends(&self) -> Vec<EndSession> {
        loop {
            let ends = std::mem::take(&mut *self.ends.lock().unwrap_or_else(PoisonError::into_inner));
            if !ends.is_empty() {
                return ends.into_values().collect();
            }
            self.notify.notified().await;
        }
    }
}
