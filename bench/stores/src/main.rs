//! Embedded stores as the home of the log, side by side: committed events a second with group commits of several sizes,
//! the time to open after a crash, and the space taken.
//!
//! `cargo run --release -p fanfare-bench-stores [FOLDER]`; the folder should be on the disk that is meant.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use redb::{Database, Durability, ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};

/// An event's bytes.
const EVENT_BYTES: usize = 300;
/// How long each group size is measured.
const MEASURE: Duration = Duration::from_secs(3);
const GROUPS: [u64; 4] = [1, 16, 256, 1024];
/// Events that are written before the crash, in groups of 256.
const CRASH_EVENTS: u64 = 500_000;

/// A store under test: the key is a tenant and a seq.
trait Store: Sized {
    const NAME: &'static str;
    fn open(folder: &Path) -> anyhow::Result<Self>;
    /// Writes the events with these seqs, durably.
    fn commit(&self, seqs: std::ops::Range<u64>) -> anyhow::Result<()>;
    fn count(&self) -> anyhow::Result<u64>;
}

const EVENTS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("events");

struct Redb<const QUICK_REPAIR: bool>(Database);

impl<const QUICK_REPAIR: bool> Store for Redb<QUICK_REPAIR> {
    const NAME: &'static str = if QUICK_REPAIR { "redb, quick repair" } else { "redb" };

    fn open(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self(Database::create(folder.join("log.redb"))?))
    }

    fn commit(&self, seqs: std::ops::Range<u64>) -> anyhow::Result<()> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(QUICK_REPAIR);
        {
            let mut table = transaction.open_table(EVENTS)?;
            let event = [7; EVENT_BYTES];
            for seq in seqs {
                table.insert((1, seq), event.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn count(&self) -> anyhow::Result<u64> {
        Ok(self.0.begin_read()?.open_table(EVENTS)?.len()?)
    }
}

struct Fjall {
    database: fjall::Database,
    events: fjall::Keyspace,
}

impl Store for Fjall {
    const NAME: &'static str = "fjall";

    fn open(folder: &Path) -> anyhow::Result<Self> {
        let database = fjall::Database::builder(folder).open()?;
        let events = database.keyspace("events", fjall::KeyspaceCreateOptions::default)?;
        Ok(Self { database, events })
    }

    fn commit(&self, seqs: std::ops::Range<u64>) -> anyhow::Result<()> {
        let mut batch = self.database.batch().durability(Some(fjall::PersistMode::SyncAll));
        for seq in seqs {
            let mut key = [0; 12];
            key[..4].copy_from_slice(&1_u32.to_be_bytes());
            key[4..].copy_from_slice(&seq.to_be_bytes());
            batch.insert(&self.events, key, [7; EVENT_BYTES]);
        }
        Ok(batch.commit()?)
    }

    fn count(&self) -> anyhow::Result<u64> {
        Ok(self.events.len()? as u64)
    }
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|e| if e.path().is_dir() { size(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) })
        .sum()
}

#[allow(clippy::print_stdout, reason = "this is what the program is for")]
fn measure<S: Store>(folder: &Path) -> anyhow::Result<()> {
    for group in GROUPS {
        let own = folder.join(format!("{}-{group}", S::NAME));
        let store = S::open(&own)?;
        let (began, mut seq, mut times) = (Instant::now(), 0, Vec::new());
        while began.elapsed() < MEASURE {
            let start = Instant::now();
            store.commit(seq..seq + group)?;
            times.push(start.elapsed());
            seq += group;
        }
        times.sort_unstable();
        #[allow(clippy::cast_precision_loss)]
        let rate = seq as f64 / began.elapsed().as_secs_f64();
        let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("| {} | {group} | {rate:.0} | {p50:.2?} | {p99:.2?} |", S::NAME);
        drop(store);
        fs::remove_dir_all(own)?;
    }
    Ok(())
}

/// Fills a store in a process that crashes, and opens what it left.
#[allow(clippy::print_stdout, reason = "this is what the program is for")]
fn crash<S: Store>(folder: &Path, kind: &str) -> anyhow::Result<()> {
    let own = folder.join(format!("crash-{kind}"));
    let status = Command::new(env::current_exe()?).arg("--fill").arg(kind).arg(&own).status()?;
    ensure!(!status.success(), "the process that fills the store should have crashed");
    let space = size(&own) >> 20;
    let began = Instant::now();
    let store = S::open(&own)?;
    let opened = began.elapsed();
    let count = store.count()?;
    ensure!(count == CRASH_EVENTS, "{} of {CRASH_EVENTS} events were there", count);
    println!("| {} | {opened:.2?} | {space} MiB |", S::NAME);
    Ok(fs::remove_dir_all(own)?)
}

fn fill<S: Store>(folder: &Path) -> anyhow::Result<()> {
    let store = S::open(folder)?;
    for seq in (0..CRASH_EVENTS).step_by(256) {
        store.commit(seq..(seq + 256).min(CRASH_EVENTS))?;
    }
    std::process::abort();
}

#[allow(clippy::print_stdout, reason = "this is what the program is for")]
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, kind, folder] = arguments.as_slice()
        && flag == "--fill"
    {
        let folder = PathBuf::from(folder);
        return match kind.as_str() {
            "redb" => fill::<Redb<false>>(&folder),
            "quick" => fill::<Redb<true>>(&folder),
            _ => fill::<Fjall>(&folder),
        };
    }
    let folder = arguments.first().map_or_else(|| PathBuf::from("target/bench-stores"), PathBuf::from);
    let _fresh = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    println!("| store | events a commit | events/s | p50 | p99 |\n| --- | --- | --- | --- | --- |");
    measure::<Redb<false>>(&folder)?;
    measure::<Redb<true>>(&folder)?;
    measure::<Fjall>(&folder)?;
    println!(
        "\n{CRASH_EVENTS} events of {EVENT_BYTES} bytes, then a crash:\n| store | open | space |\n| --- | --- | --- |"
    );
    crash::<Redb<false>>(&folder, "redb")?;
    crash::<Redb<true>>(&folder, "quick")?;
    crash::<Fjall>(&folder, "fjall")?;
    Ok(fs::remove_dir_all(&folder)?)
}
