//! `fanfare subscribe --out`: a durable consumer. It stores each event once, and resumes where the
//! stored events end.

use std::time::Duration;

use anyhow::{Context as _, bail};
use fanfare_client::{Client, Error as ClientError, Subscription};
use fanfare_proto::{
    catalog::Catalogs,
    v1::{Event, Reason, SubscribeRequest},
};
use fanfare_relay::sink::{FileSink, Place, Record, Sink, TableSink};
use futures_util::FutureExt as _;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::{identity, relay, run::stop_signal, settings::SubscribeArgs, subscribe::line};

/// Maximum number of events that are stored together.
const BATCH_EVENTS_MAX: usize = 1000;
/// Maximum number of bytes that are stored together, unless a single event is larger.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often it checks whether the cursor has advanced without events.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// The maximum age of the stored cursor while no events arrive. It must be shorter than the log's
/// retention.
const CURSOR_AGE_MAX: Duration = Duration::from_secs(60);

/// Stores events until it is stopped.
pub(crate) async fn store(catalogs: &Catalogs, args: SubscribeArgs, out: &str) -> anyhow::Result<()> {
    let client = identity::tool_client(&args.client, &["subscribe"])?;
    let mut sink = open(&args, out).await?;
    let mut request = SubscribeRequest {
        tenant: args.client.tenant.clone(),
        rooms: args.rooms,
        after: args.after,
        with_state: false,
    };
    if !sink.cursor().is_empty() {
        sink.cursor().clone_into(&mut request.after);
        info!(cursor = request.after, "storing goes on");
    }
    let mut subscription = client.subscribe(request.clone());
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stored = Instant::now();
    loop {
        let next = tokio::select! {
            () = &mut stop => break,
            _ = look.tick() => {
                let is_old = sink.cursor().is_empty() || stored.elapsed() > CURSOR_AGE_MAX;
                if is_old {
                    reach(&mut sink, &subscription).await?;
                    stored = Instant::now();
                }
                continue;
            }
            next = subscription.next() => next,
        };
        match next {
            Ok(event) => {
                let (records, then) = batch(catalogs, event, &mut subscription)?;
                sink.store(&records).await?;
                stored = Instant::now();
                if let Some(error) = then {
                    subscription = resume(&client, &mut request, &mut sink, error, args.follow).await?;
                }
            }
            Err(error) => {
                subscription = resume(&client, &mut request, &mut sink, error, args.follow).await?;
            }
        }
    }
    reach(&mut sink, &subscription).await
}

async fn open(args: &SubscribeArgs, out: &str) -> anyhow::Result<Sink> {
    let is_rotating = args.rotate_bytes.0 > 0;
    Ok(match Place::from(out) {
        Place::File(path) => Sink::File(Box::new(FileSink::open(&path, args.rotate_bytes.0 as u64)?)),
        Place::Postgres(_) if is_rotating => bail!("--rotate-bytes is for files"),
        Place::Postgres(url) => {
            let name = if args.sink_name.is_empty() {
                format!("{}/{}", args.client.tenant, args.rooms.join(","))
            } else {
                args.sink_name.clone()
            };
            Sink::Table(Box::new(TableSink::open(relay::database(&url, &args.database)?, name).await?))
        }
    })
}

/// Stores a position that was reached without an event.
async fn reach(sink: &mut Sink, subscription: &Subscription) -> anyhow::Result<()> {
    let cursor = subscription.cursor();
    if cursor.is_empty() || cursor == sink.cursor() {
        return Ok(());
    }
    if sink.cursor().is_empty() {
        info!(cursor, "storing begins");
    }
    Ok(sink.reach(cursor).await?)
}

/// An event and those available after it; also the error that ended the subscription, if any.
fn batch(
    catalogs: &Catalogs,
    first: Event,
    subscription: &mut Subscription,
) -> anyhow::Result<(Vec<Record>, Option<ClientError>)> {
    let (mut records, mut bytes, mut next) = (Vec::new(), 0, Some(Ok(first)));
    loop {
        match next {
            // Ephemeral events are not in the log, so they are not stored.
            Some(Ok(event)) if event.seq == 0 => {}
            Some(Ok(event)) => {
                let json = line(catalogs, &event).with_context(|| format!("event {}", event.id))?;
                bytes += json.len();
                records.push(Record { cursor: event.id, json });
            }
            Some(Err(error)) => return Ok((records, Some(error))),
            None => return Ok((records, None)),
        }
        if records.len() >= BATCH_EVENTS_MAX || bytes >= BATCH_BYTES_MAX {
            return Ok((records, None));
        }
        next = subscription.next().now_or_never();
    }
}

/// After a RESET: continues at the cursor from the server, and records that events may be missing.
async fn resume(
    client: &Client,
    request: &mut SubscribeRequest,
    sink: &mut Sink,
    error: ClientError,
    follow: bool,
) -> anyhow::Result<Subscription> {
    let ClientError::Refused { reason: Reason::Reset, cursor: Some(cursor), .. } = &error else {
        return Err(error.into());
    };
    if !follow {
        bail!("{error}; events may be missing: --follow goes on and notes the gap");
    }
    warn!(after = sink.cursor(), cursor, "the log does not reach back: events may be missing");
    sink.miss(cursor).await?;
    request.after.clone_from(cursor);
    Ok(client.subscribe(request.clone()))
}
