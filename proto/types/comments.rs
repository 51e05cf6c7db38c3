//! The comments of the `.proto` files, which document the generated types.

use std::{cell::RefCell, collections::HashMap};

use prost_reflect::FileDescriptor;

/// Comments by file and path; each file's comments are looked up once.
#[derive(Debug, Default)]
pub(super) struct Comments {
    files: RefCell<HashMap<String, HashMap<Vec<i32>, String>>>,
}

impl Comments {
    /// The comment before, or else after, the declaration with this path in its file; empty: none.
    pub(super) fn of(&self, file: &FileDescriptor, path: &[i32]) -> String {
        let mut files = self.files.borrow_mut();
        let comments = files.entry(file.name().to_owned()).or_insert_with(|| read(file));
        comments.get(path).cloned().unwrap_or_default()
    }
}

fn read(file: &FileDescriptor) -> HashMap<Vec<i32>, String> {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let locations = info.map(|info| &info.location[..]).unwrap_or_default();
    let mut comments = HashMap::new();
    for location in locations {
        let said = location.leading_comments.as_deref().map(clean).filter(|text| !text.is_empty());
        let said = said.or_else(|| location.trailing_comments.as_deref().map(clean));
        if let Some(text) = said.filter(|text| !text.is_empty()) {
            comments.insert(location.path.clone(), text);
        }
    }
    comments
}

/// Without the space after the comment marker.
fn clean(text: &str) -> String {
    let lines = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}
