//! A payload on its way to an event: a message that came in parts, incremental UTF-8, and the
//! rules for close frames. The order of frames is in `decoder.rs`.

use std::borrow::Cow;
use std::ops::Range;

use super::header::Header;
use super::{DataKind, Event, Opcode, WsError};

/// A data message that did not come in one piece.
#[derive(Debug)]
pub(super) struct Message {
    kind: DataKind,
    rsv1: bool,
    /// Grows with what arrives, never by what is announced.
    pub(super) data: Vec<u8>,
    /// How many bytes of `data` are known to be whole UTF-8 characters (text only).
    valid: usize,
}

/// A finished frame or message, before it is an event. It holds a range, not a slice, so that
/// the loop that finds it can go on using the input.
pub(super) enum Found {
    /// It lies whole in the input.
    InPlace(Header, Range<usize>),
    /// A control frame that came in parts.
    Control(Opcode, Vec<u8>),
    /// A data message that came in parts.
    Message(Message),
}

// === impl Message ===

impl Message {
    pub(super) fn new(first: &Header) -> Self {
        Self {
            kind: match first.opcode {
                Opcode::Text => DataKind::Text,
                _ => DataKind::Binary,
            },
            rsv1: first.rsv1,
            data: Vec::new(),
            valid: 0,
        }
    }

    /// Appends what arrived; capacity at most doubles and never passes `most`, the largest
    /// length the message can reach as far as is known.
    pub(super) fn push(&mut self, payload: &[u8], most: usize) -> Result<(), WsError> {
        let need = self.data.len() + payload.len();
        if need > self.data.capacity() {
            let target = (self.data.capacity() * 2).min(most).max(need);
            self.data.reserve_exact(target - self.data.len());
        }
        self.data.extend_from_slice(payload);
        if self.kind == DataKind::Text && !self.rsv1 {
            self.check_text()?;
        }
        Ok(())
    }

    /// Checks what is new. At most three bytes, the beginning of a character, are seen twice, so
    /// a message in any number of parts costs linear time, and a bad byte is refused at once.
    fn check_text(&mut self) -> Result<(), WsError> {
        match std::str::from_utf8(&self.data[self.valid..]) {
            Ok(_) => self.valid = self.data.len(),
            Err(error) => {
                self.valid += error.valid_up_to();
                if error.error_len().is_some() {
                    return Err(WsError::TextNotUtf8 { at: self.valid });
                }
            }
        }
        Ok(())
    }
}

// === impl Found ===

impl Found {
    pub(super) fn into_event(self, input: &mut [u8]) -> Result<Event<'_>, WsError> {
        match self {
            Self::InPlace(frame, range) => {
                let payload = Cow::Borrowed(&input[range]);
                match frame.opcode {
                    Opcode::Text => data_event(DataKind::Text, frame.rsv1, payload),
                    Opcode::Binary | Opcode::Continuation => {
                        data_event(DataKind::Binary, frame.rsv1, payload)
                    }
                    control => control_event(control, payload),
                }
            }
            Self::Control(opcode, payload) => control_event(opcode, Cow::Owned(payload)),
            Self::Message(m) => data_event(m.kind, m.rsv1, Cow::Owned(m.data)),
        }
    }
}

fn data_event(kind: DataKind, rsv1: bool, payload: Cow<'_, [u8]>) -> Result<Event<'_>, WsError> {
    match kind {
        _ if rsv1 => Ok(Event::Extended { kind, payload }),
        DataKind::Binary => Ok(Event::Binary(payload)),
        DataKind::Text => text(payload).map(Event::Text).map_err(|at| WsError::TextNotUtf8 { at }),
    }
}

fn control_event(opcode: Opcode, payload: Cow<'_, [u8]>) -> Result<Event<'_>, WsError> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(payload)),
        Opcode::Pong => Ok(Event::Pong(payload)),
        _ => close_event(payload),
    }
}

fn close_event(payload: Cow<'_, [u8]>) -> Result<Event<'_>, WsError> {
    let Some(code) = payload.first_chunk::<2>() else {
        return Ok(Event::Close { code: None, reason: Cow::Borrowed("") });
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(WsError::CloseCode(code));
    }
    let reason = match payload {
        Cow::Borrowed(payload) => Cow::Borrowed(&payload[2..]),
        Cow::Owned(payload) => Cow::Owned(payload[2..].to_vec()),
    };
    let reason = text(reason).map_err(|_| WsError::CloseReasonNotUtf8)?;
    Ok(Event::Close { code: Some(code), reason })
}

/// The bytes as text, or where they stop being UTF-8.
fn text(payload: Cow<'_, [u8]>) -> Result<Cow<'_, str>, usize> {
    match payload {
        Cow::Borrowed(bytes) => {
            std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|error| error.valid_up_to())
        }
        Cow::Owned(bytes) => String::from_utf8(bytes)
            .map(Cow::Owned)
            .map_err(|error| error.utf8_error().valid_up_to()),
    }
}
