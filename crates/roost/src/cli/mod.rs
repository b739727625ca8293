//! The command line: what can be said (here and in `args.rs`), and what each command does (a file
//! each). Every command answers with an [`Exit`]; `main` does nothing but ask.

mod args;
mod backend_commands;
mod bench;
mod client;
mod config;
mod demo;
mod devices;
mod exit;
mod history;
mod messages;
mod nodes;
mod output;
mod payload;
mod redis;
mod serve;
mod simulate;
#[cfg(test)]
mod tests;
mod token;
mod views;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use exit::{Exit, Failure};
pub use serve::ServeArgs;

/// A message hub for fleets of devices: they connect by WebSocket, back ends send them commands
/// over gRPC.
#[derive(Debug, Parser)]
#[command(name = "roost", version, propagate_version = true)]
#[command(after_help = exit::HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::enum_variant_names, reason = "a hub's command is its own thing")]
enum Command {
    /// Run a hub node.
    Serve(ServeArgs),
    /// Show a hub at work: an embedded one, with simulated devices that answer commands.
    Demo(demo::DemoArgs),
    /// Connect one simulated device, or a thousand, that answer commands and send telemetry.
    Simulate(simulate::SimulateArgs),
    /// Send commands to devices and see what became of them.
    #[command(subcommand)]
    Command(backend_commands::CommandCommand),
    /// See devices, follow them, disconnect them.
    #[command(subcommand)]
    Device(devices::DeviceCommand),
    /// Publish one message to a topic.
    Publish(messages::PublishArgs),
    /// Follow topics.
    Subscribe(messages::SubscribeArgs),
    /// See the nodes of the hub, drain them, spread devices over them.
    #[command(subcommand)]
    Node(nodes::NodeCommand),
    /// Make keys, and tokens for devices.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// See whether a Redis is fit for a hub, and what its user must be allowed.
    #[command(subcommand)]
    Redis(redis::RedisCommand),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Check or show a configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// Does what the arguments say, the program's name first. What went wrong has been told on standard
/// error when this returns.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = Cli::command()
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let exit = match parsed {
        Ok(cli) => cli.run(),
        Err(error) => {
            // To standard output for --help and --version. Nothing can be done if nobody reads it.
            error.print().ok();
            let asked = !error.use_stderr();
            return if asked { Exit::Ok.into() } else { Exit::Usage.into() };
        }
    };
    match exit {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(&failure);
            failure.exit().into()
        }
    }
}

// === impl Cli ===

impl Cli {
    fn run(self) -> Result<Exit, Failure> {
        match self.command {
            Command::Serve(args) => serve::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Simulate(args) => simulate::run(&args),
            Command::Command(command) => client::block_on(command.run()),
            Command::Device(command) => client::block_on(command.run()),
            Command::Publish(args) => client::block_on(args.run()),
            Command::Subscribe(args) => client::block_on(args.run()),
            Command::Node(command) => client::block_on(command.run()),
            Command::Token(command) => token::run(&command),
            Command::Redis(command) => client::block_on(command.run()),
            Command::Bench(command) => bench::run(&command),
            Command::Config(command) => config::run(&command),
        }
    }
}
