//! `fanfare.v1.Admin`: what operators see and do.

mod streams;

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use fanfare_proto::{
    catalog::Catalogs,
    room::{Room, Tenant, shown},
    signer::{Bearer, Signer},
    token::{Identity, Scope, TenantScope},
    types,
    v1::{
        CatalogInfo, EventInfo, GetServerRequest, GetServerResponse, GetSessionRequest, GetSessionResponse,
        Inspect, ListCatalogsRequest, ListCatalogsResponse, ListRoomsRequest, ListRoomsResponse,
        ListSessionsRequest, ListSessionsResponse, ListTenantsRequest, ListTenantsResponse, SignTokenRequest,
        SignTokenResponse, TenantInfo,
    },
};
use prost_types::Timestamp;

use super::Services;
use crate::{auth, error::Refusal, ingest};

pub(super) use streams::{tail, watch_stats};

/// Tenants in one answer.
const TENANTS_MAX: usize = 1000;
/// Rooms or sessions in one answer.
const LISTED_DEFAULT: usize = 100;
const LISTED_MAX: usize = 1000;
/// The longest text that is searched for, in bytes; no name or id is longer.
const SEARCH_BYTES_MAX: usize = 256;
/// The longest name of a user in a token that is signed, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// What a token that is signed may allow: to be a bridge would be to speak for everybody.
const SIGNED_SCOPES: [Scope; 3] = [Scope::Notify, Scope::Subscribe, Scope::Admin];
/// How long a token that is signed is good, in seconds.
const TTL_DEFAULT: u32 = 3600;
const TTL_MAX: u32 = 86_400;
/// How old a count may be that takes a walk through everything.
const GAUGES_AGE_MAX: Duration = Duration::from_millis(500);

/// What the server says of itself.
#[derive(Debug)]
pub(crate) struct About {
    started_at: Timestamp,
    address: SocketAddr,
    durable: bool,
    signer: Option<Signer>,
    default_tenant: Option<Tenant>,
    /// The tenant of the probe, which is nobody's.
    probed: Option<Tenant>,
    gauges: Mutex<Option<(Instant, Gauges)>>,
    catalogs: OnceLock<ListCatalogsResponse>,
}

/// How many there are now.
#[derive(Debug, Clone, Copy, Default)]
struct Gauges {
    tenants: usize,
    users: usize,
}

impl About {
    pub(crate) fn new(
        address: SocketAddr,
        durable: bool,
        signer: Option<Signer>,
        default_tenant: Option<Tenant>,
        probed: Option<Tenant>,
    ) -> Self {
        Self {
            started_at: ingest::now(),
            address,
            durable,
            signer,
            default_tenant,
            probed,
            gauges: Mutex::default(),
            catalogs: OnceLock::new(),
        }
    }
}

impl Services {
    /// The tenants that have a log, a session or a subscription, by name.
    fn tenants(&self) -> BTreeSet<Tenant> {
        let all = self.engine.tenants().into_iter().chain(self.presence.tenants()).chain(self.hub.followed());
        all.filter(|tenant| self.about.probed.as_ref() != Some(tenant)).collect()
    }

    fn gauges(&self) -> Gauges {
        let mut gauges = self.about.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        match &*gauges {
            Some((at, gauges)) if at.elapsed() < GAUGES_AGE_MAX => *gauges,
            _ => {
                let present = self.presence.tenants();
                let users = present.iter().map(|tenant| self.presence.user_count(tenant)).sum();
                let counted = Gauges { tenants: self.tenants().len(), users };
                *gauges = Some((Instant::now(), counted));
                counted
            }
        }
    }
}

/// How many are listed.
fn limit(asked: u32) -> Result<usize, Refusal> {
    match usize::try_from(asked).unwrap_or(usize::MAX) {
        0 => Ok(LISTED_DEFAULT),
        limit @ 1..=LISTED_MAX => Ok(limit),
        limit => Err(Refusal::Invalid(format!("limit is {limit}: want 1 to {LISTED_MAX}"))),
    }
}

/// What is searched for.
fn search(text: &str) -> Result<&str, Refusal> {
    if text.len() > SEARCH_BYTES_MAX {
        let size = text.len();
        return Err(Refusal::Invalid(format!("search has {size} bytes; the limit is {SEARCH_BYTES_MAX}")));
    }
    Ok(text)
}

#[allow(clippy::unused_async, reason = "as all methods")]
pub(super) async fn get_server(
    services: Arc<Services>,
    identity: Arc<Identity>,
    _: GetServerRequest,
) -> Result<GetServerResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let about = &services.about;
    // Where a machine is reached whose server listens everywhere, only others know.
    let known = !about.address.ip().is_unspecified();
    Ok(GetServerResponse {
        name: services.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Some(about.started_at),
        engine: if about.durable { "disk" } else { "memory" }.to_owned(),
        development: about.signer.is_some(),
        grpc_url: if known { format!("http://{}", about.address) } else { String::new() },
        // Bridges are everybody's: who administers one tenant learns nothing of them.
        bridges: if identity.tenant == TenantScope::Any { services.bridges.infos() } else { Vec::new() },
    })
}

pub(super) async fn list_tenants(
    services: Arc<Services>,
    identity: Arc<Identity>,
    _: ListTenantsRequest,
) -> Result<ListTenantsResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let mut tenants = services.tenants();
    if let TenantScope::One(own) = &identity.tenant {
        tenants.retain(|tenant| tenant == own);
    }
    let more = tenants.len() > TENANTS_MAX;
    let mut infos = Vec::new();
    for tenant in tenants.iter().take(TENANTS_MAX) {
        let tally = services.presence.tally(tenant);
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
    let (search, limit) = (search(&request.search)?, limit(request.limit)?);
    let (rooms, total) = services.presence.find_rooms(&tenant, search, limit);
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
    let (sessions, total) = services.presence.find_sessions(&tenant, &room, search, limit);
    Ok(ListSessionsResponse { sessions, total: total as u64 })
}

pub(super) async fn get_session(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: GetSessionRequest,
) -> Result<GetSessionResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let tenant = auth::tenant(&identity, &request.tenant)?;
    let found = services.presence.find_session(&tenant, &request.session_id);
    let (session, link) = found.ok_or_else(|| Refusal::NoSession(shown(&request.session_id)))?;
    let question = Inspect {
        tenant: session.tenant.clone(),
        user_id: session.user_id.clone(),
        session_id: request.session_id,
        r#ref: 0,
    };
    let answer = match services.bridges.get(link) {
        Some(bridge) => bridge.inspect(question).await,
        None => None,
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
    let expires_at = Timestamp { seconds: i64::try_from(end).unwrap_or(i64::MAX), nanos: 0 };
    Ok(SignTokenResponse { token, expires_at: Some(expires_at) })
}

fn signed_scope(asked: &str) -> Result<&'static str, Refusal> {
    let known = SIGNED_SCOPES.map(Scope::as_str);
    known.into_iter().find(|scope| *scope == asked).ok_or_else(|| {
        Refusal::Invalid(format!("scopes has {:?}: want some of {}", shown(asked), known.join(", ")))
    })
}

/// The tenant of a token that is signed: one that the caller's own token allows.
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
