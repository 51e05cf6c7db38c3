//! The guarantees of every engine for the current state of rooms.

use std::collections::BTreeMap;

use super::*;
use crate::snapshot::{PageToken, Snapshot};

/// A draft that changes the entry of a key in rooms.
fn change(rooms: &[&str], key: &str, payload: usize, change: StateChange) -> Draft {
    let rooms = rooms.iter().map(|room| Room::new(room).unwrap()).collect();
    let change = StateChange { key: format!("test.v1 {key}"), ..change };
    Draft { rooms, state: Some(change), ..draft("1", "", payload) }
}

fn put(room: &str, key: &str) -> Draft {
    change(&[room], key, 8, StateChange::default())
}

fn removal(room: &str, key: &str) -> Draft {
    change(&[room], key, 8, StateChange { is_removal: true, ..StateChange::default() })
}

fn expecting(draft: Draft, expected: u64) -> Draft {
    let state = draft.state.clone().map(|change| StateChange { expected: Some(expected), ..change });
    Draft { state, ..draft }
}

async fn try_append(engine: &Arc<dyn Engine>, draft: Draft) -> Result<Appended, Refusal> {
    let appended = engine.append(&draft.tenant.clone(), vec![draft]).await?;
    Ok(appended.into_iter().next().unwrap())
}

/// The whole state of `names`: the seq of each entry by room and key.
async fn snapshot(engine: &Arc<dyn Engine>, names: &[&str]) -> (BTreeMap<(String, String), u64>, Cursor) {
    let rooms: Vec<Room> = names.iter().map(|room| Room::new(room).unwrap()).collect();
    let (mut entries, mut token) = (BTreeMap::new(), PageToken::default());
    loop {
        let page = Snapshot::read(&**engine, &tenant("1"), &rooms, token, 3).await.unwrap();
        assert!(page.entries.len() <= 3);
        for (room, entry) in page.entries {
            let place = (room.as_str().to_owned(), entry.own_key().to_owned());
            assert_eq!(entries.insert(place, entry.event.seq), None, "an entry comes once");
        }
        match page.next {
            Some(next) => token = next.text().parse().unwrap(),
            None => return (entries, page.cursor),
        }
    }
}

async fn seqs_of(engine: &Arc<dyn Engine>, room: &str) -> Vec<(String, u64)> {
    let (entries, _) = snapshot(engine, &[room]).await;
    entries.into_iter().map(|((_, key), seq)| (key, seq)).collect()
}

pub(crate) async fn the_state_has_the_newest_event_of_each_key(
    open: &impl AsyncFn(Retention, Limits) -> Pair,
) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    assert_eq!(seqs_of(&a, "chat:7").await, []);
    let (mut expected, mut last) = (BTreeMap::new(), 0);
    for (number, engine) in (0..10).zip([&a, &b].into_iter().cycle()) {
        let key = format!("k{}", number % 7);
        last = append(engine, put("chat:7", &key)).await.0.seq;
        expected.insert(key, last);
    }
    append(&a, draft("1", "", 8)).await;
    let own = |key: &str, seq: u64| (key.to_owned(), seq);
    for engine in [&a, &b] {
        let expected: Vec<_> = expected.clone().into_iter().collect();
        assert_eq!(seqs_of(engine, "chat:7").await, expected, "page by page, by key");
        assert_eq!(seqs_of(engine, "chat:70").await, [], "rooms are apart");
        assert_eq!(seqs_of(engine, "chat").await, []);
    }
    // In several rooms at once, and with an empty key.
    let both = append(&b, change(&["chat:8", "org"], "", 8, StateChange::default())).await.0.seq;
    assert_eq!(both, last + 2);
    append(&a, removal("org", "")).await;
    assert_eq!(seqs_of(&b, "org").await, [], "a removal is of its rooms");
    assert_eq!(seqs_of(&b, "chat:8").await, [own("", both)]);
    append(&b, removal("org", "")).await;
    let again = append(&b, put("org", "")).await.0.seq;
    assert_eq!(seqs_of(&a, "org").await, [own("", again)]);
    let rooms = [Room::new("chat:8").unwrap()];
    let page = Snapshot::read(&*a, &tenant("1"), &rooms, PageToken::default(), 3).await.unwrap();
    let [(_, entry)] = page.entries.as_slice() else { panic!("{page:?}") };
    let (logged, _) =
        read(&a, &tenant("1"), &super::rooms(&["chat:8"]), a.cursor_at(&tenant("1"), 0).await.unwrap()).await;
    assert_eq!((&entry.event.id, &entry.event.draft.payload), (&logged[0].id, &logged[0].draft.payload));
}

pub(crate) async fn a_change_of_another_revision_is_refused_with_its_batch(
    open: &impl AsyncFn(Retention, Limits) -> Pair,
) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let first = append(&a, expecting(put("org", "k"), 0)).await.0.seq;
    for (engine, wrong) in [(&a, 0), (&b, 0), (&b, first + 1)] {
        let refused = try_append(engine, expecting(put("org", "k"), wrong)).await;
        assert!(matches!(refused, Err(Refusal::Revision(seq)) if seq == first), "{refused:?}");
    }
    let second = append(&b, expecting(put("org", "k"), first)).await.0.seq;
    assert_eq!(second, first + 1, "what is refused has no place");
    // A batch is refused as a whole, even if its own earlier draft causes the conflict.
    let batch = vec![put("org", "other"), expecting(put("org", "other"), 0), draft("1", "", 8)];
    let refused = a.append(&tenant("1"), batch).await;
    assert!(matches!(refused, Err(Refusal::Revision(seq)) if seq == second + 1), "{refused:?}");
    assert_eq!(b.head(&tenant("1")).await.unwrap().seq, second);
    // A retry gets the first answer, although the revision has changed since.
    let keyed = || Draft { idempotency_key: "retry".to_owned(), ..expecting(put("org", "k"), second) };
    let third = append(&a, keyed()).await;
    assert_eq!(append(&b, keyed()).await, (third.0.clone(), true));
    let removed = expecting(removal("org", "k"), third.0.seq);
    assert!(matches!(try_append(&b, expecting(removal("org", "k"), 1)).await, Err(Refusal::Revision(_))));
    append(&b, removed).await;
    assert!(matches!(try_append(&a, expecting(put("org", "k"), first)).await, Err(Refusal::Revision(0))));
    append(&a, expecting(put("org", "k"), 0)).await;
}

pub(crate) async fn one_of_many_creates_an_entry(open: &impl AsyncFn(Retention, Limits) -> Pair) {
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    for round in 0..5 {
        let mut racers = JoinSet::new();
        for (number, engine) in (0..8).zip([&a, &b].into_iter().cycle()) {
            let (engine, key) = (engine.clone(), format!("{round}"));
            // Drafts that share an idempotency key count as one.
            let idempotency_key = if number < 4 { format!("{round} same") } else { String::new() };
            let draft = Draft { idempotency_key, ..expecting(put("org", &key), 0) };
            racers.spawn(async move { try_append(&engine, draft).await });
        }
        let (mut won, mut lost) = (Vec::new(), 0);
        for outcome in racers.join_all().await {
            match outcome {
                Ok(appended) => won.push(appended.receipt().seq),
                Err(Refusal::Revision(_)) => lost += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        won.dedup();
        assert!(won.len() == 1 && (lost == 7 || lost == 4), "{won:?}, {lost}");
        assert_eq!(seqs_of(&a, "org").await.last(), Some(&(format!("{round}"), won[0])));
    }
}

pub(crate) async fn the_state_is_bounded(open: &impl AsyncFn(Retention, Limits) -> Pair) {
    let limits = Limits { state_entries_max: 3, state_bytes_max: 4000, ..Limits::default() };
    let Some((a, b, _store)) = open(Retention::default(), limits).await else { return };
    for key in ["1", "2", "3"] {
        append(&a, put("org", key)).await;
    }
    let full = try_append(&b, put("chat:1", "4")).await;
    assert!(matches!(full, Err(Refusal::StateEntries(3))), "{full:?}");
    append(&b, put("org", "3")).await;
    append(&b, removal("org", "1")).await;
    append(&a, put("chat:1", "4")).await;
    let large = || change(&["org"], "2", 3500, StateChange::default());
    let full = try_append(&a, large()).await;
    assert!(matches!(full, Err(Refusal::StateBytes(4000))), "{full:?}");
    append(&a, removal("org", "3")).await;
    append(&b, removal("chat:1", "4")).await;
    append(&a, large()).await;
    // A full state may still shrink, and the log still accepts events.
    append(&b, put("org", "2")).await;
    append(&b, draft("1", "", 8)).await;
    assert_eq!(seqs_of(&a, "org").await.len(), 1);
}

pub(crate) async fn an_entry_ends(open: &impl AsyncFn(Retention, Limits) -> Pair) {
    let limits = Limits { state_entries_max: 1, ..Limits::default() };
    let Some((a, b, _store)) = open(Retention::default(), limits).await else { return };
    let ending = |millis: u64| {
        let end = StateChange { expires_at: Some(now_millis() + millis), ..StateChange::default() };
        change(&["org"], "k", 8, end)
    };
    append(&a, ending(60_000)).await;
    assert_eq!(seqs_of(&b, "org").await.len(), 1);
    append(&b, ending(30)).await;
    while !seqs_of(&a, "org").await.is_empty() {
        tokio::task::yield_now().await;
    }
    append(&b, expecting(ending(30), 0)).await;
    while !seqs_of(&b, "org").await.is_empty() {
        tokio::task::yield_now().await;
    }
    // Entries that have ended take no space after a sweep.
    loop {
        a.sweep().await;
        match try_append(&b, put("org", "other")).await {
            Ok(_) => break,
            Err(Refusal::StateEntries(1)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn the_state_lasts_longer_than_its_events(open: &impl AsyncFn(Retention, Limits) -> Pair) {
    let retention = Retention { events_max: 10, ..Retention::default() };
    let Some((a, b, _store)) = open(retention, Limits::default()).await else { return };
    let start = a.head(&tenant("1")).await.unwrap();
    let first = append(&a, put("org", "a")).await.0.seq;
    for _ in 0..20 {
        append(&a, draft("1", "", 8)).await;
        append(&b, put("org", "b")).await;
    }
    append(&b, removal("org", "b")).await;
    for _ in 0..20 {
        append(&a, draft("1", "", 8)).await;
    }
    a.sweep().await;
    let trimmed = a.read(&tenant("1"), &Interest::everything(), start, LIMITS).await;
    assert!(matches!(trimmed, Err(Refusal::Reset(_))), "{trimmed:?}");
    for engine in [&a, &b] {
        assert_eq!(seqs_of(engine, "org").await, [("a".to_owned(), first)]);
    }
    let refused = try_append(&b, expecting(put("org", "a"), 0)).await;
    assert!(matches!(refused, Err(Refusal::Revision(seq)) if seq == first), "{refused:?}");
}

pub(crate) async fn a_snapshot_and_the_log_after_it_are_the_truth(
    open: &impl AsyncFn(Retention, Limits) -> Pair,
) {
    const ROOMS: [&str; 2] = ["org", "chat:7"];
    let Some((a, b, _store)) = open(Retention::default(), Limits::default()).await else { return };
    let mut writers = JoinSet::new();
    for engine in [&a, &b, &a] {
        let engine = engine.clone();
        writers.spawn(async move {
            for _ in 0..40 {
                let number: u32 = rand::random_range(0..100);
                let (room, key) = (ROOMS[rand::random_range(0..2)], format!("{}", number % 8));
                let draft = match number {
                    0..20 => removal(room, &key),
                    20..30 => change(&ROOMS, &key, 8, StateChange::default()),
                    30..40 => draft("1", "", 8),
                    40..50 => expecting(put(room, &key), u64::from(number % 2) * 1000),
                    _ => put(room, &key),
                };
                match try_append(&engine, draft).await {
                    Ok(_) | Err(Refusal::Revision(_)) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        });
    }
    let mut snapshots = Vec::new();
    while !writers.is_empty() {
        for engine in [&a, &b] {
            snapshots.push(snapshot(engine, &ROOMS).await);
        }
        while let Some(writer) = writers.try_join_next() {
            writer.unwrap();
        }
    }
    let start = a.cursor_at(&tenant("1"), 0).await.unwrap();
    snapshots.push((BTreeMap::new(), start));
    let mut truths = Vec::new();
    for (mut entries, cursor) in snapshots {
        let (logged, _) = read(&b, &tenant("1"), &Interest::everything(), cursor).await;
        for event in logged {
            let Some(change) = &event.draft.state else { continue };
            let key = change.key.split_once(' ').unwrap().1.to_owned();
            for room in event.rooms() {
                let place = (room.as_str().to_owned(), key.clone());
                if change.is_removal {
                    entries.remove(&place);
                } else {
                    let before = entries.insert(place, event.seq);
                    assert!(before.is_none_or(|before| before < event.seq), "nothing comes twice");
                }
            }
        }
        truths.push(entries);
    }
    assert!(truths.iter().all(|truth| *truth == truths[0]), "{truths:?}");
    assert_eq!(snapshot(&b, &ROOMS).await.0, truths[0]);
    assert!(!truths[0].is_empty());
}
