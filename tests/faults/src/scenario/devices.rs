//! Devices that break things: a command that crashes its device, a mailbox at its cap, two that claim to
//! be one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use roost_types::CommandState;
use tokio::time::{Instant, sleep};

use super::{Boxed, Scenario, nothing, plain};
use crate::backend::{Sent, Wish};
use crate::device::{Duel, Order, POISON};
use crate::load::LONG;
use crate::names::Name;
use crate::scale::Scale;
use crate::world::{Setup, World};

/// How long a command lives that crashes its device and has no bound on its attempts.
const POISON_TTL: Duration = Duration::from_secs(8);
/// After how many attempts the other one is dead.
const ATTEMPTS: u32 = 3;
/// How long what is waited for may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many commands a mailbox holds in the scenario that fills some.
const CAP: usize = 20;
/// How many devices are away meanwhile.
const ABSENT: usize = 5;
/// A loser's connection is closed within this, by the promise.
const CLOSED: Duration = Duration::from_secs(1);

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "poison",
            about: "a command crashes its device each time: DEAD with max_attempts, EXPIRED without",
            setup: plain,
            fault: |world| Box::pin(poison(world)),
            expect: nothing,
        },
        Scenario {
            name: "mailbox-cap",
            about: "mailboxes of devices that are away reach their cap: refused, and nothing trimmed",
            setup: capped,
            fault: |world| Box::pin(mailbox_cap(world)),
            expect: nothing,
        },
        Scenario {
            name: "takeovers",
            about: "1,000 takeovers (small: 60) of one device between two edges, under commands",
            setup: plain,
            fault: |world| Box::pin(takeovers(world)),
            expect: nothing,
        },
    ]
}

fn capped(scale: Scale) -> Boxed<'static, Setup> {
    Box::pin(async {
        let mut setup = plain(scale).await?;
        setup.env.push(("ROOST_STORE__MAILBOX_COMMANDS", CAP.to_string()));
        Ok(setup)
    })
}

async fn poison(world: &mut World) -> anyhow::Result<()> {
    let names = world.loaded_devices();
    let wish = |device: &Name, id: &str, ttl| Wish {
        name: POISON.to_owned(),
        ..Wish::new(device, id.to_owned(), &world.journal, ttl)
    };
    let bounded = Wish { max_attempts: ATTEMPTS, ..wish(&names[0], "bounded", LONG) };
    let endless = wish(&names[1], "endless", POISON_TTL);
    for (wish, end) in [(bounded, CommandState::Dead), (endless, CommandState::Expired)] {
        let sent = world.backends.send(&wish).await;
        ensure!(matches!(sent, Sent::Accepted(_)), "{} was not accepted: {sent:?}", wish.id);
        // What stands behind it in the device's order has to get through in the end.
        for number in 0..3 {
            let id = format!("behind-{}-{number}", wish.id);
            world.backends.send(&Wish::new(&wish.device, id, &world.journal, LONG)).await;
        }
        let state = wait_for_end(world, &wish).await?;
        ensure!(state == end, "{} ended as {}, not {}", wish.id, state.as_str(), end.as_str());
        world.faults += 1;
    }
    Ok(())
}

async fn wait_for_end(world: &World, wish: &Wish) -> anyhow::Result<CommandState> {
    let end = Instant::now() + PATIENCE;
    loop {
        let state = world.backends.look(&wish.device, &wish.id).await?;
        let state = state.context("the command is gone")?;
        if state.is_terminal() {
            return Ok(state);
        }
        ensure!(Instant::now() < end, "{} is {} after {PATIENCE:?}", wish.id, state.as_str());
        sleep(Duration::from_millis(100)).await;
    }
}

async fn mailbox_cap(world: &mut World) -> anyhow::Result<()> {
    for place in 0..ABSENT {
        world.fleet.members()[place].order(Order::Stay).await?;
    }
    for place in 0..ABSENT {
        let device = world.fleet.members()[place].name.clone();
        wait_offline(world, &device).await?;
        let mut refused = 0;
        for number in 0..CAP * 2 {
            let wish = Wish::new(&device, format!("pile-{number}"), &world.journal, LONG);
            let answer = world.backends.try_send(0, &wish).await;
            refused += usize::from(answer.is_err_and(|error| error.reason == "QUEUE_FULL"));
        }
        // The load's own commands take places too, and free them when they expire.
        ensure!(refused > 0, "none of {} commands was refused", CAP * 2);
        world.faults += 1;
    }
    for place in 0..ABSENT {
        world.fleet.members()[place].order(Order::Roam).await?;
    }
    world.fleet.wait_connected(PATIENCE).await
}

async fn wait_offline(world: &World, device: &Name) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while world.backends.session(device).await?.is_some() {
        ensure!(Instant::now() < end, "{} left and is still online", device.device);
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Both devices answer commands whenever they have the session.
async fn takeovers(world: &mut World) -> anyhow::Result<()> {
    let (name, duel) = (Name::extra("duel"), Arc::new(Duel::default()));
    let rivals = world.fleet.add_rivals(&name, &duel);
    let wanted = world.scale.takeovers as u64;
    let end = Instant::now() + PATIENCE * 10;
    let mut number = 0;
    while duel.takeovers.get() < wanted {
        ensure!(Instant::now() < end, "{} takeovers in {:?}", duel.takeovers.get(), PATIENCE * 10);
        let wish = Wish::new(&name, format!("duel-{number}"), &world.journal, LONG);
        world.backends.send(&wish).await;
        number += 1;
        sleep(Duration::from_millis(20)).await;
    }
    world.fleet.members()[rivals[1]].order(Order::Stay).await?;
    world.faults += duel.takeovers.get();
    let slowest = *duel.slowest.lock();
    world.notes.push(format!("the slowest loser was closed after {} ms", slowest.as_millis()));
    // A small run may share its machine with anything.
    let bound = if world.scale.name == "full" { CLOSED } else { CLOSED * 10 };
    ensure!(slowest <= bound, "a loser was closed only after {slowest:?}");
    Ok(())
}
