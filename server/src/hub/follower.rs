//! The task that follows a tenant's log into its window.

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use fanfare_proto::cursor::Cursor;

use super::{Hub, channel::Channel};
use crate::{
    engine::{Feed, ReadLimits},
    error::Refusal,
    event::Event,
    interest::Interest,
};

/// How much one read returns while a gap is closed.
const GAP: ReadLimits = ReadLimits { events_max: 1024, scan_max: 1024 };
/// The pause before the next attempt to follow a log.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Follows a feed into a channel until the channel is freed. Follows the log again whenever the
/// feed is lost. Without a feed, the log is read first.
pub(super) fn spawn(hub: &Arc<Hub>, channel: &Arc<Channel>, feed: Option<Feed<Arc<Event>>>) {
    let (end, channel, tasks) = (channel.end.clone(), Arc::downgrade(channel), &hub.followers);
    let hub = Arc::downgrade(hub);
    tasks.spawn(end.run_until_cancelled_owned(async move {
        let mut feed = match feed {
            Some(feed) => Some(feed),
            None => follow_again(&hub, &channel).await,
        };
        while let Some(followed) = feed {
            consume(&hub, &channel, followed).await;
            feed = follow_again(&hub, &channel).await;
        }
    }));
}

/// Publishes the events of a feed until the feed is lost or the channel is freed.
async fn consume(hub: &Weak<Hub>, channel: &Weak<Channel>, mut feed: Feed<Arc<Event>>) {
    while let Some(events) = feed.next().await
        && let (Some(hub), Some(channel)) = (hub.upgrade(), channel.upgrade())
    {
        let now = SystemTime::now();
        events
            .iter()
            .filter_map(|event| now.duration_since(event.accepted_at()?).ok())
            .for_each(|lag| hub.lag.record(lag));
        hub.publish(&channel, events);
    }
}

/// Closes the gap from the log, or resets the channel if the log has another history. `None` if the
/// channel was freed.
async fn follow_again(hub: &Weak<Hub>, channel: &Weak<Channel>) -> Option<Feed<Arc<Event>>> {
    loop {
        let (hub, channel) = (hub.upgrade()?, channel.upgrade()?);
        match try_follow(&hub, &channel).await {
            Ok(feed) => {
                channel.block(None);
                return Some(feed);
            }
            Err(Refusal::NewerCatalog(type_name)) => {
                tracing::error!(type_name, "a log has an event of a type that this server does not know");
                channel.block(Some(type_name));
            }
            Err(error) => {
                let tenant = channel.tenant().as_str();
                tracing::warn!(tenant, %error, "a log cannot be followed; it is tried again");
            }
        }
        drop((hub, channel));
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn try_follow(hub: &Hub, channel: &Channel) -> Result<Feed<Arc<Event>>, Refusal> {
    let (head, feed) = hub.engine().follow(channel.tenant()).await?;
    let everything = Interest::everything();
    loop {
        let known: Cursor = channel.lock().window.head();
        if known == head {
            return Ok(feed);
        }
        match hub.engine().read(channel.tenant(), &everything, known, GAP).await {
            Ok(page) if page.events.is_empty() && !page.more => return Ok(feed),
            Ok(page) => hub.publish(channel, page.events),
            Err(Refusal::Reset(_)) => {
                hub.grow(channel.reset(head));
                return Ok(feed);
            }
            Err(other) => return Err(other),
        }
    }
}
