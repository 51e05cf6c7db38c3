//! Which rooms are wanted, which of them the server was asked for, and how far each tenant was
//! read.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fanfare_proto::{
    room::{Room, Tenant},
    v1::{Interest, InterestApplied, LinkRequest, Reason, link_request},
};
use tokio::sync::{Notify, oneshot};

use crate::refusal::Refusal;

/// Number of abandoned waits for a room that may remain stored.
const WAITING_KEPT: usize = 16;
/// Maximum number of rooms that a bridge follows; servers accept somewhat more.
const ROOMS_MAX: usize = 990_000;
/// Bytes of their names. When a link begins, all names of a tenant go into one message, and a
/// message may have 64 MiB.
const ROOM_BYTES_MAX: usize = 48 << 20;
/// What a room's name costs in a message in addition to its text.
const ROOM_BYTES: usize = 4;

/// The lock is held briefly: no await and no delivery under it.
#[derive(Debug)]
pub(super) struct Interests {
    state: Mutex<State>,
    changed: Notify,
    linger: Duration,
    rooms_per_tenant_max: usize,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<Tenant, Followed>,
    /// Rooms to ask for.
    asked: Vec<(Tenant, Room)>,
    /// Rooms that are no longer wanted, each with the time of its last release and a serial number.
    idle: VecDeque<(Instant, u32, Tenant, Room)>,
    idle_serial: u32,
    /// Requests in progress.
    unanswered: HashMap<u64, (Tenant, Vec<Room>)>,
    next_ref: u64,
    linked: bool,
    size: Size,
}

/// A number of rooms, and the bytes of their names.
#[derive(Debug, Default, Clone, Copy)]
struct Size {
    rooms: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Followed {
    rooms: HashMap<Room, Wanted>,
    /// How far the tenant was read; empty before the first answer.
    cursor: String,
}

/// Kept small: there is one per room.
#[derive(Debug, Default)]
struct Wanted {
    /// The latest request that asked for the room. Answers to earlier requests, from before the
    /// room was dropped, are ignored.
    asked: u64,
    waiting: Option<Box<Waiting>>,
    count: u32,
    /// The serial number of its entry in `idle`; 0: the room is wanted.
    idle: u32,
    /// The server was asked, or is about to be.
    is_asked: bool,
    /// The server has confirmed the room over this link.
    is_applied: bool,
    /// The server has confirmed the room over any link: its events are due from the tenant's cursor
    /// on.
    is_followed: bool,
}

/// The tasks that wait for an answer.
#[derive(Debug, Default)]
struct Waiting {
    answers: Vec<oneshot::Sender<Result<(), Refusal>>>,
    /// The number of waits at which abandoned ones are removed.
    sweep_at: usize,
}

impl Wanted {
    fn wait(&mut self) -> oneshot::Receiver<Result<(), Refusal>> {
        let waiting = self.waiting.get_or_insert_default();
        if waiting.answers.len() >= waiting.sweep_at {
            waiting.answers.retain(|answer| !answer.is_closed());
            waiting.sweep_at = 2 * waiting.answers.len() + WAITING_KEPT;
        }
        let (answer, answered) = oneshot::channel();
        waiting.answers.push(answer);
        answered
    }

    fn answer(&mut self, outcome: &Result<(), Refusal>) {
        for answer in self.waiting.take().into_iter().flat_map(|waiting| waiting.answers) {
            // The receiver may have been dropped.
            let _gone = answer.send(outcome.clone());
        }
    }
}

impl Interests {
    pub(super) fn new(linger: Duration, rooms_per_tenant_max: usize) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), linger, rooms_per_tenant_max }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants rooms, or refuses them if there are already too many.
    pub(super) fn want(
        &self,
        tenant: &Tenant,
        rooms: &[Room],
    ) -> Result<impl Future<Output = Result<(), Refusal>> + Send + use<>, Refusal> {
        let mut answers = Vec::new();
        {
            let mut state = self.lock();
            state.grow(tenant, rooms, self.rooms_per_tenant_max)?;
            let State { tenants, asked, linked, .. } = &mut *state;
            let followed = tenants.entry(tenant.clone()).or_default();
            for room in rooms {
                let wanted = followed.rooms.entry(room.clone()).or_default();
                wanted.count += 1;
                wanted.idle = 0;
                if !wanted.is_applied {
                    answers.push(wanted.wait());
                }
                // A new link asks for every room anyway.
                if !wanted.is_asked && *linked {
                    wanted.is_asked = true;
                    asked.push((tenant.clone(), room.clone()));
                }
            }
        }
        if !answers.is_empty() {
            self.changed.notify_one();
        }
        Ok(async move {
            for answer in answers {
                // The answer is lost only if the bridge ends or the room was dropped.
                answer.await.unwrap_or_else(|_| Err(Refusal::unavailable()))?;
            }
            Ok(())
        })
    }

    pub(super) fn release(&self, tenant: &Tenant, rooms: &[Room]) {
        let mut guard = self.lock();
        let State { tenants, idle, idle_serial, .. } = &mut *guard;
        let now = Instant::now();
        let Some(followed) = tenants.get_mut(tenant) else { return };
        for room in rooms {
            let Some(wanted) = followed.rooms.get_mut(room) else { continue };
            wanted.count = wanted.count.saturating_sub(1);
            if wanted.count == 0 {
                *idle_serial = idle_serial.checked_add(1).unwrap_or(1);
                wanted.idle = *idle_serial;
                idle.push_back((now, *idle_serial, tenant.clone(), room.clone()));
            }
        }
    }

    /// Resolves when there are rooms to ask for.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Requests for the rooms to ask for; empty while there is no link.
    pub(super) fn additions(&self) -> Vec<LinkRequest> {
        let mut state = self.lock();
        if !state.linked {
            return Vec::new();
        }
        let mut by_tenant: HashMap<Tenant, Vec<Room>> = HashMap::new();
        for (tenant, room) in std::mem::take(&mut state.asked) {
            // The room may have been dropped.
            if state.tenants.get(&tenant).is_some_and(|followed| followed.rooms.contains_key(&room)) {
                by_tenant.entry(tenant).or_default().push(room);
            }
        }
        by_tenant.into_iter().map(|(tenant, rooms)| state.request(tenant, rooms, String::new())).collect()
    }

    /// Requests to drop the rooms that have not been wanted for a while.
    pub(super) fn drops(&self) -> Vec<LinkRequest> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut by_tenant: HashMap<Tenant, Vec<String>> = HashMap::new();
        while state.idle.front().is_some_and(|(since, ..)| since.elapsed() >= self.linger) {
            let Some((_, serial, tenant, room)) = state.idle.pop_front() else { break };
            let Some(followed) = state.tenants.get_mut(&tenant) else { continue };
            // If the room was wanted again, or became idle again later, a later entry exists.
            if followed.rooms.get(&room).is_some_and(|wanted| wanted.idle == serial) {
                followed.rooms.remove(&room);
                state.size.rooms -= 1;
                state.size.bytes -= room.as_str().len() + ROOM_BYTES;
                if followed.rooms.is_empty() {
                    state.tenants.remove(&tenant);
                }
                by_tenant.entry(tenant).or_default().push(room.as_str().to_owned());
            }
        }
        if !state.linked {
            return Vec::new();
        }
        let request = |(tenant, drop): (Tenant, Vec<String>)| {
            interest(Interest { tenant: tenant.as_str().to_owned(), drop, ..Interest::default() })
        };
        by_tenant.into_iter().map(request).collect()
    }

    /// A link is established. Returns requests for the followed rooms, after each tenant's cursor.
    /// Rooms that were never confirmed become [additions](Self::additions), followed from now on: a
    /// session that has entered one in the meantime gets no older events.
    pub(super) fn link(&self) -> Vec<LinkRequest> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.linked = true;
        state.asked.clear();
        let mut followed = Vec::new();
        for (tenant, of_tenant) in &mut state.tenants {
            let mut known = Vec::new();
            for (room, wanted) in &mut of_tenant.rooms {
                wanted.is_asked = true;
                if wanted.is_followed {
                    known.push(room.clone());
                } else {
                    state.asked.push((tenant.clone(), room.clone()));
                }
            }
            if !known.is_empty() {
                followed.push((tenant.clone(), known, of_tenant.cursor.clone()));
            }
        }
        followed.into_iter().map(|(tenant, rooms, cursor)| state.request(tenant, rooms, cursor)).collect()
    }

    /// The link is lost: no room is confirmed any more.
    pub(super) fn unlink(&self) {
        let mut state = self.lock();
        state.linked = false;
        state.unanswered.clear();
        for wanted in state.tenants.values_mut().flat_map(|f| f.rooms.values_mut()) {
            wanted.is_applied = false;
            wanted.is_asked = false;
        }
    }

    /// The server has confirmed or refused a request. Returns the tenant and the reason if it
    /// refuses rooms that were followed before.
    pub(super) fn apply(&self, answer: InterestApplied) -> Option<(Tenant, Refusal)> {
        let mut state = self.lock();
        let (tenant, rooms) = state.unanswered.remove(&answer.r#ref)?;
        let followed = state.tenants.get_mut(&tenant)?;
        let outcome = answer.refused.map_or(Ok(()), |error| Err(Refusal::from(error)));
        if outcome.is_ok() {
            followed.cursor = answer.cursor;
        }
        let mut was_followed = false;
        for room in rooms {
            let wanted = followed.rooms.get_mut(&room);
            let Some(wanted) = wanted.filter(|wanted| wanted.asked == answer.r#ref) else { continue };
            was_followed |= wanted.is_followed;
            wanted.is_applied = outcome.is_ok();
            wanted.is_followed = outcome.is_ok();
            wanted.is_asked = outcome.is_ok();
            wanted.answer(&outcome);
        }
        outcome.err().filter(|_| was_followed).map(|why| (tenant, why))
    }

    /// The number of followed rooms and its limit, and the number for the tenant with the most.
    pub(super) fn usage(&self) -> ((usize, usize), usize) {
        let state = self.lock();
        let fullest = state.tenants.values().map(|followed| followed.rooms.len()).max();
        ((state.size.rooms, ROOMS_MAX), fullest.unwrap_or_default())
    }

    /// A tenant's events were delivered up to the cursor.
    pub(super) fn reach(&self, tenant: &Tenant, cursor: String) {
        if let Some(followed) = self.lock().tenants.get_mut(tenant) {
            followed.cursor = cursor;
        }
    }
}

impl State {
    /// Counts rooms that are not followed yet.
    fn grow(&mut self, tenant: &Tenant, rooms: &[Room], per_tenant_max: usize) -> Result<(), Refusal> {
        let known = self.tenants.get(tenant);
        let is_new = |room: &&Room| known.is_none_or(|followed| !followed.rooms.contains_key(*room));
        // Each room is counted once.
        let new: HashSet<&Room> = rooms.iter().filter(is_new).collect();
        if known.map_or(0, |followed| followed.rooms.len()) + new.len() > per_tenant_max {
            let message =
                format!("the tenant is in {per_tenant_max} rooms on this bridge, as many as it may");
            return Err(Refusal::new(Reason::Limit, message).over("rooms-per-tenant-max"));
        }
        let size = Size {
            rooms: self.size.rooms + new.len(),
            bytes: self.size.bytes + new.iter().map(|room| room.as_str().len() + ROOM_BYTES).sum::<usize>(),
        };
        if size.rooms > ROOMS_MAX || size.bytes > ROOM_BYTES_MAX {
            let message = "the bridge has as many rooms as it can follow; try another one";
            return Err(Refusal::new(Reason::Limit, message).over("rooms"));
        }
        self.size = size;
        Ok(())
    }

    fn request(&mut self, tenant: Tenant, rooms: Vec<Room>, after: String) -> LinkRequest {
        self.next_ref += 1;
        let unique: HashSet<&Room> = rooms.iter().collect();
        let add = unique.into_iter().map(|r| r.as_str().to_owned()).collect();
        let request = Interest {
            tenant: tenant.as_str().to_owned(),
            add,
            drop: Vec::new(),
            after,
            r#ref: self.next_ref,
        };
        if let Some(followed) = self.tenants.get_mut(&tenant) {
            for room in &rooms {
                if let Some(wanted) = followed.rooms.get_mut(room) {
                    wanted.asked = self.next_ref;
                }
            }
        }
        self.unanswered.insert(self.next_ref, (tenant, rooms));
        interest(request)
    }
}

fn interest(interest: Interest) -> LinkRequest {
    LinkRequest { kind: Some(link_request::Kind::Interest(interest)) }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn names(tenant: &str, rooms: &[&str]) -> (Tenant, Vec<Room>) {
        (Tenant::new(tenant).unwrap(), rooms.iter().map(|r| Room::new(r).unwrap()).collect())
    }

    fn read(requests: Vec<LinkRequest>) -> Vec<Interest> {
        let kind = |request: LinkRequest| match request.kind {
            Some(link_request::Kind::Interest(interest)) => interest,
            other => panic!("not an interest: {other:?}"),
        };
        requests.into_iter().map(kind).collect()
    }

    fn answer(interests: &Interests, request: &Interest, cursor: &str) {
        let (r#ref, tenant) = (request.r#ref, request.tenant.clone());
        let _ended =
            interests.apply(InterestApplied { r#ref, tenant, cursor: cursor.to_owned(), refused: None });
    }

    #[test]
    fn a_want_is_certain_once_the_server_has_answered() {
        let interests = Interests::new(Duration::ZERO, usize::MAX);
        assert!(interests.link().is_empty());
        let (tenant, rooms) = names("1", &["org", "user:7"]);
        let mut want = Box::pin(interests.want(&tenant, &rooms).unwrap());
        let asked = read(interests.additions());
        assert_eq!((asked.len(), asked[0].add.len(), asked[0].after.as_str()), (1, 2, ""));
        assert!((&mut want).now_or_never().is_none());
        answer(&interests, &asked[0], "c1");
        assert!(want.now_or_never().is_some());
        // A second want for the same rooms does not wait, and no room is requested twice.
        assert!(interests.want(&tenant, &rooms).unwrap().now_or_never().is_some());
        assert!(interests.additions().is_empty());
    }

    #[test]
    fn a_new_link_asks_for_everything_after_the_cursor_once() {
        let interests = Interests::new(Duration::ZERO, usize::MAX);
        interests.link();
        let (tenant, rooms) = names("1", &["org"]);
        let _certain = interests.want(&tenant, &rooms).unwrap();
        answer(&interests, &read(interests.additions())[0], "c1");
        interests.reach(&tenant, "c2".into());
        interests.unlink();
        let (_, more) = names("1", &["chat:7"]);
        let mut waits = Box::pin(interests.want(&tenant, &more).unwrap());
        assert!(interests.additions().is_empty());
        // Rooms that were never confirmed are requested last, without replay.
        let asked = read([interests.link(), interests.additions()].concat());
        let brief: Vec<_> = asked.iter().map(|i| (i.add.concat(), i.after.as_str())).collect();
        assert_eq!(brief, [("org".to_owned(), "c2"), ("chat:7".to_owned(), "")]);
        answer(&interests, &asked[0], "c2");
        assert!((&mut waits).now_or_never().is_none());
        answer(&interests, &asked[1], "c3");
        assert!(waits.now_or_never().is_some());
        assert!(interests.additions().is_empty());
    }

    #[test]
    fn rooms_are_bounded_in_number_and_bytes() {
        let tenant = Tenant::new("1").unwrap();
        let numbered = |range: std::ops::Range<usize>, width: usize| -> Vec<Room> {
            range.map(|n| Room::new(&format!("chat:{n:0width$}")).unwrap()).collect()
        };
        for width in [1, 120] {
            let interests = Interests::new(Duration::ZERO, usize::MAX);
            let mut kept = 0;
            let refused = loop {
                match interests.want(&tenant, &numbered(kept..kept + 10_000, width)) {
                    Ok(_) => kept += 10_000,
                    Err(failure) => break failure,
                }
            };
            assert_eq!(refused.reason, Reason::Limit);
            assert!(kept == 990_000 || kept * 129 > ROOM_BYTES_MAX - 129 * 10_000, "{kept}");
            // Rooms that are already followed cost nothing, and a dropped room makes space.
            assert!(interests.want(&tenant, &numbered(0..10_000, width)).is_ok());
            for _ in 0..2 {
                interests.release(&tenant, &numbered(0..10_000, width));
            }
            assert!(interests.drops().is_empty());
            assert!(interests.want(&tenant, &numbered(kept..kept + 10_000, width)).is_ok());
        }
    }

    #[test]
    fn an_answer_from_before_the_drop_says_nothing_about_the_room_wanted_again() {
        let interests = Interests::new(Duration::ZERO, usize::MAX);
        interests.link();
        let (tenant, rooms) = names("1", &["chat:7"]);
        let _gone = interests.want(&tenant, &rooms).unwrap();
        let first = read(interests.additions());
        interests.release(&tenant, &rooms);
        assert_eq!(read(interests.drops())[0].drop, ["chat:7"]);
        let mut again = Box::pin(interests.want(&tenant, &rooms).unwrap());
        let second = read(interests.additions());
        answer(&interests, &first[0], "c1");
        assert!((&mut again).now_or_never().is_none(), "certain before the server has it");
        answer(&interests, &second[0], "c2");
        assert!(again.now_or_never().is_some());
    }

    #[test]
    fn wants_without_a_link_leave_nothing_behind() {
        let interests = Interests::new(Duration::ZERO, usize::MAX);
        let (tenant, rooms) = names("1", &["user:7"]);
        for _ in 0..100 {
            let _gone = interests.want(&tenant, &rooms).unwrap();
            interests.release(&tenant, &rooms);
            assert!(interests.drops().is_empty());
        }
        let state = interests.lock();
        assert!(state.asked.is_empty() && state.tenants.is_empty() && state.idle.is_empty());
    }

    #[test]
    fn a_room_wanted_again_while_it_lingers_is_not_dropped() {
        let interests = Interests::new(Duration::ZERO, usize::MAX);
        interests.link();
        let (tenant, rooms) = names("1", &["chat:7"]);
        let _first = interests.want(&tenant, &rooms).unwrap();
        answer(&interests, &read(interests.additions())[0], "c1");
        interests.release(&tenant, &rooms);
        assert!(interests.want(&tenant, &rooms).unwrap().now_or_never().is_some());
        assert!(interests.drops().is_empty());
    }
}
