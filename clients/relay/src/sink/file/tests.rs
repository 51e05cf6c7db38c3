use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fanfare-sink-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn record(number: u32) -> Record {
    let cursor = format!("c{number}");
    Record { json: format!("{{\"id\":\"{cursor}\"}}"), cursor }
}

#[test]
fn a_line_that_a_crash_has_cut_is_removed() {
    let folder = Folder::new("cut");
    let mut sink = FileSink::open(&folder.file(), 0).unwrap();
    assert_eq!(sink.cursor(), "");
    sink.store(&[record(1), record(2)]).unwrap();
    drop(sink);
    let mut file = OpenOptions::new().append(true).open(folder.file()).unwrap();
    file.write_all(b"{\"id\":\"c3\",\"pay").unwrap();
    let mut sink = FileSink::open(&folder.file(), 0).unwrap();
    assert_eq!(sink.cursor(), "c2");
    sink.store(&[record(3)]).unwrap();
    let text = fs::read_to_string(folder.file()).unwrap();
    assert_eq!(text, "{\"id\":\"c1\"}\n{\"id\":\"c2\"}\n{\"id\":\"c3\"}\n");
}

#[test]
fn a_first_line_that_was_cut_leaves_an_empty_file() {
    let folder = Folder::new("first");
    fs::write(folder.file(), "{\"id\":\"c").unwrap();
    let sink = FileSink::open(&folder.file(), 0).unwrap();
    assert_eq!(sink.cursor(), "");
    assert_eq!(fs::read_to_string(folder.file()).unwrap(), "");
}

#[test]
fn one_process_writes_a_file_and_a_foreign_one_is_left_alone() {
    let folder = Folder::new("lock");
    let sink = FileSink::open(&folder.file(), 0).unwrap();
    let error = FileSink::open(&folder.file(), 0).unwrap_err().to_string();
    assert!(error.contains("another process writes this file"), "{error}");
    drop(sink);
    for text in ["hello\n", "{\"a\":1}\n", "\n"] {
        fs::write(folder.file(), text).unwrap();
        let error = FileSink::open(&folder.file(), 0).unwrap_err().to_string();
        assert!(error.contains("no file that fanfare has written"), "{error}");
        assert_eq!(fs::read_to_string(folder.file()).unwrap(), text);
    }
}

#[test]
fn a_rotation_keeps_the_cursor_also_when_it_is_interrupted() {
    let folder = Folder::new("rotate");
    let mut sink = FileSink::open(&folder.file(), 20).unwrap();
    sink.store(&[record(1), record(2)]).unwrap();
    drop(sink);
    assert_eq!(fs::read_to_string(folder.file()).unwrap(), "{\"cursor\":\"c2\"}\n");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2);
    fs::rename(folder.file(), beside(&folder.file(), ".next")).unwrap();
    assert_eq!(FileSink::open(&folder.file(), 20).unwrap().cursor(), "c2");
}

#[test]
fn what_is_missing_is_marked() {
    let folder = Folder::new("miss");
    let mut sink = FileSink::open(&folder.file(), 0).unwrap();
    sink.store(&[record(1)]).unwrap();
    sink.miss("d9").unwrap();
    drop(sink);
    assert!(fs::read_to_string(folder.file()).unwrap().contains("\"missing_after\":\"c1\""));
    assert_eq!(FileSink::open(&folder.file(), 0).unwrap().cursor(), "d9");
}
