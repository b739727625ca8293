//! What the hub may say to a device. Writing it is in `json/write_message.rs`.

use std::borrow::Cow;
use std::sync::Arc;

use roost_types::{
    CommandId, DeviceId, Headers, HubError, Message, Payload, Position, SessionId, TopicFilter,
    UnixMillis,
};

#[cfg(doc)]
use super::json;
#[cfg(doc)]
use roost_types::ErrorCode;

/// What the hub says to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToDevice {
    /// The answer to `hello`: the session is claimed.
    Welcome {
        /// Who the device is, as authenticated.
        device_id: DeviceId,
        /// The session, for support and logs.
        session_id: SessionId,
        /// Hub time.
        time_ms: UnixMillis,
        /// The silence in ms after which the hub pings.
        keepalive_ms: u32,
        /// What the hub takes.
        limits: WelcomeLimits,
    },
    /// A request was done.
    Ack {
        /// The request's id, if it had one.
        id: Option<u32>,
        /// The command, where the request was about one.
        command_id: Option<CommandId>,
        /// Where a publication stands in its topic's log, where one is kept.
        position: Option<Position>,
    },
    /// A publication the device has subscribed to. For fan-out use
    /// [`json::message_frame`], which borrows it.
    Message(Message),
    /// An instruction to the device.
    Command {
        /// Its id; a redelivery has the same.
        command_id: CommandId,
        /// What to do.
        name: Arc<str>,
        /// With what.
        payload: Option<Payload>,
        /// What travels with it.
        headers: Headers,
        /// When it is over, by hub time.
        expires_ms: UnixMillis,
        /// How long that was, in ms, when the frame was written.
        expires_in_ms: u64,
        /// How often it was handed to a session, this time included.
        attempt: u32,
    },
    /// The caller no longer wants a command done.
    Cancel {
        /// Which command.
        command_id: CommandId,
    },
    /// A request was refused, or the connection is about to be closed.
    Error {
        /// The request's id, if it had one.
        id: Option<u32>,
        /// The command, where the request was about one.
        command_id: Option<CommandId>,
        /// An [`ErrorCode`] by name; as text, since a newer hub may know more of them.
        code: Cow<'static, str>,
        /// What was wrong and what would be right.
        message: Cow<'static, str>,
        /// The field of the request that was wrong.
        field: Option<Cow<'static, str>>,
        /// Whether the same request may succeed later.
        retryable: bool,
    },
    /// Messages of a subscription are missing.
    Gap {
        /// The topic or filter.
        topic: TopicFilter,
        /// The first position missing, where it is known.
        from: Option<Position>,
        /// The last position missing, where it is known.
        to: Option<Position>,
    },
    /// The hub is about to close the connection.
    Goaway {
        /// Why: `draining`, say.
        reason: Cow<'static, str>,
        /// How long to wait before connecting again, in ms.
        retry_after_ms: Option<u64>,
    },
    /// The answer to `ping`.
    Pong {
        /// The ping's id, if it had one.
        id: Option<u32>,
        /// Hub time.
        time_ms: UnixMillis,
    },
}

/// What the hub takes, as `welcome` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WelcomeLimits {
    /// The most decoded bytes of one payload.
    pub payload_bytes: u64,
    /// The most bytes of one WebSocket message.
    pub frame_bytes: u64,
}

// === impl ToDevice ===

impl ToDevice {
    /// The `error` that tells a device of `error`, in answer to the request `id`.
    pub fn error(id: Option<u32>, error: HubError) -> Self {
        Self::Error {
            id,
            command_id: None,
            code: error.code.as_str().into(),
            retryable: error.code.retryable(),
            message: error.message,
            field: error.field,
        }
    }
}
