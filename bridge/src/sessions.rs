//! Sessions from their first token to their end, for every transport.
//!
//! In reading order: admission (here), the [`calls`] that sessions emit, and [`feed`], through
//! which the link drives them.

pub(crate) mod calls;
mod feed;
mod state;

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::Engine as _;
use fanfare_proto::{
    revocation::{Revocations, TokenStamp},
    room::{Room, Tenant},
    token::{Identity, Scope, TenantScope, TokenError, Verifier},
    v1::{Caller, Delivery, Reason, SessionOpened, Transport},
};
use http::{HeaderMap, header};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access,
    client::{ClientAddress, UserAgents},
    clock::Clock,
    config::Config,
    event::Form,
    limits::{Addresses, Kind, Place, SessionLimits, UserLimits},
    link::Link,
    outbox::{Outbox, OutboxLimits},
    refusal::Refusal,
    replay::Replays,
    rooms::Rooms,
    session::{Namespace, Session, SessionParts, Writer},
    stats::Stats,
};

/// Number of rooms that every session is in; the session's room limit does not count them.
pub(crate) const OWN_ROOMS: usize = 2;
/// The namespace of clients that do not name one.
const MAIN_NAMESPACE: &str = "/";

/// Everything that sessions need.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) config: Config,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) rooms: Rooms,
    pub(crate) link: Link,
    pub(crate) clock: Clock,
    pub(crate) stats: Stats,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) user_agents: UserAgents,
    pub(crate) user_limits: UserLimits,
    pub(crate) outbox_limits: Arc<OutboxLimits>,
    pub(crate) replays: Replays,
    recoveries: Arc<Recoveries>,
    revocations: RwLock<Revocations>,
    namespaces: RwLock<HashMap<String, Arc<Namespace>>>,
    /// Whether lost sessions can be recovered, by secret and cursor.
    can_recover: AtomicBool,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the bridge accepts no more sessions.
    pub(crate) draining: CancellationToken,
    /// Cancelled when the bridge has ended its sessions.
    pub(crate) stopping: CancellationToken,
}

/// A verified caller that is not connected yet.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) identity: Identity,
    pub(crate) tenant: Tenant,
    pub(crate) user_id: String,
    /// The user agent that the client reports.
    pub(crate) user_agent: Arc<str>,
    namespace: Arc<Namespace>,
    rooms: Vec<Room>,
    recovery: Option<Recovery>,
}

/// The transport's part of a session.
pub(crate) struct Terminal {
    pub(crate) transport: Transport,
    /// `None`: the transport pulls events.
    pub(crate) form: Option<Form>,
    pub(crate) writer: Box<dyn Writer>,
    pub(crate) outbox: Arc<Outbox>,
    /// The client's address, if known.
    pub(crate) address: Option<IpAddr>,
    /// The session first gets the events it missed.
    pub(crate) replays: bool,
}

/// A lost session that is being recovered.
#[derive(Debug)]
struct Recovery {
    session_id: String,
    claim: RecoveryClaim,
}

/// The secrets of sessions that are being recovered. Only one connection at a time may recover a
/// session, because two would end each other.
#[derive(Debug, Default)]
struct Recoveries(Mutex<HashSet<String>>);

/// The exclusive right to recover a session, released on drop.
#[derive(Debug)]
struct RecoveryClaim {
    pid: String,
    recoveries: Arc<Recoveries>,
}

impl Recoveries {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while another connection holds the claim.
    fn claim(self: &Arc<Self>, pid: &str) -> Option<RecoveryClaim> {
        let is_free = self.lock().insert(pid.to_owned());
        is_free.then(|| RecoveryClaim { pid: pid.to_owned(), recoveries: self.clone() })
    }
}

impl Drop for RecoveryClaim {
    fn drop(&mut self) {
        self.recoveries.lock().remove(&self.pid);
    }
}

/// A session that departs on drop.
#[derive(Debug)]
pub(crate) struct Attendance {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) session: Arc<Session>,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.sessions.depart(&self.session);
    }
}

/// A session's wants while it opens: released on drop if the session does not open.
struct Wants<'a> {
    link: &'a Link,
    tenant: &'a Tenant,
    rooms: &'a [Room],
    session_id: &'a str,
    /// The session is not a lost one, which could still be recovered.
    is_new: bool,
    is_kept: bool,
}

impl Drop for Wants<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.link.release(self.tenant, self.rooms);
            self.link.closed(self.session_id, self.is_new);
        }
    }
}

impl Admission {
    /// Adds rooms in addition to `org` and the user's own; the token must allow them.
    pub(crate) fn add_rooms(&mut self, rooms: Vec<Room>, rooms_max: usize) -> Result<(), Refusal> {
        if let Some(room) = rooms.iter().find(|room| !self.identity.may_enter(room)) {
            let message = format!("the token does not allow room {:?}", room.as_str());
            return Err(Refusal::new(Reason::Forbidden, message));
        }
        for room in rooms {
            if !self.rooms.contains(&room) {
                self.rooms.push(room);
            }
        }
        if self.rooms.len() > rooms_max + OWN_ROOMS {
            let message = format!("a session can be in {rooms_max} rooms at once");
            return Err(Refusal::new(Reason::Limit, message).over("rooms-per-session-max"));
        }
        Ok(())
    }
}

impl Sessions {
    /// All parts of a bridge except its listener.
    pub(crate) fn new(config: Config, verifier: Arc<Verifier>, link: Link) -> Arc<Self> {
        let clock = Clock::default();
        let main = Namespace { name: MAIN_NAMESPACE.into(), catalogs: None };
        Arc::new(Self {
            verifier,
            link,
            rooms: Rooms::new(config.shards),
            stats: Stats::new(config.metrics_tenants),
            addresses: Addresses::new(&config),
            user_limits: UserLimits::new(&config),
            outbox_limits: Arc::new(OutboxLimits {
                bytes_max: config.queue_bytes_max,
                write_timeout: config.write_timeout,
                clock: clock.clone(),
            }),
            clock,
            user_agents: UserAgents::default(),
            replays: Replays::default(),
            recoveries: Arc::default(),
            revocations: RwLock::default(),
            namespaces: RwLock::new(HashMap::from([(MAIN_NAMESPACE.to_owned(), Arc::new(main))])),
            can_recover: AtomicBool::new(true),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            config,
        })
    }

    /// Takes a place for a connection that has no session yet.
    pub(crate) fn admit_handshake(&self, client: Option<ClientAddress>) -> Result<Place, Refusal> {
        let address = client.map(|client| client.address);
        let admitted = if self.draining.is_cancelled() {
            Err(shutdown())
        } else {
            let counted = client.filter(|client| client.must_count);
            let counted = counted.map_or(Ok(()), |client| self.addresses.count_connect(client.address));
            counted.and_then(|()| self.addresses.take(address, Kind::Handshake))
        };
        admitted.inspect_err(|refusal| self.refuse_connect(refusal, address, None))
    }

    /// Counts and logs that a connection or a session was refused.
    pub(crate) fn refuse_connect(
        &self,
        refusal: &Refusal,
        address: Option<IpAddr>,
        user: Option<(&Tenant, &str)>,
    ) {
        self.stats.refuse_connect(refusal);
        access::connect_refused(refusal, address, user);
    }

    /// Whether lost sessions can be recovered.
    pub(crate) fn can_recover(&self) -> bool {
        self.can_recover.load(Ordering::Relaxed)
    }

    /// A namespace by its name.
    pub(crate) fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        self.namespaces.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The identity of a token, in the main namespace.
    pub(crate) fn identify(
        &self,
        token: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<Admission, Refusal> {
        let namespace = self.namespace(MAIN_NAMESPACE).ok_or_else(Refusal::unavailable)?;
        self.identify_in(namespace, token, address)
    }

    /// The identity of a token that was sent from an address.
    pub(crate) fn identify_in(
        &self,
        namespace: Arc<Namespace>,
        token: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<Admission, Refusal> {
        let admission = self.verify(namespace, token);
        admission.inspect_err(|refusal| self.refuse_connect(refusal, address, None))
    }

    /// Refuses all callers except administrators of all tenants.
    pub(crate) fn check_operator(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let header = headers.get(header::AUTHORIZATION).ok_or(TokenError::Missing)?;
        let token = header.to_str().map_err(|_| TokenError::Invalid("not ASCII".into()))?;
        let identity = self.verifier.verify(token)?;
        if identity.allows(Scope::Admin) && identity.tenant == TenantScope::Any {
            return Ok(());
        }
        let message = "this needs a token with the scope \"admin\" for all tenants";
        Err(Refusal::new(Reason::Forbidden, message))
    }

    fn verify(&self, namespace: Arc<Namespace>, token: Option<&str>) -> Result<Admission, Refusal> {
        let identity = self.verifier.verify(token.ok_or(TokenError::Missing)?)?;
        let (user_id, stamp) = (identity.user_id.as_deref(), TokenStamp::of(&identity));
        if self.revocations().covers(&identity.tenant, user_id, &stamp) {
            return Err(TokenError::Revoked.into());
        }
        let invalid = |why: &str| Refusal::from(TokenError::Invalid(why.to_owned()));
        let TenantScope::One(tenant) = identity.tenant.clone() else {
            return Err(invalid("a session needs one tenant, not all"));
        };
        let user_id = identity.user_id.clone().ok_or_else(|| invalid("a session needs a user id"))?;
        let own = Room::user(&user_id).map_err(|e| invalid(&e.to_string()))?;
        // Producers and bridges act for others: a session of theirs could read all rooms.
        if identity.scopes.iter().any(|scope| matches!(scope, Scope::Notify | Scope::Bridge)) {
            let message = "a service's token opens no session: use a user's token, without scopes";
            return Err(Refusal::new(Reason::Forbidden, message));
        }
        let rooms = vec![Room::org(), own];
        Ok(Admission { identity, tenant, user_id, user_agent: "".into(), namespace, rooms, recovery: None })
    }

    /// Opens a session. Its rooms are confirmed, the server is notified, `accept` takes the
    /// session, and `start` greets it before any event of its rooms. May be dropped while waiting.
    pub(crate) async fn open(
        &self,
        admission: Admission,
        terminal: Terminal,
        accept: impl FnOnce(&Arc<Session>) -> bool,
        start: impl FnOnce(&Session, Vec<Delivery>),
    ) -> Result<Arc<Session>, Refusal> {
        let (tenant, user_id) = (admission.tenant.clone(), admission.user_id.clone());
        let (address, is_recovered) = (terminal.address, admission.recovery.is_some());
        match self.open_unless_refused(admission, terminal, accept, start).await {
            Ok(session) => {
                self.stats.count_opened(is_recovered);
                access::opened(&session, is_recovered);
                Ok(session)
            }
            Err(refusal) => {
                self.refuse_connect(&refusal, address, Some((&tenant, &user_id)));
                Err(refusal)
            }
        }
    }

    async fn open_unless_refused(
        &self,
        mut admission: Admission,
        terminal: Terminal,
        accept: impl FnOnce(&Arc<Session>) -> bool,
        start: impl FnOnce(&Session, Vec<Delivery>),
    ) -> Result<Arc<Session>, Refusal> {
        // Held until this function returns, so that no other connection recovers the session.
        let recovery = admission.recovery.take();
        let is_new = recovery.is_none();
        let (session, rooms) = self.prepare(admission, recovery.as_ref(), terminal)?;
        let certain = self.link.want(&session.tenant, &rooms)?;
        let (link, tenant, session_id) = (&self.link, &session.tenant, &session.caller.session_id);
        let mut wants = Wants { link, tenant, rooms: &rooms, session_id, is_new, is_kept: false };
        // The server decides whether the session may be in its rooms.
        let greetings = self.link.open(session.id(), opened(&session, false, &rooms));
        let (_certain, greetings) = self.in_time(async { tokio::try_join!(certain, greetings) }).await??;
        if !accept(&session) {
            return Err(Refusal::gone());
        }
        wants.is_kept = true;
        drop(wants);
        self.rooms.enter(&session, &rooms, || start(&session, greetings));
        session.note_report(self.link.ready(session.id(), opened(&session, true, &session.rooms())));
        self.watch_expiry(&session);
        // The token may have been revoked while the session was opening.
        if self.is_revoked(&session) {
            session.close(&TokenError::Revoked.into());
        }
        // The session may have ended while it was opening.
        if session.is_closed() {
            self.depart(&session);
            // Sent again after the report that the session is ready, which may have followed the
            // report that it closed.
            self.link.closed(session.id(), session.has_left());
        }
        Ok(session)
    }

    fn prepare(
        &self,
        admission: Admission,
        recovery: Option<&Recovery>,
        terminal: Terminal,
    ) -> Result<(Arc<Session>, Vec<Room>), Refusal> {
        let Admission { identity, tenant, rooms, user_id, user_agent, namespace, .. } = admission;
        self.user_limits.count_connect(&tenant, &user_id)?;
        let place = self.addresses.take(terminal.address, Kind::Session)?;
        let recovers = terminal.transport == Transport::Socketio && self.can_recover();
        let (id, pid) = match recovery {
            Some(recovery) => (recovery.session_id.clone(), recovery.claim.pid.clone()),
            None if recovers => (random_id(), random_id()),
            None => (random_id(), String::new()),
        };
        let caller = caller(&identity, &tenant, &id, terminal.transport, &namespace);
        let parts = SessionParts {
            tenant,
            caller,
            pid,
            expires_at: identity.expires_at,
            token: TokenStamp::of(&identity),
            namespace,
            form: terminal.form,
            writer: terminal.writer,
            outbox: terminal.outbox,
            limits: SessionLimits::new(&self.config),
            place,
            replays: terminal.replays,
            address: terminal.address,
            user_agent,
        };
        Ok((Arc::new(Session::new(parts)), rooms))
    }

    fn watch_expiry(&self, session: &Arc<Session>) {
        let Some(expires_at) = session.expires_at else { return };
        let end = Duration::from_secs(expires_at).saturating_add(self.config.tokens.leeway);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let weak: Weak<Session> = Arc::downgrade(session);
        session.set_expiry(self.clock.set(end.saturating_sub(now), weak));
    }

    /// Recovers a lost session of the same user, if there is one: returns the cursor after which it
    /// missed events. Fails if no server can answer whether there is one, so that the missed events
    /// are not given up.
    pub(crate) async fn recover(
        &self,
        admission: &mut Admission,
        pid: &str,
        after: &str,
    ) -> Result<Option<String>, Refusal> {
        if !self.can_recover() {
            return Ok(None);
        }
        let Admission { identity, tenant, namespace, .. } = &*admission;
        let caller = caller(identity, tenant, "", Transport::Socketio, namespace);
        // Another connection is recovering the session and may be lost, so the client must retry.
        let claim = self.recoveries.claim(pid).ok_or_else(Refusal::unavailable)?;
        let found = self.link.recover(caller, pid, after).await.map_err(|_| Refusal::unavailable())?;
        let Some(found) = found else { return Ok(None) };
        let rooms = found.rooms.iter().filter_map(|room| Room::new(room).ok());
        // The new token may allow less than the previous one.
        let mut rooms: Vec<Room> = rooms.filter(|room| admission.identity.may_enter(room)).collect();
        rooms.retain(|room| !admission.rooms.contains(room));
        // The bridge may not have detected the loss of the old connection yet.
        if let Some(old) = self.rooms.find(&admission.tenant, &found.session_id) {
            old.close(&Refusal::new(Reason::Reconnect, "the session goes on over another connection"));
            self.depart(&old);
        }
        admission.rooms.append(&mut rooms);
        admission.recovery = Some(Recovery { session_id: found.session_id, claim });
        Ok(Some(found.after))
    }

    /// The session has ended, from the peer's side or the bridge's.
    pub(crate) fn depart(&self, session: &Arc<Session>) {
        let is_first = session.mark_departed();
        // A call in progress may have entered rooms after the first departure.
        let left = self.rooms.remove(session);
        self.link.release(&session.tenant, &left);
        if is_first {
            self.stats.count_ended(session.ending());
            access::ended(session);
            self.link.closed(session.id(), session.has_left());
        }
    }

    /// Runs a task until it ends or the bridge stops; after that, what the task waits for may never
    /// happen.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            let _stopped = stopping.run_until_cancelled_owned(task).await;
        });
    }

    /// Waits, up to a limit, for something that needs a server.
    pub(crate) async fn in_time<T>(&self, waits: impl Future<Output = T>) -> Result<T, Refusal> {
        let waited = tokio::time::timeout(self.config.connect_timeout, waits).await;
        waited.map_err(|_| Refusal::unavailable())
    }

    fn revocations(&self) -> RwLockReadGuard<'_, Revocations> {
        self.revocations.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_revoked(&self, session: &Session) -> bool {
        let tenant = TenantScope::One(session.tenant.clone());
        self.revocations().covers(&tenant, Some(&session.caller.user_id), &session.token)
    }

    /// Evicts clients that have been idle for a while, and expired revocations.
    pub(crate) fn forget_idle(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut revocations = self.revocations.write().unwrap_or_else(PoisonError::into_inner);
        revocations.forget(i64::try_from(now).unwrap_or(i64::MAX));
        drop(revocations);
        self.user_limits.forget();
        self.addresses.forget();
    }
}

/// The user as reported to the server; the main namespace is left empty.
fn caller(
    identity: &Identity,
    tenant: &Tenant,
    session_id: &str,
    transport: Transport,
    namespace: &Namespace,
) -> Caller {
    let mut caller = identity.caller(tenant, session_id, transport);
    if &*namespace.name != MAIN_NAMESPACE {
        caller.namespace = namespace.name.to_string();
    }
    caller
}

/// A session as reported to the server: about to be ready, or ready.
fn opened(session: &Session, ready: bool, rooms: &[Room]) -> SessionOpened {
    SessionOpened {
        caller: Some(session.caller.clone()),
        ready,
        rooms: rooms.iter().map(|room| room.as_str().to_owned()).collect(),
        pid: session.pid.clone(),
    }
}

/// The refusal that ends sessions when the bridge shuts down.
pub(crate) fn shutdown() -> Refusal {
    Refusal::new(Reason::Shutdown, "the bridge shuts down; connect again")
}

/// 128 random bits as text.
pub(crate) fn random_id() -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}
