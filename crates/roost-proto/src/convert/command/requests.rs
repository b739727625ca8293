//! Requests about commands that are there: to list, follow and drive them again.

use roost_types::{CommandId, CommandState, DeviceId, UnixMillis};

use super::{CommandRef, Expiry, WatchCursor, command_state, max_attempts};
use crate::control::v1::{self, redrive_command_request};
use crate::convert::violation::Checks;
use crate::convert::{Violation, Violations, command_id, device_id, page_size, timestamp};

/// A checked `ListCommandsRequest`, but for its page token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListCommands {
    /// Whose.
    pub device: DeviceId,
    /// How many at the most.
    pub size: usize,
    /// Only those that stand here.
    pub state: Option<CommandState>,
    /// Only those accepted at this time or later.
    pub since: Option<UnixMillis>,
    /// Only those accepted before this time.
    pub until: Option<UnixMillis>,
}

/// A checked `ListDeadCommandsRequest`, but for its page token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListDead {
    /// Only those of this device.
    pub device: Option<DeviceId>,
    /// How many at the most.
    pub size: usize,
}

/// A checked `WatchCommandRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchCommand {
    /// Which command.
    pub target: CommandRef,
    /// What the caller has been told of it already.
    pub cursor: Option<WatchCursor>,
}

/// A checked `RedriveCommandRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// Which command.
    pub target: CommandRef,
    /// The id of the new command, where the caller chose one: not that of the old one.
    pub new_id: Option<CommandId>,
    /// When the new command is over.
    pub expires: UnixMillis,
    /// How many attempts it has; `None` is as many as the old one had.
    pub max_attempts: Option<u32>,
}

// === impl TryFrom … ===

impl TryFrom<&v1::ListCommandsRequest> for ListCommands {
    type Error = Violations;
    fn try_from(request: &v1::ListCommandsRequest) -> Result<Self, Violations> {
        let mut checks = Checks::default();
        let time = |time: Option<&prost_types::Timestamp>, field| {
            time.map(|time| timestamp(time, field)).transpose()
        };
        let device = checks.take(device_id(&request.device_id));
        let size = checks.take(page_size(request.page_size));
        let state = checks.take(command_state(request.state, "state"));
        let since = checks.take(time(request.since_time.as_ref(), "since_time"));
        let until = checks.take(time(request.until_time.as_ref(), "until_time"));
        let whole = || {
            Some(Self { device: device?, size: size?, state: state?, since: since?, until: until? })
        };
        let whole = whole();
        checks.finish(whole)
    }
}

impl TryFrom<&v1::ListDeadCommandsRequest> for ListDead {
    type Error = Violations;
    fn try_from(request: &v1::ListDeadCommandsRequest) -> Result<Self, Violations> {
        let mut checks = Checks::default();
        let given = Some(&request.device_id).filter(|id| !id.is_empty());
        let device = checks.take(given.map(|id| device_id(id)).transpose());
        let size = checks.take(page_size(request.page_size));
        checks.finish(device.zip(size).map(|(device, size)| Self { device, size }))
    }
}

impl TryFrom<&v1::WatchCommandRequest> for WatchCommand {
    type Error = Violations;
    fn try_from(request: &v1::WatchCommandRequest) -> Result<Self, Violations> {
        let mut checks = Checks::default();
        let device = checks.take(device_id(&request.device_id));
        let command = checks.take(command_id(&request.command_id));
        let cursor = checks.take(WatchCursor::from_field(&request.cursor));
        let whole = || {
            let target = CommandRef { device: device?, command: command? };
            Some(Self { target, cursor: cursor? })
        };
        let whole = whole();
        checks.finish(whole)
    }
}

// === impl Redrive ===

impl Redrive {
    /// Checks a request that came at `now`, by hub time.
    pub fn from_request(
        request: &v1::RedriveCommandRequest,
        now: UnixMillis,
    ) -> Result<Self, Violations> {
        use redrive_command_request::Expiry as Given;
        let mut checks = Checks::default();
        let device = checks.take(device_id(&request.device_id));
        let command = checks.take(command_id(&request.command_id));
        let new_id = checks.take(new_id(request));
        let expiry = match &request.expiry {
            None => Expiry::given_by(None),
            Some(Given::Ttl(ttl)) => Expiry::ttl(ttl),
            Some(Given::ExpireTime(time)) => Expiry::expire_time(time),
        };
        let expires = checks.take(expiry.and_then(|expiry| expiry.of(now)));
        let attempts = checks.take(max_attempts(request.max_attempts));
        let whole = || {
            let target = CommandRef { device: device?, command: command? };
            let max_attempts = Some(attempts?).filter(|most| *most > 0);
            Some(Self { target, new_id: new_id?, expires: expires?, max_attempts })
        };
        let whole = whole();
        checks.finish(whole)
    }
}

fn new_id(request: &v1::RedriveCommandRequest) -> Result<Option<CommandId>, Violation> {
    let given = &request.new_command_id;
    if given.is_empty() {
        return Ok(None);
    }
    if *given == request.command_id {
        let what = "is the id of the dead command; the new one needs another, or leave it out";
        return Err(Violation::invalid("new_command_id", what));
    }
    let id = command_id(given);
    id.map(Some).map_err(|violation| Violation { field: "new_command_id".to_owned(), ..violation })
}
