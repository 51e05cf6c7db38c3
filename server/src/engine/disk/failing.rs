//! A disk that refuses writes for a while, and the guarantees of the engine that still hold then.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    ops::Bound,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex},
};

use fanfare_proto::{
    catalog::Catalogs,
    cursor::Cursor,
    room::{Room, Tenant},
    v1::Caller,
};
use proptest::prelude::*;
use redb::{BackendError, StorageBackend, backends::FileBackend};
use tokio::{sync::oneshot, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Limits, PresenceConfig, Retention},
    engine::{
        Engine, ReadLimits, Space,
        tests::{append, folder, held, opened},
    },
    event::{Draft, draft},
    hub::{Hub, Inbox, Subscription},
    ingest::Ingest,
    interest::Interest,
    presence::Presence,
};

/// How the disk fails during its next changes. Writes, syncs and changes of length all count.
#[derive(Debug, Clone, Copy, Default)]
struct Outage {
    /// Number of changes that succeed before the outage.
    after: u32,
    /// Number of changes that fail.
    length: u32,
    /// A change that fails takes effect anyway, as if only its confirmation was lost.
    happens: bool,
}

static OUTAGES: LazyLock<Mutex<HashMap<PathBuf, Outage>>> = LazyLock::new(Mutex::default);

/// Sets the next outage of a folder's disk.
fn plan(folder: &Path, outage: Outage) {
    OUTAGES.lock().unwrap().insert(folder.to_owned(), outage);
}

/// The part of a file that is on the disk, and the writes that are not synced yet.
#[derive(Debug, Default)]
struct Image {
    synced: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

impl Image {
    /// A failed sync loses the pending writes, and the kernel considers those pages clean.
    fn sync(&mut self, works: bool) {
        for (at, data) in std::mem::take(&mut self.pending) {
            if works {
                self.synced.resize(self.synced.len().max(at + data.len()), 0);
                self.synced[at..at + data.len()].copy_from_slice(&data);
            }
        }
    }
}

/// The number of syncs that will fail, and the contents of the disk by inode number.
type FailingSyncs = (u32, HashMap<u64, Image>);

static IMAGES: LazyLock<Mutex<HashMap<PathBuf, FailingSyncs>>> = LazyLock::new(Mutex::default);

#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    /// The inode number. It identifies the file even after a rename.
    number: u64,
    file: FileBackend,
}

impl Disk {
    /// A disk that may fail, below a file that the store opens.
    pub(super) fn new(path: &Path, file: &File, backend: FileBackend) -> Self {
        let (folder, metadata) = (path.parent().unwrap().to_owned(), file.metadata().unwrap());
        if let Some((_, images)) = IMAGES.lock().unwrap().get_mut(&folder)
            && metadata.len() == 0
        {
            images.insert(metadata.ino(), Image::default());
        }
        Self { folder, number: metadata.ino(), file: backend }
    }

    fn image<T>(&self, see: impl FnOnce(&mut u32, &mut Image) -> T) -> Option<T> {
        let mut disks = IMAGES.lock().unwrap();
        let (failures, images) = disks.get_mut(&self.folder)?;
        Some(see(failures, images.entry(self.number).or_default()))
    }
}

impl Disk {
    fn change(&self, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let fails = {
            let mut outages = OUTAGES.lock().unwrap();
            let outage = outages.entry(self.folder.clone()).or_default();
            if outage.after > 0 {
                outage.after -= 1;
                None
            } else if outage.length > 0 {
                outage.length -= 1;
                Some(outage.happens)
            } else {
                None
            }
        };
        match fails {
            None => change(),
            Some(happens) => {
                if happens {
                    change()?;
                }
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|| self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let fails = self.image(|failures, image| {
            let fails = *failures > 0;
            *failures = failures.saturating_sub(1);
            image.sync(!fails);
            fails
        });
        if fails == Some(true) {
            return Err(io::Error::from(io::ErrorKind::Other));
        }
        // Reads return the written data whether or not the sync succeeds.
        self.change(|| Ok(()))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|| {
            let at = usize::try_from(offset).unwrap();
            self.image(|_, image| image.pending.push((at, data.to_vec())));
            self.file.write(offset, data)
        })
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

const ONE: ReadLimits = ReadLimits { events_max: 1, scan_max: 1 };
const PRODUCERS: usize = 4;
const EVENTS: usize = 4;
/// Number of those producers that append batches of several events.
const STREAMS: usize = 2;
const STREAM_EVENTS: usize = 8;

fn outage() -> impl Strategy<Value = Outage> {
    (0..60_u32, 1..10_u32, proptest::bool::ANY).prop_map(|(after, length, happens)| Outage {
        after,
        length,
        happens,
    })
}

/// Appends until an answer arrives, as a producer with idempotency keys does.
async fn insist(engine: &Arc<dyn Engine>, key: &str) -> u64 {
    loop {
        match append(engine, draft("1", key, 100)).await {
            Ok(appended) => return appended.seq,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Appends all events in one batch until the answers arrive.
async fn batch(engine: &Arc<dyn Engine>, keys: &[String]) -> Vec<u64> {
    let tenant = Tenant::new("1").unwrap();
    loop {
        let drafts = keys.iter().map(|key| draft("1", key, 100)).collect();
        if let Ok(answers) = engine.append(&tenant, drafts).await {
            return answers.iter().map(|answer| answer.receipt().seq).collect();
        }
        tokio::task::yield_now().await;
    }
}

/// The events that a subscriber receives, up to the event `last`.
async fn heard(
    mut subscription: Subscription,
    inbox: Arc<Inbox>,
    last: &mut oneshot::Receiver<u64>,
) -> Vec<u64> {
    let mut seqs: Vec<u64> = Vec::new();
    let mut end = None;
    loop {
        if end.is_none() {
            tokio::select! {
                _ = inbox.ready() => {}
                seq = &mut *last => end = seq.ok(),
            }
        } else if seqs.last() < end.as_ref() {
            inbox.ready().await;
        }
        loop {
            match subscription.next().await {
                Ok(batch) => {
                    seqs.extend(batch.events.iter().map(|event| event.seq));
                    if !batch.more {
                        break;
                    }
                }
                Err(_) => tokio::task::yield_now().await,
            }
        }
        if end.is_some_and(|end| seqs.last() >= Some(&end)) {
            return seqs;
        }
    }
}

async fn survive(outages: &[Outage]) -> Result<(), TestCaseError> {
    let (folder, limits) = (folder(), Limits::default());
    let engine: Arc<dyn Engine> = Arc::new(opened(&folder, Retention::default(), limits));
    let hub = Arc::new(Hub::new(limits, engine.clone()));
    let tenant = Tenant::new("1").unwrap();
    let inbox = Arc::new(Inbox::default());
    let start = Cursor { seq: 0, ..engine.head(&tenant).await.unwrap() };
    let subscription =
        Subscription::open(&hub, &tenant, vec![Room::org()], Some(start), &inbox, 0).await.unwrap();
    let (told, mut last) = oneshot::channel();
    let mut hears = JoinSet::new();
    hears.spawn(async move { heard(subscription, inbox, &mut last).await });
    let mut acknowledged = Vec::new();
    for (round, outage) in outages.iter().enumerate() {
        plan(&folder, *outage);
        let mut producers = JoinSet::new();
        for producer in 0..PRODUCERS {
            let engine = engine.clone();
            producers.spawn(async move {
                if producer < STREAMS {
                    let keys: Vec<String> =
                        (0..STREAM_EVENTS).map(|event| format!("{round} {producer} {event}")).collect();
                    let seqs = batch(&engine, &keys).await;
                    assert!(
                        seqs.windows(2).all(|pair| pair[1] == pair[0] + 1),
                        "a batch is in one piece: {seqs:?}"
                    );
                    return seqs;
                }
                let mut seqs = Vec::new();
                for event in 0..EVENTS {
                    seqs.push(insist(&engine, &format!("{round} {producer} {event}")).await);
                }
                seqs
            });
        }
        acknowledged.extend(producers.join_all().await.concat());
    }
    plan(&folder, Outage::default());
    let end = insist(&engine, "end").await;
    acknowledged.push(end);
    acknowledged.sort_unstable();
    told.send(end).unwrap();
    prop_assert_eq!(&acknowledged, &(1..=end).collect::<Vec<_>>(), "each request is one event");
    prop_assert_eq!(held(&engine, "1", limits).await, acknowledged.clone(), "the log has them");
    prop_assert_eq!(hears.join_all().await.concat(), acknowledged, "whoever was there heard them");
    engine.close().await;
    Ok(())
}

#[test]
fn what_is_acknowledged_is_in_the_log_and_heard_once_whatever_the_disk_refuses() {
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    proptest!(config, |(outages in proptest::collection::vec(outage(), 1..4))| {
        runtime.block_on(survive(&outages))?;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_the_disk_refuses_is_told_of_and_kept_when_it_works_again() {
    let (folder, limits, catalogs) = (folder(), Limits::default(), Arc::new(Catalogs::builtin().unwrap()));
    let engine: Arc<dyn Engine> = Arc::new(opened(&folder, Retention::default(), limits));
    let hub = Arc::new(Hub::new(limits, engine.clone()));
    let stats = Arc::new(crate::stats::Stats::new(&catalogs, 0));
    let ingest = Ingest::new(catalogs.clone(), &hub, engine.clone(), limits.event_bytes_max, stats);
    let presence = Arc::new(Presence::new(&catalogs, &PresenceConfig::default(), engine.clone()).unwrap());
    let (tenant, inbox) = (Tenant::new("1").unwrap(), Arc::new(Inbox::default()));
    let mut subscription =
        Subscription::open(&hub, &tenant, vec![Room::org()], None, &inbox, 0).await.unwrap();

    let link = presence.link();
    let caller =
        Caller { tenant: "1".into(), user_id: "42".into(), session_id: "s".into(), ..Caller::default() };
    let rooms = [Room::org(), Room::user("42").unwrap()];
    presence.open(&link, &caller, "pid", "000000000001-0").await.unwrap();
    plan(&folder, Outage { after: 0, length: 8, happens: false });
    presence.ready(&link, &caller, "pid", "000000000001-0", &rooms).await.unwrap();
    let (number, closing) = (presence.reported(), CancellationToken::new());
    let waits = async {
        presence.stored(number).await;
        assert_eq!(OUTAGES.lock().unwrap()[&folder].length, 0, "there was an outage");
        let mut told = Vec::new();
        while told.len() < 2 {
            inbox.ready().await;
            told.extend(subscription.next().await.unwrap().events);
        }
        let names: Vec<_> = told.iter().map(|event| event.draft.kind.name.as_str()).collect();
        assert_eq!(names, ["user_online", "user:online"]);
        closing.cancel();
    };
    tokio::join!(presence.run(&ingest, &closing), waits);
    engine.close().await;
    drop((engine, ingest, subscription, presence, hub));
    let again = opened(&folder, Retention::default(), limits);
    let (records, _feed) = again.records(&Space::Users(tenant)).await.unwrap();
    assert_eq!(records.iter().map(|record| &*record.key).collect::<Vec<_>>(), ["42"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_after_a_failed_sync_survives_a_crash() {
    let (folder, limits) = (folder(), Limits::default());
    IMAGES.lock().unwrap().insert(folder.clone(), (0, HashMap::new()));
    let engine: Arc<dyn Engine> = Arc::new(opened(&folder, Retention::default(), limits));
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        for event in 0..3 {
            acknowledged.push(insist(&engine, &format!("{round} {event}")).await);
        }
        IMAGES.lock().unwrap().get_mut(&folder).unwrap().0 = round;
    }
    acknowledged.push(insist(&engine, "last").await);
    assert_eq!(held(&engine, "1", limits).await, acknowledged);

    // The machine crashes: only the data on the disk remains.
    let copy = super::super::tests::folder();
    fs::create_dir_all(&copy).unwrap();
    let number = fs::metadata(folder.join("log.redb")).unwrap().ino();
    fs::write(copy.join("log.redb"), &IMAGES.lock().unwrap()[&folder].1[&number].synced).unwrap();
    let after: Arc<dyn Engine> = Arc::new(opened(&copy, Retention::default(), limits));
    assert_eq!(held(&after, "1", limits).await, acknowledged);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_opened_for_long_keeps_what_it_has_and_readers_come_back_without_a_write() {
    let (folder, limits) = (folder(), Limits::default());
    let retention = Retention { events_max: 5, ..Retention::default() };
    let engine: Arc<dyn Engine> = Arc::new(opened(&folder, retention, limits));
    for _ in 0..5 {
        append(&engine, draft("1", "", 10)).await.unwrap();
    }
    let tenant = Tenant::new("1").unwrap();
    let (head, interest) = (engine.head(&tenant).await.unwrap(), Interest::default());
    plan(&folder, Outage { after: 0, length: u32::MAX, happens: false });
    let passing = Catalogs::builtin().unwrap().event("messenger.v1.TypingStart").unwrap().clone();
    let mut refused = 0;
    while refused < 20 {
        refused += u32::from(append(&engine, draft("1", "", 10)).await.is_err());
        let draft = Draft { kind: passing.clone(), ..draft("1", "", 10) };
        append(&engine, draft).await.expect("what is in no log passes through");
        assert_eq!(
            engine.read(&tenant, &interest, Cursor { seq: 0, ..head }, ONE).await.unwrap().cursor.seq,
            0
        );
    }
    plan(&folder, Outage { after: 0, length: 9, happens: false });
    // Nothing is written from this point on.
    let opened_again = async {
        while held_from(&engine, head).await.is_err() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), opened_again).await.unwrap();
    assert_eq!(held(&engine, "1", limits).await, [1, 2, 3, 4, 5]);
    engine.close().await;
}

/// Reads the log from its beginning, including events that the hub's windows no longer have.
async fn held_from(engine: &Arc<dyn Engine>, head: Cursor) -> Result<(), crate::error::Refusal> {
    let hub = Arc::new(Hub::new(Limits::default(), engine.clone()));
    let inbox = Arc::new(Inbox::default());
    let after = Some(Cursor { seq: 0, ..head });
    let tenant = Tenant::new("1").unwrap();
    let open = Subscription::open(&hub, &tenant, vec![Room::org()], after, &inbox, 0);
    open.await?.next().await.map(drop)
}
