//! Reading one frame header: every rule that can be checked before the payload, each at the
//! first byte that breaks it. Payload rules (UTF-8, close codes) are in `message.rs`.

use super::{Limits, MAX_CONTROL, Opcode, Role, Rsv1, WsError};

/// The longest header: 2 bytes, 8 of length, 4 of mask.
pub(super) const MAX_HEADER: usize = 14;

/// A header that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) rsv1: bool,
    pub(super) opcode: Opcode,
    /// Payload bytes; at most `max_message`, or 125 for a control frame.
    pub(super) len: usize,
    /// The key; zeros (which change nothing) where the frame is not masked.
    pub(super) mask: [u8; 4],
}

/// What the checks depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub(super) role: Role,
    pub(super) limits: Limits,
    /// Bytes so far of the fragmented message under way, `None` where there is none.
    pub(super) message: Option<usize>,
}

/// Reads the header at the start of `bytes`: the header and its size, or `None` where more bytes
/// are needed. What has arrived is checked even then.
pub(super) fn parse(bytes: &[u8], cx: Context) -> Result<Option<(Header, usize)>, WsError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    let opcode = check_first(first, cx)?;
    let Some(&second) = bytes.get(1) else {
        return Ok(None);
    };
    let masked = check_second(second, opcode, cx.role)?;
    let Some((len, after_len)) = read_length(second & 0x7f, &bytes[2..])? else {
        return Ok(None);
    };
    let len = check_size(len, opcode, cx)?;
    let mut used = 2 + after_len;
    let mut mask = [0; 4];
    if masked {
        let Some(key) = bytes[used..].first_chunk::<4>() else {
            return Ok(None);
        };
        mask = *key;
        used += 4;
    }
    let header = Header { fin: first & 0x80 != 0, rsv1: first & 0x40 != 0, opcode, len, mask };
    Ok(Some((header, used)))
}

fn check_first(byte: u8, cx: Context) -> Result<Opcode, WsError> {
    let opcode = Opcode::from_wire(byte & 0x0f).ok_or(WsError::ReservedOpcode(byte & 0x0f))?;
    let bits = (byte >> 4) & 0b111;
    let extended = cx.limits.rsv1 == Rsv1::Allow && matches!(opcode, Opcode::Text | Opcode::Binary);
    if bits & 0b011 != 0 || (bits != 0 && !extended) {
        return Err(WsError::ReservedBits { bits, opcode });
    }
    let fin = byte & 0x80 != 0;
    match (opcode, cx.message) {
        (Opcode::Continuation, None) => Err(WsError::ContinuationWithoutStart),
        (Opcode::Text | Opcode::Binary, Some(_)) => Err(WsError::DataInsideMessage(opcode)),
        _ if opcode.is_control() && !fin => Err(WsError::ControlFragmented(opcode)),
        _ => Ok(opcode),
    }
}

fn check_second(byte: u8, opcode: Opcode, role: Role) -> Result<bool, WsError> {
    let masked = byte & 0x80 != 0;
    match role {
        Role::Server if !masked => return Err(WsError::MaskMissing(opcode)),
        Role::Client if masked => return Err(WsError::MaskForbidden(opcode)),
        _ => {}
    }
    let len = byte & 0x7f;
    if opcode.is_control() && usize::from(len) > MAX_CONTROL {
        return Err(WsError::ControlTooLong(opcode));
    }
    if opcode == Opcode::Close && len == 1 {
        return Err(WsError::CloseTooShort);
    }
    Ok(masked)
}

/// The payload length and the bytes it took after the first two.
fn read_length(short: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, WsError> {
    let (len, bytes, least) = match short {
        126 => match rest.first_chunk::<2>() {
            Some(raw) => (u64::from(u16::from_be_bytes(*raw)), 2, 126),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(raw) => (u64::from_be_bytes(*raw), 8, 1 << 16),
            None => return Ok(None),
        },
        short => return Ok(Some((u64::from(short), 0))),
    };
    if len >> 63 != 0 {
        return Err(WsError::LengthOutOfRange(len));
    }
    if len < least {
        return Err(WsError::LengthNotMinimal { len, bytes });
    }
    Ok(Some((len, usize::from(bytes))))
}

/// Holds the message against its bound, from the announced length alone.
fn check_size(len: u64, opcode: Opcode, cx: Context) -> Result<usize, WsError> {
    let max = cx.limits.max_message;
    let (before, bound) =
        if opcode.is_control() { (0, MAX_CONTROL) } else { (cx.message.unwrap_or(0), max) };
    // No overflow: `len` is below 2^63 and `before` is a length in memory.
    let size = len + before as u64;
    if size > bound as u64 {
        return Err(WsError::MessageTooLarge { size, max });
    }
    Ok(usize::try_from(len).expect("the length is at most a bound that is a usize"))
}
