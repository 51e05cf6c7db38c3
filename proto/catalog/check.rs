//! From descriptors to tables: every rule of `fanfare/v1/catalog.proto` is checked here.

mod announcement;
mod client;
mod history;
mod namespaces;
mod rules;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use prost_reflect::{
    Cardinality, FileDescriptor, Kind, MessageDescriptor, MethodDescriptor, ServiceDescriptor, Value,
};

use super::{
    CatalogError, Catalogs, ClientMethod, EventType, Method, NotifyMethod, Problem, RESERVED_NAMES, RoomRule,
    RoomTemplate, StateType, SubscribeMethod, TYPE_URL_PREFIX,
    fill::{self, options},
    source::Sources,
};
use crate::{
    json::{Selection, Shape, Shapes, closest},
    room::Room,
};

/// The longest name of an event or call, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Packages that cannot be catalogs.
const FOREIGN: [&str; 3] = ["fanfare.", "grpc.", "google."];

struct Checker<'a> {
    sources: &'a Sources,
    shapes: Shapes,
    problems: Vec<Problem>,
    events: HashMap<String, Arc<EventType>>,
    methods: HashMap<String, Method>,
    calls: HashMap<String, Vec<Arc<ClientMethod>>>,
    packages: BTreeSet<String>,
    /// The namespace of each package as declared in its files, without the slash.
    declared_namespaces: BTreeMap<String, String>,
    rules: HashMap<String, RoomRule>,
}

/// Checks everything and builds the tables, or reports all problems.
pub(super) fn build(sources: &Sources, defaults: Option<&[String]>) -> Result<Catalogs, CatalogError> {
    let mut checker = Checker {
        sources,
        shapes: Shapes::new(&sources.pool),
        problems: Vec::new(),
        events: HashMap::new(),
        methods: HashMap::new(),
        calls: HashMap::new(),
        packages: BTreeSet::new(),
        declared_namespaces: BTreeMap::new(),
        rules: HashMap::new(),
    };
    let mut files: Vec<FileDescriptor> =
        sources.pool.files().filter(|f| sources.roots.contains_key(f.name())).collect();
    // The built-in files come first, so that a file that contradicts them gets the error.
    files.sort_by_key(|file| sources.roots.get(file.name()).is_some_and(|shown| shown != file.name()));
    for file in &files {
        for message in file.messages() {
            checker.message(file, &message);
        }
    }
    checker.unique_event_names();
    for file in &files {
        for service in file.services() {
            checker.service(file, &service);
        }
    }
    for file in &files {
        checker.file(file);
        checker.declared_namespace(file);
        checker.declared_rules(file);
    }
    let namespaces = checker.namespaces(&files, defaults);
    if !checker.problems.is_empty() {
        checker.problems.sort_by(|a, b| (&a.file, a.position).cmp(&(&b.file, b.position)));
        checker.problems.dedup();
        return Err(CatalogError(checker.problems));
    }
    Ok(Catalogs {
        pool: sources.pool.clone(),
        events: checker.events,
        methods: checker.methods,
        calls: checker.calls,
        packages: checker.packages.into_iter().collect(),
        namespaces,
        rules: checker.rules,
        shapes: checker.shapes,
    })
}

impl Checker<'_> {
    fn refuse(
        &mut self,
        file: &FileDescriptor,
        path: &[i32],
        option: Option<u32>,
        message: impl Into<String>,
    ) {
        self.problems.push(self.sources.problem(file, path, option, message.into()));
    }

    fn file(&mut self, file: &FileDescriptor) {
        let package = file.package_name();
        let is_catalog = self.packages.contains(package);
        if is_catalog && FOREIGN.iter().any(|p| package.starts_with(p)) {
            self.refuse(
                file,
                &[2],
                None,
                format!("package {package} is not for catalogs; choose one of your own, e.g. orders.v1"),
            );
        }
        if package.is_empty() && file.messages().len() > 0 {
            self.refuse(file, &[], None, "the file has no package; add one, e.g. `package orders.v1;`");
        }
    }

    fn message(&mut self, file: &FileDescriptor, message: &MessageDescriptor) {
        for child in message.child_messages() {
            self.message(file, &child);
        }
        for field in message.fields() {
            if let Err(problem) = fill::check(&field) {
                self.refuse(file, field.path(), None, problem);
            }
        }
        let Some(declared) = options::event(message) else { return };
        let Some(shape) = self.shapes.get(message.full_name()) else { return };
        let number = Some(options::EVENT);
        let name = text(&declared, "name");
        if let Err(problem) = check_name(&name, "event") {
            self.refuse(file, message.path(), number, problem);
        }
        if let Some(field) = any_field(message, &mut BTreeSet::new()) {
            let problem = format!(
                "event {} holds {field}, a google.protobuf.Any, which has no browser type; write a oneof of messages, or a google.protobuf.Struct for free JSON",
                message.full_name()
            );
            self.refuse(file, message.path(), None, problem);
        }
        let mut rooms = Vec::new();
        for template in list(&declared, "rooms") {
            match RoomTemplate::parse(&template, &shape) {
                Ok(room) => rooms.push(room),
                Err(problem) => self.refuse(file, message.path(), number, problem),
            }
        }
        let ephemeral = flag(&declared, "ephemeral");
        let announcement = announcement::announcement(message, &declared, &rooms, ephemeral)
            .map_err(|problem| self.refuse(file, message.path(), number, problem))
            .unwrap_or_default();
        let binary = flag(&declared, "binary");
        if binary && let Err(problem) = check_binary(&shape, "event", message.full_name()) {
            self.refuse(file, message.path(), number, problem);
        }
        let state = state(&declared, ephemeral, announcement.is_some(), &shape);
        let state = state
            .map_err(|problem| {
                let problem = format!("event {}: {problem}", message.full_name());
                self.refuse(file, message.path(), number, problem);
            })
            .unwrap_or_default();
        let full_name = message.full_name().to_owned();
        self.packages.insert(message.package_name().to_owned());
        let event = EventType {
            type_url: format!("{TYPE_URL_PREFIX}{full_name}"),
            full_name: full_name.clone(),
            name,
            package: message.package_name().to_owned(),
            room_fields: Selection::new(rooms.iter().flat_map(RoomTemplate::fields)),
            rooms,
            ephemeral,
            binary,
            state,
            shape,
            descriptor: message.clone(),
            id_field: announcement::id_field(message),
            announcement,
        };
        self.events.insert(full_name, Arc::new(event));
    }

    fn unique_event_names(&mut self) {
        let mut events: Vec<_> = self.events.values().cloned().collect();
        events.sort_by(|a, b| {
            (a.descriptor.parent_file().name(), a.descriptor.path())
                .cmp(&(b.descriptor.parent_file().name(), b.descriptor.path()))
        });
        let mut seen: HashMap<(String, String), String> = HashMap::new();
        for event in events {
            let key = (event.package.clone(), event.name.clone());
            if let Some(first) = seen.insert(key, event.full_name.clone()) {
                let problem = format!(
                    "event name {:?} is already taken by {first}; names are unique within a catalog, choose another",
                    event.name
                );
                self.refuse(
                    &event.descriptor.parent_file(),
                    event.descriptor.path(),
                    Some(options::EVENT),
                    problem,
                );
            }
        }
    }

    fn service(&mut self, file: &FileDescriptor, service: &ServiceDescriptor) {
        let in_catalog = self.packages.contains(file.package_name());
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let made = match options::client(&method) {
                Some(declared) => self.client(&method, &declared, &path),
                None if in_catalog => self.producer(&method),
                None => continue,
            };
            match made {
                Ok(made) => {
                    self.packages.insert(file.package_name().to_owned());
                    self.methods.insert(path, made);
                }
                Err((option, problem)) => self.refuse(file, method.path(), option, problem),
            }
        }
    }

    fn producer(&self, method: &MethodDescriptor) -> Result<Method, (Option<u32>, String)> {
        let (input, output, name) = (method.input(), method.output(), method.name());
        match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => self.notify(method),
            (false, true) => self.subscribe(name, &input, &output).map_err(|p| (None, p)),
            (true, _) => Err((
                None,
                format!(
                    "{name} streams requests; catalog methods are unary Notify or server-streaming Subscribe methods (fanfare.v1.Realtime.NotifyStream takes streams)"
                ),
            )),
        }
    }

    fn notify(&self, method: &MethodDescriptor) -> Result<Method, (Option<u32>, String)> {
        let (name, input, output) = (method.name(), method.input(), method.output());
        let request = input.full_name();
        let refuse = |problem: String| (None, problem);
        if output.full_name() != "fanfare.v1.NotifyResponse" {
            return Err(refuse(format!(
                "{name} returns {}; a Notify method returns fanfare.v1.NotifyResponse (a browser's call needs `option (fanfare.v1.client)`)",
                output.full_name()
            )));
        }
        let (mut target, mut events, mut oneofs) = (None, HashMap::new(), BTreeSet::new());
        for field in input.fields() {
            let kind = field.kind();
            let message = kind.as_message().filter(|_| field.cardinality() != Cardinality::Repeated);
            let Some(message) = message else {
                return Err(refuse(format!(
                    "{name}: field {} of {request} is neither a fanfare.v1.Target nor an event; put it into the event",
                    field.name()
                )));
            };
            if message.full_name() == "fanfare.v1.Target" {
                target = Some(field.number());
                continue;
            }
            let event = self.events.get(message.full_name()).ok_or_else(|| {
                refuse(format!(
                    "{name}: field {} of {request} is no event; give {} `option (fanfare.v1.event)`, or remove the field",
                    field.name(),
                    message.full_name()
                ))
            })?;
            oneofs.insert(
                field
                    .containing_oneof()
                    .map(|o| o.name().to_owned())
                    .unwrap_or_else(|| format!("={}", field.number())),
            );
            events.insert(field.number(), event.clone());
        }
        let target_field = target.ok_or_else(|| {
            refuse(format!("{name}: {request} has no target; add `fanfare.v1.Target target = N;`"))
        })?;
        if oneofs.len() != 1 {
            return Err(refuse(format!(
                "{name}: {request} has {} event fields; want exactly one, a message with `option (fanfare.v1.event)`, or one oneof of them",
                events.len()
            )));
        }
        let declared = options::notify(method).map(|o| list(&o, "rooms")).unwrap_or_default();
        let rooms = declared.iter().map(|room| Room::new(room)).collect::<Result<_, _>>();
        let rooms = rooms.map_err(|e| (Some(options::NOTIFY), format!("{name}: rooms: {e}")))?;
        Ok(Method::Notify(Arc::new(NotifyMethod { target_field, events, rooms })))
    }

    fn subscribe(
        &self,
        name: &str,
        input: &MessageDescriptor,
        output: &MessageDescriptor,
    ) -> Result<Method, String> {
        if input.full_name() != "fanfare.v1.SubscribeRequest" {
            return Err(format!(
                "{name} takes {}; a Subscribe method takes fanfare.v1.SubscribeRequest",
                input.full_name()
            ));
        }
        let (mut meta, mut event_fields) = (None, HashMap::new());
        for field in output.fields() {
            let kind = field.kind();
            let type_name = kind.as_message().map(|m| m.full_name().to_owned()).unwrap_or_default();
            let in_oneof = field.containing_oneof().is_some();
            if type_name == "fanfare.v1.Event" && !in_oneof && field.cardinality() != Cardinality::Repeated {
                meta = Some(field.number());
            } else if in_oneof && self.events.contains_key(&type_name) {
                event_fields.insert(type_name, field.number());
            } else if in_oneof {
                return Err(format!(
                    "{name}: member {} of the oneof in {} is not an event; give its message `option (fanfare.v1.event)`, or remove it",
                    field.name(),
                    output.full_name()
                ));
            } else {
                return Err(format!(
                    "{name}: field {} of {} must be `fanfare.v1.Event meta`, or a member of the oneof of events",
                    field.name(),
                    output.full_name()
                ));
            }
        }
        let meta_field = meta.ok_or_else(|| {
            format!("{name}: {} has no metadata; add `fanfare.v1.Event meta = N;`", output.full_name())
        })?;
        if event_fields.is_empty() {
            return Err(format!(
                "{name}: {} has no oneof of events; add one, each member an event",
                output.full_name()
            ));
        }
        Ok(Method::Subscribe(Arc::new(SubscribeMethod { meta_field, event_fields })))
    }
}

/// How an event declares that it changes the current state of its rooms.
fn state(
    declared: &prost_reflect::DynamicMessage,
    is_ephemeral: bool,
    is_announcement: bool,
    shape: &Shape,
) -> Result<Option<StateType>, String> {
    if !declared.has_field_by_name("state") {
        return Ok(None);
    }
    let state = declared.get_field_by_name("state");
    let Some(state) = state.as_deref().and_then(Value::as_message) else { return Ok(None) };
    if is_ephemeral {
        return Err("`state` needs a stored event, but it is `ephemeral`; remove one".into());
    }
    if is_announcement {
        return Err(
            "`state` and `presence` exclude each other; `query` and GetPresence list who is online".into()
        );
    }
    let ttl = state.get_field_by_name("ttl_seconds").and_then(|ttl| ttl.as_u32()).unwrap_or_default();
    StateType::parse(&text(state, "key"), flag(state, "delete"), u64::from(ttl), shape).map(Some)
}

/// Checks that there is a field to attach.
fn check_binary(shape: &Shape, what: &str, full_name: &str) -> Result<(), String> {
    if shape.has_bytes() {
        return Ok(());
    }
    Err(format!(
        "{what} {full_name} is `binary`, but browsers see no `bytes` field in it; remove `binary`, or give it one, e.g. `bytes content = 7;`"
    ))
}

fn check_name(name: &str, what: &str) -> Result<(), String> {
    if RESERVED_NAMES.contains(&name) {
        return Err(format!(
            "{what} name {name:?} is kept by Socket.IO clients for themselves; choose another"
        ));
    }
    let printable = !name.chars().any(|c| c.is_control() || c.is_whitespace());
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && printable {
        return Ok(());
    }
    Err(format!(
        "{what} name {name:?} must be 1 to {NAME_BYTES_MAX} bytes without white space, e.g. \"order:placed\""
    ))
}

/// The path of a `google.protobuf.Any` in the message, if it contains one.
fn any_field(message: &MessageDescriptor, seen: &mut BTreeSet<String>) -> Option<String> {
    if !seen.insert(message.full_name().to_owned()) {
        return None;
    }
    message.fields().find_map(|field| {
        let Kind::Message(inner) = field.kind() else { return None };
        if inner.full_name() == "google.protobuf.Any" {
            return Some(field.name().to_owned());
        }
        any_field(&inner, seen).map(|rest| format!("{}.{rest}", field.name()))
    })
}

fn text(message: &prost_reflect::DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn flag(message: &prost_reflect::DynamicMessage, field: &str) -> bool {
    message.get_field_by_name(field).and_then(|v| v.as_bool()).unwrap_or_default()
}

fn list(message: &prost_reflect::DynamicMessage, field: &str) -> Vec<String> {
    let value = message.get_field_by_name(field);
    let items = value.as_deref().and_then(Value::as_list).unwrap_or_default();
    items.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}
