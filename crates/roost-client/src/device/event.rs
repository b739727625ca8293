//! What a device's connections bring, and what it says of commands, as values.

use std::sync::Arc;
use std::time::Duration;

use roost_types::{
    CommandId, Headers, Message, Payload, Position, ResultStatus, TopicFilter, TraceContext,
    UnixMillis,
};

use roost_wire::device::ToDevice;

use super::{Closed, Welcome};

/// What happens to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceEvent {
    /// It is connected; subscriptions were renewed, results that wait are sent again.
    Connected(Welcome),
    /// It is to do something, and say how that went by [`super::Device::finish`].
    Command(IncomingCommand),
    /// The caller no longer wants a command done.
    Cancel(CommandId),
    /// A publication that it has subscribed to.
    Message(Message),
    /// Publications are missing.
    Gap {
        /// Of this topic or filter.
        topic: TopicFilter,
        /// From here, where it is known.
        from: Option<Position>,
        /// To here, where it is known.
        to: Option<Position>,
    },
    /// The hub is about to close the connection.
    Goaway {
        /// Why.
        reason: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The hub complains about something that was no request.
    Complaint(RequestError),
    /// The connection ended. `retry_in` is when the next attempt comes; `None` means that there is
    /// none, and this is the last event.
    Disconnected {
        /// How.
        closed: Closed,
        /// See above.
        retry_in: Option<Duration>,
    },
    /// An attempt to connect failed. `retry_in` as above.
    Unreachable {
        /// Why.
        reason: String,
        /// See above.
        retry_in: Option<Duration>,
    },
}

/// A command as it reached the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingCommand {
    /// Its id; a redelivery has the same.
    pub command_id: CommandId,
    /// What to do.
    pub name: Arc<str>,
    /// With what.
    pub payload: Option<Payload>,
    /// What travels with it.
    pub headers: Headers,
    /// When it is over, by hub time.
    pub expires: UnixMillis,
    /// How long that was when the hub wrote it.
    pub expires_in: Duration,
    /// How often it was handed to a session, this time included.
    pub attempt: u32,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which command.
    pub command_id: CommandId,
    /// Succeeded, failed or rejected.
    pub status: ResultStatus,
    /// What the device answers, if anything.
    pub payload: Option<Payload>,
    /// What went wrong.
    pub error: Option<Arc<str>>,
    /// The device's span that led to it, where it goes on with the trace that the command's header
    /// `traceparent` names.
    pub trace: Option<TraceContext>,
}

/// The hub did what a request asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ack {
    /// Where a publication stands in its topic's log, where one is kept.
    pub position: Option<Position>,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The hub refused it.
    #[error("{code}: {message}")]
    Refused {
        /// Why, for machines: the name of an error code of the hub.
        code: String,
        /// Why, for people.
        message: String,
        /// The field that was wrong, where it was one.
        field: Option<String>,
        /// Whether the same request may succeed later.
        retryable: bool,
    },
    /// The connection ended before the answer came: it may have been done.
    #[error("the connection ended before the hub answered")]
    Disconnected,
    /// The device stopped for good.
    #[error("the device has stopped")]
    Stopped,
}

// === impl DeviceEvent ===

impl DeviceEvent {
    /// What the hub says, where it is an event by itself.
    pub(super) fn of(said: ToDevice) -> Option<Self> {
        Some(match said {
            ToDevice::Command {
                command_id,
                name,
                payload,
                headers,
                expires_ms,
                expires_in_ms,
                attempt,
            } => Self::Command(IncomingCommand {
                command_id,
                name,
                payload,
                headers,
                expires: expires_ms,
                expires_in: Duration::from_millis(expires_in_ms),
                attempt,
            }),
            ToDevice::Cancel { command_id } => Self::Cancel(command_id),
            ToDevice::Message(message) => Self::Message(message),
            ToDevice::Gap { topic, from, to } => Self::Gap { topic, from, to },
            ToDevice::Goaway { reason, retry_after_ms } => Self::Goaway {
                reason: reason.into_owned(),
                retry_after: retry_after_ms.map(Duration::from_millis),
            },
            ToDevice::Welcome { .. }
            | ToDevice::Pong { .. }
            | ToDevice::Ack { .. }
            | ToDevice::Error { .. } => return None,
        })
    }
}

// === impl Outcome ===

impl Outcome {
    /// It was done.
    pub fn succeeded(command_id: CommandId) -> Self {
        let status = ResultStatus::Succeeded;
        Self { command_id, status, payload: None, error: None, trace: None }
    }

    /// It was tried, and did not work.
    pub fn failed(command_id: CommandId, error: &str) -> Self {
        Self {
            status: ResultStatus::Failed,
            error: Some(error.into()),
            ..Self::succeeded(command_id)
        }
    }

    /// The device declines.
    pub fn rejected(command_id: CommandId, error: &str) -> Self {
        Self { status: ResultStatus::Rejected, ..Self::failed(command_id, error) }
    }

    /// The same with an answer.
    #[must_use]
    pub fn with_payload(mut self, payload: Option<Payload>) -> Self {
        self.payload = payload;
        self
    }

    /// The same as the end of a span of the device's.
    #[must_use]
    pub fn with_trace(mut self, trace: Option<TraceContext>) -> Self {
        self.trace = trace;
        self
    }
}
