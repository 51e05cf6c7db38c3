//! Sessions end when their token does: one clock for all of them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
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

    pub(crate) fn forget(&self, session: &Arc<Session>, leeway: Duration) {
        let Some(end) = end(session, leeway) else { return };
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        // The session may go on over another connection, with the same id and token.
        if let Entry::Occupied(entry) = ends.entry((end, session.id().to_owned()))
            && std::ptr::eq(entry.get().as_ptr(), Arc::as_ptr(session))
        {
            entry.remove();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooms::tests::session_until;

    #[tokio::test]
    async fn a_session_that_goes_on_over_another_connection_ends_with_its_token_all_the_same() {
        let expiry = Expiry::default();
        let (old, _) = session_until("a", Some(1));
        let (new, heard) = session_until("a", Some(1));
        expiry.watch(&old, Duration::ZERO);
        expiry.watch(&new, Duration::ZERO);
        expiry.forget(&old, Duration::ZERO);
        let _for_ever = tokio::time::timeout(TICK * 2, expiry.run()).await;
        assert_eq!(heard.endings(), [Reason::TokenExpired]);
    }
}
