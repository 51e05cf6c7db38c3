//! `fanfare notify`.

use std::{
    io::BufRead as _,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, anyhow, bail};
use fanfare_client::Client;
use fanfare_proto::{
    catalog::{Catalogs, EventType},
    json::closest,
    v1::{NotifyRequest, NotifyResponse, Target},
};
use futures_util::StreamExt as _;
use prost_types::Any;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{identity, reach::Reach, settings::NotifyArgs};

/// Number of events that are read ahead of the network.
const READ_AHEAD_MAX: usize = 1024;

pub(crate) async fn notify(args: NotifyArgs) -> anyhow::Result<()> {
    let catalogs = args.client.catalogs.clone().or_examples().load()?;
    let kind = find(&catalogs, &args.kind)?.clone();
    let client = identity::tool_client(&args.client, &["notify"])?.retry_for(args.retry_for);
    let target = Target {
        expected_revision: args.expected_revision,
        tenant: args.client.tenant.clone(),
        rooms: args.room.clone(),
        idempotency_key: args.idempotency_key.clone(),
        except_sessions: args.except_session.clone(),
    };
    let reach = Reach::new(&catalogs);
    if args.json == "-" {
        return stream(&client, &kind, &target, reach).await;
    }
    let request = request(&kind, &target, args.json.as_bytes())?;
    if let Some(warning) = warning(&reach, &kind, &request) {
        eprintln!("fanfare: warning: {warning}");
    }
    let response = client.notify(request).await?;
    print(&response);
    Ok(())
}

/// Finds the event by its full name, or by its browser name if that is unambiguous.
fn find<'c>(catalogs: &'c Catalogs, name: &str) -> anyhow::Result<&'c Arc<EventType>> {
    if let Some(event) = catalogs.event(name) {
        return Ok(event);
    }
    let mut named: Vec<_> = catalogs.events().filter(|e| e.name == name).collect();
    named.sort_by(|a, b| a.full_name.cmp(&b.full_name));
    match named.as_slice() {
        [event] => Ok(event),
        [] => {
            let near = closest(name, catalogs.events().flat_map(|e| [e.full_name.as_str(), e.name.as_str()]));
            let hint = near.map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default();
            Err(anyhow!("no loaded catalog has an event {name:?}{hint}; see fanfare check"))
        }
        several => {
            let names: Vec<_> = several.iter().map(|e| e.full_name.as_str()).collect();
            Err(anyhow!("{name:?} is the name of several events: give one of {}", names.join(", ")))
        }
    }
}

fn request(kind: &EventType, target: &Target, json: &[u8]) -> anyhow::Result<NotifyRequest> {
    let value =
        kind.shape.read_canonical(json).with_context(|| format!("the payload is no {}", kind.full_name))?;
    let event = Some(Any { type_url: kind.type_url.clone(), value });
    Ok(NotifyRequest { target: Some(target.clone()), event })
}

fn warning(reach: &Reach, kind: &EventType, request: &NotifyRequest) -> Option<String> {
    let payload = request.event.as_ref().map_or(&[][..], |event| &event.value);
    reach.warning(kind, payload, request.target.as_ref().map_or(&[], |target| &target.rooms))
}

async fn stream(client: &Client, kind: &Arc<EventType>, target: &Target, reach: Reach) -> anyhow::Result<()> {
    let (requests, outgoing) = mpsc::channel(READ_AHEAD_MAX);
    let problem = Arc::new(Mutex::new(None));
    let (kind, target, noted) = (kind.clone(), target.clone(), problem.clone());
    let reader = tokio::task::spawn_blocking(move || {
        let mut is_warned = false;
        for (number, line) in std::io::stdin().lock().lines().enumerate() {
            let made = line.map_err(anyhow::Error::from).and_then(|line| {
                if line.trim().is_empty() {
                    Ok(None)
                } else {
                    request(&kind, &target, line.as_bytes()).map(Some)
                }
            });
            match made {
                Ok(None) => {}
                Ok(Some(request)) => {
                    // One warning is enough.
                    if let Some(warning) = warning(&reach, &kind, &request).filter(|_| !is_warned) {
                        eprintln!("fanfare: warning: line {}: {warning}", number + 1);
                        is_warned = true;
                    }
                    if requests.blocking_send(request).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let error = error.context(format!("line {}", number + 1));
                    *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return;
                }
            }
        }
    });
    let mut responses = client.notify_stream(ReceiverStream::new(outgoing));
    while let Some(response) = responses.next().await {
        print(&response?);
    }
    reader.await?;
    match problem.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => bail!(error),
        None => Ok(()),
    }
}

#[allow(clippy::print_stdout, reason = "this is what the command is for")]
fn print(response: &NotifyResponse) {
    println!("{}", json!({ "id": response.id, "seq": response.seq, "duplicate": response.duplicate }));
}
