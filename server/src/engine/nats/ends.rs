//! Reads the ends of logs from their leaders, with one request for all callers that ask at the same
//! time: when many sessions begin at once, each needs the end of its log.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};

use super::{frame::Frame, store::StoreError};

/// The last frame of a log and its place; absent if the log is empty.
pub(super) type End = Result<Option<(Arc<Frame>, u64)>, StoreError>;

/// The newest request per subject.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<HashMap<String, Question>>);

/// A request, which continues as long as a caller waits for its answer.
#[derive(Debug, Clone)]
struct Question {
    /// Set when the request is sent: the answer may lack later appends.
    is_asked: Arc<AtomicBool>,
    answer: Shared<BoxFuture<'static, End>>,
}

impl Ends {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Question>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the next request for a subject, which is sent after the current one is answered.
    pub(super) async fn get(&self, subject: &str, ask: impl Future<Output = End> + Send + 'static) -> End {
        let question = {
            let mut questions = self.lock();
            match questions.get(subject) {
                Some(next) if !next.is_asked.load(Ordering::Acquire) => next.clone(),
                under_way => {
                    let question = Question::new(under_way.cloned(), ask);
                    questions.insert(subject.to_owned(), question.clone());
                    question
                }
            }
        };
        let end = question.answer.await;
        let mut questions = self.lock();
        if questions.get(subject).is_some_and(|newest| Arc::ptr_eq(&newest.is_asked, &question.is_asked)) {
            questions.remove(subject);
        }
        end
    }
}

impl Question {
    fn new(under_way: Option<Self>, ask: impl Future<Output = End> + Send + 'static) -> Self {
        let is_asked = Arc::new(AtomicBool::new(false));
        let asks = is_asked.clone();
        let answer = async move {
            if let Some(under_way) = under_way {
                let _older = under_way.answer.await;
            }
            asks.store(true, Ordering::Release);
            ask.await
        };
        Self { is_asked, answer: answer.boxed().shared() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn all_who_ask_at_once_share_a_question_that_is_asked_after_they_came() {
        let (ends, asked) = (Ends::default(), Arc::new(AtomicU64::new(0)));
        let answers = Arc::new(Semaphore::new(0));
        let ask = async || {
            let (asked, answers) = (asked.clone(), answers.clone());
            let ask = async move {
                let before = asked.fetch_add(1, Ordering::AcqRel);
                let _answered = answers.acquire().await;
                Ok(Some((Arc::new(Frame::default()), before)))
            };
            ends.get("a", ask).await.unwrap().unwrap().1
        };
        let all = join_all((0..100).map(|_| ask()));
        let (answers, ()) = tokio::join!(all, async { answers.add_permits(1) });
        // The first request was sent before the other callers joined.
        assert_eq!((answers[0], asked.load(Ordering::Acquire)), (0, 2));
        assert!(answers[1..].iter().all(|answer| *answer == 1));
        assert_eq!(ask().await, 2, "an old answer is none");
        assert!(ends.lock().is_empty());
    }

    #[tokio::test]
    async fn one_who_does_not_go_on_waiting_holds_nobody_up() {
        let ends = Ends::default();
        let ask = || async {
            tokio::task::yield_now().await;
            Ok(None)
        };
        let mut first = Box::pin(ends.get("a", ask()));
        assert!(first.as_mut().now_or_never().is_none(), "it is asked, and is not polled again");
        assert!(ends.get("a", ask()).await.unwrap().is_none());
    }
}
