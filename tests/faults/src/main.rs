//! The command line of the fault runner: which scenarios, how large, and what they came to.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use roost_faults::run::{Plant, Verdict, run};
use roost_faults::scale::Scale;
use roost_faults::scenario::{Scenario, all};
use roost_faults::table::table;
use roost_faults::world::Options;
use tokio::signal::unix::{SignalKind, signal};

/// Breaks a hub under load, and checks that it kept its promises.
#[derive(Debug, Parser)]
#[command(name = "faults")]
struct Arguments {
    /// Scenarios by name, or `all`.
    #[arg(required_unless_present = "list")]
    scenarios: Vec<String>,
    /// 2,000 devices and 200 commands a second (`full`), or 150 and 40 (`small`).
    #[arg(long, default_value = "full", value_parser = ["full", "small"])]
    scale: String,
    /// What chance begins with; a random one is drawn and shown where none is given.
    #[arg(long)]
    seed: Option<u64>,
    /// How many scenarios run at once.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Where logs and histories go, and stay. Else they are kept only if something was broken.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// The hub's program; the one beside this one.
    #[arg(long, env = "ROOST_BIN")]
    program: Option<PathBuf>,
    /// Shows which scenarios there are.
    #[arg(long)]
    list: bool,
    /// Plants a fault of the hub, to see that the run finds it.
    #[arg(long, value_enum)]
    plant: Option<Plant>,
}

fn main() -> ExitCode {
    match try_main(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn try_main(arguments: &Arguments) -> anyhow::Result<bool> {
    if arguments.list {
        for scenario in all() {
            say(&format!("{:<24} {}", scenario.name, scenario.about));
        }
        return Ok(true);
    }
    let scenarios = chosen(&arguments.scenarios)?;
    let options = options(arguments)?;
    say(&format!("seed {}, scale {}", options.seed, options.scale.name));
    let verdicts = run_all(&scenarios, &options, arguments.jobs.max(1));
    say(&table(&verdicts));
    let kept = verdicts.iter().all(|verdict| verdict.violations.is_empty());
    if kept && arguments.directory.is_none() {
        // What cannot be removed stays, as a run should not fail for it.
        drop(std::fs::remove_dir_all(&options.directory));
    } else {
        say(&format!("logs are in {}", options.directory.display()));
    }
    Ok(kept)
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Scenario>> {
    let mut known = all();
    if names.iter().any(|name| name == "all") {
        return Ok(known);
    }
    let mut chosen = vec![];
    for name in names {
        let place = known.iter().position(|scenario| scenario.name == name.as_str());
        let Some(place) = place else {
            bail!("there is no scenario {name}; --list shows which there are");
        };
        chosen.push(known.swap_remove(place));
    }
    Ok(chosen)
}

fn options(arguments: &Arguments) -> anyhow::Result<Options> {
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("roost"),
    };
    if !program.is_file() {
        bail!("{} is not there; build it, or say --program", program.display());
    }
    let directory = match &arguments.directory {
        Some(directory) => directory.clone(),
        None => tempfile::Builder::new().prefix("roost-faults-").tempdir()?.keep(),
    };
    std::fs::create_dir_all(&directory)?;
    let scale = if arguments.scale == "full" { Scale::full() } else { Scale::small() };
    let printed = Command::new(&program).args(["config", "print"]).output();
    let printed = printed.with_context(|| format!("cannot run {}", program.display()))?;
    let keeps_history = String::from_utf8_lossy(&printed.stdout).contains("history = ");
    let seed = arguments.seed.map_or_else(getrandom::u64, Ok)?;
    let (keep, plant) = (arguments.directory.is_some(), arguments.plant);
    Ok(Options { program, directory, scale, seed: seed % 1_000_000, keeps_history, keep, plant })
}

/// Runs all of them, so many at once, and gives the verdicts in the scenarios' order.
fn run_all(scenarios: &[Scenario], options: &Options, jobs: usize) -> Vec<Verdict> {
    let next = Mutex::new(0..scenarios.len());
    let verdicts = Mutex::new(vec![]);
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(scenarios.len()) {
            scope.spawn(|| {
                // The lock is not to be held over the run.
                let take = || next.lock().expect("no thread panics with it").next();
                while let Some(place) = take() {
                    let scenario = &scenarios[place];
                    let verdict = run_one(scenario, options);
                    let broken = verdict.violations.len();
                    let took = verdict.took.as_secs();
                    say(&format!("{:<24} {broken} violations, {took} s", scenario.name));
                    verdicts.lock().expect("no thread panics with it").push((place, verdict));
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().expect("no thread panics with it");
    verdicts.sort_by_key(|(place, _)| *place);
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}

/// A run that could not be made is a failed one.
fn run_one(scenario: &Scenario, options: &Options) -> Verdict {
    let directory = options.directory.join(scenario.name);
    let options = Options { directory, ..options.clone() };
    let began = tokio::time::Instant::now();
    let ran = std::fs::create_dir_all(&options.directory).map_err(anyhow::Error::from);
    let ran = ran.and_then(|()| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build()?;
        let ran = runtime.block_on(async {
            tokio::select! {
                ran = run(scenario, &options) => ran,
                // What the run has started goes with it.
                interrupted = interrupted() => Err(interrupted),
            }
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
        ran
    });
    ran.unwrap_or_else(|error| Verdict::failed(scenario.name, &error, began.elapsed()))
}

/// Waits until somebody asks this process to end.
async fn interrupted() -> anyhow::Error {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    anyhow::anyhow!("it was interrupted")
}

fn say(line: &str) {
    // Nobody reads any more: the exit code still tells.
    drop(writeln!(std::io::stdout(), "{line}"));
}
