//! The tasks of tenants in use, and how commands reach them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use fanfare_proto::room::Tenant;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    log::{self, Command, Followed, Log, Waiting},
    shared::Shared,
};
use crate::{config::Limits, engine::Appended, error::Refusal, event::Draft};

/// Commands in the queue of one tenant's task; further commands wait until there is space.
const COMMANDS_MAX: usize = 1024;
/// Bytes of waiting drafts of all tenants.
const QUEUE_BYTES_MAX: u32 = 64 << 20;
/// Overhead of a frame besides its events, and of a message besides its payload, in bytes.
const FRAME_EXTRA_BYTES: usize = 4096;

/// Overhead of the largest batch besides its payloads, in bytes.
const BATCH_EXTRA_BYTES: usize = 128 << 10;

/// The message size that the NATS servers must accept: a full frame, or a batch of that size with
/// one more event.
pub(super) const fn payload_bytes(limits: &Limits) -> usize {
    log::FRAME_BYTES_MAX.saturating_add(limits.event_bytes_max).saturating_add(BATCH_EXTRA_BYTES)
}

/// Tasks by tenant. The lock is held only briefly.
#[derive(Debug)]
pub(super) struct Logs {
    tasks: Mutex<HashMap<Tenant, mpsc::Sender<Command>>>,
    queue: Arc<Semaphore>,
}

impl Logs {
    pub(super) fn new() -> Self {
        Self { tasks: Mutex::default(), queue: Arc::new(Semaphore::new(QUEUE_BYTES_MAX as usize)) }
    }

    /// Bytes of waiting drafts, and their maximum.
    pub(super) fn waiting_bytes(&self) -> (usize, usize) {
        let max = QUEUE_BYTES_MAX as usize;
        (max - self.queue.available_permits().min(max), max)
    }

    /// Tenants that have a task.
    pub(super) fn tenants(&self) -> Vec<Tenant> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|_, task| !task.is_closed());
        tasks.keys().cloned().collect()
    }
}

/// The task of a tenant, started if there is none.
fn task(shared: &Arc<Shared>, tenant: &Tenant) -> Result<mpsc::Sender<Command>, Refusal> {
    if shared.cancel.is_cancelled() {
        return Err(Refusal::Shutdown);
    }
    let mut tasks = shared.logs.tasks.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(task) = tasks.get(tenant).filter(|task| !task.is_closed()) {
        return Ok(task.clone());
    }
    tasks.retain(|_, task| !task.is_closed());
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    shared.tasks.spawn(Log::new(shared.clone(), tenant.clone(), commands).run());
    tasks.insert(tenant.clone(), sender.clone());
    Ok(sender)
}

/// Sends a command to the task of a tenant.
async fn command(shared: &Arc<Shared>, tenant: &Tenant, mut command: Command) -> Result<(), Refusal> {
    loop {
        match task(shared, tenant)?.send(command).await {
            Ok(()) => return Ok(()),
            // The task has just ended because it was idle; the next attempt starts another one.
            Err(mpsc::error::SendError(returned)) => command = returned,
        }
    }
}

/// Appends drafts here; batches of another server are not forwarded again.
pub(super) async fn append_here(
    shared: &Arc<Shared>,
    tenant: &Tenant,
    drafts: Vec<Draft>,
    is_forwarded: bool,
) -> Result<Vec<Appended>, Refusal> {
    if drafts.is_empty() {
        return Ok(Vec::new());
    }
    let bytes: usize = drafts.iter().map(log::cost).sum();
    let max = shared.store.client.max_payload().saturating_sub(FRAME_EXTRA_BYTES);
    if bytes > max {
        return Err(Refusal::Invalid(format!(
            "the batch has {bytes} bytes; NATS allows {max} (setting max_payload of nats-server)"
        )));
    }
    let share = u32::try_from(bytes).unwrap_or(u32::MAX).min(QUEUE_BYTES_MAX);
    let queue = shared.logs.queue.clone();
    let share = queue.acquire_many_owned(share).await.map_err(|_| Refusal::Shutdown)?;
    let (answer, appended) = oneshot::channel();
    let waiting = Waiting { drafts, answer, _share: Some(share), bytes, is_forwarded };
    command(shared, tenant, Command::Append(waiting)).await?;
    appended.await.unwrap_or(Err(Refusal::Storage("written")))
}

/// Follows a tenant's log.
pub(super) async fn follow(shared: &Arc<Shared>, tenant: &Tenant) -> Followed {
    let (answer, followed) = oneshot::channel();
    command(shared, tenant, Command::Follow(answer)).await?;
    followed.await.unwrap_or(Err(Refusal::Storage("read")))
}
