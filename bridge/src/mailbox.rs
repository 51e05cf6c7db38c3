//! What waits for a session whose connection is written by a task of our own: bounded in bytes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_proto::v1;
use serde_json::json;
use tokio::sync::Notify;

use crate::{
    delivery::Delivery,
    ending::Ending,
    failure::Failure,
    session::{Outlet, Overflow},
};

/// What an entry costs besides its text.
const ENTRY_BYTES: usize = 64;

/// Something to be sent.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    Event(Arc<Delivery>),
    /// A message that is no event: an acknowledgement or a failure.
    Message(String),
}

/// A session's queue. The lock is short.
#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    notify: Notify,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    ending: Option<Ending>,
}

impl Mailbox {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), notify: Notify::new(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that waits; resolves when there is something, or with the ending when there is nothing more.
    pub(crate) async fn take(&self) -> Result<VecDeque<Item>, Ending> {
        loop {
            {
                let mut state = self.lock();
                if !state.items.is_empty() {
                    state.bytes = 0;
                    return Ok(std::mem::take(&mut state.items));
                }
                if let Some(ending) = &state.ending {
                    return Err(ending.clone());
                }
            }
            self.notify.notified().await;
        }
    }

    /// Adds an item; false when it does not fit.
    fn put(&self, item: Item) -> bool {
        let cost = ENTRY_BYTES
            + match &item {
                Item::Event(delivery) => delivery.event.json.len(),
                Item::Message(text) => text.len(),
            };
        {
            let mut state = self.lock();
            if state.ending.is_some() {
                // Nothing comes behind the end.
                return true;
            }
            // One that is larger than the whole queue must get through all the same.
            if state.bytes + cost > self.bytes_max && !state.items.is_empty() {
                return false;
            }
            state.bytes += cost;
            state.items.push_back(item);
        }
        self.notify.notify_one();
        true
    }

    fn put_or_end(&self, item: Item) {
        if !self.put(item) {
            self.close(&Ending::slow());
        }
    }
}

impl Outlet for Arc<Mailbox> {
    fn deliver(&self, batch: &[Arc<Delivery>]) -> Result<(), Overflow> {
        let fits = batch.iter().all(|delivery| self.put(Item::Event(delivery.clone())));
        if fits { Ok(()) } else { Err(Overflow) }
    }

    fn reply(&self, event: v1::Delivery) {
        self.put_or_end(Item::Event(Arc::new(Delivery::new(event))));
    }

    fn acknowledge(&self, id: i64, json: &[u8]) {
        let data = String::from_utf8_lossy(json);
        self.put_or_end(Item::Message(format!("{{\"type\":\"ack\",\"ref\":{id},\"data\":{data}}}")));
    }

    fn fail(&self, ack: Option<i64>, failure: &Failure) {
        let mut message = failure.json();
        message["type"] = "error".into();
        if let Some(id) = ack {
            message["ref"] = json!(id);
        }
        self.put_or_end(Item::Message(message.to_string()));
    }

    fn close(&self, ending: &Ending) {
        Mailbox::close(self, ending);
    }

    fn queued_bytes(&self) -> (usize, usize) {
        (self.lock().bytes, self.bytes_max)
    }
}

impl Mailbox {
    /// Ends the queue, behind what waits.
    fn close(&self, ending: &Ending) {
        self.lock().ending.get_or_insert_with(|| ending.clone());
        self.notify.notify_one();
    }
}
