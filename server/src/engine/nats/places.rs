//! The places of recent frames in their streams, so that most reads need no search. They are only a
//! hint: the frame found is checked against the cursor.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use fanfare_proto::room::Tenant;

/// Maximum number of remembered frames per tenant.
const FRAMES_MAX: usize = 512;
/// Maximum number of remembered frames of all tenants: about 100 bytes each.
const FRAMES_TOTAL_MAX: usize = 262_144;

/// Places by tenant and first seq. The lock is held only briefly.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    tenants: HashMap<Tenant, BTreeMap<u64, u64>>,
    count: usize,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the place of the frame that begins with this seq.
    pub(super) fn insert(&self, tenant: &Tenant, first: u64, place: u64) {
        let mut known = self.lock();
        if known.count >= FRAMES_TOTAL_MAX {
            *known = Known::default();
        }
        let places = known.tenants.entry(tenant.clone()).or_default();
        let mut growth = usize::from(places.insert(first, place).is_none());
        if places.len() > FRAMES_MAX {
            places.pop_first();
            growth = 0;
        }
        known.count += growth;
    }

    /// The place of the last known frame that begins at or before this seq.
    pub(super) fn before(&self, tenant: &Tenant, seq: u64) -> Option<u64> {
        self.lock().tenants.get(tenant)?.range(..=seq).next_back().map(|(_, place)| *place)
    }

    /// Removes all places of a tenant whose log has a different history.
    pub(super) fn forget(&self, tenant: &Tenant) {
        let mut known = self.lock();
        let count = known.tenants.remove(tenant).map_or(0, |places| places.len());
        known.count -= count;
    }
}
