//! The linked bridges: their identity, their last reports, and questions about their sessions.
//!
//! Knows no protocol: the link transports questions and answers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fanfare_proto::{
    room::shown,
    v1::{BridgeInfo, BridgeStats, Inspect, Inspected, LinkHello},
};
use tokio::sync::{Notify, oneshot};

use crate::ingest;

/// How long a bridge may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Unanswered questions per bridge. Beyond this number, no further question is sent.
const ASKED_MAX: usize = 64;
/// Maximum number of transports that a report distinguishes.
const TRANSPORTS_MAX: usize = 16;
/// Maximum number of refusal reasons that a report distinguishes.
const REFUSALS_MAX: usize = 64;

/// All linked bridges by link number.
#[derive(Debug, Default)]
pub(crate) struct Bridges {
    linked: Mutex<BTreeMap<u64, Arc<Bridge>>>,
}

/// The administrative view of a bridge's link. It ends when the [`Linked`] that holds it is
/// dropped.
#[derive(Debug, Default)]
pub(crate) struct Bridge {
    /// `None` until the bridge has sent its hello.
    info: Mutex<Option<BridgeInfo>>,
    stats: Mutex<Option<BridgeStats>>,
    questions: Mutex<Questions>,
    next_ref: AtomicU64,
    asked: Notify,
}

#[derive(Debug, Default)]
struct Questions {
    /// Questions to send.
    waiting: Vec<Inspect>,
    /// Waiting callers by question number. Entries of callers that gave up are removed with the
    /// next question.
    unanswered: HashMap<u64, oneshot::Sender<Inspected>>,
}

/// The registration of a linked bridge. Dropping it ends the registration.
#[derive(Debug)]
pub(crate) struct Linked {
    bridges: Arc<Bridges>,
    number: u64,
    pub(crate) bridge: Arc<Bridge>,
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.bridges.lock().remove(&self.number);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bridges {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Bridge>>> {
        locked(&self.linked)
    }

    /// Registers a bridge. `number` is unique per link and grows.
    pub(crate) fn link(self: &Arc<Self>, number: u64) -> Linked {
        let bridge = Arc::new(Bridge::default());
        self.lock().insert(number, bridge.clone());
        Linked { bridges: self.clone(), number, bridge }
    }

    /// The bridge of a link.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<Bridge>> {
        self.lock().get(&number).cloned()
    }

    /// The bridges that have sent their hello, sorted by name. If a bridge has several links, the
    /// newest one counts.
    fn known(&self) -> Vec<(BridgeInfo, Arc<Bridge>)> {
        let linked: Vec<Arc<Bridge>> = self.lock().values().cloned().collect();
        let with_info = linked.into_iter().filter_map(|bridge| {
            let info = locked(&bridge.info).clone()?;
            Some((info, bridge))
        });
        let newest: BTreeMap<(String, String), _> = with_info
            .map(|(info, bridge)| ((info.name.clone(), info.instance.clone()), (info, bridge)))
            .collect();
        newest.into_values().collect()
    }

    /// The number of links.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// The identities of the linked bridges, by name.
    pub(crate) fn infos(&self) -> Vec<BridgeInfo> {
        self.known().into_iter().map(|(info, _)| info).collect()
    }

    /// The last report of each bridge that has sent one, by name.
    pub(crate) fn stats(&self) -> Vec<BridgeStats> {
        let report = |(info, bridge): (BridgeInfo, Arc<Bridge>)| {
            let stats = locked(&bridge.stats).clone()?;
            Some(BridgeStats { name: info.name, instance: info.instance, ..stats })
        };
        self.known().into_iter().filter_map(report).collect()
    }
}

impl Bridge {
    /// Stores the bridge's hello.
    pub(crate) fn hello(&self, hello: &LinkHello) {
        *locked(&self.info) = Some(BridgeInfo {
            name: shown(&hello.bridge),
            instance: shown(&hello.instance),
            version: shown(&hello.version),
            linked_at: Some(ingest::now()),
            server: String::new(),
        });
    }

    /// Stores the bridge's report.
    pub(crate) fn report(&self, mut stats: BridgeStats) {
        stats.sessions.truncate(TRANSPORTS_MAX);
        stats.refusals.truncate(REFUSALS_MAX);
        for refusal in &mut stats.refusals {
            refusal.last_message = shown(&refusal.last_message);
        }
        *locked(&self.stats) = Some(stats);
    }

    /// Asks the bridge about a session; `None` if it does not answer in time or does not have the
    /// session.
    pub(crate) async fn inspect(&self, mut question: Inspect) -> Option<Inspected> {
        question.r#ref = self.next_ref.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, answered) = oneshot::channel();
        {
            let mut questions = locked(&self.questions);
            let questions = &mut *questions;
            questions.unanswered.retain(|_, asker| !asker.is_closed());
            questions.waiting.retain(|waiting| questions.unanswered.contains_key(&waiting.r#ref));
            if questions.unanswered.len() >= ASKED_MAX {
                return None;
            }
            questions.unanswered.insert(question.r#ref, answer);
            questions.waiting.push(question);
        }
        self.asked.notify_one();
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, answered).await.ok()?.ok()?;
        answer.connection.is_some().then_some(answer)
    }

    /// The questions to send to the bridge. Resolves when there are some.
    pub(crate) async fn questions(&self) -> Vec<Inspect> {
        loop {
            let waiting = std::mem::take(&mut locked(&self.questions).waiting);
            if !waiting.is_empty() {
                return waiting;
            }
            self.asked.notified().await;
        }
    }

    /// Passes the bridge's answer to the waiting caller.
    pub(crate) fn inspected(&self, answer: Inspected) {
        if let Some(asker) = locked(&self.questions).unanswered.remove(&answer.r#ref) {
            // The caller may have given up.
            let _gone = asker.send(answer);
        }
    }
}
