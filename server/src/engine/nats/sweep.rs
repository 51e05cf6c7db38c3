//! Retention: removes the oldest frames of logs that are too large or too old. The last frame of a
//! log stays, because it holds the log's epoch, seq and tag.

use std::collections::{HashSet, VecDeque};

use fanfare_proto::room::Tenant;

use super::{
    frame::Frame,
    keys::millis,
    names::{LogName, Names},
    shared::{Shared, now_millis},
    store::{Start, StoreError},
};
use crate::{config::Retention, share};

/// Logs per call that are checked because this server appends to them.
const ACTIVE_MAX: usize = 256;
/// Logs per call that are checked in turn.
const TURN_MAX: usize = 128;

/// The position in the current round, and the sizes of its logs.
#[derive(Debug)]
pub(super) struct Sweeper {
    retention: Retention,
    turn: VecDeque<Tenant>,
    partition: u32,
    sizes: Vec<usize>,
    /// The maximum size of a log at which all logs fit together, from the previous round.
    level: usize,
}

impl Sweeper {
    pub(super) fn new(retention: Retention) -> Self {
        let level = retention.bytes_max;
        Self { retention, turn: VecDeque::new(), partition: 0, sizes: Vec::new(), level }
    }

    /// Checks some logs. Every server does this; removing twice is harmless.
    pub(super) async fn run(&mut self, shared: &Shared, active: Vec<Tenant>) {
        let mut seen = HashSet::new();
        for tenant in active.into_iter().take(ACTIVE_MAX) {
            self.look_at(shared, &tenant).await;
            seen.insert(tenant);
        }
        if self.turn.is_empty() {
            self.next_partition(shared).await;
        }
        for _ in 0..TURN_MAX {
            let Some(tenant) = self.turn.pop_front() else { return };
            if !seen.contains(&tenant)
                && let Some(size) = self.look_at(shared, &tenant).await
            {
                self.sizes.push(size);
            }
        }
    }

    async fn next_partition(&mut self, shared: &Shared) {
        if self.partition == 0 {
            let level = share::level(&mut self.sizes, self.retention.total_bytes_max);
            self.level = level.unwrap_or(self.retention.bytes_max).min(self.retention.bytes_max);
            self.sizes.clear();
        }
        let names = &shared.store.names;
        let (stream, filter) = (names.log_stream(self.partition), names.log_subjects(self.partition));
        match shared.store.subjects(&stream, &filter, shared.limits.tenants_max).await {
            Ok(subjects) => self.turn = subjects.iter().filter_map(|name| Names::tenant(name)).collect(),
            Err(error) => tracing::debug!(stream, %error, "the tenants of a partition cannot be listed"),
        }
        self.partition = (self.partition + 1) % names.partitions().end;
    }

    /// Removes events of a log that are too old or exceed the limits. Returns the remaining bytes.
    async fn look_at(&self, shared: &Shared, tenant: &Tenant) -> Option<usize> {
        let name = shared.store.names.log(tenant);
        let bytes_max = self.level as u64;
        match trim(shared, tenant, &name, &self.retention, bytes_max).await {
            Ok(size) => Some(usize::try_from(size).unwrap_or(usize::MAX)),
            Err(error) => {
                tracing::debug!(%tenant, %error, "a log cannot be trimmed");
                None
            }
        }
    }
}

async fn first_from(shared: &Shared, name: &LogName, place: u64) -> Result<Option<(Frame, u64)>, StoreError> {
    let entry = shared.store.read(&name.stream, &name.subject, Start::Place(place), 1).await?.pop();
    entry.map(|entry| Ok((Frame::read(entry.payload)?, entry.place))).transpose()
}

async fn trim(
    shared: &Shared,
    tenant: &Tenant,
    name: &LogName,
    retention: &Retention,
    bytes_max: u64,
) -> Result<u64, StoreError> {
    let Some((last, end)) = shared.last(name).await? else { return Ok(0) };
    let oldest = now_millis().saturating_sub(millis(retention.age_max));
    // Once a frame meets the conditions, so do all later ones.
    let is_kept = |frame: &Frame| {
        frame.last().saturating_add(retention.events_max as u64) > last.last()
            && frame.bytes.saturating_add(bytes_max) > last.bytes
            && frame.millis >= oldest
    };
    let Some((first, start)) = first_from(shared, name, 1).await? else { return Ok(0) };
    if start >= end || is_kept(&first) {
        return Ok(last.bytes.saturating_sub(first.bytes));
    }
    let (mut low, mut high, mut bytes) = (start + 1, end, last.bytes);
    while low < high {
        let middle = low + (high - low) / 2;
        match first_from(shared, name, middle).await? {
            Some((frame, place)) if place < end && !is_kept(&frame) => low = place + 1,
            Some((frame, _)) => (high, bytes) = (middle, frame.bytes),
            None => high = middle,
        }
    }
    if last.state > 0 {
        // Entries of the state outlast their events.
        let brought = shared.bring_state(tenant, last.head(end)).await;
        brought.map_err(|refusal| StoreError::Unavailable(refusal.to_string()))?;
    }
    let removed = shared.store.purge(&name.stream, &name.subject, high).await?;
    tracing::debug!(subject = name.subject, removed, "a log was trimmed");
    Ok(last.bytes.saturating_sub(bytes))
}
