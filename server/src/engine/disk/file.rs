//! The file below the store. It records when the disk fails to store written data. After such a
//! failure, Linux may show pages that never reached the disk, to this process and to the next one,
//! and consider them clean.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Bound,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{BackendError, Builder, Database, DatabaseError, StorageBackend, backends::FileBackend};

#[cfg(not(test))]
type Disk = FileBackend;
#[cfg(test)]
use super::failing::Disk;

/// Whether pages of the open file may never have reached the disk.
pub(super) type Suspicion = Arc<AtomicBool>;

/// Opens a file, or creates it.
pub(super) fn open(path: &Path) -> Result<(Database, Suspicion), DatabaseError> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    #[cfg(test)]
    let inner = Disk::new(path, &file, FileBackend::new(file.try_clone()?)?);
    #[cfg(not(test))]
    let inner = FileBackend::new(file)?;
    let suspicion = Suspicion::default();
    let file = LogFile { inner, suspicion: suspicion.clone(), mark: mark(path) };
    Ok((Builder::new().create_with_backend(file)?, suspicion))
}

/// A marker beside a file whose pages may never have reached the disk. A crash of the machine loses
/// the marker together with those pages.
pub(super) fn mark(path: &Path) -> PathBuf {
    path.with_extension("unsynced")
}

#[derive(Debug)]
struct LogFile {
    inner: Disk,
    suspicion: Suspicion,
    mark: PathBuf,
}

impl StorageBackend for LogFile {
    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data().inspect_err(|_| {
            self.suspicion.store(true, Ordering::Release);
            if let Err(error) = File::create(&self.mark) {
                tracing::error!(%error, mark = %self.mark.display(), "that the disk failed cannot be noted");
            }
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
