//! The rules for client methods.

use std::sync::Arc;

use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor};

use super::{Checker, check_binary, check_name, closest, flag, text};
use crate::{
    catalog::{
        ClientMethod, EventType, FillPlan, FillSource, Method, Publish, RoomTemplate,
        fill::{self, options},
    },
    json::Shape,
};

/// A problem, and the number of the option that causes it.
pub(super) type Refused = (Option<u32>, String);

pub(super) fn refuse(problem: String) -> Refused {
    (Some(options::CLIENT), problem)
}

/// The source from which events are created.
#[derive(Clone, Copy)]
enum Source<'a> {
    Browser(&'a MessageDescriptor),
    Upstream(&'a MessageDescriptor),
}

impl Checker<'_> {
    pub(super) fn client(
        &mut self,
        method: &MethodDescriptor,
        declared: &DynamicMessage,
        path: &str,
    ) -> Result<Method, Refused> {
        let (input, output) = (method.input(), method.output());
        if method.is_client_streaming() || method.is_server_streaming() {
            return Err((None, format!("{} streams; what browsers emit is unary", method.name())));
        }
        let on = text(declared, "on");
        check_name(&on, "call").map_err(refuse)?;
        let transport = options::transport(&method.parent_file());
        let file = method.parent_file();
        let same =
            |other: &&Arc<ClientMethod>| other.transport == transport && other.package == file.package_name();
        if let Some(other) = self.calls.get(&on).and_then(|all| all.iter().find(same)) {
            return Err(refuse(format!(
                "browsers' call {on:?} is already taken by {}; choose another name",
                other.path
            )));
        }
        let request = self.shape(&input)?;
        let upstream = upstream(declared)?;
        let from = if upstream.is_some() { Source::Upstream(&output) } else { Source::Browser(&input) };
        let reply = self.made_event(declared, "reply", from)?;
        let response_plan = fill::plan(Some(&input), &output);
        let query = template(declared, "query", &request, &input)?;
        let lists = !response_plan.lists.is_empty() || reply.as_ref().is_some_and(|r| !r.1.lists.is_empty());
        if query.is_some() && !lists {
            return Err(refuse(format!(
                "query: neither {} nor the reply has a list to take the members; add a repeated field of a message that has a field with `(fanfare.v1.fill) = FILL_MEMBER_ID`",
                output.full_name()
            )));
        }
        let history = self.history(declared, &request, &input, &output)?;
        let (response, binary) = (self.shape(&output)?, flag(declared, "binary"));
        if binary {
            check_binary(&response, "response", output.full_name()).map_err(refuse)?;
        }
        let join = own_kind(declared, "join", &request, &input)?;
        let state = flag(declared, "state");
        if state && join.is_none() {
            return Err(refuse("state: there is no `join` whose room has it; add one, or remove it".into()));
        }
        let made = Arc::new(ClientMethod {
            on: on.clone(),
            package: method.parent_file().package_name().to_owned(),
            transport,
            path: path.to_owned(),
            join,
            state,
            leave: own_kind(declared, "leave", &request, &input)?,
            publish: self.publish(declared, from)?,
            query,
            history,
            reply,
            upstream,
            upstream_optional: flag(declared, "upstream_optional"),
            response,
            binary,
            response_plan,
            request,
            request_descriptor: input,
        });
        self.calls.entry(on).or_default().push(made.clone());
        Ok(Method::Client(made))
    }

    fn shape(&self, message: &MessageDescriptor) -> Result<Arc<Shape>, Refused> {
        let shape = self.shapes.get(message.full_name());
        shape.ok_or_else(|| refuse(format!("{} is not known", message.full_name())))
    }

    /// The event that an option names, if any, and how it is created.
    fn made_event(
        &self,
        declared: &DynamicMessage,
        option: &str,
        from: Source<'_>,
    ) -> Result<Option<(Arc<EventType>, FillPlan)>, Refused> {
        let name = text(declared, option);
        if name.is_empty() {
            return Ok(None);
        }
        let event = self.events.get(&name).ok_or_else(|| refuse(self.no_event(option, &name)))?;
        let plan = match from {
            Source::Browser(request) => fill::plan(Some(request), &event.descriptor),
            Source::Upstream(response) => fill::plan_trusting(response, &event.descriptor),
        };
        Ok(Some((event.clone(), plan)))
    }

    fn publish(&self, declared: &DynamicMessage, from: Source<'_>) -> Result<Option<Publish>, Refused> {
        let except_caller = flag(declared, "except_caller");
        let Some((event, plan)) = self.made_event(declared, "publish", from)? else {
            if except_caller {
                return Err(refuse("except_caller: there is no `publish` to leave the caller out of".into()));
            }
            return Ok(None);
        };
        if event.rooms.is_empty() {
            return Err(refuse(format!(
                "publish: {} declares no rooms; give it e.g. `rooms: \"chat:{{chat_id}}\"`",
                event.full_name
            )));
        }
        if plan.nested.iter().any(|(_, inner)| inner.takes_event_id()) {
            return Err(refuse(format!(
                "publish: {} has FILL_EVENT_ID inside another message; only a field of the event itself can take its id",
                event.full_name
            )));
        }
        Ok(Some(Publish { event, plan, except_caller }))
    }

    fn no_event(&self, option: &str, name: &str) -> String {
        let mut message = format!(
            "{option}: {name:?} is not an event; write the full name of a message with `option (fanfare.v1.event)`"
        );
        if let Some(near) = closest(name, self.events.keys().map(String::as_str)) {
            message.push_str(&format!(" (did you mean {near:?}?)"));
        }
        message
    }
}

impl FillPlan {
    fn takes_event_id(&self) -> bool {
        self.fills.iter().any(|(_, source)| *source == FillSource::EventId)
            || self.nested.iter().any(|(_, inner)| inner.takes_event_id())
    }
}

fn template(
    declared: &DynamicMessage,
    option: &str,
    shape: &Shape,
    request: &MessageDescriptor,
) -> Result<Option<RoomTemplate>, Refused> {
    let text = text(declared, option);
    if text.is_empty() { Ok(None) } else { template_of(option, &text, shape, request).map(Some) }
}

/// The room template that an option contains.
pub(super) fn template_of(
    option: &str,
    text: &str,
    shape: &Shape,
    request: &MessageDescriptor,
) -> Result<RoomTemplate, Refused> {
    let template =
        RoomTemplate::parse(text, shape).map_err(|problem| refuse(format!("{option}: {problem}")))?;
    if let Some(stamped) = template.fields().map(ToString::to_string).find(|path| is_stamped(request, path)) {
        return Err(refuse(format!(
            "{option}: room template {text:?} names {stamped}, which the server fills and browsers cannot send; name a field of {} without `fill`",
            request.full_name()
        )));
    }
    Ok(template)
}

/// Whether the server fills a field, or any field on the path to it.
fn is_stamped(message: &MessageDescriptor, path: &str) -> bool {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    message.get_field_by_name(name).is_some_and(|field| {
        let inner = field.kind().as_message().is_some_and(|inner| is_stamped(inner, rest));
        options::fill(&field).is_some() || inner
    })
}

/// A template for rooms that sessions may join and leave.
fn own_kind(
    declared: &DynamicMessage,
    option: &str,
    shape: &Shape,
    request: &MessageDescriptor,
) -> Result<Option<RoomTemplate>, Refused> {
    let room = template(declared, option, shape, request)?;
    match &room {
        Some(room) if matches!(room.kind(), "org" | "user") => Err(refuse(format!(
            "{option}: {:?}: sessions are in \"org\" and their own \"user:\" room from the start and cannot {option} others; choose another kind, e.g. \"chat:{{chat_id}}\"",
            room.as_str()
        ))),
        _ => Ok(room),
    }
}

fn upstream(declared: &DynamicMessage) -> Result<Option<String>, Refused> {
    let name = text(declared, "upstream");
    if name.is_empty() {
        if flag(declared, "upstream_optional") {
            return Err(refuse("upstream_optional: there is no `upstream` that could be absent".into()));
        }
        return Ok(None);
    }
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if name.len() > 64 || !name.bytes().all(plain) {
        return Err(refuse(format!(
            "upstream: {name:?} is no name: want up to 64 of a-z, 0-9, '-' and '_', e.g. \"billing\"; its address is the server's setting"
        )));
    }
    Ok(Some(name))
}
