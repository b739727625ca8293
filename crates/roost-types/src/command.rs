//! A command: what a back end asked, where it stands, and which step may follow which.
//! Storage and delivery are in `roost-cluster` and its implementations.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::{CommandId, DeviceKey, Headers, Payload, SessionId, TraceContext, UnixMillis};

/// How long a command lives where the caller says nothing.
pub const DEFAULT_TTL: Duration = Duration::from_secs(60);
/// How long a command may live at most.
pub const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many attempts a caller may allow at most.
pub const MAX_ATTEMPTS: u32 = 1_000;

/// Where a command stands.
///
/// Ordered by progress: a command only ever moves to a later state, except that a lost session
/// puts an unfinished one back to `Queued`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CommandState {
    /// Waits in the mailbox.
    Queued,
    /// On its way to the session that it names.
    Dispatched,
    /// Accepted by the device's socket.
    Sent,
    /// The device says that it has it.
    Received,
    /// The device says that it works on it.
    Running,
    /// Terminal: the device did it.
    Succeeded,
    /// Terminal: the device tried and failed.
    Failed,
    /// Terminal: the device declined.
    Rejected,
    /// Terminal: its time was over first.
    Expired,
    /// Terminal: cancelled before it was dispatched.
    Cancelled,
    /// Terminal: given up after the attempts that the caller allowed.
    Dead,
}

impl CommandState {
    /// Every state once, in order.
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Dispatched,
        Self::Sent,
        Self::Received,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Rejected,
        Self::Expired,
        Self::Cancelled,
        Self::Dead,
    ];

    /// Whether nothing can follow.
    pub fn is_terminal(self) -> bool {
        self >= Self::Succeeded
    }

    /// Whether a command that stands here may move to `next`.
    pub fn may_become(self, next: Self) -> bool {
        !self.is_terminal() && next > self
    }

    /// Whether a caller that waits for `wanted` is content here: it is reached, passed or out of reach.
    pub fn satisfies(self, wanted: Self) -> bool {
        self.is_terminal() || self >= wanted
    }

    /// `QUEUED`, as people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Dispatched => "DISPATCHED",
            Self::Sent => "SENT",
            Self::Received => "RECEIVED",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Rejected => "REJECTED",
            Self::Expired => "EXPIRED",
            Self::Cancelled => "CANCELLED",
            Self::Dead => "DEAD",
        }
    }

    /// The state of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// How a device says that a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResultStatus {
    /// It did it.
    Succeeded,
    /// It tried and failed.
    Failed,
    /// It declined.
    Rejected,
}

impl ResultStatus {
    /// The state that this puts the command in.
    pub fn state(self) -> CommandState {
        match self {
            Self::Succeeded => CommandState::Succeeded,
            Self::Failed => CommandState::Failed,
            Self::Rejected => CommandState::Rejected,
        }
    }
}

/// What a device reported while it worked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// 0 to 100; `None` where the device cannot tell.
    pub percent: Option<u8>,
    /// What it is doing, in its words.
    pub note: Option<Arc<str>>,
    /// When the hub learned of it.
    pub time: UnixMillis,
}

/// How a command ended, in the device's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResult {
    /// Succeeded, failed or rejected.
    pub status: ResultStatus,
    /// What it answered, if anything.
    pub payload: Option<Payload>,
    /// What went wrong, where it failed or was rejected.
    pub error: Option<Arc<str>>,
    /// The store had no room for the payload: the device answered more than is kept.
    pub payload_dropped: bool,
}

impl CommandResult {
    /// A result without payload or error.
    pub fn new(status: ResultStatus) -> Self {
        Self { status, payload: None, error: None, payload_dropped: false }
    }
}

/// What a device said of a command that had ended already: kept beside the end, which it does not
/// change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateResult {
    /// The last of them.
    pub result: CommandResult,
    /// When it reached the hub.
    pub time: UnixMillis,
    /// How many there were that differ from what was recorded before each.
    pub count: u32,
}

/// One step that a command took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state that it reached.
    pub state: CommandState,
    /// When, by hub time.
    pub time: UnixMillis,
}

/// What a back end asks of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    /// Unique within the device: the idempotency key.
    pub id: CommandId,
    /// What to do, in the device's vocabulary: 1 to 128 characters.
    pub name: Arc<str>,
    /// With what.
    pub payload: Option<Payload>,
    /// What travels with it.
    pub headers: Headers,
    /// Within which its first delivery keeps its place; `None` for the device's one order.
    pub ordering_key: Option<Arc<str>>,
    /// How many attempts it has before it is given up as `Dead`; 0 for as many as its time allows.
    pub max_attempts: u32,
    /// When it is over, by hub time.
    pub expires: UnixMillis,
    /// The recorded trace that it belongs to, if any: what happened last on its way to the device. No
    /// part of what is asked.
    pub trace: Option<TraceContext>,
}

impl CommandSpec {
    /// A command without payload, headers, ordering key or bound on its attempts.
    pub fn new(id: CommandId, name: impl Into<Arc<str>>, expires: UnixMillis) -> Self {
        Self {
            id,
            name: name.into(),
            payload: None,
            headers: Headers::new(),
            ordering_key: None,
            max_attempts: 0,
            expires,
            trace: None,
        }
    }

    /// A digest of what is asked: two specs with one id and one digest are the same command.
    ///
    /// The expiry is left out, since a retry with the same `ttl` computes another one; so is the trace,
    /// since each call has its own.
    pub fn digest(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(self.name.as_bytes());
        if let Some(payload) = &self.payload {
            part(payload.content_type().as_bytes());
            part(payload.data());
        }
        for (name, value) in &self.headers {
            part(name.as_bytes());
            part(value.as_bytes());
        }
        // Left out where they are not given: the digest of a plain command is as it always was.
        if let Some(key) = &self.ordering_key {
            part(b"ordering_key");
            part(key.as_bytes());
        }
        if self.max_attempts > 0 {
            part(b"max_attempts");
            part(&self.max_attempts.to_be_bytes());
        }
        let whole: [u8; 32] = hash.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&whole[..16]);
        half
    }
}

/// A command as the hub keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// For whom.
    pub device: DeviceKey,
    /// What was asked.
    pub spec: CommandSpec,
    /// Its place in the device's order; grows by acceptance, has holes.
    pub seq: u64,
    /// Where it stands.
    pub state: CommandState,
    /// Which attempt this is; 0 before the first. A new one begins where a session was lost after the
    /// device had received the command, or while it was the oldest that the device had not
    /// acknowledged; what was only on its way is handed out again under the same number.
    pub attempt: u32,
    /// The session that it was handed to last.
    pub session: Option<SessionId>,
    /// When it was accepted.
    pub created: UnixMillis,
    /// Every step that it took, the first being `Queued`.
    pub transitions: Vec<Transition>,
    /// The device's last report.
    pub progress: Option<Progress>,
    /// How it ended, where a device ended it.
    pub result: Option<CommandResult>,
    /// What the device said after the end.
    pub late: Option<LateResult>,
    /// The command that took its place, where it was dead and driven again.
    pub redriven_as: Option<CommandId>,
    /// Grows with every change of the record.
    pub revision: u64,
}

impl Command {
    /// When it last changed its state.
    pub fn updated(&self) -> UnixMillis {
        self.transitions.last().map_or(self.created, |step| step.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Text;

    fn spec(name: &str, payload: Option<Payload>) -> CommandSpec {
        CommandSpec {
            payload,
            ..CommandSpec::new(CommandId::new("c1").unwrap(), name, UnixMillis(1))
        }
    }

    #[test]
    fn states_only_move_forward_and_a_terminal_one_is_final() {
        use CommandState as S;
        for from in S::ALL {
            for to in S::ALL {
                assert_eq!(from.may_become(to), !from.is_terminal() && to > from);
            }
            assert_eq!(S::parse(from.as_str()), Some(from));
        }
        assert!(S::Expired.satisfies(S::Succeeded));
        assert!(!S::Sent.satisfies(S::Received));
    }

    #[test]
    fn the_digest_tells_bodies_apart_but_not_expiries() {
        let json = |text: &str| Some(Payload::json(Text::from(text)));
        let one = spec("reboot", json("{}"));
        let mut later = one.clone();
        later.expires = UnixMillis(99);
        later.trace = TraceContext::from_bytes(&[1; 25]);
        assert_eq!(one.digest(), later.digest());
        assert_ne!(one.digest(), spec("reboot", json("{ }")).digest());
        assert_ne!(one.digest(), spec("reboot", None).digest());
        assert_ne!(one.digest(), spec("reboot{}", None).digest());
        assert_ne!(one.digest(), spec("reboot", Some(Payload::text("{}".into()))).digest());
        let keyed = CommandSpec { ordering_key: Some("k".into()), ..one.clone() };
        let bounded = CommandSpec { max_attempts: 3, ..one.clone() };
        assert_ne!(one.digest(), keyed.digest());
        assert_ne!(one.digest(), bounded.digest());
    }
}
