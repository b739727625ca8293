//! What a device may say. Reading it is in `json/read_device.rs`, what it does in `roost-edge`.

use std::fmt;
use std::sync::Arc;

use roost_types::{
    CommandId, Headers, Payload, Position, Qos, ResultStatus, Topic, TopicFilter, TraceContext,
};

#[cfg(doc)]
use super::json;

/// What a device says to the hub. An `id` is the device's own number for a request; the hub's
/// `ack` or `error` repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromDevice {
    /// The first message of a connection.
    Hello {
        /// Repeated by an `error`; a `welcome` has none.
        id: Option<u32>,
        /// The longest silence in ms that the device wishes to keep; the hub decides and says so
        /// in `welcome`. `None` leaves it to the hub.
        keepalive_ms: Option<u32>,
        /// A credential, where none came with the handshake.
        token: Option<Token>,
        /// What to subscribe to at once.
        subscriptions: Vec<HelloSubscription>,
        /// Optional abilities of this client; the hub ignores those it does not know.
        features: Vec<String>,
    },
    /// Asks for the messages of a topic.
    Subscribe {
        /// See [`FromDevice`].
        id: Option<u32>,
        /// Which topics; may have wildcards.
        topic: TopicFilter,
        /// How hard the hub tries.
        qos: Qos,
        /// The last position seen, to get what came after it.
        position: Option<Position>,
    },
    /// Ends a subscription, by the same filter.
    Unsubscribe {
        /// See [`FromDevice`].
        id: Option<u32>,
        /// The filter as it was subscribed.
        topic: TopicFilter,
    },
    /// Publishes one message.
    Publish {
        /// See [`FromDevice`].
        id: Option<u32>,
        /// Where to.
        topic: Topic,
        /// What.
        payload: Payload,
        /// How hard the hub tries.
        qos: Qos,
        /// What travels with it; at most [`json::MAX_HEADERS`].
        headers: Headers,
    },
    /// The device has a command.
    Received {
        /// See [`FromDevice`].
        id: Option<u32>,
        /// Which command.
        command_id: CommandId,
    },
    /// The device works on a command.
    Progress {
        /// See [`FromDevice`].
        id: Option<u32>,
        /// Which command.
        command_id: CommandId,
        /// 0 to 100; `None` where the device cannot tell.
        percent: Option<u8>,
        /// What it is doing, at most [`json::MAX_NOTE_BYTES`].
        note: Option<Arc<str>>,
    },
    /// A command ended; resent until acknowledged.
    Result {
        /// See [`FromDevice`].
        id: Option<u32>,
        /// Which command.
        command_id: CommandId,
        /// How it ended.
        status: ResultStatus,
        /// What the device answers, if anything.
        payload: Option<Payload>,
        /// What went wrong, at most [`json::MAX_ERROR_BYTES`].
        error: Option<Arc<str>>,
        /// The span of the device's that led to it, where it takes part in the command's trace.
        trace: Option<TraceContext>,
    },
    /// Asks for a `pong`.
    Ping {
        /// See [`FromDevice`].
        id: Option<u32>,
    },
}

/// One subscription in a `hello`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloSubscription {
    /// Which topics; may have wildcards.
    pub topic: TopicFilter,
    /// How hard the hub tries.
    pub qos: Qos,
    /// The last position seen, to get what came after it.
    pub position: Option<Position>,
}

/// A credential as the device sent it. Its text never shows in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

// === impl FromDevice ===

impl FromDevice {
    /// The `hello` that `?hello=auto` implies: all defaults.
    pub const fn default_hello() -> Self {
        Self::Hello {
            id: None,
            keepalive_ms: None,
            token: None,
            subscriptions: Vec::new(),
            features: Vec::new(),
        }
    }

    /// The request's id, if it has one.
    pub const fn id(&self) -> Option<u32> {
        match self {
            Self::Hello { id, .. }
            | Self::Subscribe { id, .. }
            | Self::Unsubscribe { id, .. }
            | Self::Publish { id, .. }
            | Self::Received { id, .. }
            | Self::Progress { id, .. }
            | Self::Result { id, .. }
            | Self::Ping { id } => *id,
        }
    }

    /// The command it is about, if it is about one.
    pub const fn command_id(&self) -> Option<&CommandId> {
        match self {
            Self::Received { command_id, .. }
            | Self::Progress { command_id, .. }
            | Self::Result { command_id, .. } => Some(command_id),
            _ => None,
        }
    }

    /// Its `type`, as on the wire and in metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Subscribe { .. } => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::Publish { .. } => "publish",
            Self::Received { .. } => "received",
            Self::Progress { .. } => "progress",
            Self::Result { .. } => "result",
            Self::Ping { .. } => "ping",
        }
    }
}

// === impl Token ===

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
