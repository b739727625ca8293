//! Commands: requests checked on the way in, records shown on the way out.

use std::sync::Arc;
use std::time::Duration;

use roost_types::{
    Command, CommandId, CommandResult, CommandSpec, CommandState, DEFAULT_TTL, DeviceId, MAX_TTL,
    Progress, ResultStatus, Transition, UnixMillis,
};

use super::violation::Checks;
use super::{
    Violation, Violations, command_id, device_id, duration, headers, headers_out, payload,
    timestamp, timestamp_out,
};
use crate::control::v1::{self, send_command_request::Expiry};

/// How long `SendCommand` waits where the caller names a state and no time.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// How long `SendCommand` waits at the most.
pub const MAX_WAIT: Duration = Duration::from_mins(5);
/// The most characters that a command's name may have.
const MAX_NAME: usize = 128;

/// A checked `SendCommandRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendCommand {
    /// For whom.
    pub device: DeviceId,
    /// What is asked; the id is a new one where the caller gave none.
    pub spec: CommandSpec,
    /// What to wait for after it is accepted; `None` is nothing.
    pub wait: Option<Wait>,
}

/// What a caller wants to see before the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The state to reach; any terminal one ends the wait, see [`CommandState::satisfies`].
    pub until: CommandState,
    /// After which time to reply with the state reached.
    pub timeout: Duration,
}

/// Which command a call is about: a checked `GetCommandRequest` or `CancelCommandRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRef {
    /// For whom it is.
    pub device: DeviceId,
    /// Its id, unique within the device.
    pub command: CommandId,
}

// === impl SendCommand ===

impl SendCommand {
    /// Checks a request that came at `now`, by hub time. `max_payload` bounds the payload, in bytes.
    pub fn from_request(
        request: v1::SendCommandRequest,
        now: UnixMillis,
        max_payload: usize,
    ) -> Result<Self, Violations> {
        let mut checks = Checks::default();
        let device = checks.take(device_id(&request.device_id));
        let id = checks.take(given_or_new_id(&request.command_id));
        let name = checks.take(name(&request.name));
        let payload = checks.take(payload(request.payload, max_payload, "payload"));
        let headers = checks.take(headers(&request.headers, "headers"));
        let expires = checks.take(expiry(request.expiry, now));
        let wait = checks.take(wait(request.wait_until, request.wait_timeout));
        let whole = || {
            let spec = CommandSpec {
                id: id?,
                name: name?,
                payload: payload?,
                headers: headers?,
                expires: expires?,
            };
            Some(Self { device: device?, spec, wait: wait? })
        };
        let whole = whole();
        checks.finish(whole)
    }
}

fn given_or_new_id(text: &str) -> Result<CommandId, Violation> {
    if text.is_empty() {
        return Ok(CommandId::generate());
    }
    command_id(text)
}

fn name(text: &str) -> Result<Arc<str>, Violation> {
    if text.is_empty() {
        return Err(Violation::missing("name", "what the device should do"));
    }
    // Bytes first: characters of a hostile megabyte need not be counted.
    let fits = text.len() <= 4 * MAX_NAME && text.chars().count() <= MAX_NAME;
    if !fits || text.chars().any(char::is_control) {
        let what = format!(
            "has {} bytes; it must have 1 to {MAX_NAME} characters, no control characters among them",
            text.len()
        );
        return Err(Violation::invalid("name", what));
    }
    Ok(text.into())
}

fn expiry(expiry: Option<Expiry>, now: UnixMillis) -> Result<UnixMillis, Violation> {
    match expiry {
        None => Ok(now.plus(DEFAULT_TTL)),
        Some(Expiry::Ttl(ttl)) => Ok(now.plus(duration(&ttl, MAX_TTL, "ttl")?)),
        Some(Expiry::ExpireTime(time)) => {
            let time = timestamp(&time, "expire_time")?;
            if time > now && time <= now.plus(MAX_TTL) {
                return Ok(time);
            }
            let what = format!(
                "is {time} by hub time, where it is {now} now; it must be later than that, by 7 days at most"
            );
            Err(Violation::invalid("expire_time", what))
        }
    }
}

fn wait(until: i32, timeout: Option<prost_types::Duration>) -> Result<Option<Wait>, Violation> {
    let state = command_state(until, "wait_until")?;
    if state.is_none() && timeout.is_some() {
        let what = "is given without wait_until; name the state to wait for, or leave both out";
        return Err(Violation::invalid("wait_timeout", what));
    }
    let timeout = match timeout {
        Some(span) => duration(&span, MAX_WAIT, "wait_timeout")?,
        None => DEFAULT_WAIT,
    };
    // Accepted is queued at least: for that there is nothing to wait.
    let later = state.filter(|state| *state != CommandState::Queued);
    Ok(later.map(|until| Wait { until, timeout }))
}

/// A state from outside; unspecified is none.
pub fn command_state(value: i32, field: &str) -> Result<Option<CommandState>, Violation> {
    let known = v1::CommandState::try_from(value).map_err(|_| {
        let what = format!("has the value {value}; this hub knows QUEUED (1) to DEAD (11)");
        Violation::invalid(field, what)
    })?;
    Ok(match known {
        v1::CommandState::Unspecified => None,
        v1::CommandState::Queued => Some(CommandState::Queued),
        v1::CommandState::Dispatched => Some(CommandState::Dispatched),
        v1::CommandState::Sent => Some(CommandState::Sent),
        v1::CommandState::Received => Some(CommandState::Received),
        v1::CommandState::Running => Some(CommandState::Running),
        v1::CommandState::Succeeded => Some(CommandState::Succeeded),
        v1::CommandState::Failed => Some(CommandState::Failed),
        v1::CommandState::Rejected => Some(CommandState::Rejected),
        v1::CommandState::Expired => Some(CommandState::Expired),
        v1::CommandState::Cancelled => Some(CommandState::Cancelled),
        v1::CommandState::Dead => Some(CommandState::Dead),
    })
}

// === impl CommandRef ===

impl CommandRef {
    fn check(device: &str, command: &str) -> Result<Self, Violations> {
        let mut checks = Checks::default();
        let device = checks.take(device_id(device));
        let command = checks.take(command_id(command));
        let both = device.zip(command);
        checks.finish(both.map(|(device, command)| Self { device, command }))
    }
}

impl TryFrom<&v1::GetCommandRequest> for CommandRef {
    type Error = Violations;
    fn try_from(request: &v1::GetCommandRequest) -> Result<Self, Violations> {
        Self::check(&request.device_id, &request.command_id)
    }
}

impl TryFrom<&v1::CancelCommandRequest> for CommandRef {
    type Error = Violations;
    fn try_from(request: &v1::CancelCommandRequest) -> Result<Self, Violations> {
        Self::check(&request.device_id, &request.command_id)
    }
}

// === what the hub shows ===

impl From<CommandState> for v1::CommandState {
    fn from(state: CommandState) -> Self {
        match state {
            CommandState::Queued => Self::Queued,
            CommandState::Dispatched => Self::Dispatched,
            CommandState::Sent => Self::Sent,
            CommandState::Received => Self::Received,
            CommandState::Running => Self::Running,
            CommandState::Succeeded => Self::Succeeded,
            CommandState::Failed => Self::Failed,
            CommandState::Rejected => Self::Rejected,
            CommandState::Expired => Self::Expired,
            CommandState::Cancelled => Self::Cancelled,
            CommandState::Dead => Self::Dead,
        }
    }
}

impl From<ResultStatus> for v1::CommandResultStatus {
    fn from(status: ResultStatus) -> Self {
        match status {
            ResultStatus::Succeeded => Self::Succeeded,
            ResultStatus::Failed => Self::Failed,
            ResultStatus::Rejected => Self::Rejected,
        }
    }
}

impl From<&Command> for v1::Command {
    fn from(command: &Command) -> Self {
        let spec = &command.spec;
        let result = command.result.as_ref();
        let session = command.session.as_ref();
        Self {
            device_id: command.device.device.to_string(),
            command_id: spec.id.to_string(),
            name: spec.name.to_string(),
            payload: spec.payload.as_ref().map(Into::into),
            headers: headers_out(&spec.headers),
            state: v1::CommandState::from(command.state).into(),
            create_time: Some(timestamp_out(command.created)),
            expire_time: Some(timestamp_out(spec.expires)),
            update_time: Some(timestamp_out(command.updated())),
            attempt: command.attempt,
            progress: command.progress.as_ref().map(Into::into),
            result: result.map(|result| result_out(result, command.updated())),
            transitions: command.transitions.iter().map(Into::into).collect(),
            session_id: session.map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl From<&Progress> for v1::CommandProgress {
    fn from(progress: &Progress) -> Self {
        Self {
            percent: progress.percent.map(u32::from),
            note: text_out(progress.note.as_ref()),
            time: Some(timestamp_out(progress.time)),
        }
    }
}

impl From<&Transition> for v1::CommandTransition {
    fn from(step: &Transition) -> Self {
        Self {
            state: v1::CommandState::from(step.state).into(),
            time: Some(timestamp_out(step.time)),
        }
    }
}

/// A result with the time of the terminal step, which is when it reached the hub.
fn result_out(result: &CommandResult, time: UnixMillis) -> v1::CommandResult {
    v1::CommandResult {
        status: v1::CommandResultStatus::from(result.status).into(),
        payload: result.payload.as_ref().map(Into::into),
        error_message: text_out(result.error.as_ref()),
        time: Some(timestamp_out(time)),
    }
}

fn text_out(text: Option<&Arc<str>>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests;
