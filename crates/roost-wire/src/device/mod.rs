//! The native device protocol as Rust values, whatever its encoding.
//!
//! Here: what a device may say ([`FromDevice`]), what the hub may say ([`ToDevice`]), and how a bad
//! message is refused ([`Reject`]). [`json`] reads and writes them. What a message does to a
//! session is in `roost-edge`; ids, topics, payloads and error codes are in `roost-types`.

mod from_device;
pub mod json;
mod to_device;

use std::borrow::Cow;

use roost_types::{CommandId, ErrorCode, HubError};

pub use self::from_device::{FromDevice, HelloSubscription, Token};
pub use self::to_device::{ToDevice, WelcomeLimits};

/// The WebSocket subprotocol of [`json`], also the default where a client asks for none.
pub const SUBPROTOCOL_JSON: &str = "roost.v1.json";
/// What stands before the base64url token in a subprotocol that carries a credential.
pub const SUBPROTOCOL_BEARER_PREFIX: &str = "roost.bearer.";

/// The bounds that decoding keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadLimits {
    /// The most decoded bytes of one payload.
    pub payload_bytes: usize,
    /// The most messages in one batch.
    pub batch: usize,
    /// The most levels of arrays and objects in one field's value.
    pub depth: usize,
}

/// Why one message was refused. The connection stays unless `fatal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The request's id, if it had a readable one.
    pub id: Option<u32>,
    /// The command it was about, if it named one.
    pub command_id: Option<CommandId>,
    /// Why, for machines.
    pub code: ErrorCode,
    /// What was wrong and what would be right.
    pub message: Cow<'static, str>,
    /// The field that was wrong.
    pub field: Option<Cow<'static, str>>,
    /// Send the error, then close with the code's close code (4400).
    pub fatal: bool,
}

// === impl PayloadLimits ===

impl PayloadLimits {
    /// The limits of the protocol with payloads to `payload_bytes`: 64 messages a batch, values
    /// nested 128 deep.
    pub const fn new(payload_bytes: usize) -> Self {
        Self { payload_bytes, batch: 64, depth: 128 }
    }
}

impl Default for PayloadLimits {
    /// Payloads to 65,536 bytes.
    fn default() -> Self {
        Self::new(65_536)
    }
}

// === impl Reject ===

impl Reject {
    /// A refusal that ends the connection: `BAD_MESSAGE`.
    pub(crate) fn fatal(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            id: None,
            command_id: None,
            code: ErrorCode::BadMessage,
            message: message.into(),
            field: None,
            fatal: true,
        }
    }

    /// A refusal of one message, the connection stays.
    pub(crate) fn of(id: Option<u32>, command_id: Option<CommandId>, error: HubError) -> Self {
        Self {
            id,
            command_id,
            code: error.code,
            message: error.message,
            field: error.field,
            fatal: false,
        }
    }

    /// The `error` message that answers it.
    pub fn into_error(self) -> ToDevice {
        ToDevice::Error {
            id: self.id,
            command_id: self.command_id,
            code: self.code.as_str().into(),
            message: self.message,
            field: self.field,
            retryable: self.code.retryable(),
        }
    }
}
