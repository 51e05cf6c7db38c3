//! Guarantees that only an engine on disk gives: acknowledged events survive a restart, and damaged
//! data is refused.

use std::{fs, sync::atomic::Ordering, time::Duration};

use fanfare_proto::room::Room;
use proptest::prelude::*;

use super::{log::STEP_MILLIS, *};
use crate::{
    engine::{
        StateChange,
        tests::{append, folder, held, opened, rest},
    },
    event::draft,
    hub::{Hub, Inbox, Subscription},
};

fn open(folder: &Path) -> Arc<dyn Engine> {
    let limits = Limits::default();
    Arc::new(opened(folder, Retention::default(), limits))
}

fn refusal(folder: &Path) -> String {
    let catalogs = Arc::new(Catalogs::builtin().unwrap());
    let (limits, retention) = (Limits::default(), Retention::default());
    DiskEngine::open(folder, catalogs, retention, limits).unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn reopening_keeps_epoch_seq_events_keys_and_records() {
    let folder = folder();
    let engine = open(&folder);
    let first = append(&engine, draft("1", "key", 10)).await.unwrap();
    append(&engine, draft("1", "", 10)).await.unwrap();
    append(&engine, draft("2", "", 10)).await.unwrap();
    let space = Space::Users(Tenant::new("1").unwrap());
    let replace = async |key, value: Option<&'static [u8]>, expected, ttl| {
        let replacement = Replacement { value: value.map(Bytes::from_static), expected, ttl };
        let replaced = engine.replace(&space, key, replacement).await.unwrap();
        if let Replaced::Revision(revision) = replaced { revision } else { panic!("a conflict") }
    };
    let a = replace("a", Some(b"1"), 0, None).await;
    let b = replace("b", Some(b"2"), 0, None).await;
    replace("lease", Some(b"3"), 0, Some(Duration::from_secs(60))).await;
    let removed = replace("a", None, a, None).await;
    let tenant = Tenant::new("1").unwrap();
    let head = engine.head(&tenant).await.unwrap();
    engine.close().await;
    assert!(matches!(append(&engine, draft("1", "", 1)).await, Err(Refusal::Storage(_))));

    let engine = open(&folder);
    assert_eq!(engine.head(&tenant).await.unwrap(), head);
    assert_eq!(held(&engine, "1", Limits::default()).await, [1, 2]);
    let again = append(&engine, draft("1", "key", 99)).await.unwrap();
    assert_eq!((again.id, again.seq, again.duplicate), (first.id, 1, true));
    assert_eq!(append(&engine, draft("1", "", 10)).await.unwrap().seq, 3);
    assert_eq!(append(&engine, draft("3", "", 10)).await.unwrap().seq, 1);
    let (records, _feed) = engine.records(&space).await.unwrap();
    let kept = Record { key: "b".into(), value: Some(Bytes::from_static(b"2")), revision: b };
    assert_eq!(records, [kept], "what expires is of a process that is gone");
    let new = Replacement { value: Some(Bytes::from_static(b"4")), expected: 0, ttl: None };
    let Replaced::Revision(later) = engine.replace(&space, "a", new).await.unwrap() else { panic!() };
    assert!(later > removed, "revisions go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn reopening_keeps_the_state_beyond_the_retention_and_what_has_ended_goes() {
    let (folder, limits) = (folder(), Limits { state_entries_max: 3, ..Limits::default() });
    let retention = Retention { events_max: 1, ..Retention::default() };
    let open = || -> Arc<dyn Engine> { Arc::new(opened(&folder, retention, limits)) };
    let change = |key: &str, expires_at: Option<u64>, is_removal: bool| {
        let state = Some(StateChange { key: key.into(), is_removal, expires_at, expected: None });
        Draft { state, ..draft("1", "", 10) }
    };
    let (tenant, page) = (Tenant::new("1").unwrap(), StateLimits { entries_max: 9, bytes_max: 9999 });
    let keys = async |engine: &Arc<dyn Engine>| {
        let page = engine.state_entries(&tenant, &Room::org(), None, page).await.unwrap();
        page.entries.iter().map(|entry| (entry.key.clone(), entry.event.seq)).collect::<Vec<_>>()
    };
    let engine = open();
    append(&engine, change("a", None, false)).await.unwrap();
    append(&engine, change("b", None, false)).await.unwrap();
    append(&engine, change("b", None, true)).await.unwrap();
    append(&engine, change("c", Some(now_millis() + 3_600_000), false)).await.unwrap();
    append(&engine, change("d", Some(1), false)).await.unwrap();
    engine.sweep().await;
    engine.close().await;

    let engine = open();
    assert_eq!(held(&engine, "1", limits).await, [5]);
    assert_eq!(keys(&engine).await, [("a".to_owned(), 1), ("c".to_owned(), 4)]);
    // The limit counts the entries that were loaded.
    append(&engine, change("e", None, false)).await.unwrap();
    let full = append(&engine, change("f", None, false)).await;
    assert!(matches!(full, Err(Refusal::StateEntries(3))), "{full:?}");
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_event_that_is_the_first_after_a_start_hides_nothing_of_the_log() {
    let (folder, tenant) = (folder(), Tenant::new("1").unwrap());
    let engine = open(&folder);
    for _ in 0..5 {
        append(&engine, draft("1", "", 10)).await.unwrap();
    }
    let head = engine.head(&tenant).await.unwrap();
    engine.close().await;
    drop(engine);

    let (limits, catalogs) = (Limits::default(), Catalogs::builtin().unwrap());
    let engine: Arc<dyn Engine> = Arc::new(opened(&folder, Retention::default(), limits));
    let hub = Arc::new(Hub::new(limits, engine.clone()));
    let kind = catalogs.event("messenger.v1.TypingStart").unwrap().clone();
    append(&engine, Draft { kind, ..draft("1", "", 10) }).await.unwrap();
    let (after, inbox) = (Some(Cursor { seq: 2, ..head }), Arc::new(Inbox::default()));
    let open = Subscription::open(&hub, &tenant, vec![Room::org()], after, &inbox, 0);
    let mut subscription = open.await.unwrap();
    assert_eq!((rest(&mut subscription).await, subscription.cursor()), (vec![3, 4, 5], head));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_early_costs_the_epoch_after_a_crash_only() {
    let folder = folder();
    let late = Limits { answered_early_max: Duration::from_millis(50), ..Limits::default() };
    let open = |limits| -> Arc<dyn Engine> { Arc::new(opened(&folder, Retention::default(), limits)) };
    let (file, copy) = (folder.join("log.redb"), folder.join("copy"));
    let tenant = Tenant::new("1").unwrap();
    let engine = open(late);
    let first = engine.head(&tenant).await.unwrap().epoch;
    for seq in 1..=20 {
        assert_eq!(append(&engine, draft("1", "", 10)).await.unwrap().seq, seq);
    }
    // A copy of the disk as a crash of the machine leaves it, taken once the file has changed: late
    // writes reach the disk by themselves, in time.
    let size = || fs::metadata(&file).unwrap().modified().unwrap();
    let before = size();
    append(&engine, draft("1", "", 10)).await.unwrap();
    while size() == before {
        tokio::task::yield_now().await;
    }
    fs::copy(&file, &copy).unwrap();
    engine.close().await;
    drop(engine);

    let engine = open(late);
    assert_eq!(engine.head(&tenant).await.unwrap(), Cursor::new(first, 21), "it ended cleanly");
    engine.close().await;
    drop(engine);

    fs::rename(&copy, &file).unwrap();
    let engine = open(Limits::default());
    let head = engine.head(&tenant).await.unwrap();
    assert!(head.epoch != first && head.seq >= 20, "{head:?}");
    assert_eq!(held(&engine, "1", late).await, (1..=head.seq).collect::<Vec<_>>());
    engine.close().await;
    drop(engine);
    assert_eq!(open(Limits::default()).head(&tenant).await.unwrap(), head, "it is told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_forward_deletes_nothing() {
    const DAY_MILLIS: u64 = 24 * 3600 * 1000;
    let folder = folder();
    let engine = open(&folder);
    let first = append(&engine, draft("1", "key", 10)).await.unwrap();
    STEP_MILLIS.fetch_add(DAY_MILLIS, Ordering::Relaxed);
    append(&engine, draft("1", "", 10)).await.unwrap();
    assert_eq!(held(&engine, "1", Limits::default()).await, [1, 2]);
    engine.close().await;
    drop(engine);
    STEP_MILLIS.fetch_add(DAY_MILLIS, Ordering::Relaxed);
    let engine = open(&folder);
    engine.sweep().await;
    let again = append(&engine, draft("1", "key", 10)).await.unwrap();
    assert_eq!((again.id, again.duplicate), (first.id, true));
    assert_eq!(held(&engine, "1", Limits::default()).await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_owner_reads_the_log() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let engine = open(&folder);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("log.redb"))), (0o700, 0o600));
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_is_refused_and_disturbs_nothing() {
    let folder = folder();
    let engine = open(&folder);
    assert!(refusal(&folder).contains("another process uses it"));
    assert_eq!(append(&engine, draft("1", "", 1)).await.unwrap().seq, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_store_is_refused_and_left_alone() {
    let folder = folder();
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("log.redb"), vec![7; 100_000]).unwrap();
    let why = refusal(&folder);
    assert!(why.contains("Nothing was changed") && why.contains("move that file away"), "{why}");
    assert_eq!(fs::read(folder.join("log.redb")).unwrap(), vec![7; 100_000]);
}

/// A store with some events, closed.
fn filled() -> (PathBuf, Vec<u8>) {
    let folder = folder();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(async {
        let engine = open(&folder);
        for _ in 0..50 {
            append(&engine, draft("1", "", 500)).await.unwrap();
        }
        engine.close().await;
    });
    let bytes = fs::read(folder.join("log.redb")).unwrap();
    (folder, bytes)
}

/// Opens a store and expects all events or a refusal.
fn all_or_nothing(folder: &Path) -> Result<(), TestCaseError> {
    let catalogs = Arc::new(Catalogs::builtin().unwrap());
    let (limits, retention) = (Limits::default(), Retention::default());
    let opened = DiskEngine::open(folder, catalogs, retention, limits);
    let Ok(engine) = opened else { return Ok(()) };
    let engine: Arc<dyn Engine> = Arc::new(engine);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let seqs = runtime.block_on(async {
        let seqs = held(&engine, "1", limits).await;
        engine.close().await;
        seqs
    });
    prop_assert_eq!(seqs, (1..=50).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_damaged_or_cut_off_store_gives_all_events_or_is_refused() {
    let (folder, whole) = filled();
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let place = 0..whole.len();
    proptest!(config, |(at in place, byte in 1_u8.., cut in proptest::bool::ANY)| {
        let mut damaged = whole.clone();
        if cut {
            damaged.truncate(at);
        } else {
            damaged[at] ^= byte;
        }
        fs::write(folder.join("log.redb"), &damaged).unwrap();
        all_or_nothing(&folder)?;
    });
}
