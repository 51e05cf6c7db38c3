//! CONNECT: from a token to a session in its rooms.

use std::sync::Arc;

use fanfare_proto::v1::{Delivery, Reason, Transport};

use super::{
    Connection, Member, NAMESPACES_MAX, SocketIo, cut, packet,
    writer::{PacketWriter, form},
};
use crate::{
    refusal::Refusal,
    replay::Replay,
    session::{Namespace, Session},
    sessions::Terminal,
};

impl SocketIo {
    /// Handles a CONNECT; the answer is sent once the session is ready.
    pub(super) fn begin_connect(&self, connection: &Arc<Connection>, name: &str, auth: Option<String>) {
        let Some(namespace) = self.sessions.namespace(name) else {
            return connection.outbox.send_or_end(&packet::invalid_namespace(name));
        };
        {
            let mut state = connection.client.lock();
            let is_again = state.members.iter().any(|member| member.namespace == namespace.name);
            if is_again || state.members.len() == NAMESPACES_MAX {
                drop(state);
                cut(connection, "a second CONNECT, or too many namespaces");
                return;
            }
            state.members.reserve_exact(1);
            state.members.push(Member { namespace: namespace.name.clone(), session: None });
        }
        let (sessions, connection) = (self.sessions.clone(), connection.clone());
        self.sessions.spawn(async move {
            let socketio = Self { sessions };
            if let Err(refusal) = socketio.connect(&connection, &namespace, auth).await {
                refuse(&connection, &namespace.name, &refusal);
            }
        });
    }

    /// Answers CONNECT. The answer precedes all events, and every later event of the session's
    /// rooms follows it.
    async fn connect(
        &self,
        connection: &Arc<Connection>,
        namespace: &Arc<Namespace>,
        auth: Option<String>,
    ) -> Result<(), Refusal> {
        let auth = Auth::read(auth.as_deref());
        let token = auth.token.as_deref().or(connection.token.as_deref());
        let mut admission = self.sessions.identify_in(namespace.clone(), token, connection.address)?;
        admission.user_agent = connection.user_agent.clone();
        let after = match &auth.pid {
            Some(pid) => self.sessions.recover(&mut admission, pid, &auth.offset).await?,
            None => None,
        };
        let name = &namespace.name;
        let writer = PacketWriter { namespace: name.clone(), connection: Arc::downgrade(connection) };
        let is_compressed = connection.is_compressed();
        let terminal = Terminal {
            transport: Transport::Socketio,
            form: Some(form(name, self.sessions.can_recover(), is_compressed)),
            writer: Box::new(writer),
            outbox: connection.outbox.clone(),
            address: connection.address,
            replays: after.is_some(),
        };
        let accept = |session: &Arc<Session>| connection.accept(name, session);
        let start = |session: &Session, greetings: Vec<Delivery>| {
            let answer = packet::connected(name, session.id(), &session.pid);
            connection.outbox.send_or_end(&answer);
            // A recovered session has already been greeted.
            for greeting in greetings.iter().filter(|_| after.is_none()) {
                connection.outbox.send_or_end(&packet::event(greeting, name, true, false));
            }
        };
        let session = self.sessions.open(admission, terminal, accept, start).await?;
        if let Some(after) = after {
            // The session catches up from its cursor; if the log no longer reaches back that far,
            // it is closed.
            let replay = Replay::new(&self.sessions, &session, &after);
            let reset = |_: &str| {
                let message = "the log does not reach back to where the session was";
                session.close(&Refusal::new(Reason::Reset, message));
            };
            if let Err(refusal) = replay.run(reset).await {
                session.close(&refusal);
            }
        }
        Ok(())
    }
}

impl Connection {
    /// Assigns the session to its namespace; false if the connection has ended or has left the
    /// namespace in the meantime.
    fn accept(&self, namespace: &str, session: &Arc<Session>) -> bool {
        let mut state = self.client.lock();
        if state.is_closed {
            return false;
        }
        let member = state.members.iter_mut().find(|member| &*member.namespace == namespace);
        let Some(member) = member.filter(|member| member.session.is_none()) else { return false };
        member.session = Some(session.clone());
        drop(state);
        self.note_connected();
        true
    }

    /// Ends one namespace's session; the last one ends the connection.
    pub(super) fn leave_for(self: &Arc<Self>, namespace: &str, why: &Refusal, farewell: bytes::Bytes) {
        let (session, has_others) = self.client.leave(namespace).unwrap_or_default();
        if has_others {
            self.outbox.send_beyond_limit(farewell);
        } else {
            self.dismiss(why.clone(), farewell);
        }
        if let Some(session) = session {
            self.engine.sessions.depart(&session);
        }
    }
}

fn refuse(connection: &Arc<Connection>, namespace: &str, refusal: &Refusal) {
    // Stock clients do not reconnect after a CONNECT_ERROR; they do when the connection closes.
    let is_passing = matches!(
        refusal.reason,
        Reason::Unavailable | Reason::Shutdown | Reason::Timeout | Reason::Unspecified
    );
    if is_passing {
        let reason = refusal.reason.as_str_name();
        tracing::debug!(reason, "a session could not be opened; its client comes back");
        return connection.cut(refusal.clone());
    }
    // The client may retry on the same connection within the connect timeout.
    connection.client.leave(namespace);
    connection.outbox.send_or_end(&packet::connect_error(namespace, refusal));
}

/// The contents of a CONNECT packet: the user's `token`, and what a stock client adds when it
/// reconnects.
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
