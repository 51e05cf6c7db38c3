//! Which Socket.IO namespace serves which catalogs; checks that each name is unambiguous there.

use std::collections::{BTreeMap, HashMap};

use prost_reflect::{FileDescriptor, MethodDescriptor};

use super::{Checker, closest};
use crate::{
    catalog::{DEFAULT_NAMESPACE, Namespace, Problem, fill::options},
    v1::Transport,
};

/// The longest name of a namespace, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// The location that problems with the setting are reported at.
const SETTING: &str = "--default-catalogs";

/// A name that browsers use, and where it is declared.
struct Use {
    kind: &'static str,
    name: String,
    transport: Transport,
    package: String,
    declared_by: String,
    file: FileDescriptor,
    path: Vec<i32>,
    option: u32,
}

impl Checker<'_> {
    /// Records the namespace that a file declares for its package.
    pub(super) fn declared_namespace(&mut self, file: &FileDescriptor) {
        let Some(name) = options::namespace(file) else { return };
        let refuse = |checker: &mut Self, problem: String| {
            checker.refuse(file, &[], Some(options::NAMESPACE), problem);
        };
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(fits) {
            let problem = format!(
                "namespace {name:?} must be 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, '.', '-' and '_', without a slash, e.g. \"chat\""
            );
            return refuse(self, problem);
        }
        let package = file.package_name().to_owned();
        match self.declared_namespaces.get(&package) {
            Some(other) if *other != name => {
                let problem = format!(
                    "another file of {package} has the namespace {other:?}; a package has one: write it in all files or in one"
                );
                refuse(self, problem);
            }
            _ => {
                self.declared_namespaces.insert(package, name);
            }
        }
    }

    /// All namespaces, "/" first. `defaults` are the catalogs of "/" (empty: all); `None`: "/" is
    /// not checked.
    pub(super) fn namespaces(
        &mut self,
        files: &[FileDescriptor],
        defaults: Option<&[String]>,
    ) -> Vec<Namespace> {
        let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for package in &self.packages {
            let name = self.declared_namespaces.get(package).map_or_else(|| derived(package), String::as_str);
            by_name.entry(format!("/{name}")).or_default().push(package.clone());
        }
        let defaults = self.defaults(defaults);
        let all: Vec<String> = self.packages.iter().cloned().collect();
        let root =
            Namespace { name: DEFAULT_NAMESPACE.to_owned(), catalogs: defaults.clone().unwrap_or(all) };
        let others = by_name.into_iter().map(|(name, catalogs)| Namespace { name, catalogs });
        let namespaces: Vec<Namespace> = std::iter::once(root).chain(others).collect();
        let uses = self.uses(files);
        for namespace in namespaces.iter().skip(usize::from(defaults.is_none())) {
            self.unique_names(namespace, &uses);
        }
        namespaces
    }

    /// The catalogs of "/"; `None` if it is not checked.
    fn defaults(&mut self, named: Option<&[String]>) -> Option<Vec<String>> {
        let named = named?;
        for name in named.iter().filter(|name| !self.packages.contains(*name)) {
            let known: Vec<&str> = self.packages.iter().map(String::as_str).collect();
            let near = closest(name, known.iter().copied());
            let near = near.map(|near| format!(" (did you mean {near:?}?)")).unwrap_or_default();
            let message = format!("{name:?} is no catalog{near}; there are {}", known.join(", "));
            self.problems.push(Problem { file: SETTING.into(), position: None, message });
        }
        let is_default = |package: &&String| named.is_empty() || named.contains(package);
        Some(self.packages.iter().filter(is_default).cloned().collect())
    }

    /// The names of all events and calls, in the order of the files.
    fn uses(&self, files: &[FileDescriptor]) -> Vec<Use> {
        let place = |file: &FileDescriptor| files.iter().position(|other| other == file);
        let mut uses: Vec<Use> = Vec::new();
        for event in self.events.values() {
            let file = event.descriptor.parent_file();
            uses.push(Use {
                kind: "event",
                name: event.name.clone(),
                transport: options::transport(&file),
                package: event.package.clone(),
                declared_by: event.full_name.clone(),
                path: event.descriptor.path().to_vec(),
                option: options::EVENT,
                file,
            });
        }
        for call in self.calls.values().flatten() {
            let Some(method) = self.method_of(&call.path) else { continue };
            uses.push(Use {
                kind: "call",
                name: call.on.clone(),
                transport: call.transport,
                package: call.package.clone(),
                declared_by: call.path.clone(),
                path: method.path().to_vec(),
                option: options::CLIENT,
                file: method.parent_service().parent_file(),
            });
        }
        uses.sort_by_cached_key(|one| (place(&one.file), one.path.clone()));
        uses
    }

    fn method_of(&self, path: &str) -> Option<MethodDescriptor> {
        let (service, name) = path.trim_start_matches('/').split_once('/')?;
        let service = self.sources.pool.get_service_by_name(service)?;
        service.methods().find(|method| method.name() == name)
    }

    /// Refuses names that two catalogs of a namespace declare for the same transport.
    fn unique_names(&mut self, namespace: &Namespace, uses: &[Use]) {
        let mut seen: HashMap<(&str, &str, Transport), &Use> = HashMap::new();
        for one in uses.iter().filter(|one| namespace.serves(&one.package)) {
            let first = *seen.entry((one.kind, &one.name, one.transport)).or_insert(one);
            if first.package == one.package {
                continue;
            }
            let (space, others) = (&namespace.name, &first.package);
            let remedy = if space == DEFAULT_NAMESPACE {
                "leave one of them out of --default-catalogs: it is then served in its own namespace; or choose another name"
            } else {
                "give one of them `option (fanfare.v1.namespace)` of its own, or choose another name"
            };
            let problem = format!(
                "the {} {:?} of {} is already taken by {} of {others}, and namespace {space:?} serves both catalogs; {remedy}",
                one.kind, one.name, one.package, first.declared_by
            );
            self.refuse(&one.file, &one.path, Some(one.option), problem);
        }
    }
}

/// The last part of a package that is not a version: `messenger` for `messenger.v1`.
fn derived(package: &str) -> &str {
    let parts = || package.rsplit('.');
    parts().find(|part| !is_version(part)).or_else(|| parts().next()).unwrap_or(package)
}

/// E.g. `v1`, `v2beta1`.
fn is_version(part: &str) -> bool {
    let Some(rest) = part.strip_prefix('v') else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let stage = ["alpha", "beta"].into_iter().find_map(|stage| rest.split_once(stage));
    match stage {
        Some((major, minor)) => digits(major) && (minor.is_empty() || digits(minor)),
        None => digits(rest),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::catalog::{Builtin, CatalogError, Catalogs};

    /// Loads catalogs from texts.
    fn load(name: &str, files: &[&str], defaults: Option<&[&str]>) -> Result<Catalogs, CatalogError> {
        let folder = std::env::temp_dir().join(format!("fanfare-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |(at, text): (usize, &&str)| {
            let file = folder.join(format!("file{at}.proto"));
            let head = "syntax = \"proto3\";\nimport \"fanfare/v1/catalog.proto\";\n";
            std::fs::write(&file, format!("{head}{text}")).unwrap();
            file
        };
        let paths: Vec<PathBuf> = files.iter().enumerate().map(file).collect();
        let defaults: Option<Vec<String>> =
            defaults.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        match defaults {
            Some(defaults) => Catalogs::load_served(Builtin::All, &paths, &defaults),
            None => Catalogs::load(Builtin::All, &paths),
        }
    }

    /// A catalog with an event and a call.
    fn catalog(package: &str, option: &str) -> String {
        format!(
            "package {package};\n{option}\nmessage Said {{ option (fanfare.v1.event) = {{ name: \"said\" rooms: \"org\" }}; }}\nmessage Ask {{}}\nservice Client {{ rpc Say(Ask) returns (Ask) {{ option (fanfare.v1.client) = {{ on: \"say\" publish: \"{package}.Said\" }}; }} }}\n"
        )
    }

    fn namespace<'a>(catalogs: &'a Catalogs, name: &str) -> Vec<&'a str> {
        catalogs.namespace(name).unwrap().catalogs.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_package_is_served_in_the_namespace_of_its_last_part_that_is_no_version() {
        let versions = ["shop.v1", "acme.shop.v2beta1", "shop", "v1.shop"];
        assert_eq!(versions.map(derived), ["shop"; 4]);
        assert_eq!(["v1", "acme.vendor", "acme.v", "acme.v1x"].map(derived), ["v1", "vendor", "v", "v1x"]);
        let catalogs = Catalogs::builtin().unwrap();
        let names: Vec<&str> = catalogs.namespaces().iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["/", "/chat", "/dialogs", "/messenger", "/todo"]);
        assert_eq!(namespace(&catalogs, ""), catalogs.packages());
        assert_eq!(namespace(&catalogs, "/messenger"), ["messenger.v1"]);
        assert!(catalogs.namespace("messenger").is_none());
    }

    #[test]
    fn two_catalogs_have_the_same_names_where_no_namespace_serves_both() {
        let (a, b) = (catalog("a.v1", ""), catalog("b.v1", ""));
        let files = [a.as_str(), b.as_str()];
        let refused = load("both", &files, Some(&[])).unwrap_err().to_string();
        for part in [
            "file1.proto:5:",
            "the event \"said\" of b.v1 is already taken by a.v1.Said of a.v1",
            "the call \"say\" of b.v1 is already taken by /a.v1.Client/Say of a.v1",
            "namespace \"/\" serves both catalogs; leave one of them out of --default-catalogs",
        ] {
            assert!(refused.contains(part), "{part} in {refused}");
        }
        let catalogs = load("both", &files, Some(&["a.v1", "messenger.v1"])).unwrap();
        assert_eq!(namespace(&catalogs, "/"), ["a.v1", "messenger.v1"]);
        let call = |namespace| {
            let call = catalogs.call("say", Transport::Socketio, namespace);
            call.map(|call| call.package.as_str())
        };
        let found = ["", "/", "/a", "/b", "/messenger", "/none"].map(call);
        assert_eq!(found, [Some("a.v1"), Some("a.v1"), Some("a.v1"), Some("b.v1"), None, None]);
        // Tools do not know which catalogs a server serves in which namespace.
        load("both", &files, None).unwrap();
        let refused = load("both", &files, Some(&["a.v2"])).unwrap_err().to_string();
        assert!(
            refused.starts_with("--default-catalogs: \"a.v2\" is no catalog (did you mean \"a.v1\"?)"),
            "{refused}"
        );
    }

    #[test]
    fn catalogs_share_a_namespace_that_both_declare_or_keep_to_their_own() {
        let shared = "option (fanfare.v1.namespace) = \"talk\";";
        let (a, b) = (catalog("a.v1", shared), catalog("b.v1", shared));
        let refused = load("shared", &[&a, &b], Some(&["a.v1"])).unwrap_err().to_string();
        assert!(refused.contains("namespace \"/talk\" serves both catalogs; give one of them"), "{refused}");
        // Files for different transports may declare the same names, in "/" too.
        let b = catalog("b.v1", &format!("{shared} option (fanfare.v1.transport) = TRANSPORT_WEBSOCKET;"));
        let catalogs = load("apart", &[&a, &b], Some(&[])).unwrap();
        assert_eq!(namespace(&catalogs, "/talk"), ["a.v1", "b.v1"]);
        let call = |transport| catalogs.call("say", transport, "/talk").unwrap().package.clone();
        assert_eq!([Transport::Socketio, Transport::Websocket].map(call), ["a.v1", "b.v1"]);
        // Versions of one catalog have one namespace unless they say otherwise.
        let (first, second) = (catalog("a.v1", ""), catalog("a.v2", ""));
        assert!(load("versions", &[&first, &second], Some(&["a.v1"])).is_err());
        let second = catalog("a.v2", "option (fanfare.v1.namespace) = \"a-v2\";");
        let catalogs = load("versions", &[&first, &second], Some(&["a.v1"])).unwrap();
        assert_eq!(namespace(&catalogs, "/a-v2"), ["a.v2"]);
    }

    #[test]
    fn a_namespace_that_no_client_can_name_is_refused_at_its_line() {
        for name in ["", "/chat", "a b", "a,b", "a?b"] {
            let text = catalog("a.v1", &format!("option (fanfare.v1.namespace) = \"{name}\";"));
            let refused = load("names", &[&text], Some(&[])).unwrap_err().to_string();
            assert!(refused.contains("file0.proto:4:") && refused.contains("without a slash"), "{refused}");
        }
        let more = "package a.v1;\noption (fanfare.v1.namespace) = \"other\";\n";
        let text = catalog("a.v1", "option (fanfare.v1.namespace) = \"one\";");
        let refused = load("differ", &[&text, more], Some(&[])).unwrap_err().to_string();
        assert!(refused.contains("another file of a.v1 has the namespace \"one\""), "{refused}");
    }
}
