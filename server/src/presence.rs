//! Presence: which sessions and users are connected, as bridges report it, and the catalogs' events
//! about it.
//!
//! The store has one record per user, and every change is one compare-and-set of that record.
//! Therefore any server can make a change, and of two concurrent changes exactly one wins. In
//! reading order: [`user`] is the state machine of one user and [`record`] its stored form;
//! [`index`] is what this server knows of the records, and [`followed`] keeps it current;
//! [`change`] makes changes, [`backlog`] holds changes that the store refuses, [`timers`]
//! determines when a user must be checked; [`announce`] creates the events, [`publish`] appends
//! them to the log; [`group`] takes over the sessions of servers that left the group; [`overview`]
//! answers queries.

mod announce;
mod backlog;
mod change;
mod clock;
mod followed;
mod group;
mod index;
mod links;
mod overview;
mod publish;
mod record;
#[cfg(test)]
mod tests;
mod timers;
mod user;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool};

use fanfare_proto::{
    catalog::Catalogs,
    cursor::Cursor,
    room::{Room, Tenant, shown},
    v1::{Caller, Delivery, EndSession, Reason},
};
use futures_util::{StreamExt as _, stream};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use self::{
    announce::Announcements,
    backlog::Backlog,
    change::Turns,
    clock::Clock,
    followed::Followed,
    group::Group,
    index::{Index, UserKey, goes_on_elsewhere},
    links::Links,
    publish::Unpublished,
    timers::Timers,
    user::{Owner, Report, Selection},
};
pub(crate) use self::{links::Link, user::Owner as SessionOwner};
use crate::{
    config::PresenceConfig,
    engine::Engine,
    error::{Error, Refusal},
};

/// Records that are changed concurrently for one request.
const CONCURRENCY: usize = 64;

/// The sessions that this server knows.
#[derive(Debug)]
pub(crate) struct Presence {
    engine: Arc<dyn Engine>,
    announcements: Announcements,
    config: PresenceConfig,
    clock: Clock,
    index: Mutex<Index>,
    links: Links,
    turns: Turns,
    followed: Followed,
    group: Group,
    backlog: Backlog,
    timers: Mutex<Timers>,
    unpublished: Unpublished,
    /// The tasks that follow tenants. They end with this value.
    tasks: TaskTracker,
    /// Notified when there is work for [`Self::run`].
    changed: Notify,
    /// The store currently refuses changes.
    is_failing: AtomicBool,
    /// The store has lost changes of records, so bridges must report their sessions again.
    has_lost: AtomicBool,
}

/// A session that can be recovered.
#[derive(Debug)]
pub(crate) struct Recoverable {
    pub(crate) session_id: String,
    pub(crate) rooms: Vec<Room>,
    /// The client may have missed events after this cursor, but none before it.
    pub(crate) after: Cursor,
}

/// The sessions to end.
#[derive(Debug)]
pub(crate) enum Whom {
    User(Room),
    Session(String),
    Everybody,
}

impl Presence {
    pub(crate) fn new(
        catalogs: &Catalogs,
        config: &PresenceConfig,
        engine: Arc<dyn Engine>,
    ) -> Result<Self, Error> {
        Ok(Self {
            announcements: Announcements::new(catalogs, config)?,
            config: config.clone(),
            clock: Clock::new(),
            index: Mutex::new(Index::new(engine.server().clone())),
            links: Links::default(),
            turns: Turns::default(),
            followed: Followed::default(),
            group: Group::default(),
            backlog: Backlog::new(),
            timers: Mutex::default(),
            unpublished: Unpublished::default(),
            tasks: TaskTracker::new(),
            changed: Notify::new(),
            is_failing: AtomicBool::new(false),
            has_lost: AtomicBool::new(false),
            engine,
        })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether lost sessions can be recovered.
    pub(crate) const fn recovers(&self) -> bool {
        !self.config.recovery_window.is_zero()
    }

    /// Opens the link of a bridge.
    pub(crate) fn link(&self) -> Arc<Link> {
        self.links.open()
    }

    /// Ends a link: its sessions are lost unless another link reports them.
    pub(crate) fn unlink(&self, link: &Link) {
        let number = link.number();
        self.links.remove(number);
        let server = self.engine.server().clone();
        for key in self.index().of_link(number) {
            let server = server.clone();
            self.backlog.push(key, Arc::new(move |user, cx| user.unlink(&server, number, cx)));
        }
        self.changed.notify_one();
    }

    /// Opens a session that is about to be ready. It counts, but is not announced yet. Another
    /// bridge that still has the session is ordered to end it. `head` is the end of the tenant's
    /// log. Returns the events that greet the session.
    pub(crate) async fn open(
        self: &Arc<Self>,
        link: &Link,
        caller: &Caller,
        pid: &str,
        head: &str,
    ) -> Result<Vec<Delivery>, Refusal> {
        let (key, own) = (key(caller)?, Room::user(&caller.user_id)?);
        if self.announcements.namespace(&caller.namespace).is_none() {
            return Err(Refusal::Namespace(shown(&caller.namespace)));
        }
        self.check_id(&key, &caller.session_id)?;
        let report = self.report(link, caller, pid, head, &[Room::org(), own]);
        self.change(&key, |user, cx| user.open(&report, cx)).await?;
        Ok(self.announcements.greet(caller))
    }

    /// Marks a session as ready in these rooms and announces it there. If another bridge has the
    /// session, its client has moved to that bridge while this bridge could not report it, for
    /// example because it was cut off. In that case, this bridge is ordered to end the session.
    pub(crate) async fn ready(
        self: &Arc<Self>,
        link: &Link,
        caller: &Caller,
        pid: &str,
        head: &str,
        rooms: &[Room],
    ) -> Result<(), Refusal> {
        let key = key(caller)?;
        self.check_id(&key, &caller.session_id)?;
        if self.index().get(&key).is_some_and(|known| {
            known.user.session(&caller.session_id).is_some_and(|session| self.is_held(&session.owner, link))
        }) {
            link.end(goes_on_elsewhere(&key, &caller.session_id));
            return Ok(());
        }
        let report = self.report(link, caller, pid, head, rooms);
        self.insist(key, Arc::new(move |user, cx| user.ready(&report, cx))).await;
        Ok(())
    }

    /// Whether a session belongs to another bridge than that of `link`, over a link that still
    /// exists.
    fn is_held(&self, owner: &Owner, link: &Link) -> bool {
        let is_linked = if owner.server == *self.engine.server() {
            self.links.get(owner.link).is_some()
        } else {
            self.group.is_alive(&owner.server)
        };
        is_linked && owner.instance != link.bridge().instance
    }

    fn report(&self, link: &Link, caller: &Caller, pid: &str, head: &str, rooms: &[Room]) -> Report {
        let bridge = link.bridge();
        Report {
            session_id: caller.session_id.as_str().into(),
            user_name: caller.user_name.as_str().into(),
            pid: pid.into(),
            transport: caller.transport(),
            owner: Owner {
                server: self.engine.server().clone(),
                link: link.number(),
                bridge: bridge.name,
                instance: bridge.instance,
            },
            head: head.into(),
            rooms: rooms.to_vec(),
        }
    }

    /// Refuses a session whose id belongs to another user.
    fn check_id(&self, key: &UserKey, session_id: &str) -> Result<(), Refusal> {
        match self.index().owner(session_id) {
            Some(owner) if owner != key => Err(Refusal::Invalid("this session id is another user's".into())),
            _ => Ok(()),
        }
    }

    /// The session that a client of its user can recover, if there is one. `after` is the cursor of
    /// the last event that the client has received; empty if it has received none.
    pub(crate) async fn recoverable(
        self: &Arc<Self>,
        caller: &Caller,
        pid: &str,
        after: &str,
    ) -> Result<Option<Recoverable>, Refusal> {
        let key = key(caller)?;
        self.follow(&key.tenant).await?;
        let Some(known) = self.index().get(&key) else { return Ok(None) };
        let Some(found) = known.user.recoverable(pid) else { return Ok(None) };
        let place = |cursor: &str| cursor.parse::<Cursor>().ok();
        let began = place(&found.began.cursor);
        let after = if after.is_empty() { began } else { place(after) };
        // A standard client that has received no event in this session sends the last one of the
        // session before.
        let of_before = |began: &Cursor| {
            found.began.is_certain && after.is_some_and(|a| a.epoch == began.epoch && a.seq < began.seq)
        };
        let Some(after) = began.filter(of_before).or(after) else { return Ok(None) };
        Ok(Some(Recoverable {
            session_id: found.id.to_string(),
            rooms: found.rooms.iter().map(|(room, _)| room.clone()).collect(),
            after,
        }))
    }

    /// Hands a session over to the bridge `instance`, to which its client reconnects. Another
    /// bridge that still has the session is ordered to end it. False if the session has ended,
    /// because the result of [`Self::recoverable`] may be older than the record.
    pub(crate) async fn hand_over(
        self: &Arc<Self>,
        caller: &Caller,
        pid: &str,
        session_id: &str,
        instance: &str,
    ) -> Result<bool, Refusal> {
        let change =
            |user: &mut user::User, cx: user::Context<'_>| Ok(user.hand_over(pid, session_id, instance, cx));
        self.change(&key(caller)?, change).await
    }

    /// Records that a ready session has entered rooms through a call of `catalog`, or has left
    /// rooms.
    pub(crate) async fn rooms(
        self: &Arc<Self>,
        link: &Link,
        session_id: &str,
        entered: Vec<Room>,
        left: Vec<Room>,
        catalog: &str,
    ) {
        let catalog: Arc<str> = catalog.into();
        self.insist_on_session(link, session_id, move |user, id, cx| {
            user.leave(id, &left, cx);
            user.enter(id, &entered, &catalog, cx);
        })
        .await;
    }

    /// Closes a session. `left` means that its client ended it.
    pub(crate) async fn close(self: &Arc<Self>, link: &Link, session_id: &str, left: bool) {
        self.insist_on_session(
            link,
            session_id,
            move |user, id, cx| {
                if left { user.end(id, cx) } else { user.close(id, cx) }
            },
        )
        .await;
    }

    /// Changes the record of a session's user, unless the session has moved to another link.
    async fn insist_on_session(
        self: &Arc<Self>,
        link: &Link,
        session_id: &str,
        change: impl Fn(&mut user::User, &str, user::Context<'_>) + Send + Sync + 'static,
    ) {
        let Some(key) = self.index().owner(session_id).cloned() else { return };
        let (id, link) = (session_id.to_owned(), link.number());
        let change = move |user: &mut user::User, cx: user::Context<'_>| {
            if user.session(&id).is_some_and(|session| session.is_of(cx.server, link)) {
                change(user, &id, cx);
            }
        };
        self.insist(key, Arc::new(change)).await;
    }

    /// Orders the bridges to end sessions. Returns how many of these sessions are connected.
    pub(crate) async fn disconnect(
        self: &Arc<Self>,
        tenant: &Tenant,
        whom: &Whom,
        reason: Reason,
        message: &str,
    ) -> Result<usize, Refusal> {
        self.follow(tenant).await?;
        let key = |user_id: Arc<str>| UserKey { tenant: tenant.clone(), user_id };
        let (keys, selection): (Vec<UserKey>, Selection) = match whom {
            Whom::User(own) => {
                let user_id = own.as_str().strip_prefix("user:").unwrap_or_default();
                (vec![key(user_id.into())], Selection::All)
            }
            Whom::Everybody => (
                self.index().users(tenant).map(|(user_id, _)| key(user_id.clone())).collect(),
                Selection::All,
            ),
            Whom::Session(id) => {
                let id: Arc<str> = id.as_str().into();
                let index = self.index();
                let mut users = index.users(tenant);
                let has = |user: &user::User| user.sessions.iter().any(|session| session.id == id);
                let found = users.find(|(_, known)| has(&known.user));
                (
                    found.map(|(user_id, _)| key(user_id.clone())).into_iter().collect(),
                    Selection::Session(id.clone()),
                )
            }
        };
        let told = stream::iter(keys).map(|key| {
            let end = EndSession {
                tenant: tenant.as_str().to_owned(),
                user_id: key.user_id.to_string(),
                session_id: String::new(),
                reason: reason.into(),
                message: message.to_owned(),
            };
            let selection = selection.clone();
            async move {
                self.change(&key, |user, _| Ok(user.disconnect(&selection, reason.is_retry(), &end))).await
            }
        });
        let mut count = 0;
        let mut told = told.buffer_unordered(CONCURRENCY);
        while let Some(one) = told.next().await {
            count += one?;
        }
        Ok(count)
    }

    /// Removes a user's sessions from a room. Returns how many connected sessions were in the room.
    pub(crate) async fn remove_from_room(
        self: &Arc<Self>,
        tenant: &Tenant,
        user_id: &str,
        room: &Room,
    ) -> Result<usize, Refusal> {
        self.follow(tenant).await?;
        let key = UserKey { tenant: tenant.clone(), user_id: user_id.into() };
        let count = self.change(&key, |user, cx| Ok(user.remove_from(room, cx))).await?;
        self.publish_later(&key);
        Ok(count)
    }

    /// Takes over a tenant's sessions from a server that left the group.
    async fn adopt(self: &Arc<Self>, tenant: &Tenant, gone: &crate::engine::ServerId) -> Result<(), Refusal> {
        self.follow(tenant).await?;
        let keys: Vec<UserKey> = {
            let index = self.index();
            let key = |user_id: &Arc<str>| UserKey { tenant: tenant.clone(), user_id: user_id.clone() };
            index.users(tenant).map(|(user_id, _)| key(user_id)).collect()
        };
        let changes = stream::iter(keys).map(|key| async move {
            let taken = self.change(&key, |user, cx| {
                user.take_over(gone, cx);
                Ok(())
            });
            taken.await?;
            // The other server had not published these events yet.
            self.publish_later(&key);
            Ok::<_, Refusal>(())
        });
        let mut changes = changes.buffer_unordered(CONCURRENCY);
        while let Some(changed) = changes.next().await {
            changed?;
        }
        Ok(())
    }
}

fn key(caller: &Caller) -> Result<UserKey, Refusal> {
    Ok(UserKey { tenant: Tenant::new(&caller.tenant)?, user_id: caller.user_id.as_str().into() })
}
