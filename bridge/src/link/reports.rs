//! Reports changes of this bridge's sessions to the server, in order, and tracks which ones it has
//! applied.
//!
//! Changes are numbered. After a lost link, the next one starts with a full list of sessions, so
//! that no changes need to be stored in the meantime.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
};

use fanfare_proto::{
    room::Room,
    v1::{
        Delivery, LinkRequest, RoomsChanged, SessionChange, SessionChanges, SessionClosed, SessionOpened,
        SessionsApplied, SessionsKept, link_request, session_change::Kind,
    },
};
use tokio::sync::{Notify, oneshot, watch};

use crate::refusal::Refusal;

/// Maximum number of changes in one request.
const CHANGES_MAX: usize = 256;
/// Changes that may be queued for a server that does not accept them; beyond that the link is
/// restarted.
const WAITING_MAX: usize = 200_000;

/// The lock is held briefly: no await under it.
#[derive(Debug)]
pub(super) struct Reports {
    state: Mutex<State>,
    changed: Notify,
    /// The number of the last change that the server has applied, and of the last durable one.
    applied: watch::Sender<u64>,
    durable: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    linked: bool,
    /// Changes that have not been sent; the last one has the number `last`.
    changes: VecDeque<SessionChange>,
    last: u64,
    /// Sessions that are about to be ready, by id.
    opening: HashMap<String, Opening>,
    /// Their ids, by the number of the change that reported them.
    opened: VecDeque<(u64, String)>,
}

#[derive(Debug)]
struct Opening {
    opened: SessionChange,
    answer: oneshot::Sender<Result<Vec<Delivery>, Refusal>>,
}

fn change(session_id: &str, kind: Kind) -> SessionChange {
    SessionChange { session_id: session_id.to_owned(), kind: Some(kind) }
}

fn reach(reached: &watch::Sender<u64>, number: u64) -> impl Future<Output = ()> + Send + use<> {
    let mut reached = reached.subscribe();
    async move {
        // The sender lives as long as the bridge.
        let _ended = reached.wait_for(|reached| *reached >= number).await;
    }
}

impl Reports {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            applied: watch::Sender::new(0),
            durable: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, change: SessionChange) -> u64 {
        let number = self.lock().push(change);
        self.changed.notify_one();
        number
    }

    /// A session is about to be ready; resolves with its greeting events, or the reason for its
    /// refusal.
    pub(super) fn open(
        &self,
        session_id: &str,
        opened: SessionOpened,
    ) -> impl Future<Output = Result<Vec<Delivery>, Refusal>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.lock();
            let opened = change(session_id, Kind::Opened(opened));
            let number = state.push(opened.clone());
            // Without a link, the next one reports all sessions that are opening.
            if state.linked {
                state.opened.push_back((number, session_id.to_owned()));
            }
            state.opening.insert(session_id.to_owned(), Opening { opened, answer });
        }
        self.changed.notify_one();
        async move { answered.await.unwrap_or_else(|_| Err(Refusal::unavailable())) }
    }

    /// A session is ready; returns the number of the change.
    pub(super) fn ready(&self, session_id: &str, opened: SessionOpened) -> u64 {
        self.push(change(session_id, Kind::Opened(opened)))
    }

    /// A session has entered or left rooms; returns the number of the change.
    pub(super) fn rooms(&self, session_id: &str, entered: &[Room], left: &[Room], catalog: &str) -> u64 {
        let texts = |rooms: &[Room]| rooms.iter().map(|r| r.as_str().to_owned()).collect();
        let (entered, left) = (texts(entered), texts(left));
        self.push(change(
            session_id,
            Kind::Rooms(RoomsChanged { entered, left, catalog: catalog.to_owned() }),
        ))
    }

    /// A session has ended, or will not become ready.
    pub(super) fn closed(&self, session_id: &str, left: bool) {
        self.lock().opening.remove(session_id);
        self.push(change(session_id, Kind::Closed(SessionClosed { left })));
    }

    /// Resolves when the server has applied the change with this number.
    pub(super) fn reach_applied(&self, number: u64) -> impl Future<Output = ()> + Send + use<> {
        reach(&self.applied, number)
    }

    /// Resolves when the change with this number survives a crash of the bridge or the server.
    pub(super) fn reach_durable(&self, number: u64) -> impl Future<Output = ()> + Send + use<> {
        reach(&self.durable, number)
    }

    /// Resolves when there is something to send.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Requests to send; empty while there is no link.
    pub(super) fn take(&self) -> Vec<LinkRequest> {
        self.lock().take()
    }

    /// Number of changes queued for a server, and the limit.
    pub(super) fn usage(&self) -> (usize, usize) {
        (self.lock().changes.len(), WAITING_MAX)
    }

    /// Whether the server is too far behind in accepting changes.
    pub(super) fn are_too_many(&self) -> bool {
        self.lock().changes.len() > WAITING_MAX
    }

    /// A link is established: it gets all ready sessions, as returned by `sessions`, and all
    /// sessions that are about to be ready.
    pub(super) fn link(&self, sessions: impl FnOnce() -> Vec<(String, SessionOpened)>) -> Vec<LinkRequest> {
        let mut state = self.lock();
        state.linked = true;
        state.changes.clear();
        state.opened.clear();
        // Under the lock: a concurrent change is reported afterwards, and may be reported twice.
        for (session_id, opened) in sessions() {
            state.push(change(&session_id, Kind::Opened(opened)));
        }
        let opening: Vec<SessionChange> = state.opening.values().map(|one| one.opened.clone()).collect();
        for opened in opening {
            let id = opened.session_id.clone();
            let number = state.push(opened);
            state.opened.push_back((number, id));
        }
        if state.changes.is_empty() {
            // Waits for earlier changes must end.
            let last = state.last;
            self.applied.send_replace(last);
            self.durable.send_replace(last);
        }
        state.take()
    }

    /// The link is lost.
    pub(super) fn unlink(&self) {
        let mut state = self.lock();
        state.linked = false;
        state.changes = VecDeque::new();
        // The server may have discarded the sessions of this link, so no change counts as applied.
        self.applied.send_replace(0);
        self.durable.send_replace(0);
    }

    /// The server has applied changes.
    pub(super) fn apply(&self, answer: SessionsApplied) {
        let mut greetings: HashMap<String, Result<Vec<Delivery>, Refusal>> = HashMap::new();
        for greeting in answer.greetings {
            let outcome = greeting.refused.map_or(Ok(greeting.events), |error| Err(error.into()));
            greetings.insert(greeting.session_id, outcome);
        }
        let mut state = self.lock();
        while state.opened.front().is_some_and(|(number, _)| *number <= answer.r#ref) {
            let Some((_, id)) = state.opened.pop_front() else { break };
            if let Some(opening) = state.opening.remove(&id) {
                // The receiver may have been dropped.
                let _gone = opening.answer.send(greetings.remove(&id).unwrap_or_else(|| Ok(Vec::new())));
            }
        }
        drop(state);
        self.applied.send_replace(answer.r#ref);
    }

    /// The server confirms that changes are durable.
    pub(super) fn note_durable(&self, answer: &SessionsKept) {
        self.durable.send_replace(answer.r#ref);
    }
}

impl State {
    fn push(&mut self, change: SessionChange) -> u64 {
        self.last += 1;
        if self.linked {
            self.changes.push_back(change);
        }
        self.last
    }

    fn take(&mut self) -> Vec<LinkRequest> {
        let mut number = self.last - self.changes.len() as u64;
        let mut requests = Vec::new();
        while !self.changes.is_empty() {
            let count = self.changes.len().min(CHANGES_MAX);
            let changes: Vec<_> = self.changes.drain(..count).collect();
            number += count as u64;
            let kind = link_request::Kind::Sessions(SessionChanges { r#ref: number, changes });
            requests.push(LinkRequest { kind: Some(kind) });
        }
        requests
    }
}

#[cfg(test)]
mod tests {
    use fanfare_proto::v1::{CallError, Greeting, Reason};
    use futures_util::FutureExt as _;

    use super::*;

    fn ready() -> SessionOpened {
        SessionOpened { ready: true, ..SessionOpened::default() }
    }

    fn read(requests: Vec<LinkRequest>) -> Vec<(u64, Vec<String>)> {
        let ids = |changes: SessionChanges| {
            let of = |change: SessionChange| match change.kind {
                Some(Kind::Opened(opened)) if opened.ready => format!("{} ready", change.session_id),
                Some(Kind::Opened(_)) => format!("{} opens", change.session_id),
                Some(Kind::Rooms(_)) => format!("{} moves", change.session_id),
                Some(Kind::Closed(_)) | None => format!("{} closes", change.session_id),
            };
            (changes.r#ref, changes.changes.into_iter().map(of).collect())
        };
        let kind = |request: LinkRequest| match request.kind {
            Some(link_request::Kind::Sessions(changes)) => ids(changes),
            other => panic!("not about sessions: {other:?}"),
        };
        requests.into_iter().map(kind).collect()
    }

    fn applied(reports: &Reports, number: u64, greetings: Vec<Greeting>) {
        reports.apply(SessionsApplied { r#ref: number, greetings });
    }

    #[test]
    fn an_opening_is_answered_with_its_greeting_or_refusal() {
        let reports = Reports::new();
        reports.link(Vec::new);
        let mut waits = ["a", "b", "c"].map(|id| Box::pin(reports.open(id, SessionOpened::default())));
        assert_eq!(read(reports.take()), [(3, vec!["a opens".into(), "b opens".into(), "c opens".into()])]);
        let greeting = |id: &str, events, refused| Greeting { session_id: id.into(), events, refused };
        let error = CallError { reason: Reason::Limit.into(), ..CallError::default() };
        let greetings =
            vec![greeting("b", Vec::new(), Some(error)), greeting("a", vec![Delivery::default()], None)];
        applied(&reports, 2, greetings);
        let [a, b, c] = &mut waits;
        assert_eq!(a.now_or_never().unwrap().unwrap().len(), 1);
        assert_eq!(b.now_or_never().unwrap().unwrap_err().reason, Reason::Limit);
        assert!(c.now_or_never().is_none());
    }

    #[test]
    fn a_new_link_gets_all_sessions_and_settles_what_was_under_way() {
        let reports = Reports::new();
        reports.link(Vec::new);
        let mut opening = Box::pin(reports.open("b", SessionOpened::default()));
        let number = reports.rooms("a", &[Room::org()], &[], "");
        let mut settled = Box::pin(reports.reach_applied(number));
        reports.take();
        reports.unlink();
        reports.closed("z", false);
        assert!(reports.take().is_empty(), "nothing is kept without a link");
        let requests = read(reports.link(|| vec![("a".into(), ready())]));
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].1, ["a ready", "b opens"]);
        assert!((&mut settled).now_or_never().is_none() && (&mut opening).now_or_never().is_none());
        applied(&reports, requests[0].0, Vec::new());
        assert!(settled.now_or_never().is_some());
        assert!(opening.now_or_never().unwrap().is_ok());
    }

    #[test]
    fn a_new_link_without_sessions_keeps_nobody_waiting() {
        let reports = Reports::new();
        let number = reports.rooms("a", &[Room::org()], &[], "");
        assert!(reports.link(Vec::new).is_empty());
        assert!(reports.reach_applied(number).now_or_never().is_some());
    }
}
