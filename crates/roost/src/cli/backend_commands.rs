//! `roost command`: send, get, list, cancel.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use roost_proto::control::v1 as pb;

use super::args::{ClientArgs, PayloadArgs, duration, header};
use super::client::connect;
use super::output::{Output, Style};
use super::views::{self, CommandView, time};
use super::{Exit, Failure, payload};

/// How many commands a page has.
const PAGE: i32 = 200;

#[derive(Debug, Subcommand)]
pub(super) enum CommandCommand {
    /// Send a command to a device and wait for what becomes of it.
    Send(SendArgs),
    /// Show one command.
    Get(OneArgs),
    /// List the commands of a device that the hub remembers.
    List(ListArgs),
    /// Call a command back. It wins only over one that still waits.
    Cancel(OneArgs),
}

#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// The device.
    device: String,
    /// What to do, in words that the device knows.
    name: String,
    #[command(flatten)]
    payload: PayloadArgs,
    /// The command's id: sending it again with the same id finds the same command.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// How long it may take to be done, before it expires. [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// What travels with it; can be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Wait until it has come this far, or has ended.
    #[arg(long, value_enum, default_value = "done", value_name = "STATE")]
    wait_until: WaitUntil,
    /// How long to wait for that; after it the exit code is 3, and the command goes on.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration)]
    wait_timeout: Duration,
    /// Do not wait: say that it was accepted.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// How far a command is to come.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum WaitUntil {
    Dispatched,
    Sent,
    Received,
    Running,
    Done,
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

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The device.
    device: String,
    /// At most this many, the newest first.
    #[arg(long, default_value = "1000")]
    limit: usize,
    #[command(flatten)]
    client: ClientArgs,
}

// === impl WaitUntil ===

impl WaitUntil {
    fn state(self) -> pb::CommandState {
        match self {
            Self::Dispatched => pb::CommandState::Dispatched,
            Self::Sent => pb::CommandState::Sent,
            Self::Received => pb::CommandState::Received,
            Self::Running => pb::CommandState::Running,
            // Any terminal state means: once it has ended, however that was.
            Self::Done => pb::CommandState::Succeeded,
        }
    }
}

// === impl CommandCommand ===

impl CommandCommand {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Send(args) => send(args).await,
            Self::Get(args) => get(args).await,
            Self::List(args) => list(args).await,
            Self::Cancel(args) => cancel(args).await,
        }
    }
}

async fn send(args: SendArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let ttl = args.ttl.map(proto_duration).transpose()?;
    let wait = !args.no_wait;
    let wait_until = if wait { args.wait_until.state() } else { pb::CommandState::Unspecified };
    let request = pb::SendCommandRequest {
        payload: payload::read(&args.payload)?,
        device_id: args.device,
        command_id: args.id.unwrap_or_default(),
        name: args.name,
        headers: args.headers.into_iter().collect(),
        expiry: ttl.map(pb::send_command_request::Expiry::Ttl),
        wait_until: wait_until.into(),
        wait_timeout: wait.then(|| proto_duration(args.wait_timeout)).transpose()?,
    };
    let client = connect(&args.client).await?;
    let answer = client.commands().send_command(request).await?.into_inner();
    let command = answer.command.unwrap_or_default();
    let exit = if answer.wait_timed_out { Exit::WaitTimedOut } else { outcome(&command) };
    output.show(&CommandView::from(command.clone()), || summary(output, &command))?;
    if answer.wait_timed_out && !output.json {
        let again = format!("roost command get {} {}", command.device_id, command.command_id);
        output.line(format!("  the wait timed out; it goes on: {again}"))?;
    }
    Ok(exit)
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

async fn list(args: ListArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let mut client = connect(&args.client).await?.commands();
    let mut commands = vec![];
    let mut page_token = String::new();
    while commands.len() < args.limit {
        let request = pb::ListCommandsRequest {
            device_id: args.device.clone(),
            page_size: PAGE,
            page_token,
            state: pb::CommandState::Unspecified.into(),
        };
        let page = client.list_commands(request).await?.into_inner();
        commands.extend(page.commands);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    commands.truncate(args.limit);
    if output.json {
        for command in commands {
            output.json_line(&CommandView::from(command))?;
        }
        return Ok(Exit::Ok);
    }
    let row = |command: &pb::Command| {
        vec![
            command.command_id.clone(),
            command.name.clone(),
            views::state(command.state).to_owned(),
            command.attempt.to_string(),
            time(command.create_time.as_ref()),
            answer_shown(command),
        ]
    };
    let rows: Vec<Vec<String>> = commands.iter().map(row).collect();
    let heading = ["COMMAND", "NAME", "STATE", "ATTEMPT", "CREATED", "ANSWER"];
    output.list(&heading, &rows, Clone::clone)?;
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
    let style = match outcome(command) {
        Exit::Ok => Style::Good,
        _ => Style::Bad,
    };
    let state = output.paint(style, views::state(command.state));
    let id = output.paint(Style::Dim, &command.command_id);
    let answer = answer_shown(command);
    [state, answer, id].join(" ").replace("  ", " ")
}

/// What the device answered: its payload, or its error.
fn answer_shown(command: &pb::Command) -> String {
    let Some(result) = &command.result else {
        return String::new();
    };
    let payload = payload::shown(result.payload.as_ref());
    let both = [payload.as_str(), result.error_message.as_str()];
    both.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Everything, in lines.
fn details(output: Output, command: &pb::Command) -> String {
    let mut lines = vec![
        format!("{} for {}: {}", command.name, command.device_id, summary(output, command)),
        format!("  payload   {}", payload::shown(command.payload.as_ref())),
        format!("  expires   {}", time(command.expire_time.as_ref())),
        format!("  attempts  {}", command.attempt),
    ];
    if let Some(progress) = &command.progress {
        let percent = progress.percent.map(|percent| format!("{percent} % "));
        let note = &progress.note;
        lines.push(format!("  progress  {}{note}", percent.unwrap_or_default()));
    }
    for step in &command.transitions {
        lines.push(format!("  {:<10}  {}", views::state(step.state), time(step.time.as_ref())));
    }
    lines.join("\n")
}

fn proto_duration(duration: Duration) -> Result<prost_types::Duration, Failure> {
    prost_types::Duration::try_from(duration)
        .map_err(|error| Failure::usage(format!("{duration:?}: {error}")))
}
