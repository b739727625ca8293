//! How many commands wait in all mailboxes, and since when: what [`Mailboxes::tally`] gives. The rules are
//! in `scripts/tally.lua`.
//!
//! [`Mailboxes::tally`]: roost_cluster::Mailboxes::tally

use roost_cluster::{StoreError, Tally};
use roost_types::{Partition, UnixMillis};

use crate::script::{self, Call};
use crate::store::{PARTITIONS_AT_ONCE, RedisStore};

/// How many commands of a partition are looked at: all of them up to some 8,000 in the hub. 32 records
/// are some 40 µs of Redis' time.
const LOOKED_AT: u64 = 32;

impl RedisStore {
    /// One script for each partition.
    pub(crate) async fn tally_all(&self) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        let partitions: Vec<Partition> = Partition::all().collect();
        for some in partitions.chunks(PARTITIONS_AT_ONCE) {
            let calls: Vec<Call> = some.iter().map(|one| self.tally_call(*one)).collect();
            for answer in self.link.run_all(&script::TALLY, &calls).await? {
                let mut rest = answer?.rest;
                let (pending, created) = (rest.number()?, rest.number()?);
                tally.add(pending, (created > 0).then_some(UnixMillis(created)));
            }
        }
        Ok(tally)
    }

    fn tally_call(&self, partition: Partition) -> Call {
        let base = self.link.keys.base(partition);
        Call::new(format!("{base}due"), &base, self.link.not_after()).number(LOOKED_AT)
    }
}
