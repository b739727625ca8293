//! `roost command`: get and cancel, and what the others share. `send` and `watch` are in `send.rs`,
//! `batch` in `batch.rs`, `list`, `dead` and `redrive` in `lists.rs`.

use std::time::Duration;

use clap::{Args, Subcommand};
use roost_proto::control::v1 as pb;

use super::args::ClientArgs;
use super::client::connect;
use super::output::{Output, Style};
use super::views::{self, CommandView, time};
use super::{Exit, Failure, payload};

mod batch;
mod lists;
mod send;

#[derive(Debug, Subcommand)]
pub(super) enum CommandCommand {
    /// Send a command to a device and wait for what becomes of it.
    Send(send::SendArgs),
    /// Show one command.
    Get(OneArgs),
    /// Follow a command until it has ended: progress as it comes, then how it ended.
    Watch(send::WatchArgs),
    /// List the commands of a device that the hub remembers.
    List(lists::ListArgs),
    /// Call a command back. It wins only over one that still waits.
    Cancel(OneArgs),
    /// Send one command to many devices; a line for each as its answer comes.
    Batch(batch::BatchArgs),
    /// List the commands that were given up after all their attempts.
    Dead(lists::DeadArgs),
    /// Send a dead command once more, as a new command.
    Redrive(lists::RedriveArgs),
}

#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// The device.
    device: String,
    /// The command's id.
    command_id: String,
    #[command(flatten)]
    client: ClientArgs,
}

// === impl CommandCommand ===

impl CommandCommand {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Send(args) => send::send(args).await,
            Self::Get(args) => get(args).await,
            Self::Watch(args) => send::watch(args).await,
            Self::List(args) => lists::list(args).await,
            Self::Cancel(args) => cancel(args).await,
            Self::Batch(args) => batch::batch(args).await,
            Self::Dead(args) => lists::dead(args).await,
            Self::Redrive(args) => lists::redrive(args).await,
        }
    }
}

async fn get(args: OneArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let client = connect(&args.client).await?;
    let request = pb::GetCommandRequest { device_id: args.device, command_id: args.command_id };
    let answer = client.commands().get_command(request).await?.into_inner();
    let command = answer.command.unwrap_or_default();
    output.show(&CommandView::from(command.clone()), || details(output, &command))?;
    Ok(Exit::Ok)
}

async fn cancel(args: OneArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let client = connect(&args.client).await?;
    let request = pb::CancelCommandRequest { device_id: args.device, command_id: args.command_id };
    let answer = client.commands().cancel_command(request).await?.into_inner();
    let outcome = answer.outcome();
    let name = outcome.as_str_name().trim_start_matches("CANCEL_OUTCOME_");
    let command = CommandView::from(answer.command.unwrap_or_default());
    let json = serde_json::json!({ "outcome": name, "command": command });
    output.show(&json, || match outcome {
        pb::CancelOutcome::Cancelled => "cancelled: it will not be delivered".to_owned(),
        pb::CancelOutcome::TooLate => {
            "too late: the device has it already; it was told that you no longer want it".to_owned()
        }
        _ => "it had already ended".to_owned(),
    })?;
    let won = outcome == pb::CancelOutcome::Cancelled;
    Ok(if won { Exit::Ok } else { Exit::Failed })
}

/// What the state of a command means for the exit code.
fn outcome(command: &pb::Command) -> Exit {
    match command.state() {
        pb::CommandState::Failed
        | pb::CommandState::Rejected
        | pb::CommandState::Expired
        | pb::CommandState::Cancelled
        | pb::CommandState::Dead => Exit::Failed,
        _ => Exit::Ok,
    }
}

/// `SUCCEEDED {"uptime_s":3}` and the command's id.
fn summary(output: Output, command: &pb::Command) -> String {
    let id = output.paint(Style::Dim, &command.command_id);
    [state_shown(output, command), answer_shown(command), id].join(" ").replace("  ", " ")
}

/// The state in its colour.
fn state_shown(output: Output, command: &pb::Command) -> String {
    let style = match outcome(command) {
        Exit::Ok => Style::Good,
        _ => Style::Bad,
    };
    output.paint(style, views::state(command.state))
}

/// What the device answered: its payload, or its error.
fn answer_shown(command: &pb::Command) -> String {
    command.result.as_ref().map(result_shown).unwrap_or_default()
}

fn result_shown(result: &pb::CommandResult) -> String {
    let payload = payload::shown(result.payload.as_ref());
    let dropped = if result.payload_dropped { "(payload dropped: store full)" } else { "" };
    let parts = [payload.as_str(), result.error_message.as_str(), dropped];
    parts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

/// `40 % flushing`.
fn progress_shown(progress: &pb::CommandProgress) -> String {
    let percent = progress.percent.map(|percent| format!("{percent} %"));
    let parts = [percent.unwrap_or_default(), progress.note.clone()];
    parts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Everything, in lines.
fn details(output: Output, command: &pb::Command) -> String {
    let attempts = match command.max_attempts {
        0 => command.attempt.to_string(),
        most => format!("{} of {most}", command.attempt),
    };
    let mut lines = vec![
        format!("{} for {}: {}", command.name, command.device_id, summary(output, command)),
        format!("  payload   {}", payload::shown(command.payload.as_ref())),
        format!("  expires   {}", time(command.expire_time.as_ref())),
        format!("  attempts  {attempts}"),
    ];
    let mut also = |name: &str, text: &str| {
        if !text.is_empty() {
            lines.push(format!("  {name:<8}  {text}"));
        }
    };
    also("order", &command.ordering_key);
    also("progress", &command.progress.as_ref().map(progress_shown).unwrap_or_default());
    if let Some(late) = &command.late_result {
        let result = late.result.clone().unwrap_or_default();
        let (status, at) = (views::result_status(result.status), time(result.time.as_ref()));
        let times =
            if late.count > 1 { format!(" ({} of them)", late.count) } else { String::new() };
        also("late", format!("{status} {} at {at}{times}", result_shown(&result)).trim());
    }
    also("redriven", &command.redriven_as);
    for step in &command.transitions {
        lines.push(format!("  {:<10}  {}", views::state(step.state), time(step.time.as_ref())));
    }
    lines.join("\n")
}

fn proto_duration(duration: Duration) -> Result<prost_types::Duration, Failure> {
    prost_types::Duration::try_from(duration)
        .map_err(|error| Failure::usage(format!("{duration:?}: {error}")))
}
