//! From `.proto` files to descriptors, with source positions for error messages.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use prost_reflect::{DescriptorPool, FileDescriptor};
use protox::{
    Compiler,
    file::{File, FileResolver, GoogleFileResolver},
};

use super::{Builtin, CatalogError, Problem};

/// The contract and the built-in catalogs.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sources.rs"));
/// The folder of the contract, which is not a catalog.
const CONTRACT: &str = "fanfare/v1/";
/// Maximum depth of the search in folders of catalogs.
const FOLDER_DEPTH_MAX: usize = 16;

/// The names of the built-in catalogs (their folders), sorted.
pub fn builtin_names() -> Vec<&'static str> {
    let mut names: Vec<_> = EMBEDDED
        .iter()
        .filter(|(n, _)| !n.starts_with(CONTRACT))
        .filter_map(|(n, _)| n.split('/').next())
        .collect();
    names.dedup();
    names
}

impl Builtin<'_> {
    /// The embedded files that are loaded: the contract, and these catalogs.
    fn files(self) -> Vec<(&'static str, &'static str)> {
        let is_chosen = |file: &str| match self {
            Self::All => true,
            Self::Only(names) => {
                names.iter().any(|name| file.split_once('/').is_some_and(|(folder, _)| folder == name))
            }
        };
        EMBEDDED.iter().copied().filter(|(n, _)| n.starts_with(CONTRACT) || is_chosen(n)).collect()
    }
}

/// Everything compiled, and the files that may contain catalogs.
pub(super) struct Sources {
    pub(super) pool: DescriptorPool,
    /// The requested files: import name → name to show.
    pub(super) roots: BTreeMap<String, String>,
}

/// Finds a file in the embedded sources, then among the requested files and in their folders, then
/// among Google's.
struct Resolver {
    embedded: Vec<(&'static str, &'static str)>,
    files: BTreeMap<String, PathBuf>,
    folders: Vec<PathBuf>,
}

impl FileResolver for Resolver {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if let Some((_, text)) = self.embedded.iter().find(|(n, _)| *n == name) {
            return File::from_source(name, text);
        }
        if let Some(path) = self.files.get(name) {
            return File::open(name, path);
        }
        for folder in &self.folders {
            let path = folder.join(name);
            if path.is_file() {
                return File::open(name, &path);
            }
        }
        GoogleFileResolver::new().open_file(name)
    }
}

/// Compiles built-in catalogs and those of `paths`.
pub(super) fn compile(builtin: Builtin<'_>, paths: &[PathBuf]) -> Result<Sources, CatalogError> {
    let mut problems = Vec::new();
    let embedded = builtin.files();
    let mut resolver = Resolver { embedded: embedded.clone(), files: BTreeMap::new(), folders: Vec::new() };
    for path in paths {
        if let Err(problem) = add(path, &mut resolver) {
            problems.push(problem);
        }
    }
    let mut roots: BTreeMap<String, String> = embedded
        .iter()
        .filter(|(n, _)| !n.starts_with(CONTRACT))
        .map(|(n, _)| ((*n).into(), (*n).into()))
        .collect();
    for (name, path) in &resolver.files {
        roots.insert(name.clone(), path.display().to_string());
    }
    let shown: HashMap<String, String> = roots.iter().map(|(n, s)| (n.clone(), s.clone())).collect();

    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    let contract = embedded.iter().map(|(n, _)| *n).filter(|n| n.starts_with(CONTRACT));
    for name in contract.chain(roots.keys().map(String::as_str)) {
        if let Err(error) = compiler.open_file(name) {
            problems.extend(from_protox(&error, name, &shown));
        }
    }
    if problems.is_empty() {
        Ok(Sources { pool: compiler.descriptor_pool(), roots })
    } else {
        Err(CatalogError(problems))
    }
}

fn add(path: &Path, resolver: &mut Resolver) -> Result<(), Problem> {
    let refuse = |message: String| Problem { file: path.display().to_string(), position: None, message };
    let metadata = fs::metadata(path).map_err(|e| {
        refuse(format!("cannot read the catalog: {e}; give a .proto file or a folder of them"))
    })?;
    let mut found = Vec::new();
    let folder = if metadata.is_dir() {
        walk(path, FOLDER_DEPTH_MAX, &mut found)
            .map_err(|e| refuse(format!("cannot read the folder: {e}")))?;
        if found.is_empty() {
            return Err(refuse("the folder holds no .proto file".into()));
        }
        path.to_owned()
    } else {
        found.push(path.to_owned());
        path.parent().map(Path::to_owned).unwrap_or_default()
    };
    for file in found {
        let name = file.strip_prefix(&folder).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        if resolver.embedded.iter().any(|(n, _)| *n == name) {
            let message =
                format!("{name} is the name of a built-in file; rename yours, or give its folder's parent");
            return Err(Problem { file: file.display().to_string(), position: None, message });
        }
        if let Some(other) = resolver.files.insert(name.clone(), file.clone()).filter(|other| *other != file)
        {
            let message =
                format!("both this file and {} would be imported as {name}; rename one", other.display());
            return Err(Problem { file: file.display().to_string(), position: None, message });
        }
    }
    resolver.folders.push(folder);
    Ok(())
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        // Hidden entries are not catalogs: Kubernetes stores the versions of a mounted folder
        // there.
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        if path.is_dir() && depth > 0 {
            walk(&path, depth - 1, found)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

/// The compiler's own errors, each with its position.
fn from_protox(error: &protox::Error, asked: &str, shown: &HashMap<String, String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    walk_diagnostic(error, error.file().unwrap_or(asked), shown, &mut problems);
    problems
}

fn walk_diagnostic(
    error: &dyn Diagnostic,
    file: &str,
    shown: &HashMap<String, String>,
    problems: &mut Vec<Problem>,
) {
    let span = error.labels().and_then(|mut labels| labels.next());
    let place = span.and_then(|label| {
        let contents = error.source_code()?.read_span(label.inner(), 0, 0).ok()?;
        Some((contents.line() + 1, contents.column() + 1))
    });
    let mut message = error.to_string();
    if let Some(help) = error.help() {
        message = format!("{message} ({help})");
    }
    if message.contains("not in any include path") || message.contains("import '") {
        message.push_str("; give the folder that imports are relative to, as --catalog FOLDER");
    }
    let file = shown.get(file).cloned().unwrap_or_else(|| file.to_owned());
    problems.push(Problem { file, position: place, message });
    for related in error.related().into_iter().flatten() {
        walk_diagnostic(related, "", shown, problems);
    }
}

impl Sources {
    /// A problem at the descriptor with this path in its file, or at one of its options.
    pub(super) fn problem(
        &self,
        file: &FileDescriptor,
        path: &[i32],
        option: Option<u32>,
        message: String,
    ) -> Problem {
        let shown = self.roots.get(file.name()).cloned().unwrap_or_else(|| file.name().to_owned());
        let locations = file.file_descriptor_proto().source_code_info.as_ref().map(|info| &info.location[..]);
        let find = |wanted: &[i32]| {
            locations.unwrap_or_default().iter().find(|l| l.path.starts_with(wanted) && !l.span.is_empty())
        };
        let with_option = option.map(|number| {
            let options = match path.len() {
                2 if path[0] == 4 => 7, // DescriptorProto.options
                4 if path[0] == 6 => 4, // MethodDescriptorProto.options
                0 => 8,                 // FileDescriptorProto.options
                _ => 8,                 // FieldDescriptorProto.options
            };
            [path, &[options, i32::try_from(number).unwrap_or_default()]].concat()
        });
        let location = with_option.as_deref().and_then(find).or_else(|| find(path));
        let position = location.map(|l| {
            (usize::try_from(l.span[0]).unwrap_or(0) + 1, usize::try_from(l.span[1]).unwrap_or(0) + 1)
        });
        Problem { file: shown, position, message }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::catalog::{Builtin, Catalogs};

    /// A catalog that uses most features.
    const CATALOG: &str = r#"
        syntax = "proto3";
        package fuzzed.v1;
        import "fanfare/v1/catalog.proto";
        import "fanfare/v1/realtime.proto";
        option (fanfare.v1.transport) = TRANSPORT_SOCKETIO;
        message Typed {
          option (fanfare.v1.event) = { name: "typed" rooms: ["org", "chat:{ref.chat_id}"] ephemeral: true };
          Ref ref = 1;
          string user = 2 [(fanfare.v1.fill) = FILL_USER_ID];
          optional Kind kind = 3;
          map<string, int64> counts = 4 [jstype = JS_NUMBER];
          oneof more { string text = 5; Typed again = 6; }
        }
        enum Kind { KIND_UNSPECIFIED = 0; KIND_A = 1 [(fanfare.v1.text) = "a"]; }
        message Ref { int64 chat_id = 1; repeated string names = 2; }
        message NotifyTypedRequest { fanfare.v1.Target target = 1; Typed event = 2; }
        service Fuzzed { rpc NotifyTyped(NotifyTypedRequest) returns (fanfare.v1.NotifyResponse); }
        service FuzzedClient {
          rpc Join(Ref) returns (Ref) { option (fanfare.v1.client) = { on: "join" join: "chat:{chat_id}" publish: "fuzzed.v1.Typed" }; }
        }
    "#;

    /// Replaces a piece of the text with another of its pieces, or with other text.
    fn edited(text: &str, edits: &[(usize, usize, usize, Option<String>)]) -> String {
        let mut text = text.to_owned();
        for (at, length, from, other) in edits {
            let (at, from) = (at % (text.len() + 1), from % (text.len() + 1));
            let end = |at: usize| (at + length).min(text.len());
            let piece = other.clone().unwrap_or_else(|| text[from..end(from)].to_owned());
            text.replace_range(at..end(at), &piece);
        }
        text
    }

    /// Each case compiles a file, so the default is few cases; PROPTEST_CASES asks for more.
    fn few() -> ProptestConfig {
        let config = ProptestConfig::default();
        ProptestConfig { cases: config.cases / 4, ..config }
    }

    proptest! {
        #![proptest_config(few())]
        /// However a file is damaged, it is loaded or refused with its name.
        #[test]
        fn no_file_makes_the_loader_panic(
            edits in proptest::collection::vec((0..4096_usize, 0..24_usize, 0..4096_usize, proptest::option::of("[ -~]{0,6}")), 1..4),
        ) {
            let folder = std::env::temp_dir().join(format!("fanfare-fuzzed-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let file = folder.join("fuzzed.proto");
            std::fs::write(&file, edited(CATALOG, &edits)).unwrap();
            if let Err(refused) = Catalogs::load(Builtin::All, std::slice::from_ref(&file)) {
                let text = refused.to_string();
                prop_assert!(text.contains("fuzzed.proto"), "{}", text);
            }
        }
    }

    #[test]
    fn only_the_chosen_examples_are_loaded_and_others_leave_their_file_names_free() {
        let chosen = ["chat".to_owned(), "todo".to_owned()];
        let loaded = Catalogs::load(Builtin::Only(&chosen), &[]).unwrap();
        assert_eq!(loaded.packages(), ["chat.v1", "todo.v1"]);
        let folder = std::env::temp_dir().join(format!("fanfare-own-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("chat/v1")).unwrap();
        std::fs::write(folder.join("chat/v1/chat.proto"), CATALOG).unwrap();
        let own = [folder];
        let loaded = Catalogs::load(Builtin::Only(&chosen[1..]), &own).unwrap();
        assert_eq!(loaded.packages(), ["fuzzed.v1", "todo.v1"]);
        let refused = Catalogs::load(Builtin::All, &own).unwrap_err().to_string();
        assert!(refused.contains("the name of a built-in file"), "{refused}");
    }

    #[test]
    fn the_catalog_that_is_damaged_is_right_as_it_is() {
        let file = std::env::temp_dir().join(format!("fanfare-whole-{}.proto", std::process::id()));
        std::fs::write(&file, CATALOG).unwrap();
        Catalogs::load(Builtin::All, &[file]).unwrap();
    }
}
