//! What happened to a device lately: the entries of its history. Who keeps them is each store; who
//! asks is `roost-control`.

use std::sync::Arc;

use roost_types::{CommandId, CommandState, SessionId, UnixMillis};

use crate::{LastClose, NodeRef};

/// One thing that happened to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// When, by hub time.
    pub time: UnixMillis,
    /// What.
    pub event: HistoryEvent,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryEvent {
    /// It got a session where it had none.
    Connected {
        /// The session.
        session: SessionId,
        /// Where it is.
        node: NodeRef,
        /// The subprotocol spoken.
        protocol: Arc<str>,
        /// The peer's address.
        address: Arc<str>,
    },
    /// A new session replaced another one.
    TakenOver {
        /// The session that won.
        session: SessionId,
        /// Where it is.
        node: NodeRef,
        /// The subprotocol spoken.
        protocol: Arc<str>,
        /// The peer's address.
        address: Arc<str>,
        /// The session that lost.
        replaced: SessionId,
    },
    /// A session that the store had lost was given back.
    Reclaimed {
        /// The session.
        session: SessionId,
        /// Where it is.
        node: NodeRef,
        /// The session that was found in its place, and lost.
        replaced: Option<SessionId>,
    },
    /// Its session ended.
    Disconnected {
        /// The session.
        session: SessionId,
        /// How.
        close: LastClose,
    },
    /// A command reached a state.
    Command {
        /// Which.
        id: CommandId,
        /// The state.
        state: CommandState,
        /// The session that it was handed to, or that reported it; `None` where none had a part in it.
        session: Option<SessionId>,
    },
    /// Its edge refused something that it sent.
    Refused {
        /// On which session.
        session: SessionId,
        /// What.
        refusal: Refusal,
    },
}

/// Something that a device was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it tried: `publish`, `subscribe`.
    pub what: Arc<str>,
    /// The error code that it was told: `TOPIC_FORBIDDEN`.
    pub code: Arc<str>,
    /// What it was about, a topic say; at most 128 bytes are kept.
    pub about: Arc<str>,
}
