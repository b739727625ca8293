//! What a peer did wrong on the WebSocket, in words, and the close code that says so.
//!
//! Errors of the device protocol inside the messages are in `crate::device`.

use super::{MAX_CONTROL, Opcode};

/// A breach of RFC 6455 or of a limit. The connection cannot go on: send a close frame with
/// [`WsError::close_code`] and stop reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WsError {
    /// RSV bits set without an extension that uses them.
    #[error(
        "reserved bits {bits:#05b} are set on a {} frame; no negotiated extension uses them here, so they must be 0",
        opcode.name()
    )]
    ReservedBits {
        /// RSV1, RSV2, RSV3 as the bits 4, 2, 1.
        bits: u8,
        /// The frame that has them.
        opcode: Opcode,
    },
    /// An opcode that RFC 6455 leaves undefined.
    #[error(
        "opcode {0:#03x} is reserved; use 0x1 (text), 0x2 (binary), 0x0 (continuation), 0x8 (close), 0x9 (ping) or 0xa (pong)"
    )]
    ReservedOpcode(u8),
    /// A client frame without a mask.
    #[error("a {} frame from the client is not masked; clients must mask every frame", .0.name())]
    MaskMissing(Opcode),
    /// A server frame with a mask.
    #[error("a {} frame from the server is masked; servers must not mask", .0.name())]
    MaskForbidden(Opcode),
    /// A length in more bytes than it needs.
    #[error(
        "payload length {len} is written in {bytes} bytes; the shortest of 7 bits (to 125), 2 bytes (to 65535) and 8 bytes must be used"
    )]
    LengthNotMinimal {
        /// The length announced.
        len: u64,
        /// The bytes it was written in: 2 or 8.
        bytes: u8,
    },
    /// A 64-bit length with its highest bit set.
    #[error("payload length {0:#x} has its highest bit set; a 64-bit length must leave it 0")]
    LengthOutOfRange(u64),
    /// A control frame over 125 bytes.
    #[error("a {} frame announces more than {MAX_CONTROL} bytes, the most a control frame carries", .0.name())]
    ControlTooLong(Opcode),
    /// A control frame without FIN.
    #[error("a {} frame has FIN = 0; control frames must not be fragmented", .0.name())]
    ControlFragmented(Opcode),
    /// A continuation frame with nothing to continue.
    #[error(
        "a continuation frame came with no message under way; begin a message with a text or binary frame"
    )]
    ContinuationWithoutStart,
    /// A text or binary frame while a fragmented message is under way.
    #[error(
        "a {} frame came inside a fragmented message; its further fragments must be continuation frames", .0.name()
    )]
    DataInsideMessage(Opcode),
    /// The message is, or is announced to become, too long.
    #[error("the message has at least {size} bytes; at most {max} are taken")]
    MessageTooLarge {
        /// Bytes announced so far over all fragments.
        size: u64,
        /// The limit, [`super::Limits::max_message`].
        max: usize,
    },
    /// A text message that is not UTF-8.
    #[error(
        "the text message is not valid UTF-8 at byte {at}; send text as UTF-8, or bytes in a binary message"
    )]
    TextNotUtf8 {
        /// Bytes of the message before the bad sequence.
        at: usize,
    },
    /// A close frame with a payload of one byte.
    #[error(
        "a close frame carries 1 byte; its payload is empty or starts with a code in two bytes"
    )]
    CloseTooShort,
    /// A close code that must not be sent.
    #[error("close code {0} must not be sent; use 1000 to 1003, 1007 to 1014, or 3000 to 4999")]
    CloseCode(u16),
    /// A close reason that is not UTF-8.
    #[error("the reason in a close frame is not valid UTF-8")]
    CloseReasonNotUtf8,
}

// === impl WsError ===

impl WsError {
    /// The close code to answer with: 1007 bad UTF-8, 1009 too large, 1002 all else.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::MessageTooLarge { .. } => 1009,
            Self::TextNotUtf8 { .. } | Self::CloseReasonNotUtf8 => 1007,
            _ => 1002,
        }
    }
}
