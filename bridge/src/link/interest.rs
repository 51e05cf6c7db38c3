//! Which rooms are wanted, what the server has been asked for, and how far each tenant has been read.

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

use crate::failure::Failure;

/// Who waits for a room and has given up: so many may be kept.
const WAITING_KEPT: usize = 16;
/// Rooms that a bridge follows at most; servers take somewhat more.
const ROOMS_MAX: usize = 990_000;
/// Their names' bytes: all of a tenant go into one message when a link begins, and a message may have 64 MiB.
const ROOM_BYTES_MAX: usize = 48 << 20;
/// What a room's name costs in a message besides its text.
const ROOM_BYTES: usize = 4;

/// The lock is short: no await, no delivery under it.
#[derive(Debug)]
pub(super) struct Interests {
    state: Mutex<State>,
    changed: Notify,
    linger: Duration,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<Tenant, Followed>,
    /// Rooms to ask for.
    asked: Vec<(Tenant, Room)>,
    /// Rooms that nobody wanted at that time.
    idle: VecDeque<(Instant, Tenant, Room)>,
    /// Requests under way.
    unanswered: HashMap<u64, (Tenant, Vec<Room>)>,
    next_ref: u64,
    linked: bool,
    size: Size,
}

/// So many rooms, and the bytes of their names.
#[derive(Debug, Default, Clone, Copy)]
struct Size {
    rooms: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Followed {
    rooms: HashMap<Room, Wanted>,
    /// How far the tenant has been read; empty before the first answer.
    cursor: String,
}

#[derive(Debug, Default)]
struct Wanted {
    count: usize,
    /// The latest request that asked for it; an answer to an earlier one, from before it was dropped, says nothing.
    asked: u64,
    /// The server has confirmed, over this link.
    applied: bool,
    /// The server has confirmed, over any link: its events are due from the tenant's cursor on.
    is_followed: bool,
    waiting: Vec<oneshot::Sender<()>>,
    /// How many may wait before those who have given up are looked for.
    sweep_at: usize,
    idle_since: Option<Instant>,
}

impl Interests {
    pub(super) fn new(linger: Duration) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), linger }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants rooms, or says that there are too many already.
    pub(super) fn want(
        &self,
        tenant: &Tenant,
        rooms: &[Room],
    ) -> Result<impl Future<Output = ()> + Send + use<>, Failure> {
        let mut answers = Vec::new();
        {
            let mut state = self.lock();
            state.grow(tenant, rooms)?;
            for room in rooms {
                let wanted = state.tenants.entry(tenant.clone()).or_default().rooms.entry(room.clone());
                let is_new = matches!(wanted, std::collections::hash_map::Entry::Vacant(_));
                let wanted = wanted.or_default();
                wanted.count += 1;
                wanted.idle_since = None;
                if !wanted.applied {
                    // Of those who have given up, few are kept.
                    if wanted.waiting.len() >= wanted.sweep_at {
                        wanted.waiting.retain(|waiting| !waiting.is_closed());
                        wanted.sweep_at = 2 * wanted.waiting.len() + WAITING_KEPT;
                    }
                    let (done, answer) = oneshot::channel();
                    wanted.waiting.push(done);
                    answers.push(answer);
                }
                // A new link asks for everything anyhow.
                if is_new && state.linked {
                    state.asked.push((tenant.clone(), room.clone()));
                }
            }
        }
        if !answers.is_empty() {
            self.changed.notify_one();
        }
        Ok(async move {
            for answer in answers {
                // An answer is lost only when the bridge ends.
                let _ended = answer.await;
            }
        })
    }

    pub(super) fn release(&self, tenant: &Tenant, rooms: &[Room]) {
        let mut state = self.lock();
        let now = Instant::now();
        let Some(followed) = state.tenants.get_mut(tenant) else { return };
        let mut idle = Vec::new();
        for room in rooms {
            let Some(wanted) = followed.rooms.get_mut(room) else { continue };
            wanted.count = wanted.count.saturating_sub(1);
            if wanted.count == 0 {
                wanted.idle_since = Some(now);
                idle.push((now, tenant.clone(), room.clone()));
            }
        }
        state.idle.extend(idle);
    }

    /// Resolves when there are rooms to ask for.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Requests for the rooms to ask for; none while there is no link.
    pub(super) fn additions(&self) -> Vec<LinkRequest> {
        let mut state = self.lock();
        if !state.linked {
            return Vec::new();
        }
        let mut by_tenant: HashMap<Tenant, Vec<Room>> = HashMap::new();
        for (tenant, room) in std::mem::take(&mut state.asked) {
            // Nobody may want it any more.
            if state.tenants.get(&tenant).is_some_and(|followed| followed.rooms.contains_key(&room)) {
                by_tenant.entry(tenant).or_default().push(room);
            }
        }
        by_tenant.into_iter().map(|(tenant, rooms)| state.request(tenant, rooms, String::new())).collect()
    }

    /// Requests to drop the rooms that nobody has wanted for a while.
    pub(super) fn drops(&self) -> Vec<LinkRequest> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut by_tenant: HashMap<Tenant, Vec<String>> = HashMap::new();
        while state.idle.front().is_some_and(|(since, ..)| since.elapsed() >= self.linger) {
            let Some((since, tenant, room)) = state.idle.pop_front() else { break };
            let Some(followed) = state.tenants.get_mut(&tenant) else { continue };
            // Wanted again since, or idle since later: then there is a later entry.
            if followed.rooms.get(&room).is_some_and(|w| w.idle_since == Some(since)) {
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

    /// A link is there: requests for what is followed, after each tenant's cursor. Rooms that were never certain are
    /// [additions](Self::additions), from then on: whoever has entered one meanwhile gets nothing older.
    pub(super) fn linked(&self) -> Vec<LinkRequest> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.linked = true;
        state.asked.clear();
        let mut followed = Vec::new();
        for (tenant, of_tenant) in &state.tenants {
            let (known, new): (Vec<_>, Vec<_>) =
                of_tenant.rooms.iter().partition(|(_, wanted)| wanted.is_followed);
            state.asked.extend(new.into_iter().map(|(room, _)| (tenant.clone(), room.clone())));
            let known: Vec<Room> = known.into_iter().map(|(room, _)| room.clone()).collect();
            if !known.is_empty() {
                followed.push((tenant.clone(), known, of_tenant.cursor.clone()));
            }
        }
        followed.into_iter().map(|(tenant, rooms, cursor)| state.request(tenant, rooms, cursor)).collect()
    }

    /// The link is gone: nothing is certain any more.
    pub(super) fn unlinked(&self) {
        let mut state = self.lock();
        state.linked = false;
        state.unanswered.clear();
        for wanted in state.tenants.values_mut().flat_map(|f| f.rooms.values_mut()) {
            wanted.applied = false;
        }
    }

    /// The server has confirmed a request.
    pub(super) fn applied(&self, answer: InterestApplied) {
        let mut state = self.lock();
        let Some((tenant, rooms)) = state.unanswered.remove(&answer.r#ref) else { return };
        let Some(followed) = state.tenants.get_mut(&tenant) else { return };
        followed.cursor = answer.cursor;
        for room in rooms {
            if let Some(wanted) = followed.rooms.get_mut(&room).filter(|w| w.asked == answer.r#ref) {
                wanted.applied = true;
                wanted.is_followed = true;
                for waiting in wanted.waiting.drain(..) {
                    // Whoever waited may be gone.
                    let _gone = waiting.send(());
                }
            }
        }
    }

    /// A tenant's events have been delivered up to the cursor.
    pub(super) fn reached(&self, tenant: &Tenant, cursor: String) {
        if let Some(followed) = self.lock().tenants.get_mut(tenant) {
            followed.cursor = cursor;
        }
    }
}

impl State {
    /// Counts the rooms that are new.
    fn grow(&mut self, tenant: &Tenant, rooms: &[Room]) -> Result<(), Failure> {
        let known = self.tenants.get(tenant);
        let is_new = |room: &&Room| known.is_none_or(|followed| !followed.rooms.contains_key(*room));
        // Each once.
        let new: HashSet<&Room> = rooms.iter().filter(is_new).collect();
        let size = Size {
            rooms: self.size.rooms + new.len(),
            bytes: self.size.bytes + new.iter().map(|room| room.as_str().len() + ROOM_BYTES).sum::<usize>(),
        };
        if size.rooms > ROOMS_MAX || size.bytes > ROOM_BYTES_MAX {
            return Err(Failure::new(
                Reason::Limit,
                "the bridge has as many rooms as it can follow; try another one",
            ));
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
        interests.applied(InterestApplied { r#ref, tenant, cursor: cursor.to_owned(), refused: None });
    }

    #[test]
    fn a_want_is_certain_once_the_server_has_answered() {
        let interests = Interests::new(Duration::ZERO);
        assert!(interests.linked().is_empty());
        let (tenant, rooms) = names("1", &["org", "user:7"]);
        let mut want = Box::pin(interests.want(&tenant, &rooms).unwrap());
        let asked = read(interests.additions());
        assert_eq!((asked.len(), asked[0].add.len(), asked[0].after.as_str()), (1, 2, ""));
        assert!((&mut want).now_or_never().is_none());
        answer(&interests, &asked[0], "c1");
        assert!(want.now_or_never().is_some());
        // Others who want the same need not wait, and nothing is asked twice.
        assert!(interests.want(&tenant, &rooms).unwrap().now_or_never().is_some());
        assert!(interests.additions().is_empty());
    }

    #[test]
    fn a_new_link_asks_for_everything_after_the_cursor_once() {
        let interests = Interests::new(Duration::ZERO);
        interests.linked();
        let (tenant, rooms) = names("1", &["org"]);
        let _certain = interests.want(&tenant, &rooms).unwrap();
        answer(&interests, &read(interests.additions())[0], "c1");
        interests.reached(&tenant, "c2".into());
        interests.unlinked();
        let (_, more) = names("1", &["chat:7"]);
        let mut waits = Box::pin(interests.want(&tenant, &more).unwrap());
        assert!(interests.additions().is_empty());
        // What was never certain comes behind, and is not caught up with.
        let asked = read([interests.linked(), interests.additions()].concat());
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
            let interests = Interests::new(Duration::ZERO);
            let mut kept = 0;
            let refused = loop {
                match interests.want(&tenant, &numbered(kept..kept + 10_000, width)) {
                    Ok(_) => kept += 10_000,
                    Err(failure) => break failure,
                }
            };
            assert_eq!(refused.reason, Reason::Limit);
            assert!(kept == 990_000 || kept * 129 > ROOM_BYTES_MAX - 129 * 10_000, "{kept}");
            // What is there already costs nothing, and what goes makes room.
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
        let interests = Interests::new(Duration::ZERO);
        interests.linked();
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
        let interests = Interests::new(Duration::ZERO);
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
        let interests = Interests::new(Duration::ZERO);
        interests.linked();
        let (tenant, rooms) = names("1", &["chat:7"]);
        let _first = interests.want(&tenant, &rooms).unwrap();
        answer(&interests, &read(interests.additions())[0], "c1");
        interests.release(&tenant, &rooms);
        assert!(interests.want(&tenant, &rooms).unwrap().now_or_never().is_some());
        assert!(interests.drops().is_empty());
    }
}
