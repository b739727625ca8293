//! `roost config`: is it right, and what is in force.

use clap::{Args, Subcommand};

use super::output::{self, Output};
use super::serve::ConfigArgs;
use super::{Exit, Failure};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check file, environment and flags, and the files that they name.
    Check(ShowArgs),
    /// Show every key with its value in force, as a TOML file. Secrets are hidden.
    Print(ShowArgs),
    /// Show every key with its type, default, variable, flag and meaning, as a Markdown page.
    Docs,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check(args) => {
            let output = Output::new(args.json);
            args.config.load()?;
            let json = serde_json::json!({ "ok": true });
            output.show(&json, || "the configuration is right".to_owned())?;
        }
        ConfigCommand::Print(args) => {
            let output = Output::new(args.json);
            let (config, problems) = Config::read_anyway(&args.config.sources());
            output.show(&config.to_json(), || config.to_toml().trim_end().to_owned())?;
            // What is missing is no reason to hide the rest; `check` judges.
            if let Some(problems) = problems {
                output::complain(&Failure::usage(problems));
            }
        }
        ConfigCommand::Docs => {
            let page = Config::to_markdown(&ConfigArgs::flags());
            Output::new(false).line(page.trim_end())?;
        }
    }
    Ok(Exit::Ok)
}
