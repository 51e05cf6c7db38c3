//! `fanfare.v1.Admin`: what operators see and do.

mod events;
mod streams;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use fanfare_proto::{
    catalog::Catalogs,
    room::{Room, Tenant, shown},
    signer::{Bearer, Signer},
    token::{Identity, Scope, TenantScope},
    types,
    v1::{
        BridgeInfo, CatalogInfo, EventInfo, GetServerRequest, GetServerResponse, GetSessionRequest,
        GetSessionResponse, Inspect, Inspected, ListCatalogsRequest, ListCatalogsResponse, ListRoomsRequest,
        ListRoomsResponse, ListSessionsRequest, ListSessionsResponse, ListTenantsRequest,
        ListTenantsResponse, ServerInfo, SignTokenRequest, SignTokenResponse, TenantInfo,
    },
};
use prost_types::Timestamp;

use super::Services;
use crate::{
    auth,
    error::Refusal,
    ingest,
    page_size::page_size,
    peers::{Description, Done, LinkInspect, Others, Question, Reply, Respond},
};

pub(super) use events::list_events;
pub(super) use streams::{tail, watch_stats};

/// Tenants per answer.
const TENANTS_MAX: usize = 1000;
/// Maximum number of tenants that are counted.
const TENANTS_KNOWN_MAX: usize = 100_000;
/// Rooms or sessions per answer.
const LISTED_DEFAULT: usize = 100;
const LISTED_MAX: usize = 1000;
/// The longest search text, in bytes. No name or id is longer.
const SEARCH_BYTES_MAX: usize = 256;
/// The longest user name in a signed token, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// The scopes that a signed token may have. The bridge scope is not among them, because a bridge
/// may act for every user.
const SIGNED_SCOPES: [Scope; 3] = [Scope::Notify, Scope::Subscribe, Scope::Admin];
/// How long a signed token is valid, in seconds.
const TTL_DEFAULT: u32 = 3600;
const TTL_MAX: u32 = 86_400;
/// Maximum age of a count that requires a scan of everything.
const GAUGES_AGE_MAX: Duration = Duration::from_millis(500);
/// How long such a count may take.
const GAUGES_TIMEOUT: Duration = Duration::from_secs(1);

/// What the server reports about itself.
#[derive(Debug)]
pub(crate) struct About {
    started_at: Timestamp,
    /// The URL of the server. Empty if the server itself does not know it.
    url: String,
    engine: &'static str,
    signer: Option<Signer>,
    default_tenant: Option<Tenant>,
    /// The tenant of the probe, which belongs to no user.
    probed: Option<Tenant>,
    gauges: tokio::sync::Mutex<Option<(Instant, Gauges)>>,
    catalogs: OnceLock<ListCatalogsResponse>,
}

/// Current counts.
#[derive(Debug, Clone, Copy, Default)]
struct Gauges {
    tenants: usize,
    users: usize,
}

impl About {
    pub(crate) fn new(
        url: String,
        engine: &'static str,
        signer: Option<Signer>,
        default_tenant: Option<Tenant>,
        probed: Option<Tenant>,
    ) -> Self {
        Self {
            started_at: ingest::now(),
            url,
            engine,
            signer,
            default_tenant,
            probed,
            gauges: tokio::sync::Mutex::default(),
            catalogs: OnceLock::new(),
        }
    }
}

impl Services {
    /// The tenants that have a log, a session or a subscription, by name.
    async fn tenants(&self) -> Result<BTreeSet<Tenant>, Refusal> {
        let with_log = self.engine.tenants(TENANTS_KNOWN_MAX).await?;
        let all = with_log.into_iter().chain(self.presence.tenants()).chain(self.hub.followed());
        Ok(all.filter(|tenant| self.about.probed.as_ref() != Some(tenant)).collect())
    }

    async fn gauges(&self) -> Gauges {
        let mut gauges = self.about.gauges.lock().await;
        match &*gauges {
            Some((at, gauges)) if at.elapsed() < GAUGES_AGE_MAX => *gauges,
            last => {
                // If the store does not answer, the last count is used.
                let known = last.map_or(0, |(_, gauges)| gauges.tenants);
                let tenants = tokio::time::timeout(GAUGES_TIMEOUT, self.tenants()).await;
                let tenants = tenants.ok().and_then(Result::ok).map_or(known, |tenants| tenants.len());
                let counted = Gauges { tenants, users: self.presence.user_count() };
                *gauges = Some((Instant::now(), counted));
                counted
            }
        }
    }
}

impl Services {
    /// What this server reports about itself to other servers.
    fn info(&self) -> ServerInfo {
        let about = &self.about;
        let id = self.engine.server().as_str().to_owned();
        let bridges = self.bridges.infos().into_iter();
        ServerInfo {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(about.started_at),
            grpc_url: about.url.clone(),
            bridges: bridges.map(|bridge| BridgeInfo { server: id.clone(), ..bridge }).collect(),
            id,
        }
    }

    /// Asks the bridge of a link about a session.
    async fn inspect(&self, link: u64, question: Inspect) -> Option<Inspected> {
        self.bridges.get(link)?.inspect(question).await
    }
}

impl Respond for Services {
    async fn respond(&self, question: Question) -> Option<Reply> {
        match question {
            Question::Inspect(LinkInspect { link, inspect }) => {
                Some(Reply::Inspected(self.inspect(link, inspect?).await?))
            }
            Question::Remove(removal) => {
                self.rules.removed(removal);
                Some(Reply::Done(Done { server: self.engine.server().as_str().to_owned() }))
            }
            // A server sends this only to itself.
            Question::Echo(_) => None,
            Question::Describe(_) => {
                let mut stats = self.stats().await;
                // The asking server reads the nodes and partitions of the store itself.
                if let Some(engine) = &mut stats.engine {
                    engine.nodes = Vec::new();
                    engine.partitions = Vec::new();
                }
                let description = Description { info: Some(self.info()), stats: Some(stats) };
                Some(Reply::Description(Box::new(description)))
            }
        }
    }
}

/// The number of entries to list.
fn limit(asked: u32) -> Result<usize, Refusal> {
    page_size("limit", asked.into(), LISTED_DEFAULT, LISTED_MAX)
}

/// Checks the search text.
fn search(text: &str) -> Result<&str, Refusal> {
    if text.len() > SEARCH_BYTES_MAX {
        let size = text.len();
        return Err(Refusal::Invalid(format!("search has {size} bytes; the limit is {SEARCH_BYTES_MAX}")));
    }
    Ok(text)
}

pub(super) async fn get_server(
    services: Arc<Services>,
    identity: Arc<Identity>,
    _: GetServerRequest,
) -> Result<GetServerResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let about = &services.about;
    let own = services.info();
    // Servers and bridges serve all tenants, so an administrator of one tenant does not see them.
    let is_for_all = identity.tenant == TenantScope::Any;
    let (others, engine_state) = if is_for_all {
        let others = services.peers.others(services.presence.servers());
        let (others, state) = tokio::join!(others, services.health.state());
        (others, Some(state))
    } else {
        (Others::default(), None)
    };
    let mut servers: Vec<ServerInfo> =
        others.known.into_iter().filter_map(|description| description.info).chain([own.clone()]).collect();
    servers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    let mut bridges: Vec<BridgeInfo> = servers.iter().flat_map(|server| server.bridges.clone()).collect();
    bridges.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(GetServerResponse {
        name: services.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Some(about.started_at),
        engine: about.engine.to_owned(),
        development: about.signer.is_some(),
        grpc_url: own.grpc_url,
        bridges: if is_for_all { bridges } else { Vec::new() },
        servers: if is_for_all { servers } else { Vec::new() },
        silent_servers: others.silent,
        engine_state,
    })
}

pub(super) async fn list_tenants(
    services: Arc<Services>,
    identity: Arc<Identity>,
    _: ListTenantsRequest,
) -> Result<ListTenantsResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let mut tenants = services.tenants().await?;
    if let TenantScope::One(own) = &identity.tenant {
        tenants.retain(|tenant| tenant == own);
    }
    let more = tenants.len() > TENANTS_MAX;
    let mut infos = Vec::new();
    for tenant in tenants.iter().take(TENANTS_MAX) {
        let tally = services.presence.tally(tenant).await?;
        infos.push(TenantInfo {
            tenant: tenant.as_str().to_owned(),
            users: tally.users as u64,
            sessions: tally.sessions as u64,
            rooms: tally.rooms as u64,
            seq: services.engine.head(tenant).await?.seq,
        });
    }
    Ok(ListTenantsResponse { tenants: infos, more })
}

#[allow(clippy::unused_async, reason = "as all methods")]
pub(super) async fn list_rooms(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: ListRoomsRequest,
) -> Result<ListRoomsResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let tenant = auth::tenant(&identity, &request.tenant)?;
    let (order, search, limit) = (request.order(), search(&request.search)?, limit(request.limit)?);
    let (rooms, total) = services.presence.find_rooms(&tenant, search, limit, order).await?;
    Ok(ListRoomsResponse { rooms, total: total as u64 })
}

#[allow(clippy::unused_async, reason = "as all methods")]
pub(super) async fn list_sessions(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: ListSessionsRequest,
) -> Result<ListSessionsResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let tenant = auth::tenant(&identity, &request.tenant)?;
    let room = if request.room.is_empty() { Room::org() } else { Room::new(&request.room)? };
    let (search, limit) = (search(&request.search)?, limit(request.limit)?);
    let (sessions, total) = services.presence.find_sessions(&tenant, &room, search, limit).await?;
    Ok(ListSessionsResponse { sessions, total: total as u64 })
}

pub(super) async fn get_session(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: GetSessionRequest,
) -> Result<GetSessionResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let tenant = auth::tenant(&identity, &request.tenant)?;
    let found = services.presence.find_session(&tenant, &request.session_id).await?;
    let (session, owner) = found.ok_or_else(|| Refusal::NoSession(shown(&request.session_id)))?;
    let question = Inspect {
        tenant: session.tenant.clone(),
        user_id: session.user_id.clone(),
        session_id: request.session_id,
        r#ref: 0,
    };
    let answer = if owner.server == *services.engine.server() {
        services.inspect(owner.link, question).await
    } else {
        let question = LinkInspect { link: owner.link, inspect: Some(question) };
        match services.peers.ask(&owner.server, Question::Inspect(question)).await {
            Some(Reply::Inspected(answer)) => Some(answer),
            _ => None,
        }
    };
    let answer = answer.unwrap_or_default();
    Ok(GetSessionResponse {
        session: Some(session),
        claims_json: String::from_utf8_lossy(&answer.claims_json).into_owned(),
        connection: answer.connection,
    })
}

#[allow(clippy::unused_async, reason = "as all methods")]
pub(super) async fn list_catalogs(
    services: Arc<Services>,
    identity: Arc<Identity>,
    _: ListCatalogsRequest,
) -> Result<ListCatalogsResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    Ok(services.about.catalogs.get_or_init(|| describe(&services.catalogs)).clone())
}

/// Everything that documents the catalogs.
fn describe(catalogs: &Catalogs) -> ListCatalogsResponse {
    let mut events: HashMap<&str, Vec<EventInfo>> = HashMap::new();
    for event in catalogs.events() {
        let schema = types::json_schema(catalogs, &event.full_name).unwrap_or_default();
        let (name, kind) = (event.name.clone(), event.full_name.clone());
        let info = EventInfo { name, r#type: kind, json_schema: schema.to_string() };
        events.entry(&event.package).or_default().push(info);
    }
    let catalog = |package: &String| {
        let mut events = events.remove(package.as_str()).unwrap_or_default();
        events.sort_by(|a, b| (&a.name, &a.r#type).cmp(&(&b.name, &b.r#type)));
        let typescript = types::typescript(catalogs, std::slice::from_ref(package));
        CatalogInfo { package: package.clone(), typescript, events }
    };
    let described = catalogs.packages().iter().map(catalog).collect();
    ListCatalogsResponse { descriptors: catalogs.pool().encode_to_vec().into(), catalogs: described }
}

#[allow(clippy::unused_async, reason = "as all methods")]
pub(super) async fn sign_token(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: SignTokenRequest,
) -> Result<SignTokenResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let signer = services.about.signer.as_ref().ok_or(Refusal::NoSigner)?;
    let scopes = request.scopes.iter().map(|scope| signed_scope(scope));
    let scopes: Vec<&str> = scopes.collect::<Result<_, _>>()?;
    let tenant = signed_tenant(&services, &identity, &request, !scopes.is_empty())?;
    if scopes.is_empty() || !request.user_id.is_empty() {
        Room::user(&request.user_id).map_err(|_| {
            Refusal::Invalid("user_id is empty or too long: give a user's id, or scopes".into())
        })?;
    }
    if request.user_name.len() > NAME_BYTES_MAX {
        let size = request.user_name.len();
        return Err(Refusal::Invalid(format!("user_name has {size} bytes; the limit is {NAME_BYTES_MAX}")));
    }
    let ttl = match request.ttl_seconds {
        0 => TTL_DEFAULT,
        ttl @ 1..=TTL_MAX => ttl,
        ttl => return Err(Refusal::Invalid(format!("ttl_seconds is {ttl}: want 1 to {TTL_MAX}"))),
    };
    let bearer =
        Bearer { tenant: &tenant, user_id: &request.user_id, user_name: &request.user_name, scopes: &scopes };
    let signed = signer.sign(bearer, Duration::from_secs(ttl.into()));
    let (token, end) = signed.map_err(|error| Refusal::Invalid(error.to_string()))?;
    tracing::info!(
        target: "audit",
        tenant,
        user.id = auth::sender(&identity),
        signed_for = request.user_id,
        scopes = scopes.join(" "),
        ttl_seconds = ttl,
        "token signed"
    );
    let expires_at = Timestamp { seconds: i64::try_from(end).unwrap_or(i64::MAX), nanos: 0 };
    Ok(SignTokenResponse { token, expires_at: Some(expires_at) })
}

fn signed_scope(asked: &str) -> Result<&'static str, Refusal> {
    let known = SIGNED_SCOPES.map(Scope::as_str);
    known.into_iter().find(|scope| *scope == asked).ok_or_else(|| {
        Refusal::Invalid(format!("scopes has {:?}: want some of {}", shown(asked), known.join(", ")))
    })
}

/// The tenant of a signed token. The caller's own token must allow it.
fn signed_tenant(
    services: &Services,
    identity: &Identity,
    request: &SignTokenRequest,
    is_service: bool,
) -> Result<String, Refusal> {
    let asked = match (&identity.tenant, request.tenant.as_str(), &services.about.default_tenant) {
        (TenantScope::Any, "*", _) if is_service => return Ok("*".to_owned()),
        (TenantScope::Any, "", Some(default)) => default.as_str(),
        (_, asked, _) => asked,
    };
    Ok(auth::tenant(identity, asked)?.as_str().to_owned())
}
