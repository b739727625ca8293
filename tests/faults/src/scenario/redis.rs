//! A Redis that dies, stops, or is full.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::sleep;

use super::{Scenario, nothing, persistent, plain};
use crate::world::World;

/// How long a killed server stays away.
const AWAY: Duration = Duration::from_secs(1);
/// How much room is left in a server that fills up, in bytes.
const ROOM: u64 = 64 << 10;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "redis-kill",
            about: "Redis is killed and comes back with its append-only file (flushed always)",
            setup: |_| persistent("always"),
            fault: |world| Box::pin(redis_kill(world)),
            expect: nothing,
        },
        Scenario {
            name: "redis-pause",
            about: "Redis is stopped (SIGSTOP) for longer than a lease",
            setup: plain,
            fault: |world| Box::pin(redis_pause(world)),
            expect: unknown_seen,
        },
        Scenario {
            name: "redis-full",
            about: "Redis reaches its maxmemory: new commands are refused, leases and results go on",
            setup: plain,
            fault: |world| Box::pin(redis_full(world)),
            expect: refused_seen,
        },
        Scenario {
            name: "aof-full",
            about: "the disk of Redis' append-only file is full",
            setup: |_| persistent("everysec"),
            fault: |world| Box::pin(aof_full(world)),
            expect: nothing,
        },
    ]
}

fn unknown_seen(world: &mut World) -> anyhow::Result<()> {
    ensure!(world.journal.unknown.get() > 0, "no answer was INDETERMINATE");
    Ok(())
}

fn refused_seen(world: &mut World) -> anyhow::Result<()> {
    ensure!(world.journal.refused.get() > 0, "no command was refused");
    Ok(())
}

async fn redis_kill(world: &mut World) -> anyhow::Result<()> {
    for _ in 0..world.scale.times {
        world.store.single().kill();
        world.faults += 1;
        sleep(AWAY).await;
        world.store.single().restart().await?;
        sleep(world.scale.fault / 2).await;
    }
    Ok(())
}

async fn redis_pause(world: &mut World) -> anyhow::Result<()> {
    world.store.single().pause()?;
    world.faults += 1;
    sleep(world.scale.lease + world.scale.fault).await;
    world.store.single().resume()
}

async fn redis_full(world: &mut World) -> anyhow::Result<()> {
    let redis = world.store.single();
    let used: u64 = redis.info("memory", "used_memory").await?.parse()?;
    redis.ok(&["CONFIG", "SET", "maxmemory", &(used + ROOM).to_string()]).await?;
    world.faults += 1;
    sleep(world.scale.fault * 2).await;
    let away = world.fleet.members().iter().filter(|member| !member.is_connected()).count();
    world.store.single().ok(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    ensure!(away == 0, "{away} devices lost their connections while Redis was full");
    Ok(())
}

async fn aof_full(world: &mut World) -> anyhow::Result<()> {
    let redis = world.store.single();
    redis.fill_disk(redis.aof_length()?)?;
    world.faults += 1;
    sleep(world.scale.fault).await;
    world.store.single().free_disk()
}
