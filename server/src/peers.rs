//! The other servers of the group: questions to them, and their questions. Questions are signals,
//! which may be lost. Therefore a question has a deadline, and its result names the servers that
//! did not answer.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fanfare_proto::v1::{Inspect, Inspected, ServerInfo, Stats};
use prost::Message;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    engine::{Engine, ServerId},
    error::Refusal,
};

/// How long the other servers may take to answer. They may have to ask a bridge, which has 2
/// seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(2500);
/// How long a message from this server to itself may take through the store.
const ECHO_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 400 } else { 1000 });
/// Maximum age of an answer about the whole group.
const GROUP_AGE_MAX: Duration = Duration::from_secs(1);
/// Questions of other servers that are processed concurrently. Further ones are not answered.
const UNDER_WAY_MAX: usize = 64;
/// Queued answers per question: one per server of the group.
const ANSWERS_MAX: usize = 1024;
/// The pause before the next attempt to receive signals.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Asks the other servers.
#[derive(Debug)]
pub(crate) struct Peers {
    engine: Arc<dyn Engine>,
    next: AtomicU64,
    /// The receivers of answers by question number.
    asked: Mutex<HashMap<u64, mpsc::Sender<Answer>>>,
    /// The last answers of the group. Locked while they are collected, so that concurrent callers
    /// share them.
    group: tokio::sync::Mutex<Option<(Instant, Others)>>,
    /// The tasks that answer questions.
    tasks: TaskTracker,
}

/// What the other servers of the group report about themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Others {
    pub(crate) known: Vec<Description>,
    /// The ids of the servers that did not answer.
    pub(crate) silent: Vec<String>,
}

/// A question of one server to another.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Question {
    /// About a session of a bridge that is linked to the other server.
    #[prost(message, tag = "2")]
    Inspect(LinkInspect),
    /// About the server itself.
    #[prost(message, tag = "3")]
    Describe(Describe),
    /// Checks that a message arrives. A server sends this only to itself.
    #[prost(message, tag = "4")]
    Echo(Echo),
    /// A user was removed from a room: subscriptions that read it for the user end.
    #[prost(message, tag = "60")]
    Remove(Removal),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Removal {
    #[prost(string, tag = "1")]
    pub(crate) tenant: String,
    #[prost(string, tag = "2")]
    pub(crate) user_id: String,
    #[prost(string, tag = "3")]
    pub(crate) room: String,
}

/// Confirms that a server has carried out a request.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Done {
    /// The id of the server.
    #[prost(string, tag = "1")]
    pub(crate) server: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LinkInspect {
    #[prost(uint64, tag = "1")]
    pub(crate) link: u64,
    #[prost(message, optional, tag = "2")]
    pub(crate) inspect: Option<Inspect>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Describe {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Echo {}

/// The answer of a server.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Reply {
    #[prost(message, tag = "2")]
    Inspected(Inspected),
    #[prost(message, tag = "3")]
    Description(Box<Description>),
    #[prost(message, tag = "60")]
    Done(Done),
}

/// What a server reports about itself.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Description {
    #[prost(message, optional, tag = "1")]
    pub(crate) info: Option<ServerInfo>,
    #[prost(message, optional, tag = "2")]
    pub(crate) stats: Option<Stats>,
}

#[derive(Clone, PartialEq, Message)]
struct Ask {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(oneof = "Question", tags = "2, 3, 4, 60")]
    question: Option<Question>,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(oneof = "Reply", tags = "2, 3, 60")]
    reply: Option<Reply>,
}

#[derive(Clone, PartialEq, Message)]
struct Signal {
    /// The sender's id.
    #[prost(string, tag = "1")]
    from: String,
    #[prost(message, optional, tag = "2")]
    ask: Option<Ask>,
    #[prost(message, optional, tag = "3")]
    answer: Option<Answer>,
}

/// Answers other servers' questions.
pub(crate) trait Respond: Send + Sync + 'static {
    /// The answer; `None` when there is none.
    fn respond(&self, question: Question) -> impl Future<Output = Option<Reply>> + Send;
}

impl Peers {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        let (next, asked, group, tasks) = Default::default();
        Self { engine, next, asked, group, tasks }
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Answer>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one server; `None` when it does not answer in time.
    pub(crate) async fn ask(&self, server: &ServerId, question: Question) -> Option<Reply> {
        let mut answers = self.send(Some(server), question).await.ok()?;
        tokio::time::timeout(ANSWER_TIMEOUT, answers.receiver.recv()).await.ok()??.reply
    }

    /// Sends the other servers a question that they confirm. Returns the servers that did not
    /// confirm in time.
    pub(crate) async fn tell(&self, servers: Vec<ServerId>, question: Question) -> Vec<ServerId> {
        let own = self.engine.server();
        let mut missing: Vec<ServerId> = servers.into_iter().filter(|server| server != own).collect();
        if missing.is_empty() {
            return missing;
        }
        let told = async {
            let Ok(mut answers) = self.send(None, question).await else { return };
            while !missing.is_empty()
                && let Some(answer) = answers.receiver.recv().await
            {
                let Some(Reply::Done(done)) = answer.reply else { continue };
                missing.retain(|server| server.as_str() != done.server);
            }
        };
        let _late = tokio::time::timeout(ANSWER_TIMEOUT, told).await;
        missing
    }

    /// How long a message takes from this server through the store and back; `None` if it does not
    /// arrive in time.
    pub(crate) async fn echo(&self) -> Option<Duration> {
        let since = Instant::now();
        let echo = async {
            let own = self.engine.server();
            let mut answers = self.send(Some(own), Question::Echo(Echo {})).await.ok()?;
            answers.receiver.recv().await
        };
        tokio::time::timeout(ECHO_TIMEOUT, echo).await.ok()??;
        Some(since.elapsed())
    }

    /// What the other servers report about themselves. `servers` are those that hold a lease.
    pub(crate) async fn others(&self, servers: Vec<ServerId>) -> Others {
        let own = self.engine.server();
        let mut missing: Vec<ServerId> = servers.into_iter().filter(|server| server != own).collect();
        if missing.is_empty() {
            return Others::default();
        }
        let mut group = self.group.lock().await;
        if let Some((at, others)) = &*group
            && at.elapsed() < GROUP_AGE_MAX
        {
            return others.clone();
        }
        let mut known = Vec::new();
        let asked = async {
            let Ok(mut answers) = self.send(None, Question::Describe(Describe {})).await else { return };
            while !missing.is_empty()
                && let Some(answer) = answers.receiver.recv().await
            {
                let Some(Reply::Description(description)) = answer.reply else { continue };
                let id = description.info.as_ref().map(|info| info.id.as_str()).unwrap_or_default();
                missing.retain(|server| server.as_str() != id);
                known.push(*description);
            }
        };
        let _late = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
        let silent = missing.iter().map(|server| server.as_str().to_owned()).collect();
        let others = Others { known, silent };
        *group = Some((Instant::now(), others.clone()));
        others
    }

    async fn send(&self, to: Option<&ServerId>, question: Question) -> Result<Answers<'_>, Refusal> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
        self.asked().insert(number, sender);
        let answers = Answers { peers: self, number, receiver };
        let ask = Some(Ask { number, question: Some(question) });
        let signal = Signal { from: self.engine.server().as_str().to_owned(), ask, answer: None };
        self.engine.signal(to, signal.encode_to_vec().into()).await?;
        Ok(answers)
    }

    /// Answers questions and receives answers until the server closes.
    pub(crate) async fn run(self: &Arc<Self>, respond: Arc<impl Respond>, closing: &CancellationToken) {
        let places = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let listen = async {
            loop {
                match self.engine.signals().await {
                    Ok(mut signals) => {
                        while let Some(received) = signals.next().await {
                            received.iter().for_each(|bytes| self.take(bytes, &respond, &places));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "signals of other servers cannot be read; it is tried again");
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
            }
        };
        closing.run_until_cancelled(listen).await;
    }

    fn take(self: &Arc<Self>, bytes: &[u8], respond: &Arc<impl Respond>, places: &Arc<Semaphore>) {
        let Ok(signal) = Signal::decode(bytes) else { return };
        if let Some(answer) = signal.answer
            && let Some(asker) = self.asked().get(&answer.number)
        {
            // The caller may have given up.
            let _gone = asker.try_send(answer);
        }
        let Some(Ask { number, question: Some(question) }) = signal.ask else { return };
        if matches!(question, Question::Echo(_)) {
            if signal.from == self.engine.server().as_str()
                && let Some(asker) = self.asked().get(&number)
            {
                let _gone = asker.try_send(Answer { number, reply: None });
            }
            return;
        }
        let Ok(place) = places.clone().try_acquire_owned() else { return };
        let (peers, respond, from) = (self.clone(), respond.clone(), ServerId::from(signal.from.as_str()));
        self.tasks.spawn(async move {
            let reply = respond.respond(question).await;
            let own = peers.engine.server().as_str().to_owned();
            let signal = Signal { from: own, ask: None, answer: Some(Answer { number, reply }) };
            // If this signal is lost, the other server has no answer from this one.
            let _lost = peers.engine.signal(Some(&from), signal.encode_to_vec().into()).await;
            drop(place);
        });
    }
}

/// The answers to a question.
struct Answers<'a> {
    peers: &'a Peers,
    number: u64,
    receiver: mpsc::Receiver<Answer>,
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.peers.asked().remove(&self.number);
    }
}
