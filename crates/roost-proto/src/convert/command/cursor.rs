//! Where a watch of a command stands, as an opaque string: `1.CREATED.REVISION.STATE`.

use std::fmt;

use roost_types::{Command, CommandState, ErrorCode, UnixMillis};

use crate::convert::Violation;

/// What the form of this version begins with; another one would be refused.
const VERSION: &str = "1";

/// What a watcher has been told of a command last.
///
/// The revision counts what happened to the record. The state is there for what is true without any
/// change of it: that the command is queued again, its session being lost, or over, its time having
/// come. The time of acceptance tells two commands of one id apart, should the record of the first
/// have outlived its retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchCursor {
    created: UnixMillis,
    revision: u64,
    state: CommandState,
}

// === impl WatchCursor ===

impl WatchCursor {
    /// The cursor of who has been told of the command as it is here.
    pub fn of(command: &Command) -> Self {
        let Command { created, revision, state, .. } = *command;
        Self { created, revision, state }
    }

    /// The field `cursor`; empty is none.
    pub(super) fn from_field(text: &str) -> Result<Option<Self>, Violation> {
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = Self::parse(text).ok_or_else(|| {
            let what =
                "is not one that this hub gave; leave it out to begin with the command as it is";
            Violation::new(ErrorCode::CursorInvalid, "cursor", what)
        });
        parsed.map(Some)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (version, created, revision, state) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != VERSION || parts.next().is_some() {
            return None;
        }
        Some(Self {
            created: UnixMillis(created.parse().ok()?),
            revision: revision.parse().ok()?,
            state: CommandState::parse(state)?,
        })
    }
}

impl fmt::Display for WatchCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { created, revision, state } = self;
        write!(f, "{VERSION}.{}.{revision}.{}", created.0, state.as_str())
    }
}
