//! What makes a command acceptable: `SendCommandRequest`, alone and as a field of
//! `SendAndWatchCommandRequest`. The batch is in `batch.rs`.

use std::sync::Arc;
use std::time::Duration;

use roost_types::{CommandId, CommandSpec, CommandState, DeviceId, UnixMillis};

use super::{Expiry, MAX_NAME, command_state, is_plain, max_attempts};
use crate::control::v1;
use crate::convert::violation::Checks;
use crate::convert::{Violation, Violations, command_id, device_id, duration, headers, payload};

/// How long `SendCommand` waits where the caller names a state and no time.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// How long `SendCommand` waits at the most.
pub const MAX_WAIT: Duration = Duration::from_mins(5);

/// A checked `SendCommandRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendCommand {
    /// For whom.
    pub device: DeviceId,
    /// What is asked; the id is a new one where the caller gave none.
    pub spec: CommandSpec,
    /// What to wait for after it is accepted; `None` is nothing.
    pub wait: Option<Wait>,
    /// The least that the acceptance must survive, never unspecified; `None` is all that the hub gives.
    pub durability: Option<v1::Durability>,
}

/// What a caller wants to see before the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The state to reach; any terminal one ends the wait, see [`CommandState::satisfies`].
    pub until: CommandState,
    /// After which time to reply with the state reached.
    pub timeout: Duration,
}

/// A request for a command but for its device.
#[derive(Debug, Clone)]
pub(super) struct Body {
    /// With the expiry of a command that is accepted at the time of the check.
    pub(super) spec: CommandSpec,
    pub(super) expiry: Expiry,
    pub(super) wait: Option<Wait>,
    pub(super) durability: Option<v1::Durability>,
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
        let whole = Self::check(request, now, max_payload, &mut checks);
        checks.finish(whole)
    }

    fn check(
        request: v1::SendCommandRequest,
        now: UnixMillis,
        max_payload: usize,
        checks: &mut Checks,
    ) -> Option<Self> {
        let device = checks.take(device_id(&request.device_id));
        let body = Body::check(request, now, max_payload, checks);
        let (device, Body { spec, wait, durability, .. }) = device.zip(body)?;
        Some(Self { device, spec, wait, durability })
    }
}

/// Checks a `SendAndWatchCommandRequest`, see [`SendCommand::from_request`]: what it gives waits for
/// nothing.
pub fn send_and_watch(
    request: v1::SendAndWatchCommandRequest,
    now: UnixMillis,
    max_payload: usize,
) -> Result<SendCommand, Violations> {
    let Some(mut command) = request.command else {
        return Err(Violation::missing("command", "the command to send").into());
    };
    let mut inner = Checks::default();
    let until = std::mem::take(&mut command.wait_until);
    let timeout = command.wait_timeout.take();
    let whole = SendCommand::check(command, now, max_payload, &mut inner);
    let not_here =
        "is not allowed here: the stream tells of every state until the command has ended";
    if until != 0 {
        inner.note(Violation::invalid("wait_until", not_here));
    }
    if timeout.is_some() {
        inner.note(Violation::invalid("wait_timeout", not_here));
    }
    let mut checks = Checks::default();
    checks.note_within("command", inner);
    checks.finish(whole)
}

// === impl Body ===

impl Body {
    pub(super) fn check(
        request: v1::SendCommandRequest,
        now: UnixMillis,
        max_payload: usize,
        checks: &mut Checks,
    ) -> Option<Self> {
        let id = checks.take(given_or_new_id(&request.command_id));
        let name = checks.take(name(&request.name));
        let payload = checks.take(payload(request.payload, max_payload, "payload"));
        let headers = checks.take(headers(&request.headers, "headers"));
        let expiry = Expiry::given_by(request.expiry);
        let expiry = checks.take(expiry.and_then(|expiry| Ok((expiry, expiry.of(now)?))));
        let wait = checks.take(wait(request.wait_until, request.wait_timeout));
        let ordering_key = checks.take(ordering_key(&request.ordering_key));
        let max_attempts = checks.take(max_attempts(request.max_attempts));
        let durability = checks.take(durability(request.durability));
        let (expiry, expires) = expiry?;
        let spec = CommandSpec {
            id: id?,
            name: name?,
            payload: payload?,
            headers: headers?,
            ordering_key: ordering_key?,
            max_attempts: max_attempts?,
            expires,
            trace: None,
        };
        Some(Self { spec, expiry, wait: wait?, durability: durability? })
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
    if is_plain(text) {
        return Ok(text.into());
    }
    let what = format!(
        "has {} bytes; it must have 1 to {MAX_NAME} characters, no control characters among them",
        text.len()
    );
    Err(Violation::invalid("name", what))
}

fn ordering_key(text: &str) -> Result<Option<Arc<str>>, Violation> {
    if is_plain(text) {
        return Ok((!text.is_empty()).then(|| text.into()));
    }
    let what = format!(
        "has {} bytes; it must have 1 to {MAX_NAME} characters, no control characters among them, or be empty",
        text.len()
    );
    Err(Violation::invalid("ordering_key", what))
}

fn durability(value: i32) -> Result<Option<v1::Durability>, Violation> {
    match v1::Durability::try_from(value) {
        Ok(v1::Durability::Unspecified) => Ok(None),
        Ok(durability) => Ok(Some(durability)),
        Err(_) => {
            let what = format!("has the value {value}; this hub knows PROCESS (1) to FSYNC (4)");
            Err(Violation::invalid("durability", what))
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
