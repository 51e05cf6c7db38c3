//! Catalogs: which events exist, where they are delivered, and which calls are allowed, read from
//! `.proto` files.
//!
//! Built-in and run-time catalogs are loaded the same way: source text, descriptors, checks, the
//! tables below. A catalog that breaks a rule of `fanfare/v1/catalog.proto` is refused here, so
//! later code can rely on its validity. Knows nothing of transports or storage.

mod changes;
mod check;
mod fill;
mod history;
mod payload;
mod rule;
mod source;
mod state;
mod template;

use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc};

use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor};

use crate::{
    json::{Selection, Shape, Shapes, Table},
    room::Room,
    v1::{Presence, Transport},
};

pub use changes::breaking_changes;
pub use fill::{Member, Stamp};
pub use history::{HistoryElement, HistoryMethod};
pub use payload::ValidPayload;
pub use rule::RoomRule;
pub use source::builtin_names;
pub use state::StateType;
pub use template::{RenderError, RoomTemplate};

/// The prefix of an event's `type_url` in `google.protobuf.Any`.
pub const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

/// Names that Socket.IO clients reserve (socket.io-client, `lib/socket.ts`, RESERVED_EVENTS).
pub const RESERVED_NAMES: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Which of the built-in catalogs (the examples) are loaded.
#[derive(Debug, Clone, Copy)]
pub enum Builtin<'a> {
    /// All.
    All,
    /// Those with these names of [`builtin_names`].
    Only(&'a [String]),
}

/// All loaded catalogs.
pub struct Catalogs {
    pool: DescriptorPool,
    events: HashMap<String, Arc<EventType>>,
    methods: HashMap<String, Method>,
    /// By emitted name; several if they are for different transports.
    calls: HashMap<String, Vec<Arc<ClientMethod>>>,
    packages: Vec<String>,
    /// "/" first, then the others by name.
    namespaces: Vec<Namespace>,
    /// By kind.
    rules: HashMap<String, RoomRule>,
    shapes: Shapes,
}

/// The namespace of clients that do not name one, and of transports other than Socket.IO.
pub const DEFAULT_NAMESPACE: &str = "/";

/// A Socket.IO namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// "/", or e.g. `/messenger`.
    pub name: String,
    /// The packages whose events and calls it serves, sorted.
    pub catalogs: Vec<String>,
}

impl fmt::Debug for Catalogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogs").field("packages", &self.packages).finish_non_exhaustive()
    }
}

impl Catalogs {
    /// The built-in catalogs.
    pub fn builtin() -> Result<Self, CatalogError> {
        Self::load_served(Builtin::All, &[], &[])
    }

    /// Built-in catalogs and those of `paths`: files, or folders whose `.proto` files are all
    /// loaded, named relative to the folder. For tools, which identify catalogs by package: two
    /// catalogs with the same names do not have to fit into "/".
    pub fn load(builtin: Builtin<'_>, paths: &[PathBuf]) -> Result<Self, CatalogError> {
        check::build(&source::compile(builtin, paths)?, None)
    }

    /// The same for a server. Its namespace "/" serves the catalogs `defaults` (empty: all) and
    /// must not contain a name that two of them declare.
    pub fn load_served(
        builtin: Builtin<'_>,
        paths: &[PathBuf],
        defaults: &[String],
    ) -> Result<Self, CatalogError> {
        check::build(&source::compile(builtin, paths)?, Some(defaults))
    }

    /// The descriptors of everything loaded, including the contract.
    pub fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// The event of this full message name, e.g. `messenger.v1.NewMessage`.
    pub fn event(&self, full_name: &str) -> Option<&Arc<EventType>> {
        self.events.get(full_name)
    }

    /// All events, in no particular order.
    pub fn events(&self) -> impl Iterator<Item = &Arc<EventType>> {
        self.events.values()
    }

    /// The gRPC paths of all methods, in no particular order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.methods.keys().map(String::as_str)
    }

    /// What a gRPC path such as `/messenger.v1.Messenger/NotifyNewMessage` does.
    pub fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }

    /// All methods of the catalogs' services, in no particular order.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.methods.values()
    }

    /// The call that browsers of a namespace make by emitting `name` over `transport`: a method for
    /// only this transport takes precedence over one for all.
    pub fn call(&self, name: &str, transport: Transport, namespace: &str) -> Option<&Arc<ClientMethod>> {
        let (methods, namespace) = (self.calls.get(name)?, self.namespace(namespace)?);
        let of = |wanted| {
            methods.iter().find(move |method| method.transport == wanted && namespace.serves(&method.package))
        };
        of(transport).or_else(|| of(Transport::Unspecified))
    }

    /// The Socket.IO namespaces: "/" first, then the others by name.
    pub fn namespaces(&self) -> &[Namespace] {
        &self.namespaces
    }

    /// The rule for rooms of a kind; `None`: no catalog declares one.
    pub fn room_rule(&self, kind: &str) -> Option<RoomRule> {
        self.rules.get(kind).copied()
    }

    /// The kinds of rooms that the catalogs name and that are open to the whole tenant because no
    /// catalog declares who may enter; sorted.
    pub fn undeclared_kinds(&self) -> Vec<&str> {
        let of_events = self.events.values().flat_map(|event| &event.rooms);
        let of_calls = self.calls().flat_map(|call| {
            let history = call.history.as_ref().map(|history| &history.room);
            [call.join.as_ref(), call.leave.as_ref(), call.query.as_ref(), history].into_iter().flatten()
        });
        let kinds = of_events.chain(of_calls).map(RoomTemplate::kind);
        let mut kinds: Vec<&str> =
            kinds.filter(|kind| !RoomRule::FIXED.contains(kind) && !self.rules.contains_key(*kind)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// A namespace by its name; an empty name is "/".
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        let name = if name.is_empty() { DEFAULT_NAMESPACE } else { name };
        self.namespaces.iter().find(|namespace| namespace.name == name)
    }

    /// All calls that browsers may emit, in no particular order.
    pub fn calls(&self) -> impl Iterator<Item = &Arc<ClientMethod>> {
        self.calls.values().flatten()
    }

    /// All names that browsers may emit.
    pub fn call_names(&self) -> impl Iterator<Item = &str> {
        self.calls.keys().map(String::as_str)
    }

    /// The full names of the catalogs' services, sorted.
    pub fn services(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .methods
            .keys()
            .filter_map(|path| path.trim_start_matches('/').split_once('/'))
            .map(|(service, _)| service.to_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The mapping between the bytes and the browser JSON of a message, by the message's full name.
    pub fn shape(&self, full_name: &str) -> Option<Arc<Shape>> {
        self.shapes.get(full_name)
    }

    /// The plans of all messages.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.shapes.table.clone()
    }

    /// The packages that are catalogs, sorted.
    pub fn packages(&self) -> &[String] {
        &self.packages
    }
}

impl Namespace {
    /// Whether it serves a catalog.
    pub fn serves(&self, package: &str) -> bool {
        self.catalogs.iter().any(|catalog| catalog == package)
    }
}

/// A declared event.
#[derive(Debug)]
pub struct EventType {
    /// The message's full name, e.g. `messenger.v1.NewMessage`.
    pub full_name: String,
    /// [`TYPE_URL_PREFIX`] and the full name.
    pub type_url: String,
    /// The name under which browsers receive it, e.g. `message:new`.
    pub name: String,
    /// The catalog, e.g. `messenger.v1`.
    pub package: String,
    /// The rooms it is delivered to if the producer names none.
    pub rooms: Vec<RoomTemplate>,
    /// Whether it is never stored.
    pub ephemeral: bool,
    /// Whether its `bytes` fields are attachments over Socket.IO.
    pub binary: bool,
    /// How it changes the current state of its rooms.
    pub state: Option<StateType>,
    /// The mapping between its bytes and its browser JSON.
    pub shape: Arc<Shape>,
    /// Its descriptor.
    pub descriptor: MessageDescriptor,
    /// The number of the string field that receives the event's id when a browser's call creates
    /// the event.
    pub id_field: Option<u32>,
    /// When the server publishes it automatically.
    pub announcement: Option<Announcement>,
    /// The fields that its rooms name, in order. `None`: too many to record while a payload is
    /// checked.
    room_fields: Option<Selection>,
}

impl EventType {
    /// The only transport that the event's file is for; unspecified: all.
    pub(crate) fn transport(&self) -> Transport {
        fill::options::transport(&self.descriptor.parent_file())
    }
}

/// Whether the server writes the field when a browser's call creates the message, so that browsers
/// need not send it.
pub(crate) fn is_stamped(field: &FieldDescriptor) -> bool {
    fill::options::fill(field).is_some()
}

/// An event that the server publishes automatically when users connect, disconnect, join or leave.
#[derive(Debug)]
pub struct Announcement {
    /// The occasion.
    pub on: Presence,
    /// The only transport whose sessions are greeted with it; unspecified: all.
    pub transport: Transport,
    /// How it is created.
    pub plan: FillPlan,
    /// For joined and left: the kind of rooms it concerns, and the field that receives a room's id.
    pub room: Option<(String, FieldDescriptor)>,
}

/// What a catalog service's method does.
#[derive(Debug, Clone)]
pub enum Method {
    /// Publishes one event.
    Notify(Arc<NotifyMethod>),
    /// Streams a catalog's events.
    Subscribe(Arc<SubscribeMethod>),
    /// A call that a browser may emit; also available over gRPC if no session is needed.
    Client(Arc<ClientMethod>),
}

/// A unary method whose request is a target and one event, of one type or one of several.
#[derive(Debug)]
pub struct NotifyMethod {
    /// The number of the request's `fanfare.v1.Target` field.
    pub target_field: u32,
    /// The event for each of the request's event fields, by number.
    pub events: HashMap<u32, Arc<EventType>>,
    /// The rooms the events are delivered to if the producer names none; empty: those that their
    /// types declare.
    pub rooms: Vec<Room>,
}

/// A server-streaming method whose response is metadata and a oneof of events.
#[derive(Debug)]
pub struct SubscribeMethod {
    /// The number of the response's `fanfare.v1.Event` field.
    pub meta_field: u32,
    /// The number of the response's field for each event, by the event's full name.
    pub event_fields: HashMap<String, u32>,
}

/// A call that browsers may make.
#[derive(Debug)]
pub struct ClientMethod {
    /// The name that the browser emits, e.g. `subscribe:chat`.
    pub on: String,
    /// The catalog, e.g. `messenger.v1`.
    pub package: String,
    /// The only transport over which it can be emitted; unspecified: all.
    pub transport: Transport,
    /// The gRPC path.
    pub path: String,
    /// How the request is read.
    pub request: Arc<Shape>,
    /// The request's descriptor.
    pub request_descriptor: MessageDescriptor,
    /// How the response is written.
    pub response: Arc<Shape>,
    /// Whether the response's `bytes` fields are attachments over Socket.IO.
    pub binary: bool,
    /// The response: fields copied from the request by name, then filled.
    pub response_plan: FillPlan,
    /// The internal service that is called first and creates the response.
    pub upstream: Option<String>,
    /// If the upstream has no address, the server still starts and the call is refused.
    pub upstream_optional: bool,
    /// The room whose members are listed.
    pub query: Option<RoomTemplate>,
    /// The page of stored events that the response contains.
    pub history: Option<HistoryMethod>,
    /// The event that is published.
    pub publish: Option<Publish>,
    /// The room the session joins.
    pub join: Option<RoomTemplate>,
    /// Whether the session gets the current state of the room that it joins.
    pub state: bool,
    /// The room the session leaves.
    pub leave: Option<RoomTemplate>,
    /// The event that is sent only to the caller, created like the response.
    pub reply: Option<(Arc<EventType>, FillPlan)>,
}

impl ClientMethod {
    /// Whether it is only meaningful within a session.
    pub const fn needs_session(&self) -> bool {
        self.join.is_some() || self.leave.is_some()
    }
}

/// An event that a browser's call publishes.
#[derive(Debug)]
pub struct Publish {
    /// The event.
    pub event: Arc<EventType>,
    /// How it is created.
    pub plan: FillPlan,
    /// Whether the caller's session is excluded.
    pub except_caller: bool,
}

/// How a message is created for a caller: fields copied from the request by name, fields stamped by
/// the server, and nested messages that have stamped fields themselves.
#[derive(Debug)]
pub struct FillPlan {
    /// The message that is created.
    pub descriptor: MessageDescriptor,
    /// Pairs of a source field and the target field with the same name and type.
    pub copies: Vec<(FieldDescriptor, FieldDescriptor)>,
    /// Fields that the server writes.
    pub fills: Vec<(FieldDescriptor, FillSource)>,
    /// Singular message fields with fills inside.
    pub nested: Vec<(FieldDescriptor, FillPlan)>,
    /// Repeated message fields that get one element per member of the queried room.
    pub lists: Vec<(FieldDescriptor, FillPlan)>,
    /// Copied fields whose messages have stamped fields of their own.
    pub restamped: Vec<FieldDescriptor>,
}

/// Where a stamped value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FillSource {
    /// The event's id.
    EventId,
    /// The time of the call.
    Time,
    /// The caller's user id.
    UserId,
    /// The caller's name.
    UserName,
    /// The caller's session id.
    SessionId,
    /// The listed member's user id.
    MemberId,
    /// The listed member's name.
    MemberName,
    /// Whether the listed member has a session.
    MemberOnline,
    /// Where the next page of a history starts.
    HistoryCursor,
    /// Whether a history may have older events.
    HistoryMore,
    /// A claim of the caller's token.
    Claim(String),
    /// A fixed text.
    Text(String),
}

/// One reason for refusing a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as named by the caller.
    pub file: String,
    /// Line and column, from 1, if known.
    pub position: Option<(usize, usize)>,
    /// What is wrong, and what would be correct.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// The catalogs were refused; contains all problems that were found.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct CatalogError(pub Vec<Problem>);
