//! CONNECT: from a token to a session in its rooms.

use std::sync::Arc;

use fanfare_proto::v1::{Reason, Transport};

use super::{EngineSocket, SocketIo, State, outlet, outlet::SocketOutlet, packet};
use crate::{failure::Failure, session::Session, transport::request::Credentials};

impl SocketIo {
    /// Answers CONNECT. The answer is sent before any event, and every event of the session's rooms after it.
    pub(super) async fn connect(&self, socket: EngineSocket, auth: Option<String>) {
        if let Err(failure) = self.open(&socket, auth).await {
            refuse(&socket, &failure);
        }
    }

    async fn open(&self, socket: &EngineSocket, auth: Option<String>) -> Result<(), Failure> {
        let entrant = self.sessions.identify(token(socket, auth.as_deref()).as_deref())?;
        let outlet = Box::new(SocketOutlet::new(socket.clone(), self.sessions.tasks.clone()));
        let accept = |session: &Arc<Session>| {
            let mut state = socket.data.lock();
            let waits = matches!(*state, State::Connecting);
            if waits {
                *state = State::Connected(session.clone());
            }
            waits
        };
        let start = |session: &Session, greetings: Vec<_>| {
            outlet::send(socket, packet::connected(session.id()));
            for greeting in &greetings {
                outlet::send(socket, packet::event(greeting));
            }
        };
        self.sessions.open(entrant, Transport::Socketio, outlet, accept, start).await?;
        Ok(())
    }
}

fn refuse(socket: &EngineSocket, failure: &Failure) {
    {
        let mut state = socket.data.lock();
        if !matches!(*state, State::Connecting) {
            return;
        }
        // The client may try again on the same connection, until the connect timeout.
        *state = State::New;
    }
    let failure = match failure.reason {
        Reason::Unavailable => Failure { message: "Service unavailable".into(), ..failure.clone() },
        _ => failure.clone(),
    };
    outlet::send(socket, packet::connect_error("/", &failure));
}

/// The token: `auth.token`, the query's `token`, or the `authorization` header.
fn token(socket: &EngineSocket, auth: Option<&str>) -> Option<String> {
    let auth = auth.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let from_auth = auth.and_then(|auth| auth.get("token")?.as_str().map(str::to_owned));
    let parts = &socket.req_parts;
    from_auth
        .filter(|token| !token.is_empty())
        .or_else(|| Credentials::read(&parts.uri, &parts.headers).token)
}
