//! The incremental frame reader: shared read buffer in, events out.
//!
//! Here: the order of frames, and what is held between two reads ([`Partial`], which exists only
//! while a frame or message is partly read). Header rules are in `header.rs`, those of the payload
//! in `message.rs`.

use super::header::{self, Context, Header, MAX_HEADER};
use super::mask::{advance_key, apply_mask};
use super::message::{Found, Message};
use super::{Event, Limits, Role, WsError};

/// Reads one connection's frames. Idle it is 24 bytes and owns nothing: what is partly read lives
/// in one box that is dropped with the message's end.
///
/// ```
/// use roost_wire::ws::{Decoder, Event, Limits, Role};
///
/// let mut decoder = Decoder::new(Role::Client, Limits::new(1024));
/// let mut buffer = *b"\x81\x02hi\x89\x00"; // what one read from the socket gave
/// let mut at = 0;
/// let mut seen = Vec::new();
/// while at < buffer.len() {
///     let decoded = decoder.decode(&mut buffer[at..])?;
///     at += decoded.consumed;
///     seen.extend(decoded.event.map(Event::into_owned)); // handle it here, in place
/// }
/// assert_eq!(seen, [Event::Text("hi".into()), Event::Ping(b"".as_slice().into())]);
/// # Ok::<(), roost_wire::ws::WsError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    role: Role,
    /// After a close frame or an error: all further input is dropped unread.
    finished: bool,
    partial: Option<Box<Partial>>,
}

/// What one call of [`Decoder::decode`] did.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// Bytes of the input that are dealt with, at least one of a non-empty input, and all of them
    /// where `event` is `None`. Call again with the rest.
    pub consumed: usize,
    /// The next event, or `None` where more input is needed.
    pub event: Option<Event<'a>>,
}

/// Everything held between two reads.
#[derive(Debug, Default)]
struct Partial {
    /// The first bytes of a header that is not whole yet.
    head: [u8; MAX_HEADER],
    head_len: usize,
    /// The frame whose payload is being read; its `len` is what is still to come and its `mask`
    /// is turned to match the next byte.
    frame: Option<Header>,
    /// The payload so far of a control frame.
    control: Vec<u8>,
    /// The data message under way, over all its frames so far.
    message: Option<Message>,
}

// === impl Decoder ===

impl Decoder {
    /// A decoder at the start of a connection's frames.
    pub const fn new(role: Role, limits: Limits) -> Self {
        Self { limits, role, finished: false, partial: None }
    }

    /// Reads up to the next event. Payloads are unmasked in place: `input` is scratch space
    /// afterwards, apart from the event that borrows from it. Pass each byte once, in order.
    ///
    /// After [`Event::Close`] or an error all further input is consumed and ignored.
    pub fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<Decoded<'a>, WsError> {
        if self.finished {
            let consumed = input.len();
            return Ok(Decoded { consumed, event: None });
        }
        let result = self.next_event(input);
        let goes_on = result.as_ref().is_ok_and(|d| !matches!(d.event, Some(Event::Close { .. })));
        if !goes_on {
            self.finished = true;
            self.partial = None;
        }
        result
    }

    /// Changes the bound on messages from the next frame on.
    pub const fn set_max_message(&mut self, max_message: usize) {
        self.limits.max_message = max_message;
    }

    /// True between messages: nothing is partly read and no memory is held.
    pub const fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Bytes of heap held for what is partly read; 0 when idle.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            let message = partial.message.as_ref().map_or(0, |m| m.data.capacity());
            size_of::<Partial>() + partial.control.capacity() + message
        })
    }

    fn next_event<'a>(&mut self, input: &'a mut [u8]) -> Result<Decoded<'a>, WsError> {
        let (consumed, found) = self.find(input)?;
        let event = found.map(|found| found.into_event(input)).transpose()?;
        Ok(Decoded { consumed, event })
    }

    /// Reads frames until one completes something or the input ends.
    fn find(&mut self, input: &mut [u8]) -> Result<(usize, Option<Found>), WsError> {
        let mut at = 0;
        loop {
            let under_way = self.partial.as_mut().and_then(|p| p.frame.take());
            let fresh = under_way.is_none();
            let frame = if let Some(frame) = under_way {
                frame
            } else if let Some((frame, used)) = self.read_header(&input[at..])? {
                at += used;
                frame
            } else {
                return Ok((input.len(), None));
            };
            let end = at + frame.len.min(input.len() - at);
            apply_mask(&mut input[at..end], frame.mask);
            let payload = at..end;
            at = end;
            if fresh && payload.len() == frame.len && self.is_whole(&frame) {
                return Ok((at, Some(Found::InPlace(frame, payload))));
            }
            if let Some(found) = self.collect(frame, &input[payload])? {
                return Ok((at, Some(found)));
            }
            if at == input.len() {
                return Ok((at, None));
            }
        }
    }

    /// Whether the frame needs nothing but its own payload to be an event.
    fn is_whole(&self, frame: &Header) -> bool {
        frame.opcode.is_control() || (frame.fin && self.message_len().is_none())
    }

    fn message_len(&self) -> Option<usize> {
        let message = self.partial.as_ref()?.message.as_ref()?;
        Some(message.data.len())
    }

    /// The next header and the bytes of `input` it took, or `None` where it is not whole yet;
    /// then its beginning is put by.
    fn read_header(&mut self, input: &[u8]) -> Result<Option<(Header, usize)>, WsError> {
        let cx = Context { role: self.role, limits: self.limits, message: self.message_len() };
        let stashed = self.partial.as_ref().map_or(0, |p| p.head_len);
        if stashed == 0 {
            let parsed = header::parse(input, cx)?;
            if parsed.is_none() && !input.is_empty() {
                let partial = self.partial.get_or_insert_default();
                partial.head[..input.len()].copy_from_slice(input);
                partial.head_len = input.len();
            }
            return Ok(parsed);
        }
        let partial = self.partial.get_or_insert_default();
        let taken = input.len().min(MAX_HEADER - stashed);
        partial.head[stashed..stashed + taken].copy_from_slice(&input[..taken]);
        let parsed = header::parse(&partial.head[..stashed + taken], cx)?;
        let Some((frame, used)) = parsed else {
            partial.head_len += taken;
            return Ok(None);
        };
        partial.head_len = 0;
        self.drop_if_empty();
        Ok(Some((frame, used - stashed)))
    }

    /// Keeps `payload`, the next part of `frame`, and gives what it completes.
    fn collect(&mut self, mut frame: Header, payload: &[u8]) -> Result<Option<Found>, WsError> {
        let partial = self.partial.get_or_insert_default();
        frame.len -= payload.len();
        frame.mask = advance_key(frame.mask, payload.len());
        let frame_ends = frame.len == 0;
        let found = if frame.opcode.is_control() {
            partial.control.extend_from_slice(payload);
            frame_ends.then(|| Found::Control(frame.opcode, std::mem::take(&mut partial.control)))
        } else {
            let message = partial.message.get_or_insert_with(|| Message::new(&frame));
            // The last frame's end is known; before it the message may grow to the limit.
            let known_end = message.data.len() + payload.len() + frame.len;
            let most = if frame.fin { known_end } else { self.limits.max_message };
            message.push(payload, most)?;
            if frame.fin && frame_ends { partial.message.take().map(Found::Message) } else { None }
        };
        if !frame_ends {
            partial.frame = Some(frame);
        }
        self.drop_if_empty();
        Ok(found)
    }

    fn drop_if_empty(&mut self) {
        if self.partial.as_ref().is_some_and(|p| p.is_empty()) {
            self.partial = None;
        }
    }
}

// === impl Partial ===

impl Partial {
    /// Nothing of a header, frame or message is put by. (`control` is filled only under `frame`.)
    fn is_empty(&self) -> bool {
        self.head_len == 0 && self.frame.is_none() && self.message.is_none()
    }
}
