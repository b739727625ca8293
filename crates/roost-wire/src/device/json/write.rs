//! Writing JSON: a sink that counts or keeps, strings with escapes, objects field by field.
//!
//! Everything is written twice, first to count, so that a frame is one allocation of exactly its
//! size. Which fields a message has is in `write_message.rs`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use roost_types::{Headers, Payload, PayloadKind};

use crate::ws::{Opcode, encode_header, header_len};

/// Where JSON goes.
pub(super) trait Sink {
    /// These bytes as they are.
    fn raw(&mut self, bytes: &[u8]);
    /// These bytes in base64, which needs no escapes.
    fn base64(&mut self, data: &[u8]);
}

/// Writes one message; called once to count and once to keep.
type Write<'w> = &'w dyn Fn(&mut dyn Sink);

/// The text alone.
pub(super) fn to_vec(write: Write<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(size(write));
    write(&mut out);
    out
}

/// The text as an unmasked WebSocket frame.
pub(super) fn to_frame(write: Write<'_>) -> Bytes {
    let size = size(write);
    let mut out = Vec::with_capacity(header_len(size) + size);
    encode_header(Opcode::Text, size, &mut out);
    write(&mut out);
    out.into()
}

fn size(write: Write<'_>) -> usize {
    let mut count = Count(0);
    write(&mut count);
    count.0
}

/// Counts instead of keeping.
struct Count(usize);

impl Sink for Count {
    fn raw(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn base64(&mut self, data: &[u8]) {
        self.0 += base64_len(data);
    }
}

impl Sink for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn base64(&mut self, data: &[u8]) {
        let start = self.len();
        self.resize(start + base64_len(data), 0);
        STANDARD
            .encode_slice(data, &mut self[start..])
            .expect("the room is exactly what base64 with padding needs");
    }
}

fn base64_len(data: &[u8]) -> usize {
    data.len().div_ceil(3) * 4
}

/// Writes `text` with quotes and escapes.
pub(super) fn string(text: &str, sink: &mut dyn Sink) {
    sink.raw(b"\"");
    escaped(text, sink);
    sink.raw(b"\"");
}

/// Writes what stands between the quotes.
fn escaped(text: &str, sink: &mut dyn Sink) {
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        sink.raw(&bytes[written..at]);
        escape(byte, sink);
        written = at + 1;
    }
    sink.raw(&bytes[written..]);
}

fn escape(byte: u8, sink: &mut dyn Sink) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        b'"' | b'\\' => byte,
        _ => {
            let [high, low] = [byte >> 4, byte & 0xf].map(|digit| HEX[usize::from(digit)]);
            sink.raw(&[b'\\', b'u', b'0', b'0', high, low]);
            return;
        }
    };
    sink.raw(&[b'\\', short]);
}

/// An object that is being written.
pub(super) struct Object<'s> {
    sink: &'s mut dyn Sink,
    /// What stands before the next field.
    separator: &'static [u8],
}

// === impl Object ===

impl<'s> Object<'s> {
    /// Opens an object; [`Object::end`] must follow.
    pub(super) fn open(sink: &'s mut dyn Sink) -> Self {
        Self { sink, separator: b"{" }
    }

    /// Opens a message of this `type`.
    pub(super) fn message(sink: &'s mut dyn Sink, kind: &str) -> Self {
        let mut object = Self::open(sink);
        object.text("type", kind);
        object
    }

    /// The name of a field, a constant of ours or a header; its value must follow.
    pub(super) fn key(&mut self, name: &str) -> &mut dyn Sink {
        self.sink.raw(self.separator);
        self.separator = b",";
        string(name, self.sink);
        self.sink.raw(b":");
        self.sink
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        string(value, self.key(name));
    }

    /// A string in two parts.
    pub(super) fn joined(&mut self, name: &str, parts: [&str; 2]) {
        let sink = self.key(name);
        sink.raw(b"\"");
        for part in parts {
            escaped(part, sink);
        }
        sink.raw(b"\"");
    }

    pub(super) fn optional_text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub(super) fn number(&mut self, name: &str, mut value: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(value % 10).expect("a digit");
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.key(name).raw(&digits[at..]);
    }

    pub(super) fn optional_number(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }

    pub(super) fn boolean(&mut self, name: &str, value: bool) {
        self.key(name).raw(if value { b"true" } else { b"false" });
    }

    /// `payload`, `text` or `base64`, and `content_type` where it is not the default. A JSON
    /// payload is written as it came, byte for byte.
    pub(super) fn payload(&mut self, payload: &Payload) {
        match payload.kind() {
            PayloadKind::Json => self.key("payload").raw(payload.data()),
            PayloadKind::Text => self.text("text", payload.as_str().unwrap_or_default()),
            PayloadKind::Binary => {
                let sink = self.key("base64");
                sink.raw(b"\"");
                sink.base64(payload.data());
                sink.raw(b"\"");
            }
        }
        self.optional_text("content_type", payload.own_content_type());
    }

    /// An array, each element written by `element`.
    pub(super) fn array<T>(&mut self, name: &str, elements: &[T], element: fn(&T, &mut dyn Sink)) {
        let sink = self.key(name);
        sink.raw(b"[");
        for (index, value) in elements.iter().enumerate() {
            if index > 0 {
                sink.raw(b",");
            }
            element(value, sink);
        }
        sink.raw(b"]");
    }

    /// `headers`, where there are any.
    pub(super) fn headers(&mut self, headers: &Headers) {
        if headers.is_empty() {
            return;
        }
        let mut object = Object::open(self.key("headers"));
        for (name, value) in headers {
            object.text(name, value);
        }
        object.end();
    }

    /// Closes the object.
    pub(super) fn end(self) {
        // An object of which nothing was written has not been opened yet.
        self.sink.raw(if self.separator == b"{" { b"{}" } else { b"}" });
    }
}
