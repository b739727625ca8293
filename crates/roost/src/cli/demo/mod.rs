//! `roost demo`: a hub at work, in one process but over real sockets. Here is the order of the show;
//! `stage.rs` has the hub, its devices and its back end, `acts.rs` each act.

mod acts;
mod stage;

use clap::Args;
use tokio::time::Instant;

use super::output::{Output, Style, elapsed};
use super::serve::Signals;
use super::{Exit, Failure};
use stage::Stage;

/// Show a hub at work.
#[derive(Debug, Clone, Args)]
pub(super) struct DemoArgs {
    /// End after the show; the exit code says whether everything worked.
    #[arg(long)]
    once: bool,
}

/// What the audience sees, and whether all of it worked.
struct Show {
    output: Output,
    failures: u32,
}

// === impl Show ===

impl Show {
    fn say(&self, text: impl std::fmt::Display) -> Result<(), Failure> {
        Ok(self.output.line(text)?)
    }

    fn heading(&self, text: &str) -> Result<(), Failure> {
        self.say(format!("\n{}", self.output.paint(Style::Bold, text)))
    }

    /// One thing that was tried, with what came of it.
    fn tried(&mut self, worked: bool, text: impl std::fmt::Display) -> Result<(), Failure> {
        let mark = if worked {
            self.output.paint(Style::Good, "✓")
        } else {
            self.failures += 1;
            self.output.paint(Style::Bad, "✗")
        };
        self.say(format!("  {mark} {text}"))
    }
}

pub(super) fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    let format = roost_telemetry::LogFormat::Human;
    // An embedding program, a test say, may have set up logging; then that is where it goes.
    roost_telemetry::init_tracing(format, "warn").ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(demo(args))
}

async fn demo(args: &DemoArgs) -> Result<Exit, Failure> {
    let began = Instant::now();
    let mut show = Show { output: Output::new(false), failures: 0 };
    let mut stage = Stage::open(args.once).await?;
    acts::opening(&mut show, &mut stage).await?;
    acts::commands(&mut show, &mut stage).await?;
    acts::broadcast(&mut show, &mut stage).await?;
    acts::presence(&mut show, &mut stage).await?;

    let took = elapsed(began.elapsed());
    if show.failures == 0 {
        show.say(format!("\nEverything worked, in {took}."))?;
    } else {
        show.say(format!("\n{} of the above did not work.", show.failures))?;
    }
    if !args.once {
        acts::invitation(&show, &mut stage)?;
        Signals::new()?.next().await;
    }
    let failures = show.failures;
    stage.close().await;
    Ok(if failures == 0 { Exit::Ok } else { Exit::Failed })
}
