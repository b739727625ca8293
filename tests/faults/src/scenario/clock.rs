//! Wall clocks that step by an hour. The hub's time is that of Redis, carried on by the monotonic clock
//! (the `Clock` seam of `roost-cluster`), so a node's own wall clock must not matter. It is stepped by
//! libfaketime (Debian's package `libfaketime`), which gives real nodes a wall clock that is read from a file.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use tokio::time::sleep;

use super::{Boxed, Scenario, nothing, plain};
use crate::scale::Scale;
use crate::world::{Setup, World};

/// Where distributions put it.
const PLACES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];
/// What the clock shows, one step after the other.
const STEPS: [&str; 3] = ["+3600", "-3600", "+0"];

pub(super) fn all() -> Vec<Scenario> {
    vec![Scenario {
        name: "clock-step",
        about: "the wall clock of every node steps an hour ahead, then an hour back",
        setup: stepped,
        fault: |world| Box::pin(step(world)),
        expect: nothing,
    }]
}

fn stepped(scale: Scale) -> Boxed<'static, Setup> {
    Box::pin(async {
        let library = PLACES.iter().map(PathBuf::from).find(|path| path.exists());
        let library = library.context("libfaketime is missing; install the package libfaketime")?;
        let directory = tempfile::Builder::new().prefix("roost-clock-").tempdir()?;
        let file = directory.path().join("offset");
        std::fs::write(&file, "+0")?;
        let mut setup = plain(scale).await?;
        setup.env.extend([
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            // Read anew at each look at the clock.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]);
        setup.clock = Some(directory);
        Ok(setup)
    })
}

async fn step(world: &mut World) -> anyhow::Result<()> {
    let directory = world.clock.as_ref().context("the clock was set up")?.path().to_owned();
    for node in world.edges.iter().chain(&world.controls) {
        // A static program loads nothing, and its clock would not step.
        ensure!(node.has_loaded("libfaketime")?, "{} has not loaded libfaketime", node.id());
    }
    for offset in STEPS {
        // At once for whoever reads it: renamed, not written.
        let (new, file) = (directory.join("new"), directory.join("offset"));
        std::fs::write(&new, offset)?;
        std::fs::rename(&new, &file)?;
        world.faults += 1;
        sleep(world.scale.lease + world.scale.fault / 2).await;
    }
    Ok(())
}
