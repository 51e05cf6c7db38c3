//! The hub: a window of the recent events of each tenant that somebody follows, and who waits for
//! which rooms.
//!
//! One task per tenant follows the log and publishes what comes, a batch at a time. Subscriptions
//! *pull*: an event goes into the window once and wakes those that wait for one of its rooms; each
//! reads from its own position when it can. So the hub never awaits a subscriber, there is no queue
//! per subscriber to overflow, and one that falls behind the window reads the log instead and
//! returns without a gap or a repeat. Knows nothing of protocols.

mod all_tenants;
mod channel;
mod follower;
mod listeners;
#[cfg(test)]
mod newer_catalog;
mod subscription;
mod tap;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicIsize, Ordering},
    },
    time::Duration,
};

use fanfare_proto::{cursor::Cursor, latency::Histogram, room::Tenant};
use tokio_util::task::TaskTracker;

use crate::{config::Limits, engine::Engine, error::Refusal, event::Event, share};

use all_tenants::AllTenants;
use channel::Channel;
pub(crate) use channel::Inbox;
pub(crate) use subscription::{Batch, Subscription};
use tap::Taps;
pub(crate) use tap::{READERS_MAX as TAP_READERS_MAX, Tap, Wanted};

/// How long a window is kept that nobody follows and that gets no events.
const IDLE_AGE_MAX: Duration = Duration::from_secs(60);

/// All tenants' channels.
#[derive(Debug)]
pub(crate) struct Hub {
    engine: Arc<dyn Engine>,
    channels: RwLock<HashMap<Tenant, Arc<Channel>>>,
    limits: Limits,
    /// Bytes in all windows.
    bytes: AtomicIsize,
    /// Held while windows shrink, by one publisher.
    shrinking: Mutex<()>,
    /// The tasks that follow logs; each ends with its channel.
    followers: TaskTracker,
    /// From the acceptance of an event, on any server, until subscriptions can read it here.
    pub(crate) lag: Histogram,
    /// Who reads along.
    pub(crate) taps: Arc<Taps>,
    /// Absent while nobody reads along of all tenants.
    all_tenants: tokio::sync::Mutex<Weak<AllTenants>>,
}

impl Hub {
    pub(crate) fn new(limits: Limits, engine: Arc<dyn Engine>) -> Self {
        let (channels, bytes, shrinking, followers, lag, taps, all_tenants) = Default::default();
        Self { engine, channels, limits, bytes, shrinking, followers, lag, taps, all_tenants }
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// Reads along what is published from now on, whichever server takes it.
    pub(crate) async fn tap(self: &Arc<Self>, wanted: Wanted) -> Result<Tap, Refusal> {
        let (channel, all) = match &wanted.tenant {
            Some(tenant) => (Some(self.channel(tenant).await?), None),
            None => (None, Some(self.all_tenants().await?)),
        };
        self.taps.open(wanted, channel, all).ok_or(Refusal::TooManyReaders(tap::READERS_MAX))
    }

    async fn all_tenants(self: &Arc<Self>) -> Result<Arc<AllTenants>, Refusal> {
        let mut all_tenants = self.all_tenants.lock().await;
        if let Some(all) = all_tenants.upgrade() {
            return Ok(all);
        }
        let all = AllTenants::open(self).await?;
        *all_tenants = Arc::downgrade(&all);
        Ok(all)
    }

    /// An event of a tenant is about to be appended here: those who read along of all tenants are to
    /// get it, also when it is the tenant's first one.
    pub(crate) async fn announce(self: &Arc<Self>, tenant: &Tenant) {
        if let Some(all) = self.taps.all_tenants() {
            all.follow(self, tenant).await;
        }
    }

    /// The tenant's channel, which is followed from now on.
    async fn channel(self: &Arc<Self>, tenant: &Tenant) -> Result<Arc<Channel>, Refusal> {
        self.channel_from(tenant, None).await
    }

    /// Likewise; a channel that is new has everything after `start`.
    async fn channel_from(
        self: &Arc<Self>,
        tenant: &Tenant,
        start: Option<Cursor>,
    ) -> Result<Arc<Channel>, Refusal> {
        if let Some(channel) = self.channels.read().unwrap_or_else(PoisonError::into_inner).get(tenant) {
            return Ok(channel.clone());
        }
        let (cursor, feed) = match start {
            Some(start) => (start, None),
            None => {
                let (head, feed) = self.engine.follow(tenant).await?;
                (head, Some(feed))
            }
        };
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(tenant) {
            return Ok(channel.clone());
        }
        let channel = Arc::new(Channel::new(tenant.clone(), cursor, &self.limits));
        follower::spawn(self, &channel, feed);
        channels.insert(tenant.clone(), channel.clone());
        Ok(channel)
    }

    /// Takes events of a tenant's log over, and gives them to those who read along.
    fn publish(&self, channel: &Channel, events: impl IntoIterator<Item = Arc<Event>>) {
        self.grow(channel.publish(events, &self.taps));
    }

    /// Accounts for what a window grew; all shrink when they have become too large together.
    fn grow(&self, growth: isize) {
        let bytes = self.bytes.fetch_add(growth, Ordering::Relaxed).saturating_add(growth);
        let max = self.limits.window_total_bytes_max;
        if usize::try_from(bytes).is_ok_and(|bytes| bytes > max)
            && let Ok(_one) = self.shrinking.try_lock()
        {
            let channels = self.channels();
            let mut sizes: Vec<usize> = channels.iter().map(|channel| channel.bytes()).collect();
            let Some(level) = share::level(&mut sizes, max) else { return };
            let shrunk: isize = channels.iter().map(|channel| channel.shrink(level)).sum();
            self.bytes.fetch_add(shrunk, Ordering::Relaxed);
        }
    }

    fn channels(&self) -> Vec<Arc<Channel>> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How many windows there are, and their bytes.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        (self.channels().len(), usize::try_from(bytes).unwrap_or_default())
    }

    /// Frees the windows that nobody follows and that get no events. Called now and then.
    pub(crate) fn sweep(&self) {
        for channel in self.channels() {
            if channel.idle_for() > IDLE_AGE_MAX {
                let tenant = channel.tenant().clone();
                drop(channel);
                self.release(&tenant);
            }
        }
    }

    pub(crate) fn release(&self, tenant: &Tenant) {
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        let Some(channel) = channels.get(tenant) else { return };
        if Arc::strong_count(channel) == 1 {
            let growth = channel.shrink(0);
            channels.remove(tenant);
            self.bytes.fetch_add(growth, Ordering::Relaxed);
        }
    }

    /// The tenants that somebody follows, in no particular order.
    pub(crate) fn followed(&self) -> Vec<Tenant> {
        let channels = self.channels();
        let followed = channels.iter().filter(|channel| channel.has_listeners());
        followed.map(|channel| channel.tenant().clone()).collect()
    }

    /// Resolves when every window has what is in its log now, so that subscriptions can read it.
    pub(crate) async fn catch_up(&self) {
        for channel in self.channels() {
            if let Ok(head) = self.engine.head(channel.tenant()).await {
                channel.reaches(head).await;
            }
        }
    }
}
