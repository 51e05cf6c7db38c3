//! What browsers emit, run as the catalogs declare it: nothing here is special to any product.

use std::sync::Arc;

use fanfare_proto::{
    catalog::{Catalogs, ClientMethod, FillPlan, RenderError, RoomTemplate, Stamp},
    json::{PayloadError, Shape, closest},
    room::{Room, shown},
    v1::{CallError, CallOk, CallRequest, Caller, Delivery, Reason},
};
use prost::Message as _;
use prost_reflect::DynamicMessage;

use crate::ingest;

#[derive(Debug)]
pub(crate) struct Calls {
    catalogs: Arc<Catalogs>,
}

impl Calls {
    pub(crate) const fn new(catalogs: Arc<Catalogs>) -> Self {
        Self { catalogs }
    }

    /// Runs a call. The caller's identity comes from the bridge, which has verified it.
    pub(crate) fn run(&self, request: &CallRequest) -> Result<CallOk, CallError> {
        let method = self.catalogs.call(&request.name).ok_or_else(|| self.unknown(&request.name))?;
        let caller = request.caller.as_ref().ok_or_else(|| invalid("the call names no caller", ""))?;
        let bytes = method.request.read_json(&request.json).map_err(payload)?;
        let claims = serde_json::from_slice(&caller.claims_json).unwrap_or_default();
        let event_id = format!("~{:016x}", rand::random::<u64>());
        let stamp = Stamp { caller, claims: &claims, event_id: &event_id, time: ingest::now() };
        let message = DynamicMessage::decode(method.request_descriptor.clone(), bytes.as_slice())
            .map_err(|e| invalid(&e.to_string(), ""))?;
        Ok(CallOk {
            join: room(method.join.as_ref(), &bytes, caller, true)?,
            leave: room(method.leave.as_ref(), &bytes, caller, false)?,
            replies: reply(method, &message, &stamp)?,
            json: made(&method.response_plan, &method.response, &message, &stamp)?.into(),
        })
    }

    fn unknown(&self, name: &str) -> CallError {
        let shown = shown(name);
        let near = closest(&shown, self.catalogs.call_names());
        let hint = near.map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default();
        let message = format!("no catalog declares that browsers may emit {shown:?}{hint}");
        CallError { reason: Reason::UnknownEvent.into(), message, path: String::new() }
    }
}

fn invalid(message: &str, path: &str) -> CallError {
    CallError { reason: Reason::InvalidArgument.into(), message: message.to_owned(), path: path.to_owned() }
}

fn payload(error: PayloadError) -> CallError {
    invalid(&error.message, &error.path)
}

/// The room by a template, as the list that the answer carries.
fn room(
    template: Option<&RoomTemplate>,
    bytes: &[u8],
    caller: &Caller,
    enter: bool,
) -> Result<Vec<String>, CallError> {
    let Some(template) = template else { return Ok(Vec::new()) };
    let room = template.render(bytes).map_err(|error| match error {
        RenderError::Payload(error) => payload(error),
        error @ (RenderError::Empty { .. } | RenderError::Address { .. }) => invalid(&error.to_string(), ""),
    })?;
    let Some(room) = room else { return Ok(Vec::new()) };
    if enter && !may_enter(caller, &room) {
        let message =
            format!("the token does not allow room {:?}: its rooms claim does not list it", room.as_str());
        return Err(CallError { reason: Reason::Forbidden.into(), message, path: String::new() });
    }
    Ok(vec![room.as_str().to_owned()])
}

/// Catalogs cannot join `org` or `user` rooms, so only the restriction of the token remains.
fn may_enter(caller: &Caller, room: &Room) -> bool {
    !caller.rooms_restricted || caller.rooms.iter().any(|r| r == room.as_str())
}

fn reply(
    method: &ClientMethod,
    request: &DynamicMessage,
    stamp: &Stamp<'_>,
) -> Result<Vec<Delivery>, CallError> {
    let Some((event, plan)) = &method.reply else { return Ok(Vec::new()) };
    let json = made(plan, &event.shape, request, stamp)?;
    Ok(vec![Delivery {
        id: stamp.event_id.to_owned(),
        name: event.name.clone(),
        json: json.into(),
        rooms: Vec::new(),
        except_sessions: Vec::new(),
        ephemeral: true,
    }])
}

/// The message of a plan as browser JSON.
fn made(
    plan: &FillPlan,
    shape: &Shape,
    request: &DynamicMessage,
    stamp: &Stamp<'_>,
) -> Result<Vec<u8>, CallError> {
    let bytes = plan.make(Some(request), stamp).encode_to_vec();
    let mut json = Vec::with_capacity(bytes.len() * 2 + 16);
    shape.write_json(&bytes, &mut json).map_err(payload)?;
    Ok(json)
}
