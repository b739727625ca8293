//! One run of a scenario, from its start to its verdict: well, a fault, well again; then everything that
//! was accepted is followed to its end, and the checker reads what was written down.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use roost_checker::{History, check};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::backend::{Accepted, Backends, Sent, Wish};
use crate::load::{LONG, Load, Plan};
use crate::names::Name;
use crate::plant;
use crate::scenario::Scenario;
use crate::world::{Options, World};

/// How long the back ends may take to get their last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(180);
/// How long accepted commands may take to end once nothing disturbs them: the sweep finds what was
/// lost on the way after 35 s at most, and a machine may be busy.
const SETTLE: Duration = Duration::from_secs(120);
/// Questions under way at once.
const AT_ONCE: usize = 64;
/// How many violations are shown.
const SHOWN: usize = 5;

/// What came of a run.
#[derive(Debug)]
pub struct Verdict {
    /// Which scenario.
    pub name: &'static str,
    /// Operations of the history.
    pub operations: usize,
    /// How often something was broken.
    pub faults: u64,
    /// How many answers said INDETERMINATE, or were none.
    pub unknown: u64,
    /// Accepted commands that a failover took, as it was told it may.
    pub given_up: usize,
    /// What was promised and not kept, in words.
    pub violations: Vec<String>,
    /// After the fault, until 95 % and all of the devices asked had answered a command.
    pub recovery: Option<(Duration, Duration)>,
    /// What the scenario has to say itself.
    pub notes: Vec<String>,
    /// How long all of it took.
    pub took: Duration,
}

/// A fault of the hub that a run pretends, to see that it would be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// What became of one accepted command is taken out of the history: nobody ever got it.
    DropDelivery,
    /// An accepted command is removed from Redis before its device comes.
    LoseCommand,
    /// A device's history in Redis says that a session changed something that was not the device's.
    StaleSession,
}

// === impl Verdict ===

impl Verdict {
    /// Of a run that could not be made.
    pub fn failed(name: &'static str, error: &anyhow::Error, took: Duration) -> Self {
        Self {
            name,
            operations: 0,
            faults: 0,
            unknown: 0,
            given_up: 0,
            violations: vec![format!("the run ended early: {error:#}")],
            recovery: None,
            notes: vec![],
            took,
        }
    }
}

/// Runs a scenario.
pub async fn run(scenario: &Scenario, options: &Options) -> anyhow::Result<Verdict> {
    let began = Instant::now();
    let setup = (scenario.setup)(options.scale.clone()).await?;
    let mut world = World::start(options, setup).await?;
    let plan =
        Plan { devices: world.loaded_devices(), rate: world.rate, topics: world.topics.clone() };
    let load = Load::start(&world.backends, &world.rng, plan);
    sleep(world.scale.before).await;
    (scenario.fault)(&mut world).await.context("the fault itself")?;
    let recovery = recovery(&world).await;
    match options.plant {
        Some(Plant::LoseCommand) => plant::lose_command(&mut world).await?,
        Some(Plant::StaleSession) => plant::stale_session(&mut world).await?,
        Some(Plant::DropDelivery) | None => {}
    }
    sleep(world.scale.after).await;
    let left_out = load.left_out();
    load.finish(LAST_ANSWERS).await.context("the back ends have not all got their answers")?;
    let (mut broken, lost) = settle(&world).await;
    broken.extend(check_sessions(&mut world).await?);
    broken.extend(world.ended_nodes());
    broken.extend(world.journal.take_broken());
    if let Err(error) = &recovery {
        broken.push(format!("Recovery: {error:#}"));
    }
    if left_out > 0 {
        broken.push(format!("History: {left_out} commands were left out; the run says too little"));
    }
    if let Err(error) = (scenario.expect)(&mut world) {
        broken.push(format!("Expected: {error:#}"));
    }
    let mut history = world.journal.take();
    if options.plant == Some(Plant::DropDelivery) {
        history = plant::drop_delivery(&history)?;
    }
    let mut verdict = Verdict {
        name: scenario.name,
        operations: 0,
        faults: world.faults,
        unknown: world.journal.unknown.get(),
        given_up: lost,
        violations: broken,
        recovery: recovery.ok(),
        notes: std::mem::take(&mut world.notes),
        took: Duration::ZERO,
    };
    judge(&mut verdict, history, scenario, options)?;
    verdict.took = began.elapsed();
    Ok(verdict)
}

/// Asks many devices at once, and says when 95 % and all of them had answered.
async fn recovery(world: &World) -> anyhow::Result<(Duration, Duration)> {
    let began = Instant::now();
    let names = world.loaded_devices();
    let mut probes = JoinSet::new();
    let count = world.scale.probes.min(names.len());
    for number in 0..count {
        let name = names[number * names.len() / count].clone();
        let backends = Arc::clone(&world.backends);
        probes.spawn(async move {
            let id = format!("probe-{number}");
            let wish = Wish::new(&name, id, backends.journal(), LONG);
            let wish = Wish { wait: Duration::from_secs(10), key: "probe".into(), ..wish };
            loop {
                match backends.send(&wish).await {
                    Sent::Accepted(state) if state.is_terminal() => return began.elapsed(),
                    Sent::Accepted(_) => {}
                    _ => sleep(Duration::from_millis(100)).await,
                }
            }
        });
    }
    let mut times = vec![];
    let all = async {
        while let Some(time) = probes.join_next().await {
            times.push(time.expect("a probe does not panic"));
        }
    };
    let waited = timeout(LAST_ANSWERS, all).await;
    times.sort_unstable();
    let got = times.len();
    waited.with_context(|| format!("{got} of {count} devices answered in {LAST_ANSWERS:?}"))?;
    Ok((times[(count * 95).div_ceil(100) - 1], times[count - 1]))
}

/// Follows everything accepted to its end; says what has none, and how much is gone that may be.
async fn settle(world: &World) -> (Vec<String>, usize) {
    let accepted = world.backends.accepted();
    let mut open: HashMap<(Name, String), bool> = HashMap::new();
    for Accepted { device, id, volatile, at } in accepted {
        // One answer that a failover cannot have undone is enough.
        let may_be_gone = volatile && world.may_lose.is_some_and(|until| at <= until);
        *open.entry((device, id)).or_insert(true) &= may_be_gone;
    }
    let (soon, end) = (Instant::now() + SETTLE / 10, Instant::now() + SETTLE);
    let mut gone = HashMap::new();
    let unanswered = loop {
        let looked = look_at_all(&world.backends, open.keys().cloned().collect()).await;
        let mut unanswered = 0;
        for (key, state) in looked {
            match state {
                Ok(Some(state)) if state.is_terminal() => drop(open.remove(&key)),
                Ok(Some(_)) => {}
                Ok(None) => {
                    let excused = open.remove(&key).unwrap_or(true);
                    gone.insert(key, excused);
                }
                Err(_) => unanswered += 1,
            }
        }
        // What a failover took back may wait for its expiry.
        let only_excused = open.values().all(|excused| *excused);
        if open.is_empty() || Instant::now() >= if only_excused { soon } else { end } {
            break unanswered;
        }
        sleep(Duration::from_secs(1)).await;
    };
    let mut broken = vec![];
    let what =
        |(name, id): &(Name, String)| format!("{}/{} command {id}", name.tenant(), name.device);
    for (key, _) in gone.iter().filter(|(_, excused)| !**excused) {
        broken
            .push(format!("NothingLost: {} was accepted, and the hub does not know it", what(key)));
    }
    // One that went back to what it was before its result is no better than a lost one.
    let lost = gone.len() + open.values().filter(|excused| **excused).count();
    for (key, _) in open.iter().filter(|(_, excused)| !**excused) {
        broken.push(format!("NothingLost: {} has not ended within {SETTLE:?}", what(key)));
    }
    if unanswered > 0 {
        broken.push(format!("History: {unanswered} questions at the end were not answered"));
    }
    (broken, lost)
}

type Looked = ((Name, String), anyhow::Result<Option<roost_types::CommandState>>);

async fn look_at_all(backends: &Arc<Backends>, keys: Vec<(Name, String)>) -> Vec<Looked> {
    let mut tasks = JoinSet::new();
    let mut looked = vec![];
    for key in keys {
        if tasks.len() >= AT_ONCE
            && let Some(done) = tasks.join_next().await
        {
            looked.push(done.expect("a look does not panic"));
        }
        let backends = Arc::clone(backends);
        tasks.spawn(async move {
            let state = backends.look(&key.0, &key.1).await;
            (key, state)
        });
    }
    while let Some(done) = tasks.join_next().await {
        looked.push(done.expect("a look does not panic"));
    }
    looked
}

/// Reads what the store wrote down of every device's sessions, and compares the last one with the
/// connection that the device has.
async fn check_sessions(world: &mut World) -> anyhow::Result<Vec<String>> {
    let mut broken = vec![];
    let (mut seen, mut cut) = (HashSet::new(), 0);
    for place in 0..world.fleet.members().len() {
        let member = &world.fleet.members()[place];
        let (name, live) = (member.name.clone(), member.seen.session.lock().clone());
        // Two devices that claim to be one have one name.
        let first = seen.insert(name.clone());
        let stored = world.backends.session(&name).await;
        let stored = stored.with_context(|| format!("the session of {name:?}"))?;
        if live.is_some() && live != stored {
            broken.push(format!(
                "OneSession: {}/{} is connected as {live:?}, and the hub has {stored:?}",
                name.tenant(),
                name.device
            ));
        }
        if first && !world.store.note_sessions(&name, &world.journal, world.history).await? {
            cut += 1;
        }
    }
    if cut > 0 {
        world.notes.push(format!("the histories of {cut} devices were cut, and not read"));
    }
    Ok(broken)
}

/// Has the checker read the history; a history with a violation is kept.
fn judge(
    verdict: &mut Verdict,
    mut history: History,
    scenario: &Scenario,
    options: &Options,
) -> anyhow::Result<()> {
    let report = check(&mut history, &roost_checker::Options::default());
    verdict.operations = report.operations;
    verdict.given_up = verdict.given_up.max(report.given_up);
    if report.pending > 0 {
        let pending = report.pending;
        verdict.violations.push(format!("NothingLost: {pending} accepted commands have no end"));
    }
    for violation in report.violations.iter().take(SHOWN) {
        verdict.violations.push(violation.explain(&history));
    }
    if report.found > SHOWN {
        verdict.violations.push(format!("… and {} more", report.found - SHOWN));
    }
    if options.keep || !verdict.violations.is_empty() {
        let path = options.directory.join(format!("{}.jsonl", scenario.name));
        history.write(BufWriter::new(File::create(&path)?))?;
        verdict.notes.push(format!("the history is in {}", path.display()));
    }
    Ok(())
}
