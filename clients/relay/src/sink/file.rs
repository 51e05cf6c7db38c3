//! A file of JSON lines. Its last complete line contains the cursor that was reached. A crash in
//! the middle of a line loses nothing: the partial line is removed and its event is read again.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::Record;

/// The longest line that is read, in bytes: more than the largest event needs.
const LINE_BYTES_MAX: u64 = 8 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileSinkError {
    /// The system returned an error.
    #[error("{path}: cannot {doing}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The operation that failed.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Another process is writing to it.
    #[error("{0}: another process writes this file")]
    Locked(String),
    /// It was not written by this program.
    #[error("{path}: the last line {problem}: this is no file that fanfare has written")]
    Foreign {
        /// The file.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// A file that events are appended to.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Beyond this size, a new file begins; 0: never.
    rotate_bytes: u64,
    cursor: String,
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> FileSinkError {
    let path = path.display().to_string();
    move |source| FileSinkError::Io { path, doing, source }
}

fn open(path: &Path) -> Result<File, FileSinkError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(failed(path, "open it"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(FileSinkError::Locked(path.display().to_string())),
        Err(TryLockError::Error(source)) => Err(failed(path, "lock it")(source)),
    }
}

/// The last complete line, and where it ends.
fn last_line(file: &mut File) -> io::Result<(Vec<u8>, u64)> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LINE_BYTES_MAX);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(LINE_BYTES_MAX).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else { return Ok((Vec::new(), from)) };
    let start = tail[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok((tail[start..end].to_vec(), from + end as u64 + 1))
}

/// The cursor that a line contains.
fn cursor(line: &[u8]) -> Result<String, &'static str> {
    if line.is_empty() {
        return Ok(String::new());
    }
    let value: Value = serde_json::from_slice(line).map_err(|_| "is no JSON")?;
    let text = value.get("cursor").or_else(|| value.get("id")).and_then(Value::as_str);
    text.map(str::to_owned).ok_or("has neither \"id\" nor \"cursor\"")
}

/// The time in Unix milliseconds, for file names and for marks.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

impl FileSink {
    /// Opens or creates a file. A line that was cut off by a crash is removed. Once the file
    /// exceeds `rotate_bytes`, it is renamed to `PATH.TIME` and a new one begins; 0: never.
    pub fn open(path: &Path, rotate_bytes: u64) -> Result<Self, FileSinkError> {
        let next = beside(path, ".next");
        if !path.exists() && next.exists() {
            // Left by a crash between the two renames of a rotation.
            fs::rename(&next, path).map_err(failed(&next, "rename it"))?;
        }
        let mut file = open(path)?;
        let (line, end) = last_line(&mut file).map_err(failed(path, "read it"))?;
        let foreign = |problem| FileSinkError::Foreign { path: path.display().to_string(), problem };
        let length = file.metadata().map_err(failed(path, "read it"))?.len();
        if line.is_empty() && end > 0 {
            return Err(foreign("is longer than any event or empty"));
        }
        let cursor = cursor(&line).map_err(foreign)?;
        if end < length {
            file.set_len(end).map_err(failed(path, "cut its last line"))?;
        }
        file.seek(SeekFrom::End(0)).map_err(failed(path, "go to its end"))?;
        Ok(Self { path: path.to_owned(), file, bytes: end, rotate_bytes, cursor })
    }

    pub(super) fn cursor(&self) -> &str {
        &self.cursor
    }

    /// Appends lines; they are on disk when this returns. After an error the file must be reopened.
    fn append(&mut self, lines: &str, cursor: &str) -> Result<(), FileSinkError> {
        self.file.write_all(lines.as_bytes()).map_err(failed(&self.path, "write it"))?;
        self.file.sync_data().map_err(failed(&self.path, "sync it"))?;
        self.bytes += lines.len() as u64;
        cursor.clone_into(&mut self.cursor);
        if self.rotate_bytes > 0 && self.bytes > self.rotate_bytes {
            self.rotate()?;
        }
        Ok(())
    }

    /// Begins a new file, whose first line is the cursor.
    fn rotate(&mut self) -> Result<(), FileSinkError> {
        let next = beside(&self.path, ".next");
        let mut file = open(&next)?;
        let line = format!("{}\n", json!({ "cursor": self.cursor }));
        file.set_len(0).map_err(failed(&next, "empty it"))?;
        file.write_all(line.as_bytes()).map_err(failed(&next, "write it"))?;
        file.sync_data().map_err(failed(&next, "sync it"))?;
        let old = beside(&self.path, &format!(".{}", now()));
        fs::rename(&self.path, &old).map_err(failed(&self.path, "rename it"))?;
        fs::rename(&next, &self.path).map_err(failed(&next, "rename it"))?;
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(failed(folder, "sync it"))?;
        }
        tracing::info!(file = %old.display(), "a file is complete");
        (self.file, self.bytes) = (file, line.len() as u64);
        Ok(())
    }

    pub(super) fn store(&mut self, records: &[Record]) -> Result<(), FileSinkError> {
        let Some(last) = records.last() else { return Ok(()) };
        let lines: String = records.iter().flat_map(|record| [record.json.as_str(), "\n"]).collect();
        self.append(&lines, &last.cursor)
    }

    pub(super) fn reach(&mut self, cursor: &str) -> Result<(), FileSinkError> {
        self.append(&format!("{}\n", json!({ "cursor": cursor })), cursor)
    }

    pub(super) fn miss(&mut self, cursor: &str) -> Result<(), FileSinkError> {
        let mark = json!({ "cursor": cursor, "missing_after": self.cursor, "at": now() });
        self.append(&format!("{mark}\n"), cursor)
    }
}

#[cfg(test)]
mod tests;
