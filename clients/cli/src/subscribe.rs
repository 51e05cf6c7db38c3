//! `fanfare subscribe`.

use std::io::Write as _;

use anyhow::bail;
use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use chrono::{DateTime, SecondsFormat};
use fanfare_client::{Tail, Tailed};
use fanfare_proto::{
    catalog::Catalogs,
    v1::{Event, SubscribeRequest, TailRequest},
};
use serde_json::{Value, json, value::RawValue};

use crate::{identity, run::stop_signal, settings::SubscribeArgs, store};

/// All rooms.
const ALL: &str = "*";

pub(crate) async fn subscribe(args: SubscribeArgs) -> anyhow::Result<()> {
    let catalogs = args.client.catalogs.clone().or_examples().load()?;
    if let Some(out) = args.out.clone() {
        return store::store(&catalogs, args, &out).await;
    }
    if args.rooms.iter().any(|room| room == ALL) && args.after.is_empty() {
        return tail(&catalogs, args).await;
    }
    let client = identity::tool_client(&args.client, &["subscribe"])?;
    let mut subscription = client.subscribe(SubscribeRequest {
        with_state: false,
        tenant: args.client.tenant,
        rooms: args.rooms,
        after: args.after,
    });
    let stop = stop_signal()?;
    tokio::pin!(stop);
    loop {
        let event = tokio::select! {
            () = &mut stop => return Ok(()),
            event = subscription.next() => event?,
        };
        if !print(&line(&catalogs, &event)?) {
            return Ok(());
        }
    }
}

/// Follows all rooms, for administrators.
async fn tail(catalogs: &Catalogs, args: SubscribeArgs) -> anyhow::Result<()> {
    if args.rooms.len() > 1 {
        bail!("{ALL:?} is all rooms: give it alone");
    }
    let token = identity::tool_token(&args.client, &["admin"])?;
    let tenant = Some(args.client.tenant).filter(|tenant| tenant != ALL).unwrap_or_default();
    let request = TailRequest { tenant, ..TailRequest::default() };
    let mut tail =
        Tail::open(&args.client.server, &token, &identity::client_tls(&args.client.server_tls)?, request)
            .await?;
    let stop = stop_signal()?;
    tokio::pin!(stop);
    loop {
        let tailed = tokio::select! {
            () = &mut stop => return Ok(()),
            tailed = tail.next() => tailed?,
        };
        match tailed {
            Tailed::Event(tailed) => {
                if !print(&line(catalogs, &tailed.event.unwrap_or_default())?) {
                    return Ok(());
                }
            }
            Tailed::Missed(count) => eprintln!("fanfare: warning: {count} events are missing here"),
        }
    }
}

/// Whether the line was printed; if not, the reader has closed the pipe, which is not an error.
fn print(line: &str) -> bool {
    writeln!(std::io::stdout(), "{line}").is_ok()
}

/// An event as one line of JSON, with the payload as browsers see it, or with `protobuf` as base64
/// if no loaded catalog can read it.
pub(crate) fn line(catalogs: &Catalogs, event: &Event) -> anyhow::Result<String> {
    let any = event.payload.clone().unwrap_or_default();
    let type_name = any.type_url.rsplit('/').next().unwrap_or_default().to_owned();
    let kind = catalogs.event(&type_name);
    let time = event.time.and_then(|t| DateTime::from_timestamp(t.seconds, t.nanos.unsigned_abs()));
    let mut head = json!({
        "id": event.id,
        "seq": event.seq,
        "type": type_name,
        "tenant": event.tenant,
        "rooms": event.rooms,
        "time": time.map(|t| t.to_rfc3339_opts(SecondsFormat::Millis, true)),
        "sender": event.sender,
    });
    let mut json = Vec::new();
    let is_readable = kind.is_some_and(|kind| {
        head["name"] = Value::from(kind.name.as_str());
        kind.shape.write_json(&any.value, &mut json).is_ok()
    });
    if !is_readable {
        // Its catalog is missing in --catalog, or is older than the event.
        head["protobuf"] = Value::from(BASE64.encode(&any.value));
        return Ok(head.to_string());
    }
    let payload = String::from_utf8(json)?;
    // The payload's original text, so that the order of its fields is preserved.
    let payload: &RawValue = serde_json::from_str(&payload)?;
    let head = head.to_string();
    Ok(format!("{},\"payload\":{payload}}}", head.strip_suffix('}').unwrap_or(&head)))
}
