//! The hub: one window of recent events per followed tenant, and the subscriptions that wait for
//! the rooms of that tenant.
//!
//! One task per tenant follows the log and publishes new events in batches. Subscriptions *pull*:
//! an event goes into the window once and wakes the subscriptions that wait for one of its rooms.
//! Each subscription reads from its own position when it can. Therefore the hub never awaits a
//! subscriber, and no queue per subscriber can overflow. A subscription that falls behind the
//! window reads the log instead and returns to the window without a gap or a repeat. The hub knows
//! no protocol.

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

/// How long an unused window without new events is kept.
const IDLE_AGE_MAX: Duration = Duration::from_secs(60);

/// The channels of all followed tenants.
#[derive(Debug)]
pub(crate) struct Hub {
    engine: Arc<dyn Engine>,
    channels: RwLock<HashMap<Tenant, Arc<Channel>>>,
    limits: Limits,
    /// Bytes in all windows.
    bytes: AtomicIsize,
    /// Held while windows shrink, so that only one publisher shrinks them.
    shrinking: Mutex<()>,
    /// The tasks that follow logs; each ends with its channel.
    followers: TaskTracker,
    /// Time from the acceptance of an event, on any server, until subscriptions can read it here.
    pub(crate) lag: Histogram,
    /// The open taps.
    pub(crate) taps: Arc<Taps>,
    /// Empty unless a tap covers all tenants.
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

    /// Opens a tap on the events that are published from now on, by any server.
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

    /// Called before an event of a tenant is appended here, so that taps on all tenants receive it
    /// even if it is the tenant's first event.
    pub(crate) async fn announce(self: &Arc<Self>, tenant: &Tenant) {
        if let Some(all) = self.taps.all_tenants() {
            all.follow(self, tenant).await;
        }
    }

    /// The channel of a tenant. If it is new, it follows the log from now on.
    async fn channel(self: &Arc<Self>, tenant: &Tenant) -> Result<Arc<Channel>, Refusal> {
        self.channel_from(tenant, None).await
    }

    /// Like [`Self::channel`], but a new channel has every event after `start`.
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

    /// Adds events of a tenant's log to its window and offers them to the taps.
    fn publish(&self, channel: &Channel, events: impl IntoIterator<Item = Arc<Event>>) {
        self.grow(channel.publish(events, &self.taps));
    }

    /// Adds the growth of a window to the total. Shrinks the largest windows if the total is too
    /// large.
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

    /// The number of windows and the bytes in them.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        (self.channels().len(), usize::try_from(bytes).unwrap_or_default())
    }

    /// Frees unused windows without recent events. Called periodically.
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

    /// The tenants with listeners, in no particular order.
    pub(crate) fn followed(&self) -> Vec<Tenant> {
        let channels = self.channels();
        let followed = channels.iter().filter(|channel| channel.has_listeners());
        followed.map(|channel| channel.tenant().clone()).collect()
    }

    /// Resolves when every window has reached the current end of its log, so that subscriptions can
    /// read up to there.
    pub(crate) async fn catch_up(&self) {
        for channel in self.channels() {
            if let Ok(head) = self.engine.head(channel.tenant()).await {
                channel.reaches(head).await;
            }
        }
    }
}
