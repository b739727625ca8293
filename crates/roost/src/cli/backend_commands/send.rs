//! `roost command send` and `roost command watch`: one command, from its acceptance to its end.

use std::time::Duration;

use clap::{Args, ValueEnum};
use roost_client::backend::{Backend, BackendError};
use roost_proto::control::v1 as pb;
use serde_json::json;
use tonic::Streaming;

use super::super::args::{ClientArgs, PayloadArgs, duration, header};
use super::super::client::connect;
use super::super::output::Output;
use super::super::views::{self, CommandView, time};
use super::super::{Exit, Failure, payload};
use super::{outcome, progress_shown, proto_duration, state_shown, summary};

/// How often a stream that the hub ended is opened again without anything new having come.
const TRIES: u32 = 5;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roost command send thermo-1 reboot '{\"delay_s\": 5}'
  roost command send thermo-1 update @firmware.bin --binary --ttl 1h --watch
  roost command send valve-7 open --ordering-key line-2 --max-attempts 3 --id job-4711
  roost command send thermo-1 reboot --no-wait --durability replicated")]
pub(in super::super) struct SendArgs {
    /// The device.
    device: String,
    /// What to do, in words that the device knows.
    name: String,
    #[command(flatten)]
    payload: PayloadArgs,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    wait: WaitArgs,
    /// Tell of every change, progress too, until it has ended.
    #[arg(long, conflicts_with_all = ["no_wait", "wait_until", "wait_timeout"])]
    watch: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// How a command is to be kept and delivered.
#[derive(Debug, Args)]
pub(super) struct HowArgs {
    /// The command's id: sending it again with the same id finds the same command.
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// How long it may take to be done, before it expires. [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// What travels with it; can be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Commands of one device and key are first delivered in the order in which they were accepted.
    #[arg(long, value_name = "KEY")]
    ordering_key: Option<String>,
    /// After how many attempts it is given up as DEAD. [default: none; it is tried until it expires]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_attempts: Option<u32>,
    /// What its acceptance must survive at the least. [default: all that the hub is set up for]
    #[arg(long, value_enum, value_name = "WHAT")]
    durability: Option<Durability>,
}

#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// Wait until it has come this far, or has ended.
    #[arg(long, value_enum, default_value = "done", value_name = "STATE")]
    wait_until: WaitUntil,
    /// How long to wait for that; after it the exit code is 3, and the command goes on.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration)]
    wait_timeout: Duration,
    /// Do not wait: say that it was accepted.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roost command watch thermo-1 01K9Z3...
  roost command watch thermo-1 job-4711 --json --cursor \"$CURSOR\"    # what came after it")]
pub(in super::super) struct WatchArgs {
    /// The device.
    device: String,
    /// The command's id.
    command_id: String,
    /// Where another watch stood: what it has told is not told again.
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
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

/// What an acceptance survives.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Durability {
    /// In the memory of the hub's process.
    Process,
    /// In the memory of one Redis.
    Memory,
    /// Acknowledged by a replica too.
    Replicated,
    /// Flushed to disk, and replicated.
    Fsync,
}

// === impl … ===

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

impl From<Durability> for pb::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Process => Self::Process,
            Durability::Memory => Self::Memory,
            Durability::Replicated => Self::Replicated,
            Durability::Fsync => Self::Fsync,
        }
    }
}

impl HowArgs {
    /// The request for a device; empty for a batch.
    pub(super) fn request(
        self,
        device_id: String,
        name: String,
        payload: &PayloadArgs,
    ) -> Result<pb::SendCommandRequest, Failure> {
        let ttl = self.ttl.map(proto_duration).transpose()?;
        let durability = self.durability.map_or(pb::Durability::Unspecified, Into::into);
        Ok(pb::SendCommandRequest {
            payload: payload::read(payload)?,
            device_id,
            command_id: self.id.unwrap_or_default(),
            name,
            headers: self.headers.into_iter().collect(),
            expiry: ttl.map(pb::send_command_request::Expiry::Ttl),
            ordering_key: self.ordering_key.unwrap_or_default(),
            max_attempts: self.max_attempts.unwrap_or_default(),
            durability: durability.into(),
            ..Default::default()
        })
    }
}

impl WaitArgs {
    /// Puts the wait into the request.
    pub(super) fn ask(&self, request: &mut pb::SendCommandRequest) -> Result<(), Failure> {
        if !self.no_wait {
            request.wait_until = self.wait_until.state().into();
            request.wait_timeout = Some(proto_duration(self.wait_timeout)?);
        }
        Ok(())
    }
}

pub(super) async fn send(args: SendArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let mut request = args.how.request(args.device, args.name, &args.payload)?;
    if args.watch {
        let client = connect(&args.client).await?;
        let request = pb::SendAndWatchCommandRequest { command: Some(request) };
        return send_and_watch(&client, output, request).await;
    }
    args.wait.ask(&mut request)?;
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

pub(super) async fn watch(args: WatchArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let client = connect(&args.client).await?;
    let request = pb::WatchCommandRequest {
        device_id: args.device,
        command_id: args.command_id,
        cursor: args.cursor.unwrap_or_default(),
    };
    // The first call is not repeated: what is wrong with it is to be seen.
    let stream = client.commands().watch_command(request.clone()).await?.into_inner();
    follow(&client, output, request, stream).await
}

async fn send_and_watch(
    client: &Backend,
    output: Output,
    request: pb::SendAndWatchCommandRequest,
) -> Result<Exit, Failure> {
    let answer = client.commands().send_and_watch_command(request).await?;
    let mut stream = answer.into_inner();
    let mut seen = pb::WatchCommandRequest::default();
    let mut exit = Exit::Ok;
    loop {
        match stream.message().await {
            Ok(Some(item)) => {
                let command = item.command.unwrap_or_default();
                exit = outcome(&command);
                seen.device_id.clone_from(&command.device_id);
                seen.command_id.clone_from(&command.command_id);
                seen.cursor.clone_from(&item.cursor);
                tell(output, command, &item.cursor)?;
            }
            Ok(None) => return Ok(exit),
            Err(status) => {
                let error = BackendError::from(status);
                // Without a cursor the command may not be accepted: not for us to repeat.
                if !error.retryable() || seen.cursor.is_empty() {
                    return Err(error.into());
                }
                let stream = again(client, &seen, error).await?;
                return follow(client, output, seen, stream).await;
            }
        }
    }
}

/// Tells of a command to its end, over streams that the hub ends before.
async fn follow(
    client: &Backend,
    output: Output,
    mut seen: pb::WatchCommandRequest,
    mut stream: Streaming<pb::WatchCommandResponse>,
) -> Result<Exit, Failure> {
    let mut exit = None;
    loop {
        match stream.message().await {
            Ok(Some(item)) => {
                let command = item.command.unwrap_or_default();
                exit = Some(outcome(&command));
                seen.cursor.clone_from(&item.cursor);
                tell(output, command, &item.cursor)?;
            }
            Ok(None) => match exit {
                Some(exit) => return Ok(exit),
                None => return how_it_ended(client, seen).await,
            },
            Err(status) => {
                let error = BackendError::from(status);
                if !error.retryable() {
                    return Err(error.into());
                }
                stream = again(client, &seen, error).await?;
            }
        }
    }
}

/// The exit code of a command whose end was told before: the cursor stands behind it, so that nothing
/// is told again.
async fn how_it_ended(client: &Backend, seen: pb::WatchCommandRequest) -> Result<Exit, Failure> {
    let pb::WatchCommandRequest { device_id, command_id, .. } = seen;
    let request = pb::GetCommandRequest { device_id, command_id };
    let answer = client.commands().get_command(request).await?.into_inner();
    Ok(outcome(&answer.command.unwrap_or_default()))
}

/// Opens the stream again, some times.
async fn again(
    client: &Backend,
    seen: &pb::WatchCommandRequest,
    mut error: BackendError,
) -> Result<Streaming<pb::WatchCommandResponse>, Failure> {
    for attempt in 0..TRIES {
        let Some(after) = error.retry_after else { break };
        tokio::time::sleep(after * 2_u32.pow(attempt)).await;
        match client.commands().watch_command(seen.clone()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => error = status.into(),
        }
    }
    Err(error.into())
}

/// One line about a command, or one JSON object.
fn tell(output: Output, command: pb::Command, cursor: &str) -> Result<(), Failure> {
    if output.json {
        let view = CommandView::from(command);
        output.json_line(&json!({ "command": view, "cursor": cursor }))?;
        return Ok(());
    }
    let at = command.progress.as_ref().filter(|_| command.state() == pb::CommandState::Running);
    let line = if views::is_terminal(command.state) {
        summary(output, &command)
    } else {
        let progress = at.map(progress_shown).unwrap_or_default();
        [state_shown(output, &command), progress].join(" ")
    };
    let changed = at.map_or(command.update_time.as_ref(), |progress| progress.time.as_ref());
    output.line(format!("{}  {}", time(changed), line.trim_end()))?;
    Ok(())
}
