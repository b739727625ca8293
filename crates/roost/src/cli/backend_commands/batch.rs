//! `roost command batch`: one command for many devices.

use std::collections::{BTreeMap, HashSet};
use std::io::Read as _;

use clap::Args;
use roost_client::backend::{Backend, BackendError};
use roost_proto::control::v1 as pb;
use roost_proto::control::v1::batch_send_commands_response::Outcome;
use roost_types::CommandId;
use serde_json::json;

use super::super::args::{ClientArgs, PayloadArgs};
use super::super::client::connect;
use super::super::output::{Output, Style};
use super::super::views::{self, CommandView};
use super::super::{Exit, Failure};
use super::send::{HowArgs, WaitArgs};
use super::{answer_shown, outcome, state_shown};

/// How often a batch that the hub broke off is gone on with without any answer having come.
const TRIES: u32 = 5;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roost command batch --devices fleet.txt reboot '{\"delay_s\": 5}' --id reboot-2026-11-20
  roost device list --online --json | jq -r .device_id | roost command batch --devices - ping
  roost command batch --devices fleet.txt update @fw.bin --binary --ttl 1d --no-wait --json

Exit code 0 only if it succeeded, or was accepted where that is all that was waited for, on every
device; 1 if one refused or failed; 3 if only waits timed out.")]
pub(in super::super) struct BatchArgs {
    /// A file with a device id in each line, or `-` for standard input; lines that begin with # are
    /// left out. At most 10,000 devices.
    #[arg(long, value_name = "FILE")]
    devices: String,
    /// What to do, in words that the devices know.
    name: String,
    #[command(flatten)]
    payload: PayloadArgs,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// What has become of a batch so far.
struct Tally {
    output: Output,
    /// Devices without an answer.
    open: HashSet<String>,
    /// How many had which answer.
    counts: BTreeMap<String, usize>,
    failed: bool,
    timed_out: bool,
}

pub(super) async fn batch(mut args: BatchArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    if args.devices == "-" && args.payload.payload.as_deref() == Some("-") {
        return Err(Failure::usage("devices and payload cannot both come from standard input"));
    }
    let devices = devices(&args.devices)?;
    if devices.is_empty() {
        return Err(Failure::usage(format!("{} names no device", args.devices)));
    }
    // Known before the first answer: with it a batch that breaks off can be gone on with.
    args.how.id.get_or_insert_with(|| CommandId::generate().to_string());
    let mut command = args.how.request(String::new(), args.name, &args.payload)?;
    args.wait.ask(&mut command)?;
    let client = connect(&args.client).await?;
    let open = devices.iter().cloned().collect();
    let counts = BTreeMap::new();
    let mut tally = Tally { output, open, counts, failed: false, timed_out: false };
    tally.run(&client, devices, command).await?;
    tally.finish()
}

/// The ids in a file, or in what comes on standard input.
fn devices(from: &str) -> Result<Vec<String>, Failure> {
    let text = if from == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text)?;
        text
    } else {
        std::fs::read_to_string(from)
            .map_err(|error| Failure::usage(format!("cannot read the devices {from}: {error}")))?
    };
    let lines = text.lines().map(str::trim);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Into::into).collect())
}

// === impl Tally ===

impl Tally {
    /// Sends, and sends again what is without an answer if the hub breaks off.
    async fn run(
        &mut self,
        client: &Backend,
        mut devices: Vec<String>,
        command: pb::SendCommandRequest,
    ) -> Result<(), Failure> {
        let mut tries = 0;
        loop {
            let before = self.open.len();
            let request = pb::BatchSendCommandsRequest {
                device_ids: devices.clone(),
                command: Some(command.clone()),
            };
            let Err(error) = self.once(client, request).await? else {
                return Ok(());
            };
            tries = if self.open.len() < before { 0 } else { tries + 1 };
            devices.retain(|device| self.open.contains(device));
            match error.retry_after {
                Some(after) if tries < TRIES && !devices.is_empty() => {
                    tokio::time::sleep(after * 2_u32.pow(tries)).await;
                }
                _ => return Err(self.broken(error, &command.command_id)),
            }
        }
    }

    /// One call, to its end or to where the hub breaks off.
    async fn once(
        &mut self,
        client: &Backend,
        request: pb::BatchSendCommandsRequest,
    ) -> Result<Result<(), BackendError>, Failure> {
        let mut stream = match client.commands().batch_send_commands(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(Err(status.into())),
        };
        loop {
            match stream.message().await {
                Ok(Some(answer)) => self.tell(answer)?,
                Ok(None) => return Ok(Ok(())),
                Err(status) => return Ok(Err(status.into())),
            }
        }
    }

    fn broken(&self, error: BackendError, id: &str) -> Failure {
        let open = self.open.len();
        if error.retryable() && !self.output.json {
            // Whoever reads it can go on; a failure to say so is no worse than the failure itself.
            let again = format!("{open} devices are without an answer; send again with --id {id}");
            self.output.line(again).ok();
        }
        error.into()
    }

    fn tell(&mut self, answer: pb::BatchSendCommandsResponse) -> Result<(), Failure> {
        let device = answer.device_id;
        self.open.remove(&device);
        match answer.outcome {
            Some(Outcome::Sent(sent)) => self.sent(&device, sent),
            Some(Outcome::Error(error)) => self.refused(&device, &answer.command_id, &error),
            None => Ok(()),
        }
    }

    fn sent(&mut self, device: &str, sent: pb::SendCommandResponse) -> Result<(), Failure> {
        let output = self.output;
        let command = sent.command.unwrap_or_default();
        self.failed |= outcome(&command) != Exit::Ok;
        self.timed_out |= sent.wait_timed_out;
        let waited = if sent.wait_timed_out { " (the wait timed out)" } else { "" };
        let state = format!("{}{waited}", views::state(command.state));
        *self.counts.entry(state).or_default() += 1;
        if output.json {
            let timed_out = sent.wait_timed_out;
            let view = CommandView::from(command);
            let line = json!({ "device_id": device, "command": view, "wait_timed_out": timed_out });
            output.json_line(&line)?;
        } else {
            let line = format!(
                "{device}  {}{waited} {}",
                state_shown(output, &command),
                answer_shown(&command)
            );
            output.line(line.trim_end())?;
        }
        Ok(())
    }

    fn refused(
        &mut self,
        device: &str,
        command_id: &str,
        error: &pb::BatchSendError,
    ) -> Result<(), Failure> {
        let output = self.output;
        self.failed = true;
        *self.counts.entry(error.reason.clone()).or_default() += 1;
        if output.json {
            let pb::BatchSendError { code, reason, message, retryable } = error;
            let error = json!({ "code": code, "reason": reason, "message": message, "retryable": retryable });
            output.json_line(
                &json!({ "device_id": device, "command_id": command_id, "error": error }),
            )?;
        } else {
            let reason = output.paint(Style::Bad, &error.reason);
            output.line(format!("{device}  {reason}: {}", error.message))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Exit, Failure> {
        if !self.output.json {
            let all: usize = self.counts.values().sum();
            let counts = self.counts.iter().map(|(what, count)| format!("{count} {what}"));
            let counts = counts.collect::<Vec<_>>().join(", ");
            self.output.line(format!("{all} devices: {counts}"))?;
        }
        Ok(match (self.failed, self.timed_out) {
            (true, _) => Exit::Failed,
            (false, true) => Exit::WaitTimedOut,
            (false, false) => Exit::Ok,
        })
    }
}
