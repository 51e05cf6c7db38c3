//! CONNECT: from a token to a session in its rooms.

use std::sync::Arc;

use base64::Engine as _;
use fanfare_proto::{
    room::{Room, Tenant},
    token::{Identity, TenantScope, TokenError},
    v1::Reason,
};

use super::{EngineSocket, SocketIo, State, outlet, outlet::SocketOutlet, packet};
use crate::session::Session;

/// A verified caller.
struct Entrant {
    identity: Identity,
    tenant: Tenant,
    rooms: [Room; 2],
}

impl SocketIo {
    /// Answers CONNECT. The answer is sent before any event, and every event of the session's rooms after it.
    pub(super) async fn connect(self: Arc<Self>, socket: EngineSocket, auth: Option<String>) {
        let entrant = match self.identify(&socket, auth) {
            Ok(entrant) => entrant,
            Err(error) => {
                if let TokenError::Invalid(why) = &error {
                    tracing::debug!(why, "token refused");
                }
                let message = format!("Authentication failed: {error}");
                return refuse(&socket, &message, error.reason());
            }
        };
        let Entrant { identity, tenant, rooms } = entrant;
        let certain =
            tokio::time::timeout(self.config.connect_timeout, self.link.want(&tenant, &rooms)).await;
        if certain.is_err() {
            self.link.release(&tenant, &rooms);
            return refuse(&socket, "Service unavailable", Reason::Unavailable);
        }
        let outlet = SocketOutlet::new(socket.clone(), self.tasks.clone());
        let session = Arc::new(Session::new(random_id(), tenant, identity, Box::new(outlet)));
        {
            let mut state = socket.data.lock();
            if !matches!(*state, State::Connecting) {
                self.link.release(&session.tenant, &rooms);
                return;
            }
            *state = State::Connected(session.clone());
        }
        self.rooms.enter(&session, &rooms, || outlet::send(&socket, packet::connected(&session.id)));
        self.expiry.watch(&session, self.config.tokens.leeway);
        // It may have gone while it came.
        if session.is_closed() {
            self.expiry.forget(&session, self.config.tokens.leeway);
            self.leave_all(&session);
        }
    }

    fn identify(&self, socket: &EngineSocket, auth: Option<String>) -> Result<Entrant, TokenError> {
        let token = token(socket, auth.as_deref()).ok_or(TokenError::Missing)?;
        let identity = self.verifier.verify(&token)?;
        let TenantScope::One(tenant) = identity.tenant.clone() else {
            return Err(TokenError::Invalid("a session needs one tenant, not all".into()));
        };
        let user = identity.user_id.as_deref();
        let user = user.ok_or_else(|| TokenError::Invalid("a session needs a user id".into()))?;
        let own = Room::user(user).map_err(|e| TokenError::Invalid(e.to_string()))?;
        Ok(Entrant { identity, tenant, rooms: [Room::org(), own] })
    }
}

fn refuse(socket: &EngineSocket, message: &str, reason: Reason) {
    let mut state = socket.data.lock();
    if matches!(*state, State::Connecting) {
        // The client may try again on the same connection, until the connect timeout.
        *state = State::New;
    }
    drop(state);
    outlet::send(socket, packet::connect_error("/", message, reason));
}

/// The token: `auth.token`, the query's `token`, or the `authorization` header.
fn token(socket: &EngineSocket, auth: Option<&str>) -> Option<String> {
    let from_auth = auth.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let from_auth = from_auth.and_then(|auth| auth.get("token")?.as_str().map(str::to_owned));
    let from_query = || {
        let query =
            axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&socket.req_parts.uri).ok()?;
        query.0.into_iter().find(|(name, _)| name == "token").map(|(_, value)| value)
    };
    let from_header = || {
        let header = socket.req_parts.headers.get(http::header::AUTHORIZATION)?;
        header.to_str().ok().map(str::to_owned)
    };
    let present = |token: &String| !token.is_empty();
    from_auth
        .filter(present)
        .or_else(|| from_query().filter(present))
        .or_else(|| from_header().filter(present))
}

/// 128 random bits as text.
fn random_id() -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}
