//! Sessions end when their token does: one clock for all of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fanfare_proto::v1::Reason;

use crate::{ending::Ending, session::Session};

/// How late a session may end after its token.
const TICK: Duration = Duration::from_millis(250);

/// Sessions by the end of their token, in Unix milliseconds (leeway included).
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    ends: Mutex<BTreeMap<(u64, String), Weak<Session>>>,
}

fn end(session: &Session, leeway: Duration) -> Option<u64> {
    let leeway = u64::try_from(leeway.as_millis()).unwrap_or(u64::MAX);
    Some(session.expires_at?.saturating_mul(1000).saturating_add(leeway))
}

impl Expiry {
    pub(crate) fn watch(&self, session: &Arc<Session>, leeway: Duration) {
        if let Some(end) = end(session, leeway) {
            let key = (end, session.id().to_owned());
            self.ends.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::downgrade(session));
        }
    }

    pub(crate) fn forget(&self, session: &Session, leeway: Duration) {
        if let Some(end) = end(session, leeway) {
            self.ends.lock().unwrap_or_else(PoisonError::into_inner).remove(&(end, session.id().to_owned()));
        }
    }

    /// Ends sessions for ever.
    pub(crate) async fn run(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let now = u64::try_from(now).unwrap_or(u64::MAX);
            let over = {
                let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
                let later = ends.split_off(&(now.saturating_add(1), String::new()));
                std::mem::replace(&mut *ends, later)
            };
            for session in over.into_values().filter_map(|session| session.upgrade()) {
                session.close(&Ending::new(Reason::TokenExpired, "Authentication failed: Token expired"));
            }
        }
    }
}
