//! Sessions from their first token to their end, for every transport.

use std::{
    collections::HashSet,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::Engine as _;
use fanfare_proto::{
    room::{Room, Tenant},
    token::{Identity, TenantScope, TokenError, Verifier},
    v1::{Delivery, Reason, Transport},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    ending::Ending,
    expiry::Expiry,
    failure::Failure,
    limits::{SessionLimits, UserLimits},
    link::Link,
    rooms::Rooms,
    session::{Outlet, Session},
};

/// Everything that sessions need.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) config: Config,
    pub(crate) verifier: Verifier,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) link: Arc<Link>,
    pub(crate) expiry: Arc<Expiry>,
    pub(crate) user_limits: UserLimits,
    /// The lost sessions that are being taken up again.
    pub(crate) returning: Arc<Returning>,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the bridge has said farewell to its sessions.
    pub(crate) stopping: CancellationToken,
}

/// A verified caller who is not connected yet.
#[derive(Debug)]
pub(crate) struct Entrant {
    pub(crate) identity: Identity,
    pub(crate) tenant: Tenant,
    pub(crate) user_id: String,
    rooms: Vec<Room>,
    resumed: Option<Resumed>,
}

/// A lost session that goes on.
#[derive(Debug)]
struct Resumed {
    session_id: String,
    turn: Turn,
}

/// The secrets of sessions that are being taken up again, each over one connection at a time: two at once would end each
/// other.
#[derive(Debug, Default)]
pub(crate) struct Returning(Mutex<HashSet<String>>);

/// The right to take a session up again, until it is dropped.
#[derive(Debug)]
struct Turn {
    pid: String,
    returning: Arc<Returning>,
}

impl Returning {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while another connection has it.
    fn take(self: &Arc<Self>, pid: &str) -> Option<Turn> {
        let free = self.lock().insert(pid.to_owned());
        free.then(|| Turn { pid: pid.to_owned(), returning: self.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.returning.lock().remove(&self.pid);
    }
}

/// A session's claims on the link while it opens: given back when it does not come to be.
struct Claims<'a> {
    link: &'a Link,
    tenant: &'a Tenant,
    rooms: &'a [Room],
    session_id: &'a str,
    kept: bool,
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.link.release(self.tenant, self.rooms);
            self.link.closed(self.session_id);
        }
    }
}

impl Entrant {
    /// Wants rooms besides `org` and the user's own; the token must allow them.
    pub(crate) fn ask_for(&mut self, rooms: Vec<Room>, rooms_max: usize) -> Result<(), Failure> {
        if let Some(room) = rooms.iter().find(|room| !self.identity.may_enter(room)) {
            return Err(Failure::new(
                Reason::Forbidden,
                format!("the token does not allow room {:?}", room.as_str()),
            ));
        }
        for room in rooms {
            if !self.rooms.contains(&room) {
                self.rooms.push(room);
            }
        }
        if self.rooms.len() > rooms_max + OWN_ROOMS {
            return Err(Failure::new(
                Reason::Limit,
                format!("a session can be in {rooms_max} rooms at once"),
            ));
        }
        Ok(())
    }
}

/// Rooms that every session is in, which its limit does not count.
pub(crate) const OWN_ROOMS: usize = 2;

impl Sessions {
    /// Who a token stands for.
    pub(crate) fn identify(&self, token: Option<&str>) -> Result<Entrant, Failure> {
        let identity = self.verifier.verify(token.ok_or(TokenError::Missing)?)?;
        let invalid = |why: &str| Failure::from(TokenError::Invalid(why.to_owned()));
        let TenantScope::One(tenant) = identity.tenant.clone() else {
            return Err(invalid("a session needs one tenant, not all"));
        };
        let user_id = identity.user_id.clone().ok_or_else(|| invalid("a session needs a user id"))?;
        let own = Room::user(&user_id).map_err(|e| invalid(&e.to_string()))?;
        Ok(Entrant { identity, tenant, user_id, rooms: vec![Room::org(), own], resumed: None })
    }

    /// Makes a session: its rooms become certain, the server learns of it, `accept` takes it, and `start` greets it before
    /// any event of its rooms. May be dropped while waiting.
    pub(crate) async fn open(
        &self,
        entrant: Entrant,
        transport: Transport,
        outlet: Box<dyn Outlet>,
        accept: impl FnOnce(&Arc<Session>) -> bool,
        start: impl FnOnce(&Session, Vec<Delivery>),
    ) -> Result<Arc<Session>, Failure> {
        let Entrant { identity, tenant, rooms, resumed, .. } = entrant;
        let (id, pid) = match &resumed {
            Some(resumed) => (resumed.session_id.clone(), resumed.turn.pid.clone()),
            None if transport == Transport::Socketio => (random_id(), random_id()),
            None => (random_id(), String::new()),
        };
        let caller = identity.caller(&tenant, &id, transport);
        let limits = SessionLimits::new(&self.config);
        let session = Arc::new(Session::new(caller, tenant, pid, identity.expires_at, limits, outlet));
        let certain = self.link.want(&session.tenant, &rooms)?;
        let mut claims = Claims {
            link: &self.link,
            tenant: &session.tenant,
            rooms: &rooms,
            session_id: &session.caller.session_id,
            kept: false,
        };
        let opened = async { tokio::join!(certain, self.link.open(&session)).1 };
        let greetings = self.in_time(opened).await??;
        if !accept(&session) {
            return Err(Failure::new(Reason::Unspecified, "the connection has gone"));
        }
        claims.kept = true;
        drop(claims);
        self.rooms.enter(&session, &rooms, || start(&session, greetings));
        session.reported(self.link.ready(&session));
        self.expiry.watch(&session, self.config.tokens.leeway);
        // It may have gone while it came.
        if session.is_closed() {
            self.depart(&session);
            // Behind the report that it is ready, which may stand behind that of its end.
            self.link.closed(session.id());
        }
        Ok(session)
    }

    /// Goes on with a lost session of the same user, if there is one: gives the cursor after which it has missed events. Fails when
    /// no server can say whether there is one: what it has missed must not be given up for that.
    pub(crate) async fn recover(
        &self,
        entrant: &mut Entrant,
        pid: &str,
        after: &str,
    ) -> Result<Option<String>, Failure> {
        let caller = entrant.identity.caller(&entrant.tenant, "", Transport::Socketio);
        // Another connection is at it, which may be lost: the client comes back once more.
        let turn = self.returning.take(pid).ok_or_else(Failure::unavailable)?;
        let found = self.link.recover(caller, pid, after).await.map_err(|_| Failure::unavailable())?;
        let Some(found) = found else { return Ok(None) };
        let rooms = found.rooms.iter().filter_map(|room| Room::new(room).ok());
        // The token may allow less than the one before.
        let mut rooms: Vec<Room> = rooms.filter(|room| entrant.identity.may_enter(room)).collect();
        rooms.retain(|room| !entrant.rooms.contains(room));
        // Its connection may not be seen to be lost yet.
        if let Some(old) = self.rooms.find(&entrant.tenant, &entrant.rooms[1], &found.session_id) {
            old.close(&Ending::new(Reason::Reconnect, "the session goes on over another connection"));
            self.depart(&old);
        }
        entrant.rooms.append(&mut rooms);
        entrant.resumed = Some(Resumed { session_id: found.session_id, turn });
        Ok(Some(found.after))
    }

    /// The session is over, from the peer's side or ours.
    pub(crate) fn depart(&self, session: &Arc<Session>) {
        let first = session.mark_departed();
        self.expiry.forget(session, self.config.tokens.leeway);
        // A call under way may have entered rooms since it departed first.
        let left = self.rooms.leave(session, &session.rooms());
        self.link.release(&session.tenant, &left);
        if first {
            self.link.closed(session.id());
        }
    }

    /// Runs a task until it ends or the bridge does: what it waits for may never come then.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            let _stopped = stopping.run_until_cancelled_owned(task).await;
        });
    }

    /// Waits for something that needs a server.
    pub(crate) async fn in_time<T>(&self, waits: impl Future<Output = T>) -> Result<T, Failure> {
        let waited = tokio::time::timeout(self.config.connect_timeout, waits).await;
        waited.map_err(|_| Failure::unavailable())
    }
}

/// 128 random bits as text.
fn random_id() -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}
