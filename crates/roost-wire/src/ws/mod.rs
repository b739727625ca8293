//! WebSocket frames (RFC 6455) without I/O: bytes in, events out, and back.
//!
//! Here: the vocabulary ([`Role`], [`Limits`], [`Opcode`], [`Event`]). [`Decoder`] reads, the
//! `encode_*` functions write, [`WsError`] says what a peer did wrong. Elsewhere: what a message
//! means (`crate::device`), the opening handshake, timers and sockets (`roost-edge`,
//! `roost-client`), and extensions such as permessage-deflate (hook: [`Rsv1`]).

mod decoder;
mod encode;
mod error;
mod header;
mod mask;
mod message;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use self::decoder::{Decoded, Decoder};
pub use self::encode::{
    FrameHead, encode_close, encode_header, encode_masked, encode_message, encode_ping,
    encode_pong, header_len,
};
pub use self::error::WsError;
pub use self::mask::apply_mask;

/// The most bytes a control frame (close, ping, pong) carries (RFC 6455 §5.5).
pub const MAX_CONTROL: usize = 125;

/// Which end of the connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads what a client sent: every frame must be masked.
    Server,
    /// Reads what a server sent: no frame may be masked.
    Client,
}

/// What to do with RSV1, the bit that extensions (permessage-deflate) use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rsv1 {
    /// No extension was negotiated: the bit is a protocol error.
    #[default]
    Refuse,
    /// An extension was negotiated: a message whose first frame has the bit arrives as
    /// [`Event::Extended`], its payload neither interpreted nor checked as UTF-8. On other
    /// frames the bit stays a protocol error.
    Allow,
}

/// The bounds a [`Decoder`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of one message over all its fragments. A header that announces more is
    /// refused before its payload arrives ([`WsError::MessageTooLarge`], 1009).
    pub max_message: usize,
    /// Whether an extension may use RSV1.
    pub rsv1: Rsv1,
}

// === impl Limits ===

impl Limits {
    /// Limits for a connection without extensions: messages to `max_message` bytes.
    pub const fn new(max_message: usize) -> Self {
        Self { max_message, rsv1: Rsv1::Refuse }
    }
}

/// What a frame is (RFC 6455 §5.2). The discriminant is the value on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message under way.
    Continuation = 0x0,
    /// A message in UTF-8, or its first fragment.
    Text = 0x1,
    /// A message of bytes, or its first fragment.
    Binary = 0x2,
    /// The closing handshake.
    Close = 0x8,
    /// A request for a pong with the same payload.
    Ping = 0x9,
    /// The answer to a ping, or an unasked sign of life.
    Pong = 0xA,
}

// === impl Opcode ===

impl Opcode {
    /// The opcode with this value on the wire; `None` for the reserved ones.
    pub const fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping or pong: short, whole, and allowed between the fragments of a message.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    /// The name used in errors: `text`, `ping`, …
    pub const fn name(self) -> &'static str {
        match self {
            Self::Continuation => "continuation",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Close => "close",
            Self::Ping => "ping",
            Self::Pong => "pong",
        }
    }
}

/// Whether a data message is text or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// Opcode 1.
    Text,
    /// Opcode 2.
    Binary,
}

/// What a [`Decoder`] found. The contents borrow from the caller's read buffer where the message
/// lay whole in it, and are owned where it came in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message, valid UTF-8.
    Text(Cow<'a, str>),
    /// A whole binary message.
    Binary(Cow<'a, [u8]>),
    /// A whole message whose first frame has RSV1 set ([`Rsv1::Allow`] only), for the extension
    /// to turn into text or bytes; text is not yet checked as UTF-8.
    Extended {
        /// What the message is once the extension has undone its work.
        kind: DataKind,
        /// The payload as it was sent, unmasked.
        payload: Cow<'a, [u8]>,
    },
    /// A ping, at most 125 bytes; answer with [`encode_pong`].
    Ping(Cow<'a, [u8]>),
    /// A pong, at most 125 bytes.
    Pong(Cow<'a, [u8]>),
    /// The peer closes; nothing after it is read.
    Close {
        /// `None` where the frame had no payload (1005 in the words of the RFC).
        code: Option<u16>,
        /// Empty where the peer gave none.
        reason: Cow<'a, str>,
    },
}

// === impl Event ===

impl Event<'_> {
    /// The same event, independent of the read buffer.
    pub fn into_owned(self) -> Event<'static> {
        let text = |s: Cow<'_, str>| Cow::Owned(s.into_owned());
        let bytes = |b: Cow<'_, [u8]>| Cow::Owned(b.into_owned());
        match self {
            Event::Text(s) => Event::Text(text(s)),
            Event::Binary(b) => Event::Binary(bytes(b)),
            Event::Extended { kind, payload } => Event::Extended { kind, payload: bytes(payload) },
            Event::Ping(b) => Event::Ping(bytes(b)),
            Event::Pong(b) => Event::Pong(bytes(b)),
            Event::Close { code, reason } => Event::Close { code, reason: text(reason) },
        }
    }
}
