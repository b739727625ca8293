//! Commands as the hub shows them.

use std::sync::Arc;

use roost_types::{
    Command, CommandResult, CommandState, LateResult, Progress, ResultStatus, Transition,
    UnixMillis,
};

use crate::control::v1;
use crate::convert::{headers_out, timestamp_out};

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
        let successor = command.redriven_as.as_ref();
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
            ordering_key: text_out(spec.ordering_key.as_ref()),
            max_attempts: spec.max_attempts,
            late_result: command.late.as_ref().map(Into::into),
            redriven_as: successor.map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl From<&LateResult> for v1::LateResult {
    fn from(late: &LateResult) -> Self {
        Self { result: Some(result_out(&late.result, late.time)), count: late.count }
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

/// A result with the time when it reached the hub; for that which ended the command, the time of the
/// terminal step.
fn result_out(result: &CommandResult, time: UnixMillis) -> v1::CommandResult {
    v1::CommandResult {
        status: v1::CommandResultStatus::from(result.status).into(),
        payload: result.payload.as_ref().map(Into::into),
        error_message: text_out(result.error.as_ref()),
        time: Some(timestamp_out(time)),
        payload_dropped: result.payload_dropped,
    }
}

fn text_out(text: Option<&Arc<str>>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}
