//! Copies a store whose pages may never have reached the disk into a fresh file, whose pages are
//! certain to be on the disk.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::atomic::Ordering,
};

use redb::{
    Durability, Key, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
    Value, WriteTransaction,
};

use super::{
    file,
    store::{EVENTS, Failed, KEYS, META, RECORDS, STATE, TENANTS, unseal},
};

/// Copies everything readable into a fresh file, which then replaces the old one. The old file
/// stays if this fails.
pub(super) fn rewrite(path: &Path) -> Result<(), Failed> {
    let fresh = path.with_extension("new");
    fs::remove_file(&fresh).or_else(missing)?;
    let suspicion = {
        let (old, _) = file::open(path)?;
        let (new, suspicion) = file::open(&fresh)?;
        let read = old.begin_read()?;
        let mut write = new.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        verify(&read)?;
        copy(&read, &write, META)?;
        copy(&read, &write, TENANTS)?;
        copy(&read, &write, EVENTS)?;
        copy(&read, &write, KEYS)?;
        copy(&read, &write, RECORDS)?;
        copy(&read, &write, STATE)?;
        write.commit()?;
        suspicion
    };
    if suspicion.load(Ordering::Acquire) {
        return Err(io::Error::other("the disk failed again").into());
    }
    fs::rename(&fresh, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(fs::remove_file(file::mark(path)).or_else(missing)?)
}

fn missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Checks every event: damaged data must not be copied.
fn verify(read: &ReadTransaction) -> Result<(), Failed> {
    let events = match read.open_table(EVENTS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        events => events?,
    };
    for entry in events.iter()? {
        let (_, record) = entry?;
        if unseal(record.value()).is_none() {
            return Err(Failed::Corrupted("an event is not what was written".into()));
        }
    }
    let state = match read.open_table(STATE) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        state => state?,
    };
    for entry in state.iter()? {
        let (_, entry) = entry?;
        if unseal(entry.value().1).is_none() {
            return Err(Failed::Corrupted("an entry of the state is not what was written".into()));
        }
    }
    Ok(())
}

fn copy<K: Key + 'static, V: Value + 'static>(
    read: &ReadTransaction,
    write: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), Failed> {
    let from = match read.open_table(table) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        from => from?,
    };
    let mut to = write.open_table(table)?;
    for entry in from.iter()? {
        let (key, value) = entry?;
        to.insert(key.value(), value.value())?;
    }
    Ok(())
}
