//! What browsers emit: run by the server, one after the other, and answered.

use std::sync::Arc;

use fanfare_proto::{
    room::Room,
    v1::{CallOk, CallRequest, Reason, call_response},
};

use super::{EngineSocket, SocketIo, outlet, packet};
use crate::session::{Emitted, Session};

/// Rooms that every session is in, which its limit does not count.
const OWN_ROOMS: usize = 2;

/// Why a call failed.
struct Failure {
    reason: Reason,
    message: String,
    path: String,
}

impl Failure {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), path: String::new() }
    }
}

/// Tells the peer that a call failed: as the acknowledgement if one is wanted, else as the event `error`.
pub(super) fn fail(socket: &EngineSocket, ack: Option<i64>, reason: Reason, message: &str, path: &str) {
    outlet::send(socket, packet::failure(ack, reason, message, path));
}

impl SocketIo {
    /// Runs a session's calls until none waits.
    pub(super) async fn run_calls(&self, session: &Arc<Session>, socket: &EngineSocket) {
        while let Some(call) = session.next_call() {
            if session.is_closed() {
                continue;
            }
            let ack = call.ack;
            match self.run_call(session, socket, call).await {
                Ok(json) => {
                    if let Some(id) = ack {
                        outlet::send(socket, packet::ack(id, &json));
                    }
                }
                Err(failure) => fail(socket, ack, failure.reason, &failure.message, &failure.path),
            }
        }
    }

    /// Runs one call and gives its acknowledgement.
    async fn run_call(
        &self,
        session: &Arc<Session>,
        socket: &EngineSocket,
        call: Emitted,
    ) -> Result<Vec<u8>, Failure> {
        let request =
            CallRequest { caller: Some(session.caller.clone()), name: call.name, json: call.json.into() };
        let response = self.link.call(request).await.map_err(|_| unavailable())?;
        match response.result {
            Some(call_response::Result::Ok(ok)) => self.apply(session, socket, ok).await,
            Some(call_response::Result::Error(error)) => {
                let reason = error.reason();
                Err(Failure { reason, message: error.message, path: error.path })
            }
            None => Err(Failure::new(Reason::Internal, "the server answered nothing")),
        }
    }

    async fn apply(
        &self,
        session: &Arc<Session>,
        socket: &EngineSocket,
        ok: CallOk,
    ) -> Result<Vec<u8>, Failure> {
        let parse = |rooms: &[String]| rooms.iter().map(|r| Room::new(r)).collect::<Result<Vec<_>, _>>();
        let wrong = |e: fanfare_proto::room::AddressError| Failure::new(Reason::Internal, e.to_string());
        let (join, leave) = (parse(&ok.join).map_err(wrong)?, parse(&ok.leave).map_err(wrong)?);
        for reply in &ok.replies {
            outlet::send(socket, packet::event(reply));
        }
        if !join.is_empty() {
            self.join(session, &join).await?;
        }
        if !leave.is_empty() {
            let left = self.rooms.leave(session, &leave);
            self.link.release(&session.tenant, &left);
        }
        Ok(ok.json.to_vec())
    }

    /// Puts the session into rooms whose events are certain to arrive.
    async fn join(&self, session: &Arc<Session>, rooms: &[Room]) -> Result<(), Failure> {
        let own = session.rooms();
        let new = rooms.iter().filter(|room| !own.contains(room)).count();
        let max = self.config.rooms_per_session_max;
        if own.len() + new > max + OWN_ROOMS {
            return Err(Failure::new(
                Reason::Limit,
                format!("a session can be in {max} rooms at once; leave one first"),
            ));
        }
        let certain =
            tokio::time::timeout(self.config.connect_timeout, self.link.want(&session.tenant, rooms)).await;
        if certain.is_err() {
            self.link.release(&session.tenant, rooms);
            return Err(unavailable());
        }
        let entered = self.rooms.enter(session, rooms, || {});
        let again: Vec<Room> = rooms.iter().filter(|room| !entered.contains(room)).cloned().collect();
        self.link.release(&session.tenant, &again);
        if session.is_closed() {
            self.leave_all(session);
        }
        Ok(())
    }
}

fn unavailable() -> Failure {
    Failure::new(Reason::Unavailable, "no server is reachable at the moment; try again")
}
