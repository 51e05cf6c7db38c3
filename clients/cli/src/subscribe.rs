//! `fanfare subscribe`.

use std::io::Write as _;

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat};
use fanfare_client::Client;
use fanfare_proto::{
    catalog::Catalogs,
    v1::{Event, SubscribeRequest},
};
use serde_json::{Value, json, value::RawValue};

use crate::{identity, run::stop_signal, settings::SubscribeArgs};

pub(crate) async fn subscribe(args: SubscribeArgs) -> anyhow::Result<()> {
    let catalogs = Catalogs::load(&args.client.catalogs.catalog)?;
    let client = Client::new(&args.client.server, &identity::tool_token(&args.client)?)?;
    let mut subscription = client.subscribe(SubscribeRequest {
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
        let line = line(&catalogs, &event)?;
        if writeln!(std::io::stdout(), "{line}").is_err() {
            // Whoever read has gone.
            return Ok(());
        }
    }
}

/// An event as one line of JSON; the payload as browsers see it, or as base64 when no loaded catalog has its type.
fn line(catalogs: &Catalogs, event: &Event) -> anyhow::Result<String> {
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
    let payload = match kind {
        Some(kind) => {
            head["name"] = Value::from(kind.name.as_str());
            let mut json = Vec::new();
            kind.shape.write_json(&any.value, &mut json).with_context(|| format!("event {}", event.id))?;
            String::from_utf8(json)?
        }
        None => Value::from(format!("{} bytes; give its catalog by --catalog", any.value.len())).to_string(),
    };
    // The payload's text as it is, so that the order of its fields stays.
    let payload: &RawValue = serde_json::from_str(&payload)?;
    let head = head.to_string();
    Ok(format!("{},\"payload\":{payload}}}", head.strip_suffix('}').unwrap_or(&head)))
}
