//! Another Redis takes over: replicas that are promoted by hand, by sentinels, by a cluster; slots that
//! move.

use std::time::Duration;

use anyhow::ensure;
use roost_testredis::{RedisCluster, RedisReplicated, RedisSentinel, SLOTS, slot_of};
use tokio::time::sleep;

use super::{Boxed, Scenario, nothing};
use crate::scale::Scale;
use crate::store::Store;
use crate::world::{Setup, World};

/// How long the link to the replica is cut before the replica is promoted.
const CUT: Duration = Duration::from_secs(5);
/// Keys moved by one MIGRATE.
const BATCH: usize = 10;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "replica-promoted",
            about: "the link to the replica is cut for 5 s, then the replica is promoted; tier replicated",
            setup: |_| replicated("replicated"),
            fault: |world| Box::pin(promote(world)),
            expect: nothing_volatile,
        },
        Scenario {
            name: "replica-promoted-memory",
            about: "the same at tier memory, where what was acknowledged may be lost and is counted",
            setup: |_| replicated("memory"),
            fault: |world| Box::pin(promote(world)),
            expect: nothing,
        },
        Scenario {
            name: "sentinel-failover",
            about: "the master is killed and sentinels promote a replica; later one is asked for",
            setup: sentinel,
            fault: |world| Box::pin(sentinel_failover(world)),
            expect: nothing,
        },
        Scenario {
            name: "cluster-failover",
            about: "a master of a cluster is killed and its replica takes over; then it takes back",
            setup: cluster,
            fault: |world| Box::pin(cluster_failover(world)),
            expect: nothing,
        },
        Scenario {
            name: "cluster-reshard",
            about: "1,000 slots (small: 200) move between masters in small batches, under load",
            setup: cluster,
            fault: |world| Box::pin(cluster_reshard(world)),
            expect: nobody_noticed,
        },
    ]
}

fn replicated(durability: &'static str) -> Boxed<'static, Setup> {
    Box::pin(async move {
        let redis = RedisReplicated::start().await?;
        let mut setup = Setup::new(Store::Replicated(redis));
        if durability != "memory" {
            setup.env.push(("ROOST_REDIS__DURABILITY", durability.to_owned()));
        }
        Ok(setup)
    })
}

fn sentinel(_: Scale) -> Boxed<'static, Setup> {
    Box::pin(async { Ok(Setup::new(Store::Sentinel(RedisSentinel::start().await?))) })
}

fn cluster(_: Scale) -> Boxed<'static, Setup> {
    Box::pin(async { Ok(Setup::new(Store::Cluster(RedisCluster::start().await?))) })
}

/// Nothing acknowledged may be lost, and the cut must have been felt.
fn nothing_volatile(world: &mut World) -> anyhow::Result<()> {
    let journal = &world.journal;
    ensure!(journal.volatile.get() == 0, "{} acceptances were volatile", journal.volatile.get());
    ensure!(journal.unknown.get() > 0, "no answer was INDETERMINATE while the link was cut");
    Ok(())
}

fn nobody_noticed(world: &mut World) -> anyhow::Result<()> {
    let (unknown, refused) = (world.journal.unknown.get(), world.journal.refused.get());
    world.notes.push(format!("{unknown} answers were unknown and {refused} refusals"));
    // A small run may share its machine with anything, and calls have a time.
    let strict = world.scale.name == "full";
    ensure!(
        !strict || unknown + refused == 0,
        "{unknown} answers were unknown and {refused} refusals"
    );
    Ok(())
}

async fn promote(world: &mut World) -> anyhow::Result<()> {
    world.store.replicated().cut_links();
    world.faults += 1;
    sleep(CUT).await;
    // Between the two the link stays cut: what the replica lacks is lost.
    world.store.replicated().promote(1).await?;
    world.faults += 1;
    world.store.replicated().wait_in_step().await?;
    world.note_failover();
    Ok(())
}

async fn sentinel_failover(world: &mut World) -> anyhow::Result<()> {
    let redis = world.store.sentinel();
    let former = redis.kill_master().await?;
    redis.wait_promoted(former).await?;
    redis.server(former).restart().await?;
    redis.wait_followed().await?;
    redis.failover().await?;
    redis.wait_followed().await?;
    world.note_failover();
    world.faults += 2;
    Ok(())
}

async fn cluster_failover(world: &mut World) -> anyhow::Result<()> {
    let redis = world.store.cluster();
    redis.kill(0);
    let replica = redis.replica_of(0);
    redis.wait_promoted(replica).await?;
    redis.node(0).restart().await?;
    redis.wait_whole().await?;
    redis.failover(0).await?;
    redis.wait_whole().await?;
    world.note_failover();
    world.faults += 2;
    Ok(())
}

/// Moves the slots of the partitions first, and fills up with empty ones.
async fn cluster_reshard(world: &mut World) -> anyhow::Result<()> {
    let count = world.scale.slots;
    let used = (0..256).map(|partition| slot_of(&format!("{{p{partition}}}")));
    let mut slots: Vec<u16> = used.take(count / 4).collect();
    let rest = (0..SLOTS).filter(|slot| !slots.contains(slot)).take(count - slots.len());
    slots.extend(rest.collect::<Vec<_>>());
    for (number, slot) in slots.iter().enumerate() {
        world.store.cluster().migrate(&[*slot], number % 3, BATCH).await?;
        world.faults += 1;
    }
    Ok(())
}
