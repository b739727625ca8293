//! Commands: requests checked on the way in (`send.rs`, `batch.rs`, `requests.rs`, `cursor.rs`),
//! records shown on the way out (`shown.rs`). Here is what the requests have in common.

use std::time::Duration;

use roost_types::{CommandId, CommandState, DEFAULT_TTL, DeviceId, MAX_TTL, UnixMillis};

use super::violation::Checks;
use super::{Violation, Violations, command_id, device_id, duration, timestamp};
use crate::control::v1;

mod batch;
mod cursor;
mod requests;
mod send;
mod shown;
#[cfg(test)]
mod tests;

pub use batch::{BatchSend, MAX_BATCH};
pub use cursor::WatchCursor;
pub use requests::{ListCommands, ListDead, Redrive, WatchCommand};
pub use send::{DEFAULT_WAIT, MAX_WAIT, SendCommand, Wait, send_and_watch};

/// The most characters that a command's name or ordering key may have.
const MAX_NAME: usize = 128;

/// Which command a call is about: a checked `GetCommandRequest` or `CancelCommandRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRef {
    /// For whom it is.
    pub device: DeviceId,
    /// Its id, unique within the device.
    pub command: CommandId,
}

/// When a command ends unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    /// At this time.
    At(UnixMillis),
    /// This long after it is accepted.
    After(Duration),
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

// === impl Expiry ===

impl Expiry {
    fn given_by(expiry: Option<v1::send_command_request::Expiry>) -> Result<Self, Violation> {
        use v1::send_command_request::Expiry as Given;
        match expiry {
            None => Ok(Self::After(DEFAULT_TTL)),
            Some(Given::Ttl(ttl)) => Self::ttl(&ttl),
            Some(Given::ExpireTime(time)) => Self::expire_time(&time),
        }
    }

    fn ttl(ttl: &prost_types::Duration) -> Result<Self, Violation> {
        Ok(Self::After(duration(ttl, MAX_TTL, "ttl")?))
    }

    fn expire_time(time: &prost_types::Timestamp) -> Result<Self, Violation> {
        Ok(Self::At(timestamp(time, "expire_time")?))
    }

    /// The end of a command that is accepted at `now`.
    fn of(self, now: UnixMillis) -> Result<UnixMillis, Violation> {
        let time = match self {
            Self::After(ttl) => return Ok(now.plus(ttl)),
            Self::At(time) => time,
        };
        if time > now && time <= now.plus(MAX_TTL) {
            return Ok(time);
        }
        let what = format!(
            "is {time} by hub time, where it is {now} now; it must be later than that, by 7 days at most"
        );
        Err(Violation::invalid("expire_time", what))
    }
}

/// Whether a name or ordering key has at most 128 characters and no control characters among them.
fn is_plain(text: &str) -> bool {
    // Bytes first: characters of a hostile megabyte need not be counted.
    let fits = text.len() <= 4 * MAX_NAME && text.chars().count() <= MAX_NAME;
    fits && !text.chars().any(char::is_control)
}

fn max_attempts(value: u32) -> Result<u32, Violation> {
    if value <= roost_types::MAX_ATTEMPTS {
        return Ok(value);
    }
    let what = format!(
        "is {value}; it must be 1 to {}, or 0 for as many as its time allows",
        roost_types::MAX_ATTEMPTS
    );
    Err(Violation::invalid("max_attempts", what))
}

/// A state from outside; unspecified is none.
fn command_state(value: i32, field: &str) -> Result<Option<CommandState>, Violation> {
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
