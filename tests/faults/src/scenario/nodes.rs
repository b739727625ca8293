//! Nodes that die and nodes that stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use roost_client::backend::BackendError;
use roost_testredis::Way;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Scenario, nothing, plain, proxied};
use crate::backend::{Taken, Wish};
use crate::device::Order;
use crate::load::LONG;
use crate::store::key_of;
use crate::world::World;

/// How long a killed node stays away.
const AWAY: Duration = Duration::from_millis(800);
/// Between two looks.
const POLL: Duration = Duration::from_millis(2);

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "edge-kill",
            about: "edges are killed (SIGKILL) at random and come back under new names",
            setup: plain,
            fault: |world| Box::pin(edge_kill(world)),
            expect: nothing,
        },
        Scenario {
            name: "control-kill",
            about: "control nodes are killed in the middle of commands; callers retry with the same id",
            setup: plain,
            fault: |world| Box::pin(control_kill(world)),
            expect: nothing,
        },
        Scenario {
            name: "edge-paused",
            about: "an edge is stopped (SIGSTOP) beyond its lease while its devices move",
            setup: plain,
            fault: |world| Box::pin(edge_paused(world)),
            expect: nothing,
        },
        Scenario {
            name: "control-kill-1000",
            about: "a control node is killed between accepting and answering, 1,000 times (small: 30)",
            setup: proxied,
            fault: |world| Box::pin(control_kill_1000(world)),
            expect: nothing,
        },
    ]
}

async fn edge_kill(world: &mut World) -> anyhow::Result<()> {
    for _ in 0..world.scale.times {
        let edge = world.rng.index(world.edges.len());
        world.edges[edge].kill();
        world.faults += 1;
        sleep(AWAY).await;
        world.edges[edge].start().await?;
        sleep(AWAY).await;
    }
    Ok(())
}

async fn control_kill(world: &mut World) -> anyhow::Result<()> {
    for _ in 0..world.scale.times * 2 {
        let control = world.rng.index(world.controls.len());
        world.controls[control].kill();
        world.faults += 1;
        sleep(AWAY / 2).await;
        world.controls[control].start().await?;
        sleep(AWAY).await;
    }
    Ok(())
}

async fn edge_paused(world: &mut World) -> anyhow::Result<()> {
    world.edges[0].pause()?;
    world.faults += 1;
    let movers = world.devices_on(0);
    ensure!(!movers.is_empty(), "no device is on the edge that is stopped");
    for (number, place) in movers.iter().enumerate() {
        world.fleet.members()[*place].order(Order::MoveTo(1 + number % 2)).await?;
    }
    sleep(world.scale.pause).await;
    world.edges[0].resume()?;
    for place in movers {
        world.fleet.members()[place].order(Order::Roam).await?;
    }
    Ok(())
}

/// Holds Redis' answers to a control node back, so that it accepts a command and cannot say so; kills it
/// as soon as the command is there; then the other control node must find the one command.
async fn control_kill_1000(world: &mut World) -> anyhow::Result<()> {
    for number in 0..world.scale.control_kills {
        let member = world.rng.index(world.loaded);
        let name = world.fleet.members()[member].name.clone();
        let wish = Wish::new(&name, format!("twice-{number}"), &world.journal, LONG);
        let mut calls = JoinSet::new();
        while !accepts_in_silence(world, &wish, &mut calls).await? {
            // The node gave its connection up before it had sent anything.
            world.control_proxy(0).heal();
            sleep(AWAY).await;
        }
        world.controls[0].kill();
        world.faults += 1;
        while let Some(answer) = calls.join_next().await {
            ensure!(answer?.is_err(), "the control node answered although it could not know");
        }
        world.control_proxy(0).heal();
        let retry = world.backends.try_send(1, &wish).await.context("the retry")?;
        ensure!(retry.existed, "the retry did not find the command: it made another one");
        world.controls[0].start().await?;
    }
    Ok(())
}

/// Has the node accept a command while it hears nothing from Redis; gives whether it did before it gave
/// the call up.
async fn accepts_in_silence(
    world: &mut World,
    wish: &Wish,
    calls: &mut JoinSet<Result<Taken, BackendError>>,
) -> anyhow::Result<bool> {
    world.control_proxy(0).stall(Way::ToClient);
    let (backends, first) = (Arc::clone(&world.backends), wish.clone());
    calls.spawn(async move { backends.try_send(0, &first).await });
    let key = format!("{}:{}", key_of(&wish.device.key(), "c"), wish.id);
    while world.store.server_of(&key).await?.call(&["EXISTS", &key]).await? != "1" {
        if calls.try_join_next().is_some() {
            return Ok(false);
        }
        sleep(POLL).await;
    }
    Ok(true)
}
