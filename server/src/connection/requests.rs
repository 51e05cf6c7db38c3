//! The requests of one connection: futures that run within the connection's own task.
//!
//! With a task per request, each request and each answer would wake another thread, which costs
//! more than most requests themselves. Therefore the requests of a connection share one thread
//! while it runs; connections are still distributed over all threads.

use std::{
    future::Future,
    mem,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::{FutureExt as _, Stream as _, stream::FuturesUnordered, task::AtomicWaker};
use hyper::rt::Executor;

/// Rounds per poll: answers wake the connection, which may start further requests. After these
/// rounds, other tasks run.
const ROUNDS_MAX: usize = 8;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Collects the futures of a connection's requests.
#[derive(Clone, Default)]
pub(super) struct Requests(Arc<Mutex<Vec<Task>>>);

impl Requests {
    fn take(&self) -> Vec<Task> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Requests {
    fn execute(&self, future: F) {
        // A panic ends only the request in which it occurs.
        let task = Box::pin(AssertUnwindSafe(future).catch_unwind().map(drop));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }
}

/// What the parts of a task share.
#[derive(Debug, Default)]
struct Shared {
    is_running: AtomicBool,
    waker: AtomicWaker,
}

/// The waker of one part. A running task checks its parts itself, so only a task that is not
/// running is woken.
#[derive(Debug)]
struct Part {
    is_woken: AtomicBool,
    task: Arc<Shared>,
}

impl Part {
    fn new(task: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { is_woken: AtomicBool::new(true), task: task.clone() })
    }

    /// Whether the part was woken since the last call.
    fn take(&self) -> bool {
        self.is_woken.swap(false, Ordering::SeqCst)
    }

    fn is_woken(&self) -> bool {
        self.is_woken.load(Ordering::SeqCst)
    }
}

impl Wake for Part {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    // The task clears `is_running` before it reads `is_woken`; this method uses the reverse order.
    // Therefore at least one of them sees that the part was woken.
    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::SeqCst) && !self.task.is_running.load(Ordering::SeqCst) {
            self.task.waker.wake();
        }
    }
}

/// Polls a connection and its requests. Dropping it drops unanswered requests.
pub(super) struct Driver {
    requests: Requests,
    running: FuturesUnordered<Task>,
    shared: Arc<Shared>,
    connection_part: Arc<Part>,
    requests_part: Arc<Part>,
}

impl Driver {
    /// `requests` is the connection's executor.
    pub(super) fn new(requests: Requests) -> Self {
        let shared = Arc::<Shared>::default();
        let (connection_part, requests_part) = (Part::new(&shared), Part::new(&shared));
        Self { requests, running: FuturesUnordered::new(), shared, connection_part, requests_part }
    }

    /// Ready when the connection ends.
    pub(super) fn poll<C: Future>(
        &mut self,
        mut connection: Pin<&mut C>,
        cx: &mut Context<'_>,
    ) -> Poll<C::Output> {
        self.shared.waker.register(cx.waker());
        self.shared.is_running.store(true, Ordering::SeqCst);
        let connection_waker = Waker::from(self.connection_part.clone());
        let requests_waker = Waker::from(self.requests_part.clone());
        for round in 0..ROUNDS_MAX {
            let is_connection_due = self.connection_part.take() || round == 0;
            if is_connection_due
                && let Poll::Ready(ended) =
                    connection.as_mut().poll(&mut Context::from_waker(&connection_waker))
            {
                return Poll::Ready(ended);
            }
            let begun = self.requests.take();
            let has_begun = !begun.is_empty();
            self.running.extend(begun);
            let are_requests_due = self.requests_part.take() || has_begun;
            if are_requests_due {
                let mut context = Context::from_waker(&requests_waker);
                while let Poll::Ready(Some(())) = Pin::new(&mut self.running).poll_next(&mut context) {}
            } else if !is_connection_due {
                break;
            }
        }
        self.shared.is_running.store(false, Ordering::SeqCst);
        if self.connection_part.is_woken() || self.requests_part.is_woken() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{sync::oneshot, time::sleep};
    use tokio_util::task::TaskTracker;

    use super::*;

    /// A connection that starts `requests` and ends when all of them are answered.
    async fn run(requests: Vec<Task>) {
        let executor = Requests::default();
        let mut driver = Driver::new(executor.clone());
        let connection = async {
            let mut answers = Vec::new();
            for request in requests {
                let (answer, answered) = oneshot::channel();
                answers.push(answered);
                executor.execute(async {
                    request.await;
                    let _ended = answer.send(());
                });
            }
            for answered in answers {
                // A request that panicked has no answer.
                let _answered = answered.await;
            }
        };
        tokio::pin!(connection);
        let driven = poll_fn(|cx| driver.poll(connection.as_mut(), cx));
        tokio::select! {
            biased;
            () = sleep(Duration::from_secs(20)) => panic!("not all requests are answered"),
            () = driven => {}
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_that_other_threads_wake_are_answered() {
        for _ in 0..200 {
            let request = || -> Task {
                let (sender, receiver) = oneshot::channel();
                TaskTracker::new().spawn(async { sender.send(()) });
                Box::pin(async { receiver.await.unwrap() })
            };
            TaskTracker::new().spawn(run((0..50).map(|_| request()).collect())).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_request_that_panics_ends_alone() {
        let panics = || -> Task { Box::pin(async { panic!("a request that panics") }) };
        run(vec![panics(), Box::pin(async {}), panics(), Box::pin(tokio::task::yield_now())]).await;
    }

    #[tokio::test]
    async fn a_request_that_is_always_ready_leaves_others_their_turn() {
        let (stop, mut stopped) = oneshot::channel();
        let busy = poll_fn(move |cx| match stopped.try_recv() {
            Ok(()) => Poll::Ready(()),
            Err(_) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        });
        let other = async {
            TaskTracker::new().spawn(async {}).await.unwrap();
            stop.send(()).unwrap();
        };
        run(vec![Box::pin(busy), Box::pin(other)]).await;
    }
}
