//! `roost command list`, `dead` and `redrive`: commands that are there, and those given up.

use std::time::{Duration, SystemTime};

use clap::Args;
use prost_types::Timestamp;
use roost_proto::control::v1 as pb;

use super::super::args::{ClientArgs, duration};
use super::super::client::connect;
use super::super::output::Output;
use super::super::views::{self, CommandView, time};
use super::super::{Exit, Failure};
use super::{answer_shown, proto_duration, summary};

/// How many commands a page has.
const PAGE: i32 = 200;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roost command list thermo-1 --since 1h
  roost command list thermo-1 --since 2026-11-20T08:00:00Z --until 30m --json")]
pub(in super::super) struct ListArgs {
    /// The device.
    device: String,
    /// Only those accepted at this time or later: RFC 3339, or so long ago.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only those accepted before this time: RFC 3339, or so long ago.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// At most this many, the newest first.
    #[arg(long, default_value = "1000")]
    limit: usize,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(in super::super) struct DeadArgs {
    /// Only those of this device.
    device: Option<String>,
    /// At most this many.
    #[arg(long, default_value = "1000")]
    limit: usize,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Safe to repeat: the same new command is found.

Examples:
  roost command redrive thermo-1 job-4711
  roost command redrive thermo-1 job-4711 --ttl 1h --max-attempts 5 --id job-4711-again")]
pub(in super::super) struct RedriveArgs {
    /// The device.
    device: String,
    /// The dead command's id.
    command_id: String,
    /// The new command's id. [default: the old one with ~2 behind it, then ~3 …]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// How long the new command may take to be done, before it expires. [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// How many attempts the new command has. [default: as many as the old one]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_attempts: Option<u32>,
    #[command(flatten)]
    client: ClientArgs,
}

/// `2026-11-20T08:00:00Z`, or `1h` for an hour ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = duration(text) {
        let then = SystemTime::now().checked_sub(ago).ok_or("that is before all times")?;
        return Ok(Timestamp::from(then));
    }
    let what = "expected a time such as 2026-11-20T08:00:00Z, or how long ago: 90s, 5m, 1h, 7d";
    text.parse().map_err(|_| what.to_owned())
}

pub(super) async fn list(args: ListArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let mut client = connect(&args.client).await?.commands();
    let mut commands = vec![];
    let mut request = pb::ListCommandsRequest {
        device_id: args.device,
        page_size: PAGE,
        since_time: args.since,
        until_time: args.until,
        ..Default::default()
    };
    while commands.len() < args.limit {
        let page = client.list_commands(request.clone()).await?.into_inner();
        commands.extend(page.commands);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    commands.truncate(args.limit);
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
    let heading = ["COMMAND", "NAME", "STATE", "ATTEMPT", "CREATED", "ANSWER"];
    show(output, &heading, commands, row)
}

pub(super) async fn dead(args: DeadArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let mut client = connect(&args.client).await?.commands();
    let mut commands = vec![];
    let mut request = pb::ListDeadCommandsRequest {
        device_id: args.device.unwrap_or_default(),
        page_size: PAGE,
        ..Default::default()
    };
    while commands.len() < args.limit {
        let page = client.list_dead_commands(request.clone()).await?.into_inner();
        commands.extend(page.commands);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    commands.truncate(args.limit);
    let row = |command: &pb::Command| {
        vec![
            command.device_id.clone(),
            command.command_id.clone(),
            command.name.clone(),
            command.attempt.to_string(),
            time(command.create_time.as_ref()),
            time(command.update_time.as_ref()),
        ]
    };
    let heading = ["DEVICE", "COMMAND", "NAME", "ATTEMPTS", "CREATED", "GIVEN UP"];
    show(output, &heading, commands, row)
}

pub(super) async fn redrive(args: RedriveArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let ttl = args.ttl.map(proto_duration).transpose()?;
    let request = pb::RedriveCommandRequest {
        device_id: args.device,
        command_id: args.command_id,
        new_command_id: args.id.unwrap_or_default(),
        expiry: ttl.map(pb::redrive_command_request::Expiry::Ttl),
        max_attempts: args.max_attempts.unwrap_or_default(),
    };
    let client = connect(&args.client).await?;
    let answer = client.commands().redrive_command(request).await?.into_inner();
    let command = answer.command.unwrap_or_default();
    output.show(&CommandView::from(command.clone()), || summary(output, &command))?;
    Ok(Exit::Ok)
}

/// As JSON lines, or as a table.
fn show(
    output: Output,
    heading: &[&str],
    commands: Vec<pb::Command>,
    row: impl Fn(&pb::Command) -> Vec<String>,
) -> Result<Exit, Failure> {
    if output.json {
        for command in commands {
            output.json_line(&CommandView::from(command))?;
        }
    } else {
        let rows: Vec<Vec<String>> = commands.iter().map(row).collect();
        output.list(heading, &rows, Clone::clone)?;
    }
    Ok(Exit::Ok)
}
