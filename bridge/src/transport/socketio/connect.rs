//! CONNECT: from a token to a session in its rooms.

use std::sync::Arc;

use engineioxide::DisconnectReason;
use fanfare_proto::v1::{Reason, ReplayRequest, Transport};

use super::{
    EngineSocket, SocketIo, State,
    outlet::{self, Held, Queue, SocketOutlet},
    packet,
};
use crate::{ending::Ending, failure::Failure, session::Session, transport::request::Credentials};

impl SocketIo {
    /// Answers CONNECT. The answer is sent before any event, and every event of the session's rooms after it.
    pub(super) async fn connect(&self, socket: EngineSocket, auth: Option<String>) {
        if let Err(failure) = self.open(&socket, auth).await {
            refuse(&socket, &failure);
        }
    }

    async fn open(&self, socket: &EngineSocket, auth: Option<String>) -> Result<(), Failure> {
        let auth = Auth::read(auth.as_deref());
        let mut entrant = self.sessions.identify(auth.token(socket).as_deref())?;
        let after = match &auth.pid {
            Some(pid) => self.sessions.recover(&mut entrant, pid, &auth.offset).await?,
            None => None,
        };
        let config = &self.sessions.config;
        let queue = Arc::new(Queue::new(socket.clone(), config));
        let held = after.is_some().then(|| Arc::new(Held::new(config)));
        let outlet = Box::new(SocketOutlet::new(queue.clone(), self.sessions.tasks.clone(), held.clone()));
        let accept = |session: &Arc<Session>| {
            let mut state = socket.data.lock();
            let waits = matches!(*state, State::Connecting);
            if waits {
                if held.is_some() {
                    session.hold_calls();
                }
                *state = State::Connected(session.clone());
            }
            waits
        };
        let start = |session: &Session, greetings: Vec<_>| {
            queue.send(packet::connected(session.id(), &session.pid));
            // A session that goes on has been greeted.
            for greeting in greetings.iter().filter(|_| held.is_none()) {
                queue.send(packet::event(greeting));
            }
        };
        let session = self.sessions.open(entrant, Transport::Socketio, outlet, accept, start).await?;
        if let (Some(after), Some(held)) = (after, &held) {
            self.replay(&session, &queue, after, held).await;
            self.sessions.run_calls(&session).await;
        }
        Ok(())
    }

    /// Sends what a recovered session has missed, then what was held back meanwhile.
    async fn replay(&self, session: &Arc<Session>, queue: &Queue, mut after: String, held: &Held) {
        let rooms: Vec<String> = session.rooms().iter().map(|room| room.as_str().to_owned()).collect();
        let tenant = session.tenant.as_str().to_owned();
        loop {
            let request = ReplayRequest { tenant: tenant.clone(), rooms: rooms.clone(), after };
            let page = match self.sessions.link.replay(request).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::debug!(%error, "a replay failed");
                    // It comes back with what it has, or begins anew when that is too little.
                    return session.close(&Ending::new(Reason::Unavailable, Failure::unavailable().message));
                }
            };
            let missed = page.events.iter();
            for event in missed.filter(|e| e.except_sessions.iter().all(|id| id != session.id())) {
                // One that was told to go meanwhile gets nothing behind that.
                if session.is_closed() || !queue.send_when_free(packet::event(event)).await {
                    return;
                }
            }
            after = page.cursor;
            if !page.more {
                break;
            }
        }
        if held.release(queue, &after).is_err() {
            session.close(&Ending::slow());
            self.sessions.link.stats.overflowed(1);
        }
    }
}

fn refuse(socket: &EngineSocket, failure: &Failure) {
    // After a CONNECT_ERROR stock clients stay away; when the connection closes they come back by themselves.
    if matches!(failure.reason, Reason::Unavailable | Reason::Shutdown | Reason::Timeout) {
        tracing::debug!(
            reason = failure.reason.as_str_name(),
            "a session could not be opened; its client comes back"
        );
        socket.close(DisconnectReason::ClosingServer);
        return;
    }
    {
        let mut state = socket.data.lock();
        if !matches!(*state, State::Connecting) {
            return;
        }
        // The client may try again on the same connection, until the connect timeout.
        *state = State::New;
    }
    outlet::send(socket, packet::connect_error("/", failure));
}

/// What a CONNECT packet carries: the user's `token`, and what a stock client adds when it comes back.
#[derive(Debug, Default)]
struct Auth {
    token: Option<String>,
    pid: Option<String>,
    offset: String,
}

impl Auth {
    fn read(text: Option<&str>) -> Self {
        let auth = text.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        let field =
            |name| auth.as_ref().and_then(|auth| auth.get(name)?.as_str()).filter(|text| !text.is_empty());
        let owned = |name| field(name).map(str::to_owned);
        Self { token: owned("token"), pid: owned("pid"), offset: owned("offset").unwrap_or_default() }
    }

    /// The token: `auth.token`, the query's `token`, or the `authorization` header.
    fn token(&self, socket: &EngineSocket) -> Option<String> {
        let parts = &socket.req_parts;
        self.token.clone().or_else(|| Credentials::read(&parts.uri, &parts.headers).token)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_connect_carries_is_read_as_it_is(
            token in proptest::option::of(".{0,20}"),
            pid in proptest::option::of(".{0,20}"),
            offset in proptest::option::of(".{0,20}"),
        ) {
            let mut auth = serde_json::json!({ "token": token, "pid": pid, "offset": offset, "other": { "pid": 1 } });
            auth["more"] = [1, 2].as_slice().into();
            let read = Auth::read(Some(&auth.to_string()));
            prop_assert_eq!(read.token, token.filter(|text| !text.is_empty()));
            prop_assert_eq!(read.pid, pid.filter(|text| !text.is_empty()));
            prop_assert_eq!(read.offset, offset.unwrap_or_default());
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[\\[\\]{}\":,a-z0-9\\\\]{0,40}|.{0,40}") {
            let _any = Auth::read(Some(&text));
        }
    }
}
