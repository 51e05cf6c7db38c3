//! What browsers emit: counted, run by the server one after the other, and answered.

use std::sync::{Arc, atomic::Ordering};

use fanfare_proto::{
    room::Room,
    v1::{CallOk, CallRequest, Reason, call_response},
};

use crate::{
    ending::Ending,
    failure::Failure,
    session::{Emitted, Queued, Session},
    sessions::{OWN_ROOMS, Sessions},
};

impl Sessions {
    /// A session emitted something.
    pub(crate) fn emitted(self: &Arc<Self>, session: &Arc<Session>, call: Emitted) {
        let ack = call.ack;
        if let Err(failure) = self.count(session) {
            return self.refuse(session, ack, &failure);
        }
        match session.queue_call(call, self.config.calls_waiting_max) {
            Queued::Run => {
                let (sessions, session) = (self.clone(), session.clone());
                self.spawn(async move { sessions.run_calls(&session).await });
            }
            Queued::Waits => {}
            Queued::Full => {
                let max = self.config.calls_waiting_max;
                let message = format!("more than {max} calls wait; wait for acknowledgements");
                self.refuse(session, ack, &Failure::new(Reason::Limit, message));
            }
        }
    }

    /// A session sent something that is no call.
    pub(crate) fn misused(&self, session: &Arc<Session>, ack: Option<i64>, failure: &Failure) {
        let failure = self.count(session).err().unwrap_or_else(|| failure.clone());
        self.refuse(session, ack, &failure);
    }

    /// A session sent something that needs no answer; it counts all the same.
    pub(crate) fn ignored(&self, session: &Arc<Session>) {
        if let Err(failure) = self.count(session) {
            self.refuse(session, None, &failure);
        }
    }

    fn count(&self, session: &Session) -> Result<(), Failure> {
        session.limits.check()?;
        self.user_limits.check(&session.tenant, &session.caller.user_id)
    }

    /// Answers with the failure; a session that is refused again and again is closed for good.
    fn refuse(&self, session: &Arc<Session>, ack: Option<i64>, failure: &Failure) {
        if session.is_closed() {
            return;
        }
        if session.limits.bear() {
            return session.outlet.fail(ack, failure);
        }
        let message = "the session went on although it was refused again and again";
        session.close(&Ending::new(Reason::Abuse, message));
    }

    /// Runs a session's calls until none waits.
    pub(crate) async fn run_calls(&self, session: &Arc<Session>) {
        while let Some(call) = session.next_call() {
            if session.is_closed() {
                continue;
            }
            let ack = call.ack;
            match self.run_call(session, call).await {
                Ok(json) => {
                    if let Some(id) = ack {
                        session.outlet.acknowledge(id, &json);
                    }
                }
                Err(failure) => session.outlet.fail(ack, &failure),
            }
        }
    }

    /// Runs one call and gives its acknowledgement.
    async fn run_call(&self, session: &Arc<Session>, call: Emitted) -> Result<Vec<u8>, Failure> {
        if !self.link.is_up() {
            return Err(Failure::unavailable());
        }
        // The server must know of the session what the session knows of itself.
        self.in_time(self.link.settled(session.report.load(Ordering::Acquire))).await?;
        let request =
            CallRequest { caller: Some(session.caller.clone()), name: call.name, json: call.json.into() };
        let response = self.link.call(request).await.map_err(|_| Failure::unavailable())?;
        match response.result {
            Some(call_response::Result::Ok(ok)) => self.apply(session, ok).await,
            Some(call_response::Result::Error(error)) => Err(error.into()),
            None => Err(Failure::new(Reason::Internal, "the server answered nothing")),
        }
    }

    async fn apply(&self, session: &Arc<Session>, ok: CallOk) -> Result<Vec<u8>, Failure> {
        let parse = |rooms: &[String]| rooms.iter().map(|r| Room::new(r)).collect::<Result<Vec<_>, _>>();
        let wrong = |e: fanfare_proto::room::AddressError| Failure::new(Reason::Internal, e.to_string());
        let (join, leave) = (parse(&ok.join).map_err(wrong)?, parse(&ok.leave).map_err(wrong)?);
        for reply in ok.replies {
            session.outlet.reply(reply);
        }
        let entered = self.join(session, &join).await?;
        let left = self.rooms.leave(session, &leave);
        self.link.release(&session.tenant, &left);
        if session.is_closed() {
            self.depart(session);
            return Err(Failure::new(Reason::Unspecified, "the session has gone"));
        }
        if !entered.is_empty() || !left.is_empty() {
            let number = self.link.moved(session.id(), &entered, &left, &ok.catalog);
            session.reported(number);
            // Whoever asks from now on, on whichever bridge, learns of it, also after a crash.
            if let Err(failure) = self.in_time(self.link.durable(number)).await {
                // Nobody else may ever learn of it: it has not happened.
                let left = self.rooms.leave(session, &entered);
                self.link.release(&session.tenant, &left);
                session.reported(self.link.moved(session.id(), &[], &left, &ok.catalog));
                return Err(failure);
            }
        }
        Ok(ok.json.to_vec())
    }

    /// Puts the session into rooms whose events are certain to arrive; gives those it was not in.
    async fn join(&self, session: &Arc<Session>, rooms: &[Room]) -> Result<Vec<Room>, Failure> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let own = session.rooms();
        let new = rooms.iter().filter(|room| !own.contains(room)).count();
        let max = self.config.rooms_per_session_max;
        if own.len() + new > max + OWN_ROOMS {
            let message = format!("a session can be in {max} rooms at once; leave one first");
            return Err(Failure::new(Reason::Limit, message));
        }
        let certain = self.link.want(&session.tenant, rooms)?;
        if let Err(failure) = self.in_time(certain).await {
            self.link.release(&session.tenant, rooms);
            return Err(failure);
        }
        let entered = self.rooms.enter(session, rooms, || {});
        let again: Vec<Room> = rooms.iter().filter(|room| !entered.contains(room)).cloned().collect();
        self.link.release(&session.tenant, &again);
        Ok(entered)
    }
}
