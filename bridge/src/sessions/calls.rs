//! Calls that browsers emit: counted, run by the server one after another, and acknowledged.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_proto::{
    room::Room,
    v1::{CallOk, CallRequest, Reason, call_response},
};

use super::{OWN_ROOMS, Sessions};
use crate::{
    access,
    limits::Consequence,
    refusal::Refusal,
    session::{Emission, EnqueueOutcome, Session},
};

/// How long reads from the client pause because it continues despite refusals.
pub(crate) type Pause = Option<Duration>;

impl Sessions {
    /// A session emitted a call.
    pub(crate) fn emit(self: &Arc<Self>, session: &Arc<Session>, call: Emission) -> Pause {
        let ack = call.ack;
        if let Err(refusal) = self.count(session) {
            return self.refuse(session, ack, &refusal);
        }
        match session.enqueue_call(call, self.config.calls_waiting_max) {
            EnqueueOutcome::Run => {
                let (sessions, session) = (self.clone(), session.clone());
                self.spawn(async move { sessions.run_calls(&session).await });
                None
            }
            EnqueueOutcome::Wait => None,
            EnqueueOutcome::Full => {
                let max = self.config.calls_waiting_max;
                let message = format!("more than {max} calls wait; wait for acknowledgements");
                self.refuse(session, ack, &Refusal::new(Reason::Limit, message).over("calls-waiting"))
            }
        }
    }

    /// A session sent something that is not a call.
    pub(crate) fn misuse(&self, session: &Arc<Session>, ack: Option<i64>, refusal: &Refusal) -> Pause {
        let refusal = self.count(session).err().unwrap_or_else(|| refusal.clone());
        self.refuse(session, ack, &refusal)
    }

    /// A session sent something that needs no answer; it counts towards the limits all the same.
    pub(crate) fn ignore(&self, session: &Arc<Session>) -> Pause {
        self.count(session).err().and_then(|refusal| self.refuse(session, None, &refusal))
    }

    fn count(&self, session: &Session) -> Result<(), Refusal> {
        session.limits.count_call()?;
        self.user_limits.count_call(&session.tenant, &session.caller.user_id)
    }

    /// Answers with the refusal; a session that keeps exceeding a limit is closed for good.
    fn refuse(&self, session: &Arc<Session>, ack: Option<i64>, refusal: &Refusal) -> Pause {
        if session.is_closed() {
            return None;
        }
        self.stats.refuse_call(refusal);
        access::call_refused(session, None, refusal);
        match session.limits.count_refusal() {
            Consequence::End => {
                let message = "the session stayed over a limit although it was refused again and again";
                session.close(&Refusal::new(Reason::Abuse, message));
                None
            }
            Consequence::Tell => {
                session.fail(ack, refusal);
                None
            }
            Consequence::Pause(pause) => {
                session.fail(ack, refusal);
                Some(pause)
            }
        }
    }

    /// Runs a session's calls until none is queued.
    pub(crate) async fn run_calls(&self, session: &Arc<Session>) {
        while let Some(call) = session.next_call() {
            if session.is_closed() {
                continue;
            }
            let (ack, name, since) = (call.ack, call.name.clone(), Instant::now());
            let outcome = self.run_call(session, call).await;
            self.stats.count_call(since.elapsed());
            match outcome {
                Ok(answer) => {
                    access::called(session, &name, since.elapsed());
                    if let Some(id) = ack {
                        session.acknowledge(id, &answer);
                    }
                }
                Err(refusal) => {
                    self.stats.refuse_call(&refusal);
                    access::call_refused(session, Some(&name), &refusal);
                    session.fail(ack, &refusal);
                }
            }
        }
    }

    /// Runs one call and returns its acknowledgement.
    async fn run_call(&self, session: &Arc<Session>, call: Emission) -> Result<CallOk, Refusal> {
        if !self.link.is_up() {
            return Err(Refusal::unavailable());
        }
        // The server must know the session's current rooms.
        self.in_time(self.link.applied(session.last_report())).await?;
        let request =
            CallRequest { caller: Some(session.caller.clone()), name: call.name, json: call.json.into() };
        match self.link.call(request).await?.result {
            Some(call_response::Result::Ok(ok)) => self.apply(session, ok).await,
            Some(call_response::Result::Error(error)) => Err(error.into()),
            None => Err(Refusal::new(Reason::Internal, "the server answered nothing")),
        }
    }

    async fn apply(&self, session: &Arc<Session>, mut ok: CallOk) -> Result<CallOk, Refusal> {
        let parse = |rooms: &[String]| rooms.iter().map(|r| Room::new(r)).collect::<Result<Vec<_>, _>>();
        let wrong = |e: fanfare_proto::room::AddressError| Refusal::new(Reason::Internal, e.to_string());
        let (join, leave) = (parse(&ok.join).map_err(wrong)?, parse(&ok.leave).map_err(wrong)?);
        for reply in std::mem::take(&mut ok.replies) {
            session.reply(reply);
        }
        let entered = if ok.state {
            self.join_with_state(session, &join).await?
        } else {
            self.join(session, &join).await?
        };
        let left = self.rooms.leave(session, &leave);
        self.link.release(&session.tenant, &left);
        if session.is_closed() {
            self.depart(session);
            return Err(Refusal::gone());
        }
        if !entered.is_empty() || !left.is_empty() {
            let number = self.link.moved(session.id(), &entered, &left, &ok.catalog);
            session.note_report(number);
            // From now on every query on every bridge sees the change, even after a crash.
            if let Err(refusal) = self.in_time(self.link.durable(number)).await {
                // The change may never become visible elsewhere, so it is undone.
                let left = self.rooms.leave(session, &entered);
                self.link.release(&session.tenant, &left);
                session.note_report(self.link.moved(session.id(), &[], &left, &ok.catalog));
                return Err(refusal);
            }
        }
        Ok(ok)
    }

    /// Adds the session to rooms whose event delivery is guaranteed; returns the rooms that are new
    /// to it.
    pub(super) async fn join(&self, session: &Arc<Session>, rooms: &[Room]) -> Result<Vec<Room>, Refusal> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let own = session.rooms();
        let new = rooms.iter().filter(|room| !own.contains(room)).count();
        let max = self.config.rooms_per_session_max;
        if own.len() + new > max + OWN_ROOMS {
            let message = format!("a session can be in {max} rooms at once; leave one first");
            return Err(Refusal::new(Reason::Limit, message).over("rooms-per-session-max"));
        }
        let certain = self.link.want(&session.tenant, rooms)?;
        if let Err(refusal) = self.in_time(certain).await.and_then(|certain| certain) {
            self.link.release(&session.tenant, rooms);
            return Err(refusal);
        }
        let entered = self.rooms.enter(session, rooms, || {});
        let again: Vec<Room> = rooms.iter().filter(|room| !entered.contains(room)).cloned().collect();
        self.link.release(&session.tenant, &again);
        Ok(entered)
    }
}
