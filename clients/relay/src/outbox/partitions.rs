//! Determines which rows belong to this relay. Rows are spread over partitions by tenant and key,
//! and each partition has at most one relay: the one whose session holds its advisory lock. The
//! lock ends with the session, so that another relay takes over the partitions of a lost one.

use std::collections::BTreeSet;

use rand::RngExt as _;

use crate::{
    Error,
    database::{Session, within},
};

use super::table::Table;

/// Number of partitions: a power of two. The table's definition contains it too.
pub(super) const COUNT: i32 = 32;
/// The lock that every relay shares; its holders are counted.
const MEMBER: i32 = 1000;
const DOING: &str = "give partitions to this relay";

/// The partitions that a session owns.
#[derive(Debug)]
pub(super) struct Partitions {
    /// The first half of the key of all locks; identifies the table.
    class: i32,
    held: BTreeSet<i16>,
}

/// The maximum number of partitions for one of `relays` relays.
const fn share(relays: i64) -> usize {
    let relays = if relays < 1 { 1 } else { relays };
    (COUNT as i64).unsigned_abs().div_ceil(relays.unsigned_abs()) as usize
}

impl Partitions {
    /// Joins the relays of a table; owns no partition yet.
    pub(super) async fn join(session: &Session, table: &Table) -> Result<Self, Error> {
        let name = table.to_string();
        let oid = "SELECT (to_regclass($1)::oid::bigint & 2147483647)::int";
        let row = within(DOING, session.client.query_one(oid, &[&name])).await?;
        let class: Option<i32> = row.try_get(0).map_err(|source| Error::Database { doing: DOING, source })?;
        let help = "fanfare relay --print-migration prints the SQL that makes it";
        let class = class.ok_or(Error::NoTable { table: name, help })?;
        let lock = "SELECT pg_advisory_lock_shared($1, $2)";
        within(DOING, session.client.execute(lock, &[&class, &MEMBER])).await?;
        Ok(Self { class, held: BTreeSet::new() })
    }

    /// The owned partitions.
    pub(super) fn held(&self) -> Vec<i16> {
        self.held.iter().copied().collect()
    }

    /// Releases partitions beyond this relay's share, or takes free ones. Must only be called while
    /// nothing is being published.
    pub(super) async fn balance(&mut self, session: &Session) -> Result<(), Error> {
        let (relays, locked) = self.look(session).await?;
        let share = share(relays);
        while self.held.len() > share {
            let Some(last) = self.held.pop_last() else { break };
            let unlock = "SELECT pg_advisory_unlock($1, $2)";
            within(DOING, session.client.execute(unlock, &[&self.class, &i32::from(last)])).await?;
        }
        // Relays that balance at the same moment start with different partitions.
        let first = rand::rng().random_range(0..COUNT);
        for number in (0..COUNT).map(|number| (number + first) % COUNT) {
            if self.held.len() >= share {
                break;
            }
            let Ok(partition) = i16::try_from(number) else { continue };
            if !locked.contains(&number) && self.take(session, number).await? {
                self.held.insert(partition);
            }
        }
        Ok(())
    }

    async fn take(&self, session: &Session, number: i32) -> Result<bool, Error> {
        let lock = "SELECT pg_try_advisory_lock($1, $2)";
        let row = within(DOING, session.client.query_one(lock, &[&self.class, &number])).await?;
        row.try_get(0).map_err(|source| Error::Database { doing: DOING, source })
    }

    /// The number of relays, and the partitions that are owned.
    async fn look(&self, session: &Session) -> Result<(i64, BTreeSet<i32>), Error> {
        let locks = "SELECT objid::bigint::int, count(*) FROM pg_locks \
            WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid::bigint = $1 \
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) GROUP BY 1";
        let class = i64::from(self.class);
        let rows = within(DOING, session.client.query(locks, &[&class])).await?;
        let (mut relays, mut locked) = (0, BTreeSet::new());
        for row in rows {
            let failed = |source| Error::Database { doing: DOING, source };
            let number: i32 = row.try_get(0).map_err(failed)?;
            if number == MEMBER {
                relays = row.try_get(1).map_err(failed)?;
            } else {
                locked.insert(number);
            }
        }
        Ok((relays, locked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_all_relays_cover_all_partitions() {
        assert_eq!(share(0), 32);
        for relays in 1..100 {
            assert!(share(relays) * usize::try_from(relays).unwrap() >= usize::try_from(COUNT).unwrap());
        }
        assert_eq!((share(2), share(3), share(32), share(99)), (16, 11, 1, 1));
    }
}
