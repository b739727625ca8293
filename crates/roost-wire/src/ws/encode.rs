//! Writing frames. Server frames are not masked, client frames are.
//!
//! A whole frame is one allocation, so that a `Bytes` can be shared by every subscriber.

use bytes::{BufMut, Bytes, BytesMut};

use super::{MAX_CONTROL, Opcode, apply_mask};

/// Everything of a frame header but the length, for callers that fragment or mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Last (or only) frame of its message.
    pub fin: bool,
    /// The extension bit; only on the first frame of a message, only where negotiated.
    pub rsv1: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key: clients must have one, servers must not.
    pub mask: Option<[u8; 4]>,
}

// === impl FrameHead ===

impl FrameHead {
    /// A whole, unmasked message or control frame.
    pub const fn server(opcode: Opcode) -> Self {
        Self { fin: true, rsv1: false, opcode, mask: None }
    }

    /// The bytes of this header before a payload of `len` bytes.
    pub const fn size(self, len: usize) -> usize {
        let mask = if self.mask.is_some() { 4 } else { 0 };
        mask + match len {
            0..126 => 2,
            126..65_536 => 4,
            _ => 10,
        }
    }

    /// Writes the header for a payload of `len` bytes; the payload must follow, masked with the
    /// key where there is one.
    pub fn write(self, len: usize, out: &mut impl BufMut) {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        out.put_u8(bit(self.fin, 0x80) | bit(self.rsv1, 0x40) | self.opcode as u8);
        let masked = bit(self.mask.is_some(), 0x80);
        if let Ok(short @ 0..126) = u8::try_from(len) {
            out.put_u8(masked | short);
        } else if let Ok(medium) = u16::try_from(len) {
            out.put_u8(masked | 0x7e);
            out.put_u16(medium);
        } else {
            out.put_u8(masked | 0x7f);
            out.put_u64(len as u64);
        }
        if let Some(key) = self.mask {
            out.put_slice(&key);
        }
    }

    /// Writes the whole frame, masking a copy of `payload` where there is a key.
    pub fn write_frame(self, payload: &[u8], out: &mut BytesMut) {
        out.reserve(self.size(payload.len()) + payload.len());
        self.write(payload.len(), out);
        let start = out.len();
        out.put_slice(payload);
        if let Some(key) = self.mask {
            apply_mask(&mut out[start..], key);
        }
    }

    /// The whole frame as one allocation of exactly its size.
    pub fn frame(self, payload: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        self.write_frame(payload, &mut out);
        out.freeze()
    }
}

/// The size of an unmasked header before a payload of `len` bytes: 2, 4 or 10.
pub const fn header_len(len: usize) -> usize {
    FrameHead::server(Opcode::Text).size(len)
}

/// Writes the header of a whole, unmasked frame; `len` bytes of payload must follow.
pub fn encode_header(opcode: Opcode, len: usize, out: &mut impl BufMut) {
    FrameHead::server(opcode).write(len, out);
}

/// A whole, unmasked message: header and payload in one allocation.
pub fn encode_message(opcode: Opcode, payload: &[u8]) -> Bytes {
    FrameHead::server(opcode).frame(payload)
}

/// A whole message as a client sends it, masked with `key` (which should be random).
pub fn encode_masked(opcode: Opcode, payload: &[u8], key: [u8; 4]) -> Bytes {
    FrameHead { mask: Some(key), ..FrameHead::server(opcode) }.frame(payload)
}

/// An unmasked close frame. A reason over 123 bytes is cut at the last whole character that fits.
pub fn encode_close(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL - 2)];
    let mut out = BytesMut::with_capacity(4 + reason.len());
    encode_header(Opcode::Close, 2 + reason.len(), &mut out);
    out.put_u16(code);
    out.put_slice(reason.as_bytes());
    out.freeze()
}

/// An unmasked ping. Only the first 125 bytes of `payload` are sent: a control frame has no room
/// for more.
pub fn encode_ping(payload: &[u8]) -> Bytes {
    encode_message(Opcode::Ping, cut(payload))
}

/// An unmasked pong with the ping's payload (its first 125 bytes; a ping never has more).
pub fn encode_pong(payload: &[u8]) -> Bytes {
    encode_message(Opcode::Pong, cut(payload))
}

fn cut(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(MAX_CONTROL)]
}
