//! Networks that lead one way, hold things back, or swallow some of them; devices that vanish.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use roost_testredis::{DeafProxy, Way};
use tokio::time::{Instant, sleep};

use super::{Boxed, Scenario, nothing, plain, proxied};
use crate::backend::Wish;
use crate::device::Order;
use crate::load::LONG;
use crate::names::Name;
use crate::scale::Scale;
use crate::world::{Setup, World};

/// How long a claim may still count after it was given up: `not_after`, and what lies around it.
const FORGOTTEN: Duration = Duration::from_secs(3);
/// How many devices try an edge that cannot reach Redis.
const STRAYS: usize = 10;
/// How long a lost doorbell may delay a command, by the promise.
const SWEPT: Duration = Duration::from_secs(35);
/// How many devices vanish for good, or nearly.
const VANISHED: usize = 10;
/// The hub must have noticed after 15 s (1.5 times the keep-alive that they ask for); on a machine that is
/// busy it may take longer, and the run says how long it was.
const GONE: Duration = Duration::from_secs(120);

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "one-way",
            about: "an edge is cut off from Redis in one direction, then in the other",
            setup: proxied,
            fault: |world| Box::pin(one_way(world)),
            expect: nothing,
        },
        Scenario {
            name: "stalled-link",
            about: "a link to Redis is stalled, so that abandoned claims arrive after newer ones",
            setup: proxied,
            fault: |world| Box::pin(stalled_link(world)),
            expect: nothing,
        },
        Scenario {
            name: "doorbells-lost",
            about: "pub/sub messages are dropped: the sweep delivers, within 35 s",
            setup: deaf,
            fault: |world| Box::pin(doorbells_lost(world)),
            expect: nothing,
        },
        Scenario {
            name: "half-open",
            about: "devices vanish without FIN, and come back at another edge at once or much later",
            setup: plain,
            fault: |world| Box::pin(half_open(world)),
            expect: nothing,
        },
    ]
}

fn deaf(scale: Scale) -> Boxed<'static, Setup> {
    Box::pin(async { Ok(Setup { deaf: true, ..plain(scale).await? }) })
}

async fn one_way(world: &mut World) -> anyhow::Result<()> {
    for way in [Way::ToTarget, Way::ToClient] {
        world.edge_proxy(0).stall(way);
        world.faults += 1;
        sleep(world.scale.lease + world.scale.fault / 2).await;
        world.edge_proxy(0).heal();
        sleep(world.scale.fault / 2).await;
    }
    Ok(())
}

async fn stalled_link(world: &mut World) -> anyhow::Result<()> {
    for _ in 0..world.scale.times {
        world.edge_proxy(0).stall(Way::ToTarget);
        world.faults += 1;
        // Their claims by this edge wait in the proxy, and are given up.
        for place in 0..STRAYS {
            world.fleet.members()[place].order(Order::MoveTo(0)).await?;
        }
        sleep(FORGOTTEN).await;
        for place in 0..STRAYS {
            world.fleet.members()[place].order(Order::MoveTo(1)).await?;
        }
        world.fleet.wait_connected(Duration::from_secs(60)).await?;
        // Now the abandoned claims arrive.
        world.edge_proxy(0).release(Way::ToTarget);
        sleep(world.scale.fault / 2).await;
        for place in 0..STRAYS {
            world.fleet.members()[place].order(Order::Roam).await?;
        }
    }
    Ok(())
}

/// For a time nobody hears anything by pub/sub. A command of that time, for a device that is online and
/// that nothing else is sent to, must come all the same.
async fn doorbells_lost(world: &mut World) -> anyhow::Result<()> {
    let device = Name::extra("unheard");
    world.fleet.add(device.clone(), false);
    world.fleet.wait_connected(Duration::from_secs(60)).await?;
    for proxy in &world.deaf {
        proxy.set_deaf(true);
    }
    world.faults += 1;
    let wish = Wish::new(&device, "unheard".to_owned(), &world.journal, LONG);
    let began = Instant::now();
    world.backends.send(&wish).await;
    sleep(world.scale.fault).await;
    let dropped: u64 = world.deaf.iter().map(DeafProxy::dropped).sum();
    ensure!(dropped > 0, "no message was dropped");
    for proxy in &world.deaf {
        proxy.set_deaf(false);
    }
    loop {
        let state = world.backends.look(&device, &wish.id).await?;
        if state.context("the command is gone")?.is_terminal() {
            break;
        }
        ensure!(began.elapsed() < 3 * SWEPT, "a command waited for {:?}", 3 * SWEPT);
        sleep(Duration::from_millis(100)).await;
    }
    let waited = began.elapsed().as_secs_f64();
    world
        .notes
        .push(format!("{dropped} messages dropped; delivered by the sweep after {waited:.1} s"));
    // A small run may share its machine with anything.
    let strict = world.scale.name == "full";
    ensure!(!strict || began.elapsed() <= SWEPT, "a command waited for {waited:.1} s");
    Ok(())
}

/// Half of some devices come back at once, elsewhere; for the others the hub has to notice.
async fn half_open(world: &mut World) -> anyhow::Result<()> {
    for place in 0..2 * VANISHED {
        let pause = if place < VANISHED { Duration::from_millis(200) } else { GONE };
        world.fleet.members()[place].order(Order::Vanish(pause)).await?;
        world.faults += 1;
    }
    let began = Instant::now();
    for place in VANISHED..2 * VANISHED {
        let name = world.fleet.members()[place].name.clone();
        while world.backends.session(&name).await?.is_some() {
            ensure!(began.elapsed() < GONE, "{} vanished and is still online", name.device);
            sleep(Duration::from_millis(100)).await;
        }
    }
    let waited = began.elapsed().as_secs_f64();
    world.notes.push(format!("the last of those that vanished was offline after {waited:.1} s"));
    for place in VANISHED..2 * VANISHED {
        world.fleet.members()[place].order(Order::Roam).await?;
    }
    world.fleet.wait_connected(GONE).await
}
