//! The sharded subscriptions at one node, over one connection. A subscription ends when messages
//! may have been lost; its reader then subscribes again.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value, aio::MultiplexedConnection};

use super::{
    super::{Feed, FeedSender, feed},
    config::Address,
    fault::Fault,
    node::Connector,
};

/// How often a connection is checked.
const PING_INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 5000 });

/// Subscriptions at a node.
pub(super) struct Subscriptions {
    address: Address,
    connector: Arc<Connector>,
    link: tokio::sync::RwLock<Option<Link>>,
}

/// A connection with its channels.
#[derive(Clone)]
struct Link {
    connection: MultiplexedConnection,
    channels: Arc<Channels>,
}

/// The receivers of a channel's messages, by channel name.
type Senders = HashMap<Vec<u8>, Vec<FeedSender<Bytes>>>;

#[derive(Default)]
struct Channels {
    /// Absent once the connection is lost.
    by_name: Mutex<Option<Senders>>,
    /// Expected answers to SUNSUBSCRIBE.
    leaving: AtomicUsize,
}

impl fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriptions").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Channels {
    fn lock(&self) -> MutexGuard<'_, Option<Senders>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// Ends all subscriptions.
    fn end(&self) {
        let _ended = self.lock().take();
    }

    fn pushed(&self, info: PushInfo) {
        match info.kind {
            PushKind::SMessage => {
                let mut data = info.data.into_iter();
                let (Some(Value::BulkString(name)), Some(Value::BulkString(message))) =
                    (data.next(), data.next())
                else {
                    return;
                };
                let message = Bytes::from(message);
                if let Some(senders) = self.lock().as_mut().and_then(|channels| channels.get_mut(&name)) {
                    senders.retain(|sender| sender.send(message.clone(), message.len()));
                }
            }
            // The node no longer has the slot. Answers are not paired with commands.
            PushKind::SUnsubscribe => {
                let expected =
                    self.leaving.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
                if expected.is_err() {
                    self.end();
                }
            }
            PushKind::Disconnection => self.end(),
            _ => {}
        }
    }
}

/// Ends all subscriptions when the node no longer answers: a connection whose other end has gone
/// looks like a quiet one.
async fn watch(mut connection: MultiplexedConnection, channels: Arc<Channels>) {
    while channels.is_open() {
        tokio::time::sleep(PING_INTERVAL).await;
        if redis::cmd("PING").exec_async(&mut connection).await.is_err() {
            channels.end();
        }
    }
}

impl Subscriptions {
    pub(super) fn new(address: Address, connector: Arc<Connector>) -> Self {
        Self { address, connector, link: tokio::sync::RwLock::default() }
    }

    /// Subscribes to a channel; the feed has every message after this resolves.
    pub(super) async fn subscribe(&self, channel: &str) -> Result<Feed<Bytes>, Fault> {
        loop {
            // The read lock prevents unsubscribing.
            let link = self.link.read().await;
            let Some(link) = link.as_ref().filter(|link| link.channels.is_open()) else {
                drop(link);
                self.connect().await?;
                continue;
            };
            let (sender, feed) = feed();
            let lost = || Fault::NotRun(format!("{}: the connection was lost", self.address));
            match link.channels.lock().as_mut() {
                Some(channels) => channels.entry(channel.as_bytes().to_vec()).or_default().push(sender),
                None => return Err(lost()),
            }
            let mut cmd = redis::cmd("SSUBSCRIBE");
            cmd.arg(channel);
            let answer = link.connection.clone().send_packed_command(&cmd).await;
            return match answer.and_then(Value::extract_error) {
                Ok(_) if link.channels.is_open() => Ok(feed),
                Ok(_) => Err(lost()),
                Err(error) => {
                    let fault = Fault::from(error);
                    if matches!(fault, Fault::Unknown(_)) {
                        link.channels.end();
                    }
                    Err(fault)
                }
            };
        }
    }

    async fn connect(&self) -> Result<(), Fault> {
        let mut link = self.link.write().await;
        if link.as_ref().is_some_and(|link| link.channels.is_open()) {
            return Ok(());
        }
        *link = None;
        let channels =
            Arc::new(Channels { by_name: Mutex::new(Some(HashMap::new())), leaving: AtomicUsize::new(0) });
        let pushed = channels.clone();
        let pushes: Arc<dyn Fn(PushInfo) + Send + Sync> = Arc::new(move |info| pushed.pushed(info));
        let connection = self.connector.connect(&self.address, Some(pushes)).await?;
        self.connector.spawn(watch(connection.clone(), channels.clone()));
        *link = Some(Link { connection, channels });
        Ok(())
    }

    /// Unsubscribes from channels that have no readers.
    pub(super) async fn prune(&self) {
        let link = self.link.write().await;
        let Some(link) = link.as_ref() else { return };
        let mut left = Vec::new();
        if let Some(channels) = link.channels.lock().as_mut() {
            channels.retain(|name, senders| {
                senders.retain(|sender| !sender.is_closed());
                if senders.is_empty() {
                    left.push(name.clone());
                }
                !senders.is_empty()
            });
        }
        for name in left {
            link.channels.leaving.fetch_add(1, Ordering::AcqRel);
            let mut cmd = redis::cmd("SUNSUBSCRIBE");
            cmd.arg(name);
            let answer = link.connection.clone().send_packed_command(&cmd).await;
            let Err(error) = answer.and_then(Value::extract_error) else { continue };
            // The answer will not arrive: the node no longer has the slot.
            let _less =
                link.channels.leaving.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
            if matches!(Fault::from(error), Fault::Unknown(_)) {
                link.channels.end();
                return;
            }
        }
    }

    /// Ends all subscriptions: the connection may be to the wrong node.
    pub(super) async fn end(&self) {
        if let Some(link) = self.link.write().await.take() {
            link.channels.end();
        }
    }
}
